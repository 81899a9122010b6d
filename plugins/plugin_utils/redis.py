# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What cannot work in the redis role's settings."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.fushuma.production.plugins.plugin_utils import secret
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import Problem, value_of

Settings = Mapping[str, Any]

NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
USER = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
MEMORY = re.compile(r"([1-9]\d*)(kb|mb|gb)")
LEAST_MEMORY = 1024 * 1024  # bytes; an empty server takes about as much
UNITS = {"kb": 1024, "mb": 1024**2, "gb": 1024**3}
RULE = re.compile(r"[+-]@?[a-z][a-z0-9_|-]*")
TOO_MUCH = {"+@all", "+@admin", "+@dangerous", "+acl", "+config", "+flushall", "+shutdown", "+debug"}
OWN_USERS = {"admin", "default"}
# What the other settings decide on.
OWN_DIRECTIVES = {
    "aclfile": "users",
    "appendonly": "persistence",
    "bind": "addresses",
    "databases": "databases",
    "dir": "name",
    "include": "settings",
    "masterauth": "replica_of",
    "masteruser": "replica_of",
    "maxclients": "clients",
    "maxmemory": "memory",
    "maxmemory-policy": "policy",
    "port": "port",
    "protected-mode": "users",
    "rename-command": "users",
    "replicaof": "replica_of",
    "requirepass": "users",
    "save": "persistence",
    "slaveof": "replica_of",
    "tls-port": "tls",
    "unixsocket": "name",
    "user": "users",
}


def problems(settings: Settings) -> list[Problem]:
    """Everything that cannot work. ``settings`` fit the role's argument_specs and hold all defaults."""
    found = []
    instances = settings["redis_instances"]
    if any(one["state"] == "present" for one in instances) and not settings["redis_admin_password"]:
        why = "each instance has an admin, and nobody may be one without a password"
        found.append(Problem("redis_admin_password", '""', why, secret.FORM))
    found += _twice("redis_instances", instances, "name")
    found += _twice("redis_instances", [one for one in instances if one["state"] == "present"], "port")
    for number, one in enumerate(instances):
        found += [problem.under(f"redis_instances[{number}]") for problem in _instance_problems(one)]
    return found


def bytes_of(memory: str) -> int:
    """``512mb`` as a number of bytes; 0 for what is no such text."""
    found = MEMORY.fullmatch(memory)
    return int(found[1]) * UNITS[found[2]] if found else 0


def _twice(setting: str, groups: Sequence[Mapping[str, Any]], key: str) -> Iterator[Problem]:
    seen: dict[Any, int] = {}
    for number, one in enumerate(groups):
        if one[key] in seen:
            why = f"{setting}[{seen[one[key]]}] has it already"
            yield Problem(f"{setting}[{number}].{key}", value_of(one[key]), why, f"another {key}")
        seen.setdefault(one[key], number)


def _instance_problems(one: Mapping[str, Any]) -> Iterator[Problem]:
    if not NAME.fullmatch(one["name"]):
        form = "lower-case letters, digits and dashes, such as cache"
        yield Problem("name", value_of(one["name"]), "a unit and files are called by it", form)
    if not 1 <= one["port"] <= 65535:
        yield Problem("port", value_of(one["port"]), "ports go from 1 to 65535", "6379")
    if bytes_of(one["memory"]) < LEAST_MEMORY:
        yield Problem("memory", value_of(one["memory"]), "it is no size, or less than an empty server takes", '"256mb"')
    yield from _address_problems(one)
    yield from _use_problems(one)
    yield from _twice("users", one["users"], "name")
    for number, user in enumerate(one["users"]):
        yield from (problem.under(f"users[{number}]") for problem in _user_problems(user))
    for key in one["settings"]:
        if key.lower() in OWN_DIRECTIVES:
            why = "another setting of the instance decides on it"
            yield Problem(f"settings.{key}", value_of(one["settings"][key]), why, OWN_DIRECTIVES[key.lower()])


def _address_problems(one: Mapping[str, Any]) -> Iterator[Problem]:
    loopback = []
    for number, address in enumerate(one["addresses"]):
        try:
            loopback.append(ipaddress.ip_address(address).is_loopback)
        except ValueError:
            yield Problem(f"addresses[{number}]", value_of(address), "it is no address", '"127.0.0.1" or "10.0.1.31"')
    if not one["addresses"]:
        yield Problem("addresses", "[]", "it would listen nowhere", '["127.0.0.1", "::1"]')
    sources = one["from"]
    if sources == "host":
        return
    if not isinstance(sources, list) or not sources:
        form = '"host", or a list of networks such as ["10.0.0.0/8"]'
        yield Problem("from", value_of(sources), "data is for machines that are named", form)
        return
    if all(loopback):
        why = "it listens on this host's loopback addresses only, so nobody else can connect"
        yield Problem("from", value_of(sources), why, '"host", or addresses that others reach')
    for number, network in enumerate(sources):
        try:
            wide = ipaddress.ip_network(str(network)).prefixlen == 0
        except ValueError as error:
            yield Problem(f"from[{number}]", value_of(network), f"it is no network ({error})", '"10.0.0.0/8"')
            continue
        if wide:
            yield Problem(f"from[{number}]", value_of(network), "it is the whole world", '"10.0.0.0/8"')


def _use_problems(one: Mapping[str, Any]) -> Iterator[Problem]:
    policy, persistence = one["policy"], one["persistence"]
    if one["use"] == "queue" and policy not in (None, "noeviction"):
        yield Problem("policy", value_of(policy), "a queue would lose jobs where memory is full", '"noeviction"')
    if one["use"] == "queue" and persistence == "none":
        yield Problem("persistence", value_of(persistence), "a queue would be empty after a restart", '"log"')
    if one["use"] == "session" and policy is not None and policy.startswith("allkeys-"):
        why = "sessions that never end, such as those of an index of them, would be forgotten too"
        yield Problem("policy", value_of(policy), why, '"volatile-lru"')


def _user_problems(user: Mapping[str, Any]) -> Iterator[Problem]:
    if user["name"] in OWN_USERS:
        yield Problem("name", value_of(user["name"]), "the role has a user of that name itself", '"app"')
    elif not USER.fullmatch(user["name"]):
        yield Problem("name", value_of(user["name"]), "it is no name for a user", "letters and digits, such as app")
    if user["former_password"] == user["password"]:
        shown = value_of(user["former_password"], secret=True)
        yield Problem("former_password", shown, "it is the present one", "the one before, or none")
    for key in ("keys", "channels"):
        for number, pattern in enumerate(user[key]):
            if not pattern or re.search(r"\s", pattern):
                yield Problem(f"{key}[{number}]", value_of(pattern), "it is no pattern of acl(7)", '"session:*"')
    for number, rule in enumerate(user["commands"]):
        if not RULE.fullmatch(rule):
            yield Problem(f"commands[{number}]", value_of(rule), "it is no rule on commands of acl(7)", '"+flushdb"')
        elif rule in TOO_MUCH:
            why = "the user could change or empty the whole server"
            yield Problem(f"commands[{number}]", value_of(rule), why, "the commands that are needed, one by one")
