# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How restic is called, and what its answers mean: those of 0.14 by words, those since 0.17 by codes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.module_utils.backup import restic as module
from ansible_collections.fushuma.production.plugins.module_utils.backup.programs import Done, Failure
from ansible_collections.fushuma.production.plugins.module_utils.backup.restic import (
    Meaning,
    Refused,
    Restic,
    Snapshot,
    meaning_of,
    pattern,
    seconds_of,
    snapshots_in,
    summary_of,
    with_user,
    words_of,
)
from hypothesis import given
from hypothesis import strategies as st

from .backups import Host, made

ABSENT = "Fatal: unable to open config file: {}\nIs there a repository at the following location?\n/x"
LOCKED = "unable to create lock in backend: repository is already locked by PID 5 on web1 by root (UID 0, GID 0)"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return made(tmp_path, monkeypatch)


@pytest.fixture
def restic(host: Host) -> Restic:
    """One whose repository is there."""
    found = of(host)
    found.call(["init"])
    return found


def of(host: Host, attempts: int = 3, **changed: Any) -> Restic:
    host.config["limits"] = {"seconds": 20, "attempts": attempts}
    host.config["repositories"][0] |= changed
    settings = host.settings()
    return Restic(settings, settings.repositories[0], pause=lambda _: None)


@pytest.mark.parametrize(
    ("code", "said", "meaning"),
    [
        (0, "", Meaning.DONE),
        (1, "Fatal: wrong password or no key found", Meaning.PASSWORD),
        (1, ABSENT.format("stat /x/config: no such file or directory"), Meaning.ABSENT),
        (1, ABSENT.format("Lstat: file does not exist"), Meaning.ABSENT),
        (1, ABSENT.format("Stat: The specified key does not exist."), Meaning.ABSENT),
        (1, ABSENT.format("Stat: The specified bucket does not exist"), Meaning.ABSENT),
        (1, ABSENT.format("<config/> does not exist"), Meaning.ABSENT),
        (1, ABSENT.format("unexpected HTTP response (404): 404 Not Found"), Meaning.ABSENT),
        (1, ABSENT.format("Stat: dial tcp 127.0.0.1:9: connect: connection refused"), Meaning.FAILED),
        (1, LOCKED, Meaning.LOCKED),
        (1, "Fatal: repository contains errors", Meaning.DAMAGED),
        (1, "Fatal: something else", Meaning.FAILED),
        (2, "panic", Meaning.FAILED),
        (3, "", Meaning.INCOMPLETE),
        (10, "", Meaning.ABSENT),
        (11, "", Meaning.LOCKED),
        (12, "", Meaning.PASSWORD),
        (99, "", Meaning.FAILED),
        (124, "", Meaning.LIMIT),
        (127, "", Meaning.FAILED),
        (130, "", Meaning.CANCELLED),
        (137, "", Meaning.FAILED),
    ],
)
def test_what_an_end_means(code: int, said: str, meaning: Meaning) -> None:
    assert meaning_of(Done(code, "", said)) == meaning


@given(st.integers(-300, 300).filter(lambda code: code not in module.CODES), st.text())
def test_an_unknown_end_is_a_failure(code: int, said: str) -> None:
    assert meaning_of(Done(code, said, "")) not in (Meaning.DONE, Meaning.INCOMPLETE) or code == 0


@pytest.mark.parametrize(
    ("done", "words"),
    [
        (Done(1, "", "Fatal: one\n\ntwo\n"), "Fatal: one; two"),
        (Done(1, "out", ""), "out"),
        (
            Done(12, "", '{"message_type":"exit_error","code":12,"message":"Fatal: wrong\\npassword"}'),
            "Fatal: wrong password",
        ),
        (
            Done(3, "", '{"message_type":"error","error":{"message":"denied"},"during":"archival","item":"/x"}'),
            "/x: denied",
        ),
        (Done(3, "", '{"message_type":"error","error":"denied"}'), "denied"),
        (Done(3, "", '{"message_type":"error","error":{},"item":"/x"}'), "/x: it could not be read"),
        (
            Done(3, "", '{"message_type":"error","error":{"Op":"open","Path":"/x","Err":13},"item":"/x"}'),
            "/x: open: Permission denied",
        ),
        (Done(3, "", '{"message_type":"error"}\n{"message_type":"status"}\n{bad'), "None; {bad"),
        (Done(1, "", "same\nsame"), "same"),
    ],
)
def test_what_it_complains_of(done: Done, words: str) -> None:
    assert words_of(done) == words


def test_times_as_go_writes_them() -> None:
    assert seconds_of("2026-11-26T07:01:22.51091634Z") == pytest.approx(1795676482.510916)
    assert seconds_of("2026-11-26T08:01:22+01:00") == 1795676482


def test_snapshots_from_the_oldest() -> None:
    one = {
        "id": "b",
        "time": "2026-01-02T00:00:00Z",
        "hostname": "h",
        "tags": ["production-backup", "run=7"],
        "paths": ["/x"],
    }
    found = snapshots_in(json.dumps([one, {"id": "a", "time": "2026-01-01T00:00:00Z"}]))
    assert found[1] == Snapshot("b", 1767312000.0, "h", ("production-backup", "run=7"), ("/x",))
    assert [each.id for each in found] == ["a", "b"]
    assert [each.run for each in found] == ["", "7"]
    assert snapshots_in("null") == []


def test_the_summary_of_a_backup() -> None:
    lines = ['{"message_type":"status"}', "no JSON", '{"message_type":"summary","snapshot_id":"x"}']
    assert summary_of(Done(0, "\n".join(lines), ""))["snapshot_id"] == "x"
    assert summary_of(Done(0, "", "")) == {}


def test_patterns() -> None:
    assert pattern(r"/a*b?[c]\d") == r"/a\*b\?\[c]\\d"


def test_the_user_of_a_rest_server() -> None:
    told = {"RESTIC_REST_USERNAME": "u@x", "RESTIC_REST_PASSWORD": "p/w"}
    assert with_user("rest:https://host/web1/", told) == "rest:https://u%40x:p%2Fw@host/web1/"
    assert with_user("rest:https://host/", {}) == "rest:https://host/"
    assert with_user("/local", told) == "/local"


# --- how it is called -------------------------------------------------------------------------------------------------


def test_no_secret_is_in_a_command_line(host: Host) -> None:
    host.config["limits"] = {"upload_kib": 5, "download_kib": 6}
    found = of(host, ca="/ca.pem", options=["sftp.command=ssh x"])
    found.settings.folder.joinpath("near.environment.json").write_text('{"AWS_SECRET_ACCESS_KEY": "sesame"}')
    host.config["limits"] = {"upload_kib": 5, "download_kib": 6}
    limited = Restic(host.settings(), host.settings().repositories[0])
    argv = limited.argv(["snapshots"])
    assert argv[1:] == [
        *("--cacert=/ca.pem", "--limit-upload=5", "--limit-download=6", "--option=sftp.command=ssh x", "snapshots")
    ]
    environment = limited.environment()
    assert environment["AWS_SECRET_ACCESS_KEY"] == "sesame"
    assert environment["RESTIC_PASSWORD_FILE"] == str(host.root / "etc" / "near.password")
    assert "sesame" not in " ".join(argv)
    assert limited.scrubbed("key sesame at rest:https://me:word@host/") == "key *** at rest:https://***@host/"


def test_what_this_restic_can(host: Host, restic: Restic) -> None:
    assert restic.flags == {"tag"}
    assert restic.version() == "0.14.0"
    (host.bin / "restic").unlink()
    assert restic.version() == ""


def test_a_repository(host: Host, restic: Restic) -> None:
    assert len(restic.id()) == 64
    summary = restic.backup([str(host.root / "data")], ["production-backup", "run=1"], ["/x"])
    assert summary["data_added"] == 5
    assert host.calls("backup")[-1][:6] == [
        *("backup", "--json", "--quiet", "--host=web1", "--tag=production-backup,run=1", "--exclude=/x")
    ]
    [one] = restic.snapshots("web1")
    assert one.id.startswith(summary["snapshot_id"])
    assert restic.snapshots("other") == []
    assert len(restic.snapshots(tags=["run=1"])) == 1
    assert restic.snapshots(tags=["production-backup-safety", "run=1"]) == [one], "one of the tags is enough"
    restic.restore(one.id, host.root / "back", ["/etc/a*"], 5)
    assert host.calls("restore")[-1] == ["restore", one.id, f"--target={host.root}/back", r"--include=/etc/a\*"]
    restic.forget([one.id])
    assert restic.snapshots() == []


def test_another_password(host: Host, restic: Restic) -> None:
    (host.root / "other").write_text("wrong")
    other = Restic(restic.settings, restic.repository, password_file=host.root / "other")
    with pytest.raises(Refused, match="Repository near: the password does not open it") as refused:
        other.id()
    assert refused.value.meaning == Meaning.PASSWORD
    assert isinstance(refused.value, Failure)
    assert len(host.calls("cat")) == 1, "a wrong password is not tried again"


def test_a_network_that_comes_back(host: Host, restic: Restic) -> None:
    down = {"verb": "cat", "code": 1, "err": "Fatal: connection refused"}
    lines: list[str] = []
    restic.say = lines.append
    host.forced(down, down)
    assert restic.id()
    assert (
        lines
        == ["Repository near: restic failed (restic cat, exit code 1: Fatal: connection refused); trying again"] * 2
    )
    host.forced(down, down, down)
    with pytest.raises(Refused, match="connection refused"):
        restic.id()


def test_a_lock_of_a_process_that_is_gone(host: Host, restic: Restic) -> None:
    waited: list[float] = []
    restic.pause = waited.append
    host.forced({"verb": "snapshots", "code": 1, "err": LOCKED})
    assert restic.snapshots() == []
    assert [one[0] for one in host.calls()][-3:] == ["snapshots", "unlock", "snapshots"]
    assert not any("--remove-all" in one for one in host.calls("unlock"))
    assert waited == [], "it is there at once"


def test_a_lock_of_a_living_process(host: Host, restic: Restic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 1.0)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 3.0)
    waited: list[float] = []
    restic.pause = waited.append
    host.forced(*[{"verb": "snapshots", "code": 11, "err": LOCKED}] * 5)
    assert restic.snapshots() == []
    assert waited == [1.0, 2.0, 3.0, 3.0]
    monkeypatch.setattr(module, "FIRST_PAUSE", 1e6)
    host.forced(*[{"verb": "snapshots", "code": 11, "err": LOCKED}] * 5)
    with pytest.raises(Refused, match="the repository is locked by another process"):
        restic.snapshots()


def test_a_restic_that_does_not_end(host: Host, restic: Restic) -> None:
    (host.bin / "restic").write_text("#!/bin/sh\nwhile :; do sleep 0.01; done\n")
    with pytest.raises(Refused, match=r"did not end within its time \(restic cat, exit code 124") as refused:
        restic.id(seconds=0.2)
    assert refused.value.meaning == Meaning.LIMIT


def test_its_cache_is_for_root_alone(host: Host, restic: Restic) -> None:
    assert os.stat(restic.settings.cache).st_mode & 0o777 == 0o700
