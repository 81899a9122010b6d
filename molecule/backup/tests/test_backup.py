"""Backups in a folder, by SFTP, on S3 and on a REST server: what comes back is what was there, of each moment."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from plays import SECRET, Played, Result, all_hosts, play
from testinfra.host import Host

FOLDER = Path(__file__).parents[1]
SETTINGS = yaml.safe_load((FOLDER / "vars.yml").read_text("utf-8"))
KNOWN = yaml.safe_load((FOLDER.parent / "shared" / "vars" / "scenario.yml").read_text("utf-8"))
REPOSITORIES = [one["name"] for one in SETTINGS["backup_repositories"]]
TREE = """
import hashlib, json, os, stat
found = {}
for here, folders, files in os.walk(b"%s"):
    for name in [b"."] + folders + files:
        path = os.path.normpath(os.path.join(here, name))
        one = os.lstat(path)
        kind = stat.S_IFMT(one.st_mode)
        held = os.readlink(path) if kind == stat.S_IFLNK else b""
        if kind == stat.S_IFREG:
            held = hashlib.sha256(open(path, "rb").read()).digest()
        found[path[%d:].hex()] = [one.st_mode, one.st_uid, one.st_gid, held.hex(), kind != stat.S_IFDIR and one.st_size,
                                  one.st_mtime_ns]
print(json.dumps(found))
"""
DUMP = "mariadb-dump --skip-dump-date --skip-comments --single-transaction --routines --triggers --events --hex-blob"
SEED = """
CREATE OR REPLACE DATABASE shop; CREATE OR REPLACE DATABASE other_shop; USE shop;
CREATE TABLE products (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(99), price DECIMAL(10,2) DEFAULT 1.5,
    picture BLOB, made TIMESTAMP(6) DEFAULT '2026-01-02 03:04:05.678901', spec JSON,
    total DECIMAL(12,2) AS (price * 2));
INSERT INTO products (name, picture, spec) VALUES ('Käse & "so"', X'00FF0A27', '{"a": [1]}'),
    ('tea ☕', NULL, NULL), ('two\\nlines; --', '', '[]');
CREATE TABLE log (said VARCHAR(99));
CREATE PROCEDURE count_them() SELECT COUNT(*) FROM products;
CREATE TRIGGER logged AFTER INSERT ON products FOR EACH ROW INSERT INTO log VALUES (NEW.name);
CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY DO DELETE FROM log;
CREATE VIEW cheap AS SELECT * FROM products WHERE price < 2;
CREATE TABLE other_shop.nothing (id INT);
"""
CHANGES = """
INSERT INTO shop.products (name, price) VALUES ('new', 9.99); UPDATE shop.products SET name = 'sold' WHERE id = 2;
DELETE FROM shop.products WHERE id = 3; CREATE TABLE other_shop.more (id INT); INSERT INTO other_shop.more VALUES (7);
DROP TABLE other_shop.nothing
"""
AGAIN = f"""
mariadb -e 'DROP DATABASE IF EXISTS again; CREATE DATABASE again'
sed -e 's/`shop`/`again`/g; s/`other_shop`/`again`/g' {{dump}} | mariadb again
{DUMP} again
mariadb -e 'DROP DATABASE again'
"""
FILES = """
cd /srv/files && printf 'second\\n' >one.txt && rm 'a folder/deep/file' && mkdir new && printf 'new\\n' >new/file &&
printf 'x' | dd of=big.bin bs=1 seek=1500000 conv=notrunc status=none && rm dangling && ln -s two link2 &&
chmod 0600 empty
"""


@pytest.fixture(scope="module", params=["backup12", "backup13"])
def data(request: pytest.FixtureRequest) -> Host:
    """A host with data."""
    return all_hosts()[request.param]


@pytest.fixture(scope="module")
def both() -> Sequence[Host]:
    """Both hosts with data: what plays bring to them takes little longer than on one."""
    return [host for name, host in all_hosts().items() if name != "backup-store"]


def sql(host: Host, text: str) -> str:
    return str(host.check_output(f"mariadb -N -e {shlex.quote(text)}")).strip()


def tree(host: Host, root: str, cut: int = 0) -> Mapping[str, Any]:
    """All below a folder: kinds, modes, owners, contents and times by their paths, without so many characters."""
    found: Mapping[str, Any] = json.loads(host.check_output("python3 -c %s", TREE % (root, cut)))
    return found


def content(host: Host) -> dict[str, Any]:
    """What there is to back up: files byte for byte, tables row for row, and keys."""
    rows = {name: host.check_output(f"{DUMP} {name}") for name in ("shop", "other_shop")}
    keys = host.check_output("redis-admin jobs lrange jobs 0 -1")
    return {"files": tree(host, "/srv/files"), "rows": rows, "keys": keys}


def run(host: Host) -> None:
    """A backup as the schedule makes one."""
    done = host.run("systemctl start production-backup@run.service")
    assert done.rc == 0, host.check_output("journalctl --no-pager -n 60 -u production-backup@run.service")


def snapshots(host: Host) -> dict[str, list[str]]:
    """The snapshots in each repository, the oldest first."""
    told = json.loads(host.check_output("production-backup snapshots --json"))
    assert told["ok"]
    return {name: [one["id"] for one in found] for name, found in told["repositories"].items()}


def restored(host: Host, repository: str, snapshot: str) -> str:
    """A folder with everything of a snapshot."""
    folder = f"/srv/back/{repository}-{snapshot[:8]}"
    host.check_output(
        f"production-backup restore --from {repository} --snapshot {snapshot} --what everything --to {folder}"
    )
    return folder


def rows_of(host: Host, dump: str) -> str:
    """A dump loaded into a database of its own, and dumped again."""
    # One command, for each takes its second to get to the host, and there are many dumps.
    return str(host.check_output("bash -o errexit -o pipefail -c %s", AGAIN.format(dump=dump)))


@pytest.fixture(scope="module")
def moments(data: Host) -> Sequence[tuple[dict[str, Any], dict[str, str]]]:
    """What there was at two moments, and the snapshots of each."""
    sql(data, SEED)
    for job in ("first", "second; 'quoted'"):
        data.check_output(f"redis-admin jobs rpush jobs {shlex.quote(job)}")
    data.check_output("rm -rf /srv/back")
    found = []
    for change in (False, True):
        if change:
            sql(data, CHANGES)
            data.check_output(FILES)
            data.check_output("redis-admin jobs lpop jobs")
            data.check_output("redis-admin jobs rpush jobs third")
        before = content(data)
        run(data)
        found.append((before, {name: ids[-1] for name, ids in snapshots(data).items()}))
    assert found[0][0] != found[1][0]
    return found


@pytest.mark.parametrize("moment", [0, 1])
@pytest.mark.parametrize("repository", REPOSITORIES)
def test_what_comes_back_is_what_was_there(
    data: Host, moments: Sequence[tuple[dict[str, Any], dict[str, str]]], repository: str, moment: int
) -> None:
    wanted, ids = moments[moment]
    folder = restored(data, repository, ids[repository])
    assert tree(data, f"{folder}/srv/files", len(folder)) == wanted["files"]
    stage = f"{folder}/var/lib/production-backup/stage"
    for name in ("shop", "other_shop"):
        assert rows_of(data, f"{stage}/mariadb/{name}.sql") == wanted["rows"][name]
    rdb = f"{stage}/redis/jobs.rdb"
    jobs = wanted["keys"].split("\n")
    found = (f"grep --text --quiet --fixed-strings {shlex.quote(job)} {rdb}" for job in jobs)
    data.check_output(" && ".join([f"redis-check-rdb {rdb}", *found]))
    data.check_output(f"rm -rf {folder}")


def test_a_cache_that_keeps_nothing_is_not_backed_up(
    data: Host, moments: Sequence[tuple[dict[str, Any], dict[str, str]]]
) -> None:
    sources = json.loads(data.check_output("cat /etc/production-backup/config.json"))["sources"]
    assert [one["instance"] for one in sources if one["kind"] == "redis"] == ["jobs"]
    assert not data.file("/var/lib/redis/cache/dump.rdb").exists


def test_the_second_backup_brings_only_what_changed(
    data: Host, moments: Sequence[tuple[dict[str, Any], dict[str, str]]]
) -> None:
    state = json.loads(data.check_output("cat /var/lib/production-backup/state.json"))["repositories"]
    assert {name: one["exit_code"] for name, one in state.items()} == dict.fromkeys(REPOSITORIES, 0)
    assert all(one["bytes_added"] < 4_000_000 for one in state.values()), state


def test_figures_for_node_exporter(data: Host, moments: Sequence[tuple[dict[str, Any], dict[str, str]]]) -> None:
    file = data.file("/var/lib/prometheus/node-exporter/production_backup.prom")
    assert file.mode == 0o644
    for name in REPOSITORIES:
        for figure in ("last_exit_code", "last_success_timestamp_seconds", "bytes_added", "rpo_target_seconds"):
            assert f'production_backup_{figure}{{repository="{name}"}} ' in file.content_string
    assert 'production_backup_rpo_target_seconds{repository="s3"} 93600\n' in file.content_string


# --- what is kept, checked and tried for real ------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["prune", "check"])
def test_other_verbs_of_the_schedule(
    data: Host, moments: Sequence[tuple[dict[str, Any], dict[str, str]]], verb: str
) -> None:
    before = snapshots(data)
    done = data.run(f"systemctl start production-backup@{verb}.service")
    assert done.rc == 0, data.check_output(f"journalctl --no-pager -n 60 -u production-backup@{verb}.service")
    after = snapshots(data)
    if verb == "check":
        assert after == before
        return
    # Of one day the newest is kept, by restic 0.18 the oldest of all besides; all where nothing may be taken away.
    assert after["rest"] == before["rest"]
    for name in ("local", "sftp", "s3"):
        assert after[name] in (before[name][-1:], [before[name][0], before[name][-1]])


def test_a_drill_restores_the_newest_snapshot_that_is_elsewhere(
    data: Host, moments: Sequence[tuple[dict[str, Any], dict[str, str]]]
) -> None:
    done = data.run("systemctl start production-backup@drill.service")
    assert done.rc == 0, data.check_output("journalctl --no-pager -n 60 -u production-backup@drill.service")
    state = json.loads(data.check_output("cat /var/lib/production-backup/state.json"))["drills"]
    assert set(state) <= {"sftp", "s3", "rest"}
    assert all(one["success"] and one["rto_seconds"] > 0 and one["rpo_seconds"] > 0 for one in state.values()), state


def test_who_may_only_add_takes_nothing_away(
    data: Host, moments: Sequence[tuple[dict[str, Any], dict[str, str]]]
) -> None:
    before = snapshots(data)["rest"]
    # restic 0.18 says so in words, and ends with 0; 0.14 goes on trying for a minute.
    tried = data.run(f"timeout --signal=INT 5 production-backup restic rest -- forget {before[0]}")
    assert "403 Forbidden" in tried.stdout + tried.stderr
    assert snapshots(data)["rest"] == before


# --- secrets ---------------------------------------------------------------------------------------------------------

WATCH = """
import os, re, subprocess, sys
shown = set()
run = subprocess.Popen(["systemctl", "start", "production-backup@run.service"])
while run.poll() is None:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = open(f"/proc/{pid}/cmdline", "rb").read().replace(b"\\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if "can" "ary" in words or "PRIVATE " "KEY" in words:
            shown.add(words)
        elif "restic" in words:
            shown.add("restic was seen")
print(sorted(shown), run.returncode)
"""


def test_no_secret_is_in_the_list_of_processes(data: Host) -> None:
    assert data.check_output("python3 -c %s", WATCH) == "['restic was seen'] 0"


def test_no_secret_is_lying_about(data: Host) -> None:
    folder = data.file("/etc/production-backup")
    assert (folder.mode, folder.user, folder.group) == (0o700, "root", "root")
    found = f"grep --recursive --files-with-matches --null --extended-regexp '{SECRET.pattern}' {folder.path}"
    secret = data.check_output(f"{found} | xargs --null stat --format '%a %n'")
    assert {one.split()[0] for one in secret.splitlines()} == {"600"}, secret
    places = "/etc /var/lib /var/log /var/cache /usr/local /run/systemd /tmp /var/tmp /root"
    # The journal holds what these very tests do, and is looked at below; apt knows many words.
    passed = ("/var/log/journal", "/var/lib/apt", "/var/cache/apt", folder.path)
    found = f"find {places} -xdev " + " ".join(f"-path {one} -prune -o" for one in passed)
    wanted = "-e canary -e 'OPENSSH PRIVATE'"
    left = data.run(f"{found} -type f -perm /044 -exec grep --files-with-matches --text {wanted} {{}} + 2>&1")
    assert left.stdout == ""
    journal = data.check_output("journalctl --no-pager --output=cat").splitlines()
    assert [line for line in journal if "Repository s3: " in line]
    assert not [line for line in journal if SECRET.search(line) and "COMMAND=" not in line]


# --- when ------------------------------------------------------------------------------------------------------------


def role(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A task that applies the role, with the sources that it has already."""
    return {
        "ansible.builtin.include_role": {"name": "fushuma.production.backup"},
        "vars": {**KNOWN, "backup_sources": SOURCES, **settings},
    }


# As the other roles of the host say it.
SOURCES = [
    {
        "kind": "redis",
        "instance": "jobs",
        "folder": "/var/lib/redis/jobs",
        "rdb": "/var/lib/redis/jobs/dump.rdb",
        "unit": "redis-server@jobs.service",
        "cli": ["/usr/local/sbin/redis-admin", "jobs"],
    },
    {"kind": "mariadb", "databases": ["shop", "other_shop"]},
]


def changed(name: str = "", **more: Any) -> dict[str, Any]:
    """The settings, with others for a repository or beside it."""
    found = deepcopy({key: value for key, value in SETTINGS.items() if key.startswith("backup_")})
    if name:
        for one in found["backup_repositories"]:
            one.update(more if one["name"] == name else {})
        return found
    return {**found, **more}


def of_role(results: Sequence[Result]) -> list[Result]:
    """What the transactions of the role ended with."""
    return [one for one in results if "paths" in one or (one["failed"] and "backup:" in str(one.get("msg")))]


def applied(*settings: Mapping[str, Any]) -> Played:
    """The role with one setting after the other, on both hosts with data."""
    return play(*map(role, settings), arguments=("--diff", "--limit", "data", f"--inventory={FOLDER / 'inventory'}"))


def well(played: Played) -> Played:
    """What was played, where nothing of it has failed."""
    assert not [one for results in played.results.values() for one in results if one["failed"]], played.output
    return played


def ended(host: Host, unit: str) -> None:
    """Wait until a unit that ends by itself has done so."""
    asked = f"systemctl show --value --property ActiveState {unit} | grep --quiet --line-regexp 'inactive\\|failed'"
    wait = f"until {asked}; do sleep 0.2; done"
    host.check_output("timeout 90 sh -c %s", wait)


def test_cron_starts_a_backup(both: Sequence[Host]) -> None:
    """Every minute for once: cron reads what is in its folder, and starts the timer that starts the unit."""
    before = [len(snapshots(host)["local"]) for host in both]
    well(applied(changed(backup_schedule={"run": "* * * * *", "random_delay": "1s"})))
    asked = "production-backup snapshots --from local --json | grep --count run="
    for host, count in zip(both, before, strict=True):
        host.check_output("timeout 150 sh -c %s", f"until [ $({asked}) -gt {count} ]; do sleep 0.5; done")
    well(applied(changed()))
    for host in both:
        host.check_output("systemctl stop production-backup-delayed@run.timer")
        ended(host, "production-backup@run.service")


# The last one is what is set otherwise.
@pytest.mark.parametrize("by", ["timer", "cron"])
def test_one_starts_it_and_not_both(both: Sequence[Host], by: str) -> None:
    wanted = changed(backup_schedule={**SETTINGS["backup_schedule"], "by": by})
    done = well(applied(wanted, wanted))
    timers = " ".join(f"production-backup-{verb}.timer" for verb in ("run", "prune", "check", "drill"))
    for host in both:
        assert not of_role(done.results[host.backend.host])[1]["changed"]
        assert host.file("/etc/cron.d/production-backup").exists == (by == "cron")
        said = host.run(f"systemctl is-enabled {timers}; systemctl is-active {timers}").stdout.split()
        enabled, active = ("enabled", "active") if by == "timer" else ("disabled", "inactive")
        assert said == [enabled] * 4 + [active] * 4


# --- what opens a repository -----------------------------------------------------------------------------------------


def test_a_run_that_changes_nothing_asks_nobody(both: Sequence[Host]) -> None:
    """Not even a repository that cannot be reached keeps it from ending well."""
    for host in both:
        host.check_output("cp /etc/hosts /root/hosts && sed 's/.*backup-store.*//' /root/hosts >/etc/hosts")
        host.check_output("echo 192.0.2.1 backup-store >>/etc/hosts")
    try:
        done = well(applied(changed()))
    finally:
        for host in both:
            host.check_output("cat /root/hosts >/etc/hosts")
    for host in both:
        assert not of_role(done.results[host.backend.host])[0]["changed"]


def test_other_passwords_are_brought_in(both: Sequence[Host]) -> None:
    before = [snapshots(host) for host in both]
    names = ("local", "sftp", "s3")
    former = {one["name"]: one["password"] for one in SETTINGS["backup_repositories"] if one["name"] in names}
    others = changed()
    for one in others["backup_repositories"]:
        one["password"] = f"canary-other-{one['name']}-77d1c0b2" if one["name"] in names else one["password"]
    well(applied(others))
    for host, known in zip(both, before, strict=True):
        assert snapshots(host) == known
        for name, password in former.items():
            host.check_output("umask 077; printf %s >/run/former", password)
            opened = host.run(
                f"production-backup restic {name} -- --password-file=/run/former cat config; rm /run/former"
            )
            assert "wrong password" in opened.stderr, "the former password still opens it"
    well(applied(changed()))
    assert [snapshots(host) for host in both] == before


WRONG: Mapping[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "nobody listens": (lambda: changed("s3", url="https://backup-store:9001"), "Repository s3"),
    "another secret": (lambda: changed("s3", secret_key="canary-wrong-keys-77d1"), "Repository s3"),
    "another authority": (lambda: changed("rest", ca=""), "Repository rest"),
    "no such user": (lambda: changed("rest", user_password="canary-wrong-user-1"), "Repository rest"),
    "a key of another host": (
        lambda: changed("sftp", host_keys=["{{ lookup('ansible.builtin.file', scratch ~ '/id.pub') }}"]),
        "Repository sftp",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_open_is_put_back(name: str) -> None:
    more, words = WRONG[name]
    done = applied(more(), changed())
    assert set(done.results) == {"backup12", "backup13"}
    for results in done.results.values():
        wrong, again = of_role(results)
        assert wrong["failed"]
        assert words in wrong["msg"]
        assert "The former configuration is back and in force" in wrong["msg"]
        assert not again["changed"], "all is as it was"


CANNOT_WORK: Mapping[str, Callable[[], dict[str, Any]]] = {
    "everybody on the way could read what it is told": lambda: changed("s3", url="http://backup-store:9000"),
    "a repository of the kind sftp cannot be reached without it": lambda: changed("sftp", host_keys=[]),
    "backups are up to 7d and 15m of random_delay apart": lambda: changed(backup_schedule={"run": "17 2 * * 1"}),
    "the kernel and running programs make what is there": lambda: changed(backup_paths=["/proc"]),
}


@cache
def problems() -> Sequence[str]:
    """What is said of each of these settings."""
    # Dry, for these plays go on behind what fails.
    limit = ("--check", "--limit", "backup13", f"--inventory={FOLDER / 'inventory'}")
    results = play(*(role(more()) for more in CANNOT_WORK.values()), arguments=limit).results["backup13"]
    return [" ".join(one["problems"]) for one in results if one.get("problems")]


@pytest.mark.parametrize("words", CANNOT_WORK)
def test_what_cannot_work_is_refused_before_a_host_is_touched(words: str) -> None:
    assert words in problems()[list(CANNOT_WORK).index(words)]


# --- what fails is told ----------------------------------------------------------------------------------------------


def test_a_dump_that_fails_fails_the_backup(data: Host) -> None:
    before = snapshots(data)
    data.check_output("systemctl stop mariadb.service")
    try:
        assert data.run("systemctl start production-backup@run.service").rc != 0
    finally:
        data.check_output("systemctl start mariadb.service")
    assert snapshots(data) == before, "no half snapshot is kept"
    figures = data.file("/var/lib/prometheus/node-exporter/production_backup.prom").content_string
    assert 'production_backup_last_exit_code{repository="local"} 1\n' in figures
    ended(data, "production-backup-failed@run.service")
    told = json.loads(data.check_output("cat /var/lib/production-backup/state.json"))["verbs"]["run"]["problems"]
    assert "MariaDB" in " ".join(told) or "mariadb" in " ".join(told)
    run(data)
    figures = data.file("/var/lib/prometheus/node-exporter/production_backup.prom").content_string
    assert 'production_backup_last_exit_code{repository="local"} 0\n' in figures


def test_a_repository_that_is_gone_keeps_no_other_from_its_backup(data: Host) -> None:
    before = snapshots(data)
    data.check_output("mv /srv/backups /srv/gone")
    try:
        assert data.run("systemctl start production-backup@run.service").rc != 0
    finally:
        data.check_output("rm -rf /srv/backups && mv /srv/gone /srv/backups")
    after = snapshots(data)
    assert after["local"] == before["local"]
    assert all(len(after[name]) == len(before[name]) + 1 for name in ("sftp", "s3", "rest"))
