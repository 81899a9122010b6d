# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs by itself on a host with MariaDB: are its accounts as they shall be, and would it take its configuration?

``try`` has the server judge its configuration without starting it. ``check`` compares databases, users and rights of
the running server with the file of accounts, and ``apply`` brings about what differs. A user who stays is never
without its rights: what is missing is granted before what is too much is taken away. ``undo`` applies the file after
dropping the users that the last ``apply`` brought. A server that does not run is passed over: its unit applies the
file as soon as it does.

The file of accounts is JSON, and of passwords it has hashes only::

    {"databases": [{"name": "shop", "character_set": "utf8mb4", "collation": "utf8mb4_unicode_ci"}],
     "accounts": [{"user": "app", "host": "localhost", "hashes": ["*6BB4..."], "tls": false, "connections": 0,
                   "rights": {"`shop`.*": ["SELECT", "INSERT"]}}],
     "absent": ["former"]}
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

UNIT = "mariadb.service"
SERVER = "/usr/sbin/mariadbd"
CLIENT = ("/usr/bin/mariadb", "--no-defaults", "--socket=/run/mysqld/mysqld.sock", "--user=root", "--batch", "--raw")
ACCOUNTS = Path("/etc/mysql/accounts.json")
BROUGHT = Path("/run/mariadb-accounts-brought.json")
TAKEN_BACK = Path("/run/mariadb-accounts-taken-back.json")
CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")

# Buffers in bytes, with the defaults of MariaDB 10.11 and 11.8: those the server has once, and those each connection
# may ask for.
ONCE = {
    "innodb_buffer_pool_size": 128 * 1024**2,
    "innodb_log_buffer_size": 16 * 1024**2,
    "key_buffer_size": 128 * 1024**2,
    "aria_pagecache_buffer_size": 128 * 1024**2,
}
EACH = {
    "binlog_cache_size": 32768,
    "join_buffer_size": 262144,
    "net_buffer_length": 16384,
    "read_buffer_size": 131072,
    "read_rnd_buffer_size": 262144,
    "sort_buffer_size": 2097152,
    "thread_stack": 299008,
}
# What of a host the data may have; the rest is for the system and its cache of files.
PART = 3 / 4

# What the server says of a value that it does not take as it stands, and goes on with another one.
MISTAKES = re.compile(r"\[ERROR\]|adjusted to|wasn't recognized|was removed|unknown (variable|option)")
HASH = re.compile(r"\*[0-9A-F]{40}")

QUESTIONS = r"""
SELECT 'database', schema_name, default_character_set_name, default_collation_name FROM information_schema.schemata;
SELECT 'tables', table_schema, COUNT(*) FROM information_schema.tables WHERE table_schema = 'test' GROUP BY 2;
SELECT 'account', user, host, priv FROM mysql.global_priv;
SELECT 'right', grantee, '*.*', privilege_type, is_grantable FROM information_schema.user_privileges;
SELECT 'right', grantee, CONCAT('`', table_schema, '`.*'), privilege_type, is_grantable
  FROM information_schema.schema_privileges;
SELECT 'right', grantee, CONCAT('`', table_schema, '`.`', table_name, '`'), privilege_type, is_grantable
  FROM information_schema.table_privileges;
SELECT 'right', grantee, CONCAT('`', table_schema, '`.`', table_name, '`'),
  CONCAT(privilege_type, ' (`', column_name, '`)'), is_grantable FROM information_schema.column_privileges;
SELECT 'right', CONCAT('''', user, '''@''', host, ''''), CONCAT(routine_type, ' `', db, '`.`', routine_name, '`'),
  'ALL PRIVILEGES', IF(FIND_IN_SET('Grant', proc_priv), 'YES', 'NO') FROM mysql.procs_priv;
SELECT 'right', CONCAT('''', user, '''@''', host, ''''), 'ROLE', CONCAT('`', role, '`'), 'NO' FROM mysql.roles_mapping;
SELECT 'right', CONCAT('''', user, '''@''', host, ''''), 'PROXY',
  CONCAT('''', proxied_user, '''@''', proxied_host, ''''), 'NO' FROM mysql.proxies_priv
  WHERE user NOT IN ('root', 'mysql');
"""

Right = tuple[str, str]  # on what, and which


class MariadbError(Exception):
    """What the operator has to know, in one sentence without secrets."""


@dataclass
class Found:
    """What the running server has: databases, accounts (``'user'@'host'``) with what is said of them, rights."""

    databases: dict[str, tuple[str, str]] = field(default_factory=dict)
    accounts: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    rights: dict[str, set[Right]] = field(default_factory=dict)
    test_tables: int = 0


def grantee(user: str, host: str) -> str:
    """An account as SQL and information_schema write it; names with quotes in them are none of ours."""
    return f"'{user}'@'{host}'"


def found_in(answer: str) -> Found:
    """The server's answer to QUESTIONS, a line of fields between tabs for each row."""
    found = Found()
    for kind, name, *rest in (line.split("\t") for line in answer.splitlines()):
        if kind == "database":
            found.databases[name] = (rest[0], rest[1])
        elif kind == "tables":
            found.test_tables = int(rest[0])
        elif kind == "account":
            found.accounts[grantee(name, rest[0])] = {"user": name, "host": rest[0], **json.loads(rest[1])}
        else:
            place, privilege, grantable = rest
            rights = found.rights.setdefault(name, set())
            if privilege != "USAGE":
                rights.add((place, privilege))
            if grantable == "YES":
                rights.add((place, "GRANT OPTION"))
    return found


# --- what differs, as the statements that make it so -----------------------------------------------------------------


def statements(wanted: Mapping[str, Any], found: Found) -> list[str]:
    """What makes the server have what is wanted, in order; empty where it has."""
    own = {grantee(one["user"], one["host"]): one for one in wanted["accounts"]}
    return [
        *_database_statements(wanted["databases"], found),
        *(text for name, one in own.items() for text in _account_statements(name, one, found)),
        *_unwanted_statements(wanted, own, found),
    ]


def _database_statements(databases: Iterable[Mapping[str, str]], found: Found) -> Iterator[str]:
    names = set()
    for one in databases:
        names.add(one["name"])
        have, want = found.databases.get(one["name"]), (one["character_set"], one["collation"])
        if have != want:
            verb = "ALTER" if have else "CREATE"
            yield f"{verb} DATABASE `{one['name']}` CHARACTER SET {want[0]} COLLATE {want[1]}"
    if "test" in found.databases and "test" not in names and not found.test_tables:
        yield "DROP DATABASE `test`"


def _account_statements(name: str, one: Mapping[str, Any], found: Found) -> Iterator[str]:
    have = found.accounts.get(name)
    if have is None or not _proves_the_same(one, have):
        ways = " OR ".join(f"mysql_native_password USING '{each}'" for each in one["hashes"])
        yield (
            f"{'CREATE' if have is None else 'ALTER'} USER {name} IDENTIFIED VIA {ways} "
            f"REQUIRE {'SSL' if one['tls'] else 'NONE'} WITH MAX_USER_CONNECTIONS {one['connections']} ACCOUNT UNLOCK"
        )
    rights = {(place, right) for place, names in one["rights"].items() for right in names}
    yield from _right_statements(name, rights, found.rights.get(name, set()))


def _right_statements(name: str, wanted: set[Right], have: set[Right]) -> Iterator[str]:
    for place, rights in _by_place(wanted - have):
        yield f"GRANT {', '.join(rights)} ON {place} TO {name}"
    for place, rights in _by_place(have - wanted):
        if place == "ROLE":
            yield f"REVOKE {', '.join(rights)} FROM {name}"
        elif place == "PROXY":
            yield from (f"REVOKE PROXY ON {one} FROM {name}" for one in rights)
        else:
            yield from (f"REVOKE {one} ON {place} FROM {name}" for one in rights)


def _by_place(rights: Iterable[Right]) -> list[tuple[str, list[str]]]:
    places: dict[str, list[str]] = {}
    for place, right in sorted(rights):
        places.setdefault(place, []).append(right)
    return list(places.items())


def _proves_the_same(one: Mapping[str, Any], have: Mapping[str, Any]) -> bool:
    """Whether the account is let in by the same passwords and under the same conditions."""
    return (
        _ways(have) == [("mysql_native_password", each) for each in one["hashes"]]
        and have.get("ssl_type", 0) == int(one["tls"])
        and have.get("max_user_connections", 0) == one["connections"]
        and not have.get("account_locked", False)
    )


def _ways(have: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How an account may prove who it is: plugins, each with what it compares. An empty way stands for the first."""
    return [
        (way.get("plugin", ""), way.get("authentication_string", ""))
        for way in (each or have for each in have.get("auth_or", [{}]))
    ]


def _unwanted_statements(wanted: Mapping[str, Any], own: Mapping[str, Any], found: Found) -> Iterator[str]:
    """Accounts that nobody may have; those that are declared nowhere are left alone."""
    managed = {one["user"] for one in wanted["accounts"]} | set(wanted["absent"])
    for name, have in found.accounts.items():
        user, host = have["user"], have["host"]
        if have.get("is_role"):
            # What everybody may do; MariaDB's own installer gives it rights on databases named test.
            if user == "PUBLIC":
                yield from _right_statements("PUBLIC", set(), found.rights.get("'PUBLIC'@''", set()))
        elif not user or (user in managed and name not in own) or (user == "root" and host != "localhost"):
            yield f"DROP USER {name}"
        elif user in ("root", "mysql") and _ways(have) != [("unix_socket", "")]:
            # Debian's tools on the host come as these two, and need no password there.
            yield f"ALTER USER {name} IDENTIFIED VIA unix_socket"


# --- asking and telling the server -----------------------------------------------------------------------------------


def masked(text: str) -> str:
    """A statement or a complaint as it may be shown."""
    return HASH.sub("*...", text)


def ask(sql: str) -> str:
    """What the server answers to root over its socket. Statements go by standard input, where nobody sees them."""
    done = subprocess.run(
        [*CLIENT, "--skip-column-names"], input=sql, capture_output=True, text=True, check=False, encoding="utf-8"
    )
    if done.returncode:
        raise MariadbError(f"the server says: {masked(done.stderr.strip())}")
    return done.stdout


def runs() -> bool:
    """Whether the server is there to be asked: its unit has come up, or is about to and waits for us."""
    shown = subprocess.run(
        ["systemctl", "show", "--value", "--property=ActiveState,SubState", UNIT],
        capture_output=True,
        text=True,
        check=False,
    )
    return bool({"active", "start-post"} & set(shown.stdout.split()))


def wanted_accounts() -> Mapping[str, Any]:
    """What the file says; where there is none, nothing is wanted."""
    try:
        wanted: Mapping[str, Any] = json.loads(ACCOUNTS.read_text("utf-8"))
    except FileNotFoundError:
        return {"databases": [], "accounts": [], "absent": []}
    return wanted


def check() -> None:
    """Raises MariadbError that says what differs."""
    try:
        answer = ask(QUESTIONS)
    except MariadbError:
        # systemd is asked only here, for this is part of every run that changes nothing.
        if runs():
            raise
        return
    if todo := statements(wanted_accounts(), found_in(answer)):
        raise MariadbError("the running server lacks: " + "; ".join(map(masked, todo)))


def apply() -> None:
    """Bring about what differs, and note which users were not there before."""
    if not runs():
        return
    wanted = wanted_accounts()
    names = [grantee(one["user"], one["host"]) for one in wanted["accounts"]]
    if TAKEN_BACK.exists():
        taken_back = json.loads(TAKEN_BACK.read_text("utf-8"))
        ask("".join(f"DROP USER IF EXISTS {name};\n" for name in taken_back if name not in names))
        TAKEN_BACK.unlink()
    found = found_in(ask(QUESTIONS))
    todo = statements(wanted, found)
    BROUGHT.write_text(json.dumps([name for name in names if name not in found.accounts]), "utf-8")
    if todo:
        ask("".join(f"{text};\n" for text in todo))


def undo() -> None:
    """What the file says now, without the users whom a change brought that is taken back.

    Where that change keeps the server from running, they go as soon as it does.
    """
    if BROUGHT.exists():
        BROUGHT.replace(TAKEN_BACK)
    apply()


# --- the configuration -----------------------------------------------------------------------------------------------


def memory(values: Mapping[str, int]) -> tuple[int, int]:
    """Bytes of the buffers that the server has once, and of those that each connection may ask for."""
    return (
        sum(values.get(name, size) for name, size in ONCE.items()),
        sum(values.get(name, size) for name, size in EACH.items()),
    )


def values_in(answer: str) -> dict[str, int]:
    """The numbers among the variables that ``mariadbd --help --verbose`` shows."""
    rows = re.findall(r"^([a-z][a-z0-9-]*) +(\d+)$", answer, re.MULTILINE)
    return {name.replace("-", "_"): int(value) for name, value in rows}


def host_memory() -> int:
    """Bytes of memory that the server can have: the host's, or less where a control group says so."""
    shown = re.search(r"^MemTotal: +(\d+) kB", MEMINFO.read_text("ascii"), re.MULTILINE)
    found = [int(shown[1]) * 1024] if shown else []
    for path in (CGROUP / "memory.max", CGROUP / "system.slice" / UNIT / "memory.max"):
        limit = path.read_text("ascii").strip() if path.exists() else "max"
        found += [int(limit)] if limit.isdigit() else []
    return min(found)


def attempt() -> None:
    """Raises MariadbError where the server does not take its configuration as it stands, or the host cannot hold it."""
    asked = subprocess.run(
        [SERVER, "--help", "--verbose", "--user=mysql"],
        capture_output=True,
        text=True,
        check=False,
        errors="replace",
        stdin=subprocess.DEVNULL,
    )
    said = [
        re.sub(r"^.*?\[(ERROR|Warning)\] ", "", line) for line in asked.stderr.splitlines() if MISTAKES.search(line)
    ]
    if asked.returncode or said:
        raise MariadbError("the server does not take its configuration: " + "; ".join(said or [asked.stderr.strip()]))
    values = values_in(asked.stdout)
    once, each = memory(values)
    connections, has = values["max_connections"], host_memory()
    if once + connections * each > has * PART:
        raise MariadbError(
            f"mariadb_memory and mariadb_max_connections ask for {_mb(once + connections * each)} of memory "
            f"({_mb(once)} of buffers, and {connections} connections of up to {each / 1024**2:.1f} MB), "
            f"and this host has {_mb(has)}, of which three quarters can be had"
        )


def _mb(size: float) -> str:
    return f"{int(size) // 1024**2} MB"


COMMANDS: Mapping[str, Callable[[], None]] = {"apply": apply, "check": check, "try": attempt, "undo": undo}


def main(arguments: Sequence[str]) -> int:
    """0, or 1 with a sentence on standard error."""
    if len(arguments) != 1 or arguments[0] not in COMMANDS:
        sys.stderr.write(f"Usage: mariadb.py {'|'.join(COMMANDS)}\n")
        return 2
    try:
        COMMANDS[arguments[0]]()
    except (MariadbError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
