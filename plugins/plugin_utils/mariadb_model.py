# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the mariadb role writes down, worked out of its settings."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.fushuma.production.plugins.module_utils.mariadb import memory
from ansible_collections.fushuma.production.plugins.plugin_utils.sizes import bytes_of, shown

Settings = Mapping[str, Any]

FILES = "/var/lib/mysql-files"
SLOW_LOG = "/var/log/mysql/mariadb-slow.log"

# What each role may do with each of its databases. Whoever serves requests changes rows, and no tables.
APP = ("SELECT", "INSERT", "UPDATE", "DELETE", "EXECUTE", "SHOW VIEW", "CREATE TEMPORARY TABLES")
ON_DATABASES = (
    *APP,
    "CREATE",
    "DROP",
    "ALTER",
    "INDEX",
    "REFERENCES",
    "LOCK TABLES",
    "CREATE VIEW",
    "CREATE ROUTINE",
    "ALTER ROUTINE",
    "EVENT",
    "TRIGGER",
    "DELETE HISTORY",
)
RIGHTS: Mapping[str, Sequence[str]] = {
    "app": APP,
    "migrate": ON_DATABASES,
    "backup": ("SELECT", "SHOW VIEW", "TRIGGER", "EVENT", "LOCK TABLES"),
    "exporter": (),
}
# What they may do besides. The text of routines is in mysql.proc only.
BESIDES: Mapping[str, Mapping[str, Sequence[str]]] = {
    "exporter": {"*.*": ("PROCESS", "BINLOG MONITOR", "SLAVE MONITOR"), "`performance_schema`.*": ("SELECT",)},
    "backup": {"`mysql`.`proc`": ("SELECT",)},
}
# A dump that says where in the binary log it was taken.
BACKUP_WITH_BINLOG = ("BINLOG MONITOR", "RELOAD")


def model(settings: Settings) -> dict[str, Any]:
    """``settings`` fit the role's argument_specs and hold all defaults.

    The result: ``variables`` of the server by name; ``accounts`` as module_utils.mariadb reads them; ``memory`` in
    bytes, with words for it in ``memory_terms``; ``budget`` of connections.
    """
    variables = _variables(settings)
    once, each = memory({name: _number(value) for name, value in variables.items() if _number(value)})
    connections = settings["mariadb_max_connections"]
    return {
        "variables": variables,
        "accounts": _accounts(settings),
        "memory": once + connections * each,
        "memory_terms": f"{shown(once)} of buffers and {connections} connections of {each / 1024**2:.1f} MB",
        "budget": budget(settings),
    }


def needs_tls(host: str, trusted: Iterable[str]) -> bool:
    """Whether who comes from there has to speak TLS: from another host, over a network that is not trusted."""
    if host == "localhost":
        return False
    network = ipaddress.ip_network(host)
    known = [ipaddress.ip_network(one) for one in ("127.0.0.0/8", "::1", *trusted)]
    return not any(one.version == network.version and network.subnet_of(one) for one in known)  # type: ignore[arg-type]


def budget(settings: Settings) -> dict[str, Any]:
    """Connections: what ``applications`` may open, in sum (``wanted``), with a tenth more (``ample``), what is
    ``reserved`` for others, how many that makes (``needed``), and how many there are (``max``)."""
    applications = []
    for one in settings["mariadb_connections"]:
        factors = [one[key] for key in ("replicas", "processes", "pools", "limit")]
        product = factors[0] * factors[1] * factors[2] * factors[3]
        applications.append({"who": one["who"], "wanted": product, "term": " x ".join(map(str, factors))})
    wanted = sum(one["wanted"] for one in applications)
    reserved = sum(settings["mariadb_reserved_connections"].values())
    ample = -(-wanted * 11 // 10)  # rounded up, in whole numbers
    return {
        "applications": applications,
        "wanted": wanted,
        "ample": ample,
        "reserved": reserved,
        "needed": ample + reserved,
        "max": settings["mariadb_max_connections"],
    }


def native_hash(password: str) -> str:
    """As mysql_native_password keeps it."""
    return "*" + hashlib.sha1(hashlib.sha1(password.encode()).digest()).hexdigest().upper()


def _number(value: Any) -> int:
    """A size as the server reads it (``16M``); 0 for what is none."""
    text = str(value).upper()
    factor = {"K": 1024, "M": 1024**2, "G": 1024**3}.get(text[-1:], 1)
    digits = text if factor == 1 else text[:-1]
    return int(digits) * factor if digits.isdigit() else 0


def _variables(settings: Settings) -> dict[str, Any]:
    slow, days, tls = settings["mariadb_slow_seconds"], settings["mariadb_binlog_days"], settings["mariadb_tls"]
    variables = {
        "bind_address": ",".join(settings["mariadb_addresses"]),
        "port": settings["mariadb_port"],
        "max_connections": settings["mariadb_max_connections"],
        "innodb_buffer_pool_size": bytes_of(settings["mariadb_memory"]),
        # Only the server's own tables and temporary ones are not InnoDB's.
        "key_buffer_size": "16M",
        "aria_pagecache_buffer_size": "32M",
        "character_set_server": "utf8mb4",
        "collation_server": "utf8mb4_unicode_ci",
        "sql_mode": "STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ZERO_DATE,NO_ZERO_IN_DATE,"
        "NO_AUTO_CREATE_USER,NO_ENGINE_SUBSTITUTION",
        "local_infile": "OFF",
        "secure_file_priv": FILES,
        "skip_name_resolve": "ON",
        "symbolic_links": "OFF",
        "slow_query_log": "ON" if slow else "OFF",
        "slow_query_log_file": SLOW_LOG,
        "long_query_time": slow or 10,
        "expire_logs_days": days,
    }
    if days:
        variables |= {"log_bin": "mariadb-bin", "server_id": 1, "sync_binlog": 1}
    if tls:
        variables |= {"ssl_cert": tls["certificate"], "ssl_key": tls["key"], "ssl_ca": tls["authority"]}
        variables |= {"tls_version": "TLSv1.2,TLSv1.3"}
    own = {name.replace("-", "_").lower(): value for name, value in settings["mariadb_settings"].items()}
    return {**variables, **{name: _switch(value) for name, value in own.items()}}


def _switch(value: Any) -> Any:
    return {True: "ON", False: "OFF"}[value] if isinstance(value, bool) else value


def _accounts(settings: Settings) -> dict[str, Any]:
    users = settings["mariadb_users"]
    return {
        "databases": list(settings["mariadb_databases"]),
        "accounts": [one for user in users if user["state"] == "present" for one in _accounts_of(user, settings)],
        "absent": [user["name"] for user in users if user["state"] == "absent"],
    }


def _accounts_of(user: Mapping[str, Any], settings: Settings) -> Iterator[dict[str, Any]]:
    common = {
        "user": user["name"],
        "hashes": [native_hash(one) for one in (user["password"], user["former_password"]) if one],
        "connections": user["connections"],
        "rights": _rights(user, settings),
    }
    seen = set()
    for host in user["hosts"]:
        for name in _hosts_of(host):
            if name not in seen:
                yield {**common, "host": name, "tls": needs_tls(host, settings["mariadb_trusted_networks"])}
            seen.add(name)


def _hosts_of(host: str) -> Sequence[str]:
    """A host as the server compares it. Without names ``localhost`` is the socket alone."""
    if host == "localhost":
        return ["localhost", "127.0.0.1", "::1"]
    network = ipaddress.ip_network(host)
    single = network.num_addresses == 1
    return [str(network.network_address) if single else f"{network.network_address}/{network.netmask}"]


def _rights(user: Mapping[str, Any], settings: Settings) -> dict[str, list[str]]:
    """On what the user may do what; places as SQL writes them."""
    role = user["role"]
    databases = user["databases"]
    if role == "backup" and not databases:
        databases = [one["name"] for one in settings["mariadb_databases"]]
    found = {place: set(names) for place, names in BESIDES.get(role, {}).items()}
    if role == "backup" and settings["mariadb_binlog_days"]:
        found["*.*"] = set(BACKUP_WITH_BINLOG)
    granted = [(name, RIGHTS[role]) for name in databases]
    for name, names in granted + [(one["database"], one["privileges"]) for one in user["grants"]]:
        found.setdefault(_place(name), set()).update(one.upper() for one in names)
    return {place: sorted(names) for place, names in found.items() if names}


def _place(database: str) -> str:
    """A database as GRANT names it, where `_` stands for any letter unless it is escaped."""
    return "*.*" if database == "*" else "`" + database.replace("_", r"\_") + "`.*"
