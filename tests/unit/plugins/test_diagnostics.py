# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is gathered for an incident: within bounds, without secrets, and with what stands out said first."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.module_utils import diagnostics
from ansible_collections.fushuma.production.plugins.module_utils.diagnostics import (
    Answer,
    Bundle,
    Question,
    ask,
    findings,
    gather,
    questions,
    write,
)
from ansible_collections.fushuma.production.plugins.module_utils.journal import Store, snapshot
from ansible_collections.fushuma.production.plugins.modules import diagnostics as module

from .modules import run_module

CANARY = "canary-Zk7vQ2mXb9Lr4TnY"

# --- one program ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "answer"),
    [
        ("echo out; echo err >&2", Answer("out\nerr\n")),
        ("echo said; exit 3", Answer("said\n", "ended with 3")),
        ("printf 'a\\377b'", Answer("a\ufffdb")),
        ("echo said; exec sleep 60", Answer("said\n", "did not end within 0.5 s")),
        ("echo said; (trap '' TERM HUP; sleep 60) & exec sleep 60", Answer("said\n", "did not end within 0.5 s")),
        # It has closed its output and goes on.
        ("echo said; exec >&- 2>&-; sleep 60", Answer("said\n", "did not end within 0.5 s")),
    ],
)
def test_a_program_and_its_bounds(script: str, answer: Answer) -> None:
    began = time.monotonic()
    assert ask(["sh", "-c", script], 0.5) == answer
    assert time.monotonic() - began < 5


def test_a_program_that_is_not_there() -> None:
    assert ask(["/does/not/exist"]) == Answer("", "could not be started: No such file or directory")


@pytest.mark.parametrize("lines", [200, 20_000])
def test_the_end_of_what_is_said_too_much_in_whole_lines(lines: int) -> None:
    answer = ask(["seq", "-f", "line %g", str(lines)], 20, 1000)
    assert answer.text.endswith(f"line {lines}\n")
    assert 900 < len(answer.text) <= 1000
    assert answer.text.startswith("line ")
    assert answer.note == f"only the last {len(answer.text)} bytes are here"
    assert ask(["printf", "a" * 3000], 20, 1000) == Answer("", "only the last 0 bytes are here")


def test_what_cannot_be_killed_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    killed, processes = [], []

    def kill(group: int, number: int) -> None:
        killed.append((group, number))
        raise ProcessLookupError

    monkeypatch.setattr(diagnostics.os, "killpg", kill)

    def wait(self: Any, timeout: float | None = None) -> int:
        processes.append(self)
        raise subprocess.TimeoutExpired("sleep", timeout or 0)

    monkeypatch.setattr(subprocess.Popen, "wait", wait)
    answer = ask(["sleep", "30"], 0.1)
    monkeypatch.undo()
    assert answer.note == "did not end within 0.1 s"
    ((group, number),) = killed
    assert number == signal.SIGKILL
    os.killpg(group, signal.SIGKILL)
    assert processes[0].wait() == -signal.SIGKILL


# --- what is asked ----------------------------------------------------------------------------------------------------


def test_units_and_logs_are_asked_for_once() -> None:
    logs = [{"path": "/var/log/nginx/access.log"}, {"unit": "b.service"}, {"path": "/var/log/nginx/access.log"}]
    asked = list(questions(["a@1.service", "b.service"], logs, "1 hour ago"))
    files = [one.file for one in asked]
    assert len(set(files)) == len(files)
    assert files[-3:] == ["logs/a@1.service", "logs/b.service", "logs/var_log_nginx_access.log"]
    (status,) = [one for one in asked if one.file == "state/units"]
    assert status.argv[-3:] == ["--", "a@1.service", "b.service"]
    assert all("--since=1 hour ago" in one.argv for one in asked if one.argv[0] == "journalctl")
    assert "state/units" not in [one.file for one in questions([], [], "today")]


def test_a_bundle_has_bounds() -> None:
    bundle = Bundle(seconds=60, most=10)
    assert bundle.ask(Question("one", ["echo", "12345"])) == "12345\n"
    assert bundle.ask(Question("two", ["echo", "67890"])) == "67890\n"
    bundle.ask(Question("three", ["false"]))
    assert bundle.texts == {"one": "12345\n", "three": ""}
    assert bundle.notes == ["two is left out: all of it would be more than 10 bytes", "`false` ended with 1"]
    late = Bundle(seconds=0)
    assert late.ask(Question("one", ["echo", "12345"])) == ""
    assert (late.texts, late.notes) == ({}, ["`echo 12345` was not asked: the 0 s for all of it were over"])


def test_the_archive_is_for_root_alone(tmp_path: Path) -> None:
    path = write({"state/a": "text\n", "odd": "\ud800"}, "web1-now", str(tmp_path))
    assert os.stat(path).st_mode & 0o777 == 0o600
    with tarfile.open(path) as archive:
        assert [(one.name, one.mode) for one in archive] == [
            ("web1-now/state/a.txt", 0o600),
            ("web1-now/odd.txt", 0o600),
        ]
        content = archive.extractfile("web1-now/state/a.txt")
        assert content is not None
        assert content.read() == b"text\n"


# --- all of it --------------------------------------------------------------------------------------------------------

ROWS = [
    {"ID": "1", "Names": "shop-web-1", "State": "running", "Status": "Up", "Labels": "production.application=shop"},
    {
        "ID": "2",
        "Names": "shop-job",
        "State": "exited",
        "Status": "Exited (1)",
        "Labels": "production.application=shop",
    },
    {"ID": "3", "Names": "other", "State": "running", "Status": "Up 2 days (unhealthy)", "Labels": ""},
    {"ID": "4", "Names": "fine", "State": "exited", "Status": "Exited (0)", "Labels": "a=b"},
]
INSPECTED = [
    {"Id": "1", "Config": {"Env": ["API_KEY=canary-of-the-env", "PLAIN=canary-plain"], "Image": "shop"}},
    {"Id": "2", "Config": None},
]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Answer]:
    """What programs say, by the words that begin their command lines; and a docker to be found."""
    answers: dict[str, Answer] = {
        "docker ps": Answer("".join(json.dumps(row) + "\n" for row in ROWS)),
        "docker container inspect": Answer(json.dumps(INSPECTED)),
        "docker logs": Answer("it begins with canary-of-the-env\n"),
    }

    def ask(argv: Sequence[str], seconds: float = 0, most: int = 0) -> Answer:
        said = " ".join(argv)
        return next((one for words, one in answers.items() if said.startswith(words)), Answer(""))

    monkeypatch.setattr(diagnostics, "ask", ask)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return answers


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


def record(state: Path, name: str, *paths: str | Path) -> None:
    Store(name, state).record({str(path): snapshot(str(path)).digest for path in paths})


def test_what_containers_are_and_say(told: dict[str, Answer], state: Path) -> None:
    texts, outstanding = gather([], [], "today", [], state=state)
    assert "canary" not in json.dumps(texts)
    inspected = json.loads(texts["docker/inspect"])
    assert inspected[0]["Config"] == {"Env": ["API_KEY=***", "PLAIN=***"], "Image": "shop"}
    assert texts["docker/logs/shop-web-1"] == "it begins with ***\n"
    assert "docker/logs/other" not in texts
    assert outstanding == ["container shop-job: Exited (1)", "container other: Up 2 days (unhealthy)"]
    assert texts["summary"].splitlines()[1:] == outstanding


def test_an_engine_that_answers_nonsense(told: dict[str, Answer], state: Path) -> None:
    told["docker container inspect"] = Answer("no JSON", "")
    assert "`docker container inspect` gives no JSON" in gather([], [], "today", [], state=state)[1]
    told["docker container inspect"] = Answer("", "did not end within 10 s")
    assert "`docker container inspect` did not end within 10 s" in gather([], [], "today", [], state=state)[1]
    told["docker ps"] = Answer("Cannot connect\n", "ended with 1")
    texts, outstanding = gather([], [], "today", [], state=state)
    assert "docker/inspect" not in texts
    assert len(outstanding) == 1


def test_more_containers_than_are_looked_at(told: dict[str, Answer], state: Path) -> None:
    row = json.dumps({**ROWS[0], "State": "running"}) + "\n"
    told["docker ps"] = Answer(row * 31)
    assert gather([], [], "today", [], state=state)[1] == ["of 31 containers the first 30 are looked at"]


def test_a_host_without_docker(monkeypatch: pytest.MonkeyPatch, told: dict[str, Answer], state: Path) -> None:
    monkeypatch.setenv("PATH", "/does/not/exist")
    texts, outstanding = gather(["a.service"], [], "today", [], state=state)
    assert not [name for name in texts if name.startswith("docker")]
    assert (outstanding, texts["summary"]) == ([], "Nothing stands out.\n")


def test_known_secrets_are_nowhere(told: dict[str, Answer], state: Path) -> None:
    told["journalctl"] = Answer(f"one says {CANARY}\n", f"ended with {CANARY}")
    texts, outstanding = gather(["a.service"], [], "today", [CANARY], state=state)
    assert CANARY not in json.dumps([texts, outstanding])
    assert texts["logs/a.service"] == "one says ***\n"


def test_configuration_is_what_others_may_read_too(
    monkeypatch: pytest.MonkeyPatch, told: dict[str, Answer], tmp_path: Path, state: Path
) -> None:
    files = {name: tmp_path / name for name in ("seen", "hidden", "changed", "binary", "large", "gone")}
    for name, path in files.items():
        path.write_text(f"{name} text\n", "utf-8")
    files["hidden"].chmod(0o640)
    files["binary"].write_bytes(b"a\0b")
    files["large"].write_text("x" * (diagnostics.LARGEST_FILE + 1), "utf-8")
    record(state, "web", *files.values())
    files["changed"].write_text("by hand\n", "utf-8")
    files["gone"].unlink()
    (state / "none.record").write_text("no JSON", "utf-8")
    (state / "db.journal").touch()
    application = state / "applications" / "shop"
    application.mkdir(parents=True)
    (application / "1.web.env").write_text("API_KEY=canary-of-a-file\nPLAIN=canary-plain\n", "utf-8")
    os.mkfifo(tmp_path / "fifo")
    Store("odd", state).record({str(tmp_path / "fifo"): "x"})
    monkeypatch.setattr(diagnostics, "SHOWN", str(tmp_path))

    texts, outstanding = gather([], [], "today", [], state=state)
    shown = {name.removeprefix(f"configuration{tmp_path}/"): text for name, text in texts.items()}
    assert (shown["seen"], shown["changed"]) == ("seen text\n", "by hand\n")
    assert not {"hidden", "binary", "large", "gone"} & shown.keys()
    assert texts[f"configuration{application}/1.web.env"] == "API_KEY=***\nPLAIN=***\n"
    assert f"web: {files['hidden']} file 0640" in texts["configuration/records"]
    assert outstanding[:3] == [
        f"{files['changed']} is not as web was activated with",
        f"{files['gone']} is not as web was activated with",
        "db.journal is a change under way, or one that was cut short",
    ]
    assert [one for one in outstanding if "fifo cannot be read" in one] != []


# --- what stands out --------------------------------------------------------------------------------------------------

STATUS = """\
● nginx.service - A server
     Loaded: loaded (/lib/systemd/system/nginx.service; enabled)
     Active: active (running) since today

Nov 26 03:00:00 web1 systemd[1]: Started

○ redis-server@cache.service - Redis
     Loaded: loaded
     Active: inactive (dead)

× worker.service - Worker
     Active: failed (Result: exit-code)
"""
DISKS = """\
Filesystem     Type  Size  Used Avail Use% Inodes IFree IUse% Mounted on
/dev/sda1      ext4   20G   19G  1.0G  95%    1M  100K   92% /
/dev/sdb1      vfat  512M   10M  502M   2%     0     0    - /boot/efi
"""


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ({}, []),
        ({"state/failed": "worker.service loaded failed failed Worker\n\n"}, ["worker.service has failed"]),
        ({"state/units": STATUS}, ["redis-server@cache.service is not active", "worker.service is not active"]),
        (
            {"state/units": STATUS, "state/failed": "worker.service loaded failed\n"},
            ["worker.service has failed", "redis-server@cache.service is not active"],
        ),
        ({"state/units": "Unit none.service could not be found.\n"}, []),
        ({"state/disks": DISKS}, ["/ has used 95% of its space", "/ has used 92% of its inodes"]),
        ({"state/disks": "Filesystem\ndf: broken\n"}, []),
        ({"state/uptime": " 03:00 up 1 day,  load average: 99.50, 6.16, 6.08"}, ["the load is 99.50"]),
        ({"state/uptime": " 03:00 up 1 day,  load average: 0.10, 6.16, 6.08"}, []),
        (
            {"state/memory": "MemTotal:     1024000 kB\nMemFree: 1 kB\nMemAvailable:    51200 kB\n"},
            ["of 1000 MiB of memory 50 MiB are available"],
        ),
        ({"state/memory": "MemTotal:     1024000 kB\nMemAvailable:    512000 kB\n"}, []),
        (
            {"logs/kernel": "Out of memory: Killed process 1 (a)\nMemory cgroup out of memory: Killed process 2 (a)"},
            ["the kernel has killed for want of memory: a (2 times)"],
        ),
        (
            {
                "logs/access": '{"status":502}\n{"status":200}\n',
                "logs/other": '{"status":404}\n',
                "state/x": '"status":500',
            },
            ["1 of the last 2 answers in logs/access have a status from 500 on"],
        ),
    ],
)
def test_what_stands_out(texts: dict[str, str], said: list[str]) -> None:
    found = [one for one in findings(texts) if "booted" not in one]
    assert len(found) == len(said)
    assert all(one.startswith(words) for one, words in zip(found, said, strict=True)), found


def test_a_host_that_asks_to_be_booted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics.os.path, "exists", lambda path: path == "/run/reboot-required")
    assert findings({}) == ["the host asks to be booted again"]


# --- the module -------------------------------------------------------------------------------------------------------


@pytest.fixture
def gathered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    def gather(*args: Any, bundle: Bundle) -> tuple[dict[str, str], list[str]]:
        return {"summary": f"{args} {bundle.seconds}"}, ["it is full"]

    monkeypatch.setattr(module, "gather", gather)
    monkeypatch.setattr(module, "ask", lambda argv: Answer("", "ended with 1" if "soon" in argv else ""))
    monkeypatch.setattr(module, "write", lambda texts, name: write(texts, name, str(tmp_path)))
    return gather


def test_an_archive_is_left(gathered: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    result = run_module(module.main, capsys, units=["a.service"], secrets=[CANARY], timeout=7)
    assert (result["changed"], result["findings"]) == (True, ["it is full"])
    assert Path(result["path"]).parent == tmp_path
    with tarfile.open(result["path"]) as archive:
        (member,) = archive.getmembers()
    assert member.name == f"{os.uname().nodename}-{result['time']}/summary.txt"
    assert CANARY not in json.dumps(result["invocation"])


def test_none_is_left_in_check_mode(gathered: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    result = run_module(module.main, capsys, check=True)
    assert (result["changed"], result["path"], result["findings"]) == (False, "", ["it is full"])
    assert list(tmp_path.iterdir()) == []


def test_a_time_that_is_none(gathered: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert 'since is "soon"' in run_module(module.main, capsys, since="soon")["msg"]


def test_no_place_for_the_archive(
    gathered: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(texts: Any, name: str) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write", full)
    result = run_module(module.main, capsys)
    assert "No space left" in result["msg"]
    assert result["findings"] == ["it is full"]
