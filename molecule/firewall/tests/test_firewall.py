"""Hosts with the firewall as most use it, as the other host of the scenario sees them."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from knocking import FAMILIES, address_of, knock, peer_of
from plays import Played, all_hosts, inventory, run_playbook
from testinfra.host import Host

PROJECT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
CONVERGE, PLAYBOOKS = PROJECT / "molecule/shared/converge.yml", PROJECT / "playbooks"
DECLARED = {22, 80, 443, 6000, 6001}
LISTENING = (80, 443, 5432, 6000, 8081, 9100)
BLOCKED_LIST = "/etc/production-firewall/lists.d/blocked.nft"
FOREIGN = "table ip foreign { chain input { type filter hook input priority 10; tcp dport 9 counter; }; }"
FILL = 30  # connections at once: above the burst of 20


def converge() -> Played:
    return run_playbook(CONVERGE, "--diff", "--inventory", inventory())


def scanned(host: Host, version: int) -> str:
    """What nmap, run on another host, says of all ports."""
    # From a declared port: answers to what the other host asks are let in, and would look like ports that refuse.
    scan = f"nmap {'-6' if version == 6 else ''} -n -Pn -sS -g 6001 {address_of(host, version)}"
    every = peer_of(host).check_output(f"{scan} -p- --min-rate 6000 --max-retries 1 --max-rtt-timeout 300ms")
    # The declared ones again and patiently, for an answer that comes late on a busy machine counts as none.
    return str(every + peer_of(host).check_output(f"{scan} -p {','.join(map(str, sorted(DECLARED)))}"))


@pytest.fixture(scope="module")
def scans() -> dict[tuple[str, int], str]:
    """All scans, made at the same time."""
    asked = {(name, version): host for name, host in all_hosts().items() for version in FAMILIES}
    with ThreadPoolExecutor(len(asked)) as pool:
        found = pool.map(lambda one: scanned(asked[one], one[1]), asked)
        return dict(zip(asked, found, strict=True))


@pytest.mark.parametrize("version", FAMILIES)
def test_nmap_finds_the_declared_ports_and_no_other(
    host: Host, version: int, scans: dict[tuple[str, int], str]
) -> None:
    found = scans[host.backend.host, version]
    states = {int(port): state for port, state in re.findall(r"^(\d+)/tcp\s+(\S+)", found, re.MULTILINE)}
    # 6001 is declared and nobody listens there; a port that is not declared does not even refuse.
    assert DECLARED - {6001} == {port for port, state in states.items() if state == "open"}, found
    assert states[6001] == "closed"
    assert states.keys() == DECLARED, found


@pytest.mark.parametrize("version", FAMILIES)
def test_who_listens_on_an_undeclared_port_is_not_reached(host: Host, version: int) -> None:
    for port in LISTENING:
        assert f":{port} " in host.check_output("ss --listening --tcp --numeric --no-header"), port
    answers = dict(zip(LISTENING, knock(host, version, LISTENING), strict=True))
    assert answers == {port: "open" if port in DECLARED else "silent" for port in LISTENING}


@pytest.mark.parametrize("version", FAMILIES)
def test_udp_is_open_where_declared(host: Host, version: int) -> None:
    assert knock(host, version, (5300, 5301), "udp") == ["open", "silent"]


@pytest.mark.parametrize("version", FAMILIES)
def test_echo_is_answered_and_limited(host: Host, version: int) -> None:
    ping = peer_of(host)
    one = ping.run("python3 -c %s %s %s", PING, address_of(host, version), "3")
    assert one.stdout.strip() == "3", one.stderr
    flood = ping.run("python3 -c %s %s %s", PING, address_of(host, version), "200")
    # nft lets five pass at once, of which three are spent.
    assert 2 <= int(flood.stdout) < 60, flood.stdout


PING = """
import socket, struct, sys
address, count = sys.argv[1], int(sys.argv[2])
six = ":" in address
one = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_RAW, 58 if six else 1)
one.settimeout(1)
def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
for number in range(count):
    head = struct.pack("!BBHHH", 128 if six else 8, 0, 0, 77, number)
    if not six:
        head = struct.pack("!BBHHH", 8, 0, checksum(head), 77, number)
    one.sendto(head, (address, 0))
seen = set()
try:
    while len(seen) < count:
        data, _peer = one.recvfrom(2048)
        if not six:
            data = data[20:]
        kind, _code, _sum, name, number = struct.unpack("!BBHHH", data[:8])
        if kind == (129 if six else 0) and name == 77:
            seen.add(number)
except TimeoutError:
    pass
print(len(seen))
"""


@pytest.fixture
def foreign(host: Host) -> Iterator[None]:
    """Rules that somebody else has made: a table of nftables and a rule of iptables."""
    host.check_output("nft %s", FOREIGN)
    host.check_output("iptables --append INPUT --protocol tcp --dport 9 --jump ACCEPT")
    yield
    host.check_output("nft delete table ip foreign")
    host.check_output("iptables --delete INPUT --protocol tcp --dport 9 --jump ACCEPT")


@pytest.mark.usefixtures("foreign")
@pytest.mark.parametrize("action", ["reload", "restart", "stop"])
def test_rules_of_others_survive(host: Host, action: str) -> None:
    host.check_output("systemctl %s production-firewall.service", action)
    rules = host.check_output("nft list ruleset")
    host.check_output("systemctl start production-firewall.service")
    assert "table ip foreign" in rules
    assert host.run("iptables --check INPUT --protocol tcp --dport 9 --jump ACCEPT").rc == 0
    assert ("table inet production" in rules) == (action != "stop")
    assert knock(host, 4, (80, 5432)) == ["open", "silent"]


def test_it_is_there_before_the_network_and_stays_to_the_end(host: Host) -> None:
    shown = host.check_output("systemctl show production-firewall.service --property=Before,Conflicts,UnitFileState")
    properties = dict(line.split("=", 1) for line in shown.splitlines())
    assert "network-pre.target" in properties["Before"]
    assert "shutdown.target" not in properties["Conflicts"]
    assert properties["UnitFileState"] == "enabled"
    assert host.run("systemctl is-enabled nftables.service").stdout.strip() == "disabled"


BY_HAND = {
    "table-deleted": "nft delete table inet production",
    "chain-flushed": "nft flush chain inet production forward",
    "rule-inserted": "nft insert rule inet production input tcp dport 5432 accept",
    "all-flushed": "nft flush ruleset",
    "unit-stopped": "systemctl stop production-firewall.service",
}


@pytest.mark.parametrize("how", BY_HAND)
def test_what_was_changed_by_hand_comes_back_with_the_next_run(how: str) -> None:
    hosts = all_hosts()
    for host in hosts.values():
        host.check_output(BY_HAND[how])
    played = converge()
    assert played.code == 0, played.output
    for name, host in hosts.items():
        assert [result["commands"] for result in played.results[name] if result.get("commands")], played.output
        assert knock(host, 4, (80, 5432)) == ["open", "silent"]
    again = converge()
    assert not [one for results in again.results.values() for one in results if one.get("changed")], again.output


@pytest.fixture
def blocked(host: Host) -> Iterator[Host]:
    """A host that blocks its peer by a list of its own, as a runbook writes it; nothing else is touched."""
    both = {version: address_of(peer_of(host), version) for version in FAMILIES}
    lines = "".join(f"add element inet production blocked{one} {{ {where} }}\n" for one, where in both.items())
    host.check_output("printf %%s %s > %s", lines, BLOCKED_LIST)
    host.check_output("nft --file %s", BLOCKED_LIST)
    yield host
    host.check_output("rm -f %s", BLOCKED_LIST)
    host.check_output("systemctl reload production-firewall.service")


def test_a_blocked_address_reaches_nothing_and_stays_blocked(blocked: Host) -> None:
    for action in ("", "reload", "restart"):
        if action:
            blocked.check_output("systemctl %s production-firewall.service", action)
        for version in FAMILIES:
            assert knock(blocked, version, (22, 80)) == ["silent", "silent"], (action, version)
    played = converge()
    assert not [result for result in played.results[blocked.backend.host] if result.get("changed")], played.output
    assert knock(blocked, 4, (80,)) == ["silent"]


def test_a_list_that_is_broken_costs_the_list_and_not_the_firewall(host: Host) -> None:
    host.check_output("printf 'add element inet production blocked4 { 1.2.3 }\n' > %s", BLOCKED_LIST)
    try:
        host.check_output("systemctl restart production-firewall.service")
        assert knock(host, 4, (80, 5432)) == ["open", "silent"]
        journal = host.check_output("journalctl --unit=production-firewall.service --priority=err --output=cat")
        assert "lists.d are left out" in journal
        assert host.run("production-firewall validate").rc != 0
    finally:
        host.check_output("rm -f %s", BLOCKED_LIST)
        host.check_output("systemctl reload production-firewall.service")


def test_what_somebody_changed_is_shown(host: Host) -> None:
    assert host.run("production-firewall check").rc == 0
    host.check_output("nft insert rule inet production input tcp dport 9999 accept")
    shown = host.run("production-firewall check")
    host.check_output("systemctl reload production-firewall.service")
    assert shown.rc != 0
    assert re.search(r"^> \s*tcp dport 9999 accept$", shown.stdout, re.MULTILINE), shown.stdout


@pytest.mark.parametrize("version", FAMILIES)
def test_ssh_is_limited_for_each_source(host: Host, version: int) -> None:
    host.check_output("systemctl reload production-firewall.service")  # forgets who has connected
    answers = Counter(knock(host, version, [22] * FILL))
    assert 15 <= answers["open"] <= 21, answers
    assert answers["silent"] >= FILL - 21, answers
    assert knock(host, version, (80, 443)) == ["open", "open"]
    # Whoever comes from elsewhere gets in.
    assert knock(host, 10 - version, (22,)) == ["open"]
    host.check_output("systemctl reload production-firewall.service")
    assert knock(host, version, (22,)) == ["open"]


def check_ports(*options: str) -> Played:
    """The playbook, with each host asked by the other one."""
    settings = f"@{os.environ['MOLECULE_SCENARIO_DIRECTORY']}/vars.yml"
    other = json.dumps({"check_ports_from": "{{ groups.all | difference([inventory_hostname]) | first }}"})
    words = ["--inventory", inventory(), "--extra-vars", settings, "--extra-vars", other, *options]
    return run_playbook(PLAYBOOKS / "check_ports.yml", *words)


def test_all_ports_answer_as_declared() -> None:
    played = check_ports()
    assert played.code == 0, played.output
    for name, host in all_hosts().items():
        answering = played.results[name][-1]["answering"]
        assert answering == {address_of(host, version): sorted(DECLARED - {6001}) for version in FAMILIES}


def test_what_is_not_as_declared_is_named(host: Host) -> None:
    host.check_output("nft insert rule inet production input tcp dport 5432 accept")
    host.check_output("nft insert rule inet production input tcp dport 443 drop")
    try:
        played = check_ports("--limit", host.backend.host, "--extra-vars", "check_ports_range=1-6000")
    finally:
        host.check_output("systemctl reload production-firewall.service")
    assert played.code != 0
    v4, v6 = (address_of(host, version) for version in FAMILIES)
    assert sorted(played.results[host.backend.host][-1]["differences"]) == [
        f"{v4}:443/tcp is declared by nginx_https_port and does not answer",
        f"{v4}:5432/tcp answers and is declared by nothing",
        f"[{v6}]:443/tcp is declared by nginx_https_port and does not answer",
        f"[{v6}]:5432/tcp answers and is declared by nothing",
    ]


def test_a_conflict_is_refused_before_anything_changes(host: Host) -> None:
    before = host.check_output("find /etc/production-firewall /etc/systemd/system -printf '%p %T@\n' | sort")
    host.check_output("systemctl start nftables.service")
    try:
        played = converge()
        (result,) = [one for one in played.results[host.backend.host] if one["failed"]]
        assert "nftables.service runs on this host" in result["msg"]
        assert "systemctl disable --now nftables.service" in result["msg"]
        assert (
            host.check_output("find /etc/production-firewall /etc/systemd/system -printf '%p %T@\n' | sort") == before
        )
    finally:
        host.check_output("systemctl stop nftables.service")
        assert converge().code == 0


def test_the_host_is_well(host: Host) -> None:
    assert host.check_output("systemctl --failed --plain --no-legend") == ""
