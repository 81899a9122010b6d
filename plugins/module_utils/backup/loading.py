# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Dumps of a snapshot, loaded into servers that are nobody's, and compared with what the manifest says of them."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import dumps, servers
from .programs import Failure


@contextlib.contextmanager
def scratch(name: str, root: Path) -> Iterator[Path]:
    """A folder below ``root`` that everybody may pass and nobody else read, gone at the end.

    Raises Failure where another restore or drill is at work. What one that was killed has left is removed first.
    """
    root.mkdir(parents=True, exist_ok=True)
    root.chmod(0o711)
    with (root / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failure("Another restore or drill is at work on this host: wait for its end") from None
        for left in root.iterdir():
            if left.is_dir():
                shutil.rmtree(left)
        folder = root / f"{name}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
        folder.mkdir()
        folder.chmod(0o711)
        try:
            yield folder
        finally:
            shutil.rmtree(folder)


def private(folder: Path) -> Path:
    """A folder for nobody but root, made where it is not there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def enough(folder: Path, wanted: int) -> None:
    """Raises Failure where a file system has fewer bytes free."""
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise Failure(f"{folder} has {free // 1024**2} MiB free, and {wanted // 1024**2} MiB are needed: free some")


def digest(file: Path) -> str:
    """The SHA-256 of a file."""
    with file.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def listed(problems: Sequence[str]) -> str:
    """The first of many sentences, and how many more there are."""
    more = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
    return "; ".join(problems[:10]) + more


def differences(expected: Mapping[str, Any], found: Mapping[str, Any], name: str) -> list[str]:
    """How the tables of a dump differ from those of the manifest, as sentences."""
    said = [f"{name} lacks the table {table}" for table in expected if table not in found]
    said += [f"{name} has a table {table} that the manifest does not know" for table in found if table not in expected]
    for table in sorted(set(expected) & set(found)):
        want, have = expected[table], found[table]
        if want["rows"] != have["rows"]:
            said.append(f"{name}.{table} has {have['rows']} rows instead of {want['rows']}")
        elif want["sha256"] != have["sha256"]:
            said.append(f"{name}.{table} has other data than the manifest says")
    return said


def character_set(entry: Mapping[str, Any]) -> str:
    """What CREATE DATABASE is told of a MariaDB database of the manifest."""
    return f" CHARACTER SET {entry['character_set']} COLLATE {entry['collation']}"


def load_mariadb(name: str, entry: Mapping[str, Any], file: Path, server: servers.Mariadb) -> None:
    """A dump into a database, which is made. Raises Failure."""
    server.ask(f"CREATE DATABASE {servers.quoted(name)}{character_set(entry)}")
    server.load(name, file)


def load_postgresql(name: str, entry: Mapping[str, Any], file: Path, server: servers.Postgresql) -> None:
    """A dump into a database, which is made. Raises Failure."""
    encoding, collation = entry["character_set"], entry["collation"].replace("'", "''")
    server.ask(
        f"CREATE DATABASE {servers.identifier(name)} TEMPLATE template0 ENCODING '{encoding}'"
        f" LC_COLLATE '{collation}' LC_CTYPE '{collation}'"
    )
    server.load(name, file)


def tables_of(name: str, server: servers.Mariadb | servers.Postgresql, folder: Path) -> dict[str, Any]:
    """The tables of a database, out of a dump that is made for that and thrown away. Raises Failure."""
    again = private(folder / "again")
    dump = dumps.mariadb if isinstance(server, servers.Mariadb) else dumps.postgresql
    try:
        made = dump([name], again, server.seconds, server.client)
    finally:
        shutil.rmtree(again)
    return next(dict(one.tables) for one in made if one.name == name)


def redis_problems(name: str, keys: int, rdb: Path, folder: Path, server: str = "redis") -> list[str]:
    """What is wrong with an RDB file: it is checked, and loaded into a private server in ``folder``."""
    read, ending = servers.keys_in(rdb, server)
    if read != keys:
        return [f"Redis {name} has {read} keys in its file instead of {keys}"]
    with servers.private_redis(folder, rdb, server) as own:
        found = own.keys()
    # Keys whose time is over since then are left out.
    if not keys - ending <= found <= keys:
        return [f"Redis {name} has {found} keys once it is loaded instead of {keys}, of which {ending} end some day"]
    return []
