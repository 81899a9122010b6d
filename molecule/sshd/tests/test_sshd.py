"""The role as most people use it: keys only, no root, nothing that a quantum computer could read later."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from plays import all_hosts
from secure_shell import audit, effective, findings, login
from testinfra.host import Host

DROPIN = "/etc/ssh/sshd_config.d/00-production.conf"
IGNORED = "198.51.100.7"  # RFC 5737, within sshd_fail2ban_ignore
PATIENCE = 60.0  # seconds


def test_ssh_audit_has_nothing_to_say(host: Host) -> None:
    report = audit(host)
    assert findings(report, "fail", "warn") == []
    assert report["recommendations"] == {}
    assert report["cves"] == []
    assert len(report["kex"]) > 1, "it has seen no list"


def test_post_quantum_comes_first_where_the_release_has_it(host: Host) -> None:
    first = {"12": "sntrup761x25519-sha512", "13": "mlkem768x25519-sha256"}[host.system_info.release.split(".")[0]]
    assert effective(host)["kexalgorithms"][0].split(",")[0] == first
    said = login(host, "-v").said
    assert "kex: algorithm: sntrup761x25519-sha512" in said or "kex: algorithm: mlkem768x25519-sha256" in said


def test_effective_values_are_those_of_the_role(host: Host) -> None:
    found = effective(host, "user=operator,addr=10.0.0.1")
    wanted = {
        "permitrootlogin": "no",
        "passwordauthentication": "no",
        "kbdinteractiveauthentication": "no",
        "x11forwarding": "no",
        "allowtcpforwarding": "no",
        "allowagentforwarding": "no",
        "permittunnel": "no",
        "maxauthtries": "3",
        "loglevel": "VERBOSE",
        "allowusers": "operator",
        "requiredrsasize": "3072",
        "clientaliveinterval": "60",
    }
    assert {key: found[key] for key in wanted} == {key: [value] for key, value in wanted.items()}
    assert found["hostkey"] == ["/etc/ssh/ssh_host_ed25519_key", "/etc/ssh/ssh_host_rsa_key"]


def test_the_drop_in_is_closed_to_others(host: Host) -> None:
    file = host.file(DROPIN)
    assert (file.user, file.group, file.mode) == ("root", "root", 0o600)


def test_small_groups_are_gone(host: Host) -> None:
    lines = host.check_output("grep -v '^#' /etc/ssh/moduli").splitlines()
    assert min(int(line.split()[4]) for line in lines) >= 3071


def test_only_the_operator_gets_in_and_only_by_key(host: Host) -> None:
    assert login(host).code == 0
    assert "Permission denied (publickey)" in login(host, user="root").said
    assert "Permission denied (publickey)" in login(host, "-o", "PreferredAuthentications=password").said


def test_nothing_is_forwarded(host: Host) -> None:
    assert "administratively prohibited" in login(host, "-W", "127.0.0.1:22").said


def test_the_colleagues_key_came_beside_the_one_that_was_there(host: Host) -> None:
    lines = host.file("/home/operator/.ssh/authorized_keys").content_string.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("restrict ssh-ed25519 ")
    assert lines[1].endswith(" colleague")


def test_sshd_starts_again_after_a_boot(host: Host) -> None:
    assert host.service("ssh.service").is_enabled
    assert not host.service("ssh.socket").is_enabled


def test_fail2ban_watches(host: Host) -> None:
    assert host.service("fail2ban").is_enabled
    status = host.check_output("fail2ban-client status sshd")
    assert "Journal matches:\t_SYSTEMD_UNIT=ssh.service" in status
    asked = {"maxretry": "2", "findtime": "300", "bantime": "1800"}
    assert {key: host.check_output(f"fail2ban-client get sshd {key}") for key in asked} == asked


@pytest.fixture
def attacker(host: Host) -> Iterator[Host]:
    """Another host of the scenario, with an address that is ignored besides its own."""
    others = [one for one in all_hosts().values() if one.backend.host != host.backend.host]
    other = others[0]
    target, source = address(host), address(other)
    other.check_output(f"ip address add {IGNORED}/32 dev lo")
    host.check_output(f"ip route add {IGNORED}/32 via {source}")
    yield other
    host.check_output("fail2ban-client unban --all")
    host.check_output(f"ip route del {IGNORED}/32")
    other.check_output(f"ip address del {IGNORED}/32 dev lo")
    assert target


def address(host: Host) -> str:
    return str(host.check_output("hostname -I").split()[0])


def guess(attacker: Host, target: str, source: str) -> str:
    """One login of somebody who is not known."""
    options = "-o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=5"
    # A ban that comes amid a login leaves the client waiting.
    return str(attacker.run(f"timeout 10 ssh {options} -b {source} nobody-here@{target} true; true").stderr)


def failures(host: Host, source: str) -> int:
    log = host.check_output("journalctl --unit=ssh --no-pager --output=cat")
    return sum(f"Invalid user nobody-here from {source} " in line for line in log.splitlines())


def banned(host: Host) -> str:
    return str(host.check_output("fail2ban-client get sshd banip"))


def test_who_keeps_guessing_is_banned_and_who_is_ignored_is_not(host: Host, attacker: Host) -> None:
    target, source = address(host), address(attacker)
    deadline = time.monotonic() + PATIENCE
    while source not in banned(host):
        assert time.monotonic() < deadline, host.run("fail2ban-client status sshd").stdout
        guess(attacker, target, source)
    assert "Connection refused" in guess(attacker, target, source)
    assert source in host.check_output("nft list ruleset")
    assert login(host).code == 0, "others are let in"

    while failures(host, IGNORED) < 3:
        assert time.monotonic() < deadline + PATIENCE
        guess(attacker, target, IGNORED)
    # fail2ban has read what came later too.
    marked = f"Ignore {IGNORED}"
    wait = 'until grep --quiet --fixed-strings "$0" /var/log/fail2ban.log; do sleep 0.2; done'
    host.check_output("timeout 30 sh -c %s %s", wait, marked)
    assert IGNORED not in banned(host)
