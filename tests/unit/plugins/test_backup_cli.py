# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The command: its verbs, what people and machines are told, and how it ends."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.module_utils.backup import cli, drill, restore, runs, signals
from ansible_collections.fushuma.production.plugins.module_utils.backup.programs import Failure
from ansible_collections.fushuma.production.plugins.module_utils.backup.settings import Settings

from .backups import Host, made


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return made(tmp_path, monkeypatch)


@pytest.fixture
def settings(host: Host) -> Settings:
    return host.settings()


def verb(settings: Settings, name: str) -> dict[str, Any]:
    found: dict[str, Any] = signals.state(settings)["verbs"][name]
    return found


def test_the_life_of_a_host(settings: Settings, host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["opened"], settings) == 1
    assert "was not yet opened" in capsys.readouterr().err
    assert cli.main(["init"], settings) == 0
    assert capsys.readouterr().out == "Repository near: created\nRepository far: created\n"
    assert cli.main(["opened"], settings) == 0
    assert cli.main(["status"], settings) == 1
    assert "the last backup that went well was never" in capsys.readouterr().err
    assert cli.main(["run"], settings) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == ["Dumping MariaDB", "Saving Redis instance cache"]
    assert said[2].startswith("Repository near: 5 new bytes, ")
    assert verb(settings, "run")["problems"] == []
    assert verb(settings, "run")["started"] <= verb(settings, "run")["ended"]
    assert cli.main(["check"], settings) == 0
    assert cli.main(["prune"], settings) == 0
    capsys.readouterr()
    assert cli.main(["snapshots"], settings) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["near", "far"]
    assert cli.main(["snapshots", "--from", "far", "--json"], settings) == 0
    assert list(json.loads(capsys.readouterr().out)["repositories"]) == ["far"]
    signals.record(settings, "drills", "far", {"last_success": 5})
    signals.record(settings, "drills", "near", {"last_attempt": 5})
    assert cli.main(["status"], settings) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "far: backup 0.0 hours ago, check 0.0 hours ago; 1 snapshots"
    assert "far: drill" in said[2]
    assert said[3] == "near: drill never well"


def test_machines_are_told_in_one_document(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["init", "--json"], settings) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {
        "ok": True,
        "problems": [],
        "repositories": {"near": "created", "far": "created"},
    }
    assert "Repository near: created" in shown.err


def test_a_verb_that_fails(settings: Settings, host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    (host.bin / "down").touch()
    assert cli.main(["run", "--json"], settings) == 1
    shown = capsys.readouterr()
    told = json.loads(shown.out)
    assert not told["ok"]
    assert told["problems"] == verb(settings, "run")["problems"]
    assert "MariaDB does not answer" in shown.err


def test_files_of_backups_are_for_root_alone(settings: Settings) -> None:
    cli.main(["init"], settings)
    assert os.umask(0) == 0o077


@pytest.mark.parametrize("argv", [[], ["fly"], ["run", "fast"], ["restic"], ["failed"]])
def test_what_is_not_understood(argv: list[str], settings: Settings) -> None:
    assert cli.main(argv, settings) == 2


def test_help(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"], settings) == 0
    assert "back up now" in capsys.readouterr().out


def test_settings_of_the_host(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def load() -> Settings:
        raise Failure("/etc/production-backup/config.json cannot be read")

    monkeypatch.setattr(cli.Settings, "load", load)
    assert cli.main(["status"]) == 1
    assert capsys.readouterr().err == "/etc/production-backup/config.json cannot be read\n"


def test_a_unit_that_is_stopped(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> runs.Outcome:
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("it goes on")

    monkeypatch.setitem(cli.VERBS, "run", stopped)
    assert cli.main(["run"], settings) == 128 + signal.SIGTERM
    assert verb(settings, "run")["ended"] is None

    def left(*_: object) -> runs.Outcome:
        raise SystemExit("text")

    monkeypatch.setitem(cli.VERBS, "run", left)
    assert cli.main(["run"], settings) == 1


def test_a_verb_that_cannot_go_on(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> runs.Outcome:
        raise Failure("Another production-backup has not ended")

    monkeypatch.setitem(cli.VERBS, "check", fails)
    assert cli.main(["check"], settings) == 1
    assert capsys.readouterr().err == "Another production-backup has not ended\n"
    assert verb(settings, "check")["problems"] == ["Another production-backup has not ended"]


def test_what_could_not_be_told_fails_no_backup(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(signals, "tell", lambda *_: ["ping_url could not be told"])
    assert cli.main(["init"], settings) == 0
    assert "ping_url could not be told" in capsys.readouterr().out


def test_restic_by_hand(settings: Settings, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    class Became(Exception):
        pass

    called: list[Any] = []

    def execve(*args: Any) -> None:
        called.append(args)
        raise Became

    monkeypatch.setattr(os, "execve", execve)
    for argv in (["near", "--", "ls", "latest"], ["near", "ls", "latest"]):
        with pytest.raises(Became):
            cli.main(["restic", *argv], settings)
        program, args, environment = called.pop()
        assert (program, args) == (str(host.bin / "restic"), [str(host.bin / "restic"), "ls", "latest"])
        assert environment["RESTIC_REPOSITORY"] == str(host.root / "near")
    assert cli.main(["restic", "tape", "--", "ls"], settings) == 1


def test_restore_has_its_own_words(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[object] = []
    monkeypatch.setattr(restore, "main", lambda argv, given: called.append((argv, given)) or 7)
    assert cli.main(["restore", "--what", "everything"], settings) == 7
    assert called == [(["--what", "everything"], settings)]


@pytest.mark.parametrize("problems", [[], ["it took too long"]])
def test_a_drill_is_recorded_and_told_of(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    problems: list[str],
) -> None:
    def main(argv: list[str], given: Settings, found: list[str]) -> int:
        assert (argv, given) == (["--json"], settings)
        found += problems
        return len(problems)

    monkeypatch.setattr(drill, "main", main)
    monkeypatch.setattr(signals, "tell", lambda *_: ["untold"])
    assert cli.main(["drill", "--json"], settings) == len(problems)
    assert verb(settings, "drill")["problems"] == problems
    assert capsys.readouterr().err == ("" if problems else "untold\n")


# --- failed -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    monkeypatch.setattr(signals, "tell", lambda _, verb, problem: found.append((verb, problem)) or [])
    return found


def test_a_failure_is_told_with_its_reason(settings: Settings, host: Host, told: list[tuple[str, str]]) -> None:
    (host.bin / "down").touch()
    assert cli.main(["run"], settings) == 1
    assert told == [], "systemd calls failed"
    assert cli.main(["failed", "run"], settings) == 0
    assert told[0][0] == "run"
    assert told[0][1].startswith("MariaDB does not answer")


def test_what_was_killed_could_not_say_why(settings: Settings, told: list[tuple[str, str]]) -> None:
    signals.record(settings, "verbs", "run", {"started": 5, "ended": None, "problems": []})
    signals.record(settings, "repositories", "near", {"last_attempt": 5, "last_success": 4, "exit_code": 0})
    signals.record(settings, "repositories", "far", {"last_attempt": 5, "last_success": 6, "exit_code": 0})
    assert cli.main(["failed", "run"], settings) == 0
    problem = "it was ended before it could say why: see journalctl -u production-backup@run.service"
    assert told == [("run", problem)]
    assert signals.state(settings)["repositories"]["near"]["exit_code"] == 1
    assert signals.state(settings)["repositories"]["far"]["exit_code"] == 0
    assert problem in verb(settings, "run")["problems"]
    assert cli.main(["failed", "check"], settings) == 0


def test_a_failure_that_nobody_could_be_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(signals, "tell", lambda *_: ["mail_to could not be told"])
    assert cli.main(["failed", "run"], settings) == 1
    assert "mail_to could not be told" in capsys.readouterr().err
