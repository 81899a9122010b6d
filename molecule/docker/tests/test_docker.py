"""A host that had Docker already: its containers go on through every change, and through those that are refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from plays import Played, all_hosts, play
from testinfra.host import Host

SETTINGS = yaml.safe_load((Path(__file__).parents[1] / "vars.yml").read_text("utf-8"))
LOGINS = "/root/.docker/config.json"
DAEMON = "/etc/docker/daemon.json"
BACK = "The former configuration is back and in force."
UNTOUCHED = "Nothing was changed."


def applied(*arguments: str, **settings: Any) -> Played:
    """The role on all hosts at once. systemd lets a unit start three times a minute, and tests do it more often."""
    for host in all_hosts().values():
        host.check_output("systemctl reset-failed docker.service")
    role = {"ansible.builtin.include_role": {"name": "fushuma.production.docker"}, "vars": SETTINGS | settings}
    return play({"ansible.builtin.setup": {"gather_subset": ["min"]}}, role, arguments=("--diff", *arguments))


def refusals(played: Played) -> dict[str, str]:
    """What each host says of the task that failed on it."""
    return {name: one["msg"] for name, results in played.results.items() for one in results if one.get("failed")}


def done(**settings: Any) -> dict[str, Any]:
    """The result of the role's last task on each host, which has to succeed."""
    played = applied(**settings)
    assert not refusals(played), played.output
    return {name: results[-1] for name, results in played.results.items()}


def pid(host: Host, container: str = "before") -> int:
    found = int(host.check_output("docker inspect --format '{{.State.Pid}}' %s", container))
    assert found, f"{container} does not run"
    return found


def daemon_pid(host: Host) -> str:
    return str(host.check_output("systemctl show --value --property MainPID docker.service"))


def config(host: Host, path: str = DAEMON) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.file(path).content_string)
    return found


def state(host: Host) -> tuple[object, ...]:
    """All that a refused change must not have touched."""
    files = "find /etc/docker /root/.docker /etc/systemd/system /etc/apt /etc/group -type f -exec sha256sum {} +"
    return pid(host), daemon_pid(host), host.check_output(f"{files} | sort")


@pytest.fixture
def container(host: Host) -> Iterator[str]:
    """A container that came after the role."""
    name = "after"
    host.check_output("docker run --detach --name %s small /busybox sh -c %s", name, "echo hello; /busybox sleep 10000")
    yield name
    host.check_output("docker rm --force %s", name)


# --- what the converge has brought ------------------------------------------------------------------------------------


@pytest.fixture(scope="session", autouse=True)
def converged() -> tuple[dict[str, int], str]:
    """Before the first test: the process of the container on each host, and what one more run says."""
    return {name: pid(one) for name, one in all_hosts().items()}, applied().output


def test_a_container_that_was_there_has_gone_on(host: Host, converged: tuple[dict[str, int], str]) -> None:
    assert converged[0][host.backend.host] == int(host.file("/srv/before").content_string)
    assert "live-restore" in host.file("/var/lib/fushuma-production/docker-live-restore.keys").content_string
    assert host.check_output("docker info --format '{{.LoggingDriver}} {{.LiveRestoreEnabled}}'") == "journald true"


def test_settings_of_the_host_stay_and_those_of_the_role_win(host: Host) -> None:
    found = config(host)
    assert found["max-concurrent-downloads"] == 2
    assert (found["log-driver"], found["icc"]) == ("journald", False)
    assert config(host, LOGINS)["psFormat"] == "table"
    assert set(config(host, LOGINS)["auths"]) == {"by-hand.test", "registry.test:5000"}


def test_a_container_is_confined(host: Host, container: str) -> None:
    inside = host.check_output("docker exec %s /busybox grep NoNewPrivs /proc/1/status", container)
    assert inside.split() == ["NoNewPrivs:", "1"]
    limits = host.check_output("docker exec %s /busybox grep -i 'open files' /proc/1/limits", container)
    assert limits.split()[3:5] == ["16384", "16384"]


def test_logs_are_in_the_journal_and_still_docker_logs(host: Host, container: str) -> None:
    assert host.check_output("docker logs %s", container) == "hello"
    assert "hello" in host.check_output("journalctl --identifier=%s --output=cat", container)
    shown = host.check_output("systemctl show --property=LogRateLimitBurst docker.service")
    assert shown == "LogRateLimitBurst=100000"


def test_what_waits_for_a_start_without_containers_is_said(converged: tuple[dict[str, int], str]) -> None:
    said = " ".join(converged[1].split())
    assert "icc and ip in /etc/docker/daemon.json wait until the daemon starts while no container runs" in said


@pytest.fixture
def alone(host: Host) -> Iterator[None]:
    """Docker leaves its own bridge as it is while a container runs; without one it is what the settings say."""
    host.check_output("docker stop --time 0 before")
    host.check_output("systemctl reset-failed docker.service && systemctl restart docker.service")
    yield
    host.check_output("docker start before")


@pytest.mark.usefixtures("alone")
def test_containers_of_the_bridge_do_not_reach_each_other(host: Host) -> None:
    server = "docker run --detach --rm --name server {} small /busybox httpd -f -p 80 -h /"
    ask = "timeout 5 docker run --name asking {} small /busybox wget -q -O /dev/null http://{}/busybox"
    where = "docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' server"
    host.check_output("docker network create own")
    try:
        for network, reached in (("", False), ("--network own", True)):
            host.check_output(server.format(network))
            address = host.check_output(where)
            assert (host.run(ask.format(network, address)).rc == 0) == reached, network
            host.check_output("docker rm --force server asking")
    finally:
        host.run("docker rm --force server asking")
        host.check_output("docker network rm own")


@pytest.mark.usefixtures("alone")
def test_what_is_published_listens_on_loopback(host: Host) -> None:
    """On networks as compose files make them too, where the engine can; Debian 12's leaves that to the firewall."""
    host.check_output("docker network create own")
    try:
        for network, port in (("bridge", 8080), ("own", 8081)):
            options = f"--network {network} --publish {port}:80 --name published"
            host.check_output(f"docker run --detach --rm {options} small /busybox httpd -f -p 80 -h /")
            bound = host.check_output("docker port published 80/tcp").splitlines()[0]
            old = network == "own" and host.system_info.release.startswith("12")
            assert bound == f"{'0.0.0.0' if old else '127.0.0.1'}:{port}"
            # Without a process for each port the kernel has to do it.
            host.check_output(f"busybox wget -q -O /dev/null http://127.0.0.1:{port}/busybox")
            assert host.run("pgrep docker-proxy").rc != 0
            host.check_output("docker rm --force published")
    finally:
        host.run("docker rm --force published")
        host.check_output("docker network rm own")


@pytest.mark.parametrize(
    ("path", "owner", "group", "mode"),
    [
        ("/etc/docker", "root", "root", 0o755),
        (DAEMON, "root", "root", 0o644),
        ("/usr/lib/systemd/system/docker.service", "root", "root", 0o644),
        ("/usr/lib/systemd/system/docker.socket", "root", "root", 0o644),
        ("/run/docker.sock", "root", "docker", 0o660),
        ("/run/containerd/containerd.sock", "root", "root", 0o660),
        (LOGINS, "root", "root", 0o600),
    ],
)
def test_files_are_roots(host: Host, path: str, owner: str, group: str, mode: int) -> None:
    found = host.file(path)
    assert (found.user, found.group, found.mode) == (owner, group, mode)


def test_compose_is_there(host: Host) -> None:
    assert host.run("docker compose version").rc == 0 or host.run("docker-compose version").rc == 0


def test_only_operators_may_use_it(host: Host) -> None:
    assert host.group("docker").members == ["operator"]
    assert host.run("grpck -r").rc == 0


# --- changes ----------------------------------------------------------------------------------------------------------


def test_a_change_restarts_the_daemon_only_where_it_has_to_and_never_a_container() -> None:
    hosts = all_hosts()
    before = {name: state(one) for name, one in hosts.items()}
    reloaded = done(docker_settings={"labels": ["site=test"], "max-concurrent-uploads": 3})
    for name, one in hosts.items():
        assert reloaded[name]["commands"][0] == "systemctl reload-or-restart docker.service"
        assert state(one)[:2] == before[name][:2]
        one.check_output(
            "timeout 10 sh -c %s", "until docker info -f '{{.Labels}}' | grep -q site=test; do sleep 0.1; done"
        )
    # What is no longer brought goes again.
    restarted = done(docker_nofile=8192)
    for name, one in hosts.items():
        assert restarted[name]["commands"][0] == "systemctl restart docker.service"
        assert (pid(one) == before[name][0], daemon_pid(one) == before[name][1]) == (True, False)
        assert config(one).keys().isdisjoint({"labels", "max-concurrent-uploads"})
        assert config(one)["max-concurrent-downloads"] == 2
    done()
    again = done()
    for name, one in hosts.items():
        assert not again[name]["changed"]
        assert state(one)[2] == before[name][2]


def test_a_member_by_hand_goes_and_a_login_by_hand_stays() -> None:
    hosts = all_hosts()
    for one in hosts.values():
        one.check_output("usermod --append --groups docker nobody")
        one.check_output("systemctl stop docker-prune.timer")
    before = {name: daemon_pid(one) for name, one in hosts.items()}
    found = done(docker_registries=[])
    for name, one in hosts.items():
        assert one.group("docker").members == ["operator"]
        assert config(one, LOGINS) == {"psFormat": "table", "auths": {"by-hand.test": {"auth": "Ynk6aGFuZA=="}}}
        assert one.service("docker-prune.timer").is_running
        assert (daemon_pid(one), found[name]["commands"]) == (before[name], ["systemctl start docker-prune.timer"])
    done()


def test_no_login_is_shown() -> None:
    """Not in the form in which it is kept, either: base64."""
    kept = [config(one, LOGINS)["auths"]["registry.test:5000"]["auth"] for one in all_hosts().values()]
    played = applied("--check", "-vv", docker_registries=[SETTINGS["docker_registries"][0] | {"user": "other"}])
    assert LOGINS in played.output
    assert not [word for word in kept if word in played.output]
    assert not re.search("b3RoZXI6", played.output)  # other:


# --- refusals ---------------------------------------------------------------------------------------------------------

REFUSED: Mapping[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "an unknown key": ({"docker_settings": {"no-such-key": 1}}, ("dockerd refuses", "no-such-key", UNTOUCHED)),
    "remapped users": (
        {"docker_userns_remap": "default"},
        ("would look elsewhere", "containers and images in /var/lib/docker", UNTOUCHED),
    ),
    "nobody": ({"docker_operators": ["nobody-knows"]}, ("this host has no such user", UNTOUCHED)),
    # A dockerd can only be asked about this one by starting it.
    "a daemon that does not come up": ({"docker_settings": {"storage-driver": "nonsense"}}, (BACK,)),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_work_does_not_outlive_the_task(what: str) -> None:
    settings, words = REFUSED[what]
    hosts = all_hosts()
    before = {name: state(one) for name, one in hosts.items()}
    said = refusals(applied(**settings))
    for name, one in hosts.items():
        assert not [word for word in words if word not in said[name]], said[name]
        after = state(one)
        assert after[::2] == before[name][::2]
        assert (after[1] == before[name][1]) == (BACK not in words), "the daemon was restarted"
    if what == "an unknown key":
        assert refusals(applied("--check", **settings)) == said


def test_a_file_that_is_no_json_is_left_alone() -> None:
    hosts = all_hosts()
    kept = {name: one.file(DAEMON).content_string for name, one in hosts.items()}
    for one in hosts.values():
        one.check_output("printf '{\"icc\": ' > %s", DAEMON)
    before = {name: state(one) for name, one in hosts.items()}
    try:
        said = refusals(applied())
        assert {name: state(one) for name, one in hosts.items()} == before
    finally:
        for name, one in hosts.items():
            one.check_output("printf %%s %s > %s", kept[name], DAEMON)
    for name in hosts:
        assert f"the present content of {DAEMON} is no JSON object" in said[name]
        assert UNTOUCHED in said[name]


RIVAL = """\
mkdir -p /srv/rival/DEBIAN && cd /srv/rival
printf '%s\\n' 'Package: docker-buildx-plugin' 'Version: 5:1' 'Architecture: all' 'Maintainer: nobody' \\
    'Description: none' >DEBIAN/control
dpkg-deb --build --root-owner-group . /srv/rival.deb && dpkg --install /srv/rival.deb
"""


def test_packages_of_both_sources_are_refused() -> None:
    hosts = all_hosts()
    for one in hosts.values():
        one.check_output(RIVAL)
    before = {name: state(one) for name, one in hosts.items()}
    try:
        said = refusals(applied())
    finally:
        for one in hosts.values():
            one.check_output("dpkg --purge docker-buildx-plugin")
    for name, one in hosts.items():
        assert (
            "this host has docker-buildx-plugin, of another source than docker_source says. " + UNTOUCHED in said[name]
        )
        assert state(one) == before[name]


# --- what is pruned ---------------------------------------------------------------------------------------------------


def test_only_what_nobody_needs_is_pruned(host: Host) -> None:
    make = "tar --create --directory=/srv/image --transform s,busybox,{0}, . | docker import {1} - {2}"
    host.check_output("docker volume create kept")
    host.check_output("docker run --name stopped small /busybox true")
    host.check_output("docker run --name labelled --label production.keep=1 small /busybox true")
    host.check_output(make.format("one", "", "release:1"))
    nameless = host.check_output(make.format("two", "", "")).splitlines()[-1]
    kept = host.check_output(make.format("three", "--change 'LABEL production.keep=1'", "")).splitlines()[-1]

    def there() -> dict[str, bool]:
        images = host.check_output("docker images --all --quiet --no-trunc").split()
        return {
            "stopped": host.run("docker inspect stopped").rc == 0,
            "labelled": host.run("docker inspect labelled").rc == 0,
            "volume": host.run("docker volume inspect kept").rc == 0,
            "release": host.run("docker image inspect release:1").rc == 0,
            "nameless": nameless in images,
            "kept": kept in images,
            "running": bool(pid(host)),
        }

    try:
        host.check_output("systemctl start docker-prune.service")
        assert all(there().values()), "all of it is young"
        # The unit's own commands as they would be in a week; Docker counts whole seconds, so a moment ahead.
        unit = host.check_output("systemctl cat docker-prune.service")
        for command in re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE):
            host.check_output(command.replace("168h", "-2s"))
        assert [name for name, is_there in there().items() if not is_there] == ["stopped", "nameless"]
    finally:
        host.run("docker rm --force stopped labelled; docker rmi --force release:1 %s; docker volume rm kept", kept)


def test_the_timer_prunes(host: Host) -> None:
    assert host.service("docker-prune.timer").is_enabled
    assert "docker-prune.timer" in host.check_output("systemctl list-timers --no-legend")


def test_the_host_is_well(host: Host) -> None:
    assert host.check_output("systemctl --failed --plain --no-legend") == ""
