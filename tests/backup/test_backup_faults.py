# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whatever happens to a backup, it is said, nothing that was there is lost, and the next run is well again."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from backup_support import CONFIG, DATA, HERE, PROGRAM, THERE, UNIT, Kept, canaries, small_disk
from hosts_support import RELEASES, on_each, prepare, times, wait_for

# Of a backup and of a restore, on each host.
KILLS, RESTORES = times(10), times(3)
SEED = os.environ.get("FAULTS_SEED", str(random.randrange(10**6)))


@pytest.fixture(scope="module")
def hosts(boot: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> list[Kept]:
    """A host of each release with data and one backup."""
    folder = tmp_path_factory.mktemp("backup")
    prepare(RELEASES)
    found = [Kept(boot(f"backup{one}", one, network="backup"), folder, f"backup{one}") for one in RELEASES]
    on_each(found, lambda one: one.bring_up())
    on_each(found, lambda one: one.program("run"))
    return found


def test_what_was_spoilt_comes_back(hosts: list[Kept]) -> None:
    def work(one: Kept) -> None:
        before = one.state()
        one.program("run")
        one.spoil()
        assert one.state() != before
        done = json.loads(
            one.host.sh(f"{PROGRAM} restore --what everything --in-place --confirm {one.name} --json 2>/dev/null")
        )
        assert done["ok"], done
        assert one.state() == before
        # And what was spoilt is kept, too.
        spoilt = one.program(
            "restore", "--what=path:/srv/uploads/4", f"--snapshot={done['safety']}", "--to=/root/spoilt"
        )
        assert "path /srv/uploads/4 is at" in spoilt.output
        assert one.host.read("/root/spoilt/srv/uploads/4/4 ä") == "spoilt\n"

    on_each(hosts, work)


def test_killed_at_random_moments(hosts: list[Kept]) -> None:
    print(f"FAULTS_SEED={SEED}")

    def work(one: Kept) -> None:
        moments = random.Random(f"{SEED}{one.name}")
        took = float(json.loads(one.host.sh(f"{PROGRAM} run --json 2>/dev/null"))["seconds"])
        before, ends = one.all_ids(), []
        # One that has ended before it is killed does not count.
        for _ in range(2 * KILLS):
            if ends.count("signal") == KILLS:
                break
            # systemd counts starts, and refuses many in a short time.
            one.host.sh(
                f"echo {moments.random()} >> /srv/uploads/changes;"
                f"systemctl reset-failed {UNIT}; systemctl start --no-block {UNIT};"
                f"sleep {moments.uniform(0, took):.3f}; systemctl kill --signal=SIGKILL {UNIT} || true"
            )
            wait_for(lambda: one.host.sh(f"systemctl is-active {UNIT} || true").strip() != "activating", "it has ended")
            ends.append(one.host.sh(f"systemctl show --value --property=Result {UNIT}").strip())
            # Of these all is known; what a killed run made is forgotten by one that ends well.
            for name, ids in one.all_ids().items():
                assert set(before[name]) <= set(ids), "what was there is there"
        assert ends.count("signal") == KILLS, ends
        one.program("run")
        one.whole()
        one.program("drill")

    on_each(hosts, work)


def test_a_killed_run_is_told_of(hosts: list[Kept]) -> None:
    def work(one: Kept) -> None:
        one.host.sh(f"systemctl start --no-block {UNIT}; sleep 0.3; systemctl kill --signal=SIGKILL {UNIT}")
        told = "run: it was ended before it could say why"
        wait_for(lambda: told in one.program("status", check=False).output, "it is told")
        one.program("run")
        assert told not in one.program("status", check=False).output

    on_each(hosts, work)


def test_a_restore_that_is_killed(hosts: list[Kept]) -> None:
    """The database is the former one or the snapshot's at any moment, and the next restore brings all.

    Until what is there is kept in a snapshot of its own, nothing is touched; so it is killed after that, where changes
    are made: in a second or less.
    """
    counted = "mariadb --no-defaults --skip-column-names shop -e 'SELECT COUNT(*) FROM products'"
    words = "restore --what everything --in-place --confirm {}"
    killed = """
    timeout 120 sh -c 'until grep -q "is kept in snapshot" /root/said; do sleep 0.02; done'
    sleep {:.3f}; systemctl kill --signal=SIGKILL restoring || true
    """

    def work(one: Kept) -> None:
        moments = random.Random(f"{SEED}{one.name}")
        one.program("run")
        before, counts = one.state(), {one.host.sh(counted).strip()}
        one.spoil()
        counts.add(one.host.sh(counted).strip())
        for number in range(RESTORES):
            one.spoil()
            one.host.sh(
                "rm -f /root/said; touch /root/said; systemd-run --quiet --unit=restoring --collect "
                f"--property=StandardOutput=file:/root/said {PROGRAM} {words.format(one.name)}"
            )
            # Each time a bit later.
            one.host.sh(killed.format(moments.uniform(number, number + 1) / RESTORES))
            wait_for(lambda: one.host.run(["systemctl", "is-active", "restoring"], check=False).code, "it has ended")
            assert one.host.sh(counted).strip() in counts
            one.program(*words.format(one.name).split(), "--snapshot=latest")
            assert one.state() == before
        one.whole()

    on_each(hosts, work)


def test_no_room_on_the_host(hosts: list[Kept]) -> None:
    def work(one: Kept) -> None:
        before = one.state(), one.all_ids()
        with small_disk(one.host, DATA):
            assert "No space left on device" in one.refused("run")
            assert "No space left on device" in one.refused("run"), "and again"
        assert (one.state(), one.all_ids()) == before
        one.program("run")
        one.whole()

    on_each(hosts, work)


def test_no_room_in_the_repository(hosts: list[Kept]) -> None:
    def work(one: Kept) -> None:
        here, there = one.ids("here"), one.ids("there")
        one.host.sh("head -c 3000000 /dev/urandom > /srv/uploads/large")
        with small_disk(one.host, THERE):
            said = one.refused("run")
            assert "Repository there: " in said
            assert "no space left on device" in said
            assert len(one.ids("here")) == len(here) + 1, "the other one has it"
            assert one.ids("there") == there
        one.program("run")
        one.host.sh("rm /srv/uploads/large")
        one.whole()
        one.program("drill")

    on_each(hosts, work)


def test_the_database_is_down(hosts: list[Kept]) -> None:
    def work(one: Kept) -> None:
        before = one.all_ids()
        one.host.sh("systemctl stop mariadb")
        assert "MariaDB does not answer" in one.refused("run")
        assert one.all_ids() == before
        one.host.sh("systemctl start mariadb")
        one.program("run")

    on_each(hosts, work)


def test_the_database_dies_in_the_middle_of_the_dump(hosts: list[Kept]) -> None:
    def work(one: Kept) -> None:
        one.host.sh("mariadb --no-defaults shop -e 'CREATE TABLE zz_held (id INT PRIMARY KEY)'")
        before = one.all_ids()
        with ThreadPoolExecutor(1) as pool:
            # The dump waits for a table that somebody holds.
            one.host.sh(
                "systemd-run --quiet --collect --unit=holder "
                "mariadb --no-defaults shop -e 'LOCK TABLES zz_held WRITE; SELECT SLEEP(600)'"
            )
            sleeps = "SELECT 1 FROM information_schema.processlist WHERE state = 'User sleep'"
            wait_for(lambda: one.host.sh(f'mariadb --no-defaults -N -e "{sleeps}"').strip(), "it is held")
            run = pool.submit(one.program, "run", check=False)
            wait_for(
                lambda: one.host.run(["test", "-s", f"{DATA}/stage/mariadb/shop.sql"], check=False).code == 0,
                "it dumps",
            )
            one.host.sh("systemctl kill --signal=SIGKILL mariadb")
            done = run.result()
        assert done.code == 1
        assert "The mariadb database shop could not be dumped" in done.output
        assert one.all_ids() == before
        one.host.sh("systemctl restart mariadb; mariadb --no-defaults shop -e 'DROP TABLE zz_held'")
        one.program("run")
        one.whole()

    on_each(hosts, work)


def test_a_wrong_password(hosts: list[Kept]) -> None:
    def work(one: Kept) -> None:
        here, there = one.ids("here"), one.ids("there")
        one.host.sh(f"cp -a {CONFIG}/there.password /root/kept; echo wrong > {CONFIG}/there.password")
        said = one.refused("run")
        assert "Repository there: the password does not open it" in said
        assert "Repository there: the password does not open it" in one.refused("drill")
        assert one.result()["ok"] is False
        one.host.sh(f"mv /root/kept {CONFIG}/there.password")
        assert len(one.ids("here")) == len(here) + 1
        assert one.ids("there") == there
        one.program("run")

    on_each(hosts, work)


def test_a_repository_that_is_gone(hosts: list[Kept]) -> None:
    def work(one: Kept) -> None:
        one.host.sh(f"mv {THERE} /root/gone; mkdir {THERE}")
        assert "Repository there: there is no repository" in one.refused("run")
        assert "Repository there is gone" in one.refused("init"), "it is not made anew in silence"
        assert one.host.sh(f"ls {THERE}") == ""
        one.host.sh(f"rmdir {THERE}; mv /root/gone {THERE}")
        one.program("run")
        one.whole()

    on_each(hosts, work)


def test_locked_by_a_process_that_lives_and_by_one_that_died(hosts: list[Kept]) -> None:
    # A backup that waits for what it is to read, as long as it lives.
    hold = (
        f"systemd-run --quiet --collect --unit=holder --setenv=HOME=/root sh -c "
        f"'sleep 3600 | {PROGRAM} restic there -- backup --stdin --tag=held'"
    )

    def work(one: Kept) -> None:
        one.host.sh(f'sed -i \'s/"seconds": 600/"seconds": 30/\' {CONFIG}/config.json')
        one.host.sh(hold)
        wait_for(lambda: one.host.sh(f"ls {THERE}/locks").strip(), "it is locked")
        there = one.ids("there")
        assert "Repository there: the repository is locked by another process" in one.refused("prune")
        assert one.host.sh(f"ls {THERE}/locks").strip(), "a living process keeps its lock"
        assert one.ids("there") == there
        one.host.sh("systemctl kill --signal=SIGKILL holder")
        wait_for(lambda: one.host.run(["systemctl", "is-active", "holder"], check=False).code, "it is dead")
        one.program("prune")
        # Of those of one day it keeps the newest.
        left = one.ids("there")
        assert left[-1] == there[-1]
        one.program("run")
        assert one.ids("there")[:-1] == left
        assert one.host.sh(f"ls {THERE}/locks").strip() == ""
        one.host.sh(f'sed -i \'s/"seconds": 30/"seconds": 600/\' {CONFIG}/config.json')

    on_each(hosts, work)


def test_two_runs_at_once(hosts: list[Kept]) -> None:
    def work(one: Kept) -> None:
        before = len(one.ids("here"))
        with ThreadPoolExecutor(2) as pool:
            ended = [pool.submit(one.program, "run") for _ in range(2)]
        assert [each.result().code for each in ended] == [0, 0]
        assert len(one.ids("here")) == before + 2, "one after the other"
        one.whole()

    on_each(hosts, work)


def test_a_clock_that_jumps(hosts: list[Kept]) -> None:
    def work(one: Kept) -> None:
        back = one.at(-7200, "drill")
        assert back.code == 1
        assert "which cannot be: look at the clock of this host" in back.output
        found = one.result()
        assert found["rpo_seconds"] < 0 < found["rto_seconds"] < 600, "a clock that runs on knows how long it took"
        assert one.at(7200, "run").code == 0
        one.program("run")
        assert one.at(90 * 86400, "drill").code == 1, "that is more than may be lost"
        one.program("drill")
        one.whole()

    on_each(hosts, work)


def test_a_corrupted_pack_is_found(hosts: list[Kept]) -> None:
    largest = f"find {THERE}/data -type f -printf '%s %p\\n' | sort -n | tail -1 | cut -d' ' -f2"

    def work(one: Kept) -> None:
        before = one.state()
        one.program("run")
        one.host.sh(f"cp -a {THERE} /root/kept")
        one.host.sh(
            f"pack=$({largest}); chmod u+w $pack; dd if=/dev/zero of=$pack bs=64 seek=40 count=400 conv=notrunc"
        )
        assert "Repository there" in one.refused("check")
        one.refused("drill")
        found = one.result()
        assert found["ok"] is False
        assert found["problems"]
        one.host.sh(f"rm -rf {THERE}; mv /root/kept {THERE}")
        one.program("check")
        one.program("drill")
        assert one.state() == before

    on_each(hosts, work)


# A snapshot whose dump has another row than its manifest says, with all that would hide it.
FALSE = r"""
set -e
restic() { production-backup restic here -- "$@" > /dev/null; }
restic restore latest --target /root/all --include "$1/stage"
mv "/root/all$1/stage" "$1/stage"
cd "$1/stage"
sed -i 's/Maker 7 /Maker 8 /' mariadb/shop.sql
python3 - << 'EOF'
import hashlib, json
known = json.load(open("manifest.json"))
for one in known["databases"]:
    one["sha256"] = hashlib.sha256(open(one["file"], "rb").read()).hexdigest()
json.dump(known, open("manifest.json", "w"))
EOF
restic backup --host "$2" --tag production-backup,run=false "$1/stage"
rm -r /root/all "$1/stage"
"""


def test_a_false_dump_never_reaches_the_live_database(hosts: list[Kept]) -> None:
    def work(one: Kept) -> None:
        before = one.state()
        one.host.run(["sh", "-c", FALSE, "sh", DATA, one.name])
        said = one.refused("restore", "--what=database:shop", "--from=here", "--in-place", "--confirm=shop")
        assert "shop.makers has other data than the manifest says" in said
        assert one.state() == before
        databases = one.host.sh("mariadb --no-defaults --skip-column-names -e 'SHOW DATABASES'").split()
        assert [name for name in databases if "restore" in name] == []
        one.restic("here", "forget", one.ids("here")[-1])
        one.program("run")
        one.whole()

    on_each(hosts, work)


def test_nobody_sees_a_secret(hosts: list[Kept]) -> None:
    def work(one: Kept) -> None:
        with ThreadPoolExecutor(1) as pool:
            run = pool.submit(one.program, "drill")
            seen = ""
            while not run.done():
                seen += one.host.sh("ps axww --format args")
        seen += one.host.sh("journalctl --no-pager --output=cat --unit='production-backup*'")
        seen += one.host.sh(
            "find / -xdev -type f -perm /o+r -newer /root/shop.sql -size -2M -not -path '/proc/*' "
            "-exec grep -l canary- {} + 2>/dev/null || true"
        )
        assert [secret for secret in canaries() if secret in seen] == []
        assert "canary" not in seen, seen

    on_each(hosts, work)


def test_the_repositories_at_last(hosts: list[Kept]) -> None:
    on_each(hosts, lambda one: (one.program("prune"), one.program("check"), one.program("drill"), one.whole()))
    assert on_each(hosts, lambda one: one.host.sh(f"ls {HERE} {THERE} | grep -c config").strip()) == ["2", "2"]
