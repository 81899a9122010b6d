# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Databases and instances put in their place: as the snapshot has them, or as they were."""

from __future__ import annotations

import contextlib
import copy
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.module_utils.backup import inplace, loading, servers
from ansible_collections.fushuma.production.plugins.module_utils.backup.inplace import (
    BEFORE,
    BESIDE,
    MariadbWork,
    Objects,
    PostgresqlWork,
    RedisWork,
    swap,
)
from ansible_collections.fushuma.production.plugins.module_utils.backup.programs import Failure
from ansible_collections.fushuma.production.plugins.module_utils.backup.settings import Source

Database = dict[str, Any]
NAME = r"`((?:[^`]|``)+)`"


def database(**tables: list[int]) -> Database:
    """A database: rows of its tables, and one of everything else."""
    return {
        "tables": dict(tables),
        "views": ["totals"],
        "triggers": {"counts": next(iter(tables))} if tables else {},
        "routines": [["FUNCTION", "f"], ["PROCEDURE", "p"]],
        "events": ["nightly"],
    }


EMPTY: Database = {"tables": {}, "views": [], "triggers": {}, "routines": [], "events": []}


@dataclass
class World:
    """A MariaDB server of which as much is there as a restore sees. ``fails`` says which step does."""

    databases: dict[str, Database] = field(default_factory=dict)
    keys: dict[str, list[str]] = field(default_factory=dict)  # foreign keys of a table, as its definition has them
    refers: list[str] = field(default_factory=list)  # rows of tables with foreign keys to shop
    fails: Callable[[str], bool] = lambda step: False
    steps: list[str] = field(default_factory=list)
    seconds: float = 60.0

    def _step(self, what: str) -> None:
        self.steps.append(what)
        if self.fails(what):
            raise Failure(f"no {what}")

    def ask(self, sql: str, at: str = "") -> list[list[str]]:
        rows: list[list[str]] = []
        for statement in re.split(r";\s*", sql):
            self._step(statement)
            rows += self._do(statement, at)
        return rows

    def _do(self, statement: str, at: str) -> list[list[str]]:
        names = re.findall(NAME, statement)
        if found := re.search(r"information_schema\.(\w+).*= '(\w+)'", statement):
            if found[1] == "referential_constraints":
                return [one.split(".") for one in self.refers]
            return self._objects(found[1], self.databases.get(found[2], EMPTY))
        if found := re.match(r"CREATE DATABASE (IF NOT EXISTS )?`?(\w+)`?", statement):
            assert found[1] or found[2] not in self.databases, statement
            self.databases.setdefault(found[2], copy.deepcopy(EMPTY))
        elif found := re.match(r"DROP DATABASE IF EXISTS (\w+)", statement):
            self.databases.pop(found[1], None)
        elif found := re.match(r"DROP (TRIGGER|VIEW|EVENT) IF EXISTS", statement):
            kept = self.databases[names[0]][f"{found[1].lower()}s"]
            kept.remove(names[1]) if isinstance(kept, list) else kept.pop(names[1])
        elif found := re.match(r"DROP (FUNCTION|PROCEDURE) IF EXISTS", statement):
            self.databases[names[0]]["routines"].remove([found[1], names[1]])
        elif statement.startswith("DROP TABLE"):
            del self.databases[names[0]]["tables"][names[1]]
        elif statement.startswith("RENAME TABLE"):
            self._rename(names)
        elif statement.startswith("SHOW CREATE TABLE"):
            lines = [
                "CREATE TABLE `t` (",
                *self.keys.get(names[0], []),
                ") ENGINE=InnoDB AUTO_INCREMENT=7 CHARSET=utf8mb4",
            ]
            return [["t", lines[0]], *([line] for line in lines[1:])]
        else:
            assert statement.startswith(("SET SESSION", "ALTER TABLE")), statement
        return []

    def _rename(self, names: list[str]) -> None:
        moves = [names[at : at + 4] for at in range(0, len(names), 4)]
        for source, table, _target, _same in moves:
            assert table not in self.databases[source]["triggers"].values(), "a table with triggers cannot be moved"
        for source, table, target, _same in moves:
            assert table not in self.databases[target]["tables"]
            self.databases[target]["tables"][table] = self.databases[source]["tables"].pop(table)

    def _objects(self, kind: str, one: Database) -> list[list[str]]:
        if kind == "tables":
            return [["table", name] for name in one["tables"]] + [["view", name] for name in one["views"]]
        if kind == "triggers":
            return [["trigger", name, table] for name, table in one["triggers"].items()]
        if kind == "routines":
            return [["routine", name, kind] for kind, name in one["routines"]]
        return [["event", name] for name in one["events"]]

    def dump(self, arguments: Sequence[str], into: Path) -> None:
        self._step(f"dump {' '.join(arguments)}")
        name, *tables = arguments[arguments.index("--") + 1 :]
        one = self.databases[name]
        said: Database = {}
        if "--triggers" in arguments:
            said["triggers"] = {key: table for key, table in one["triggers"].items() if not tables or table in tables}
        if "--routines" in arguments:
            said |= {"routines": one["routines"], "events": one["events"]}
        if "--no-data" not in arguments:
            said["tables"] = {table: one["tables"][table] for table in tables}
        elif tables and "--skip-triggers" in arguments:
            said["views"] = tables
        with into.open("a") as file:
            file.write(json.dumps(said) + "\n")

    def load(self, name: str, file: Path) -> None:
        self._step(f"load {file.name}")
        for line in file.read_text().splitlines():
            for kind, found in json.loads(line).items():
                there = self.databases[name][kind]
                assert not [one for one in found if one in there], f"{kind} {found} are there already"
                there.update(found) if isinstance(there, dict) else there.extend(found)


def tables_of(name: str, server: World, folder: Path) -> dict[str, Any]:
    tables = server.databases[name]["tables"]
    return {one: {"rows": len(rows), "sha256": str(rows)} for one, rows in tables.items()}


@dataclass
class Stage:
    """A live server with a database, and a snapshot of it."""

    live: World
    private: World
    folder: Path
    snapshot: Database

    def work(self, table: str = "") -> MariadbWork:
        entry = {"character_set": "utf8mb4", "collation": "utf8mb4_bin"}
        tables = {one: {"rows": len(rows), "sha256": str(rows)} for one, rows in self.snapshot["tables"].items()}
        server: Any = self.live
        return MariadbWork("shop", table, {**entry, "tables": tables}, Path("/shop.sql"), self.folder, server)

    def done(self, work: MariadbWork) -> None:
        try:
            work.prepare()
            work.bring()
        finally:
            work.discard()


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    live = World({"shop": {**database(items=[1, 2, 3], orders=[9], fresh=[]), "views": ["totals", "mine"]}})
    found = Stage(live, World(), tmp_path, database(items=[1, 2], orders=[7, 8]))

    @contextlib.contextmanager
    def private(folder: Path, seconds: float) -> Iterator[World]:
        found.private.databases.clear()
        yield found.private

    def load(name: str, entry: Any, file: Path, server: World) -> None:
        server.databases[name] = copy.deepcopy(found.snapshot)

    monkeypatch.setattr(servers, "private_mariadb", private)
    monkeypatch.setattr(loading, "load_mariadb", load)
    monkeypatch.setattr(loading, "tables_of", tables_of)
    return found


def test_a_database_becomes_that_of_the_snapshot(stage: Stage) -> None:
    work = stage.work()
    work.prepare()
    assert stage.live.databases["shop"]["tables"]["items"] == [1, 2, 3], "nothing was touched"
    work.bring()
    assert stage.live.databases["shop"] == stage.snapshot
    assert stage.live.databases[BEFORE]["tables"]["orders"] == [9]
    work.discard()
    assert list(stage.live.databases) == ["shop"]
    renames = [one for one in stage.live.steps if one.startswith("RENAME")]
    assert len(renames) == 1, "it happens as a whole"


def test_a_database_that_is_not_there_or_empty(stage: Stage) -> None:
    stage.live.databases.clear()
    stage.done(stage.work())
    assert stage.live.databases == {"shop": stage.snapshot}
    stage.snapshot = copy.deepcopy(EMPTY)
    stage.done(stage.work())
    assert stage.live.databases == {"shop": EMPTY}
    assert not [one for one in stage.live.steps[-20:] if one.startswith("RENAME") and "TO `shop`" in one]


def test_what_a_killed_restore_left_goes(stage: Stage) -> None:
    stage.live.databases |= {BESIDE: database(items=[5]), BEFORE: database(old=[1])}
    stage.done(stage.work())
    assert stage.live.databases == {"shop": stage.snapshot}


@pytest.mark.parametrize("server", ["private", "live"])
def test_a_dump_that_is_not_what_was_backed_up(stage: Stage, monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    before = copy.deepcopy(stage.live.databases)
    monkeypatch.setattr(
        loading,
        "tables_of",
        lambda name, asked, folder: {} if asked is getattr(stage, server) else tables_of(name, asked, folder),
    )
    with pytest.raises(Failure, match="The dump of shop is not what was backed up: shop lacks the table items"):
        stage.done(stage.work())
    assert stage.live.databases == before


@pytest.mark.parametrize("table", ["", "items", "orders"])
def test_whatever_fails_it_is_as_it_was(stage: Stage, table: str) -> None:
    """Each step of the change fails once, and so does each of the preparation."""
    before = copy.deepcopy(stage.live.databases)
    stage.done(stage.work(table))
    number, again = len(stage.live.steps), 0
    assert number > 15
    for last in range(number):
        stage.live.databases, stage.live.steps = copy.deepcopy(before), []
        stage.live.fails = lambda step, last=last: len(stage.live.steps) == last + 1  # type: ignore[misc]
        try:
            stage.done(stage.work(table))
        except Failure as error:
            said = str(error)
        else:
            said = ""
        if said:
            again += "shop is as it was: " in said
            assert stage.live.databases["shop"] == before["shop"], (last, stage.live.steps[last], said)
        else:
            assert stage.live.steps[last].startswith(("DROP DATABASE", "SET SESSION")), "what is left over may stay"
    assert again > 5


def test_what_cannot_be_taken_back_is_said(stage: Stage) -> None:
    stage.live.fails = lambda step: step.startswith("load") and "tables" not in step
    with pytest.raises(
        Failure, match=r"shop is neither as it was nor restored \(no load shop.former.sql\): run it again"
    ):
        stage.done(stage.work())
    stage.live.fails = lambda step: False
    stage.done(stage.work())
    assert stage.live.databases == {"shop": stage.snapshot}


def test_what_stops_the_program_is_taken_back_too(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    before = copy.deepcopy(stage.live.databases)
    work = stage.work()
    work.prepare()
    load = stage.live.load

    def stopped(name: str, file: Path) -> None:
        if file.name == "shop.code.sql":
            raise SystemExit(143)
        load(name, file)

    monkeypatch.setattr(stage.live, "load", stopped)
    with pytest.raises(SystemExit):
        work.bring()
    work.discard()
    assert stage.live.databases == before


def test_code_that_is_not_the_snapshots(stage: Stage) -> None:
    before = copy.deepcopy(stage.live.databases)
    work = stage.work()
    work.prepare()
    work._code.write_text("")
    with pytest.raises(Failure, match="shop is as it was: the database has other tables, views"):
        work.bring()
    work.discard()
    assert stage.live.databases == before


def test_one_table(stage: Stage) -> None:
    stage.private.keys["items"] = [
        "  CONSTRAINT `of_``order` FOREIGN KEY (`o`) REFERENCES `orders` (`id`) ON DELETE CASCADE,",
        "  CONSTRAINT `positive` CHECK (`id` > 0)",
    ]
    stage.done(stage.work("items"))
    shop = stage.live.databases["shop"]
    assert shop["tables"] == {"orders": [9], "fresh": [], "items": [1, 2]}
    assert shop["views"] == ["totals", "mine"]
    alters = [one for one in stage.live.steps if one.startswith("ALTER")]
    assert alters == [
        "ALTER TABLE `items` DROP FOREIGN KEY `of_``order`",
        "ALTER TABLE `items` ADD CONSTRAINT `of_``order` FOREIGN KEY (`o`) REFERENCES `orders` (`id`) "
        "ON DELETE CASCADE",
    ]


def test_a_table_that_others_refer_to(stage: Stage) -> None:
    stage.live.refers = ["shop.orders", "shop.items"]
    stage.done(stage.work("items"))
    assert stage.live.databases["shop"]["tables"]["items"] == [1, 2]
    assert "DROP TABLE `shop`.`items`" in stage.live.steps
    stage.private.keys["items"] = ["  `more` int(11),"]
    before = copy.deepcopy(stage.live.databases)
    with pytest.raises(Failure, match=r"Foreign keys refer to shop.items, and its definition is another one"):
        stage.done(stage.work("items"))
    assert stage.live.databases == before
    del stage.live.databases["shop"]["tables"]["items"], stage.live.databases["shop"]["triggers"]["counts"]
    stage.done(stage.work("items"))
    assert stage.live.databases["shop"]["tables"]["items"] == [1, 2]


def test_a_database_that_others_refer_to(stage: Stage) -> None:
    stage.live.refers = ["other.bills", "shop.items"]
    with pytest.raises(Failure, match=r"Foreign keys of other.bills refer to shop: restore it with --to"):
        stage.done(stage.work())
    assert list(stage.live.databases) == ["shop"]


def test_the_statements_of_a_change() -> None:
    there = Objects(("a",), ("v",), ("t",), (("PROCEDURE", "p"),), ("e",))
    assert swap("s`x", there, "away", "beside", ["a", "b"]).split(";\n") == [
        "SET SESSION lock_wait_timeout = 30",
        "SET SESSION foreign_key_checks = 0",
        "DROP TRIGGER IF EXISTS `s``x`.`t`",
        "DROP VIEW IF EXISTS `s``x`.`v`",
        "DROP PROCEDURE IF EXISTS `s``x`.`p`",
        "DROP EVENT IF EXISTS `s``x`.`e`",
        "RENAME TABLE `s``x`.`a` TO `away`.`a`, `beside`.`a` TO `s``x`.`a`, `beside`.`b` TO `s``x`.`b`",
    ]
    assert "RENAME" not in swap("s", Objects(), "away", "beside", [])


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


@dataclass
class Cluster:
    """A PostgreSQL cluster: databases with their owners."""

    databases: dict[str, str]
    asked: list[str] = field(default_factory=list)
    roles: list[Path] = field(default_factory=list)
    fails: str = "nothing"

    def ask(self, sql: str, at: str = "postgres") -> list[list[str]]:
        self.asked.append(sql)
        if self.fails in sql:
            raise Failure(f"no {self.fails}")
        if found := re.match(r"DROP DATABASE IF EXISTS (\w+)", sql):
            self.databases.pop(found[1], None)
        if found := re.match(r"SELECT (1|pg_get_userbyid).* datname = '(.*)'$", sql):
            name = found[2].replace("''", "'")
            return [[self.databases[name]]] if name in self.databases else []
        for old, new in re.findall(r'ALTER DATABASE "?([^";]+)"? RENAME TO "?([^";]+)"?', sql):
            self.databases[new] = self.databases.pop(old)
        for name, owner in re.findall(r'ALTER DATABASE "([^";]+)" OWNER TO "([^";]+)"', sql):
            self.databases[name] = owner
        return []

    def have_roles(self, file: Path) -> None:
        self.roles.append(file)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    def load(name: str, entry: Any, file: Path, server: Cluster) -> None:
        server.databases[name] = "postgres"

    monkeypatch.setattr(loading, "load_postgresql", load)
    monkeypatch.setattr(loading, "tables_of", lambda name, server, folder: {"public.t": {"rows": 1, "sha256": ""}})
    return Cluster({"st'ats": "app"})


def postgresql(cluster: Any, tmp_path: Path, rows: int = 1) -> PostgresqlWork:
    roles = tmp_path / "globals.sql"
    return PostgresqlWork(
        "st'ats", {"tables": {"public.t": {"rows": rows, "sha256": ""}}}, Path("/f"), roles, tmp_path, cluster
    )


def test_postgresql(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "globals.sql").touch()
    work = postgresql(cluster, tmp_path)
    work.prepare()
    assert cluster.databases == {"st'ats": "app", BESIDE: "postgres"}
    assert cluster.roles == [tmp_path / "globals.sql"]
    work.bring()
    work.discard()
    assert cluster.databases == {"st'ats": "app"}
    change = next(one for one in cluster.asked if "BEGIN" in one)
    assert (
        change.index("pg_terminate_backend") < change.index("BEGIN") < change.index("RENAME") < change.index("COMMIT")
    )


def test_postgresql_on_a_fresh_host(cluster: Cluster, tmp_path: Path) -> None:
    cluster.databases.clear()
    work = postgresql(cluster, tmp_path)
    work.prepare()
    work.bring()
    assert cluster.databases == {"st'ats": "postgres"}
    assert cluster.roles == []


def test_postgresql_that_is_not_what_was_backed_up(cluster: Cluster, tmp_path: Path) -> None:
    work = postgresql(cluster, tmp_path, rows=2)
    with pytest.raises(Failure, match=r"public.t has 1 rows instead of 2"):
        work.prepare()
    cluster.fails = "DROP"
    work.discard()
    cluster.fails = "nothing"
    work.discard()
    assert cluster.databases == {"st'ats": "app"}


def test_postgresql_after_a_killed_restore(cluster: Cluster, tmp_path: Path) -> None:
    cluster.databases[BEFORE] = "app"
    with pytest.raises(Failure, match=f"PostgreSQL has a database {BEFORE}, left by a restore that was killed"):
        postgresql(cluster, tmp_path).prepare()


# --- Redis ------------------------------------------------------------------------------------------------------------


@dataclass
class Instance:
    """A Redis instance: its folder, and whether it starts with what lies there."""

    folder: Path
    units: list[str] = field(default_factory=list)
    starts: Callable[[str], bool] = lambda content: True
    runs: bool = True

    def unit(self, verb: str, name: str) -> None:
        self.units.append(verb)
        self.runs = verb == "start"
        if verb == "start" and not self.starts((self.folder / "dump.rdb").read_text()):
            raise Failure("it does not start")

    def keys(self) -> int:
        return int((self.folder / "dump.rdb").read_text())


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Instance:
    found = Instance(tmp_path / "cache")
    found.folder.mkdir()
    (found.folder / "dump.rdb").write_text("3")
    (tmp_path / "file.rdb").write_text("5")

    class Client:
        def __init__(self, cli: Sequence[str]) -> None:
            assert cli == ("redis-admin", "cache")

        def ask(self, *command: str) -> str:
            return "PONG" if found.runs else ""

        def keys(self) -> int:
            return found.keys()

    monkeypatch.setattr(servers, "unit", found.unit)
    monkeypatch.setattr(inplace, "Redis", Client)
    monkeypatch.setattr(servers, "keys_in", lambda rdb, name: (5, 1))
    monkeypatch.setattr(loading, "redis_problems", lambda *told: [])
    return found


def redis(instance: Instance, keys: int = 5) -> RedisWork:
    folder = instance.folder
    source = Source(
        "redis",
        instance="cache",
        rdb=str(folder / "dump.rdb"),
        folder=str(folder),
        unit="redis-server@cache.service",
        cli=("redis-admin", "cache"),
    )
    return RedisWork(source, keys, folder.with_name("file.rdb"), folder.parent)


def test_redis(instance: Instance) -> None:
    work = redis(instance)
    work.prepare()
    assert instance.units == []
    work.bring()
    work.discard()
    assert instance.units == ["stop", "start"]
    assert {one.name: one.read_text() for one in instance.folder.iterdir()} == {"dump.rdb": "5"}


def test_redis_with_a_log(instance: Instance) -> None:
    log = instance.folder / "appendonlydir"
    log.mkdir()
    (log / "appendonly.aof.7.incr.aof").touch()
    (instance.folder / "dump.rdb").unlink()
    (instance.folder / BEFORE).mkdir()  # a restore that was killed
    work = redis(instance)
    work.prepare()
    work.bring()
    assert sorted(one.name for one in instance.folder.iterdir()) == ["appendonlydir", "dump.rdb", BEFORE]
    work.discard()
    assert {one.name: one.read_text() for one in log.iterdir()} == {
        "appendonly.aof.1.base.rdb": "5",
        "appendonly.aof.manifest": "file appendonly.aof.1.base.rdb seq 1 type b\n",
    }


def test_redis_whose_file_is_broken(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "redis_problems", lambda *told: ["Redis cache has 4 keys in its file instead of 5"])
    with pytest.raises(Failure, match="4 keys in its file"):
        redis(instance).prepare()
    assert instance.units == []


@pytest.mark.parametrize("said", ["it does not start", "it has 5 keys instead of 9"])
def test_redis_is_as_it_was(instance: Instance, said: str) -> None:
    log = instance.folder / "appendonlydir"
    log.mkdir()
    (log / "mine").touch()
    if "start" in said:
        instance.starts = lambda content: content == "3"
    work = redis(instance, 9 if "keys" in said else 5)
    work.prepare()
    with pytest.raises(Failure, match=f"Redis cache is as it was: {said}"):
        work.bring()
    work.discard()
    assert instance.runs
    assert [one.name for one in log.iterdir()] == ["mine"]
    assert (instance.folder / "dump.rdb").read_text() == "3"


def test_redis_when_the_program_is_stopped(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    work = redis(instance)
    work.prepare()
    monkeypatch.setattr(inplace, "give", lambda *told: (_ for _ in ()).throw(SystemExit(143)))
    with pytest.raises(SystemExit):
        work.bring()
    work.discard()
    assert instance.runs
    assert {one.name: one.read_text() for one in instance.folder.iterdir()} == {"dump.rdb": "3"}
