# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Databases and instances of a snapshot in the place of those that are there.

All that takes long or may fail comes before: a dump is loaded into a private server, compared with the manifest, loaded
into a database beside the live one, and compared again. Then tables change places by one statement. What fails after
that is taken back.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from . import loading, servers
from .loading import differences, listed
from .programs import Failure
from .servers import Mariadb, Postgresql, Redis, identifier, quoted, text
from .settings import Source

# Databases beside the live one: where a snapshot is loaded, and where goes what was there.
BESIDE, BEFORE = "production_restore", "production_restore_before"
# Seconds that a change of tables waits for transactions of others, which wait for it meanwhile.
LOCK_WAIT = 30


class Work(Protocol):
    """One part of a snapshot on its way to its place."""

    def prepare(self) -> None:
        """All that takes long or may fail; touches nothing that is in use. Raises Failure."""

    def bring(self) -> None:
        """Put it in its place; where that fails, what was there stays. Raises Failure."""

    def discard(self) -> None:
        """Take away what was prepared."""


# --- MariaDB ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Objects:
    """What a database has, by name."""

    tables: tuple[str, ...] = ()  # and sequences
    views: tuple[str, ...] = ()
    triggers: tuple[str, ...] = ()
    routines: tuple[tuple[str, str], ...] = ()  # PROCEDURE, FUNCTION or PACKAGE, and the name
    events: tuple[str, ...] = ()


def objects(database: str, server: Mariadb, table: str = "") -> Objects:
    """What a database has; with ``table`` only that one and its triggers."""
    where = text(database)
    rows = server.ask(
        f"SELECT IF(table_type = 'VIEW', 'view', 'table'), table_name FROM information_schema.tables"
        f" WHERE table_schema = {where};"
        f"SELECT 'trigger', trigger_name, event_object_table FROM information_schema.triggers"
        f" WHERE trigger_schema = {where};"
        f"SELECT 'routine', routine_name, routine_type FROM information_schema.routines"
        f" WHERE routine_schema = {where} ORDER BY routine_type;"
        f"SELECT 'event', event_name FROM information_schema.events WHERE event_schema = {where}"
    )
    if table:
        return Objects(
            tables=tuple(row[1] for row in rows if row[:2] == ["table", table]),
            triggers=tuple(row[1] for row in rows if row[0] == "trigger" and row[2] == table),
        )
    return Objects(
        tables=tuple(row[1] for row in rows if row[0] == "table"),
        views=tuple(row[1] for row in rows if row[0] == "view"),
        triggers=tuple(row[1] for row in rows if row[0] == "trigger"),
        routines=tuple((row[2], row[1]) for row in rows if row[0] == "routine"),
        events=tuple(row[1] for row in rows if row[0] == "event"),
    )


def swap(database: str, there: Objects, away: str, source: str, tables: Iterable[str], *, drop: bool = False) -> str:
    """SQL by which a database loses all it has to ``away``, and gets the tables of ``source``.

    Triggers keep a table from being moved, so they go first. One statement moves all tables: it happens as a whole or
    not at all. With ``drop`` the table that is there is dropped instead, for foreign keys of others would follow it.
    """
    at = quoted(database)
    lines = [f"SET SESSION lock_wait_timeout = {LOCK_WAIT}", "SET SESSION foreign_key_checks = 0"]
    lines += [f"DROP TRIGGER IF EXISTS {at}.{quoted(one)}" for one in there.triggers]
    lines += [f"DROP VIEW IF EXISTS {at}.{quoted(one)}" for one in there.views]
    lines += [f"DROP {kind} IF EXISTS {at}.{quoted(one)}" for kind, one in there.routines]
    lines += [f"DROP EVENT IF EXISTS {at}.{quoted(one)}" for one in there.events]
    moves = [] if drop else [f"{at}.{quoted(one)} TO {quoted(away)}.{quoted(one)}" for one in there.tables]
    moves += [f"{quoted(source)}.{quoted(one)} TO {at}.{quoted(one)}" for one in tables]
    lines += [f"DROP TABLE {at}.{quoted(one)}" for one in there.tables if drop]
    lines += [f"RENAME TABLE {', '.join(moves)}"] if moves else []
    return ";\n".join(lines)


@dataclass
class MariadbWork:
    """A database, or one table of it. ``entry`` is what the manifest says, ``file`` the dump of the database."""

    database: str
    table: str
    entry: Mapping[str, Any]
    file: Path
    folder: Path
    live: Mariadb = field(default_factory=Mariadb)
    _wanted: Objects = field(default_factory=Objects)
    _refers: bool = False
    _definition: list[str] = field(default_factory=list)
    _keys: dict[str, str] = field(default_factory=dict)

    @property
    def _data(self) -> Path:
        return self.folder / f"{self.database}.tables.sql"

    @property
    def _code(self) -> Path:
        return self.folder / f"{self.database}.code.sql"

    @property
    def _former_code(self) -> Path:
        return self.folder / f"{self.database}.former.sql"

    def prepare(self) -> None:
        """The snapshot's tables beside the live ones, and the same."""
        tables = self.entry["tables"]
        expected = {self.table: tables[self.table]} if self.table else tables
        private = self.folder / "mariadb"
        try:
            with servers.private_mariadb(private, self.live.seconds) as own:
                loading.load_mariadb(self.database, self.entry, self.file, own)
                same(self.entry["tables"], loading.tables_of(self.database, own, self.folder), self.database)
                self._wanted = objects(self.database, own, self.table)
                if self.table:
                    self._definition = definition(self.database, self.table, own)
                    self._keys = foreign_keys(self._definition)
                dump_data(self.database, self._wanted, own, self._data)
                dump_code(self.database, self._wanted, own, self._code, self.table)
        finally:
            shutil.rmtree(private, ignore_errors=True)
        self.discard()
        kind = loading.character_set(self.entry)
        self.live.ask(f"CREATE DATABASE IF NOT EXISTS {quoted(self.database)}{kind}")
        self._fits()
        self.live.ask(f"CREATE DATABASE {BESIDE}{kind}; CREATE DATABASE {BEFORE}{kind}")
        self.live.load(BESIDE, self._data)
        if self._keys:
            # They would go on referring to tables beside the live ones.
            self._alter(BESIDE, [f"DROP FOREIGN KEY {quoted(name)}" for name in self._keys])
        same(expected, loading.tables_of(BESIDE, self.live, self.folder), self.database)

    def _fits(self) -> None:
        """Raises Failure where foreign keys of others would be left behind."""
        rows = self.live.ask(
            "SELECT DISTINCT constraint_schema, table_name FROM information_schema.referential_constraints"
            f" WHERE unique_constraint_schema = {text(self.database)}"
            + (f" AND referenced_table_name = {text(self.table)}" if self.table else "")
        )
        others = [
            f"{schema}.{name}"
            for schema, name in rows
            if schema != self.database or (self.table and name != self.table)
        ]
        if others and not self.table:
            raise Failure(f"Foreign keys of {', '.join(others)} refer to {self.database}: restore it with --to")
        self._refers = bool(others)

    def bring(self) -> None:
        """Change the tables, then bring views, triggers, routines and events. Takes it back where that fails."""
        there = objects(self.database, self.live, self.table)
        if self._refers and there.tables:
            self._same_definition()
        dump_code(self.database, there, self.live, self._former_code, self.table)
        try:
            self.live.ask(swap(self.database, there, BEFORE, BESIDE, self._wanted.tables, drop=self._refers))
            if self._keys:
                self._alter(self.database, [f"ADD {line}" for line in self._keys.values()])
            self.live.load(self.database, self._code)
            if objects(self.database, self.live, self.table) != self._wanted:
                raise Failure("the database has other tables, views, triggers, routines or events than the snapshot")
        except BaseException as error:
            self._take_back(there)
            if isinstance(error, Failure):
                raise Failure(f"{self.database} is as it was: {error}") from None
            raise

    def _alter(self, database: str, changes: Iterable[str]) -> None:
        self.live.ask(
            f"SET SESSION foreign_key_checks = 0; ALTER TABLE {quoted(self.table)} {', '.join(changes)}", database
        )

    def _same_definition(self) -> None:
        """A table that others refer to is dropped before the other takes its name; nothing may keep that one out."""
        if definition(self.database, self.table, self.live) != self._definition:
            raise Failure(
                f"Foreign keys refer to {self.database}.{self.table}, and its definition is another one than in the "
                f"snapshot: restore the database {self.database} as a whole"
            )

    def _take_back(self, there: Objects) -> None:
        """As it was: tables, where they were moved, and then what was dropped before. Raises Failure."""
        now = objects(self.database, self.live, self.table)
        moved = objects(BEFORE, self.live).tables or (self._wanted.tables and not objects(BESIDE, self.live).tables)
        try:
            if moved:
                self.live.ask(swap(self.database, now, BESIDE, BEFORE, there.tables))
            else:
                self.live.ask(swap(self.database, replace(now, tables=()), BESIDE, BEFORE, ()))
            self.live.load(self.database, self._former_code)
        except Failure as error:
            raise Failure(f"{self.database} is neither as it was nor restored ({error}): run it again") from None

    def discard(self) -> None:
        """Both databases beside the live one go, with what was there before."""
        with contextlib.suppress(Failure):
            drops = [f"DROP DATABASE IF EXISTS {one}" for one in (BESIDE, BEFORE)]
            self.live.ask("; ".join(["SET SESSION foreign_key_checks = 0", *drops]))


def definition(database: str, table: str, server: Mariadb) -> list[str]:
    """The lines that make a table, without how far it has counted."""
    lines = server.ask(f"SHOW CREATE TABLE {quoted(table)}", database)
    return [re.sub(r" AUTO_INCREMENT=\d+", "", line[-1]) for line in lines]


def foreign_keys(lines: Iterable[str]) -> dict[str, str]:
    """The foreign keys in a table's definition: name to what makes it."""
    found = [re.match(r"  (CONSTRAINT (`(?:[^`]|``)+`) FOREIGN KEY \(.*?),?$", line) for line in lines]
    return {one[2][1:-1].replace("``", "`"): one[1] for one in found if one}


def dump_data(database: str, wanted: Objects, server: Mariadb, into: Path) -> None:
    """The tables of a database that are wanted, without triggers."""
    into.unlink(missing_ok=True)
    into.touch(mode=0o600)
    if wanted.tables:
        server.dump(["--skip-triggers", "--", database, *wanted.tables], into)


def dump_code(database: str, wanted: Objects, server: Mariadb, into: Path, table: str = "") -> None:
    """What makes triggers, routines, events and views of a database; of one table its triggers."""
    into.unlink(missing_ok=True)
    into.touch(mode=0o600)
    only = ["--", database, table] if table else ["--routines", "--events", "--", database]
    server.dump(["--no-data", "--no-create-info", "--triggers", *only], into)
    if wanted.views:
        server.dump(["--no-data", "--skip-triggers", "--", database, *wanted.views], into)


def same(expected: Mapping[str, Any], found: Mapping[str, Any], name: str) -> None:
    """Raises Failure where tables that were loaded are not those of the manifest."""
    if problems := differences(expected, found, name):
        raise Failure(f"The dump of {name} is not what was backed up: {listed(problems)}")


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


@dataclass
class PostgresqlWork:
    """A database. ``entry`` is what the manifest says, ``file`` its dump, ``roles`` that of the cluster's roles."""

    database: str
    entry: Mapping[str, Any]
    file: Path
    roles: Path
    folder: Path
    live: Postgresql = field(default_factory=Postgresql)

    def prepare(self) -> None:
        """The snapshot's database beside the live one, and the same."""
        self.discard()
        if self.live.ask(_there(BEFORE)):
            raise Failure(f"PostgreSQL has a database {BEFORE}, left by a restore that was killed: rename or drop it")
        if self.roles.exists():
            self.live.have_roles(self.roles)
        loading.load_postgresql(BESIDE, self.entry, self.file, self.live)
        same(self.entry["tables"], loading.tables_of(BESIDE, self.live, self.folder), self.database)

    def bring(self) -> None:
        """Rename both; those who are connected to the live one lose their connection."""
        moves = [f"ALTER DATABASE {BESIDE} RENAME TO {identifier(self.database)}"]
        name = "'" + self.database.replace("'", "''") + "'"
        if owner := self.live.ask(f"SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = {name}"):
            moves.insert(0, f"ALTER DATABASE {identifier(self.database)} RENAME TO {BEFORE}")
            moves.append(f"ALTER DATABASE {identifier(self.database)} OWNER TO {identifier(owner[0][0])}")
        ends = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {name}"
        self.live.ask(f"{ends};\nBEGIN;\n" + ";\n".join(moves) + ";\nCOMMIT")
        self.live.ask(f"DROP DATABASE IF EXISTS {BEFORE}")

    def discard(self) -> None:
        """The database beside the live one goes."""
        with contextlib.suppress(Failure):
            self.live.ask(f"DROP DATABASE IF EXISTS {BESIDE}")


def _there(database: str) -> str:
    return f"SELECT 1 FROM pg_database WHERE datname = '{database}'"


# --- Redis ------------------------------------------------------------------------------------------------------------


@dataclass
class RedisWork:
    """An instance. ``keys`` is what the manifest says, ``file`` its RDB."""

    source: Source
    keys: int
    file: Path
    folder: Path
    _ending: int = 0
    _moved: list[tuple[Path, Path]] = field(default_factory=list)  # (its place, where it is meanwhile)

    @property
    def _aside(self) -> Path:
        return Path(self.source.folder) / BEFORE

    def prepare(self) -> None:
        """The RDB file is whole, and a server takes it."""
        own = self.folder / f"redis-{self.source.instance}"
        try:
            problems = loading.redis_problems(self.source.instance, self.keys, self.file, own, self.source.server)
        finally:
            shutil.rmtree(own, ignore_errors=True)
        if problems:
            raise Failure(listed(problems))
        self._ending = servers.keys_in(self.file, self.source.server)[1]

    def bring(self) -> None:
        """Stop the instance, change its files, start it; with the former ones again where it has not these keys."""
        folder, rdb = Path(self.source.folder), Path(self.source.rdb)
        servers.unit("stop", self.source.unit)
        try:
            remove(self._aside)
            self._aside.mkdir(mode=0o700)
            log = folder / "appendonlydir"
            keeps_log = log.exists()
            for place in (rdb, log):
                if place.exists():
                    place.rename(self._aside / place.name)
                    self._moved.append((place, self._aside / place.name))
            give(self.file, rdb, folder)
            if keeps_log:
                begin_log(self.file, log, folder)
            servers.unit("start", self.source.unit)
            self._has_the_keys()
        except BaseException as error:
            self._take_back()
            if isinstance(error, (Failure, OSError)):
                raise Failure(f"Redis {self.source.instance} is as it was: {error}") from None
            raise

    def _has_the_keys(self) -> None:
        server = Redis(self.source.cli)
        servers.wait_until(
            lambda: server.ask("ping") == "PONG", servers.LOADING_PATIENCE, f"an answer of {self.source.instance}"
        )
        found = server.keys()
        # Those whose time is over go, and an application that is there brings new ones.
        if found < self.keys - self._ending:
            raise Failure(f"it has {found} keys instead of {self.keys}")

    def _take_back(self) -> None:
        with contextlib.suppress(Failure):
            servers.unit("stop", self.source.unit)
        for place, aside in self._moved:
            remove(place)
            aside.rename(place)
        self._moved.clear()
        servers.unit("start", self.source.unit)

    def discard(self) -> None:
        """What was there before goes."""
        remove(self._aside)


def give(file: Path, to: Path, like: Path) -> None:
    """Copy a file for the owner of a folder, whole or not at all."""
    about, beside = like.stat(), to.with_name(f".{to.name}.restored")
    shutil.copyfile(file, beside)
    os.chown(beside, about.st_uid, about.st_gid)
    beside.chmod(0o640)
    beside.replace(to)


def begin_log(rdb: Path, folder: Path, like: Path) -> None:
    """An append-only log in the form of Redis 7 that begins with an RDB file."""
    about, base = like.stat(), "appendonly.aof.1.base.rdb"
    folder.mkdir(mode=0o750)
    give(rdb, folder / base, like)
    (folder / "appendonly.aof.manifest").write_text(f"file {base} seq 1 type b\n", "utf-8")
    for path in (folder, folder / "appendonly.aof.manifest"):
        os.chown(path, about.st_uid, about.st_gid)


def remove(path: Path) -> None:
    """A file or a folder goes, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
