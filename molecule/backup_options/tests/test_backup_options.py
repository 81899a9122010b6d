"""Every option away from its default."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
from testinfra.host import Host


def config(host: Host) -> Any:
    return json.loads(host.check_output("cat /etc/production-backup/config.json"))


def state(host: Host) -> Any:
    return json.loads(host.check_output("cat /var/lib/production-backup/state.json"))


def started(host: Host, verb: str) -> None:
    """A verb as its timer starts it."""
    done = host.run(f"systemctl start production-backup@{verb}.service")
    assert done.rc == 0, host.check_output(f"journalctl --no-pager -n 60 -u production-backup@{verb}.service")


def told(host: Host) -> list[tuple[str, str]]:
    """What was told since it was asked last: paths and bodies."""
    lines = host.check_output("touch /run/told; cat /run/told; : >/run/told").splitlines()
    return [(path, body) for path, body in map(json.loads, lines)]


@pytest.fixture(scope="module")
def backed_up(host: Host) -> Host:
    """A host after a backup."""
    sql = "CREATE TABLE IF NOT EXISTS shop.products (id INT PRIMARY KEY); REPLACE INTO shop.products VALUES (7)"
    host.check_output(f"mariadb -e {shlex.quote(sql)}")
    host.check_output("docker volume create uploads && touch /var/lib/docker/volumes/uploads/_data/upload.png")
    host.check_output("rm -f /run/backup-begins /run/backup-ends /run/mail; : >/run/told")
    server = config(host)["sources"][1]["server"]
    host.check_output(f"{server}-admin jobs set job 1")
    started(host, "run")
    return host


def test_what_is_in_a_snapshot(backed_up: Host) -> None:
    for name in ("bucket", "neighbour", "server"):
        listed = set(backed_up.check_output(f"production-backup restic {name} -- ls latest").splitlines())
        stage = "/var/lib/production-backup/stage"
        wanted = {"mariadb/shop.sql", "redis/jobs.rdb", "postgresql/stats.sql", "manifest.json"}
        assert {f"{stage}/{one}" for one in wanted} <= listed
        assert "/var/lib/docker/volumes/uploads/_data/upload.png" in listed
        assert {"/srv/files/kept.txt", "/etc/ssh/sshd_config"} <= listed
        assert not {"/srv/files/left.tmp", "/srv/files/cache/left.txt", "/etc/hosts"} & listed


def test_hooks_run_before_and_after(backed_up: Host) -> None:
    begun, ended = (backed_up.file(f"/run/backup-{name}").mtime for name in ("begins", "ends"))
    assert begun <= ended


def test_who_is_told_that_it_went_well(backed_up: Host) -> None:
    heard = told(backed_up)
    assert [path for path, _body in heard] == [
        "/ping/canary-ping-3d0c91",
        "/api/1/cron/canary-sentry-3d0c91/?status=ok",
    ]
    figures = backed_up.file("/var/lib/figures/production_backup.prom")
    assert 'production_backup_rpo_target_seconds{repository="bucket"} 25200\n' in figures.content_string
    assert figures.mode == 0o644
    assert not backed_up.file("/run/mail").exists


def test_who_is_told_that_it_did_not(backed_up: Host) -> None:
    told(backed_up)
    backed_up.check_output("mv /srv/files /srv/moved")
    try:
        assert backed_up.run("systemctl start production-backup@run.service").rc != 0
    finally:
        backed_up.check_output("mv /srv/moved /srv/files")
    failed = "production-backup-failed@run"
    asked = f"systemctl show --value --property ActiveState {failed} | grep --quiet --line-regexp 'inactive\\|failed'"
    wait = f"until [ -s /run/mail ]; do sleep 0.1; done; until {asked}; do sleep 0.1; done"
    backed_up.check_output("timeout 60 sh -c %s", wait)
    heard = dict(told(backed_up))
    assert set(heard) == {
        "/ping/canary-ping-3d0c91/fail",
        "/api/1/cron/canary-sentry-3d0c91/?status=error",
        "/hook/canary-hook-3d0c91",
    }
    assert "/srv/files" in json.loads(heard["/hook/canary-hook-3d0c91"])["text"]
    mail = backed_up.file("/run/mail").content_string
    assert mail.startswith("To: ops@fushuma.com\nSubject: ")
    assert "/srv/files" in mail
    assert "canary" not in mail
    started(backed_up, "run")


def test_timers(host: Host) -> None:
    assert not host.file("/etc/cron.d/production-backup").exists
    wanted = {
        "run": "*-*-* 00,06,12,18:07:00",
        "prune": "Sat *-*-* 05:11:00",
        "check": "*-*-* 00:00:00",
        "drill": "Sun *-*-* 06:13:00",
    }
    for verb, calendar in wanted.items():
        unit = f"production-backup-{verb}.timer"
        shown = host.check_output(
            f"systemctl show --property TimersCalendar,RandomizedDelayUSec,Persistent,Unit {unit}"
        )
        assert f"OnCalendar={calendar} ;" in shown
        for line in ("RandomizedDelayUSec=5min", "Persistent=yes", f"Unit=production-backup@{verb}.service"):
            assert line in shown
        assert host.service(unit).is_enabled


def test_all_data_is_checked_in_two_checks(backed_up: Host) -> None:
    parts = []
    for _each in range(2):
        started(backed_up, "check")
        parts.append({one["check_part"] for one in state(backed_up)["repositories"].values()})
    assert sorted(parts, key=min) == [{1}, {2}]


def test_a_drill_of_what_is_elsewhere(backed_up: Host) -> None:
    started(backed_up, "drill")
    drills = state(backed_up)["drills"]
    assert set(drills) <= {"neighbour", "server"}
    assert all(one["success"] and one["rto_seconds"] > 0 for one in drills.values())


def test_what_is_kept(backed_up: Host) -> None:
    """Of one hour the last two stay in the bucket, all where all of an hour are kept, and all where none may go."""
    for _each in range(3):
        started(backed_up, "run")
    before, after = {}, {}
    for kept in (before, after):
        told_so = json.loads(backed_up.check_output("production-backup snapshots --json"))["repositories"]
        kept |= {name: [one["id"] for one in ids] for name, ids in told_so.items()}
        started(backed_up, "prune")
    assert after["bucket"][-2:] == before["bucket"][-2:]
    # restic 0.18 keeps the oldest of all besides, as long as there are fewer years than are to be kept.
    assert len(after["bucket"]) <= 3 < len(before["bucket"])
    assert (after["neighbour"], after["server"]) == (before["neighbour"], before["server"])


def test_what_the_program_is_told(host: Host) -> None:
    told_so = config(host)
    assert told_so["limits"] == {"seconds": 600, "attempts": 2, "upload_kib": 20000, "download_kib": 30000}
    assert told_so["targets"] == {"rpo_seconds": 25200, "rto_seconds": 1800}
    assert [one["offsite"] for one in told_so["repositories"]] == [False, True, True]
    assert told_so["repositories"][2]["retention"]["within_weekly"] == "2m"
    former = host.file("/etc/production-backup/bucket.former-password")
    assert (former.mode, former.content_string) == (0o600, "canary-s3-before-77c0\n")
