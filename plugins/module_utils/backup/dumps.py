# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Databases as files that restic takes, and what is in such a file.

Rows and checksums of a table are read out of the dump while it is written, so they are those of the snapshot itself. A
drill loads the dump into another server, dumps that and compares.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypedDict

from .programs import Failure as Failure


class Table(TypedDict):
    """How many rows a table has in a dump, and the checksum of them in their order."""

    rows: int
    sha256: str


@dataclass(frozen=True)
class Dump:
    """A dump in the stage. ``file`` is its path below the stage; ``tables`` by name."""

    kind: str  # mariadb or postgresql
    name: str
    file: str
    bytes: int
    sha256: str
    tables: dict[str, Table] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """As the manifest has it."""
        return dict(vars(self))


def summary(dump: IO[bytes] | Path, kind: str = "mariadb") -> dict[str, Table]:
    """The tables of a dump by name: {"products": {"rows": 12, "sha256": "..."}}; empty tables have 0 rows."""
    raise NotImplementedError


def mariadb(
    databases: Sequence[str],
    stage: Path,
    seconds: float,
    client: Sequence[str] = ("--socket=/run/mysqld/mysqld.sock", "--user=root"),
) -> list[Dump]:
    """Dump databases (none named: all of users) to ``stage/mariadb/NAME.sql``. Raises Failure for a dump not whole.

    ``client`` are the options by which mariadb and mariadb-dump reach the server: a drill has its own.
    """
    raise NotImplementedError


def postgresql(
    databases: Sequence[str],
    stage: Path,
    seconds: float,
    client: Sequence[str] = (),
    user: str = "postgres",
) -> list[Dump]:
    """Dump databases to ``stage/postgresql/NAME.sql`` (plain SQL) as the system's user ``user``. Raises Failure."""
    raise NotImplementedError


def redis(source: Any, stage: Path, seconds: float) -> Mapping[str, Any]:
    """A fresh RDB of an instance at ``stage/redis/INSTANCE.rdb``: {instance, file, bytes, sha256, keys}.

    Raises Failure where the instance does not save, or its file is not whole.
    """
    raise NotImplementedError


def databases_of(client: Iterable[str]) -> list[str]:
    """The databases of a MariaDB server that hold data of users. Raises Failure where it does not answer."""
    raise NotImplementedError
