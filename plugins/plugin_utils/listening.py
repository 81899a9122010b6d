# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where a service listens, and for whom."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.fushuma.production.plugins.plugin_utils.problem import Problem, value_of


def problems(settings: Mapping[str, Any], prefix: str = "") -> Iterator[Problem]:
    """What cannot work in ``{prefix}addresses`` and ``{prefix}from``; the latter is ``host`` or a list of networks."""
    addresses = settings[f"{prefix}addresses"]
    loopback = []
    for number, address in enumerate(addresses):
        try:
            loopback.append(ipaddress.ip_address(address).is_loopback)
        except ValueError:
            form = '"127.0.0.1" or "10.0.1.31"'
            yield Problem(f"{prefix}addresses[{number}]", value_of(address), "it is no address", form)
    if not addresses:
        yield Problem(f"{prefix}addresses", "[]", "it would listen nowhere", '["127.0.0.1", "::1"]')
    yield from sources(settings[f"{prefix}from"], f"{prefix}from", loopback=all(loopback))


def sources(given: object, setting: str, *, loopback: bool) -> Iterator[Problem]:
    """What cannot work in who may connect: ``host``, or a list of networks. loopback: nobody else reaches it anyway."""
    if given == "host":
        return
    if not isinstance(given, list) or not given:
        form = '"host", or a list of networks such as ["10.0.0.0/8"]'
        yield Problem(setting, value_of(given), "only machines that are named may connect", form)
        return
    if loopback:
        why = "it listens on this host's loopback addresses only, so nobody else can connect"
        yield Problem(setting, value_of(given), why, '"host", or addresses that others reach')
    for number, network in enumerate(given):
        where, form = f"{setting}[{number}]", '"10.0.0.0/8"'
        try:
            wide = ipaddress.ip_network(str(network)).prefixlen == 0
        except ValueError as error:
            yield Problem(where, value_of(network), f"it is no network ({error})", form)
            continue
        if wide:
            yield Problem(where, value_of(network), "it is the whole world", form)
