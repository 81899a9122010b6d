# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What cannot work in the exporters role's settings."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from ansible_collections.fushuma.production.plugins.plugin_utils import listening
from ansible_collections.fushuma.production.plugins.plugin_utils.exporters_model import NAMES
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import Problem, repeated, value_of

Settings = Mapping[str, Any]

# What an argument may be made of: it goes through an environment file and a unit, which both read some characters.
ARGUMENT = re.compile(r"--?(?P<name>[a-z][A-Za-z0-9._-]*)(=[A-Za-z0-9._:/,=^$?|()*+\[\]@-]*)?")
OWN_ARGUMENTS = {
    "collector.systemd": "nothing; it is on",
    "collector.textfile.directory": "exporters_textfile_folder",
    "config.file": "exporters_extra.modules",
    "config.my-cnf": "a user of MariaDB whose role is exporter",
    "nginx.scrape-uri": "nginx_status_port",
    "redis.addr": "redis_instances",
    "redis.password": "a user of the instance whose role is exporter",
    "redis.password-file": "a user of the instance whose role is exporter",
    "redis.user": "a user of the instance whose role is exporter",
    "web.listen-address": "exporters_address and exporters_ports",
}
MODULE = re.compile(r"[a-z][a-z0-9_]{0,63}")
OWN_MODULES = {"http", "http_2xx", "http_insecure", "http_login", "http_login_insecure", "tcp"}
PROBERS = ("http", "tcp", "dns", "icmp", "grpc")
JOB = re.compile(r"[a-z][a-z0-9_]{0,63}")
LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
OWN_LABELS = {"host": "another name; every series has it", "job": "job"}
ADDRESS = re.compile(r"(\[[0-9a-f:]+\]|[A-Za-z0-9.-]+):(?P<port>\d{1,5})")
NEEDED = {
    "nginx": ("url",),
    "redis": ("name", "host", "port", "user", "password"),
    "mariadb": ("socket", "user", "password"),
    "app": ("name", "process", "address", "path"),
}


def problems(settings: Settings) -> list[Problem]:
    """Everything that cannot work. ``settings`` fit the role's argument_specs and hold all defaults."""
    return [
        *_address_problems(settings),
        *_port_problems(settings["exporters_ports"]),
        *_argument_problems(settings["exporters_arguments"]),
        *_folder_problems(settings),
        *_pattern_problems(settings),
        *_source_problems(settings),
        *_module_problems(settings["exporters_extra"]["modules"]),
        *_scrape_problems(settings["exporters_extra"]["scrapes"]),
    ]


def _address_problems(settings: Settings) -> Iterator[Problem]:
    given = settings["exporters_address"]
    form = '"127.0.0.1" or a private address such as "10.0.1.31"'
    try:
        address = ipaddress.ip_address(given)
    except ValueError:
        yield Problem("exporters_address", value_of(given), "it is no address", form)
        return
    if address.is_unspecified:
        why = "Prometheus has to know one address at which it asks, and the world need not reach the figures"
        yield Problem("exporters_address", value_of(given), why, form)
    elif address.is_global:
        yield Problem("exporters_address", value_of(given), "the whole world reaches it", form)
    yield from listening.sources(settings["exporters_from"], "exporters_from", loopback=address.is_loopback)


def _port_problems(ports: Mapping[str, int]) -> Iterator[Problem]:
    seen: dict[int, str] = {}
    for name in NAMES:
        port = ports[name]
        if not 1 <= port <= 65535:
            yield Problem(f"exporters_ports.{name}", value_of(port), "ports go from 1 to 65535", "9100")
        elif port in seen:
            why = f"exporters_ports.{seen[port]} has it already"
            yield Problem(f"exporters_ports.{name}", value_of(port), why, "another port")
        seen.setdefault(port, name)


def _argument_problems(arguments: Mapping[str, list[str]]) -> Iterator[Problem]:
    for exporter in NAMES:
        for number, one in enumerate(arguments[exporter]):
            setting = f"exporters_arguments.{exporter}[{number}]"
            found = ARGUMENT.fullmatch(one)
            if not found:
                why = "it is no argument, or has characters that do not survive a unit"
                yield Problem(setting, value_of(one), why, '"--name" or "--name=value" without spaces and quotes')
            elif found["name"].removeprefix("no-") in OWN_ARGUMENTS:
                why = "other settings decide on it"
                yield Problem(setting, value_of(one), why, OWN_ARGUMENTS[found["name"].removeprefix("no-")])


def _folder_problems(settings: Settings) -> Iterator[Problem]:
    folder = settings["exporters_textfile_folder"]
    if not re.fullmatch(r"/[A-Za-z0-9._/-]+[A-Za-z0-9_-]", folder) or ".." in folder:
        form = '"/var/lib/prometheus/node-exporter"'
        yield Problem("exporters_textfile_folder", value_of(folder), "it is no plain path from the root", form)


def _pattern_problems(settings: Settings) -> Iterator[Problem]:
    for name in ("exporters_certificates", "exporters_drift_ignored"):
        for number, pattern in enumerate(settings[name]):
            if not pattern.startswith("/"):
                why = "it is no pattern of paths from the root"
                yield Problem(f"{name}[{number}]", value_of(pattern), why, '"/etc/ssl/own/*.pem"')


def _source_problems(settings: Settings) -> Iterator[Problem]:
    users: dict[str, int] = {}
    folder = PurePosixPath(settings["exporters_textfile_folder"])
    for number, one in enumerate(settings["exporters_sources"]):
        where = f"exporters_sources[{number}]"
        for key in () if one["textfile"] else NEEDED.get(one["job"], ()):
            if not one[key]:
                yield Problem(f"{where}.{key}", "missing", f"{one['job']} cannot be measured without", "it")
        if one["textfile"] and PurePosixPath(one["textfile"]).parent != folder:
            why = f"node_exporter reads {folder}"
            yield Problem(f"{where}.textfile", value_of(one["textfile"]), why, "one folder in both settings")
        if one["job"] == "redis" and one["user"]:
            users.setdefault(one["user"], number)
            if len(users) > 1:
                (name, first), *_more = users.items()
                why = f"one exporter asks all instances of a host, and exporters_sources[{first}].user is {name}"
                yield Problem(f"{where}.user", value_of(one["user"]), why, "one name for the exporter in all instances")


def _module_problems(modules: Mapping[str, Any]) -> Iterator[Problem]:
    for name, module in modules.items():
        where = f"exporters_extra.modules.{name}"
        if not MODULE.fullmatch(str(name)):
            yield Problem(where, value_of(name), "it is no name", "lower-case letters, digits and _, such as smtp")
        elif name in OWN_MODULES:
            yield Problem(where, value_of(name), "the role has a module of that name itself", "another name")
        if not isinstance(module, Mapping) or module.get("prober") not in PROBERS:
            yield Problem(where, value_of(module), "it does not say how to ask", f"prober: one of {', '.join(PROBERS)}")


def _scrape_problems(scrapes: list[Mapping[str, Any]]) -> Iterator[Problem]:
    yield from repeated("exporters_extra.scrapes", scrapes, "address") if _alike(scrapes) else ()
    for number, one in enumerate(scrapes):
        where = f"exporters_extra.scrapes[{number}]"
        if not JOB.fullmatch(one["job"]):
            form = "lower-case letters, digits and _, such as smtp"
            yield Problem(f"{where}.job", value_of(one["job"]), "it is no name", form)
        found = ADDRESS.fullmatch(one["address"])
        if not found or not 1 <= int(found["port"]) <= 65535:
            yield Problem(f"{where}.address", value_of(one["address"]), "it is no address", '"127.0.0.1:9256"')
        if one["path"] and not one["path"].startswith("/"):
            yield Problem(f"{where}.path", value_of(one["path"]), "it does not begin with /", '"/metrics"')
        for label in one["labels"]:
            if not LABEL.fullmatch(str(label)):
                form = "letters, digits and _"
                yield Problem(f"{where}.labels.{label}", value_of(label), "it is no name of a label", form)
            elif label in OWN_LABELS:
                why = "the role says it itself"
                yield Problem(f"{where}.labels.{label}", value_of(one["labels"][label]), why, OWN_LABELS[label])


def _alike(scrapes: list[Mapping[str, Any]]) -> bool:
    """Whether two of them ask the same of the same: their series would be one."""
    asked = [(one["address"], one["path"], str(one["params"])) for one in scrapes]
    return len(asked) != len(set(asked))
