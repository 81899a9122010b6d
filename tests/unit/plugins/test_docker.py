# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Settings of the docker role that cannot work, each with the sentence that an operator reads; and what it writes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.plugin_utils import specs
from ansible_collections.fushuma.production.plugins.plugin_utils.docker import problems
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import sentences

from ..roles.render import Role

OPTIONS = specs.role_options("docker")
KEY = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQINBFit2ioBEADhWpZ8\n-----END PGP PUBLIC KEY BLOCK-----\n"
SHA256 = hashlib.sha256(KEY.encode()).hexdigest()
LOGIN = {"host": "ghcr.io", "user": "puller", "password": "canary-1f0e9d8c7b6a"}


def said(**given: Any) -> list[str]:
    settings = {f"docker_{name}": value for name, value in given.items()}
    assert not specs.problems(OPTIONS, settings), "the shape is wrong already"
    return sentences(problems(specs.filled(OPTIONS, settings)))


def repository(**given: Any) -> dict[str, Any]:
    return {"source": "docker", "repository": {"key": KEY, "key_sha256": SHA256, **given}}


@pytest.mark.parametrize(
    "given",
    [
        {},
        repository(),
        repository(version="5:28.5.*", url="https://mirror.internal:8443/docker/debian", key_sha256=SHA256.upper()),
        # Nobody reads it.
        {"repository": {"version": "latest"}},
        {"logs": {"driver": "local", "max_size": "1g"}},
        {"bind": "10.0.1.21"},
        {
            "address_pools": [
                {"base": "172.30.0.0/16"},
                {"base": "fd00::/48", "size": 64},
                {"base": "10.9.0.0/24", "size": 28},
            ]
        },
        {"userns_remap": "default"},
        {"userns_remap": "container:container"},
        {"insecure_registries": [{"registry": "r.internal:5000", "reason": "until its certificate is there"}]},
        {"insecure_registries": [{"registry": "10.0.0.0/8", "reason": "a lab"}]},
        {"settings": {"debug": True, "registry-mirrors": ["https://mirror.internal"], "iptables": True, "mtu": 1400}},
        {"settings": {"experimental": True, "default-ipc-mode": "private", "seccomp-profile": "/etc/docker/own.json"}},
        {"registries": [LOGIN, LOGIN | {"host": "docker.io"}, LOGIN | {"host": "r.internal:5000"}]},
        {"operators": ["deploy", "_ci"]},
        {"prune": {"schedule": "Sun 04:30", "older_than": "24h"}},
    ],
)
def test_settings_that_work(given: dict[str, Any]) -> None:
    assert said(**given) == []


@pytest.mark.parametrize(
    ("given", "setting", "why"),
    [
        ({"logs": {"max_size": "20MB"}}, "logs.max_size", "it is no size that Docker knows"),
        ({"logs": {"max_file": 0}}, "logs.max_file", "would be kept nowhere"),
        ({"nofile": 10}, "nofile", "Write a number from 1024 to 1048576."),
        ({"bind": "localhost"}, "bind", "it is no IPv4 address"),
        ({"bind": "::1"}, "bind", "it is no IPv4 address"),
        ({"bind": "0.0.0.0"}, "bind", "would be open to everybody"),
        ({"userns_remap": "A B"}, "userns_remap", "no user can have this name"),
        ({"prune": {"older_than": "7d"}}, "prune.older_than", "it is no age in hours"),
        ({"prune": {"schedule": " "}}, "prune.schedule", "it is no time"),
        ({"prune": {"schedule": "daily\nUnit=x"}}, "prune.schedule", "it is no time"),
        (repository(url="http://download.docker.com/linux/debian"), "repository.url", "packages come over TLS"),
        (repository(url="https://a:b@mirror/debian"), "repository.url", "without a login in its name"),
        (repository(version="latest"), "repository.version", "no package has such a version"),
        (repository(key=""), "repository.key", "is missing: by exactly one key"),
        (repository(key_file="/srv/docker.asc"), "repository.key", "is given, and key_file too"),
        (repository(key="mQINBFit"), "repository.key", "it is no public key"),
        (repository(key_sha256="0" * 64), "repository.key", f"it has the SHA-256 {SHA256}, and key_sha256 says 000"),
        (repository(key="", key_file="docker.asc"), "repository.key_file", "the controller has no such file"),
        (repository(key="", key_file="/srv/no-such-file"), "repository.key_file", "the controller has no such file"),
        ({"address_pools": [{"base": "172.30.0.1/16"}]}, "address_pools[0].base", "it is no network"),
        ({"address_pools": [{"base": "172.30.0.0/25"}]}, "address_pools[0].size", "from 25 to 29"),
        ({"address_pools": [{"base": "172.30.0.0/16", "size": 31}]}, "address_pools[0].size", "from 16 to 29"),
        ({"address_pools": [{"base": "fd00::/48"}]}, "address_pools[0].size", "from 64 to 112"),
        (
            {"address_pools": [{"base": "172.16.0.0/12"}, {"base": "172.30.0.0/16"}]},
            "address_pools[1].base",
            "docker_address_pools[0] has the same addresses",
        ),
        ({"insecure_registries": [{"registry": "r/x", "reason": "x"}]}, "insecure_registries[0].registry", "neither"),
        (
            {"insecure_registries": [{"registry": "0.0.0.0/0", "reason": "x"}]},
            "insecure_registries[0].registry",
            "neither",
        ),
        (
            {"insecure_registries": [{"registry": "r", "reason": " "}]},
            "insecure_registries[0].reason",
            "in the place of",
        ),
        ({"settings": {"icc": True}}, "settings.icc", "Write docker_hardening.icc."),
        ({"settings": {"insecure-registries": ["r"]}}, "settings.insecure-registries", "with a reason"),
        ({"settings": {"debug": None}}, "settings.debug", "has a value"),
        ({"settings": {"hosts": ["tcp://0.0.0.0:2375"]}}, "settings.hosts", "is root on this host"),
        (
            {"settings": {"hosts": ["tcp://0.0.0.0:2376"], "tlsverify": True}},
            "settings.hosts",
            "does not start with both",
        ),
        ({"settings": {"hosts": ["unix:///run/docker.sock"]}}, "settings.hosts", "does not start with both"),
        (
            {"settings": {"registry-mirrors": ["http://mirror"]}},
            "settings.registry-mirrors[0]",
            "in the place of yours",
        ),
        ({"settings": {"registry-mirrors": "http://mirror"}}, "settings.registry-mirrors[0]", "in the place of yours"),
        ({"settings": {"iptables": False}}, "settings.iptables", "would not be kept apart"),
        ({"settings": {"seccomp-profile": "unconfined"}}, "settings.seccomp-profile", "every system call"),
        ({"settings": {"default-ipc-mode": "host"}}, "settings.default-ipc-mode", "share its memory"),
        ({"settings": {"default-cgroupns-mode": "host"}}, "settings.default-cgroupns-mode", "control groups"),
        ({"registries": [LOGIN | {"host": "https://ghcr.io"}]}, "registries[0].host", "it is no name of a registry"),
        ({"registries": [LOGIN, LOGIN]}, "registries[1].host", "docker_registries[0] has it already"),
        ({"registries": [LOGIN | {"user": "a:b"}]}, "registries[0].user", "ends at the first colon"),
        ({"registries": [LOGIN | {"user": ""}]}, "registries[0].user", "there has to be one"),
        ({"operators": ["Deploy"]}, "operators[0]", "no user can have this name"),
        ({"operators": ["root"]}, "operators[0]", "root may do all of it anyway"),
        ({"operators": ["deploy", "deploy"]}, "operators[1]", "it stands in the list already"),
    ],
)
def test_settings_that_cannot_work(given: dict[str, Any], setting: str, why: str) -> None:
    (found,) = said(**given)
    assert found.startswith(f"docker_{setting} is ")
    assert why in found
    assert "canary" not in found


def test_a_key_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "docker.asc"
    path.write_text(KEY, "utf-8")
    assert said(**repository(key="", key_file=str(path))) == []
    path.write_text(KEY + "\n", "utf-8")
    (found,) = said(**repository(key="", key_file=str(path)))
    assert "docker_repository.key_file is another key" in found


# --- what the role writes ---------------------------------------------------------------------------------------------


def role(release: str = "13", **given: Any) -> Role:
    return Role("docker", {f"docker_{name}": value for name, value in given.items()}, release)


def daemon(release: str = "13", **given: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(role(release, **given).files["/etc/docker/daemon.json"])
    return found


HARDENED = {
    "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 16384, "Hard": 16384}},
    "experimental": False,
    "icc": False,
    "ip": "127.0.0.1",
    "live-restore": True,
    "log-driver": "journald",
    "log-level": "info",
    "log-opts": {"tag": "{{.Name}}"},
    "no-new-privileges": True,
    "userland-proxy": False,
}
NETWORKS = {"default-network-opts": {"bridge": {"com.docker.network.bridge.host_binding_ipv4": "127.0.0.1"}}}


@pytest.mark.parametrize(
    ("release", "given", "wanted"),
    [
        ("12", {}, HARDENED),
        ("13", {}, HARDENED | NETWORKS),
        ("12", repository(), HARDENED | NETWORKS),
        ("12", repository(version="5:28.5.*"), HARDENED | NETWORKS),
        ("13", repository(version="5:20.10.*"), HARDENED),
        (
            "12",
            {"logs": {"driver": "local"}},
            HARDENED | {"log-driver": "local", "log-opts": {"max-size": "20m", "max-file": "5"}},
        ),
        ("12", {"settings": {"experimental": True, "mtu": 1400}}, HARDENED | {"experimental": True, "mtu": 1400}),
        ("12", {"hardening": {"icc": True}}, HARDENED | {"icc": True}),
        ("12", {"userns_remap": "default"}, HARDENED | {"userns-remap": "default"}),
        (
            "12",
            {"insecure_registries": [{"registry": "r:5000", "reason": "x"}]},
            HARDENED | {"insecure-registries": ["r:5000"]},
        ),
    ],
)
def test_the_daemons_settings(release: str, given: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert daemon(release, **given) == wanted


def test_logins_have_the_names_that_docker_login_gives_them() -> None:
    files = role(registries=[LOGIN, LOGIN | {"host": "docker.io"}]).files
    auth = {"auth": "cHVsbGVyOmNhbmFyeS0xZjBlOWQ4YzdiNmE="}
    assert json.loads(files["/root/.docker/config.json"]) == {
        "auths": {"ghcr.io": auth, "https://index.docker.io/v1/": auth}
    }


def test_dockers_own_repository() -> None:
    files = role("12", **repository(version="5:28.5.*", channel="test")).files
    assert files["/etc/apt/keyrings/docker.asc"] == KEY
    assert files["/etc/apt/sources.list.d/docker.sources"].splitlines()[1:] == [
        "Types: deb",
        "URIs: https://download.docker.com/linux/debian",
        "Suites: bookworm",
        "Components: test",
        "Signed-By: /etc/apt/keyrings/docker.asc",
    ]
    pins = [one.splitlines() for one in files["/etc/apt/preferences.d/docker"].split("\n\n")]
    assert pins[0][1:] == ["Package: docker-ce docker-ce-cli", "Pin: version 5:28.5.*", "Pin-Priority: 990"]
    assert pins[1][0].startswith("Package: docker-ce docker-ce-cli containerd.io ")
    assert pins[1][1:] == ['Pin: origin "download.docker.com"', "Pin-Priority: 500"]
    assert pins[2][1:] == ["Package: *", 'Pin: origin "download.docker.com"', "Pin-Priority: -1"]
    assert "Pin: version" not in role(**repository()).files["/etc/apt/preferences.d/docker"]


def test_a_key_file_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "docker.asc"
    path.write_text(KEY, "utf-8")
    files = role(**repository(key="", key_file=str(path))).files
    assert files["/etc/apt/keyrings/docker.asc"] == KEY


@pytest.mark.parametrize(
    ("release", "given", "packages", "rival"),
    [
        ("12", {}, ["docker.io", "docker-compose"], "docker-ce"),
        ("13", {"compose": False}, ["docker.io", "docker-cli"], "docker-ce"),
        ("12", repository(), ["docker-ce", "docker-ce-cli", "containerd.io", "docker-compose-plugin"], "docker.io"),
    ],
)
def test_packages(release: str, given: dict[str, Any], packages: list[str], rival: str) -> None:
    tasks = dict(role(release, **given).tasks)
    assert tasks["docker_config"]["packages"] == [*packages, "apparmor", "ca-certificates", "iptables"]
    assert rival in tasks["docker_config"]["rivals"]
    assert ("service_config" in tasks) == ("source" in given)


def test_files_of_a_repository_that_is_not_used_go() -> None:
    assert not [path for path in role().files if path.startswith("/etc/apt")]


def test_exports() -> None:
    exports = role("13").exports
    assert exports["forwards"] == [{"name": "docker"}]
    assert exports["packages"] == ["docker.io", "docker-cli", "docker-compose", "containerd", "runc"]
    assert role(**repository()).exports["packages"][0] == "docker-ce"
    assert "listens" not in exports
