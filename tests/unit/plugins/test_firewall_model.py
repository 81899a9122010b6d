# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rules that follow from the firewall's settings, what they open, and the filter that gives both."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible.template import trust_as_template
from ansible_collections.fushuma.production.plugins.filter import firewall as plugin
from ansible_collections.fushuma.production.plugins.plugin_utils import firewall_model as model

from ..roles.render import Role, templar

firewall_model = plugin.FilterModule().filters()["firewall_model"]
BRIDGES = '"docker0", "docker_gwbridge", "br-*"'


def made(**settings: Any) -> dict[str, Any]:
    found: dict[str, Any] = firewall_model({f"firewall_{name}": value for name, value in settings.items()})
    return found


def opened(**settings: Any) -> list[str]:
    """The rules of the input chain, without those of SSH."""
    return [one for one in made(**settings)["input"] if "jump ssh" not in one]


@pytest.mark.parametrize(
    ("listens", "rules"),
    [
        ({"port": 80, "setting": "a"}, ['tcp dport 80 accept comment "a"']),
        ({"port": 80, "address": "0.0.0.0"}, ["meta nfproto ipv4 tcp dport 80 accept"]),
        ({"port": 80, "address": "[::]"}, ["meta nfproto ipv6 tcp dport 80 accept"]),
        ({"port": 80, "address": "192.0.2.7"}, ["ip daddr { 192.0.2.7 } tcp dport 80 accept"]),
        ({"port": 80, "address": "[2001:db8::7]"}, ["ip6 daddr { 2001:db8::7 } tcp dport 80 accept"]),
        ({"port": 80, "from": "host"}, []),
        ({"port": 80, "address": "127.0.0.1"}, []),
        ({"port": 80, "address": "::1", "from": "world"}, []),
        (
            {"port": 80, "from": ["10.0.0.0/8", "fd00::/8", "192.0.2.7"]},
            ["ip saddr { 10.0.0.0/8, 192.0.2.7 } tcp dport 80 accept", "ip6 saddr { fd00::/8 } tcp dport 80 accept"],
        ),
        (
            {"port": 80, "address": "0.0.0.0", "from": ["10.0.0.0/8", "fd00::/8"]},
            ["ip saddr { 10.0.0.0/8 } tcp dport 80 accept"],
        ),
        (
            {"port": 80, "address": "192.0.2.7", "from": ["10.0.0.0/8", "fd00::/8"]},
            ["ip saddr { 10.0.0.0/8 } ip daddr { 192.0.2.7 } tcp dport 80 accept"],
        ),
        ({"port": 53, "protocol": "udp"}, ["udp dport 53 accept"]),
    ],
)
def test_what_roles_listen_on(listens: dict[str, Any], rules: list[str]) -> None:
    found = opened(listens=[listens])
    assert len(found) == len(rules)
    assert all(one.startswith(rule) for one, rule in zip(found, rules, strict=True)), found


def test_what_is_open_besides() -> None:
    entries = [{"port": "1-9", "interface": "wg*", "comment": "Games"}, {"port": 7, "from": ["::1"], "protocol": "udp"}]
    assert opened(open=entries) == [
        'iifname "wg*" tcp dport 1-9 accept comment "Games"',
        'ip6 saddr { ::1 } udp dport 7 accept comment "firewall_open[1]"',
    ]


def test_a_published_port_is_open_for_dockers_proxy_and_for_what_docker_has_rewritten() -> None:
    found = made(published=[{"port": 8080, "from": ["10.0.0.0/8"]}])
    comment = 'comment "firewall_published[0]"'
    assert f"ip saddr {{ 10.0.0.0/8 }} tcp dport 8080 accept {comment}" in found["input"]
    asked = "meta l4proto 6 ct original proto-dst 8080"
    assert found["published"] == [f"ip saddr {{ 10.0.0.0/8 }} {asked} accept {comment}"]


def test_what_a_container_listens_on_is_let_through_to_it() -> None:
    shop = {"port": "8100-8119", "address": "10.0.1.21", "from": ["10.0.1.0/24"], "published": True, "setting": "ports"}
    found = made(listens=[shop, {**shop, "published": False}], published=[{"port": 8080}])
    asked = "meta l4proto 6 ct original proto-dst"
    assert found["published"] == [
        f'ip saddr {{ 10.0.1.0/24 }} {asked} 8100-8119 accept comment "ports"',
        f'{asked} 8080 accept comment "firewall_published[0]"',
    ]
    assert (
        found["input"].count(
            'ip saddr { 10.0.1.0/24 } ip daddr { 10.0.1.21 } tcp dport 8100-8119 accept comment "ports"'
        )
        == 2
    )
    for closed in ({"from": "host"}, {"address": "127.0.0.1"}):
        assert made(listens=[{**shop, **closed}])["published"] == []


SSH = {"port": 2222, "limited": True, "setting": "sshd_port"}


@pytest.mark.parametrize(
    ("settings", "rules"),
    [
        ({}, ['tcp dport 22 ct state new jump ssh comment "firewall_ssh"']),
        ({"listens": [SSH]}, ['tcp dport 2222 ct state new jump ssh comment "sshd_port"']),
        ({"listens": [{**SSH, "from": "host"}]}, []),
        (
            {"listens": [SSH, {**SSH, "port": 2223, "from": ["192.0.2.0/24"]}], "ssh": {"from": ["198.51.100.0/24"]}},
            [
                'ip saddr { 198.51.100.0/24 } tcp dport 2222 ct state new jump ssh comment "sshd_port"',
                'ip saddr { 192.0.2.0/24 } tcp dport 2223 ct state new jump ssh comment "sshd_port"',
            ],
        ),
        ({"listens": [SSH], "ssh": {"from": "host"}}, []),
        (
            {"listens": [SSH], "ssh": {"ports": [22], "from": ["::1"]}},
            [
                'ip6 saddr { ::1 } tcp dport 2222 ct state new jump ssh comment "sshd_port"',
                'ip6 saddr { ::1 } tcp dport 22 ct state new jump ssh comment "firewall_ssh"',
            ],
        ),
        ({"ssh": {"from": "host"}}, []),
    ],
)
def test_where_ssh_comes_in(settings: dict[str, Any], rules: list[str]) -> None:
    assert made(**settings)["input"] == rules


@pytest.mark.parametrize(
    ("rate", "burst", "seconds"),
    [("20/minute", 20, 60), ("1/second", 500, 500), ("10/minute", 100, 600), ("9/minute", 10, 67)],
)
def test_a_source_is_remembered_until_it_may_have_a_burst_again(rate: str, burst: int, seconds: int) -> None:
    found = made(ssh={"rate": rate, "burst": burst})
    assert (found["ssh_memory"], found["ssh_limit"]) == (seconds, f"{rate} burst {burst} packets")


def test_lists_are_parted_by_family() -> None:
    found = {
        name: elements for name, _type, elements in made(block=["192.0.2.0/24", "::1"], allow=["10.0.0.1"])["lists"]
    }
    assert found == {"allowed4": ["10.0.0.1"], "allowed6": [], "blocked4": ["192.0.2.0/24"], "blocked6": ["::1"]}


@pytest.mark.parametrize(
    ("entry", "rules"),
    [
        ({"in": "wg0"}, [f'iifname "wg0" oifname != {{ {BRIDGES} }} accept']),
        (
            {"in": "docker0", "out": "eth0", "protocol": "udp"},
            ['iifname "docker0" oifname "eth0" meta l4proto 17 accept'],
        ),
        (
            {"out": "e*", "from": ["10.0.0.0/8", "::1"], "to": ["10.1.0.0/16"], "protocol": "tcp", "port": 80},
            ['oifname "e*" ip saddr { 10.0.0.0/8 } ip daddr { 10.1.0.0/16 } tcp dport 80 accept'],
        ),
    ],
)
def test_what_a_router_passes_on(entry: dict[str, Any], rules: list[str]) -> None:
    found = made(forward=[entry])["forward"]
    assert found == [f'{rule} comment "firewall_forward[0]"' for rule in rules]


def test_a_router_without_containers() -> None:
    found = made(forward=[{"in": "wg0"}], containers={"bridges": []})
    assert (found["forward"], found["bridges"]) == (['iifname "wg0" accept comment "firewall_forward[0]"'], "")


def test_what_may_leave() -> None:
    assert made()["output"] is None
    assert made(egress=[])["output"] == []
    entry = {"port": 443, "to": ["10.0.0.0/8", "fd00::/8"], "interface": "eth0", "comment": "Registry"}
    assert made(egress=[entry])["output"] == [
        'oifname "eth0" ip daddr { 10.0.0.0/8 } tcp dport 443 accept comment "Registry"',
        'oifname "eth0" ip6 daddr { fd00::/8 } tcp dport 443 accept comment "Registry"',
    ]


def test_what_is_declared() -> None:
    listens = [{"port": 80, "address": "[::]", "setting": "a"}, {"port": 81, "from": "host"}, SSH]
    found = made(listens=listens, open=[{"port": "5-6", "from": ["::1"]}], published=[{"port": 7, "protocol": "udp"}])
    assert [tuple(one.values()) for one in found["declared"]] == [
        ("2222", "tcp", None, "", "sshd_port"),
        ("80", "tcp", None, "::", "a"),
        ("5-6", "tcp", ["::1"], "", "firewall_open[0]"),
        ("7", "udp", None, "", "firewall_published[0]"),
    ]


def test_a_comment_is_cut_to_what_nft_takes() -> None:
    assert model.quoted("x" * 200) == f'"{"x" * 128}"'


# --- the filter -------------------------------------------------------------------------------------------------------


def test_it_is_called_by_its_full_name() -> None:
    found = templar({"settings": {}}).evaluate_expression(
        trust_as_template("(settings | fushuma.production.firewall_model).declared[0].ports")
    )
    assert found == "22"


def test_its_documentation_names_what_it_gives() -> None:
    path = Path(plugin.__file__).with_name("firewall_model.yml")
    described = yaml.safe_load(path.read_text("utf-8"))["RETURN"]["_value"]["description"]
    assert set(re.findall(r"\w+", described)) - {"C"} == set(made())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([], "firewall_model: expects the role's settings as a dict, not list"),
        ({"firewall_open": [{}]}, "firewall_model: firewall_open[0].port is missing"),
        ({"firewall_open": [{"port": 1, "from": ["x"]}]}, "firewall_model: 'x' does not appear to be"),
        ({"firewall_ssh": {"rate": "1/week"}}, "firewall_model: 'week'"),
    ],
)
def test_what_it_cannot_work_with(settings: Any, message: str) -> None:
    with pytest.raises(AnsibleFilterError) as caught:
        firewall_model(settings)
    assert message in str(caught.value)


# --- the files --------------------------------------------------------------------------------------------------------


def rules_of(**settings: Any) -> str:
    return Role("firewall", {f"firewall_{name}": value for name, value in settings.items()}).files[
        "/etc/production-firewall/rules.nft"
    ]


def test_the_table_is_replaced_and_no_other_is_touched() -> None:
    text = rules_of(block=["192.0.2.0/24"])
    statements = [line for line in text.splitlines() if line and not line.startswith(("#", "\t", "}"))]
    assert statements == ["table inet production", "delete table inet production", "table inet production {"]
    assert "elements = { 192.0.2.0/24 }" in text
    assert text.count("{") == text.count("}")


@pytest.mark.parametrize(
    ("settings", "words", "there"),
    [
        ({}, "hook output", False),
        ({"egress": []}, "hook output", True),
        ({"dhcp": False}, "udp dport 68", False),
        ({"dhcp": False, "egress": []}, "udp dport 67", False),
        ({"egress": []}, "udp dport 67", True),
        ({"log": {"enabled": False}, "egress": []}, " log ", False),
        ({}, "burst 10 packets log prefix", True),
        ({"containers": {"bridges": []}, "egress": []}, "docker", False),
        ({"containers": {"egress": False}}, f"iifname {{ {BRIDGES} }} accept", False),
        ({}, f"iifname {{ {BRIDGES} }} accept", True),
    ],
)
def test_a_setting_shows_in_the_rules(settings: dict[str, Any], words: str, there: bool) -> None:
    rules = "\n".join(line for line in rules_of(**settings).splitlines() if not line.strip().startswith("#"))
    assert (words in rules) == there


def test_the_probe_asks_for_these_rules() -> None:
    role = Role("firewall", {})
    assert f'comment "{role.digest}"' in role.files["/etc/production-firewall/rules.nft"]
    arguments = dict(role.tasks)["service_config"]
    assert (arguments["confirm_within"], arguments["probe_timeout"]) == (45, 0)
    assert arguments["probe"][0]["body"] == "@config_digest@"
