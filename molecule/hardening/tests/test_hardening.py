"""The role as most use it: what it changes on the host, what it leaves alone, and that people still get in."""

from __future__ import annotations

import json
import re

import pytest
from plays import all_hosts, play
from testinfra.host import Host

MODULE = "fushuma.production.harden"
RECORD = "/var/lib/fushuma-production/hardening.record"


def parameter(host: Host, key: str) -> str:
    return str(host.check_output(f"sysctl -n {key}"))


def effective(host: Host, *files: str) -> str:
    return str(host.check_output(f"cat {' '.join(files)}"))


def test_the_network_takes_no_orders(host: Host) -> None:
    for key, value in {
        "net.ipv4.conf.all.accept_redirects": "0",
        "net.ipv4.conf.all.send_redirects": "0",
        "net.ipv4.conf.all.accept_source_route": "0",
        "net.ipv4.conf.all.rp_filter": "2",
        "net.ipv4.conf.all.log_martians": "1",
        "net.ipv4.conf.all.forwarding": "0",
        "net.ipv6.conf.all.accept_redirects": "0",
        "net.ipv4.tcp_syncookies": "1",
    }.items():
        assert parameter(host, key) == value, key


def test_the_parameters_come_back_at_boot(host: Host) -> None:
    """Debian 13 does not read /etc/sysctl.conf any more; systemd reads the folder, and the last file wins."""
    shown = host.check_output("/lib/systemd/systemd-sysctl --cat-config")
    assert shown.rindex("net.ipv4.conf.all.accept_redirects = 0") > shown.rindex("# /etc/sysctl.d/99-zz-hardening.conf")


def test_what_the_kernel_does_not_let_this_host_do_is_said_with_the_reason() -> None:
    """These hosts share their kernel, so its own parameters are not theirs to set."""
    items = [{"name": "pointers", "sysctl": {"kernel.kptr_restrict": 2}}, {"name": "none", "sysctl": {"kernel.xyz": 1}}]
    for results in play({MODULE: {"items": items}}, arguments=["--check"]).results.values():
        said = {one["name"]: (one["state"], one["reasons"]) for one in results[0]["report"]}
        assert said["pointers"] == (
            "not applicable",
            ["kernel.kptr_restrict: the kernel does not let this host set it"],
        )
        assert said["none"] == ("not applicable", ["kernel.xyz: this kernel does not have it"])


def test_modules_that_no_server_needs_cannot_be_loaded(host: Host) -> None:
    for name in ("cramfs", "dccp", "firewire-core"):
        assert f"install {name} /bin/true" in effective(host, "/etc/modprobe.d/hardening-*.conf")
    assert "usb-storage" not in effective(host, "/etc/modprobe.d/hardening-*.conf"), "that is for level strict"


def test_files_are_not_everybodys(host: Host) -> None:
    for path, mode in {"/etc/shadow": 0o640, "/etc/crontab": 0o600, "/etc/cron.daily": 0o700, "/root": 0o700}.items():
        if host.file(path).exists:
            assert host.file(path).mode == mode, path
    assert not host.file("/usr/bin/chfn").mode & 0o4000
    assert host.file("/usr/bin/sudo").mode & 0o4000, "sudo lends root's rights, that is what it is for"


def test_a_new_account_starts_closed(host: Host) -> None:
    host.check_output("useradd --create-home newcomer")
    try:
        assert host.file("/home/newcomer").mode == 0o750
        assert host.check_output("su - newcomer -c umask") == "0027"
        assert host.check_output("chage -l newcomer | grep '^Password expires'").endswith("never")
    finally:
        host.check_output("userdel --remove newcomer")


def test_the_operator_still_gets_in_and_becomes_root(host: Host) -> None:
    """Whoever has a key only never has a password that expires, and sudo asks for none where it asked for none."""
    assert host.check_output("sudo -n id -u") == "0"
    assert "Defaults use_pty" in effective(host, "/etc/sudoers.d/90-hardening")
    assert host.run("visudo --check --quiet").rc == 0
    assert "COMMAND" in effective(host, "/var/log/sudo.log")


def test_a_guessed_password_makes_the_account_wait(host: Host) -> None:
    """pam_faillock counts what PAM is told, so PAM is asked, by a user who is not root."""
    host.check_output("useradd --create-home victim && echo 'victim:Correct-horse-7-battery' | chpasswd")
    try:
        for _guess in range(5):
            assert host.run("echo wrong | runuser -u nobody -- su victim -c true").rc != 0
        assert host.check_output("faillock --user victim | grep -c ' V$'") == "5"
        right = "echo Correct-horse-7-battery | runuser -u nobody -- su victim -c true"
        assert host.run(right).rc != 0, "the right password comes too late"
        host.check_output("faillock --user victim --reset")
        assert host.run(right).rc == 0
    finally:
        host.check_output("faillock --user victim --reset; userdel --remove victim")


def test_a_weak_password_is_refused(host: Host) -> None:
    host.check_output("useradd weakling")
    try:
        refused = host.run("printf 'abc123\\nabc123\\n' | passwd weakling")
        assert refused.rc != 0
        assert "BAD PASSWORD" in refused.stdout + refused.stderr
    finally:
        host.check_output("userdel weakling")


def test_whoever_logs_in_is_told_the_rules_and_nothing_of_the_system(host: Host) -> None:
    banner = effective(host, "/etc/issue", "/etc/issue.net", "/etc/motd")
    assert "authorised use only" in banner
    assert "Debian" not in banner


def test_timed_commands_are_roots(host: Host) -> None:
    assert effective(host, "/etc/cron.allow").split() == ["root"]


def test_the_journal_outlives_a_boot_and_has_bounds(host: Host) -> None:
    assert host.file("/var/log/journal").is_directory
    assert "SystemMaxUse=1G" in effective(host, "/etc/systemd/journald.conf.d/hardening.conf")
    assert host.check_output("ls /var/log/journal/*/system.journal")


def test_security_updates_come_by_themselves_and_leave_docker_alone(host: Host) -> None:
    shown = host.check_output("apt-config dump Unattended-Upgrade")
    origins = re.findall(r'Origins-Pattern:: "(.*)"', shown)
    assert origins
    assert all("Debian-Security" in origin for origin in origins)
    assert 'Package-Blacklist:: "docker-ce$"' in shown
    assert 'Automatic-Reboot "false"' in shown
    assert host.service("apt-daily-upgrade.timer").is_running
    assert host.run("unattended-upgrade --dry-run").rc == 0
    assert host.run("perl -c /etc/needrestart/conf.d/hardening.conf").rc == 0


def test_changed_system_files_are_found_every_day(host: Host) -> None:
    assert host.service("hardening-aide-check.timer").is_enabled
    assert host.service("hardening-aide-check.timer").is_running
    assert host.run("aide --config-check --config=/etc/aide/aide.conf").rc == 0
    assert "/var/lib/docker" in effective(host, "/etc/aide/aide.conf.d/99_hardening")


def test_what_no_server_needs_is_gone(host: Host) -> None:
    assert not host.package("telnet").is_installed
    for unit in ("rpcbind.service", "rpcbind.socket"):
        assert not host.service(unit).is_running
        assert not host.service(unit).is_enabled


def test_nothing_has_failed(host: Host) -> None:
    assert host.check_output("systemctl --failed --no-legend --plain") == ""


def test_the_record_is_roots(host: Host) -> None:
    assert json.loads(effective(host, RECORD))["files"]
    assert host.file(RECORD).mode == 0o600


@pytest.mark.parametrize("key", ["net.ipv4.conf.all.accept_redirects"])
def test_a_parameter_that_somebody_has_set_otherwise_is_set_again(key: str) -> None:
    items = [{"name": "redirects", "sysctl": {key: 0}}]
    wanted = {MODULE: {"items": items}}
    back = {"ansible.builtin.command": f"sysctl -w {key}=1"}
    played = play(wanted, back, wanted, wanted)
    for results in played.results.values():
        assert [one["changed"] for one in results][2:] == [True, False]
    for one in all_hosts().values():
        assert parameter(one, key) == "0"
