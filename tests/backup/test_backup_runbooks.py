# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A host that is lost comes back on another one, out of the repository, its password and the inventory alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from backup_support import Kept, settings
from fleet_support import BASE
from hosts_support import RELEASES, Host, on_each, prepare, removed

VAULT = "backupvault"
# Items of hardening whose packages take longer than all runbooks of this test.
LEFT_OUT = {"integrity": False, "upgrades": False, "needrestart": False, "passwords": False}
SECRET, NEW = "canary-offsite-61fe0b", "canary-offsite-new-d07a3c"


def wanted(vault: Host, folder: Path, name: str, password: str = SECRET) -> dict[str, Any]:
    """One repository, on a host elsewhere."""
    repository = {
        "name": "offsite",
        "kind": "sftp",
        "host": vault.record.address,
        "user": "root",
        "path": f"/srv/restic/{name}",
        "private_key": (folder / "id").read_text(),
        "host_keys": [" ".join(vault.read("/etc/ssh/ssh_host_ed25519_key.pub").split()[:2])],
        "password": password,
    }
    return settings(**{**BASE, "hardening_items": LEFT_OUT}, backup_repositories=[repository])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rebuilt")


@pytest.fixture(scope="module")
def vault(boot: Callable[..., Any], folder: Path) -> Host:
    """The host elsewhere."""
    prepare(RELEASES)
    found: Host = boot(VAULT, RELEASES[-1], network="backup")
    found.install("restic")
    found.sh("mkdir -p /srv/restic; ssh-keygen -q -t ed25519 -N '' -f /root/id")
    found.sh("cat /root/id.pub >> /root/.ssh/authorized_keys")
    (folder / "id").write_text(found.read("/root/id"))
    found.sh("rm /root/id")
    return found


@pytest.fixture(scope="module")
def rebuilt(boot: Callable[..., Any], vault: Host, folder: Path) -> list[tuple[Kept, str]]:
    """A fresh host in the place of each lost one, and the state that the lost one had."""
    lost = [
        Kept(boot(f"lost{one}", one, network="backup"), folder, f"web{one}", wanted(vault, folder, f"web{one}"))
        for one in RELEASES
    ]

    def live_and_die(one: Kept) -> str:
        one.bring_up()
        one.program("run")
        state = one.state()
        removed(one.host.name)
        return state

    states = on_each(lost, live_and_die)
    fresh = [
        Kept(boot(f"fresh{one}", one, network="backup"), folder, f"web{one}", was.settings, {VAULT: vault})
        for one, was in zip(RELEASES, lost, strict=True)
    ]
    return list(zip(fresh, states, strict=True))


def key(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.key"
    path.write_text(f"{text}\n")
    return path


def test_the_repository_opens_without_its_host(rebuilt: list[tuple[Kept, str]], folder: Path) -> None:
    def work(pair: tuple[Kept, str]) -> None:
        one, _state = pair
        said = {"prove_on": VAULT, "plan": str(folder / one.name)}
        proven = one.playbook("runbooks/prove_escrow", key=str(key(folder, one.name, SECRET)), **said).ok()
        assert "database shop" in proven.output
        assert proven.hosts[one.name]["changed"] == 2, "it is written down, in a folder"
        known = json.loads((folder / one.name / f"{one.name}.escrow.json").read_text())
        assert known["repositories"][0]["name"] == "offsite"
        wrong = one.playbook("runbooks/prove_escrow", key=str(key(folder, one.name, "wrong")), **said)
        assert wrong.failed
        assert "the password does not open it" in wrong.output
        assert SECRET not in proven.output + wrong.output

    on_each(rebuilt, work)
    vault = rebuilt[0][0].others[VAULT]
    assert vault.sh("ls -d /tmp/prove-escrow-* 2>/dev/null || true").strip() == "", "nothing is left there"


def test_a_fresh_host_lists_and_restores(rebuilt: list[tuple[Kept, str]]) -> None:
    def work(pair: tuple[Kept, str]) -> None:
        one, _state = pair
        listed = one.playbook("restore").ok()
        assert f"offsite  {one.ids('offsite')[0][:8]}" in listed.output
        assert one.host.run(["which", "mariadb"], check=False).code, "the host is as fresh as that"
        planned = one.playbook("restore", check=True, what="everything").ok()
        assert "Would restore database shop" in planned.output
        one.playbook("restore", what="path:/srv/uploads/7", to="/root/seven").ok()
        assert one.host.sh("ls /root/seven/srv/uploads/7 | wc -l").strip() == "30"

    on_each(rebuilt, work)


def test_a_lost_host_comes_back(rebuilt: list[tuple[Kept, str]], folder: Path) -> None:
    def work(pair: tuple[Kept, str]) -> str:
        one, state = pair
        unconfirmed = one.playbook("runbooks/rebuild_host", confirm="somebody")
        assert unconfirmed.failed
        assert f"write -e confirm={one.name}" in " ".join(unconfirmed.output.split())
        done = one.playbook("runbooks/rebuild_host", confirm=one.name).ok()
        assert one.state() == state
        return f"{one.name}: rebuilt in {done.seconds:.0f} s"

    print("\n".join(on_each(rebuilt, work)))


def test_the_drill_writes_the_plan(rebuilt: list[tuple[Kept, str]], folder: Path) -> None:
    def work(pair: tuple[Kept, str]) -> None:
        one, _state = pair
        one.playbook("runbooks/backup_now").ok()
        plan = folder / one.name
        done = one.playbook("restore_drill", plan=str(plan)).ok()
        assert "RTO " in done.output
        (found,) = json.loads((plan / f"{one.name}.json").read_text())
        assert found["ok"] is True
        assert 0 < found["rto_seconds"] < 600
        assert 0 < found["rpo_seconds"] < 600
        page = (plan / "README.md").read_text()
        row = next(line for line in page.splitlines() if line.startswith(f"| {one.name} | offsite |"))
        assert f"{found['rto_seconds']:.1f} s" in row
        assert "| passed |" in row
        assert "never: run the runbook" not in page
        assert "passed" in (plan / f"{one.name}.md").read_text()

    on_each(rebuilt, work)


def test_a_missed_target_fails_the_run_and_is_written_down(rebuilt: list[tuple[Kept, str]], folder: Path) -> None:
    one, _state = rebuilt[0]
    before = one.settings
    one.settings = {**before, "backup_rto": "1s"}
    one.roles().ok()
    done = one.playbook("restore_drill", plan=str(folder / "missed"))
    assert done.failed
    assert "The RTO is " in done.output
    assert "| failed |" in (folder / "missed" / "README.md").read_text()
    one.settings = before
    one.roles().ok()


def test_databases_and_files_by_runbook(rebuilt: list[tuple[Kept, str]]) -> None:
    def work(pair: tuple[Kept, str]) -> None:
        one, _state = pair
        one.program("run")
        state = one.state()
        one.spoil()
        unconfirmed = one.playbook("runbooks/restore_database", database="shop", in_place=True)
        assert unconfirmed.failed
        assert "write -e confirm=shop if that is meant" in " ".join(unconfirmed.output.split())
        one.playbook("runbooks/restore_database", database="shop", in_place=True, confirm="shop").ok()
        one.playbook("runbooks/restore_files", path="/srv/uploads", in_place=True, confirm="/srv/uploads").ok()
        one.playbook("runbooks/restore_files", redis="jobs", in_place=True, confirm="jobs").ok()
        assert one.state() == state
        one.host.sh("mariadb --no-defaults shop -e 'DELETE FROM changes; UPDATE makers SET name = 1'")
        table = {"database": "shop", "table": "makers"}
        beside = one.playbook("runbooks/restore_database", **table).ok()
        assert "table shop.makers is at /var/lib/production-backup/restored/" in beside.output
        one.playbook("runbooks/restore_database", **table, in_place=True, confirm="shop.makers").ok()
        one.host.sh("mariadb --no-defaults shop -e 'TRUNCATE changes'")
        assert one.state() == state

    on_each(rebuilt, work)


def test_a_new_password(rebuilt: list[tuple[Kept, str]], vault: Host, folder: Path) -> None:
    def work(pair: tuple[Kept, str]) -> None:
        one, _state = pair
        assert one.playbook("runbooks/rotate_backup_key").failed, "it was not changed"
        one.settings = wanted(vault, folder, one.name, NEW)
        changed = one.playbook("runbooks/rotate_backup_key").ok()
        assert SECRET not in changed.output
        assert NEW not in changed.output
        one.program("run")
        assert one.host.run(["test", "-e", "/run/production-backup-former"], check=False).code == 1
        said = {"prove_on": VAULT, "plan": str(folder / one.name)}
        assert one.playbook("runbooks/prove_escrow", key=str(key(folder, one.name, SECRET)), **said).failed
        one.playbook("runbooks/prove_escrow", key=str(key(folder, one.name, NEW)), **said).ok()

    on_each(rebuilt, work)
