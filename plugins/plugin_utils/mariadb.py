# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What cannot work in the mariadb role's settings."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.fushuma.production.plugins.plugin_utils import listening, mariadb_model, secret
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import Problem, repeated, value_of
from ansible_collections.fushuma.production.plugins.plugin_utils.sizes import bytes_of

Settings = Mapping[str, Any]

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
USER = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,79}")
VARIABLE = re.compile(r"[a-z][a-z0-9_]*")
LEAST_MEMORY = 8 * 1024**2  # bytes; InnoDB takes less for a mistake
OWN_USERS = {"root", "mysql", "mariadb.sys", "PUBLIC"}
OWN_DATABASES = {"mysql", "sys", "information_schema", "performance_schema", "test"}
READABLE_DATABASES = {"sys", "performance_schema"}

# Rights on the whole server with which nobody reads, changes or kills what belongs to others.
HARMLESS = {"PROCESS", "BINLOG MONITOR", "SLAVE MONITOR", "REPLICATION SLAVE", "RELOAD", "SHOW DATABASES"}
# What the other settings decide on.
OWN_VARIABLES = {
    "bind_address": "mariadb_addresses",
    "character_set_server": "mariadb_databases[].character_set",
    "collation_server": "mariadb_databases[].collation",
    "expire_logs_days": "mariadb_binlog_days",
    "binlog_expire_logs_seconds": "mariadb_binlog_days",
    "innodb_buffer_pool_size": "mariadb_memory",
    "log_bin": "mariadb_binlog_days",
    "long_query_time": "mariadb_slow_seconds",
    "log_slow_query_time": "mariadb_slow_seconds",
    "max_connections": "mariadb_max_connections",
    "port": "mariadb_port",
    "slow_query_log": "mariadb_slow_seconds",
    "log_slow_query": "mariadb_slow_seconds",
    "slow_query_log_file": "mariadb_slow_seconds",
    "log_slow_query_file": "mariadb_slow_seconds",
    "ssl": "mariadb_tls",
    "ssl_ca": "mariadb_tls",
    "ssl_cert": "mariadb_tls",
    "ssl_key": "mariadb_tls",
}
# Variables without which the role does not hold what it promises.
FIXED_VARIABLES = {
    "basedir": "the package decides where the server is",
    "datadir": "the unit may write below /var/lib/mysql only",
    "init_file": "its statements would run as root at every start",
    "local_infile": "clients could be told to send their own files",
    "pid_file": "the package decides on it",
    "plugin_dir": "the server would run programs from there",
    "secure_file_priv": "the server could read and write files elsewhere",
    "skip_grant_tables": "everybody would be let in",
    "skip_name_resolve": "whoever answers for an address would decide who is let in",
    "skip_networking": "mariadb_addresses decides where it listens",
    "socket": "the host's own tools look for it where it is",
    "symbolic_links": "tables could be put over other files",
    "user": "the package decides as whom it runs",
}


def problems(settings: Settings) -> list[Problem]:
    """Everything that cannot work. ``settings`` fit the role's argument_specs and hold all defaults."""
    databases = [one["name"] for one in settings["mariadb_databases"]]
    found = [*_server_problems(settings), *listening.problems(settings, "mariadb_")]
    for number, network in enumerate(settings["mariadb_trusted_networks"]):
        if _network(network) is None:
            form = '"172.16.0.0/12"'
            found.append(Problem(f"mariadb_trusted_networks[{number}]", value_of(network), "it is no network", form))
    found += repeated("mariadb_databases", settings["mariadb_databases"], "name")
    for number, database in enumerate(settings["mariadb_databases"]):
        found += [one.under(f"mariadb_databases[{number}]") for one in _database_problems(database)]
    found += repeated("mariadb_users", settings["mariadb_users"], "name")
    for number, user in enumerate(settings["mariadb_users"]):
        if user["state"] == "present":
            of_user = [*_user_problems(user, databases), *_host_problems(user, settings)]
        else:
            of_user = list(_name_problems(user))
        found += [one.under(f"mariadb_users[{number}]") for one in of_user]
    return found + _variable_problems(settings["mariadb_settings"]) + _budget_problems(settings)


def _server_problems(settings: Settings) -> Iterator[Problem]:
    if not 1 <= settings["mariadb_port"] <= 65535:
        yield Problem("mariadb_port", value_of(settings["mariadb_port"]), "ports go from 1 to 65535", "3306")
    if bytes_of(settings["mariadb_memory"]) < LEAST_MEMORY:
        why = "it is no size, or less than the server can work with"
        yield Problem("mariadb_memory", value_of(settings["mariadb_memory"]), why, '"256mb"')
    if not 10 <= settings["mariadb_max_connections"] <= 100000:
        why = "the server takes 10 to 100000"
        yield Problem("mariadb_max_connections", value_of(settings["mariadb_max_connections"]), why, "151")
    if not 0 <= settings["mariadb_binlog_days"] <= 99:
        why = "the server keeps its log for 1 to 99 days"
        yield Problem("mariadb_binlog_days", value_of(settings["mariadb_binlog_days"]), why, "7, or 0 for no log")
    if settings["mariadb_slow_seconds"] < 0:
        why = "no query takes less than no time"
        yield Problem("mariadb_slow_seconds", value_of(settings["mariadb_slow_seconds"]), why, "1, or 0 for no log")
    for name, kept in settings["mariadb_reserved_connections"].items():
        if kept < 0:
            why = "less than none cannot be kept"
            yield Problem(f"mariadb_reserved_connections.{name}", value_of(kept), why, "0 or more")


def _database_problems(one: Mapping[str, Any]) -> Iterator[Problem]:
    if one["name"] in OWN_DATABASES:
        yield Problem("name", value_of(one["name"]), "the server or its installer has that one for itself", '"shop"')
    elif not NAME.fullmatch(one["name"]):
        yield Problem("name", value_of(one["name"]), "it is no plain name", "letters, digits and _, such as shop")
    if not VARIABLE.fullmatch(one["character_set"]):
        yield Problem("character_set", value_of(one["character_set"]), "it is no character set", '"utf8mb4"')
    elif not re.fullmatch(rf"{one['character_set']}_[a-z0-9_]+", one["collation"]):
        why = f"it does not belong to the character set {one['character_set']}"
        yield Problem("collation", value_of(one["collation"]), why, '"utf8mb4_unicode_ci" for utf8mb4')


def _name_problems(user: Mapping[str, Any]) -> Iterator[Problem]:
    if user["name"] in OWN_USERS:
        yield Problem("name", value_of(user["name"]), "the server needs a user of that name itself", '"app"')
    elif not USER.fullmatch(user["name"]):
        yield Problem("name", value_of(user["name"]), "it is no name for a user", "letters and digits, such as app")


def _user_problems(user: Mapping[str, Any], databases: list[str]) -> Iterator[Problem]:
    yield from _name_problems(user)
    if not user["password"]:
        yield Problem("password", "missing", "nobody is let in without one", secret.FORM)
    elif user["former_password"] == user["password"]:
        shown = value_of(user["former_password"], secret=True)
        yield Problem("former_password", shown, "it is the present one", "the one before, or none")
    if user["connections"] < 0:
        why = "less than none cannot be allowed"
        yield Problem("connections", value_of(user["connections"]), why, "a number, or 0 for no limit")
    if user["role"] == "exporter" and user["databases"]:
        why = "an exporter reads figures of the whole server, and no data"
        yield Problem("databases", value_of(user["databases"]), why, "none, or another role")
    if user["role"] in ("app", "migrate") and not user["databases"]:
        yield Problem("databases", "[]", "it would have nothing to work with", "the databases it works with")
    for number, name in enumerate(user["databases"]):
        if name not in databases:
            form = "one that is there, or declare it"
            yield Problem(f"databases[{number}]", value_of(name), "mariadb_databases has none of that name", form)
    for number, grant in enumerate(user["grants"]):
        yield from (one.under(f"grants[{number}]") for one in _grant_problems(grant, databases))


def _grant_problems(grant: Mapping[str, Any], databases: list[str]) -> Iterator[Problem]:
    everywhere = grant["database"] == "*"
    readable = grant["database"] in READABLE_DATABASES
    if not everywhere and not readable and grant["database"] not in databases:
        form = 'one that is there, "performance_schema", "sys", or "*" for the whole server'
        yield Problem("database", value_of(grant["database"]), "mariadb_databases has none of that name", form)
    known = HARMLESS if everywhere else {"SELECT", "EXECUTE"} if readable else set(mariadb_model.ON_DATABASES)
    for number, privilege in enumerate(grant["privileges"]):
        if privilege.upper() not in known:
            where = "the whole server" if everywhere else "a database"
            why = f"it is no privilege on {where} that a user may have"
            yield Problem(f"privileges[{number}]", value_of(privilege), why, "one of " + ", ".join(sorted(known)))


def _host_problems(user: Mapping[str, Any], settings: Settings) -> Iterator[Problem]:
    if not user["hosts"]:
        yield Problem("hosts", "[]", "it could come from nowhere", '["localhost"]')
    for number, host in enumerate(user["hosts"]):
        setting, network = f"hosts[{number}]", _network(host)
        if host == "localhost":
            continue
        if network is None:
            why = "it is neither an address nor a network, and the server resolves no names"
            yield Problem(setting, value_of(host), why, '"localhost", "10.0.1.21" or "10.0.1.0/24"')
        elif network.prefixlen == 0:
            yield Problem(setting, value_of(host), "it is the whole world", '"10.0.1.0/24"')
        elif network.version == 6 and network.num_addresses > 1:
            why = "the server knows networks of IPv4 only"
            yield Problem(setting, value_of(host), why, "each IPv6 address by itself")
        elif not settings["mariadb_tls"] and mariadb_model.needs_tls(host, settings["mariadb_trusted_networks"]):
            why = "who comes from another host has to speak TLS, and the server has no certificate"
            form = "mariadb_tls, or the network into mariadb_trusted_networks where nobody can listen"
            yield Problem(setting, value_of(host), why, form)


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        return None


def _variable_problems(variables: Mapping[str, Any]) -> list[Problem]:
    found = []
    for key, value in variables.items():
        setting, name = f"mariadb_settings.{key}", key.replace("-", "_").lower()
        # An option has its value's opposite under another name, too: skip_x, disable_x.
        plain = re.sub(r"^(loose|maximum|enable|disable|skip)_", "", name)
        if not VARIABLE.fullmatch(name):
            found.append(Problem(setting, "given", "it is no name of a variable", "for example sort_buffer_size"))
        elif name.startswith("loose_"):
            why = "the server would pass over what it does not know"
            found.append(Problem(setting, value_of(value), why, name.removeprefix("loose_")))
        elif plain in OWN_VARIABLES:
            found.append(Problem(setting, value_of(value), "another setting decides on it", OWN_VARIABLES[plain]))
        elif name in FIXED_VARIABLES or plain in FIXED_VARIABLES:
            why = FIXED_VARIABLES.get(name) or FIXED_VARIABLES[plain]
            found.append(Problem(setting, value_of(value), why, "nothing for it"))
        elif isinstance(value, (dict, list)) or "\n" in str(value):
            found.append(Problem(setting, value_of(value), "a variable has one value", "one text or number"))
    return found


def _budget_problems(settings: Settings) -> list[Problem]:
    found = []
    hosts = {one["host"] for one in settings["mariadb_connections"]}
    if len(hosts) > 1:
        why = "they are for several hosts, and this is one"
        found.append(Problem("mariadb_connections", value_of(sorted(hosts)), why, "those of this host"))
    for number, one in enumerate(settings["mariadb_connections"]):
        found += [
            Problem(f"mariadb_connections[{number}].{key}", value_of(one[key]), "it is no number of things", "1")
            for key in ("replicas", "processes", "pools", "limit")
            if one[key] < 0
        ]
    budget = mariadb_model.budget(settings)
    if budget["applications"] and not found and budget["needed"] > budget["max"]:
        terms = " + ".join(f"{one['term']} ({one['who']})" for one in budget["applications"])
        kept = ", ".join(f"{name} {kept}" for name, kept in settings["mariadb_reserved_connections"].items())
        why = (
            f"applications may open {terms} = {budget['wanted']} connections, a tenth more is {budget['ample']}, "
            f"and {budget['reserved']} are kept ({kept})"
        )
        form = f"at least {budget['needed']}, or smaller pools"
        found.append(Problem("mariadb_max_connections", value_of(budget["max"]), why, form))
    return found
