"""Every option away from its default, and what sshd makes of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from secure_shell import audit, effective, findings, login
from testinfra.host import Host

SCRATCH = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])

EFFECTIVE = {
    "port": ["2222", "22"],
    "addressfamily": ["inet"],
    "listenaddress": ["0.0.0.0:2222", "0.0.0.0:22"],
    "allowusers": ["operator", "anna", "deploy", "b*@10.0.0.0/8"],
    "allowgroups": ["operator", "anna", "deploy"],
    "denyusers": ["mallory"],
    "denygroups": ["games"],
    "permitrootlogin": ["without-password"],
    "passwordauthentication": ["yes"],
    "authenticationmethods": ["publickey password,publickey"],
    "maxauthtries": ["5"],
    "logingracetime": ["30"],
    "maxstartups": ["5:50:20"],
    "maxsessions": ["8"],
    "clientaliveinterval": ["30"],
    "clientalivecountmax": ["4"],
    "allowagentforwarding": ["yes"],
    "allowtcpforwarding": ["local"],
    "allowstreamlocalforwarding": ["local"],
    "x11forwarding": ["yes"],
    "permittunnel": ["point-to-point"],
    "banner": ["/etc/ssh/banner"],
    "loglevel": ["INFO"],
    "ciphers": ["aes256-gcm@openssh.com,chacha20-poly1305@openssh.com"],
    "macs": ["hmac-sha2-512-etm@openssh.com"],
    "hostkeyalgorithms": ["rsa-sha2-512,ssh-ed25519"],
    "pubkeyacceptedalgorithms": ["ssh-ed25519-cert-v01@openssh.com,ssh-ed25519,sk-ecdsa-sha2-nistp256@openssh.com"],
    "casignaturealgorithms": ["ssh-ed25519"],
    "authorizedkeysfile": ["%h/.ssh/authorized_keys"],
    "hostkey": ["/etc/ssh/ssh_host_rsa_key", "/etc/ssh/ssh_host_ed25519_key"],
}


@pytest.mark.parametrize("keyword", EFFECTIVE)
def test_effective_values(host: Host, keyword: str) -> None:
    assert effective(host)[keyword] == EFFECTIVE[keyword]


def test_both_ports_are_open_as_long_as_the_old_one_is_used(host: Host) -> None:
    assert host.socket("tcp://0.0.0.0:22").is_listening
    assert host.socket("tcp://0.0.0.0:2222").is_listening


def test_key_exchanges_are_those_that_the_release_has(host: Host) -> None:
    wanted = ["mlkem768x25519-sha256", "sntrup761x25519-sha512@openssh.com", "curve25519-sha256"]
    here = wanted[1:] if host.system_info.release.split(".")[0] == "12" else wanted
    assert effective(host)["kexalgorithms"] == [",".join(here)]


def test_ssh_audit_warns_of_the_chosen_exchange_alone(host: Host) -> None:
    report = audit(host)
    assert findings(report, "fail") == []
    warned = findings(report, "warn")
    assert warned == ["curve25519-sha256: does not provide protection against post-quantum attacks"]


def test_the_short_rsa_key_was_replaced(host: Host) -> None:
    assert host.check_output("ssh-keygen -l -f /etc/ssh/ssh_host_rsa_key").startswith("4096 ")
    assert host.file("/etc/ssh/ssh_host_rsa_key").mode == 0o600
    assert host.check_output("ssh-keygen -l -f /etc/ssh/ssh_host_rsa_key.pub").startswith("4096 ")


def test_the_banner_is_shown(host: Host) -> None:
    assert "Authorised people only." in login(host).said


def test_only_the_key_that_is_wanted_lets_anna_in(host: Host) -> None:
    assert login(host, user="anna", key=SCRATCH / "anna").code == 0
    assert "Permission denied" in login(host, user="anna", key=SCRATCH / "stolen").said
    file = host.file("/home/anna/.ssh/authorized_keys")
    assert (file.user, file.mode) == ("anna", 0o600)
    assert file.content_string.startswith('no-agent-forwarding,environment="X=y" ssh-ed25519 ')
    assert len(file.content_string.splitlines()) == 1


def test_a_revoked_key_lets_nobody_in_even_where_it_is_authorized(host: Host) -> None:
    path = "/home/operator/.ssh/authorized_keys"
    host.check_output("cp %s /root/aside && cat /etc/ssh/revoked_keys >>%s", path, path)
    try:
        assert "Permission denied" in login(host, key=SCRATCH / "stolen").said
    finally:
        host.check_output("cat /root/aside >%s", path)


def test_a_certificate_lets_in_whom_its_principal_names(host: Host) -> None:
    certified = login(host, user="deploy", key=SCRATCH / "certified", command="id")
    assert (certified.code, certified.said.splitlines()[-1]) == (0, "deployed")
    assert "Permission denied" in login(host, user="anna", key=SCRATCH / "certified").said


def test_the_match_block_is_for_its_user_alone(host: Host) -> None:
    deploy, anna = (effective(host, f"user={user},addr=10.0.0.1") for user in ("deploy", "anna"))
    assert (deploy["forcecommand"], deploy["allowtcpforwarding"]) == (["echo deployed"], ["no"])
    assert (anna["forcecommand"], anna["allowtcpforwarding"]) == (["none"], ["local"])


def test_small_groups_are_gone(host: Host) -> None:
    lines = host.check_output("grep -v '^#' /etc/ssh/moduli").splitlines()
    assert min(int(line.split()[4]) for line in lines) >= 4095


def test_fail2ban_was_left_alone(host: Host) -> None:
    assert not host.package("fail2ban").is_installed
