"""Hosts of a scenario that try each other's ports, over IPv4 and IPv6."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from plays import all_hosts
from testinfra.host import Host

KNOCK = (Path(__file__).parent / "files" / "knock.py").read_text("utf-8")
FAMILIES = (4, 6)


def peer_of(host: Host) -> Host:
    """Another host of the scenario."""
    return next(one for name, one in all_hosts().items() if name != host.backend.host)


@cache
def _address(name: str, version: int) -> str:
    interfaces = json.loads(all_hosts()[name].check_output("ip -json address show dev eth0 scope global"))
    family = "inet6" if version == 6 else "inet"
    return next(str(one["local"]) for one in interfaces[0]["addr_info"] if one["family"] == family)


def address_of(host: Host, version: int) -> str:
    """The address under which others reach a host."""
    return _address(host.backend.host, version)


def knock(target: Host, version: int, ports: Sequence[int], kind: str = "tcp", source: str = "") -> list[str]:
    """How the ports of a host answer to another one: ``open``, ``refused`` or ``silent``."""
    if not ports:
        return []
    listed = ",".join(map(str, ports))
    where = address_of(target, version)
    done = peer_of(target).check_output("python3 -c %s %s %s %s %s", KNOCK, where, kind, listed, source)
    found: list[str] = json.loads(done)
    return found
