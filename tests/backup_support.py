# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hosts with data that are backed up, and what a fault may not take from them."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hosts_support import ROOT, Finished, Host, Played, play
from testhosts.inventory import variables

PROGRAM = "/usr/local/sbin/production-backup"
DATA = "/var/lib/production-backup"
CONFIG = "/etc/production-backup"
HERE, THERE = "/srv/backups", "/srv/elsewhere"  # repositories; the second one stands for one that is off-site
UNIT = "production-backup@run.service"
# Nothing starts by itself while tests run.
LATER = f"0 {(time.gmtime().tm_hour + 12) % 24} * * *"
PASSWORDS = {"here": "canary-here-1d8f3a", "there": "canary-there-94be02"}

# A database with all that a dump has to bring along, and a table that a dump needs a moment for.
SQL = """
CREATE TABLE makers (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(80), picture BLOB);
CREATE TABLE products (id INT PRIMARY KEY AUTO_INCREMENT, maker INT, name VARCHAR(200),
  FOREIGN KEY (maker) REFERENCES makers (id));
INSERT INTO makers (name, picture) SELECT CONCAT('Maker ', seq, ' ''"\\\\ \\n Zoë'), UNHEX(MD5(seq)) FROM seq_1_to_100;
INSERT INTO products (maker, name) SELECT 1 + seq MOD 100, REPEAT(MD5(seq), 4) FROM seq_1_to_{rows};
CREATE TABLE changes (id INT PRIMARY KEY AUTO_INCREMENT, what VARCHAR(80));
CREATE TRIGGER changed AFTER UPDATE ON makers FOR EACH ROW INSERT INTO changes (what) VALUES (NEW.name);
CREATE VIEW named AS SELECT id, name FROM makers WHERE name <> '';
CREATE FUNCTION counted() RETURNS INT READS SQL DATA RETURN (SELECT COUNT(*) FROM products);
CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY DO DELETE FROM changes WHERE id < 0;
"""
FILES = """
import os, random
random.seed(7)
for number in range({files}):
    folder = f"/srv/uploads/{{number % 10}}"
    os.makedirs(folder, exist_ok=True)
    with open(f"{{folder}}/{{number}} ä", "wb") as file:
        file.write(random.randbytes(random.randrange(20000)))
os.symlink("0", "/srv/uploads/link")
os.chown("/srv/uploads/1", 33, 33)
"""
# What is to be the same after a restore: all rows, what is in the database besides, files with owners, modes and times.
STATE = """
set -e
mariadb-dump --no-defaults --skip-dump-date --order-by-primary --routines --triggers --events --hex-blob shop \
  | sed 's/ AUTO_INCREMENT=[0-9]*//' | sha256sum
cd /srv/uploads
find . -printf '%p %y %m %U %G %T@ %l\\n' | sort | sha256sum
find . -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum
redis-admin jobs dbsize
redis-admin jobs lrange waiting 0 -1 | sha256sum
"""
# The program with another clock: so many seconds are added to it.
CLOCK = """
import sys, time
real, jump = time.time, float(sys.argv.pop(1))
time.time = lambda: real() + jump
sys.path.insert(0, "/usr/local/lib/production-backup")
from backup.cli import main
sys.exit(main(sys.argv[1:]))
"""


def settings(**more: Any) -> dict[str, Any]:
    """A database, a queue that is kept in a log, files, and two repositories."""
    return {
        "host_memory": "8gb",
        "mariadb_memory": "64mb",
        "mariadb_databases": [{"name": "shop"}],
        "redis_admin_password": "canary-boss-7f20c9e1",
        "redis_instances": [{"name": "jobs", "use": "queue", "memory": "32mb"}],
        "backup_paths": ["/srv/uploads"],
        "backup_repositories": [
            {"name": "here", "kind": "local", "path": HERE, "password": PASSWORDS["here"]},
            {"name": "there", "kind": "local", "path": THERE, "offsite": True, "password": PASSWORDS["there"]},
        ],
        "backup_schedule": {"run": LATER, "prune": "", "check": "", "drill": ""},
        "backup_check_parts": 1,
        "backup_limits": {"seconds": 600, "attempts": 1},
        "backup_drill": {"queries": [{"database": "shop", "query": "SELECT counted()", "at_least": 1000}]},
        **more,
    }


PLAY = [
    {
        "hosts": "data",
        "become": True,
        "gather_facts": False,
        "roles": [
            {"role": "fushuma.production.redis"},
            {"role": "fushuma.production.mariadb"},
            {
                "role": "fushuma.production.backup",
                # Without the folders of roles that are not run here.
                "backup_sources": (
                    "{{ query('fushuma.production.exports', 'backup') | rejectattr('kind', 'equalto', 'path') }}"
                ),
            },
        ],
    }
]


@dataclass
class Kept:
    """A host whose data are backed up. ``name`` is the inventory's, whatever machine it is."""

    host: Host
    folder: Path
    name: str
    settings: Mapping[str, Any] = field(default_factory=settings)
    others: Mapping[str, Host] = field(default_factory=dict)
    _whole: set[str] = field(default_factory=set)  # snapshots that were seen whole

    @property
    def inventory(self) -> Path:
        path = self.folder / f"{self.name}.yml"
        # By address: hosts of a network reach each other, and the controller them.
        known = {
            name: {**variables(host.record), "ansible_host": host.record.address, "ansible_port": 22}
            for name, host in {self.name: self.host, **self.others}.items()
        }
        # The others are there, and nothing more is wanted of them.
        groups = {"data": {"hosts": {self.name: {}}, "vars": dict(self.settings)}}
        document = {"all": {"hosts": known, "children": groups}}
        path.write_text(yaml.safe_dump(document, sort_keys=False, width=1000), "utf-8")
        return path

    def bring_up(self, rows: int = 20000, files: int = 300) -> None:
        """The roles, and data."""
        self.roles().ok()
        self.host.write("/root/shop.sql", SQL.format(rows=rows))
        self.host.sh("mariadb --no-defaults shop < /root/shop.sql")
        self.host.python(FILES.format(files=files))
        self.host.sh("seq 500 | xargs redis-admin jobs rpush waiting")

    def roles(self) -> Played:
        path = self.folder / "roles.yml"
        path.write_text(yaml.safe_dump(PLAY, sort_keys=False), "utf-8")
        return play(path, self.inventory)

    def playbook(self, name: str, *, check: bool = False, **said: Any) -> Played:
        path = ROOT / "playbooks" / f"{name}.yml"
        return play(path, self.inventory, said, check=check, options=["--limit", self.name])

    # --- the program ---

    def program(self, *words: str, check: bool = True) -> Finished:
        return self.host.run([PROGRAM, *words], check=check)

    def refused(self, *words: str) -> str:
        """What it says where it ends with 1."""
        done = self.program(*words, check=False)
        assert done.code == 1, done
        return done.output

    def at(self, jump: float, *words: str) -> Finished:
        """The program with a clock that is wrong by so many seconds."""
        return self.host.run(["python3", "-I", "-B", "-c", CLOCK, str(jump), *words], check=False)

    def snapshots(self, repository: str) -> list[dict[str, Any]]:
        said = json.loads(self.host.sh(f"{PROGRAM} snapshots --json --from {repository} 2>/dev/null"))
        return list(said["repositories"][repository])

    def ids(self, repository: str) -> list[str]:
        return [one["id"] for one in self.snapshots(repository)]

    def all_ids(self) -> dict[str, list[str]]:
        """Those of each repository."""
        said = json.loads(self.host.sh(f"{PROGRAM} snapshots --json 2>/dev/null"))
        return {name: [one["id"] for one in found] for name, found in said["repositories"].items()}

    def result(self) -> dict[str, Any]:
        """Of the last drill, whatever the clock said then."""
        found: dict[str, Any] = json.loads(self.host.sh(f"cat $(ls -t {DATA}/drills/*.json | head -1)"))
        return found

    def restic(self, repository: str, *words: str, check: bool = True) -> Finished:
        return self.program("restic", repository, "--", *words, check=check)

    # --- the data ---

    def state(self) -> str:
        return self.host.sh(STATE)

    def spoil(self) -> None:
        """As somebody does by mistake."""
        self.host.sh("mariadb --no-defaults shop -e 'DELETE FROM products WHERE id % 3; DROP VIEW IF EXISTS named'")
        self.host.sh("cd /srv/uploads && rm -rf 3 && echo spoilt > '4/4 ä' && chmod 700 5")
        self.host.sh("redis-admin jobs del waiting")

    def whole(self) -> None:
        """Each snapshot that is left has all it has to have, and nothing is left over of any run."""
        for name in PASSWORDS:
            self.restic(name, "check")
            listed = json.loads(self.restic(name, "snapshots", "--json").output)
            for one in listed:
                # What a snapshot is does not change, and `check` has said that all of it is there.
                if "production-backup" in one["tags"] and one["id"] not in self._whole:
                    found = self.restic(name, "dump", one["id"], f"{DATA}/stage/manifest.json").output
                    assert json.loads(found)["run"] in " ".join(one["tags"])
                    self._whole.add(one["id"])
        left = self.host.sh(f"ls {DATA}/stage /var/lib/production-backup-scratch/*/ 2>/dev/null || true")
        assert left.strip() == "", left
        assert self.host.sh("pgrep --full '[b]ackup-scratch' || true").strip() == ""


@contextmanager
def small_disk(host: Host, folder: str, room: str = "400k") -> Iterator[None]:
    """A folder on a file system of its own with so little room, and back on the host's disk at the end."""
    at = shlex.quote(folder)
    aside = shlex.quote(f"/root/aside{folder.replace('/', '-')}")
    host.sh(
        f"set -e; cp -a {at} {aside}; size=$(du -sk {at} | cut -f1);"
        f"mount -t tmpfs -o mode=$(stat -c %a {at}),size=$((size + 64))k tmpfs {at}; cp -a {aside}/. {at};"
        f"mount -o remount,size=$((size + 64 + {int(room.rstrip('k'))}))k {at}"
    )
    try:
        yield
    finally:
        host.sh(
            f"set -e; rm -rf {aside}; cp -a {at} {aside}; umount {at}; find {at} -mindepth 1 -delete;"
            f"cp -a {aside}/. {at}; rm -r {aside}"
        )


def canaries(*more: str) -> Sequence[str]:
    """Secrets that nobody may see."""
    return [*PASSWORDS.values(), "canary-boss-7f20c9e1", *more]
