# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Programs that end within their time and with the one that started them, and settings that can be read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.fushuma.production.plugins.module_utils.backup import programs
from ansible_collections.fushuma.production.plugins.module_utils.backup.programs import Done, Failure, run
from ansible_collections.fushuma.production.plugins.module_utils.backup.settings import Settings, Source


def until(condition: Callable[[], bool]) -> None:
    """Wait for what is about to be so."""
    limit = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_what_a_program_says() -> None:
    done = run(["/bin/sh", "-c", "read line; echo $line $MORE; echo bad >&2; exit 3"], seconds=20, text="said\n")
    assert (done.code, done.out, done.said) == (3, "said\n", "bad")
    assert (
        run(["/bin/sh", "-c", "echo $MORE; pwd"], seconds=20, environment={"MORE": "x"}, folder=Path("/")).out
        == "x\n/\n"
    )
    assert Done(1, " a\n\n b\n", "").said == "a; b"


def test_files_for_a_program(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("text")
    with (tmp_path / "in").open() as source, (tmp_path / "out").open("w") as target:
        done = run(["/bin/cat"], seconds=20, stdin=source, stdout=target)
    assert (done.code, done.out, (tmp_path / "out").read_text()) == (0, "", "text")


def test_a_program_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(["/not/there"], seconds=20).code == programs.NOT_THERE, "setpriv says so"
    monkeypatch.setattr(programs, "WITH_ITS_PARENT", ("/not/there",))
    done = run(["/bin/true"], seconds=20)
    assert done.code == programs.NOT_THERE
    assert "No such file" in done.err


def test_a_program_that_was_killed() -> None:
    assert run(["/bin/sh", "-c", "kill -9 $$"], seconds=20).code == 137


def test_a_program_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(["/bin/sh", "-c", "trap 'echo bye; exit 0' INT; echo hi; while :; do sleep 0.01; done"], seconds=0.3)
    assert (done.code, done.out) == (programs.TIMED_OUT, "hi\nbye\n")
    assert done.err == "ended after 0 s"
    monkeypatch.setattr(programs, "GRACE_SECONDS", 0.2)
    done = run(["/bin/sh", "-c", "trap '' INT; echo $$; while :; do sleep 0.01; done"], seconds=0.3)
    assert done.code == programs.TIMED_OUT
    until(lambda: not Path(f"/proc/{done.out.strip()}").exists())


def test_a_program_ends_when_nobody_waits_for_it_any_more(tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    def enough(*_: object) -> None:
        raise Enough

    former = signal.signal(signal.SIGALRM, enough)
    try:
        until_there = f"echo $$ > {tmp_path}/pid; while :; do sleep 0.01; done"
        waiting = threading.Thread(
            target=lambda: (until((tmp_path / "pid").exists), os.kill(os.getpid(), signal.SIGALRM))
        )
        waiting.start()
        with pytest.raises(Enough):
            run(["/bin/sh", "-c", until_there], seconds=20)
        waiting.join()
    finally:
        signal.signal(signal.SIGALRM, former)
    until(lambda: not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists())


def test_a_program_is_killed_with_its_parent(tmp_path: Path) -> None:
    script = f"echo $$ > {tmp_path}/pid; while :; do sleep 0.01; done"
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from backup import programs; "
        "programs.run(['/bin/sh', '-c', sys.argv[2]], seconds=60)"
    )
    folder = Path(programs.__file__).parents[1]
    parent = subprocess.Popen([sys.executable, "-c", code, str(folder), script])
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().endswith("\n"))
    parent.kill()
    parent.wait()
    until(lambda: not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists())


def test_an_end_that_came_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    process = subprocess.Popen(["/bin/true"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def gone(*_: object) -> None:
        raise ProcessLookupError

    monkeypatch.setattr(os, "killpg", gone)
    assert programs._end(process) == ("", "")
    programs._signal(process, signal.SIGKILL)


# --- settings ---------------------------------------------------------------------------------------------------------


def written(folder: Path, config: object, signals: object = None) -> Settings:
    (folder / "config.json").write_text(json.dumps(config))
    if signals is not None:
        (folder / "signals.json").write_text(json.dumps(signals))
    return Settings.load(folder, folder / "data", folder / "cache")


def test_settings(tmp_path: Path) -> None:
    settings = written(
        tmp_path,
        {
            "host": "web1",
            "repositories": [
                {"name": "near", "location": "/near", "purposes": ["backup"], "options": ["a=b"]},
                {"name": "far", "location": "s3:https://x/y", "offsite": True},
            ],
            "sources": [{"kind": "mariadb", "databases": ["shop"]}],
            "exclude": ["*.tmp"],
            "hooks": {"before": [["a", "b"]], "after": [["c"]]},
            "limits": {"attempts": 2},
            "targets": {"rpo_seconds": 5, "rto_seconds": 6},
            "drill": {"queries": [{"database": "shop", "query": "SELECT 1"}]},
            "textfile": "/text",
            "mail_to": "root",
        },
        {"ping": "https://ping"},
    )
    assert settings.repository("far").offsite
    assert [one.name for one in settings.for_purpose("prune")] == ["far"]
    assert settings.repository("near").options == ("a=b",)
    assert settings.sources == (Source("mariadb", databases=("shop",)),)
    assert (settings.before, settings.after) == ((("a", "b"),), (("c",),))
    assert (settings.limits.attempts, settings.limits.seconds) == (2, 43200)
    assert (settings.rpo_seconds, settings.rto_seconds, settings.queries[0].at_least) == (5, 6, 1)
    assert (settings.textfile, settings.mail_to, settings.signals.ping) == ("/text", "root", "https://ping")
    inside = (settings.stage, settings.listings, settings.state, settings.opened, settings.drills, settings.restored)
    assert all(one.parent == tmp_path / "data" for one in (*inside, settings.lock))
    assert written(tmp_path, {"host": "web1"}).rpo_seconds == 93600
    with pytest.raises(Failure, match="There is no repository tape: this host has near, far"):
        settings.repository("tape")


@pytest.mark.parametrize(
    "config", [{}, {"host": "a", "repositories": [{"name": "b"}]}, {"host": "a", "limits": {"x": 1}}, []]
)
def test_settings_that_cannot_be_used(tmp_path: Path, config: object) -> None:
    with pytest.raises(Failure, match=r"config\.json cannot be used .*: run the role backup again"):
        written(tmp_path, config)


def test_settings_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"config\.json cannot be read: No such file or directory"):
        Settings.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(Failure, match=r"config\.json is no JSON"):
        Settings.load(tmp_path)


def test_sources_as_file_names() -> None:
    assert Source("path", path="/etc").name == "path-%2Fetc"
    assert Source("volume", volume="shop_uploads").name == "volume-shop_uploads"
    assert Source("mariadb").name == "mariadb"
    names = {Source("path", path="/" + "x" * 300 + end).name for end in "ab"}
    assert len(names) == 2
    assert all(len(name) < 240 for name in names)
