# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Docker's configuration on a host made of a folder: what is refused, and in which order the daemon hears of it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.action import docker_config as action
from ansible_collections.fushuma.production.plugins.module_utils import docker, docker_api, packages
from ansible_collections.fushuma.production.plugins.module_utils.journal import Store, TransactionError
from ansible_collections.fushuma.production.plugins.module_utils.transaction import File, Outcome, Service
from ansible_collections.fushuma.production.plugins.modules import docker_config as module

from .conftest import Api, Host
from .modules import run_module

LIVE = {"live-restore": True}
# A daemon that reads its settings when it is reloaded or restarted, as far as these tests ask about them.
CLIENT = """\
[ "$1" = info ] || exit 0
grep -qs reload-or-restart "$(dirname "$0")/log" && echo live-restore true || cat "$0.keeps"
"""
DAEMON = """\
[ "$1" = unshare ] && shift
case "$*" in
  *--validate*)
    [ -e "$0.old" ] && { echo "Status: unknown flag: --validate"; echo "See 'dockerd --help'., Code: 125"; exit 125; }
    grep -q nonsense "$3" && { echo warning; echo "unable to configure with file $3: no option: nonsense"; exit 1; }
    echo configuration OK ;;
  *)
    cp "$2" "$0.read"
    grep -q nonsense "$2" && { echo "unable to configure with file $2: no option: nonsense"; exit 1; }
    echo "failed to start daemon: pid file found, ensure docker is not running or delete $4"; exit 1 ;;
esac
"""


@pytest.fixture
def machine(host: Host, docker_daemon: type[Api], monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host on which Docker runs that would take its containers along."""
    monkeypatch.setattr(docker, "ANSWERS", replace(docker.ANSWERS, socket=docker_api.SOCKET))
    return with_docker(host, monkeypatch)


def with_docker(host: Host, monkeypatch: pytest.MonkeyPatch) -> Host:
    for name in ("group", "gshadow"):
        host.write(f"etc/{name}", "root:x:0:\ndocker:x:999:nobody,daemon\nusers:x:100:\n")
    monkeypatch.setattr(docker, "CONFIG", str(host.path("etc/docker/daemon.json")))
    monkeypatch.setattr(docker, "DATA_ROOT", str(host.path("data")))
    monkeypatch.setattr(docker, "GROUP_FILES", (str(host.path("etc/group")), str(host.path("etc/gshadow"))))
    monkeypatch.setattr(docker, "PROGRAMS", str(host.bin))
    monkeypatch.setattr(packages, "missing", lambda names: [name for name in names if name != "installed"])
    host.program("docker", CLIENT)
    host.program("dockerd", DAEMON)
    host.program("unshare", 'shift; exec "$@"')
    (host.bin / "docker.keeps").write_text("live-restore false\n")
    host.unit(docker.UNIT, active=True, enabled=True)
    host.unit(docker.PRUNE_TIMER, active=True, enabled=True)
    return host


def store(host: Host) -> Callable[[str], Store]:
    return lambda name: Store(name, host.store.state)


def base(config: dict[str, Any]) -> Service:
    content = json.dumps(config).encode()
    reloaded = ("labels", "live-restore")
    return Service("docker", [File(docker.CONFIG, content, merge_json=1, on_change="restart", reload_keys=reloaded)])


def run(host: Host, config: dict[str, Any] | None = None, *, check: bool = False, **wanted: Any) -> Outcome:
    given = {"operators": ["root"], **wanted}
    return docker.converged(base(LIVE if config is None else config), docker.Wanted(**given), store(host), check=check)


def refused(host: Host, config: dict[str, Any], words: str, **wanted: Any) -> None:
    """In a dry run as in a real one, with nothing touched."""
    before = host.tree()
    for check in (True, False):
        with pytest.raises(TransactionError, match=words):
            run(host, config, check=check, **wanted)
    assert (host.tree(), host.commands()) == (before, [])


# --- containers -------------------------------------------------------------------------------------------------------


def test_containers_are_kept_before_the_daemon_is_restarted(machine: Host) -> None:
    machine.write("etc/docker/daemon.json", '{"mtu": 1400}')
    foreseen = run(machine, LIVE | {"icc": False}, check=True)
    assert machine.commands() == []
    outcome = run(machine, LIVE | {"icc": False})
    expected = [f"reload-or-restart {docker.UNIT}", f"restart {docker.UNIT}", f"restart {docker.PRUNE_TIMER}"]
    assert machine.commands() == expected
    assert [" ".join(argv) for argv in foreseen.commands] == [f"systemctl {one}" for one in expected]
    assert foreseen.commands == outcome.commands
    assert json.loads(machine.path("etc/docker/daemon.json").read_text()) == {"mtu": 1400, "icc": False, **LIVE}
    assert not run(machine, LIVE | {"icc": False}).changed


def test_a_daemon_that_keeps_them_already_is_only_restarted(machine: Host) -> None:
    (machine.bin / "docker.keeps").write_text("live-restore true\n")
    run(machine, LIVE | {"icc": False})
    assert machine.commands()[0] == f"restart {docker.UNIT}"


def test_what_a_known_daemon_reloads_is_only_reloaded(machine: Host) -> None:
    run(machine)
    machine.commands()
    run(machine, LIVE | {"labels": ["x"]})
    assert machine.commands()[0] == f"reload-or-restart {docker.UNIT}"


def test_a_daemon_that_shall_not_keep_them(machine: Host) -> None:
    run(machine, {"live-restore": False})
    assert machine.commands()[0] == f"restart {docker.UNIT}"


def test_a_daemon_that_does_not_run_is_started(machine: Host) -> None:
    machine.unit(docker.UNIT)
    run(machine)
    assert machine.commands()[:2] == [f"enable {docker.UNIT}", f"start {docker.UNIT}"]


def test_a_daemon_that_does_not_answer_is_put_back(machine: Host) -> None:
    (machine.bin / "docker.keeps").write_text("live-restore true\n")
    Path(docker_api.SOCKET).unlink()
    with pytest.raises(TransactionError, match=r"http://docker/_ping: .*No such file"):
        docker.converged(replace(base({"icc": False}), probe_timeout=0.1), docker.Wanted(), store(machine))
    assert not machine.path("etc/docker/daemon.json").exists()


def test_the_timer_that_is_not_wanted_rests(machine: Host) -> None:
    run(machine)
    machine.commands()
    run(machine, prune=False)
    assert machine.commands() == [f"stop {docker.PRUNE_TIMER}", f"disable {docker.PRUNE_TIMER}"]
    assert not run(machine, prune=False).changed


def test_without_settings_of_its_own(machine: Host) -> None:
    assert not docker.converged(
        Service("docker"), docker.Wanted(operators=["nobody", "daemon"]), store(machine)
    ).changed


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_packages_of_both_sources(machine: Host) -> None:
    refused(machine, LIVE, "this host has installed, of another source", rivals=["gone", "installed"])


@pytest.mark.parametrize("old", [False, True])
def test_what_dockerd_says(machine: Host, old: bool) -> None:
    """A newer one is asked; an older one is started in a way in which it only reads."""
    if old:
        (machine.bin / "dockerd.old").touch()
    refused(
        machine, {"nonsense": 1}, r"docker: dockerd refuses .*: unable to configure with file \S+/etc/docker/daemon.js"
    )
    run(machine, {"icc": False, "data-root": "/elsewhere"})
    if old:
        assert json.loads((machine.bin / "dockerd.read").read_text()) == {"icc": False}


def test_without_a_dockerd_nobody_is_asked(machine: Host) -> None:
    (machine.bin / "dockerd").unlink()
    assert run(machine, {"nonsense": 1}).changed


def test_who_is_no_user(machine: Host) -> None:
    refused(
        machine, LIVE, "docker_operators names nobody-knows, and this host has no such user", operators=["nobody-knows"]
    )


def test_a_swarm(machine: Host) -> None:
    machine.write("data/swarm/docker-state.json", "{}")
    refused(machine, LIVE, "part of a swarm.* live_restore: false")
    assert run(machine, {"live-restore": False}).changed


@pytest.mark.parametrize(
    ("before", "after", "data", "words"),
    [
        (
            {},
            {"userns-remap": "default"},
            "containers/1/x",
            r'With userns-remap "default" in the place of none .* the containers in',
        ),
        ({}, {"userns-remap": "default"}, "image/overlay2/imagedb/content/sha256/1", "the images in"),
        ({}, {"data-root": "/elsewhere"}, "volumes/one/_data/x", "With data-root .* the volumes in"),
        (
            {"userns-remap": "default"},
            {},
            "999.999/containers/1/x",
            r'With userns-remap none in the place of "default"',
        ),
        (
            {"userns-remap": "default"},
            {"userns-remap": "other"},
            "999.999/volumes/one/_data/x",
            "the volumes in .*/999.999",
        ),
    ],
)
def test_data_that_docker_would_not_see(machine: Host, before: Any, after: Any, data: str, words: str) -> None:
    machine.write("etc/docker/daemon.json", json.dumps(before))
    # It has been brought by the role, so it goes where it is no longer wanted.
    run(machine, before)
    machine.commands()
    machine.write(f"data/{data}", "x")
    refused(machine, after, words)


@pytest.mark.parametrize("data", ["volumes/metadata.db", "999.999/containers/1/x", "image/overlay2/repositories.json"])
def test_what_is_no_data_hides_nothing(machine: Host, data: str) -> None:
    machine.write(f"data/{data}", "x")
    assert run(machine, {"userns-remap": "default"}).changed


def test_what_is_on_already_hides_nothing(machine: Host) -> None:
    machine.write("etc/docker/daemon.json", '{"userns-remap": "default"}')
    machine.write("data/containers/1/x", "x")
    machine.write("data/999.999/containers/1/x", "x")
    assert run(machine, {"userns-remap": "default", "icc": False}).changed


@pytest.mark.parametrize(
    ("config", "bridge", "late"),
    [
        ({"icc": False, "ip": "127.0.0.1"}, {"icc": "true", "ip": "0.0.0.0"}, "icc and ip in"),
        ({"icc": False, "ip": "127.0.0.1"}, {"icc": "false", "ip": "0.0.0.0"}, "docker: ip in"),
        ({"icc": False, "ip": "127.0.0.1"}, {"icc": "false", "ip": "127.0.0.1"}, ""),
        ({}, {"icc": "true", "ip": "0.0.0.0"}, ""),
        ({"icc": False}, None, ""),
    ],
)
def test_what_waits_for_a_start_without_containers(
    machine: Host, docker_daemon: type[Api], config: Any, bridge: Any, late: str
) -> None:
    machine.write("etc/docker/daemon.json", json.dumps(config))
    if bridge:
        docker_daemon.answers["/networks/bridge"] = {
            "Options": {docker.BRIDGE[key]: value for key, value in bridge.items()}
        }
    assert [late in note for note in docker.waiting()] == ([True] if late else [])


# --- the group --------------------------------------------------------------------------------------------------------


def test_the_group_has_exactly_its_operators(machine: Host) -> None:
    outcome = run(machine)
    for name in ("group", "gshadow"):
        assert machine.path(f"etc/{name}").read_text() == "root:x:0:\ndocker:x:999:root\nusers:x:100:\n"
    assert [change.after.path for change in outcome.changes][-2:] == list(docker.GROUP_FILES)
    run(machine, operators=[])
    assert "docker:x:999:\n" in machine.path("etc/group").read_text()
    # Others may change their groups meanwhile.
    machine.write("etc/group", "more:x:1:\n" + machine.path("etc/group").read_text())
    assert not run(machine, operators=[]).changed


@pytest.mark.parametrize(
    ("text", "wanted", "changed"),
    [
        ("docker:x:9:a,b\n", ["b", "a"], "docker:x:9:a,b\n"),
        ("docker:x:9:a,b\n", ["b"], "docker:x:9:b\n"),
        ("docker:x:9:", ["b", "a"], "docker:x:9:b,a"),
        ("docker:!:admin:a\n", [], "docker:!:admin:\n"),
        ("my-docker:x:9:a\ndocker2:x:8:a\n", [], "my-docker:x:9:a\ndocker2:x:8:a\n"),
        ("", ["a"], ""),
    ],
)
def test_members(text: str, wanted: list[str], changed: str) -> None:
    assert docker.with_members(text, "docker", wanted) == changed


# --- the module -------------------------------------------------------------------------------------------------------


def test_the_module(machine: Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Store", store(machine))
    content = base64.b64encode(json.dumps(LIVE).encode()).decode()
    config = {"dest": docker.CONFIG, "content": content, "merge_json": 1, "on_change": "restart"}
    warned: list[str] = []
    monkeypatch.setattr(module.AnsibleModule, "warn", lambda _self, text: warned.append(text))
    monkeypatch.setattr(docker, "waiting", lambda: ["icc waits"])
    given: dict[str, Any] = {"files": [config], "operators": ["root"], "prune": False}
    check = run_module(module.main, capsys, check=True, **given)
    result = run_module(module.main, capsys, **given)
    assert check["changed"]
    assert result["changed"]
    assert result["commands"] == check["commands"]
    assert docker.CONFIG in result["paths"]
    assert warned == ["icc waits"] * 2
    assert result["diff"]
    assert not run_module(module.main, capsys, **given)["changed"]
    assert "no such user" in run_module(module.main, capsys, **{**given, "operators": ["nobody-knows"]})["msg"]
    wrong = run_module(module.main, capsys, files=[{**config, "mode": "rw"}])
    assert "a mode is not an octal number" in wrong["msg"]


def test_its_files_are_rendered_as_those_of_every_service() -> None:
    assert issubclass(action.ActionModule, action.ServiceConfig)
    assert (action.ActionModule.module, action.ActionModule.service) == ("fushuma.production.docker_config", "docker")
