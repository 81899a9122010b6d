# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Databases as files that restic takes, and what is in such a file.

Rows and checksums of a table are read out of the dump while it is written, so they are those of the snapshot itself. A
drill loads the dump into another server, dumps that with the same options and compares.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, TypedDict
from urllib.parse import quote

from . import programs
from .programs import BLOCK, Failure
from .settings import Source

# root is let in by who it is: no password is in any of this.
MARIADB_CLIENT = ("--socket=/run/mysqld/mysqld.sock", "--user=root")
MARIADB = ("/usr/bin/mariadb", "--no-defaults")
# Rows in the order of the primary key: without it an index that covers all columns decides, and that is another one
# after a restore. A row may be as large as the protocol allows.
MARIADB_DUMP = (
    "/usr/bin/mariadb-dump",
    "--no-defaults",
    "--default-character-set=utf8mb4",
    "--single-transaction",
    "--quick",
    "--routines",
    "--triggers",
    "--events",
    "--hex-blob",
    "--skip-dump-date",
    "--order-by-primary",
    "--max-allowed-packet=1G",
)
MARIADB_END = b"-- Dump completed"
SYSTEM_DATABASES = ("information_schema", "mysql", "performance_schema", "sys")
# Where a run writes when it was, for a drill to say how old what it restored is.
MARKER_DATABASE = "production_backup"
PSQL, PG_DUMP, PG_DUMPALL = "/usr/bin/psql", "/usr/bin/pg_dump", "/usr/bin/pg_dumpall"
POSTGRESQL_END = b"-- PostgreSQL database dump complete"
SHORT = 60.0
# redis or valkey.
REDIS_CHECK = "/usr/bin/{server}-check-rdb"
# How often a file that grows is looked at.
FOLLOW_SECONDS = 0.05


class Table(TypedDict):
    """How many rows a table has in a dump, and the checksum of them in their order."""

    rows: int
    sha256: str


@dataclass(frozen=True)
class Dump:
    """A dump in the stage; ``file`` is its path below the stage, ``tables`` are by name (schema.name in PostgreSQL).

    The dump creates no database: ``character_set`` and ``collation`` are those it had.
    """

    kind: str  # mariadb or postgresql
    name: str
    file: str
    bytes: int
    sha256: str
    character_set: str = ""
    collation: str = ""
    tables: dict[str, Table] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """As the manifest has it."""
        return asdict(self)


# --- what is in a dump ------------------------------------------------------------------------------------------------


class Reader:
    """Reads the tables out of a dump that comes in blocks; ``feed`` each of them, then ask ``tables``."""

    # What may stand between two blocks: a name has 64 characters, of up to 4 bytes, and each may be doubled.
    KEPT = 2048

    def __init__(self) -> None:
        self.tables: dict[str, Table] = {}
        self._rest = b""
        # A state looks at the data from a position on, and says where to go on and whether that can be done now.
        self._state: Callable[[bytes, int], tuple[int, bool]] = self._outside
        self._name = ""
        self._rows = 0
        self._sum = hashlib.sha256()

    def feed(self, block: bytes) -> None:
        data, position, goes_on = self._rest + block, 0, True
        while goes_on:
            position, goes_on = self._state(data, position)
        self._rest = data[position:]

    def _outside(self, data: bytes, position: int) -> tuple[int, bool]:
        raise NotImplementedError

    def _begin(self, name: bytes) -> None:
        self._name = name.decode("utf-8", "replace")
        self._rows, self._sum = 0, hashlib.sha256()

    def _take(self, data: bytes, start: int, end: int) -> None:
        self._rows += data.count(b"\n", start, end)
        self._sum.update(memoryview(data)[start:end])

    def _table(self) -> Table:
        return {"rows": self._rows, "sha256": self._sum.hexdigest()}


class MariadbReader(Reader):
    r"""Dumps of mariadb-dump: each row is a line, for a newline in a value is written as ``\n``.

    Rows are ``INSERT INTO `t` VALUES`` and a line for each. How many rows a statement has differs between dumps,
    so statements are joined to one before they are counted and summed.
    """

    _START = re.compile(
        rb"\nDELIMITER ;;\n"
        rb"|\nLOCK TABLES `((?:[^`]|``)++)` WRITE;\n/\*!40000 ALTER TABLE `(?:[^`]|``)++` DISABLE KEYS \*/;\n"
    )
    _INSERT = re.compile(rb"INSERT INTO `(?:[^`]|``)++` (?:VALUES\n|\((?:`(?:[^`]|``)++`(?:, )?)++\) VALUES )")
    _BODY_END = b"\nDELIMITER ;\n"

    def __init__(self) -> None:
        super().__init__()
        self._insert = b""

    def _outside(self, data: bytes, position: int) -> tuple[int, bool]:
        found = self._START.search(data, position)
        if found is None:
            return max(position, len(data) - self.KEPT), False
        if found[1] is None:
            # The body of a trigger, routine or event may hold anything, also what looks like data.
            self._state = self._body
            return found.end() - 1, True
        self._begin(found[1].replace(b"``", b"`"))
        self._state = self._first
        return found.end(), True

    def _body(self, data: bytes, position: int) -> tuple[int, bool]:
        found = data.find(self._BODY_END, position)
        if found < 0:
            return max(position, len(data) - len(self._BODY_END)), False
        self._state = self._outside
        return found + len(self._BODY_END) - 1, True

    def _first(self, data: bytes, position: int) -> tuple[int, bool]:
        """The beginning of the first statement, or none where the table is empty."""
        found = self._INSERT.match(data, position)
        if found:
            self._insert, self._state = found[0], self._row
            return found.end(), True
        if b"INSERT INTO `".startswith(data[position : position + 13]):
            return position, False
        return self._end(position)

    def _row(self, data: bytes, position: int) -> tuple[int, bool]:
        found = data.find(b";\n", position)
        if found < 0:
            last = max(position, len(data) - 1)
            self._take(data, position, last)
            return last, False
        self._take(data, position, found)
        follows = data[found + 2 : found + 2 + len(self._insert)]
        if follows != self._insert and self._insert.startswith(follows):
            return found, False
        self._take(b",\n", 0, 2)
        if follows == self._insert:
            return found + 2 + len(self._insert), True
        return self._end(found + 1)

    def _end(self, position: int) -> tuple[int, bool]:
        self.tables.setdefault(self._name, self._table())
        self._state = self._outside
        return position, True


class PostgresqlReader(Reader):
    r"""Dumps of pg_dump as plain SQL: ``COPY t (columns) FROM stdin;``, a line for each row, and ``\.``."""

    _NAME = rb'(?:"(?:[^"]|"")++"|[^".,() ]++)'
    _START = re.compile(
        rb"\n-- Data for Name: [^\n]*+\n--\n\nCOPY (" + _NAME + rb"\." + _NAME + rb") "
        rb"(?:\((?:" + _NAME + rb"(?:, )?)++\))? FROM stdin;(?=\n)"
    )
    _END = b"\n\\.\n"
    # A table has up to 1600 columns.
    KEPT = 1 << 18

    def _outside(self, data: bytes, position: int) -> tuple[int, bool]:
        found = self._START.search(data, position)
        if found is None:
            return max(position, len(data) - self.KEPT), False
        self._begin(found[1])
        self._state = self._row
        # The newline before the first row is taken with the rows, and that of the last one is not.
        return found.end(), True

    def _row(self, data: bytes, position: int) -> tuple[int, bool]:
        found = data.find(self._END, position)
        if found < 0:
            last = max(position, len(data) - len(self._END))
            self._take(data, position, last)
            return last, False
        self._take(data, position, found)
        # Functions come before the data, and the text of one may look like data: the last one counts.
        self.tables[self._name] = self._table()
        self._state = self._outside
        return found + 1, True


READERS: Mapping[str, type[Reader]] = {"mariadb": MariadbReader, "postgresql": PostgresqlReader}


def summary(dump: IO[bytes] | Path, kind: str = "mariadb") -> dict[str, Table]:
    """The tables of a dump by name: {"products": {"rows": 12, "sha256": "..."}}; empty tables have 0 rows."""
    reader = READERS[kind]()
    if isinstance(dump, Path):
        with dump.open("rb") as file:
            return summary(file, kind)
    while block := dump.read(BLOCK):
        reader.feed(block)
    return reader.tables


# --- MariaDB ----------------------------------------------------------------------------------------------------------


def mariadb_ask(sql: str, client: Sequence[str] = MARIADB_CLIENT, seconds: float = SHORT) -> list[list[str]]:
    """Rows of fields that a MariaDB server answers. Raises Failure where it does not."""
    argv = [*MARIADB, *client, "--batch", "--raw", "--skip-column-names"]
    done = programs.run(argv, seconds=seconds, text=sql)
    if done.code:
        raise Failure(f"MariaDB does not answer: {done.said}")
    return [line.split("\t") for line in done.out.splitlines()]


def databases_of(client: Sequence[str] = MARIADB_CLIENT) -> dict[str, tuple[str, str]]:
    """The databases with data of users: name to character set and collation. Raises Failure without an answer."""
    rows = mariadb_ask(
        "SELECT default_character_set_name, default_collation_name, schema_name FROM information_schema.schemata",
        client,
    )
    return {name: (charset, collation) for charset, collation, name in rows if name not in SYSTEM_DATABASES}


def mark(run: str, client: Sequence[str] = MARIADB_CLIENT) -> tuple[int | None, str]:
    """Write into the server when this run was; the seconds since the epoch (none where nothing may be written), and
    the server's version.

    Raises Failure where the server does not answer.
    """
    [[read_only, version]] = mariadb_ask("SELECT @@global.read_only, VERSION()", client)
    if read_only != "0":
        return None, version
    name = f"`{MARKER_DATABASE}`"
    rows = mariadb_ask(
        f"CREATE DATABASE IF NOT EXISTS {name}; "
        f"CREATE TABLE IF NOT EXISTS {name}.marker (id TINYINT PRIMARY KEY, run VARCHAR(64), written BIGINT); "
        f"REPLACE INTO {name}.marker VALUES (1, '{run}', UNIX_TIMESTAMP()); "
        f"SELECT written FROM {name}.marker",
        client,
    )
    return int(rows[-1][0]), version


def mariadb(
    databases: Sequence[str], stage: Path, seconds: float, client: Sequence[str] = MARIADB_CLIENT
) -> list[Dump]:
    """Dump databases (none named: all of users) to ``stage/mariadb/NAME.sql``. Raises Failure for a dump not whole.

    ``client`` are the options by which mariadb and mariadb-dump reach the server: a drill has its own. The database
    of the marker is always among them where it is there.
    """
    there = databases_of(client)
    if missing := [name for name in databases if name not in there]:
        raise Failure(f"MariaDB has no database {', '.join(missing)}")
    wanted = [name for name in there if not databases or name in databases or name == MARKER_DATABASE]
    return [
        _dump(
            Dump("mariadb", name, f"mariadb/{quote(name, safe='')}.sql", 0, "", *there[name]),
            stage,
            [*MARIADB_DUMP, *client, "--", name],
            MARIADB_END,
            seconds,
        )
        for name in wanted
    ]


def _dump(one: Dump, stage: Path, argv: Sequence[str], ending: bytes, seconds: float) -> Dump:
    """Have a program write a dump, and read it on its way. Raises Failure where it is not whole."""
    path, ended = stage / one.file, threading.Event()
    path.parent.mkdir(mode=0o700, exist_ok=True)
    try:
        with path.open("wb") as file, path.open("rb", buffering=0) as written, ThreadPoolExecutor(1) as aside:
            # Read while it grows, out of memory still: a pipe in between would hold up the program that writes.
            read = aside.submit(_follow, written, READERS[one.kind](), ended)
            try:
                done = programs.run(argv, seconds=seconds, stdout=file, folder=Path("/"))
            finally:
                ended.set()
            size, digest, tables, last = read.result()
    except OSError as error:
        raise Failure(f"The {one.kind} database {one.name} cannot be written to {path}: {error.strerror}") from None
    if done.code:
        said = in_words(done.said)
        raise Failure(f"The {one.kind} database {one.name} could not be dumped (exit code {done.code}): {said}")
    if ending not in last:
        raise Failure(f"The dump of the {one.kind} database {one.name} is not whole: it does not end as one")
    return Dump(one.kind, one.name, one.file, size, digest, one.character_set, one.collation, tables)


def in_words(said: str) -> str:
    """What a program says, with words beside an error of the system that it names by a number, as mariadb-dump does."""
    return re.sub(r"\b[Ee]rrno:? (\d{1,3})\b", lambda found: f"{found[0]} ({os.strerror(int(found[1]))})", said)


def _follow(written: IO[bytes], reader: Reader, ended: threading.Event) -> tuple[int, str, dict[str, Table], bytes]:
    """Read a file that a program writes until that has ended: bytes, SHA-256, tables, and its last bytes."""
    digest, size, last = hashlib.sha256(), 0, b""
    while True:
        over = ended.is_set()
        block = written.read(BLOCK)
        if block:
            digest.update(block)
            reader.feed(block)
            size, last = size + len(block), (last + block)[-512:]
        elif over:
            return size, digest.hexdigest(), reader.tables, last
        else:
            ended.wait(FOLLOW_SECONDS)


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


def postgresql_ask(sql: str, client: Sequence[str] = (), user: str = "postgres", database: str = "postgres") -> str:
    """What a PostgreSQL server answers, fields between tabs. Raises Failure where it does not."""
    argv = [*as_user(user), PSQL, "--no-psqlrc", "--no-password", "--tuples-only", "--no-align"]
    argv += ["--field-separator=\t", "--set=ON_ERROR_STOP=1", *client, f"--dbname={database}"]
    done = programs.run(argv, seconds=SHORT, text=sql, folder=Path("/"))
    if done.code:
        raise Failure(f"PostgreSQL does not answer: {done.said}")
    return done.out


def as_user(user: str) -> list[str]:
    """The beginning of a command line that runs as another user of the system."""
    return ["/usr/bin/setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--"]


def postgresql(
    databases: Sequence[str],
    stage: Path,
    seconds: float,
    client: Sequence[str] = (),
    user: str = "postgres",
) -> list[Dump]:
    """Dump databases (none named: all but templates) to ``stage/postgresql/NAME.sql``, as the system's user ``user``.

    ``stage/postgresql/globals.sql`` has roles and their rights, which dumps refer to. Raises Failure for a dump not
    whole.
    """
    answer = postgresql_ask(
        "SELECT pg_encoding_to_char(encoding), datcollate, datname FROM pg_database "
        "WHERE NOT datistemplate AND datallowconn",
        client,
        user,
    )
    rows = [line.split("\t", 2) for line in answer.splitlines() if line]
    there = {name: (encoding, collation) for encoding, collation, name in rows}
    if missing := [name for name in databases if name not in there]:
        raise Failure(f"PostgreSQL has no database {', '.join(missing)}")
    wanted = [name for name in there if name in databases or (not databases and name != "postgres")]
    dumps = [
        _dump(
            Dump("postgresql", name, f"postgresql/{quote(name, safe='')}.sql", 0, "", *there[name]),
            stage,
            [*as_user(user), PG_DUMP, "--no-password", *client, f"--dbname={connection(name)}"],
            POSTGRESQL_END,
            seconds,
        )
        for name in wanted
    ]
    path = stage / "postgresql" / "globals.sql"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    done = programs.run(
        [*as_user(user), PG_DUMPALL, "--no-password", "--globals-only", *client],
        seconds=seconds,
        folder=Path("/"),
    )
    if done.code:
        raise Failure(f"The roles of PostgreSQL could not be dumped (exit code {done.code}): {done.said}")
    path.write_text(done.out, "utf-8")
    return dumps


def connection(database: str) -> str:
    """A database's name as libpq takes it, whatever is in it."""
    escaped = database.replace("\\", "\\\\").replace("'", "\\'")
    return f"dbname='{escaped}'"


# --- Redis ------------------------------------------------------------------------------------------------------------


def redis(source: Source, stage: Path, seconds: float, pause: Callable[[float], None] = time.sleep) -> dict[str, Any]:
    """A fresh RDB of an instance at ``stage/redis/INSTANCE.rdb``: {instance, file, bytes, sha256, keys, version}.

    Raises Failure where the instance does not save, or its file is not whole.
    """
    _redis_save(source, time.monotonic() + seconds, pause)
    path = stage / "redis" / f"{source.instance}.rdb"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    try:
        size, digest = _copy(Path(source.rdb), path)
    except OSError as error:
        raise Failure(f"The data of Redis instance {source.instance} cannot be copied: {error}") from None
    checked = programs.run([REDIS_CHECK.format(server=source.server), str(path)], seconds=seconds)
    keys = re.search(r"(\d+) keys read", checked.out)
    version = re.search(r"(?:redis|valkey)-ver = '([^']*)'", checked.out)
    if checked.code or keys is None:
        raise Failure(f"The data of Redis instance {source.instance} is not whole: {checked.said[-500:]}")
    return {
        "instance": source.instance,
        "file": f"redis/{source.instance}.rdb",
        "bytes": size,
        "sha256": digest,
        "keys": int(keys[1]),
        "version": version[1] if version else "",
    }


def _redis_save(source: Source, limit: float, pause: Callable[[float], None]) -> None:
    """Have an instance save what it has now; raises Failure where it does not."""
    before: tuple[str, ...] = ()
    for info in _redis_infos(source, limit, pause):
        if info["rdb_bgsave_in_progress"] != "0":
            # One that had begun has not all that is there now.
            continue
        if not before:
            # Where the log is being rewritten, the save comes after it.
            said = _redis_ask(source, "BGSAVE", "SCHEDULE")
            before = _saves(info) if said.startswith("Background saving") else ()
        elif info["rdb_last_bgsave_status"] != "ok":
            raise Failure(f"Redis instance {source.instance} could not save its data: see journalctl -u {source.unit}")
        elif _saves(info) != before:
            return


def _redis_infos(source: Source, limit: float, pause: Callable[[float], None]) -> Iterator[dict[str, str]]:
    """What an instance says of its persistence, again and again; raises Failure when the time is over."""
    wait = 0.05
    while True:
        lines = _redis_ask(source, "INFO", "persistence").splitlines()
        info = dict(line.split(":", 1) for line in lines if ":" in line)
        if "rdb_bgsave_in_progress" not in info or "rdb_last_bgsave_status" not in info:
            raise Failure(f"Redis instance {source.instance} says nothing of its saves: {' '.join(lines)[:200]}")
        yield info
        if time.monotonic() > limit:
            raise Failure(f"Redis instance {source.instance} did not save its data in time")
        pause(wait)
        wait = min(wait * 2, 2.0)


def _saves(info: Mapping[str, str]) -> tuple[str, ...]:
    """Differs after each save; servers before 7.0 do not count them."""
    return info.get("rdb_saves", ""), info.get("rdb_last_save_time", "")


def _redis_ask(source: Source, *command: str) -> str:
    done = programs.run([*source.cli, *command], seconds=SHORT)
    if done.code and "already in progress" not in done.said:
        raise Failure(f"Redis instance {source.instance} does not answer {command[0]}: {done.said}")
    return done.out


def _copy(source: Path, target: Path) -> tuple[int, str]:
    """Copy a file; its bytes and its SHA-256."""
    with source.open("rb") as original, target.open("wb") as copy:
        shutil.copyfileobj(original, copy, BLOCK)
    with target.open("rb") as copied:
        return os.fstat(copied.fileno()).st_size, hashlib.file_digest(copied, "sha256").hexdigest()
