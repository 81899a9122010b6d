"""A host with backups in a folder: its settings, and restic and the databases' programs as small scripts.

The restic of these tests keeps whole copies of what it was given, and ends as ``forced`` says.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.module_utils.backup import dumps, restic, runs
from ansible_collections.fushuma.production.plugins.module_utils.backup.settings import Settings

RESTIC = """\
#!{python} -ISE
import json, os, shutil, sys, time, uuid

here = os.path.dirname(os.path.abspath(__file__))
args = [one for one in sys.argv[1:] if not one.startswith(("--option=", "--cacert=", "--limit-"))]


def put(name, value):
    with open(name, "w") as file:
        json.dump(value, file)


def get(name, default=None):
    try:
        with open(name) as file:
            return json.load(file)
    except FileNotFoundError:
        return default


def flag(name):
    return next((one.split("=", 1)[1] for one in args if one.startswith(name + "=")), None)


def fatal(text):
    sys.stderr.write("Fatal: " + text + "\\n")
    sys.exit(1)


if args[:1] == ["help"]:
    print("  --tag tags\\n" + ("  --no-scan  none" if os.path.exists(here + "/new") else ""))
    sys.exit()
if args[:1] == ["version"]:
    print("restic 0.14.0 compiled with go1.19.8 on linux/amd64")
    sys.exit()
with open(here + "/log", "a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
repository = os.environ["RESTIC_REPOSITORY"]
with open(os.environ["RESTIC_PASSWORD_FILE"]) as file:
    password = file.read().strip()
forced = get(here + "/forced.json", [])
mine = next((one for one in forced if one["verb"] == args[0]), None)
if mine:
    forced.remove(mine)
    put(here + "/forced.json", forced)
    if not mine.get("after"):
        sys.stderr.write(mine.get("err", ""))
        sys.stdout.write(mine.get("out", ""))
        sys.exit(mine["code"])
config = get(repository + "/config")
if args[0] == "init":
    os.makedirs(repository + "/data")
    put(repository + "/config", {{"id": uuid.uuid4().hex * 2, "keys": {{"k1": password}}}})
    put(repository + "/snapshots", [])
    sys.exit()
if not config:
    fatal(f"unable to open config file: stat {{repository}}/config: no such file or directory")
if password not in config["keys"].values():
    fatal("wrong password or no key found")
found = get(repository + "/snapshots", [])
if args[:2] == ["cat", "config"]:
    print(json.dumps(config))
elif args[:2] == ["key", "add"]:
    with open(flag("--new-password-file")) as file:
        config["keys"]["k" + uuid.uuid4().hex[:6]] = file.read().strip()
    put(repository + "/config", config)
elif args[:2] == ["key", "list"]:
    print(json.dumps([{{"id": key, "current": one == password}} for key, one in config["keys"].items()]))
elif args[:2] == ["key", "remove"]:
    del config["keys"][args[2]]
    put(repository + "/config", config)
elif args[0] == "backup":
    id = uuid.uuid4().hex * 2
    for path in args[args.index("--") + 1 :]:
        target = repository + "/data/" + id + path
        os.makedirs(os.path.dirname(target), exist_ok=True)
        (shutil.copytree if os.path.isdir(path) else shutil.copy)(path, target)
    when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{{len(found):09d}}Z"
    found.append(
        {{"id": id, "time": when, "hostname": flag("--host"), "tags": flag("--tag").split(","), "paths": []}}
    )
    put(repository + "/snapshots", found)
    print(json.dumps({{"message_type": "summary", "snapshot_id": id[:8], "data_added": 5}}))
elif args[0] == "snapshots":
    # All tags of one of the options.
    tags, host = [set(one[6:].split(",")) for one in sys.argv if one.startswith("--tag=")], flag("--host")
    tagged = [one for one in found if any(each <= set(one["tags"]) for each in tags)]
    print(json.dumps([one for one in tagged if host in (None, one["hostname"])]))
elif args[0] == "forget" and "--prune" not in args:
    put(repository + "/snapshots", [one for one in found if not one["id"].startswith(tuple(args[1:]))])
if mine:
    sys.stderr.write(mine.get("err", ""))
    sys.exit(mine["code"])
"""

MARIADB = """\
#!/bin/sh
here=$(dirname "$0")
[ -e "$here/down" ] && {{ echo "ERROR 2002 (HY000): Can't connect to local server" >&2; exit 1; }}
said=$(cat)
case $said in
  *read_only*) printf '%s\\t10.11.19-MariaDB\\n' "$(cat "$here/read_only" 2>/dev/null || echo 0)" ;;
  *schemata*)
    for one in "$here"/sql/*.sql; do
      printf 'utf8mb4\\tutf8mb4_unicode_ci\\t%s\\n' "$(basename "$one" .sql)"
    done
    printf 'utf8mb3\\tutf8mb3_general_ci\\tmysql\\n' ;;
  *REPLACE*) echo 1795676400 ;;
esac
"""

MARIADB_DUMP = """\
#!/bin/sh
here=$(dirname "$0")
for name; do :; done
cat "$here/sql/$name.sql"
[ -e "$here/dies" ] && {{ echo "mariadb-dump: Error 2013: Lost connection to server during query" >&2; exit 2; }}
exit 0
"""

REDIS_CLI = """\
#!/bin/sh
cd "$(dirname "$0")" || exit 1
echo "$1" >> redis-log
case "$*" in
  "INFO persistence")
    [ -e redis-down ] && {{ echo "Could not connect" >&2; exit 1; }}
    [ -e redis-mute ] && exit 0
    echo "rdb_bgsave_in_progress:$(cat redis-busy 2>/dev/null || echo 0)"
    rm -f redis-busy
    echo "rdb_last_bgsave_status:$(cat redis-status 2>/dev/null || echo ok)"
    echo "rdb_saves:$(cat redis-saves 2>/dev/null || echo 0)" ;;
  "BGSAVE SCHEDULE")
    if [ -e redis-other ]; then rm redis-other; echo "ERR Background save already in progress" >&2; exit 1; fi
    [ -e redis-never ] || echo $(($(cat redis-saves 2>/dev/null || echo 0) + 1)) > redis-saves
    echo 1 > redis-busy
    echo "Background saving started" ;;
esac
"""

REDIS_CHECK = """\
#!/bin/sh
echo "[offset 27] AUX FIELD redis-ver = '7.0.15'"
grep -q REDIS "$1" || {{ echo "--- RDB ERROR DETECTED ---"; exit 1; }}
echo '[info] 3 keys read'
"""

DOCKER = """\
#!/bin/sh
cd "$(dirname "$0")" || exit 1
for name; do :; done
[ -d "volumes/$name" ] || {{ echo "Error: No such volume: $name" >&2; exit 1; }}
echo "$PWD/volumes/$name"
"""

SQL = """\
-- MariaDB dump

LOCK TABLES `goods` WRITE;
/*!40000 ALTER TABLE `goods` DISABLE KEYS */;
INSERT INTO `goods` VALUES
(1,'one'),
(2,'two');
/*!40000 ALTER TABLE `goods` ENABLE KEYS */;
UNLOCK TABLES;
-- Dump completed
"""


@dataclass
class Host:
    """The folder that plays the host; ``bin`` has its programs and what they are told, ``config`` is config.json."""

    root: Path
    bin: Path
    config: dict[str, Any]

    def settings(self, **changed: Any) -> Settings:
        """What the program reads, with some of it changed."""
        folder = self.root / "etc"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config))
        for one in self.config["repositories"]:
            path = folder / f"{one['name']}.password"
            if not path.exists():
                path.write_text(f"password of {one['name']}\n")
        return replace(Settings.load(folder, self.root / "var", self.root / "cache"), **changed)

    def forced(self, *ends: dict[str, Any]) -> None:
        """How the next calls of restic end: {"verb": ..., "code": ..., "err": ..., "after": it does its work first}."""
        (self.bin / "forced.json").write_text(json.dumps(ends))

    def calls(self, verb: str = "") -> list[list[str]]:
        """What restic was called with, since the last time it was asked for."""
        log = self.bin / "log"
        found = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return [one for one in found if not verb or verb in one]

    def snapshots(self, name: str = "near") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads((self.root / name / "snapshots").read_text())
        return found

    def manifest(self, name: str = "near", which: int = -1) -> dict[str, Any]:
        """The manifest in a snapshot."""
        stage = self.stage(name, which)
        found: dict[str, Any] = json.loads((stage / "manifest.json").read_text())
        return found

    def stage(self, name: str = "near", which: int = -1) -> Path:
        """The stage as a snapshot has it."""
        return Path(f"{self.root}/{name}/data/{self.snapshots(name)[which]['id']}{self.root}/var/stage")


def made(root: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host with a database, a Redis instance, a volume, a path and two repositories, near and far."""
    programs = root / "bin"
    programs.mkdir()
    for name, text in {
        "restic": RESTIC,
        "mariadb": MARIADB,
        "mariadb-dump": MARIADB_DUMP,
        "redis-cli": REDIS_CLI,
        "redis-check-rdb": REDIS_CHECK,
        "docker": DOCKER,
    }.items():
        (programs / name).write_text(text.format(python=sys.executable))
        (programs / name).chmod(0o755)
    (programs / "sql").mkdir()
    (programs / "sql" / "shop.sql").write_text(SQL)
    (programs / "volumes" / "uploads").mkdir(parents=True)
    (programs / "volumes" / "uploads" / "picture").write_bytes(b"\x89PNG")
    (root / "data").mkdir()
    (root / "data" / "file").write_text("content")
    (root / "dump.rdb").write_text("REDIS0010")
    use(programs, monkeypatch)
    repositories = [{"name": name, "location": str(root / name)} for name in ("near", "far")]
    return Host(
        root,
        programs,
        {
            "host": "web1",
            "repositories": repositories,
            "sources": [
                {"kind": "path", "path": str(root / "data")},
                {"kind": "volume", "volume": "uploads"},
                {"kind": "mariadb", "databases": ["shop"]},
                {
                    "kind": "redis",
                    "instance": "cache",
                    "rdb": str(root / "dump.rdb"),
                    "unit": "redis-server@cache.service",
                    "cli": [str(programs / "redis-cli")],
                },
            ],
            "limits": {"seconds": 20, "attempts": 1},
        },
    )


def use(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the code of backups call these programs, and wait for nothing."""
    monkeypatch.setattr(restic, "PROGRAM", str(programs / "restic"))
    monkeypatch.setattr(restic, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(dumps, "MARIADB", (str(programs / "mariadb"),))
    monkeypatch.setattr(dumps, "MARIADB_DUMP", (str(programs / "mariadb-dump"),))
    monkeypatch.setattr(dumps, "REDIS_CHECK", str(programs / "{server}-check-rdb"))
    monkeypatch.setattr(runs, "DOCKER", str(programs / "docker"))
