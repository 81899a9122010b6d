"""Hosts whose firewall has every option away from its default, as the other host of the scenario sees them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

import pytest
from knocking import FAMILIES, KNOCK, address_of, knock, peer_of
from testinfra.host import Host

TCP = {
    80: {4: "silent", 6: "open"},
    6000: "open",
    6010: "open",
    6200: "silent",
    7000: "open",
    7001: "open",
    9000: "silent",
}
ASKING = {"198.51.100.7": "silent", "203.0.113.5": "silent", "198.51.100.130": "open"}
UDP = {53: "open", 6100: "open", 7002: "open"}


@pytest.fixture
def _peer_may_ask(host: Host) -> Iterator[None]:
    """The other host without a firewall: its own rules would keep most questions from leaving it."""
    peer_of(host).check_output("systemctl stop production-firewall.service")
    yield
    peer_of(host).check_output("systemctl start production-firewall.service")


@pytest.mark.usefixtures("_peer_may_ask")
@pytest.mark.parametrize("version", FAMILIES)
def test_ports_are_open_as_each_option_says(host: Host, version: int) -> None:
    """80 is bound to IPv6 alone, 6200 is for another interface, and 7000 is for networks of IPv4 only."""
    wanted = {port: state[version] if isinstance(state, dict) else state for port, state in TCP.items()}
    if version == 6:
        wanted |= {7000: "silent", 7001: "silent"}
    assert dict(zip(TCP, knock(host, version, tuple(TCP)), strict=True)) == wanted
    assert dict(zip(UDP, knock(host, version, tuple(UDP), "udp"), strict=True)) == UDP


@pytest.mark.usefixtures("_peer_may_ask")
@pytest.mark.parametrize("version", FAMILIES)
def test_both_ports_of_ssh_are_limited_together(host: Host, version: int) -> None:
    host.check_output("systemctl reload production-firewall.service")
    answers = Counter(knock(host, version, [22] * 4 + [2222] * 12))
    assert 5 <= answers["open"] <= 8, answers
    assert answers["silent"] >= 8, answers


@pytest.fixture
def link(host: Host) -> Iterator[Host]:
    """Addresses that the lists name belong to the peer, and the host knows its way there."""
    for address in ASKING:
        peer_of(host).check_output(f"ip address replace {address}/32 dev eth0")
        host.check_output(f"ip route replace {address}/32 dev eth0")
    yield host
    for address in ASKING:
        peer_of(host).check_output(f"ip address delete {address}/32 dev eth0")
        host.check_output(f"ip route delete {address}/32 dev eth0")


@pytest.mark.usefixtures("_peer_may_ask")
@pytest.mark.parametrize("address", ASKING)
def test_who_is_blocked_and_who_is_allowed_all_the_same(link: Host, address: str) -> None:
    """6100 is open to the world; the allowed network lies within a blocked one."""
    assert knock(link, 4, (6100,), "udp", address) == [ASKING[address]]


def reach(host: Host, version: int, ports: tuple[int, ...], kind: str = "tcp") -> list[str]:
    """How the peer's ports answer to this host."""
    where = address_of(peer_of(host), version)
    found: list[str] = json.loads(
        host.check_output("python3 -c %s %s %s %s", KNOCK, where, kind, ",".join(map(str, ports)))
    )
    return found


@pytest.mark.parametrize("version", FAMILIES)
def test_the_host_reaches_what_is_declared_and_nothing_else(host: Host, version: int) -> None:
    """What may not leave is refused on the spot: 7001 and 2222 would be open there."""
    assert reach(host, version, (6000, 6010, 7001, 2222)) == ["open", "open", "refused", "refused"]
    assert reach(host, version, (53, 6100), "udp") == ["open", "refused"]


def test_neighbours_find_each_other_anew(host: Host) -> None:
    """ARP and, through both firewalls, neighbour discovery."""
    peer_of(host).check_output("ip neighbour flush dev eth0")
    for version in FAMILIES:
        assert knock(host, version, (6000,)) == ["open"]


def test_nothing_is_logged_and_no_dhcp_let_in(host: Host) -> None:
    rules = host.check_output("nft list table inet production")
    assert " log " not in rules
    assert "dport 68" not in rules


@pytest.fixture
def routed(host: Host) -> Iterator[Host]:
    """A host between two networks, each a namespace behind a link of its own: fwd0 and fwd1."""
    host.check_output("sysctl --quiet --write net.ipv4.ip_forward=1")
    for number in (0, 1):
        net = f"198.18.{number + 1}"
        host.check_output(f"ip netns add side{number}")
        host.check_output(f"ip link add fwd{number} type veth peer name eth0 netns side{number}")
        host.check_output(f"ip address add {net}.1/24 dev fwd{number}")
        host.check_output(f"ip link set fwd{number} up")
        for command in (
            f"address add {net}.2/24 dev eth0",
            "link set eth0 up",
            "link set lo up",
            f"route add default via {net}.1",
        ):
            host.check_output(f"ip -netns side{number} {command}")
        listen = "ip netns exec side%s python3 /usr/local/lib/listening.py 80,81 '' "
        host.check_output(f"systemd-run --quiet --unit=side{number} {listen}", str(number))
    yield host
    for number in (0, 1):
        host.run(f"systemctl stop side{number}.service")
        host.run(f"ip netns delete side{number}")


def test_what_a_router_passes_on(routed: Host) -> None:
    """From the first network to the second one port, and nothing back but replies."""

    def across(number: int, ports: str) -> list[str]:
        where = f"198.18.{2 - number}.2"
        done = routed.check_output("ip netns exec %s python3 -c %s %s tcp %s", f"side{number}", KNOCK, where, ports)
        found: list[str] = json.loads(done)
        return found

    wait = "timeout 10 sh -c 'until ip netns exec side%s ss -Hltn | grep -q :80; do sleep 0.1; done'"
    for number in (0, 1):
        routed.check_output(wait % number)
    assert across(0, "80,81") == ["open", "silent"]
    assert across(1, "80,81") == ["silent", "silent"]


def test_the_rules_stand_where_the_documentation_says(host: Host) -> None:
    for name in ("all.nft", "rules.nft"):
        assert host.file(f"/etc/production-firewall/{name}").mode == 0o644
    assert host.file("/etc/production-firewall/lists.d").is_directory


def test_the_host_is_well(host: Host) -> None:
    assert host.check_output("systemctl --failed --plain --no-legend") == ""
