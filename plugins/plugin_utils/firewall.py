# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What cannot work in the settings of the firewall role."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.fushuma.production.plugins.plugin_utils import firewall_model as model
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import Problem, value_of

Settings = Mapping[str, Any]

PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")
RATE = re.compile(r"[1-9]\d{0,8}/(second|minute|hour|day)")
# linux/if.h: 15 characters at most; dev_valid_name() refuses slashes, colons and white space. A star ends a prefix.
INTERFACE = re.compile(r"(?!\.{1,2}$)[^\s/:\"*\\]{1,15}|[^\s/:\"*\\]{1,14}\*")
COMMENT = re.compile(rf"[^\"\\\x00-\x1f]{{1,{model.LONGEST_COMMENT}}}")

FIRST_CONNECTIONS = 5  # a run of Ansible opens up to three, and one that failed is repeated
SLOWEST = 1 / 60  # connections a second
SHORTEST_CONFIRM = 20  # seconds; ssh waits ten of them for an answer (Ansible's `timeout`)
LONGEST_CONFIRM = 600

WORLD = '"world", or a list of networks such as ["10.0.0.0/8", "2001:db8::/32"]'
HOST_TOO = '"world", "host", or a list of networks such as ["10.0.0.0/8", "2001:db8::/32"]'


def problems(settings: Settings) -> list[Problem]:
    """Everything that cannot work. ``settings`` fit the role's argument_specs and hold all defaults."""
    found = [
        *_listens_problems(settings["firewall_listens"]),
        *_ssh_problems(settings["firewall_ssh"]),
        *_list_problems(settings),
        *_limit_problems(settings),
        *_container_problems(settings["firewall_containers"]),
    ]
    for name in ("firewall_open", "firewall_published", "firewall_egress", "firewall_forward"):
        found += _entries_problems(name, settings[name] or [])
    # Whether SSH comes in can be said of ports and networks that are some.
    return found or list(_lockout_problems(settings))


# --- single values ----------------------------------------------------------------------------------------------------


def _port(setting: str, value: str) -> Iterator[Problem]:
    found = PORT.fullmatch(value)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    form = 'for example 443, or "6000-6010"'
    if not found:
        yield Problem(setting, value_of(value), "it is no port and no range of ports", form)
    elif not 1 <= first <= 65535 or not 1 <= last <= 65535:
        yield Problem(setting, value_of(value), "ports go from 1 to 65535", form)
    elif first > last:
        yield Problem(setting, value_of(value), "the range ends before it begins", f'"{last}-{first}"')
    elif found[2] and first == last:
        yield Problem(setting, value_of(value), "it is a range of one port", f"{first}")


def _network(setting: str, value: object) -> Iterator[Problem]:
    form = 'for example "10.0.0.0/8" or "2001:db8::/32"'
    try:
        network = ipaddress.ip_network(str(value))
        if "%" in str(value):
            raise ValueError("an interface is no part of a network")
    except ValueError as error:
        try:
            meant = ipaddress.ip_network(str(value).partition("%")[0], strict=False)
        except ValueError:
            yield Problem(setting, value_of(value), f"it is no network ({error})", form)
            return
        why = f"it is an address within {meant}, and no network"
        yield Problem(setting, value_of(value), why, f'"{meant}", or "{str(value).partition("/")[0]}" alone')
        return
    if network.version == 6 and network.network_address.ipv4_mapped:
        address = network.network_address.ipv4_mapped
        why = "IPv4 packets have IPv4 addresses, so nothing would match"
        yield Problem(setting, value_of(value), why, f'"{address}"')


def _sources(setting: str, value: object, *, host: bool = False) -> Iterator[Problem]:
    """Problems of who is meant: ``world``, with ``host`` nobody else, or networks."""
    form = HOST_TOO if host else WORLD
    if value == "world" or (value == "host" and host):
        return
    if not isinstance(value, list):
        why = "nobody else can reach it, so there is nothing to say" if value == "host" else "it names no networks"
        yield Problem(setting, value_of(value), why, form)
        return
    if not value:
        yield Problem(setting, "[]", "it would match nobody", form)
    for number, one in enumerate(value):
        if one in ("world", "host"):
            why = "it is no network, but stands for all of them or none"
            yield Problem(f"{setting}[{number}]", value_of(one), why, f'"{one}" without a list around it')
        else:
            yield from _network(f"{setting}[{number}]", one)
    yield from _twice(setting, value)


def _twice(setting: str, values: Sequence[object]) -> Iterator[Problem]:
    for number, value in enumerate(values):
        if value in values[:number]:
            why = f"{setting}[{values.index(value)}] says the same"
            yield Problem(f"{setting}[{number}]", value_of(value), why, "it once")


def _interface(setting: str, value: str | None) -> Iterator[Problem]:
    if value is not None and not INTERFACE.fullmatch(value):
        why = "no interface has such a name: 15 characters at most, without spaces, slashes and colons"
        yield Problem(setting, value_of(value), why, 'for example "eth0", or "wg*" for all that begin so')


def _comment(setting: str, value: str | None) -> Iterator[Problem]:
    if value is not None and not COMMENT.fullmatch(value):
        why = f"nft takes one line of up to {model.LONGEST_COMMENT} characters without quotes and backslashes"
        yield Problem(setting, value_of(value), why, "it so, or no comment")


def _rate(setting: str, value: str) -> Iterator[Problem]:
    if not RATE.fullmatch(value):
        form = 'for example "10/minute"; besides there are second, hour and day'
        yield Problem(setting, value_of(value), "it is no rate that nft knows", form)


def _burst(setting: str, value: int, least: int, why: str) -> Iterator[Problem]:
    if not least <= value <= 65535:
        yield Problem(setting, value_of(value), why, f"{least} or more, 65535 at most")


# --- groups of settings -----------------------------------------------------------------------------------------------


def _listens_problems(listens: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    for number, one in enumerate(listens):
        setting = f"firewall_listens[{number}]"
        yield from _port(f"{setting}.port", one["port"])
        yield from _sources(f"{setting}.from", one["from"], host=True)
        yield from _comment(f"{setting}.setting", one["setting"])
        try:
            address = one["address"].strip("[]")
            version = ipaddress.ip_address(address).version if address else 0
        except ValueError:
            form = 'for example "0.0.0.0", "::", or "" for both'
            yield Problem(f"{setting}.address", value_of(one["address"]), "it is no address", form)
            continue
        yield from _one_family(f"{setting}.from", one["from"], version, f"the address {address}")
        if one["limited"] and one["protocol"] != "tcp":
            yield Problem(f"{setting}.limited", "true", "SSH is spoken over TCP", "protocol tcp, or limited false")


def _one_family(setting: str, given: object, version: int, whose: str) -> Iterator[Problem]:
    """Networks none of which is of the family of what they are to reach."""
    if isinstance(given, list) and version and {_version(one) for one in given} == {10 - version}:
        why = f"{whose} is IPv{version} and these are IPv{10 - version}, so nothing would match"
        yield Problem(setting, value_of(given), why, f"networks of IPv{version}")


def _version(network: object) -> int:
    try:
        return ipaddress.ip_network(str(network)).version
    except ValueError:
        return 0


def _entries_problems(name: str, entries: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    """Problems of rules as data; which keys they have is the spec's business."""
    for number, one in enumerate(entries):
        setting = f"{name}[{number}]"
        if one["port"] is not None:
            yield from _port(f"{setting}.port", one["port"])
            if one["protocol"] is None:
                why = "a port belongs to a transport"
                yield Problem(f"{setting}.port", value_of(one["port"]), why, "protocol tcp or udp beside it")
        for key in ("from", "to"):
            if key in one:
                yield from _sources(f"{setting}.{key}", one[key])
        for key in ("interface", "in", "out"):
            yield from _interface(f"{setting}.{key}", one.get(key))
        yield from _comment(f"{setting}.comment", one["comment"])
        yield from _families_apart(setting, one)
    bare = [{key: value for key, value in one.items() if key != "comment"} for one in entries]
    yield from _twice(name, bare)


def _families_apart(setting: str, one: Mapping[str, Any]) -> Iterator[Problem]:
    """Sources of one family and destinations of the other."""
    sources, targets = one.get("from"), one.get("to")
    if isinstance(sources, list) and isinstance(targets, list):
        families = [{_version(network) for network in given} - {0} for given in (sources, targets)]
        if all(families) and not families[0] & families[1]:
            why = "its sources are of the other family (IPv4, IPv6), so nothing would match"
            yield Problem(f"{setting}.to", value_of(targets), why, "networks of a family that from has too")


def _ssh_problems(ssh: Mapping[str, Any]) -> Iterator[Problem]:
    ports = ssh["ports"]
    if ports == []:
        why = "sshd listens on some port, and its connections are to be limited"
        yield Problem("firewall_ssh.ports", "[]", why, "for example [22], or no ports for what the roles say")
    for number, port in enumerate(ports or []):
        yield from _port(f"firewall_ssh.ports[{number}]", str(port))
    yield from _twice("firewall_ssh.ports", ports or [])
    yield from _sources("firewall_ssh.from", ssh["from"], host=True)
    yield from _rate("firewall_ssh.rate", ssh["rate"])
    if RATE.fullmatch(ssh["rate"]):
        count, _slash, unit = ssh["rate"].partition("/")
        if int(count) / model.SECONDS[unit] < SLOWEST:
            why = "whoever has used up the burst would wait for more than a minute to log in"
            yield Problem("firewall_ssh.rate", value_of(ssh["rate"]), why, 'for example "20/minute"')
    why = "one run of Ansible opens several connections at once, and the next one would not get in"
    yield from _burst("firewall_ssh.burst", ssh["burst"], FIRST_CONNECTIONS, why)


def _list_problems(settings: Settings) -> Iterator[Problem]:
    allowed, blocked = settings["firewall_allow"], settings["firewall_block"]
    for name in ("firewall_allow", "firewall_block"):
        for number, one in enumerate(settings[name]):
            yield from _network(f"{name}[{number}]", one)
        yield from _twice(name, settings[name])
    for number, one in enumerate(blocked):
        if _version(one) and ipaddress.ip_network(one).prefixlen == 0:
            why = "it is every address there is, the controller's too"
            yield Problem(
                f"firewall_block[{number}]", value_of(one), why, "smaller networks; what is not open is closed"
            )
        for other, network in enumerate(allowed):
            if _within(one, network):
                why = f"firewall_allow[{other}] ({network}) lets it through all the same"
                yield Problem(f"firewall_block[{number}]", value_of(one), why, "it in one of the two lists")


def _within(inner: str, outer: str) -> bool:
    """Whether a network is a part of another, or the same."""
    if not _version(inner) or _version(inner) != _version(outer):
        return False
    one, other = ipaddress.ip_network(inner), ipaddress.ip_network(outer)
    return other.prefixlen <= one.prefixlen and one.network_address in other


def _limit_problems(settings: Settings) -> Iterator[Problem]:
    yield from _rate("firewall_ping_rate", settings["firewall_ping_rate"])
    yield from _rate("firewall_log.rate", settings["firewall_log"]["rate"])
    yield from _burst("firewall_log.burst", settings["firewall_log"]["burst"], 1, "nothing would be logged")
    seconds = settings["firewall_confirm_within"]
    if not SHORTEST_CONFIRM <= seconds <= LONGEST_CONFIRM:
        why = "a new connection needs up to ten seconds, and a host that is cut off is to come back soon"
        form = f"{SHORTEST_CONFIRM} to {LONGEST_CONFIRM} seconds, such as 45"
        yield Problem("firewall_confirm_within", value_of(seconds), why, form)


def _container_problems(containers: Mapping[str, Any]) -> Iterator[Problem]:
    for number, name in enumerate(containers["bridges"]):
        yield from _interface(f"firewall_containers.bridges[{number}]", name)
    yield from _twice("firewall_containers.bridges", containers["bridges"])


def _lockout_problems(settings: Settings) -> Iterator[Problem]:
    ports = model.ssh_ports(settings)
    # What a container publishes there is a container's.
    open_tcp = [
        one.ports
        for one in model.declared(settings)
        if one.protocol == "tcp" and not one.setting.startswith("firewall_published")
    ]
    if any(_covers(one, port) for one in open_tcp for port in ports):
        return
    why = f"nothing lets SSH in on port {', '.join(ports)}, so nobody could log in any more"
    form = 'for example "world", or the networks that operators connect from'
    yield Problem("firewall_ssh.from", value_of(settings["firewall_ssh"]["from"]), why, form)


def _covers(ports: str, port: str) -> bool:
    """Whether a port or range holds another, both sound."""
    (first, last), (wanted, end) = (_ends(one) for one in (ports, port))
    return first <= wanted and end <= last


def _ends(ports: str) -> tuple[int, int]:
    first, _dash, last = ports.partition("-")
    return int(first), int(last or first)
