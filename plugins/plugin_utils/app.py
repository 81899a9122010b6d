# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What cannot work in the app role's settings."""

from __future__ import annotations

import ipaddress
import json
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.fushuma.production.plugins.plugin_utils import app_model as model
from ansible_collections.fushuma.production.plugins.plugin_utils import listening, secret
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import Problem, repeated, value_of

Settings = Mapping[str, Any]
App = Mapping[str, Any]

NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
NAME_FORM = "lower-case letters, digits and dashes, such as shop"
USER = re.compile(r"(\d+)(:\d+)?")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
CAPABILITY = re.compile(r"[A-Z][A-Z_]+")
CALENDAR = re.compile(r"[A-Za-z0-9*:.,/~ -]+")
VOLUME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
LEAST_MEMORY = 6 * 1024 * 1024  # bytes; Docker takes no less
# Whoever has one of these has the host.
HOST_ITSELF = (
    *("/", "/boot", "/dev", "/etc", "/proc", "/root", "/run", "/sys", "/usr"),
    *("/var", "/var/lib", "/var/lib/docker", "/var/run"),
)
DOCKER_SOCKETS = ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock")
TOO_MUCH = {"ALL", "SYS_ADMIN", "SYS_MODULE", "SYS_PTRACE", "SYS_RAWIO", "NET_ADMIN", "DAC_READ_SEARCH", "BPF"}
TYPES: Mapping[str, tuple[re.Pattern[str], str]] = {
    "int": (re.compile(r"[+-]?\d+"), "a whole number"),
    "float": (re.compile(r"[+-]?\d+(\.\d+)?"), "a number such as 0.5"),
    "bool": (re.compile(r"true|false"), "true or false"),
    "url": (re.compile(r"[a-z][a-z0-9+.-]*://\S+"), "a URL such as https://api.example.net/v1"),
}


def problems(settings: Settings) -> list[Problem]:
    """Everything that cannot work. ``settings`` fit the role's argument_specs and hold all defaults."""
    apps = settings["app_applications"]
    found = [*repeated("app_applications", apps, "name"), *_shared_names(apps), *_shared_volumes(apps)]
    for number, app in enumerate(apps):
        where = f"app_applications[{number}]"
        found += [problem.under(where) for problem in _app_problems(app, settings)]
    return found


def _shared_names(apps: Sequence[App]) -> Iterator[Problem]:
    """Processes of two applications whose containers and units would have one name."""
    users: dict[str, tuple[int, str]] = {}
    for number, app in enumerate(apps):
        for index, process in enumerate(app["processes"]):
            setting = f"app_applications[{number}].processes[{index}]"
            owner, other = users.setdefault(f"{app['name']}-{process['name']}", (number, setting))
            if owner != number and apps[owner]["name"] != app["name"]:
                why = f"{other} would have a container of the same name"
                yield Problem(f"{setting}.name", value_of(process["name"]), why, "another name")


def _shared_volumes(apps: Sequence[App]) -> Iterator[Problem]:
    """Volumes that two applications write: neither knows of the other's locks, and a restore undoes both."""
    writers: dict[str, tuple[int, str]] = {}
    for number, app in enumerate(apps):
        for index, process in enumerate(app["processes"]):
            for place, volume in enumerate(process["volumes"]):
                if volume["read_only"]:
                    continue
                setting = f"app_applications[{number}].processes[{index}].volumes[{place}].source"
                owner, other = writers.setdefault(_plain(volume["source"]), (number, setting))
                if owner != number:
                    why = f"{other} writes it too, and neither application knows of the other"
                    yield Problem(setting, value_of(volume["source"]), why, "a volume of its own, or read_only: true")


def _app_problems(app: App, settings: Settings) -> Iterator[Problem]:
    if not NAME.fullmatch(app["name"]):
        yield Problem("name", value_of(app["name"]), "containers and files are called by it", NAME_FORM)
    yield from (problem.under("image") for problem in _image_problems(app["image"]))
    yield from repeated("processes", app["processes"], "name")
    if not app["processes"]:
        yield Problem("processes", "[]", "it would do nothing", "at least one")
    for number, process in enumerate(app["processes"]):
        yield from (problem.under(f"processes[{number}]") for problem in _process_problems(process))
    yield from _address_problems(app, settings["app_edges"])
    yield from _port_problems(app)
    yield from _network_problems(app)
    yield from _environment_problems(app, settings["app_dsns"])
    if app["migrate"]:
        yield from _migrate_problems(app["migrate"])
    for number, one in enumerate(app["smoke"]):
        yield from (problem.under(f"smoke[{number}]") for problem in _smoke_problems(one))
    for name, least in (("keep", 1), ("ready_timeout", 1), ("drain_timeout", 0)):
        yield from _at_least(least, name, app[name])


# --- images and processes ---------------------------------------------------------------------------------------------


def _image_problems(image: Mapping[str, Any]) -> Iterator[Problem]:
    given = [name for name in ("reference", "archive", "build") if image[name]]
    if len(given) != 1:
        shown = " and ".join(given) or "missing"
        yield Problem("", shown, "an image comes from one place", "one of reference, archive and build")
        return
    (source,) = given
    value = image[source]
    if source == "reference" and not model.DIGEST.fullmatch(value):
        why = "a tag is another image tomorrow; only a digest says which one runs, and which one to go back to"
        yield Problem(source, value_of(value), why, "it with its digest, as NAME@sha256:…")
    if source == "archive":
        try:
            model.image_of(image)
        except (OSError, ValueError) as error:
            why = f"it cannot be used ({error.strerror if isinstance(error, OSError) else error})"
            yield Problem(source, value_of(value), why, "a file as `docker save` makes it")
    if source == "build" and not (Path(value) / "Dockerfile").is_file():
        yield Problem(source, value_of(value), "there is no Dockerfile", "the folder that holds it")


def _process_problems(process: Mapping[str, Any]) -> Iterator[Problem]:
    name = process["name"]
    if not NAME.fullmatch(name):
        yield Problem("name", value_of(name), "containers and files are called by it", "such as web or worker")
    if name == model.MIGRATION:
        yield Problem("name", value_of(name), "the migration is called so", "another name")
    yield from _port_and_ready_problems(process)
    yield from _turn_problems(process)
    yield from _rights_problems(process)
    yield from _limit_problems(process)


def _port_and_ready_problems(process: Mapping[str, Any]) -> Iterator[Problem]:
    port, ready = process["port"], process["ready"]
    if port is not None and not 1 <= port <= 65535:
        yield Problem("port", value_of(port), "ports go from 1 to 65535", "3000")
    if port is not None and ready is None:
        why = "nobody could tell when visitors may be sent to it"
        yield Problem("ready", "missing", why, '{path: "/ready"}, a path that asks its database and Redis')
    if port is None and ready is not None:
        yield Problem("ready", value_of(ready), "there is no port on which it could be asked", "port as well")
    metrics = process["metrics"]
    if metrics is not None and port is None:
        yield Problem("metrics", value_of(metrics), "there is no port on which it could be asked", "port as well")
    if metrics is not None and not re.fullmatch(r"/[A-Za-z0-9/._-]*", metrics):
        yield Problem("metrics", value_of(metrics), "it is no plain path", '"/metrics"')
    if ready is not None and not ready["path"].startswith("/"):
        yield Problem("ready.path", value_of(ready["path"]), "it is no path", '"/ready"')


def _turn_problems(process: Mapping[str, Any]) -> Iterator[Problem]:
    """When it runs, and with how many others."""
    schedule, answers = process["schedule"], process["port"] is not None
    if schedule is not None and answers:
        why = "what runs at its time only can answer nobody"
        yield Problem("schedule", value_of(schedule), why, "port or schedule, not both")
    if schedule is not None and not CALENDAR.fullmatch(schedule):
        why = "it is no calendar event of systemd.time(7)"
        yield Problem("schedule", value_of(schedule), why, '"*-*-* 03:30" or "hourly"')
    if schedule is not None and process["replicas"] != 1:
        yield Problem("replicas", value_of(process["replicas"]), "there is one of it at its time", "1")
    elif process["single"] and process["replicas"] != 1:
        yield Problem("replicas", value_of(process["replicas"]), "there may never be two of it (single)", "1")
    if process["single"] and answers:
        why = "visitors would have nobody between the end of one and the begin of the next"
        yield Problem("single", "true", why, "false for a process that has a port")


def _rights_problems(process: Mapping[str, Any]) -> Iterator[Problem]:
    user = process["user"]
    if user is not None and not USER.fullmatch(user):
        yield Problem("user", value_of(user), "the host cannot know what a name means inside", '"10001:10001"')
    elif user is not None and int(user.partition(":")[0]) == 0:
        yield Problem("user", value_of(user), "it is root, who would be root of the host too", '"10001:10001"')
    for number, folder in enumerate(process["tmpfs"]):
        if not folder.startswith("/") or set(folder) & set(":, "):
            yield Problem(f"tmpfs[{number}]", value_of(folder), "it is no path", '"/tmp"')
    for number, capability in enumerate(process["capabilities"]):
        shown = value_of(capability)
        if not CAPABILITY.fullmatch(capability):
            yield Problem(f"capabilities[{number}]", shown, "it is no capability", '"NET_BIND_SERVICE"')
        elif capability.removeprefix("CAP_") in TOO_MUCH:
            yield Problem(f"capabilities[{number}]", shown, "with it the container could take over the host", "others")
    for number, volume in enumerate(process["volumes"]):
        yield from (problem.under(f"volumes[{number}]") for problem in _volume_problems(volume))


def _limit_problems(process: Mapping[str, Any]) -> Iterator[Problem]:
    if model.bytes_of(process["memory"]) < LEAST_MEMORY:
        yield Problem("memory", value_of(process["memory"]), "it is no size that a container can have", '"512m"')
    for name, least in (("replicas", 1), ("cpus", 0), ("pids", 1), ("stop_timeout", 0)):
        yield from _at_least(least, name, process[name])
    for number, one in enumerate(process["connections"]):
        for key in ("processes", "pools", "limit"):
            yield from _at_least(1, f"connections[{number}].{key}", one[key])


def _at_least(least: int, setting: str, value: float) -> Iterator[Problem]:
    if value < least:
        yield Problem(setting, value_of(value), f"it is less than {least}", f"{least} or more")


def _plain(source: str) -> str:
    """A folder in the one form in which Docker takes it; the name of a volume as it is."""
    return "/" + posixpath.normpath(source).lstrip("/") if source.startswith("/") else source


def _volume_problems(volume: Mapping[str, Any]) -> Iterator[Problem]:
    source, target = volume["source"], volume["target"]
    path = _plain(source)
    if path in DOCKER_SOCKETS:
        yield Problem("source", value_of(source), "with Docker's socket a container is root of the host", "nothing")
    elif path in HOST_ITSELF:
        why = "it is a part of the host itself"
        yield Problem("source", value_of(source), why, 'the name of a volume, or a folder such as "/srv/uploads"')
    elif ":" in source or not (source.startswith("/") or VOLUME.fullmatch(source)):
        why = "it is neither the name of a volume nor a path"
        yield Problem("source", value_of(source), why, '"uploads" or "/srv/uploads"')
    if not target.startswith("/") or ":" in target or target.rstrip("/") == "":
        yield Problem("target", value_of(target), "it is no path inside", '"/app/uploads"')


# --- where it answers -------------------------------------------------------------------------------------------------


def _address_problems(app: App, edges: Sequence[str]) -> Iterator[Problem]:
    address = app["address"]
    try:
        parsed = ipaddress.ip_address(address.strip("[]"))
    except ValueError:
        yield Problem("address", value_of(address), "it is no address", '"127.0.0.1" or the host\'s own private one')
        return
    if parsed.is_unspecified:
        yield Problem("address", value_of(address), "it would answer everybody", "the host's own private address")
    answers = any(process["port"] for process in app["processes"])
    if parsed.is_loopback and edges and answers:
        why = f"nginx asks from {', '.join(edges)} too"
        yield Problem("address", value_of(address), why, "the host's own private address, and their networks in from")
    yield from listening.sources(app["from"], "from", loopback=parsed.is_loopback)


def _port_problems(app: App) -> Iterator[Problem]:
    first, last = model.ports_of(app["ports"])
    if not 1024 <= first <= last <= 65535:
        yield Problem("ports", value_of(app["ports"]), "it is no range of ports from 1024 to 65535", '"8100-8119"')
        return
    needed = sum(process["replicas"] for process in app["processes"] if process["port"])
    if last - first + 1 < 2 * needed:
        why = f"two releases with {needed} replicas each need {2 * needed} ports"
        yield Problem("ports", value_of(app["ports"]), why, f'"{first}-{first + 2 * needed - 1}" or more')


def _network_problems(app: App) -> Iterator[Problem]:
    if app["network"] is not None and not NAME.fullmatch(app["network"]):
        yield Problem("network", value_of(app["network"]), "it is no name for a network", NAME_FORM)
    if app["subnet"] is not None:
        try:
            subnet = ipaddress.ip_network(app["subnet"])
        except ValueError as error:
            yield Problem("subnet", value_of(app["subnet"]), f"it is no network ({error})", '"172.30.1.0/24"')
        else:
            if not subnet.is_private:
                yield Problem("subnet", value_of(app["subnet"]), "others in the world have it", '"172.30.1.0/24"')
    for name, address in app["hosts"].items():
        try:
            ipaddress.ip_address(address)
        except ValueError:
            yield Problem(f"hosts.{name}", value_of(address), "it is no address", '"172.30.1.1"')


def _smoke_problems(one: Mapping[str, Any]) -> Iterator[Problem]:
    instead = "a URL that begins with https://"
    try:
        parts = urlsplit(one["url"])
        _port = parts.port
    except ValueError as error:
        yield Problem("url", value_of(one["url"]), f"it is no URL ({error})", instead)
    else:
        if parts.scheme != "https" or not parts.hostname:
            yield Problem("url", value_of(one["url"]), "visitors come over TLS", instead)
    if one["address"] is not None and not re.fullmatch(r"(\[[0-9a-f:]+\]|[^:]+):\d+", one["address"]):
        yield Problem("address", value_of(one["address"]), "it is no host with a port", '"127.0.0.1:443"')


# --- the environment --------------------------------------------------------------------------------------------------


def _environment_problems(app: App, dsns: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    yield from repeated("env", app["env"], "name")
    known = {one["name"]: one for one in app["env"]}
    for number, one in enumerate(app["env"]):
        yield from (problem.under(f"env[{number}]") for problem in _variable_problems(one))
    given = {**app["values"], **app["secrets"]}
    migrated = {**app["migrate"]["values"], **app["migrate"]["secrets"]} if app["migrate"] else {}
    migrated = {**model.error_tracking(app, dsns), **migrated}
    for one in app["env"]:
        absent = one["default"] is None and given.get(one["name"]) is None
        if one["required"] and absent and one["name"] not in migrated:
            group = "secrets" if one["secret"] else "values"
            told = f": {one['description']}" if one["description"] else ""
            yield Problem(f"{group}.{one['name']}", "missing", f"the application needs it{told}", _form(one))
    yield from _value_problems("values", app["values"], known)
    yield from _value_problems("secrets", app["secrets"], known)
    for number, process in enumerate(app["processes"]):
        yield from _value_problems(f"processes[{number}].values", process["values"], known)
    if app["migrate"]:
        yield from _value_problems("migrate.values", app["migrate"]["values"], known)
        yield from _value_problems("migrate.secrets", app["migrate"]["secrets"], known)


def _variable_problems(one: Mapping[str, Any]) -> Iterator[Problem]:
    if not VARIABLE.fullmatch(one["name"]):
        yield Problem("name", value_of(one["name"]), "it is no name of a variable", "DATABASE_URL")
    if one["secret"] and one["default"] is not None:
        yield Problem("default", value_of(one["default"], secret=True), "everybody would know the secret", "no default")
    if one["pattern"] is not None:
        try:
            re.compile(one["pattern"])
        except re.error as error:
            yield Problem("pattern", value_of(one["pattern"]), f"it is no regular expression ({error})", '"[a-z]+"')
            return
    if one["default"] is not None and not one["secret"]:
        yield from _misfits("default", one, one["default"])


def _value_problems(group: str, values: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    hidden = group.endswith("secrets")
    for name, value in values.items():
        setting, shown = f"{group}.{name}", value_of(value, secret=hidden)
        one = known.get(name)
        if one is None:
            near = f"one of {', '.join(sorted(known))}, or it" if known else "it"
            yield Problem(setting, shown, "env has no variable of this name", f"{near} into env first")
        elif one["secret"] and not hidden:
            yield Problem(setting, value_of(value, secret=True), "it is a secret", "it below secrets, in a vault file")
        elif hidden and not one["secret"]:
            yield Problem(setting, shown, "env does not say that it is a secret", "it below values, or secret: true")
        elif value is not None:
            yield from _misfits(setting, one, value)


def _misfits(setting: str, one: Mapping[str, Any], value: Any) -> Iterator[Problem]:
    """Why a value is none for a variable."""
    shown, text = value_of(value, secret=one["secret"]), model.text_of(one["type"], value)
    pattern, form = TYPES.get(one["type"], (None, ""))
    if one["type"] == "str" and isinstance(value, (Mapping, list, tuple)):
        yield Problem(setting, shown, "it is no str", "one text, or another type in env")
    elif set(text) & set("\n\r\0"):
        yield Problem(setting, shown, "a container's environment has one line for each variable", "it as base64")
    elif pattern and not pattern.fullmatch(text):
        yield Problem(setting, shown, f"it is no {one['type']}", form)
    elif one["type"] == "json" and not _is_json(text):
        yield Problem(setting, shown, "it is no JSON", '{"a": 1}')
    elif one["pattern"] is not None and _compiles(one["pattern"]) and not re.fullmatch(one["pattern"], text):
        yield Problem(setting, shown, f"it does not fit the pattern {one['pattern']}", "one that does")
    elif not one["secret"] and isinstance(value, str) and re.fullmatch(r"(?i)change.?me|todo|fixme|<[^>]*>", value):
        yield Problem(setting, shown, "it is a placeholder", "the value that is meant")


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _form(one: Mapping[str, Any]) -> str:
    if one["secret"]:
        return secret.FORM
    return TYPES[one["type"]][1] if one["type"] in TYPES else "its value"


def _migrate_problems(migrate: Mapping[str, Any]) -> Iterator[Problem]:
    if not migrate["command"]:
        yield Problem("migrate.command", "[]", "it would do nothing", 'a command such as ["npm", "run", "migrate"]')
    yield from _at_least(1, "migrate.timeout", migrate["timeout"])
