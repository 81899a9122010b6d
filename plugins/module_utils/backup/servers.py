# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Servers of databases: those of the host, and private ones into which a snapshot is loaded first.

A private server has its own data, listens on a socket in its own folder and on no network, needs little memory, is the
first to go where memory runs out, and ends with the process that started it, whatever becomes of that.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import programs
from .dumps import MARIADB, MARIADB_CLIENT, MARIADB_DUMP, as_user, connection
from .programs import GRACE_SECONDS, Done, Failure

# Seconds in which a server has to answer: one that reads a large file first is told that it is loading.
PATIENCE = 120.0
LOADING_PATIENCE = 1800.0
# One question; a load has the time that the settings give to restic.
SHORT = 300.0
# systemctl returns when a server has read its data.
UNIT_SECONDS = 1800.0
CLUSTERS = Path("/usr/lib/postgresql")

MARIADB_OPTIONS = (
    "--skip-networking",
    "--skip-log-bin",
    "--event-scheduler=OFF",
    "--local-infile=OFF",
    "--performance-schema=OFF",
    "--max-connections=10",
    "--innodb-buffer-pool-size=128M",
    # What a server takes that is set up less strictly; a snapshot is not the place to learn of that.
    "--innodb-strict-mode=OFF",
    "--max-allowed-packet=1G",
    # Its data are thrown away.
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-doublewrite=OFF",
)
POSTGRESQL_OPTIONS = {
    "listen_addresses": "",
    "shared_buffers": "64MB",
    "max_connections": "10",
    "fsync": "off",
    "full_page_writes": "off",
    "logging_collector": "off",
}
ROLES = re.compile(r'^(?:CREATE|ALTER) ROLE ([^"\s;]+|"(?:[^"]|"")+")(?: WITH .*)?;$', re.MULTILINE)


def quoted(name: str) -> str:
    """A name as MariaDB's SQL writes it."""
    return "`" + name.replace("`", "``") + "`"


def text(value: str) -> str:
    """A string as MariaDB's SQL writes it."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def identifier(name: str) -> str:
    """A name as PostgreSQL's SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def _asked(argv: Sequence[str], sql: str, seconds: float = SHORT) -> list[list[str]]:
    """The rows that a client answers with, a line of fields between tabs for each."""
    done = programs.run(argv, seconds=seconds, text=sql)
    if done.code:
        raise Failure(f"The server says: {complaint(done)}")
    return [line.split("\t") for line in done.out.splitlines()]


def _loaded(argv: Sequence[str], file: Path, seconds: float, name: str) -> None:
    with file.open("rb") as source:
        done = programs.run(argv, seconds=seconds, stdin=source)
    if done.code:
        raise Failure(f"{file.name} could not be loaded into {name}: {complaint(done)}")


def complaint(done: Done) -> str:
    """What a program says went wrong, without the statement and its data."""
    found = re.findall(r"^.*(?:ERROR|FATAL|RDB [^\n]*error).*$", f"{done.err}\n{done.out}", re.MULTILINE)
    return "; ".join(found or [done.said])[-500:]


# --- MariaDB ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mariadb:
    """A server that lets root in over its socket: by default that of the host. ``seconds`` is what a load may take."""

    client: tuple[str, ...] = MARIADB_CLIENT
    seconds: float = 43200.0

    def ask(self, sql: str, database: str = "") -> list[list[str]]:
        """The rows of the answer; raises Failure where there is none."""
        return _asked([*self._argv(), *([f"--database={database}"] if database else [])], sql)

    def load(self, database: str, file: Path) -> None:
        """Run a file of SQL in a database; it ends with the first statement that fails. Raises Failure."""
        # Without binary mode the client changes line ends, and has commands that start programs.
        _loaded([*self._argv(), "--binary-mode", f"--database={database}"], file, self.seconds, database)

    def dump(self, arguments: Sequence[str], into: Path) -> None:
        """mariadb-dump as a backup calls it, of no more than the arguments say; appended to a file. Raises Failure."""
        options = [one for one in MARIADB_DUMP if one not in ("--routines", "--triggers", "--events")]
        with into.open("ab") as target:
            done = programs.run([*options, *self.client, *arguments], seconds=self.seconds, stdout=target)
        if done.code:
            raise Failure(f"mariadb-dump ended with {done.code}: {complaint(done)}")

    def _argv(self) -> list[str]:
        options = ["--batch", "--raw", "--skip-column-names", "--default-character-set=utf8mb4"]
        return [*MARIADB, *self.client, *options, "--max-allowed-packet=1G"]


def have_definers(server: Mariadb) -> None:
    """Have on a private server the accounts in whose name views and routines work, with all rights and locked."""
    places = ("views", "routines", "triggers", "events")
    rows = server.ask(" UNION ".join(f"SELECT definer FROM information_schema.{one}" for one in places))
    for user, at, host in (row[0].rpartition("@") for row in rows):
        if at:
            name = f"{text(user)}@{text(host)}"
            server.ask(f"CREATE USER IF NOT EXISTS {name} ACCOUNT LOCK; GRANT ALL ON *.* TO {name}")


@contextlib.contextmanager
def private_mariadb(folder: Path, seconds: float = 43200.0) -> Iterator[Mariadb]:
    """A MariaDB server of our own in ``folder``, which is made; its parents can be passed by everybody."""
    own_folder(folder, "mysql")
    data, socket = folder / "data", folder / "mariadb.sock"
    install = ["/usr/bin/mariadb-install-db", "--no-defaults", "--user=mysql", f"--datadir={data}"]
    install += ["--auth-root-authentication-method=socket", "--skip-test-db", "--skip-name-resolve"]
    done = programs.run(install, seconds=SHORT)
    if done.code:
        raise Failure(f"No private MariaDB could be set up: {done.said[-1000:]}")
    argv = ["/usr/sbin/mariadbd", "--no-defaults", *MARIADB_OPTIONS, f"--datadir={data}", f"--socket={socket}"]
    argv += [f"--pid-file={folder / 'pid'}", f"--tmpdir={folder}", f"--secure-file-priv={folder}"]
    server = Mariadb((f"--socket={socket}", "--user=root"), seconds)
    with _process(argv, "mysql", folder, lambda: bool(server.ask("SELECT 1")), PATIENCE):
        yield server


# --- Redis ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Redis:
    """An instance, reached by a client that is let in: argv without a command."""

    cli: tuple[str, ...]

    def ask(self, *command: str) -> str:
        """The answer to a command; raises Failure where there is none, or an error."""
        done = programs.run([*self.cli, *command], seconds=SHORT)
        # redis-cli ends with 0 where the server answers with an error.
        if done.code or re.match(r"(ERR|NOAUTH|NOPERM|WRONGPASS|LOADING|MISCONF|\(error\))", done.out):
            raise Failure(f"Redis says: {done.said[:500]}")
        return done.out.strip()

    def keys(self) -> int:
        """How many keys all its databases have."""
        return sum(int(found) for found in re.findall(r"^db\d+:keys=(\d+)", self.ask("info", "keyspace"), re.MULTILINE))


@contextlib.contextmanager
def private_redis(folder: Path, rdb: Path, name: str = "redis") -> Iterator[Redis]:
    """A Redis or Valkey of our own in ``folder``, which is made, with the data of an RDB file."""
    own_folder(folder, name)
    shutil.copyfile(rdb, folder / "dump.rdb")
    shutil.chown(folder / "dump.rdb", name, name)
    socket = folder / "redis.sock"
    options = {"port": "0", "unixsocket": str(socket), "dir": str(folder), "save": "", "databases": "1024"}
    argv = [f"/usr/bin/{name}-server", *(word for key, value in options.items() for word in (f"--{key}", value))]
    server = Redis((f"/usr/bin/{name}-cli", "-s", str(socket)))
    with _process(argv, name, folder, lambda: server.ask("ping") == "PONG", LOADING_PATIENCE):
        yield server


def keys_in(rdb: Path, name: str = "redis") -> tuple[int, int]:
    """How many keys an RDB file has, and how many of them end some day. Raises Failure where it is not whole."""
    done = programs.run([f"/usr/bin/{name}-check-rdb", str(rdb)], seconds=LOADING_PATIENCE)
    found = {word: int(count) for count, word in re.findall(r"\[info\] (\d+) (keys read|expires)", done.out)}
    if done.code or "keys read" not in found:
        raise Failure(f"{rdb.name} is not whole: {complaint(done)}")
    return found["keys read"], found.get("expires", 0)


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Postgresql:
    """A cluster that lets its system's user in: by default that of the host. ``client`` are options of psql."""

    client: tuple[str, ...] = ()
    user: str = "postgres"
    seconds: float = 43200.0

    def ask(self, sql: str, database: str = "postgres") -> list[list[str]]:
        """The rows of the answer; raises Failure where there is none."""
        return _asked([*self._argv(database), "--tuples-only", "--no-align", "--field-separator=\t"], sql)

    def load(self, database: str, file: Path) -> None:
        """Run a file of SQL in a database; it ends with the first statement that fails. Raises Failure."""
        _loaded(self._argv(database), file, self.seconds, database)

    def have_roles(self, file: Path) -> None:
        """Make the roles of a dump of roles that are not there; those that are stay as they are. Raises Failure."""
        there = {row[0] for row in self.ask("SELECT rolname FROM pg_roles")}
        self.ask("\n".join(roles_without(there, file.read_text("utf-8"))))

    def _argv(self, database: str) -> list[str]:
        argv = [*as_user(self.user), "/usr/bin/psql", "--no-psqlrc", "--no-password", "--quiet"]
        return [*argv, "--set=ON_ERROR_STOP=1", *self.client, f"--dbname={connection(database)}"]


def roles_without(there: Container[str], dump: str) -> list[str]:
    """The lines of pg_dumpall that make roles, without those of some."""
    found = [(match[0], match[1].strip('"').replace('""', '"')) for match in ROLES.finditer(dump)]
    return [line for line, name in found if name not in there]


def binaries(version: str = "") -> Path:
    """Where PostgreSQL's programs lie, of that major version if it is there. Raises Failure where there are none."""
    found = {path.name: path / "bin" for path in CLUSTERS.glob("[0-9]*") if (path / "bin" / "initdb").exists()}
    if not found:
        raise Failure("PostgreSQL's server is not installed on this host: apt-get install postgresql")
    return found.get(version.partition(".")[0]) or found[max(found, key=int)]


@contextlib.contextmanager
def private_postgresql(folder: Path, version: str = "", seconds: float = 43200.0) -> Iterator[Postgresql]:
    """A PostgreSQL cluster of our own in ``folder``, which is made; its parents can be passed by everybody."""
    own_folder(folder, "postgres")
    data, programs_at = folder / "data", binaries(version)
    initdb = [str(programs_at / "initdb"), f"--pgdata={data}", "--username=postgres", "--auth=peer", "--no-sync"]
    initdb += ["--encoding=UTF8", "--locale=C.UTF-8"]
    done = programs.run([*as_user("postgres"), *initdb], seconds=SHORT, folder=folder)
    if done.code:
        raise Failure(f"No private PostgreSQL could be set up: {done.said[-1000:]}")
    options = {**POSTGRESQL_OPTIONS, "unix_socket_directories": str(folder)}
    argv = [str(programs_at / "postgres"), "-D", str(data), *(f"--{key}={value}" for key, value in options.items())]
    server = Postgresql((f"--host={folder}",), seconds=seconds)
    # At once, and with its children, which are in no group of its.
    with _process(argv, "postgres", folder, lambda: bool(server.ask("SELECT 1")), PATIENCE, signal.SIGQUIT):
        yield server


# --- folders and processes --------------------------------------------------------------------------------------------


def own_folder(folder: Path, user: str) -> None:
    """Make a folder that is this user's alone. Raises Failure where the host has no such user."""
    folder.mkdir()
    try:
        shutil.chown(folder, user, user)
    except LookupError:
        raise Failure(f"This host has no user {user}: the server that the snapshot needs is not installed") from None
    folder.chmod(0o700)


@contextlib.contextmanager
def _process(
    argv: Sequence[str],
    user: str,
    folder: Path,
    answers: Callable[[], bool],
    patience: float,
    end: signal.Signals = signal.SIGKILL,
) -> Iterator[None]:
    """A server from its first answer on; at the end it needs no time, for its data are thrown away."""
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["/usr/bin/choom", "--adjust=1000", "--", *as_user(user)[:-1], "--pdeathsig=KILL", "--", *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, "HOME": str(folder)},
            start_new_session=True,
        )
    try:
        _wait(process, log, answers, patience)
        yield
    finally:
        process.send_signal(end)
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], log: Path, answers: Callable[[], bool], patience: float) -> None:
    limit = time.monotonic() + patience
    while True:
        with contextlib.suppress(Failure):
            if answers():
                return
        if process.poll() is not None or time.monotonic() > limit:
            said = " ".join(log.read_text("utf-8", "replace").split())[-1000:]
            state = f"ended with {process.returncode}" if process.returncode is not None else "does not answer"
            raise Failure(f"The private server of {log.parent.name} {state}: {said}")
        time.sleep(0.1)


def unit(verb: str, name: str) -> None:
    """Start or stop a unit; raises Failure where it does not."""
    done = programs.run(["/usr/bin/systemctl", verb, name], seconds=UNIT_SECONDS)
    if done.code:
        raise Failure(f"systemctl {verb} {name}: {done.said[:500]}")


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Ask until it holds; a Failure of the question counts as no. Raises Failure with ``what`` where it never does."""
    limit = time.monotonic() + seconds
    while True:
        with contextlib.suppress(Failure):
            if condition():
                return
        if time.monotonic() > limit:
            raise Failure(f"Not within {seconds:.0f} s: {what}")
        time.sleep(0.1)
