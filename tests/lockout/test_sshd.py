# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""No change to sshd shuts its operator out: it is refused beforehand, or the host takes it back by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hosts_support import RELEASES, ROOT, STATE, free_port, play, wait_for
from sshd_support import NEW_PORT, Reached, on_each

DROPIN = "/etc/ssh/sshd_config.d/00-production.conf"
WITHIN = 60  # seconds within which a host has to be reachable again
OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJq3ym7R0Zz0kJ1nBOBsOcGvLLNkCNqLQCkDmQ0cZxXG nobody"
FOREIGN = "/etc/ssh/sshd_config.d/00-afirst.conf"

# What would cut the connection off, and what the host says of it.
REFUSED: Mapping[str, tuple[dict[str, Any], str]] = {
    "no-such-address": (
        {"sshd_listen_addresses": ["127.0.0.1"]},
        "sshd would listen on 127.0.0.1:22 and not on",
    ),
    "other-family": ({"sshd_address_family": "inet6"}, "sshd would listen on [::]:22 and not on"),
    "allow-users": ({"sshd_allow_users": ["deploy", "op"]}, "AllowUsers deploy op does not name operator from"),
    "allow-users-from-elsewhere": (
        {"sshd_allow_users": ["operator@192.0.2.0/24"]},
        "AllowUsers operator@192.0.2.0/24 does not name operator from",
    ),
    "allow-groups": ({"sshd_allow_groups": ["sudo"]}, "AllowGroups sudo names no group of operator (operator)"),
    "deny-users": ({"sshd_deny_users": ["op*"]}, "DenyUsers names operator (op*)"),
    "deny-groups": ({"sshd_deny_groups": ["operator"]}, "DenyGroups names operator, of which operator is a member"),
    "no-keys": (
        {"sshd_authorized_keys": [{"user": "operator", "exclusive": True}]},
        "operator has no key in .ssh/authorized_keys that sshd would take",
    ),
    "keys-for-elsewhere": (
        {
            "sshd_authorized_keys": [
                {"user": "operator", "keys": [OTHER_KEY], "options": ['from="192.0.2.1"'], "exclusive": True}
            ]
        },
        "operator has no key in .ssh/authorized_keys that sshd would take",
    ),
    "keys-elsewhere": (
        {"sshd_authorized_keys_file": "/etc/ssh/authorized_keys/%u"},
        "operator has no key in /etc/ssh/authorized_keys/%u that sshd would take",
    ),
    "keys-of-another-kind": (
        {"sshd_pubkey_algorithms": ["rsa-sha2-512"]},
        "operator has no key in .ssh/authorized_keys that sshd would take",
    ),
    "methods": (
        {"sshd_authentication_methods": ["publickey,keyboard-interactive"]},
        "AuthenticationMethods publickey,keyboard-interactive asks operator for more than there is "
        "(what can succeed: publickey)",
    ),
    "password-only": (
        {"sshd_password_authentication": True, "sshd_authentication_methods": ["password"]},
        "AuthenticationMethods password asks operator for more than there is (what can succeed: publickey)",
    ),
    "forced-command": (
        {"sshd_match": [{"criteria": {"User": "operator"}, "settings": {"ForceCommand": "internal-sftp"}}]},
        "ForceCommand internal-sftp leaves operator no shell",
    ),
}


@pytest.fixture(scope="module")
def hosts(boot: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> list[Reached]:
    """A host of each release with the role's defaults in force; each test leaves them so."""
    folder = tmp_path_factory.mktemp("sshd")
    found = [Reached(boot(f"lock{release}", release, publish={free_port(): NEW_PORT}), folder) for release in RELEASES]
    on_each(found, lambda one: one.play().ok())
    return found


def refused(one: Reached, settings: Mapping[str, Any], words: str, **reached: Any) -> None:
    """The change is refused, nothing has changed, and the host answers as before."""
    before = one.tree()
    played = one.play(settings, **reached)
    assert played.failed, played.output
    assert words in " ".join(played.output.split()), played.output
    assert "Nothing was changed" in " ".join(played.output.split())
    assert one.tree() == before
    assert one.answers(**{key: value for key, value in reached.items() if key != "check"})
    one.settled()


def test_a_dry_run_refuses_what_a_real_one_would(hosts: list[Reached]) -> None:
    settings, words = REFUSED["allow-users"]
    on_each(hosts, lambda one: refused(one, settings, words, check=True))


@pytest.mark.parametrize("case", REFUSED)
def test_a_change_that_would_shut_the_operator_out_is_refused(hosts: list[Reached], case: str) -> None:
    settings, words = REFUSED[case]

    def work(one: Reached) -> None:
        refused(one, settings, words)
        assert one.play().ok().changed == 0

    on_each(hosts, work)


def test_root_cannot_shut_itself_out(hosts: list[Reached]) -> None:
    def work(one: Reached) -> None:
        one.play({"sshd_root_login": "prohibit-password"}).ok()
        one.host.sh("install -d -m 0700 /root/.ssh && cp /home/operator/.ssh/authorized_keys /root/.ssh/")
        assert one.answers(user="root")
        refused(one, {"sshd_root_login": "no"}, "PermitRootLogin no keeps root out", user="root")
        # Another user may do it.
        one.play().ok()
        assert not one.answers(user="root")

    on_each(hosts, work)


FOREIGN_LINES = {
    "weaker-drop-in": (
        FOREIGN,
        "# first\nPasswordAuthentication yes\n",
        f"{FOREIGN}:2 says `PasswordAuthentication yes`",
    ),
    "drop-in-that-names-others": (FOREIGN, "AllowUsers deploy\n", f"{FOREIGN}:1 says `AllowUsers deploy`"),
    "one-more-host-key": (FOREIGN, "HostKey /etc/ssh/ssh_host_ecdsa_key\n", f"{FOREIGN}:1 says `HostKey"),
    "match-block": (
        "/etc/ssh/sshd_config.d/90-later.conf",
        "Match User operator\n    PasswordAuthentication yes\n",
        "/etc/ssh/sshd_config.d/90-later.conf:2 says `PasswordAuthentication yes`",
    ),
    "before-the-include": ("/etc/ssh/sshd_config", "MaxAuthTries 9\n", "/etc/ssh/sshd_config:1 says `MaxAuthTries 9`"),
}


@pytest.mark.parametrize("case", FOREIGN_LINES)
def test_another_file_that_wins_is_named(hosts: list[Reached], case: str) -> None:
    path, text, words = FOREIGN_LINES[case]

    def work(one: Reached) -> None:
        former = one.host.sh(f"cat {path} 2>/dev/null", check=False)
        one.host.write(path, text + former)
        # Where the role names users too, so that the drop-in decides something about them.
        refused(one, {"sshd_allow_users": ["operator"]}, words)
        one.host.write(path, former) if former else one.host.run(["rm", path])
        assert one.play().ok().changed == 0

    on_each(hosts, work)


def test_a_main_file_without_include_is_named(hosts: list[Reached]) -> None:
    def work(one: Reached) -> None:
        one.host.sh("cp /etc/ssh/sshd_config /root/main && sed -i '/^Include/d' /etc/ssh/sshd_config")
        refused(one, {"sshd_max_sessions": 7}, "Write `Include /etc/ssh/sshd_config.d/*.conf` as its first line")
        one.host.sh("cp /root/main /etc/ssh/sshd_config")
        assert one.play().ok().changed == 0

    on_each(hosts, work)


def taken_back(one: Reached, settings: Mapping[str, Any], **reached: Any) -> float:
    """A change that nobody could foresee to cut the controller off; returns after how many seconds it was undone."""
    before = one.tree()
    played = one.play({**settings, "sshd_confirm_within": 10}, **reached)
    ended = time.monotonic()
    assert played.failed, played.output
    words = " ".join(played.output.split())
    seen = one.host.sh("ss -Hltnp; journalctl --no-pager -n 40 -u ssh.service -u ssh.socket", check=False)
    assert "the host puts the former configuration back within 10 s" in words, f"{played.output}\n{seen}"
    wait_for(lambda: one.answers(**reached), "the host is reachable again", WITHIN)
    seconds = time.monotonic() - ended
    one.settled()
    assert one.tree() == before
    return seconds


def test_keys_that_the_controller_does_not_have_are_taken_back(hosts: list[Reached]) -> None:
    """The host takes the other key for usable, which it is, for somebody else."""
    settings = {"sshd_authorized_keys": [{"user": "operator", "keys": [OTHER_KEY], "exclusive": True}]}

    def work(one: Reached) -> None:
        taken_back(one, settings)
        assert one.play().ok().changed == 0

    on_each(hosts, work)


def test_algorithms_that_the_controller_does_not_know_are_taken_back(hosts: list[Reached]) -> None:
    old_client = "-o KexAlgorithms=curve25519-sha256"
    both = {"sshd_kex_algorithms": ["sntrup761x25519-sha512@openssh.com", "curve25519-sha256"]}

    def work(one: Reached) -> None:
        one.play(both).ok()
        assert one.answers(more=old_client)
        taken_back(one, {}, more=old_client)
        assert one.play(both, more=old_client).ok().changed == 0
        one.play().ok()

    on_each(hosts, work)


def test_a_controller_that_is_killed_before_it_confirms(hosts: list[Reached]) -> None:
    settings = {"sshd_allow_users": ["operator"], "sshd_confirm_within": 10}

    def work(one: Reached) -> None:
        before = one.tree()
        controller = one.start(settings)
        timer = "systemctl is-active fushuma-production-revert-sshd.timer"
        wait_for(lambda: one.host.run(["sh", "-c", timer], check=False).code == 0, "the host waits for a confirmation")
        controller.kill()
        began = time.monotonic()
        one.settled()
        assert time.monotonic() - began < WITHIN
        assert one.tree() == before
        assert one.answers()
        one.play(settings).ok()
        assert "AllowUsers operator" in one.host.read(DROPIN)
        one.play().ok()

    on_each(hosts, work)


def test_a_port_is_changed_in_two_runs(hosts: list[Reached]) -> None:
    settings = {"sshd_ports": [NEW_PORT]}
    hint = f"port 22 stays open until you connect over {NEW_PORT}: set ansible_port: {NEW_PORT} and run again"

    def work(one: Reached) -> None:
        first = one.play(settings).ok()
        assert hint in " ".join(first.output.split())
        assert one.listening() == {22, NEW_PORT}
        assert one.answers()
        assert one.answers(NEW_PORT)
        again = one.play(settings).ok()
        assert again.changed == 0
        assert hint in " ".join(again.output.split())
        over_new = one.play(settings, port=NEW_PORT).ok()
        assert over_new.changed == 1
        assert "stays open" not in over_new.output
        assert one.listening() == {NEW_PORT}
        assert not one.answers()
        assert one.play(settings, port=NEW_PORT).ok().changed == 0
        # And back again.
        one.play({}, port=NEW_PORT).ok()
        assert one.listening() == {22, NEW_PORT}
        one.disconnect()
        one.play().ok()
        assert one.listening() == {22}

    on_each(hosts, work)


def test_a_port_is_changed_behind_the_firewall(hosts: list[Reached]) -> None:
    """The firewall opens the port that sshd keeps for the connection, and closes it with sshd."""
    settings = {"sshd_ports": [NEW_PORT], "firewall_ssh": {"burst": 500, "rate": "500/minute"}}

    def work(one: Reached) -> None:
        def site(settings: Mapping[str, Any], **reached: Any) -> int:
            inventory = one.inventory(settings, **reached)
            return play(ROOT / "playbooks" / "site.yml", inventory, options=("--tags", "sshd,firewall")).ok().changed

        def opened() -> set[int]:
            rules = one.host.sh("nft list chain inet production input")
            return {port for port in (22, NEW_PORT) if f"tcp dport {port} ct state new jump ssh" in rules}

        site({**settings, "sshd_ports": [22]})
        assert opened() == {22}
        site(settings)
        assert opened() == {22, NEW_PORT}
        assert (one.answers(), one.answers(NEW_PORT)) == (True, True)
        assert site(settings) == 0
        site(settings, port=NEW_PORT)
        assert opened() == {NEW_PORT}
        assert (one.answers(), one.answers(NEW_PORT)) == (False, True)
        assert site(settings, port=NEW_PORT) == 0
        # And back again.
        site({**settings, "sshd_ports": [22]}, port=NEW_PORT)
        assert opened() == {22, NEW_PORT}
        site({**settings, "sshd_ports": [22]})
        assert opened() == {22}
        one.host.sh("systemctl disable --now production-firewall.service")

    on_each(hosts, work)


def test_socket_activation_is_replaced_and_comes_back_where_the_change_is_undone(hosts: list[Reached]) -> None:
    activate = "systemctl disable --now ssh.service; systemctl enable --now ssh.socket"
    settings = {"sshd_ports": [NEW_PORT, 22]}

    def work(one: Reached) -> None:
        one.disconnect()
        one.host.sh(f"rm {DROPIN} {STATE}/sshd.record; {activate}")
        assert one.answers()
        before = one.tree()
        assert "Id=ssh.socket\nActiveState=active" in before
        assert not one.answers(NEW_PORT)

        # A client that does not know what sshd would ask for.
        taken_back(one, settings, more="-o KexAlgorithms=curve25519-sha256")
        assert one.listening() == {22}

        one.play(settings).ok()
        assert one.listening() == {22, NEW_PORT}
        assert one.host.sh("systemctl is-active ssh.service ssh.socket", check=False).split() == ["active", "inactive"]
        assert one.host.sh("systemctl is-enabled ssh.service ssh.socket", check=False).split() == [
            "enabled",
            "disabled",
        ]
        assert one.answers(NEW_PORT)
        assert one.play(settings).ok().changed == 0
        one.play().ok()

    on_each(hosts, work)
