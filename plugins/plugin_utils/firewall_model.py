# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the firewall role's template needs, worked out of its settings: nftables rules as text, and what they open.

Rules are those of nft(8). A rule for networks of both families becomes two, for nftables matches one family at a time.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

Settings = Mapping[str, Any]
Entry = Mapping[str, Any]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

SSH_PORT = 22  # where neither the settings nor a role say where sshd listens
EVERYWHERE = {"", "0.0.0.0", "::"}
FAMILIES = {4: "ip", 6: "ip6"}
PROTOCOLS = {"tcp": 6, "udp": 17}  # nft finds their names in /etc/protocols, which a small host may lack
SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
SHORTEST_MEMORY = 60  # seconds
LONGEST_COMMENT = 128  # NFTNL_UDATA_COMMENT_MAXLEN


@dataclass(frozen=True)
class Declared:
    """A port that is open on purpose: ``ports`` is ``80`` or ``6000-6010``.

    sources: the networks that may connect; None for the whole world.
    address: where it answers; "" everywhere, ``0.0.0.0`` and ``::`` on all addresses of one family.
    """

    ports: str
    protocol: str
    sources: tuple[str, ...] | None
    address: str
    setting: str

    def as_dict(self) -> dict[str, Any]:
        sources = None if self.sources is None else list(self.sources)
        return {
            "ports": self.ports,
            "protocol": self.protocol,
            "sources": sources,
            "address": self.address,
            "setting": self.setting,
        }


def model(settings: Settings) -> dict[str, Any]:
    """All that is written down. ``settings`` have passed the judge and hold all defaults."""
    ssh, log, egress = settings["firewall_ssh"], settings["firewall_log"], settings["firewall_egress"]
    bridges = ", ".join(quoted(name) for name in settings["firewall_containers"]["bridges"])
    return {
        "lists": list(_lists(settings)),
        "meters": [("ssh4", "ipv4_addr"), ("ssh6", "ipv6_addr")],
        "ssh_limit": limit(ssh["rate"], ssh["burst"]),
        "ssh_memory": memory(ssh["rate"], ssh["burst"]),
        "ping_rate": limit(settings["firewall_ping_rate"]),
        "dhcp": settings["firewall_dhcp"],
        "log_limit": limit(log["rate"], log["burst"]) if log["enabled"] else "",
        "input": list(_input(settings)),
        "published": list(_published(settings)),
        "forward": [r for n, one in _numbered(settings, "firewall_forward") for r in _forward(n, one, bridges)],
        "output": None if egress is None else [r for n, one in enumerate(egress) for r in _output(n, one)],
        "bridges": bridges,
        "containers_reach_out": settings["firewall_containers"]["egress"],
        "declared": [one.as_dict() for one in declared(settings)],
    }


def limit(rate: str, burst: int = 0) -> str:
    """A limit as nft takes it behind ``limit rate [over]``."""
    return f"{rate} burst {burst} packets" if burst else rate


def memory(rate: str, burst: int) -> int:
    """Seconds after which a source that was silent may open ``burst`` connections again, and can be forgotten."""
    count, _slash, unit = rate.partition("/")
    return max(SHORTEST_MEMORY, -(-burst * SECONDS[unit] // int(count)))


def sources_of(given: object) -> tuple[str, ...] | None:
    """Who is meant by a setting such as ``from``: networks, none of them for ``host``, None for the whole world."""
    if given == "world":
        return None
    return tuple(map(str, given)) if isinstance(given, (list, tuple)) else ()


def is_loopback(address: str) -> bool:
    """Whether a service that listens there is reached by nobody but the host itself."""
    return address not in EVERYWHERE and ipaddress.ip_address(address.strip("[]")).is_loopback


# --- what is open -----------------------------------------------------------------------------------------------------


def ssh_ports(settings: Settings) -> tuple[str, ...]:
    """The ports of sshd: those of `firewall_ssh`, or else those that a role limits, or else 22."""
    given = settings["firewall_ssh"]["ports"]
    if given is not None:
        return tuple(map(str, given))
    limited = [one["port"] for one in settings["firewall_listens"] if one["limited"] and one["protocol"] == "tcp"]
    return tuple(dict.fromkeys(limited)) or (str(SSH_PORT),)


def ssh_declared(settings: Settings) -> list[Declared]:
    """What opens SSH's ports, with a limit for each source. Where a role lets the world in, `firewall_ssh` decides."""
    ssh = settings["firewall_ssh"]
    found = [
        _listening({**one, "from": ssh["from"]} if one["from"] == "world" else one)
        for one in settings["firewall_listens"]
        if one["limited"]
    ]
    if ssh["ports"] is not None or not found:
        sources = sources_of(ssh["from"])
        found += [Declared(port, "tcp", sources, "", "firewall_ssh") for port in ssh_ports(settings)]
    return [one for one in found if _opens(one)]


def declared(settings: Settings) -> list[Declared]:
    """Every port that somebody else can reach, by whatever setting; each once."""
    listens = [_listening(one) for one in settings["firewall_listens"] if not one["limited"]]
    besides = [
        Declared(one["port"], one["protocol"], sources_of(one["from"]), "", f"{name}[{number}]")
        for name in ("firewall_open", "firewall_published")
        for number, one in _numbered(settings, name)
    ]
    return list(dict.fromkeys(one for one in (*ssh_declared(settings), *listens, *besides) if _opens(one)))


def _listening(one: Entry) -> Declared:
    address = one["address"].strip("[]")
    return Declared(one["port"], one["protocol"], sources_of(one["from"]), address, one["setting"])


def _opens(one: Declared) -> bool:
    return one.sources != () and not is_loopback(one.address)


# --- rules ------------------------------------------------------------------------------------------------------------


def quoted(text: str) -> str:
    """A name or comment between quotes. nft knows no way to write a quote in it, so the judge lets none through."""
    return f'"{text[:LONGEST_COMMENT]}"'


def networks(given: Sequence[str] | None, version: int) -> list[str] | None:
    """Those of one family; None where all are meant."""
    if given is None:
        return None
    return [one for one in given if ipaddress.ip_network(one).version == version]


def addressed(sources: Sequence[str] | None, targets: Sequence[str] | None) -> Iterator[str]:
    """What a packet's addresses must be, once for each family that can match; "" where any will do."""
    if sources is None and targets is None:
        yield ""
        return
    for version, name in FAMILIES.items():
        parts = [
            f"{name} {side} {{ {', '.join(found)} }}" if found else found
            for side, given in (("saddr", sources), ("daddr", targets))
            if (found := networks(given, version)) is not None
        ]
        if all(parts):
            yield " ".join(map(str, parts))


def rule(*parts: str, verdict: str = "accept", comment: str = "") -> str:
    """A rule out of its parts, those that are empty left away."""
    return " ".join(filter(None, (*parts, verdict, f"comment {quoted(comment)}" if comment else "")))


def on(direction: str, interface: str | None) -> str:
    """The interface a packet comes by (``iifname``) or leaves by (``oifname``)."""
    return f"{direction} {quoted(interface)}" if interface else ""


def _input(settings: Settings) -> Iterator[str]:
    for ssh in ssh_declared(settings):
        for where in _reached(ssh):
            yield rule(where, f"{ssh.protocol} dport {ssh.ports} ct state new", verdict="jump ssh", comment=ssh.setting)
    for one in settings["firewall_listens"]:
        target = _listening(one)
        if _opens(target) and not one["limited"]:
            for where in _reached(target):
                yield rule(where, f"{target.protocol} dport {target.ports}", comment=target.setting)
    for name in ("firewall_open", "firewall_published"):
        for number, one in _numbered(settings, name):
            comment = one["comment"] or f"{name}[{number}]"
            for where in addressed(sources_of(one["from"]), None):
                port = f"{one['protocol']} dport {one['port']}"
                yield rule(on("iifname", one.get("interface")), where, port, comment=comment)


def _reached(one: Declared) -> Iterator[str]:
    """Who may connect and to which address."""
    if one.address == "":
        yield from addressed(one.sources, None)
    elif one.address not in EVERYWHERE:
        yield from addressed(one.sources, (one.address,))
    elif one.sources is None:
        yield f"meta nfproto {'ipv4' if one.address == '0.0.0.0' else 'ipv6'}"
    else:
        yield from addressed(networks(one.sources, 4 if one.address == "0.0.0.0" else 6), None)


def _published(settings: Settings) -> Iterator[str]:
    """The port is that which was asked for: Docker has written the container's into the packet by now."""
    containers = [one for one in settings["firewall_listens"] if one["published"] and _opens(_listening(one))]
    told = [(one["setting"], one) for one in containers]
    for number, one in _numbered(settings, "firewall_published"):
        told.append((one["comment"] or f"firewall_published[{number}]", one))
    for comment, one in told:
        for where in addressed(sources_of(one["from"]), None):
            asked = f"meta l4proto {PROTOCOLS[one['protocol']]} ct original proto-dst {one['port']}"
            yield rule(where, asked, comment=comment)


def _forward(number: int, one: Entry, bridges: str) -> Iterator[str]:
    """Containers are meant only where the rule names their bridge."""
    comment = one["comment"] or f"firewall_forward[{number}]"
    transport = ""
    if one["protocol"]:
        alone = f"meta l4proto {PROTOCOLS[one['protocol']]}"
        transport = f"{one['protocol']} dport {one['port']}" if one["port"] else alone
    out = on("oifname", one["out"]) or (f"oifname != {{ {bridges} }}" if bridges else "")
    for where in addressed(sources_of(one["from"]), sources_of(one["to"])):
        yield rule(on("iifname", one["in"]), out, where, transport, comment=comment)


def _output(number: int, one: Entry) -> Iterator[str]:
    comment = one["comment"] or f"firewall_egress[{number}]"
    for where in addressed(None, sources_of(one["to"])):
        yield rule(on("oifname", one["interface"]), where, f"{one['protocol']} dport {one['port']}", comment=comment)


def _lists(settings: Settings) -> Iterator[tuple[str, str, list[str]]]:
    for name, version in product(("allow", "block"), FAMILIES):
        elements = networks(settings[f"firewall_{name}"], version) or []
        yield f"{name}ed{version}", f"ipv{version}_addr", elements


def _numbered(settings: Settings, name: str) -> Iterator[tuple[int, Entry]]:
    return enumerate(settings[name])
