"""Every option away from its default; then every item off, and nothing of it is left."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml
from plays import Played, all_hosts, inventory, run_playbook
from testinfra.host import Host

PROJECT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
ROLE = PROJECT / "roles" / "hardening"
MARK = "role fushuma.production.hardening"


def effective(host: Host, *files: str) -> str:
    return str(host.check_output(f"cat {' '.join(files)}"))


def test_own_parameters_win(host: Host) -> None:
    assert host.check_output("sysctl -n net.core.somaxconn") == "8192"
    assert host.check_output("sysctl -n net.ipv4.conf.all.rp_filter") == "0"
    assert host.check_output("sysctl -n net.ipv6.conf.default.accept_ra") == "0", "switched on by its name"


def test_a_waived_item_is_off(host: Host) -> None:
    assert not host.file("/etc/modprobe.d/hardening-usb-storage.conf").exists


def test_accounts(host: Host) -> None:
    assert effective(host, "/etc/issue.net") == "Members only.\n".rstrip("\n")
    host.check_output("useradd --create-home --shell /bin/bash newcomer")
    try:
        assert host.check_output("su - newcomer -c umask") == "0077"
        assert host.check_output("su - newcomer -c 'echo $TMOUT'") == "600"
        assert host.check_output("chage -l newcomer | grep '^Maximum'").split()[-1] == "365"
    finally:
        host.check_output("userdel --remove newcomer")
    assert "minlen = 20" in effective(host, "/etc/security/pwquality.conf.d/hardening.conf")
    assert "deny = 3" in effective(host, "/etc/security/faillock.conf")
    assert "timestamp_timeout=0" in effective(host, "/etc/sudoers.d/90-hardening")
    assert effective(host, "/etc/cron.allow").split() == ["root", "operator"]


def test_level_strict_goes_further(host: Host) -> None:
    for path in ("/usr/bin/newgrp", "/usr/bin/mount"):
        assert not host.file(path).mode & 0o4000
    assert (host.file("/usr/bin/su").mode, host.file("/usr/bin/su").group) == (0o4750, "sudo")
    assert not host.file("/home/operator").mode & 0o027
    assert host.package("debsums").is_installed


def mounted_with(host: Host, path: str) -> set[str]:
    return set(host.check_output("findmnt --noheadings --output OPTIONS %s", path).split(","))


def test_programs_do_not_come_from_folders_for_all(host: Host) -> None:
    program = "cp /bin/true /dev/shm/program && /dev/shm/program"
    for path in ("/tmp", "/dev/shm"):
        assert {"nodev", "nosuid", "noexec"} <= mounted_with(host, path)
    assert host.run(program).rc == 126
    host.check_output("rm /dev/shm/program")
    # In a container /home is a folder of the root file system.
    assert not host.file("/etc/systemd/system/hardening-mount-home.service").exists


def test_services(host: Host) -> None:
    journal = effective(host, "/etc/systemd/journald.conf.d/hardening.conf")
    for line in ("SystemMaxUse=64M", "SystemKeepFree=128M", "MaxRetentionSec=1week"):
        assert line in journal
    upgrades = host.check_output("apt-config dump Unattended-Upgrade")
    for line in (
        'Package-Blacklist:: "nginx$"',
        'Automatic-Reboot "true"',
        'Reboot-Time "03:30"',
        'Mail "ops@fushuma.com"',
    ):
        assert line in upgrades
    assert "docker" not in upgrades


def apply(folder: Path, settings: dict[str, Any]) -> Played:
    """The role with these settings, on all hosts."""
    playbook = folder / "play.yml"
    document = {"hosts": "all", "become": True, "gather_subset": ["min"], "vars": settings}
    playbook.write_text(yaml.safe_dump([{**document, "roles": ["fushuma.production.hardening"]}]), "utf-8")
    return run_playbook(playbook, "--inventory", inventory(), "--diff")


def test_every_item_off_leaves_nothing_behind(tmp_path: Path) -> None:
    """Last, for it takes the scenario's own settings away."""
    items = yaml.safe_load((ROLE / "vars" / "main.yml").read_text("utf-8"))
    names = [item["name"] for group in items.values() if isinstance(group, list) for item in group]
    off = {"hardening_items": dict.fromkeys(names, False)}
    played = apply(tmp_path, off)
    assert played.code == 0, played.output
    for host in all_hosts().values():
        left = host.run(f"grep -rl '{MARK}' /etc /usr/share/pam-configs").stdout.split()
        assert left == []
        assert not {"noexec"} & (mounted_with(host, "/tmp") | mounted_with(host, "/dev/shm"))
        assert "#~" not in effective(host, "/etc/login.defs")
        assert "/etc/login.defs" not in host.run("dpkg --verify").stdout, "to the letter as its package brought it"
        assert "faillock" not in effective(host, "/etc/pam.d/common-auth", "/etc/pam.d/common-account")
        assert host.check_output("sudo -n id -u") == "0"
        assert host.check_output("systemctl --failed --no-legend --plain") == ""
    again = apply(tmp_path, off)
    assert {one["changed"] for results in again.results.values() for one in results} == {False}, again.output
