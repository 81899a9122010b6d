# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What cannot work in the docker role's settings."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ansible_collections.fushuma.production.plugins.plugin_utils import apt_repository
from ansible_collections.fushuma.production.plugins.plugin_utils.apt_repository import Repository
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import Problem, value_of

Settings = Mapping[str, Any]

REPOSITORY = Repository(
    setting="docker_repository",
    maker="Docker",
    url="https://download.docker.com/linux/debian",
    key_url="https://download.docker.com/linux/debian/gpg",
    key_file="docker.asc",
    version="5:28.5.*",
)
SIZE = re.compile(r"[1-9]\d*[kmg]")
AGE = re.compile(r"[1-9]\d*h")
USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
REMAP = re.compile(rf"{USER.pattern}(:{USER.pattern})?")
REGISTRY = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:\d{1,5})?")
FILES = (1024, 1048576)  # the least Linux gives a process, and the most it can (fs.nr_open)
POOL_SIZES = (16, 29)  # prefix lengths; a bridge with less than three containers is none

# What the other settings decide on.
OWN_KEYS = {
    "default-address-pools": "docker_address_pools",
    "default-network-opts": "docker_bind",
    "default-ulimits": "docker_nofile",
    "icc": "docker_hardening.icc",
    "insecure-registries": "docker_insecure_registries, with a reason",
    "ip": "docker_bind",
    "live-restore": "docker_hardening.live_restore",
    "log-driver": "docker_logs",
    "log-level": "docker_log_level",
    "log-opts": "docker_logs",
    "no-new-privileges": "docker_hardening.no_new_privileges",
    "userland-proxy": "docker_hardening.userland_proxy",
    "userns-remap": "docker_userns_remap",
}
# Values by which a host gives itself away: when, why, and what would do instead.
DANGEROUS: Mapping[str, tuple[Callable[[Any], bool], str, str]] = {
    "default-cgroupns-mode": (
        lambda value: value == "host",
        "every container would see and could reach the control groups of the host",
        '"private", or --cgroupns=host for the one container that needs it',
    ),
    "default-ipc-mode": (
        lambda value: value == "host",
        "every container would share its memory with the host",
        '"private"',
    ),
    "iptables": (
        lambda value: value is False,
        "containers would not be kept apart, and nothing would pass them on",
        "true, and declare ports with the firewall role",
    ),
    "seccomp-profile": (
        lambda value: value == "unconfined",
        "every container could make every system call",
        "the path of a profile of your own",
    ),
}


def problems(settings: Settings) -> list[Problem]:
    """Everything that cannot work. ``settings`` fit the role's argument_specs and hold all defaults."""
    return [
        *_forms(settings),
        *(apt_repository.problems(settings, REPOSITORY) if settings["docker_source"] == "docker" else []),
        *_pools(settings["docker_address_pools"]),
        *_insecure(settings["docker_insecure_registries"]),
        *_settings(settings["docker_settings"]),
        *_registries(settings["docker_registries"]),
        *_operators(settings["docker_operators"]),
    ]


def _forms(settings: Settings) -> Iterator[Problem]:
    logs, prune, bind = settings["docker_logs"], settings["docker_prune"], settings["docker_bind"]
    remap, nofile = settings["docker_userns_remap"], settings["docker_nofile"]
    if not SIZE.fullmatch(logs["max_size"]):
        yield Problem("docker_logs.max_size", value_of(logs["max_size"]), "it is no size that Docker knows", '"20m"')
    if logs["max_file"] < 1:
        why = "what is written would be kept nowhere"
        yield Problem("docker_logs.max_file", value_of(logs["max_file"]), why, "1 or more")
    if not FILES[0] <= nofile <= FILES[1]:
        yield Problem(
            "docker_nofile", value_of(nofile), "it is out of range", f"a number from {FILES[0]} to {FILES[1]}"
        )
    if not AGE.fullmatch(prune["older_than"]):
        why = "it is no age in hours"
        yield Problem("docker_prune.older_than", value_of(prune["older_than"]), why, '"168h" for a week')
    if not prune["schedule"].strip() or "\n" in prune["schedule"]:
        why = "it is no time of systemd.time(7)"
        yield Problem("docker_prune.schedule", value_of(prune["schedule"]), why, '"daily" or "Sun 04:30"')
    if remap and not REMAP.fullmatch(remap):
        form = '"default", or a user, or user:group'
        yield Problem("docker_userns_remap", value_of(remap), "no user can have this name", form)
    try:
        wide = ipaddress.IPv4Address(bind).is_unspecified
    except ValueError:
        yield Problem("docker_bind", value_of(bind), "it is no IPv4 address", '"127.0.0.1"')
    else:
        if wide:
            why = "each published port would be open to everybody unless a firewall closes it"
            form = '"127.0.0.1", and name the address at the port that is to be reached: 203.0.113.10:8080:80'
            yield Problem("docker_bind", value_of(bind), why, form)


def _pools(pools: list[Settings]) -> Iterator[Problem]:
    seen: list[tuple[int, ipaddress.IPv4Network | ipaddress.IPv6Network]] = []
    for number, pool in enumerate(pools):
        setting = f"docker_address_pools[{number}]"
        try:
            network = ipaddress.ip_network(pool["base"])
        except ValueError as error:
            yield Problem(f"{setting}.base", value_of(pool["base"]), f"it is no network ({error})", '"172.30.0.0/16"')
            continue
        least, most = POOL_SIZES if network.version == 4 else (64, 128 - POOL_SIZES[0])
        if not max(least, network.prefixlen) <= pool["size"] <= most:
            form = f"a prefix length from {max(least, network.prefixlen)} to {most}"
            yield Problem(f"{setting}.size", value_of(pool["size"]), "no such network fits into the base", form)
        for other, taken in seen:
            if taken.version == network.version and taken.overlaps(network):
                why = f"docker_address_pools[{other}] has the same addresses"
                yield Problem(f"{setting}.base", value_of(pool["base"]), why, "a network of its own")
        seen.append((number, network))


def _insecure(given: list[Settings]) -> Iterator[Problem]:
    for number, one in enumerate(given):
        setting = f"docker_insecure_registries[{number}]"
        if not REGISTRY.fullmatch(one["registry"]) and not _is_network(one["registry"]):
            form = '"registry.internal:5000" or "10.0.1.0/24"'
            yield Problem(f"{setting}.registry", value_of(one["registry"]), "it is neither a host nor a network", form)
        if not one["reason"].strip():
            why = "whoever is between could put any image in the place of yours"
            yield Problem(f"{setting}.reason", value_of(one["reason"]), why, "why this can be accepted here")


def _is_network(text: str) -> bool:
    try:
        return ipaddress.ip_network(text).prefixlen > 0
    except ValueError:
        return False


def _settings(given: Settings) -> Iterator[Problem]:
    for key, value in given.items():
        setting = f"docker_settings.{key}"
        if key in OWN_KEYS:
            yield Problem(setting, value_of(value), "another setting of the role decides on it", OWN_KEYS[key])
        elif value is None:
            yield Problem(setting, "nothing", "a key of daemon.json has a value", "one, or take the key away")
        elif key == "hosts":
            yield _hosts(setting, value, given)
        elif key == "registry-mirrors":
            yield from _mirrors(setting, value)
        elif key in DANGEROUS and DANGEROUS[key][0](value):
            yield Problem(setting, value_of(value), DANGEROUS[key][1], DANGEROUS[key][2])


def _hosts(setting: str, value: object, given: Settings) -> Problem:
    """systemd's socket is where the daemon listens; a second place is either in its way or open to the network."""
    form = "nothing here, and on your own machine: docker context create NAME --docker host=ssh://USER@HOST"
    if "tcp://" in str(value) and given.get("tlsverify") is not True:
        why = "whoever reaches that port is root on this host, for no client has to show a certificate"
        return Problem(setting, value_of(value), why, form)
    why = "Debian's unit has the daemon listen on systemd's socket (-H fd://), and it does not start with both"
    return Problem(setting, value_of(value), why, form)


def _mirrors(setting: str, value: object) -> Iterator[Problem]:
    for number, mirror in enumerate(value if isinstance(value, list) else [value]):
        if not str(mirror).startswith("https://"):
            why = "whoever is between could put any image in the place of yours"
            yield Problem(f"{setting}[{number}]", value_of(mirror), why, "a URL that starts with https://")


def _registries(given: list[Settings]) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    for number, one in enumerate(given):
        setting = f"docker_registries[{number}]"
        if not REGISTRY.fullmatch(one["host"]):
            form = 'the host alone, such as "ghcr.io" or "registry.internal:5000"'
            yield Problem(f"{setting}.host", value_of(one["host"]), "it is no name of a registry", form)
        if one["host"] in seen:
            why = f"docker_registries[{seen[one['host']]}] has it already, and Docker keeps one login for each"
            yield Problem(f"{setting}.host", value_of(one["host"]), why, "one of the two")
        seen.setdefault(one["host"], number)
        if not one["user"] or ":" in one["user"]:
            why = "the user ends at the first colon, and there has to be one"
            yield Problem(f"{setting}.user", value_of(one["user"]), why, "the user's name alone")


def _operators(given: list[str]) -> Iterator[Problem]:
    for number, name in enumerate(given):
        setting = f"docker_operators[{number}]"
        if not USER.fullmatch(name) or name == "root":
            why = "root may do all of it anyway" if name == "root" else "no user can have this name"
            yield Problem(setting, value_of(name), why, 'the name of a user of the host, such as "deploy"')
        if name in given[:number]:
            yield Problem(setting, value_of(name), "it stands in the list already", "it once")
