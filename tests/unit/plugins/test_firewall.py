# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Settings of the firewall role: which are accepted, and the sentence that each kind of problem is told in."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.plugin_utils import firewall, specs
from ansible_collections.fushuma.production.plugins.plugin_utils import firewall_model as model
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import sentences
from hypothesis import given
from hypothesis import strategies as st

OPTIONS = specs.role_options("firewall")
SSH = {"port": 22, "from": "world", "limited": True, "setting": "sshd_port"}


def said(**settings: Any) -> list[str]:
    """What the judge says of these settings, on top of the role's defaults."""
    full = {f"firewall_{name}": value for name, value in settings.items()}
    assert specs.problems(OPTIONS, full) == []
    return sentences(firewall.problems(specs.filled(OPTIONS, full)))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"listens": [{**SSH, "from": ["192.0.2.0/24"]}], "ssh": {"from": "host"}},
        {"listens": [{"port": 443, "address": "[::]"}, {"port": 443, "address": "0.0.0.0"}]},
        {"listens": [{"port": 8081, "address": "127.0.0.1", "from": "host"}]},
        {"listens": [{"port": 9100, "address": "::", "from": ["10.0.0.0/8", "fd00::/8"]}]},
        {"open": [{"port": 1}, {"port": "65535"}, {"port": "6000-6010", "protocol": "udp", "interface": "wg*"}]},
        {"open": [{"port": 22}], "ssh": {"from": "host"}},
        {"open": [{"port": "20-30", "from": ["192.0.2.7"]}], "ssh": {"from": "host"}},
        {"open": [{"port": 53}, {"port": 53, "protocol": "udp"}, {"port": 53, "interface": "eth0"}]},
        {"open": [{"port": 80, "comment": "c" * 128}]},
        {"published": [{"port": 8080, "from": ["10.0.0.0/8", "2001:db8::/32"]}]},
        {"ssh": {"ports": [22, 2222], "from": ["192.0.2.0/24"], "rate": "1/second", "burst": 5}},
        {"block": ["192.0.2.0/24"], "allow": ["192.0.2.7"]},
        {"block": ["192.0.2.0/24"], "allow": ["192.0.2.0/25"]},
        {"block": ["2001:db8::/32", "192.0.2.7", "::1"]},
        {"containers": {"bridges": []}},
        {"forward": [{"in": "wg0", "out": "eth0"}, {"from": ["10.0.0.0/8"], "to": ["10.1.0.0/16", "fd00::/8"]}]},
        {"forward": [{"protocol": "tcp", "port": 80}]},
        {"egress": []},
        {"egress": [{"port": 443, "to": ["192.0.2.0/24"]}]},
        {"ping_rate": "1/day", "log": {"rate": "5/hour", "burst": 1}},
        {"confirm_within": 20},
    ],
)
def test_settings_that_work(settings: dict[str, Any]) -> None:
    assert said(**settings) == []


NOBODY = "so nobody could log in any more. Write for example"


@pytest.mark.parametrize(
    ("settings", "beginning", "words"),
    [
        ({"open": [{"port": "http"}]}, 'firewall_open[0].port is "http"', 'Write for example 443, or "6000-6010".'),
        ({"open": [{"port": 0}]}, 'firewall_open[0].port is "0"', "ports go from 1 to 65535"),
        ({"open": [{"port": "80-65536"}]}, 'firewall_open[0].port is "80-65536"', "ports go from 1 to 65535"),
        ({"open": [{"port": "90-80"}]}, 'firewall_open[0].port is "90-80"', 'Write "80-90".'),
        ({"open": [{"port": "80-80"}]}, 'firewall_open[0].port is "80-80"', "Write 80."),
        (
            {"open": [{"port": 80, "from": ["10.0.0.1/8"]}]},
            'firewall_open[0].from[0] is "10.0.0.1/8"',
            'Write "10.0.0.0/8"',
        ),
        ({"open": [{"port": 80, "from": ["10.0.0"]}]}, 'firewall_open[0].from[0] is "10.0.0"', "it is no network"),
        ({"open": [{"port": 80, "from": ["edge"]}]}, 'firewall_open[0].from[0] is "edge"', "it is no network"),
        (
            {"open": [{"port": 80, "from": ["fe80::1%eth0"]}]},
            'firewall_open[0].from[0] is "fe80::1%eth0"',
            "no network",
        ),
        ({"open": [{"port": 80, "from": ["::ffff:10.0.0.1"]}]}, "firewall_open[0].from[0]", 'Write "10.0.0.1".'),
        (
            {"open": [{"port": 80, "from": ["world"]}]},
            'firewall_open[0].from[0] is "world"',
            "without a list around it",
        ),
        ({"open": [{"port": 80, "from": []}]}, "firewall_open[0].from is []", "it would match nobody"),
        ({"open": [{"port": 80, "from": "host"}]}, 'firewall_open[0].from is "host"', "there is nothing to say"),
        (
            {"open": [{"port": 80, "from": "10.0.0.0/8"}]},
            'firewall_open[0].from is "10.0.0.0/8"',
            "it names no networks",
        ),
        ({"open": [{"port": 80, "from": ["::1", "::1"]}]}, "firewall_open[0].from[1]", "from[0] says the same"),
        ({"open": [{"port": 80}, {"port": "80"}]}, "firewall_open[1]", "firewall_open[0] says the same"),
        (
            {"open": [{"port": 80, "interface": "eth 0"}]},
            'firewall_open[0].interface is "eth 0"',
            "no interface has such",
        ),
        ({"open": [{"port": 80, "interface": "x" * 16}]}, "firewall_open[0].interface", "15 characters at most"),
        ({"open": [{"port": 80, "comment": 'a "b"'}]}, "firewall_open[0].comment", "without quotes"),
        ({"published": [{"port": 80, "from": "host"}]}, "firewall_published[0].from", "there is nothing to say"),
        ({"listens": [{"port": 80, "address": "localhost"}]}, "firewall_listens[0].address", "it is no address"),
        (
            {"listens": [{"port": 80, "address": "0.0.0.0", "from": ["fd00::/8"]}]},
            "firewall_listens[0].from",
            "is IPv4 and",
        ),
        (
            {"listens": [{"port": 80, "address": "::", "from": ["10.0.0.0/8"]}]},
            "firewall_listens[0].from",
            "is IPv6 and",
        ),
        ({"listens": [{**SSH, "protocol": "udp"}]}, "firewall_listens[0].limited is true", "SSH is spoken over TCP"),
        ({"forward": [{"from": ["10.0.0.0/8"], "to": ["fd00::/8"]}]}, "firewall_forward[0].to", "nothing would match"),
        ({"forward": [{"port": 80}]}, 'firewall_forward[0].port is "80"', "protocol tcp or udp beside it"),
        ({"forward": [{"in": "a/b"}]}, 'firewall_forward[0].in is "a/b"', "no interface has such a name"),
        ({"egress": [{"port": 80, "to": "host"}]}, 'firewall_egress[0].to is "host"', "there is nothing to say"),
        ({"containers": {"bridges": ["br-*", "br-*"]}}, "firewall_containers.bridges[1]", "says the same"),
        ({"containers": {"bridges": ["*"]}}, "firewall_containers.bridges[0]", "no interface has such a name"),
        ({"ssh": {"ports": []}}, "firewall_ssh.ports is []", "sshd listens on some port"),
        ({"ssh": {"ports": [70000]}}, 'firewall_ssh.ports[0] is "70000"', "ports go from 1 to 65535"),
        ({"ssh": {"rate": "20 per minute"}}, 'firewall_ssh.rate is "20 per minute"', "it is no rate that nft knows"),
        ({"ssh": {"rate": "0/minute"}}, 'firewall_ssh.rate is "0/minute"', "it is no rate that nft knows"),
        ({"ssh": {"rate": "20/hour"}}, 'firewall_ssh.rate is "20/hour"', "for more than a minute"),
        ({"ssh": {"burst": 4}}, "firewall_ssh.burst is 4", "the next one would not get in"),
        ({"ssh": {"from": "host"}}, 'firewall_ssh.from is "host"', f"in on port 22, {NOBODY}"),
        ({"ssh": {"from": "host", "ports": [2222]}, "open": [{"port": 22}]}, "firewall_ssh.from", "in on port 2222"),
        ({"ssh": {"from": "host"}, "open": [{"port": 22, "protocol": "udp"}]}, "firewall_ssh.from", NOBODY),
        ({"ssh": {"from": "host"}, "published": [{"port": 22}]}, "firewall_ssh.from", NOBODY),
        ({"listens": [{**SSH, "address": "::1"}]}, "firewall_ssh.from", NOBODY),
        ({"block": ["10.0.0.1/8"]}, 'firewall_block[0] is "10.0.0.1/8"', 'Write "10.0.0.0/8", or "10.0.0.1" alone.'),
        ({"block": ["::/0"]}, 'firewall_block[0] is "::/0"', "the controller's too"),
        ({"block": ["10.0.0.1"], "allow": ["10.0.0.1"]}, "firewall_block[0]", "it in one of the two lists"),
        ({"block": ["10.0.0.1"], "allow": ["10.0.0.0/8"]}, "firewall_block[0]", "lets it through all the same"),
        ({"allow": ["::1", "::1"]}, "firewall_allow[1]", "firewall_allow[0] says the same"),
        ({"ping_rate": "fast"}, 'firewall_ping_rate is "fast"', "it is no rate that nft knows"),
        ({"log": {"rate": "1/week"}}, 'firewall_log.rate is "1/week"', "it is no rate that nft knows"),
        ({"log": {"burst": 0}}, "firewall_log.burst is 0", "nothing would be logged"),
        ({"confirm_within": 0}, "firewall_confirm_within is 0", "20 to 600 seconds"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], beginning: str, words: str) -> None:
    (sentence,) = said(**settings)
    assert sentence.startswith(beginning)
    assert words in sentence


def test_all_problems_come_at_once() -> None:
    assert len(said(open=[{"port": 0, "from": []}], block=["x"], ssh={"rate": "x", "from": "host"})) == 4


NETWORKS = st.one_of(
    st.ip_addresses().map(str),
    st.builds(
        lambda address, bits: (
            str(ipaddress.ip_network((int(address), bits), strict=False))
            if address.version == 4
            else str(ipaddress.IPv6Network((int(address), bits), strict=False))
        ),
        st.ip_addresses(v=6),
        st.integers(1, 128),
    ),
).filter(
    lambda one: ipaddress.ip_network(one).version == 4 or not ipaddress.ip_network(one).network_address.ipv4_mapped
)
ENTRIES = st.fixed_dictionaries(
    {"port": st.integers(1, 65535), "from": st.one_of(st.just("world"), st.lists(NETWORKS, min_size=1, unique=True))}
)


@given(st.lists(ENTRIES, max_size=4, unique_by=lambda one: one["port"]))
def test_what_is_accepted_becomes_rules(entries: list[dict[str, Any]]) -> None:
    """And each family that a rule names has a line of its own."""
    assert said(open=entries) == []
    made = model.model(specs.filled(OPTIONS, {"firewall_open": entries}))["input"]
    for number, entry in enumerate(entries):
        mine = [one for one in made if one.endswith(f'"firewall_open[{number}]"')]
        versions = {ipaddress.ip_network(one).version for one in entry["from"]} if entry["from"] != "world" else {0}
        assert len(mine) == len(versions)
        assert all(f"tcp dport {entry['port']} accept" in one for one in mine)


@given(st.lists(NETWORKS, max_size=4, unique=True), st.lists(NETWORKS, max_size=4, unique=True))
def test_the_judge_never_falls_over_lists(allow: list[str], block: list[str]) -> None:
    said(allow=allow, block=block)
