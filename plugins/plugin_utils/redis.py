# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What cannot work in the redis role's settings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.fushuma.production.plugins.plugin_utils import listening, secret
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import Problem, repeated, value_of
from ansible_collections.fushuma.production.plugins.plugin_utils.sizes import bytes_of

Settings = Mapping[str, Any]

NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
USER = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
LEAST_MEMORY = 1024 * 1024  # bytes; an empty server takes about as much
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
    found += repeated("redis_instances", instances, "name")
    found += repeated("redis_instances", [one for one in instances if one["state"] == "present"], "port")
    for number, one in enumerate(instances):
        found += [problem.under(f"redis_instances[{number}]") for problem in _instance_problems(one)]
    return found


def _instance_problems(one: Mapping[str, Any]) -> Iterator[Problem]:
    if not NAME.fullmatch(one["name"]):
        form = "lower-case letters, digits and dashes, such as cache"
        yield Problem("name", value_of(one["name"]), "a unit and files are called by it", form)
    if not 1 <= one["port"] <= 65535:
        yield Problem("port", value_of(one["port"]), "ports go from 1 to 65535", "6379")
    if bytes_of(one["memory"]) < LEAST_MEMORY:
        yield Problem("memory", value_of(one["memory"]), "it is no size, or less than an empty server takes", '"256mb"')
    yield from listening.problems(one)
    yield from _use_problems(one)
    yield from repeated("users", one["users"], "name")
    for number, user in enumerate(one["users"]):
        yield from (problem.under(f"users[{number}]") for problem in _user_problems(user))
    for key in one["settings"]:
        if key.lower() in OWN_DIRECTIVES:
            why = "another setting of the instance decides on it"
            yield Problem(f"settings.{key}", value_of(one["settings"][key]), why, OWN_DIRECTIVES[key.lower()])


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
