"""Settings of the firewall that cannot work are refused before a host is touched, all at once, in one sentence each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from plays import Played, all_hosts, inventory, run_playbook
from testinfra.host import Host

Settings = dict[str, Any]

NOWHERE = "192.0.2.1"  # RFC 5737: an address that nobody has
PLAY = [{"hosts": "all", "gather_facts": False, "become": True, "roles": ["fushuma.production.firewall"]}]
SENTENCE = re.compile(
    r"(?s)(?P<host>\S+): (?P<setting>.+?) is (?P<value>\{.*?\}|.+?): (?P<why>.+)\. Write (?P<instead>.+)\."
)
PLACES = "/etc /root /usr /var/lib/dpkg /var/lib/fushuma-production"


def opened(**entry: Any) -> Settings:
    return {"firewall_open": [{"port": 8080, **entry}]}


# For each way to be wrong: the settings of a host, and what is said of them: setting, value, and a word of the reason.
CASES: Mapping[str, tuple[Settings, list[tuple[str, str, str]]]] = {
    "misspelt": ({"firewall_opens": []}, [("firewall_opens", "given", "nothing reads a setting of this name")]),
    "port-that-is-none": (opened(port=80800), [("firewall_open[0].port", '"80800"', "ports go from 1 to 65535")]),
    "range-backwards": (
        opened(port="90-80"),
        [("firewall_open[0].port", '"90-80"', "the range ends before it begins")],
    ),
    "host-bits": (
        opened(**{"from": ["10.0.0.1/8"]}),
        [("firewall_open[0].from[0]", '"10.0.0.1/8"', "within 10.0.0.0/8")],
    ),
    "no-network": (opened(**{"from": ["office"]}), [("firewall_open[0].from[0]", '"office"', "it is no network")]),
    "families-mixed-up": (
        {"firewall_listens": [{"port": 80, "address": "0.0.0.0", "from": ["fd00::/8"]}]},
        [("firewall_listens[0].from", '["fd00::/8"]', "IPv6, so nothing would match")],
    ),
    "twice": (
        {"firewall_open": [{"port": 80}, {"port": 80}]},
        [("firewall_open[1]", '{"port": "80"', "firewall_open[0] says the same")],
    ),
    "blocked-and-allowed": (
        {"firewall_block": ["192.0.2.7"], "firewall_allow": ["192.0.2.0/24"]},
        [("firewall_block[0]", '"192.0.2.7"', "lets it through all the same")],
    ),
    "rate-that-is-none": (
        {"firewall_ping_rate": "often"},
        [("firewall_ping_rate", '"often"', "no rate that nft knows")],
    ),
    "interface-that-is-none": (
        opened(interface="eth0/1"),
        [("firewall_open[0].interface", '"eth0/1"', "no interface has such a name")],
    ),
    "nobody-gets-in": ({"firewall_ssh": {"from": "host"}}, [("firewall_ssh.from", '"host"', "nothing lets SSH in")]),
    "several-at-once": (
        {"firewall_ping_rate": "often", "firewall_block": ["x"], **opened(port=0)},
        [
            ("firewall_block[0]", '"x"', "it is no network"),
            ("firewall_open[0].port", '"0"', "ports go from 1 to 65535"),
            ("firewall_ping_rate", '"often"', "no rate that nft knows"),
        ],
    ),
}


def run(folder: Path, hosts: Mapping[str, Settings], *inventories: str) -> Played:
    """The role on hosts with these settings."""
    (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    (folder / "play.yml").write_text(yaml.safe_dump(PLAY))
    both = [*inventories, str(folder / "hosts.yml")]
    return run_playbook(folder / "play.yml", *(word for one in both for word in ("--inventory", one)))


def sentences(played: Played) -> list[str]:
    return [one for results in played.results.values() for result in results for one in result.get("problems", [])]


def unreachable(folder: Path, hosts: Mapping[str, Settings]) -> dict[str, Settings]:
    """The hosts at an address that nobody has; whoever tries to connect all the same leaves a file."""
    (folder / "ssh").write_text(f"#!/bin/sh\ntouch {folder}/connected\nexit 255\n")
    (folder / "ssh").chmod(0o755)
    how = {"ansible_host": NOWHERE, "ansible_ssh_executable": f"{folder}/ssh"}
    return {name: {**how, **settings} for name, settings in hosts.items()}


def test_what_cannot_work_is_named_and_nobody_is_contacted(tmp_path: Path) -> None:
    played = run(tmp_path, unreachable(tmp_path, {name: settings for name, (settings, _said) in CASES.items()}))
    assert played.code != 0
    said = [SENTENCE.fullmatch(one) for one in sentences(played)]
    assert all(said), sentences(played)
    for case, (_settings, wanted) in CASES.items():
        mine = sorted((one["setting"], one["value"], one["why"]) for one in said if one and one["host"] == case)
        assert len(mine) == len(wanted), (case, mine)
        for (setting, value, why), (wanted_setting, wanted_value, reason) in zip(mine, wanted, strict=True):
            assert setting == wanted_setting
            assert value.startswith(wanted_value), case
            assert reason in why, case
    assert not (tmp_path / "connected").exists()


def test_a_contact_would_have_been_seen(tmp_path: Path) -> None:
    run(tmp_path, unreachable(tmp_path, {"sound": {}}))
    assert (tmp_path / "connected").exists()


def state(host: Host) -> str:
    """Every file that the role could touch, and the rules in the kernel."""
    return str(
        host.check_output(f"find {PLACES} -xdev -printf '%p %s %T@\\n' 2>/dev/null | sort; nft list ruleset || true")
    )


@pytest.mark.parametrize("case", ["nobody-gets-in", "host-bits"])
def test_hosts_that_can_be_reached_are_not_touched(tmp_path: Path, case: str) -> None:
    hosts = all_hosts()
    before = {name: state(host) for name, host in hosts.items()}
    played = run(tmp_path, dict.fromkeys(hosts, CASES[case][0]), inventory())
    assert played.code != 0
    assert len(sentences(played)) == len(hosts)
    assert {name: state(host) for name, host in hosts.items()} == before


def test_another_firewall_is_refused_in_check_mode_too(tmp_path: Path) -> None:
    """Found on the host, before a package is installed or a file written."""
    hosts = all_hosts()
    for host in hosts.values():
        host.check_output("apt-get update -qq")
        host.check_output("env DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends ufw")
        host.check_output("systemctl start ufw.service")
    before = {name: state(host) for name, host in hosts.items()}
    played = run(tmp_path, {name: {} for name in hosts}, inventory())
    dry = run_playbook(tmp_path / "play.yml", "--inventory", inventory(), "--check")
    for one in (played, dry):
        for results in one.results.values():
            assert "ufw.service runs on this host and would undo what firewall does" in results[-1]["msg"]
            assert "systemctl disable --now ufw.service" in results[-1]["msg"]
    assert {name: state(host) for name, host in hosts.items()} == before
