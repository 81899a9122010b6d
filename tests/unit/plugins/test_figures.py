# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the programs of the exporters role find out, and how they write it down."""

from __future__ import annotations

import json
import socket
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.module_utils import journal
from ansible_collections.fushuma.production.plugins.module_utils.figures import (
    certificates,
    cli,
    containers,
    drift,
    system,
)
from ansible_collections.fushuma.production.plugins.module_utils.figures.text import Family, shown, write

# --- the format -------------------------------------------------------------------------------------------------------


def test_figures_as_node_exporter_reads_them() -> None:
    sizes = Family("size_bytes", "gauge", "How large it is.")
    sizes.add(12, name='a"b\\c\nd')
    sizes.add(0.5, name="", other="x")
    alone = Family("up", "gauge", "Whether.")
    alone.add(1)
    assert shown([sizes, Family("none", "counter", "Nothing."), alone]) == (
        "# HELP size_bytes How large it is.\n"
        "# TYPE size_bytes gauge\n"
        'size_bytes{name="a\\"b\\\\c\\nd"} 12\n'
        'size_bytes{name="",other="x"} 0.5\n'
        "# HELP up Whether.\n"
        "# TYPE up gauge\n"
        "up 1\n"
    )


def test_a_file_is_replaced_at_once(tmp_path: Path) -> None:
    target = tmp_path / "a.prom"
    target.write_text("before")
    family = Family("up", "gauge", "Whether.")
    family.add(1)
    write(target, [family])
    assert target.read_text().endswith("up 1\n")
    assert target.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["a.prom"]


# --- drift ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A host on which two services were brought into force, and a third one is at it."""
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "journal.py").write_text(Path(journal.__file__).read_text("utf-8"))
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    for service, paths in {"web": ["one", "two", "gone"], "data": ["one"], "busy": ["one"]}.items():
        digests = {str(tmp_path / name): journal.snapshot(str(tmp_path / name)).digest for name in paths}
        (folder / f"{service}.record").write_text(json.dumps({"files": digests}))
    (folder / "busy.journal").write_text("{}")
    (folder / "torn.record").write_text('{"fi')
    (folder / "odd.record").write_text("[]")
    return folder


def drifted(state: Path, *ignored: str) -> dict[str, int | float]:
    files, checked = drift.families(state, ignored, 7.0)
    assert checked.samples == [({}, 7.0)]
    return {labels["service"]: value for labels, value in files.samples}


def test_nothing_has_changed(state: Path) -> None:
    assert drifted(state) == {"data": 0, "web": 0}


def test_files_that_are_not_what_was_brought(state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "one").write_text("by hand")
    (tmp_path / "gone").write_text("is there")
    (tmp_path / "two").chmod(0o600)
    assert drifted(state) == {"data": 1, "web": 3}
    said = capsys.readouterr().out
    assert f"web: {tmp_path}/two is not what was brought into force" in said
    assert drifted(state, f"{tmp_path}/o*", f"{tmp_path}/gone") == {"data": 0, "web": 1}


def test_what_no_transaction_brings_counts_too(state: Path, tmp_path: Path) -> None:
    (tmp_path / "two").unlink()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "two"))
        assert drifted(state) == {"data": 0, "web": 1}


def test_a_host_without_transactions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert drift.families(tmp_path, [], 7.0) == []
    monkeypatch.setattr(drift.importlib.util, "spec_from_file_location", lambda *_given: None)
    assert drift.families(tmp_path, [], 7.0) == []


# --- certificates -----------------------------------------------------------------------------------------------------


def test_when_certificates_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("shop.test", "other.test"):
        (tmp_path / name).mkdir()
    argv = ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-keyout", "/dev/null", "-subj", "/CN=a"]
    path = tmp_path / "shop.test" / "chain.pem"
    subprocess.run([*argv, "-days", "3", "-out", str(path)], check=True, capture_output=True)
    (tmp_path / "other.test" / "chain.pem").write_text("none")
    (found,) = certificates.families([f"{tmp_path}/*/chain.pem", f"{tmp_path}/shop.test/*"])
    ((labels, ends),) = found.samples
    assert labels == {"name": "shop.test", "path": str(path)}
    assert abs(ends - path.stat().st_mtime - 3 * 86400) < 60
    monkeypatch.setenv("PATH", "/nowhere")
    assert certificates.expiry(str(path)) is None


# --- the system -------------------------------------------------------------------------------------------------------

SAID = """\
NOTE: This is only a simulation!
Inst base-files [12.4+deb12u8] (12.4+deb12u9 Debian:12.9/stable [amd64])
Inst libssl3 [3.0.14-1] (3.0.15-1 Debian:12.9/stable, Debian-Security:12/stable-security [amd64]) []
Inst openssl [3.0.14-1] (3.0.15-1 Debian:12.9/stable, Debian-Security:12/stable-security [amd64])
Inst linux-image-6.1.0-31-amd64 (6.1.128-1 Debian:12.9/stable [amd64])
Conf base-files (12.4+deb12u9 Debian:12.9/stable [amd64])
"""


def test_packages_that_wait() -> None:
    assert system.upgrades(SAID) == {
        ("Debian:12.9/stable", "amd64"): 1,
        ("Debian:12.9/stable,Debian-Security:12/stable-security", "amd64"): 2,
    }
    assert system.upgrades("") == {}


def test_what_is_told_of_the_system(tmp_path: Path) -> None:
    restart, pending, listed = system.families(tmp_path, "6.1.0-30-amd64", SAID)
    assert restart.samples == [({}, 0)]
    assert sum(value for _labels, value in pending.samples) == 3
    assert listed.samples == []
    assert system.families(tmp_path, "x", "")[1].samples == [({"origin": "", "arch": ""}, 0)]
    assert system.families(tmp_path, "x", None)[1].samples == []
    (tmp_path / "var/lib/apt/lists").mkdir(parents=True)
    ((_labels, fetched),) = system.families(tmp_path, "x", None)[2].samples
    assert fetched == (tmp_path / "var/lib/apt/lists").stat().st_mtime


def test_whether_a_restart_is_due(tmp_path: Path) -> None:
    assert not system.needs_restart(tmp_path, "6.1.0-30-amd64")
    (tmp_path / "vmlinuz").symlink_to("boot/vmlinuz-6.1.0-31-amd64")
    assert system.needs_restart(tmp_path, "6.1.0-30-amd64")
    assert not system.needs_restart(tmp_path, "6.1.0-31-amd64")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/reboot-required").touch()
    assert system.needs_restart(tmp_path, "6.1.0-31-amd64")


def test_apt_is_asked_and_may_be_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "SIMULATED", ("echo", SAID))
    assert system.upgrades(str(system.simulated())) == system.upgrades(SAID)
    monkeypatch.setattr(system, "SIMULATED", ("false",))
    assert system.simulated() is None
    monkeypatch.setattr(system, "SIMULATED", ("/nowhere/apt-get",))
    assert system.simulated() is None


# --- containers -------------------------------------------------------------------------------------------------------

WEB = {
    "Name": "/shop-web-1-a",
    "RestartCount": 2,
    "Config": {
        "Image": "production/shop:1f0e",
        "Labels": {"production.application": "shop", "production.process": "web"},
    },
    "State": {"Running": True, "Restarting": False, "Pid": 41, "Health": {"Status": "healthy"}},
    "HostConfig": {"Memory": 1024},
}
STOPPED = {
    "Name": "/by-hand",
    "Config": {"Image": "busybox", "Labels": None},
    "State": {"Running": False, "Pid": 0},
    "HostConfig": {},
}
COMMON = {"container": "shop-web-1-a", "app": "shop", "process": "web", "image": "production/shop:1f0e"}
OTHER = {"container": "by-hand", "app": "", "process": "", "image": "busybox"}


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """A host's /proc and its control groups."""
    (tmp_path / "proc/41").mkdir(parents=True)
    (tmp_path / "proc/41/cgroup").write_text("0::/system.slice/docker-1.scope\n")
    group = tmp_path / "cgroup/system.slice/docker-1.scope"
    group.mkdir(parents=True)
    (group / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")
    (group / "memory.current").write_text("900\n")
    (group / "memory.stat").write_text("anon 500\ninactive_file 300\n")
    return tmp_path


def samples(
    kernel: Path, killed: dict[str, int] | None, *given: dict[str, Any]
) -> dict[str, list[tuple[dict[str, str], float]]]:
    found = containers.families(given, killed, kernel / "proc", kernel / "cgroup")
    return {one.name.removeprefix("production_container_"): list(map(tuple, one.samples)) for one in found}  # type: ignore[misc]


def test_what_is_told_of_containers(kernel: Path) -> None:
    found = samples(kernel, {"shop-web-1-a": 3}, WEB, STOPPED)
    assert found["up"] == [(COMMON, 1), (OTHER, 0)]
    assert found["restarts_total"] == [(COMMON, 2), (OTHER, 0)]
    assert found["memory_bytes"] == [(COMMON, 600)]
    assert found["memory_limit_bytes"] == [(COMMON, 1024)]
    assert found["cpu_seconds_total"] == [(COMMON, 2.5)]
    assert found["oom_kills_total"] == [(COMMON, 3), (OTHER, 0)]
    assert found["health"] == [
        ({**COMMON, "status": "starting"}, 0),
        ({**COMMON, "status": "healthy"}, 1),
        ({**COMMON, "status": "unhealthy"}, 0),
    ]


def test_what_is_not_known_is_left_away(kernel: Path) -> None:
    group = kernel / "cgroup/system.slice/docker-1.scope"
    (group / "memory.current").unlink()
    (group / "cpu.stat").write_text("nothing")
    found = samples(kernel, None, WEB)
    assert [name for name, values in found.items() if values] == [
        "up",
        "memory_limit_bytes",
        "restarts_total",
        "health",
    ]
    (kernel / "proc/41/cgroup").write_text("4:memory:/docker/1\n")
    assert containers.group_of(kernel / "proc", 41) == ""
    assert containers.group_of(kernel / "proc", 42) == ""
    again = {**WEB, "State": {"Running": True, "Restarting": True, "Pid": 0, "Health": {"Status": "none"}}}
    found = samples(kernel, None, again)
    assert (found["up"], found["health"]) == ([(COMMON, 0)], [])


class Docker:
    """A daemon of two containers, one of which goes while it is asked."""

    def __init__(self, *events: tuple[int, str]) -> None:
        self.events = events

    def __call__(self, path: str) -> str:
        if path == "/containers/json?all=1":
            return json.dumps([{"Id": "1"}, {"Id": "2"}, {"Id": "3"}])
        if path.startswith("/events?"):
            rows = [{"time": when, "Actor": {"Attributes": {"name": name}}} for when, name in self.events]
            return "\n".join(map(json.dumps, rows))
        if path == "/containers/3/json":
            raise OSError("it has gone")
        return json.dumps({"1": WEB, "2": STOPPED}[path.split("/")[2]])


def test_kills_are_counted_from_one_call_to_the_next(
    kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, now = tmp_path / "memory.json", [100]
    monkeypatch.setattr(containers.time, "time", lambda: float(now[0]))

    def count(docker: Docker) -> list[float]:
        families = containers.read(docker, memory, kernel / "proc", kernel / "cgroup")
        (found,) = [one for one in families if one.name.endswith("oom_kills_total")]
        return [value for _labels, value in found.samples]

    # What was before the first call is nobody's.
    assert count(Docker((99, "by-hand"))) == [0, 0]
    now[0] = 130
    assert count(Docker((100, "by-hand"), (120, "by-hand"), (120, "gone"), (130, "shop-web-1-a"))) == [2, 0]
    now[0] = 160
    assert count(Docker((130, "shop-web-1-a"), (160, "shop-web-1-a"))) == [2, 1]
    assert "gone" not in memory.read_text()
    memory.write_text("[")
    assert count(Docker((130, "shop-web-1-a"))) == [0, 0]
    memory.write_text("[]")
    assert containers.remembered(memory) == {}


ANSWERS = {
    "/good": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
    "/bad": b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}",
    "/none": b"what?\r\n\r\n",
}


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        path = self.rfile.readline().split()[1].decode()
        while self.rfile.readline().strip():
            pass
        self.wfile.write(ANSWERS[path])


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[str]:
    path = str(tmp_path / "docker.sock")
    with socketserver.UnixStreamServer(path, Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield path
        server.shutdown()


def test_docker_is_asked_over_its_socket(daemon: str, tmp_path: Path) -> None:
    assert containers.asked("/good", daemon) == "[]"
    with pytest.raises(OSError, match="answers /bad with 404"):
        containers.asked("/bad", daemon)
    with pytest.raises(OSError, match="answer is none"):
        containers.asked("/none", daemon)
    with pytest.raises(OSError, match="No such file"):
        containers.asked("/good", str(tmp_path / "nobody"))


# --- the program ------------------------------------------------------------------------------------------------------


@pytest.fixture
def configured(tmp_path: Path) -> list[str]:
    wanted = ["host", "containers"]
    config = {"wanted": wanted, "folder": str(tmp_path), "docker": "/nowhere", "certificates": [], "ignored": []}
    (tmp_path / "figures.json").write_text(json.dumps(config))
    return [f"--config={tmp_path}/figures.json", f"--state={tmp_path}/state", f"--memory={tmp_path}/memory.json"]


def test_the_host(state: Path, tmp_path: Path, configured: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "SIMULATED", ("echo", SAID))
    assert cli.main(["host", *configured]) == 0
    written = (tmp_path / "production_host.prom").read_text()
    assert 'production_drift_files{service="web"} 0\n' in written
    assert "\nnode_reboot_required " in written
    assert 'apt_upgrades_pending{origin="Debian:12.9/stable",arch="amd64"} 1\n' in written


def test_containers(tmp_path: Path, configured: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "asked", lambda path, _at: Docker()(path))
    assert cli.main(["containers", *configured]) == 0
    assert 'production_container_up{container="by-hand"' in (tmp_path / "production_containers.prom").read_text()


def test_a_program_that_is_not_wanted_any_more_writes_nothing(
    tmp_path: Path, configured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where that came about while it was at work."""

    def asked(path: str, _at: str) -> str:
        config = json.loads((tmp_path / "figures.json").read_text())
        (tmp_path / "figures.json").write_text(json.dumps({**config, "wanted": ["host"]}))
        return Docker()(path)

    monkeypatch.setattr(containers, "asked", asked)
    assert cli.main(["containers", *configured]) == 0
    assert not (tmp_path / "production_containers.prom").exists()


def test_old_figures_are_not_shown_where_nobody_answers(
    tmp_path: Path, configured: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "production_containers.prom"
    target.write_text("old 1\n")
    assert cli.main(["containers", *configured]) == 1
    assert target.read_text() == ""
    assert "FileNotFoundError" in capsys.readouterr().err
