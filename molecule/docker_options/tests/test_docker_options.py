"""Every option away from its default, on a host that had no Docker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from plays import Played, all_hosts, play
from testinfra.host import Host

SETTINGS = yaml.safe_load((Path(__file__).parents[1] / "vars.yml").read_text("utf-8"))
SOURCES = "/etc/apt/sources.list.d/docker.sources"
APT = ("/etc/apt/keyrings/docker.asc", "/etc/apt/preferences.d/docker", SOURCES)


def info(host: Host, template: str) -> str:
    return str(host.check_output("docker info --format %s", template))


def applied(*arguments: str, **settings: Any) -> Played:
    role = {"ansible.builtin.include_role": {"name": "fushuma.production.docker"}, "vars": SETTINGS | settings}
    return play({"ansible.builtin.setup": {"gather_subset": ["min"]}}, role, arguments=("--diff", *arguments))


@pytest.fixture(scope="module", autouse=True)
def image() -> None:
    for one in all_hosts().values():
        one.check_output("tar --create --directory=/srv/image . | docker import - small")


def test_the_daemon_has_taken_them_up(host: Host) -> None:
    assert info(host, "{{.LoggingDriver}} {{.LiveRestoreEnabled}} {{.Labels}}") == "local false [site=test]"
    assert "name=userns" in info(host, "{{.SecurityOptions}}")
    assert "registry.test:5000" in info(host, "{{json .RegistryConfig.IndexConfigs}}")
    assert "172.30.0.0/16" in info(host, "{{json .DefaultAddressPools}}")
    found = json.loads(host.file("/etc/docker/daemon.json").content_string)
    assert (found["log-level"], found["log-opts"]) == ("warn", {"max-size": "1m", "max-file": "3"})
    assert (found["max-concurrent-downloads"], found["icc"]) == (2, True)
    assert not host.file("/etc/systemd/system/docker.service.d/production.conf").exists


def test_a_container_and_its_port(host: Host) -> None:
    # A host that is a container itself may not mount the /proc of remapped users, so this one's are the host's.
    options = "--detach --rm --userns host --name one --publish 8080:80"
    host.check_output(f"docker run {options} small /busybox sh -c 'echo hello; exec /busybox httpd -f -p 80 -h /'")
    try:
        assert host.check_output("docker port one 80/tcp") == "127.0.0.2:8080"
        assert host.check_output("docker logs one") == "hello"
        limits = host.check_output("docker exec one /busybox grep -i 'open files' /proc/1/limits")
        assert limits.split()[3:5] == ["8192", "8192"]
        assert host.check_output("docker exec one /busybox grep NoNewPrivs /proc/1/status").split()[1] == "0"
        assert host.check_output("pgrep --count docker-proxy") == "1"
        address = host.check_output("docker inspect --format '{{.NetworkSettings.IPAddress}}' one")
        assert address.startswith("172.30.")
    finally:
        host.check_output("docker rm --force one")


def test_nothing_is_pruned_and_compose_is_not_there(host: Host) -> None:
    timer = host.service("docker-prune.timer")
    assert (timer.is_running, timer.is_enabled) == (False, False)
    unit = host.check_output("systemctl cat docker-prune.service docker-prune.timer")
    assert "until=24h" in unit
    assert "OnCalendar=Sun 04:30" in unit
    assert not host.package("docker-compose").is_installed


def test_the_login_is_where_docker_looks_for_it(host: Host) -> None:
    file = host.file("/root/.docker/config.json")
    assert (file.mode, host.file("/root/.docker").mode) == (0o600, 0o700)
    assert list(json.loads(file.content_string)["auths"]) == ["https://index.docker.io/v1/"]


def test_remapped_users_stay_remapped_where_there_is_data() -> None:
    played = applied(docker_userns_remap="")
    for name in all_hosts():
        (result,) = [one for one in played.results[name] if one["failed"]]
        assert 'With userns-remap none in the place of "default" Docker would look elsewhere' in result["msg"]
        assert "Nothing was changed." in result["msg"]


def test_dockers_own_repository_is_foreseen_and_both_at_once_are_refused() -> None:
    played = applied("--check", from_docker=True)
    for name in all_hosts():
        repository, engine = played.results[name][-2:]
        assert sorted(path for path in repository["paths"] if path in APT) == sorted(APT)
        assert [one for one in repository["commands"] if one.startswith("apt-get -qq update")]
        assert engine["failed"]
        assert "this host has docker.io" in engine["msg"]
        assert "`apt-get remove docker.io" in engine["msg"]


def test_a_repository_that_does_not_answer_does_not_stay() -> None:
    played = applied(from_docker=True)
    for name, host in all_hosts().items():
        repository = played.results[name][-2]
        assert repository["failed"]
        assert "The former" in repository["msg"]
        assert not [path for path in APT if host.file(path).exists]
        assert host.run("apt-get -qq --print-uris update").rc == 0


def test_the_host_is_well(host: Host) -> None:
    assert host.check_output("systemctl --failed --plain --no-legend") == ""
