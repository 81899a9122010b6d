# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a machine gets its Docker engine, decided from facts; and what a killed engine may leave behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from testhosts import engine
from testhosts.common import Stop, run, wait_until
from testhosts.engine import Facts, Plan

PACKAGES = ("docker.io", "containerd", "runc", "iptables")


@pytest.mark.parametrize(
    ("facts", "plan"),
    [
        pytest.param(Facts(answers=True), Plan(way="use"), id="an engine answers"),
        pytest.param(
            Facts(answers=True, named_by_user="tcp://ci:2375", root=True, apt=True, cgroup_v1=True),
            Plan(way="use"),
            id="an engine answers, whatever else holds",
        ),
        pytest.param(
            Facts(answers=False, root=True, apt=True, systemd=True, missing=PACKAGES),
            Plan(way="systemctl", install=PACKAGES),
            id="bare Debian with systemd",
        ),
        pytest.param(
            Facts(answers=False, root=True, systemd=True), Plan(way="systemctl"), id="installed, unit is stopped"
        ),
        pytest.param(
            Facts(answers=False, root=True, apt=True, missing=("iptables",)),
            Plan(way="dockerd", install=("iptables",)),
            id="no systemd, cgroup v2",
        ),
        pytest.param(
            Facts(answers=False, root=True, apt=True, cgroup_v1=True),
            Plan(way="dockerd", own_cgroups=True),
            id="no systemd, cgroup v1",
        ),
    ],
)
def test_plan(facts: Facts, plan: Plan) -> None:
    assert engine.plan_for(facts) == plan


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (Facts(answers=False, named_by_user="tcp://ci:2375", root=True, apt=True), ("tcp://ci:2375", "DOCKER_HOST")),
        (Facts(answers=False, socket_refused=True), ("/var/run/docker.sock", "usermod -aG docker")),
        (Facts(answers=False, apt=True, missing=PACKAGES), ("only root",)),
        (Facts(answers=False, root=True, missing=("runc", "iptables")), ("runc, iptables", "without apt")),
    ],
)
def test_refusal_is_one_line_that_says_what_is_missing(facts: Facts, words: tuple[str, ...]) -> None:
    plan = engine.plan_for(facts)
    assert not plan.way
    assert "\n" not in plan.refusal
    assert [word for word in words if word not in plan.refusal] == []


@pytest.mark.parametrize(
    ("facts", "nothing"),
    [
        (Facts(answers=False, root=True), True),
        (Facts(answers=True), False),
        (Facts(answers=False, named_by_user="tcp://ci:2375"), False),
        (Facts(answers=False, socket_refused=True), False),
    ],
)
def test_an_engine_out_of_reach_may_still_run_hosts(facts: Facts, nothing: bool) -> None:
    assert engine.nothing_runs(facts) is nothing


@pytest.mark.parametrize(
    ("mountinfo", "found"),
    [
        ("31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n", False),
        ("32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n", True),
        ("33 31 0:30 / /mnt/cgroup rw - ext4 /dev/cgroup rw\n", False),
        ("34 31 0:31 / /a rw shared:1 master:2 - cgroup none rw\n", True),
        ("", False),
    ],
)
def test_mounts_cgroup_v1(mountinfo: str, found: bool) -> None:
    assert engine.mounts_cgroup_v1(mountinfo) is found


def test_dockerd_keeps_its_process_id_and_sees_its_own_cgroups() -> None:
    plain = engine.dockerd_command(own_cgroups=False)
    apart = engine.dockerd_command(own_cgroups=True)
    assert plain[0] == "dockerd"
    assert apart[:4] == ["unshare", "--mount", "--propagation", "private"]
    assert apart[-len(plain) :] == plain
    assert 'exec "$@"' in engine.OWN_CGROUPS


@pytest.mark.parametrize(
    ("status", "alive"),
    [
        ("Name:\tdockerd\nState:\tS (sleeping)\n", True),
        ("Name:\tdockerd\nState:\tZ (zombie)\n", False),
        ("Name:\tdockerd\nState:\tX (dead)\n", False),
        ("Name:\tbash\nState:\tR (running)\n", False),
        ("", False),
    ],
)
def test_is_alive(status: str, alive: bool) -> None:
    assert engine.is_alive(status, "dockerd") is alive


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_running_knows_a_process_from_its_zombie(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with subprocess.Popen(["sleep", "60"]) as process:
        pid_file.write_text(f"{process.pid}\n")
        # The child bears its parent's name until it has called exec.
        assert wait_until(lambda: engine.running(pid_file, "sleep") == process.pid, 5)
        assert engine.running(pid_file, "dockerd") is None
        os.kill(process.pid, signal.SIGKILL)
        assert wait_until(lambda: engine.running(pid_file, "sleep") is None, 5)  # nobody has collected it yet
    assert engine.running(pid_file, "sleep") is None


@pytest.mark.parametrize("content", [None, "", "not a number", "999999999"])
def test_running_without_a_process(tmp_path: Path, content: str | None) -> None:
    pid_file = tmp_path / "pid"
    if content is not None:
        pid_file.write_text(content)
    assert engine.running(pid_file, "dockerd") is None


@pytest.fixture
def leftovers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of what an engine leaves behind; short, because a socket's path is (unix(7))."""
    with TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        monkeypatch.setattr(engine, "PID_FILE", folder / "dockerd.pid")
        monkeypatch.setattr(engine, "CONTAINERD_PID_FILE", folder / "containerd.pid")
        monkeypatch.setattr(engine, "SYSTEM_CONTAINERD", folder / "containerd.sock")
        yield folder


FAILS = ["sh", "-c", "echo the reason >&2; exit 1"]
STAYS = ["sleep", "60"]


@pytest.fixture
def spawned(leftovers: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The processes that were started for engines; they end with the test."""
    monkeypatch.setattr(engine, "LOG", leftovers / "log")
    pids: list[int] = []
    spawn = os.posix_spawnp

    def posix_spawnp(*words: object, **options: object) -> int:
        pids.append(spawn(*words, **options))  # type: ignore[arg-type]
        return pids[-1]

    monkeypatch.setattr(os, "posix_spawnp", posix_spawnp)
    yield pids
    for pid in pids:
        if not engine.ended(pid):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_an_engine_that_ends_at_once_is_quoted(spawned: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "dockerd_command", lambda _own: FAILS)
    monkeypatch.setattr(engine, "answers", lambda: False)
    with pytest.raises(Stop, match="the reason"):
        engine.start_dockerd(own_cgroups=False)
    assert [engine.ended(pid) for pid in spawned] == [True]


def test_an_engine_that_answers_outlives_who_started_it(spawned: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "dockerd_command", lambda _own: STAYS)
    monkeypatch.setattr(engine, "answers", lambda: True)
    engine.start_dockerd(own_cgroups=False)
    assert [engine.ended(pid) for pid in spawned] == [False]
    assert [os.getsid(pid) for pid in spawned] == spawned


def test_an_engine_that_is_busy_gets_no_second(spawned: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "dockerd_command", lambda _own: FAILS)
    late = iter([False, False])
    monkeypatch.setattr(engine, "answers", lambda: next(late, True))
    monkeypatch.setattr(engine, "running", lambda *_which: 1)
    assert engine.start() == "use"
    assert spawned == []


def test_what_a_killed_engine_left_is_removed(leftovers: Path) -> None:
    (leftovers / "dockerd.pid").write_text(str(os.getpid()))
    (leftovers / "containerd.pid").write_text(str(os.getpid()))
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(leftovers / "containerd.sock"))
    engine.forget_killed_engine()
    assert list(leftovers.iterdir()) == []


def test_a_containerd_that_listens_is_left_alone(leftovers: Path) -> None:
    with socket.socket(socket.AF_UNIX) as alive:
        alive.bind(str(leftovers / "containerd.sock"))
        alive.listen()
        engine.forget_killed_engine()
    assert [path.name for path in leftovers.iterdir()] == ["containerd.sock"]


def test_a_program_that_fails_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(Stop) as stop:
        run(["sh", "-c", "seq 30; echo the reason >&2; exit 4"], tmp_path / "logs" / "log")
    lines = str(stop.value).splitlines()
    assert "sh failed with exit code 4" in lines[0]
    assert lines[-2:] == ["    30", "    the reason"]
    assert "    1" not in lines


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Stop, match="no-such-program is needed") as stop:
        run(["no-such-program"], tmp_path / "log")
    assert stop.value.code == 2
