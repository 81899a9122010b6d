"""Settings of sshd that cannot work are refused before a host is touched: all at once, each with its host and value."""

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
PLACES = "/etc /home /opt /root /srv /usr /var/lib /var/spool"
SENTENCE = re.compile(r"(?s)(?P<host>\S+): (?P<setting>.+?) is (?P<value>.+?): (?P<why>.+)\. Write (?P<instead>.+)\.")
PLAY = [{"hosts": "all", "become": True, "gather_facts": False, "roles": ["fushuma.production.sshd"]}]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJq3ym7R0Zz0kJ1nBOBsOcGvLLNkCNqLQCkDmQ0cZxXG anna"

# For each way to be wrong: the settings of a host, and what is said of them: setting, value, and a word of the reason.
CASES: Mapping[str, tuple[Settings, list[tuple[str, str, str]]]] = {
    "root-connects": (
        {"ansible_user": "root"},
        [("sshd_root_login", '"no"', "Ansible connects as root")],
    ),
    "operator-not-allowed": (
        {"ansible_user": "anna", "sshd_allow_users": ["ben"]},
        [("sshd_allow_users", '["ben"]', "it does not name anna")],
    ),
    "operator-denied": (
        {"ansible_user": "anna", "sshd_deny_users": ["an*"]},
        [("sshd_deny_users[0]", '"an*"', "it keeps out anna")],
    ),
    "port-that-is-none": ({"sshd_ports": [22, 70000]}, [("sshd_ports[1]", "70000", "ports go from 1 to 65535")]),
    "no-port": ({"sshd_ports": []}, [("sshd_ports", "[]", "nobody could connect")]),
    "address-with-a-port": (
        {"sshd_listen_addresses": ["10.0.0.1:22"]},
        [("sshd_listen_addresses[0]", '"10.0.0.1:22"', "it is no address")],
    ),
    "misspelt-algorithm": (
        {"sshd_kex_algorithms": ["mlkem768x25519-sha265"]},
        [("sshd_kex_algorithms[0]", '"mlkem768x25519-sha265"', "OpenSSH knows no algorithm of this name")],
    ),
    "weak-exchange": (
        {"sshd_kex_algorithms": ["diffie-hellman-group14-sha256"]},
        [("sshd_kex_algorithms[0]", '"diffie-hellman-group14-sha256"', "too small")],
    ),
    "weak-cipher": (
        {"sshd_ciphers": ["aes256-cbc"]},
        [("sshd_ciphers[0]", '"aes256-cbc"', "CBC in SSH")],
    ),
    "no-public-key": (
        {"sshd_authorized_keys": [{"user": "anna", "keys": ["AAAAC3NzaC1lZDI1NTE5"]}]},
        [("sshd_authorized_keys[0].keys[0]", '"AAAAC3NzaC1lZDI1NTE5"', "it names no kind of key")],
    ),
    "private-key": (
        {"sshd_authorized_keys": [{"user": "anna", "keys": ["-----BEGIN OPENSSH PRIVATE " + "KEY-----\ncanary"]}]},
        [("sshd_authorized_keys[0].keys[0]", "a key", "it is a private key")],
    ),
    "user-twice": (
        {"sshd_authorized_keys": [{"user": "anna", "keys": [KEY]}] * 2},
        [("sshd_authorized_keys[1].user", '"anna"', "it stands there twice")],
    ),
    "keys-for-root": (
        {"sshd_authorized_keys": [{"user": "root", "keys": [KEY]}]},
        [("sshd_authorized_keys[0].user", '"root"', 'sshd_root_login is "no"')],
    ),
    "password-of-root": (
        {"sshd_root_login": "yes", "sshd_password_authentication": True},
        [("sshd_root_login", '"yes"', "anybody may guess root's")],
    ),
    "method-that-is-off": (
        {"sshd_authentication_methods": ["publickey,password"]},
        [("sshd_authentication_methods[0]", '"publickey,password"', "sshd_password_authentication is false")],
    ),
    "unknown-criterion": (
        {"sshd_match": [{"criteria": {"Users": "anna"}, "settings": {"MaxSessions": 1}}]},
        [("sshd_match[0].criteria.Users", '"anna"', "Match knows no such criterion")],
    ),
    "keyword-outside-match": (
        {"sshd_match": [{"criteria": {"User": "anna"}, "settings": {"UsePAM": False}}]},
        [("sshd_match[0].settings.UsePAM", "false", "it cannot stand in a Match block")],
    ),
    "principals-without-authority": (
        {"sshd_authorized_principals": [{"user": "anna", "principals": ["deployers"]}]},
        [("sshd_authorized_principals", "given", "no certificate counts")],
    ),
    "misspelt-setting": ({"sshd_port": 22}, [("sshd_port", "22", "nothing reads a setting of this name")]),
    "several-at-once": (
        {"sshd_ports": [0], "sshd_macs": ["hmac-md5"], "sshd_fail2ban_ban_time": "for ever"},
        [
            ("sshd_ports[0]", "0", "ports go from 1"),
            ("sshd_macs[0]", '"hmac-md5"', "broken"),
            ("sshd_fail2ban_ban_time", '"for ever"', "it is no time that fail2ban knows"),
        ],
    ),
}


def run(folder: Path, hosts: Mapping[str, Settings], *inventories: str) -> Played:
    """The role over these hosts; whoever tries to connect without an address leaves a file."""
    (folder / "ssh").write_text(f"#!/bin/sh\ntouch {folder}/connected\nexit 255\n")
    (folder / "ssh").chmod(0o755)
    (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": dict(hosts)}}))
    (folder / "play.yml").write_text(yaml.safe_dump(PLAY))
    given = [word for one in (*inventories, str(folder / "hosts.yml")) for word in ("--inventory", one)]
    return run_playbook(folder / "play.yml", *given)


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Played, Path]:
    """The role on a host for each case, none of which can be reached."""
    folder = tmp_path_factory.mktemp("judged")
    unreachable = {"ansible_host": NOWHERE, "ansible_ssh_executable": f"{folder}/ssh"}
    return run(folder, {name: {**unreachable, **settings} for name, (settings, _said) in CASES.items()}), folder


def sentences(played: Played, host: str) -> list[str]:
    return [one for result in played.results[host] for one in result.get("problems", [])]


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_work_is_named_with_its_host_and_value(judged: tuple[Played, Path], case: str) -> None:
    said = [SENTENCE.fullmatch(one) for one in sentences(judged[0], case)]
    assert said
    assert all(said), sentences(judged[0], case)
    mine = sorted((one["host"], one["setting"], one["value"], one["why"]) for one in said if one)
    wanted = sorted(CASES[case][1])
    assert len(mine) == len(wanted), mine
    for (host, setting, value, why), (wanted_setting, wanted_value, reason) in zip(mine, wanted, strict=True):
        assert (host, setting, value) == (case, wanted_setting, wanted_value)
        assert reason in why


def test_nobody_is_contacted(judged: tuple[Played, Path], tmp_path: Path) -> None:
    """A host in order shows that a contact would be seen."""
    assert judged[0].code == 2
    assert not (judged[1] / "connected").exists()
    run(tmp_path, {"in-order": {"ansible_host": NOWHERE, "ansible_ssh_executable": f"{tmp_path}/ssh"}})
    assert (tmp_path / "connected").exists()


def state(host: Host) -> str:
    """Every file of a host that a role could touch, with size, owner, mode and times; its packages."""
    listed = host.check_output(
        f"find {PLACES} -xdev -not -path '*/systemd/*' -printf '%p %s %u %m %T@ %C@\\n' 2>/dev/null; true"
    )
    return "\n".join([*sorted(listed.splitlines()), host.check_output("dpkg-query --show")])


def test_hosts_that_can_be_reached_are_not_touched(tmp_path: Path) -> None:
    hosts = all_hosts()
    before = {name: state(host) for name, host in hosts.items()}
    played = run(tmp_path, {name: {"sshd_ciphers": ["3des-cbc"]} for name in hosts}, inventory())
    assert played.code == 2
    for name, host in hosts.items():
        assert "sshd_ciphers[0]" in sentences(played, name)[0]
        assert state(host) == before[name]
        host.check_output("touch /etc/touched")
        assert state(host) != before[name], "a touch would have been seen"
        host.check_output("rm /etc/touched")
