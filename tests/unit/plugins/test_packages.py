"""Packages with a dpkg-query, a dpkg and an apt-get that only take notes."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.fushuma.production.plugins.module_utils import packages
from ansible_collections.fushuma.production.plugins.module_utils.journal import TransactionError

from .conftest import Host

INSTALLED = 'echo "nginx installed"; echo "openssl config-files"'


@pytest.fixture(autouse=True)
def lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "lists"
    folder.mkdir()
    monkeypatch.setattr(packages, "LISTS", folder)
    return folder


@pytest.fixture(autouse=True)
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "policy-rc.d"
    monkeypatch.setattr(packages, "POLICY", path)
    return path


@pytest.fixture(autouse=True)
def apt(host: Host) -> None:
    host.program("dpkg-query", INSTALLED)
    for name in ("apt-get", "dpkg"):
        host.program(name, f'echo "{name} $@" >> {host.bin}/log')


def fetched(lists: Path, age: float = 0) -> None:
    (lists / "mirror_dists_stable_Packages.lz4").touch()
    os.utime(lists, (time.time() - age, time.time() - age))


# --- what is missing, and where it comes from -------------------------------------------------------------------------


def test_what_is_missing() -> None:
    assert packages.missing(["nginx"]) == []
    assert packages.missing([]) == []
    wanted = ["nginx", "openssl", "wrk:amd64"]
    assert packages.missing(wanted) == ["openssl", "wrk:amd64"], "one of which only settings are left is missing too"


def test_just_these_are_installed(host: Host, lists: Path) -> None:
    fetched(lists)
    packages.install(["openssl", "wrk:amd64"])
    (command,) = host.commands()
    assert " install " in command
    assert command.endswith("--force-confold openssl wrk:amd64")


@pytest.mark.parametrize("age", [None, 4000])
def test_old_and_missing_lists_are_fetched_first(host: Host, lists: Path, age: float | None) -> None:
    if age is not None:
        fetched(lists, age)
    packages.install(["wrk"])
    update, install = host.commands()
    assert " update " in update
    assert install.endswith(" wrk")


def test_apts_own_words(host: Host, lists: Path) -> None:
    fetched(lists)
    host.program("apt-get", "echo E: Unable to locate package wrkk; exit 100")
    with pytest.raises(TransactionError, match="cannot install wrkk: E: Unable to locate package wrkk"):
        packages.install(["wrkk"])


def test_an_installation_that_was_cut_short_is_finished_first(host: Host, lists: Path) -> None:
    fetched(lists)
    half = "echo \"E: dpkg was interrupted, you must manually run 'dpkg --configure -a'\"; exit 100"
    host.program("dpkg", f'echo "dpkg $@" >> {host.bin}/log; touch {host.bin}/whole')
    host.program("apt-get", f"echo apt-get >> {host.bin}/log; [ -e {host.bin}/whole ] || {{ {half}; }}")
    packages.install(["wrk"])
    assert host.commands() == ["apt-get", "dpkg --configure --pending", "apt-get"]


# --- nothing is started before its configuration is in force ----------------------------------------------------------

# What invoke-rc.d and deb-systemd-invoke ask, and whether they may.
ASKED = {
    "web start": False,
    "web.service start": False,
    "--quiet web start 2": False,
    "db.socket start": False,
    "web.service restart": True,
    "web.service stop": True,
    "website.service start": True,
    "other.service start": True,
    "certbot.timer start": True,
}


def answers(policy: Path) -> dict[str, bool]:
    return {asked: subprocess.run([policy, *asked.split()], check=False).returncode != 101 for asked in ASKED}


def test_packages_do_not_start_the_units(policy: Path) -> None:
    with packages.held_back(["web.service", "db.socket"]):
        assert answers(policy) == ASKED
        assert policy.stat().st_mode & 0o777 == 0o755
    assert not policy.exists()


def test_a_policy_that_a_killed_run_has_left_does_no_harm(policy: Path) -> None:
    policy.write_text(packages.POLICY_SCRIPT)
    policy.chmod(0o755)
    assert all(answers(policy).values())
    with packages.held_back(["web.service", "db.socket"]):
        assert answers(policy) == ASKED
    assert not policy.exists()


def test_the_hosts_own_policy_counts(policy: Path) -> None:
    policy.write_text("#!/bin/sh\nexit 101\n")
    with packages.held_back(["web.service"]):
        assert policy.read_text() == "#!/bin/sh\nexit 101\n"
    assert policy.exists()


def test_nothing_is_held_back_where_there_is_no_unit(policy: Path) -> None:
    with packages.held_back([]):
        assert not policy.exists()


def test_the_units_are_held_back_while_apt_works_and_no_longer(host: Host, lists: Path, policy: Path) -> None:
    fetched(lists)
    host.program("apt-get", f"{policy} web start; echo $? >> {host.bin}/log; exit 1")
    with pytest.raises(TransactionError):
        packages.install(["wrk"], ["web.service"])
    assert host.commands() == ["101"]
    assert not policy.exists()
    assert packages.HELD not in os.environ


def test_packages_that_something_needs_are_not_removed(host: Host) -> None:
    packages.remove(["telnet"])
    assert host.commands() == ["dpkg --remove telnet"]
    host.program("dpkg", "echo dependency problems prevent removal of telnet; exit 1")
    with pytest.raises(TransactionError, match="dependency problems"):
        packages.remove(["telnet"])
