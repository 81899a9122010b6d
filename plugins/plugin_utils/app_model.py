# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the app role's settings mean: the applications as releases take them, images told apart, what others need to
know."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.fushuma.production.plugins.module_utils.releases import (
    ADDRESSES,
    IMAGE_MARK,
    NGINX_GROUP,
    SLOTS,
    Application,
    Image,
    Process,
    nginx_files,
)

Settings = Mapping[str, Any]
App = Mapping[str, Any]

MIGRATION = "migrate"  # the name of the process that migrates
DIGEST = re.compile(r"[^\s@]+@(sha256:[0-9a-f]{64})")
MEMORY = re.compile(r"([1-9]\d*)([kmg])")
PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
MULTIPLES = {"k": 1024, "m": 1024**2, "g": 1024**3}
NOT_SENT = {".git", ".hg", ".svn"}
# Everything that a folder in memory may not do: no programs, no devices, no rights of others.
TMPFS = "rw,noexec,nosuid,nodev,size=64m"


def model(settings: Settings, *, first: bool = True) -> list[dict[str, Any]]:
    """The applications as the module app_release takes them. ``settings`` have passed the judge and hold all defaults.

    first: whether the host is the one that runs what there may be one of only.
    Raises OSError or ValueError where an image's file is none.
    """
    dsns = settings["app_dsns"]
    return [_application(app, error_tracking(app, dsns)) for app in on_host(settings, first)["app_applications"]]


def on_host(settings: Settings, first: bool) -> Settings:
    """The settings without what runs on another host."""
    if first:
        return settings
    apps = [
        {**app, "processes": [process for process in app["processes"] if not process["single"]]}
        for app in settings["app_applications"]
    ]
    return {**settings, "app_applications": apps}


def error_tracking(app: App, dsns: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """What an SDK of Sentry reads by itself, where a project is the application's; its own variables count more."""
    for one in dsns:
        if one["application"] == app["name"]:
            return {
                "SENTRY_DSN": one["dsn"],
                "SENTRY_ENVIRONMENT": one["environment"],
                "SENTRY_RELEASE": f"{app['name']}@{IMAGE_MARK}",
            }
    return {}


def _application(app: App, told: Mapping[str, str]) -> dict[str, Any]:
    first, last = ports_of(app["ports"])
    processes = [_process(app, process) for process in app["processes"]]
    if app["migrate"] and processes:
        processes.append(_migration(app))
    for process in processes:
        process["environment"] = {**told, **process["environment"]}
    return {
        "name": app["name"],
        "image": image_of(app["image"]),
        "processes": processes,
        "network": app["network"] or app["name"],
        "subnet": app["subnet"] or "",
        "address": app["address"].strip("[]"),
        "ports": [first, last],
        **{key: app[key] for key in ("keep", "ready_timeout", "drain_timeout")},
    }


def _process(app: App, process: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": process["name"],
        "command": list(process["command"]),
        "options": options_of(app, process),
        "replicas": 0 if process["schedule"] else process["replicas"],
        "port": process["port"],
        "ready": process["ready"],
        "single": process["single"],
        "stop_timeout": process["stop_timeout"],
        "kind": "scheduled" if process["schedule"] else "service",
        "environment": environment_of(app, process["values"], {}),
    }


def _migration(app: App) -> dict[str, Any]:
    """A migration has the rights of the first process, and perhaps another user of the database."""
    migrate = app["migrate"]
    return {
        "name": MIGRATION,
        "command": list(migrate["command"]),
        "options": options_of(app, app["processes"][0]),
        "kind": "migration",
        "timeout": migrate["timeout"],
        "environment": environment_of(app, migrate["values"], migrate["secrets"]),
    }


def options_of(app: App, process: Mapping[str, Any]) -> list[str]:
    """The arguments of ``docker create`` by which a container has no more rights than it needs.

    CIS Docker Benchmark 1.6: 4.1 user, 5.4 capabilities, 5.11 memory, 5.12 CPU, 5.13 read-only root, 5.26 no new
    privileges, 5.29 processes.
    """
    found = [f"--user={process['user']}"] if process["user"] else []
    found += ["--read-only"] if process["read_only"] else []
    found += [f"--tmpfs={folder}:{TMPFS}" for folder in process["tmpfs"]]
    found += ["--cap-drop=ALL", *(f"--cap-add={name}" for name in process["capabilities"])]
    found += ["--security-opt=no-new-privileges", f"--pids-limit={process['pids']}"]
    # As much with swap as without: what is beyond the limit is not to be swapped.
    found += [f"--memory={process['memory']}", f"--memory-swap={process['memory']}"]
    found += [f"--cpus={process['cpus']:g}"] if process["cpus"] else []
    for volume in process["volumes"]:
        found.append(f"--volume={volume['source']}:{volume['target']}{':ro' if volume['read_only'] else ''}")
    return [*found, *(f"--add-host={name}:{address}" for name, address in sorted(app["hosts"].items()))]


# --- the environment --------------------------------------------------------------------------------------------------


def environment_of(app: App, values: Mapping[str, Any], secrets: Mapping[str, Any]) -> dict[str, str]:
    """All variables of a process as texts; those of ``values`` and ``secrets`` count more than the application's."""
    given = {**app["values"], **app["secrets"], **values, **secrets}
    found = {}
    for one in app["env"]:
        value = given.get(one["name"])
        if value is None:
            value = one["default"]
        if value is not None:
            found[one["name"]] = text_of(one["type"], value)
    return found


def text_of(kind: str, value: Any) -> str:
    """A value as a program reads it from its environment."""
    if kind == "json":
        return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    if kind == "list" and isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def example(app: App) -> str:
    """A file ``.env.example``: every variable with what it is for; secrets and what has no default stay empty."""
    lines = []
    for one in app["env"]:
        told = [" ".join(one["description"].split()).rstrip(".")] if one["description"] else []
        told += [one["type"], "required" if one["required"] and one["default"] is None else "optional"]
        told += ["secret"] if one["secret"] else []
        told += [f"as {one['pattern']}"] if one["pattern"] else []
        value = "" if one["default"] is None or one["secret"] else text_of(one["type"], one["default"])
        lines.append(f"# {', '.join(told)}\n{one['name']}={value}\n")
    return "\n".join(lines)


# --- images -----------------------------------------------------------------------------------------------------------


def image_of(image: Mapping[str, Any]) -> dict[str, str]:
    """What makes an image this one: its digest in the registry, its own id, or the digest of what it is built of."""
    if image["reference"]:
        found = DIGEST.fullmatch(image["reference"])
        if found is None:
            raise ValueError(f"{image['reference']} has no digest")
        return {"identity": found[1], "source": "registry", "reference": image["reference"]}
    if image["archive"]:
        path = Path(image["archive"])
        about = path.stat()
        identity = archived(path, about.st_mtime_ns, about.st_size)
        return {"identity": identity, "source": "archive", "reference": str(path)}
    return {"identity": f"build:{digest_of(Path(image['build']))}", "source": "build", "reference": image["build"]}


@lru_cache(maxsize=64)
def archived(path: Path, _changed: int, _size: int) -> str:
    """The id of the one image in an archive of ``docker save`` (its manifest.json). Raises ValueError for another."""
    try:
        with tarfile.open(path) as archive:
            manifest = archive.extractfile("manifest.json")
            rows = json.load(manifest) if manifest else []
        configs = [str(row["Config"]) for row in rows]
    # What is cut short ends too early, and JSON may be anything.
    except (tarfile.TarError, EOFError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no archive as `docker save` makes it ({error})") from error
    if len(configs) != 1:
        raise ValueError(f"{path} holds {len(configs)} images, not one")
    # Either blobs/sha256/DIGEST or DIGEST.json.
    return "sha256:" + configs[0].rpartition("/")[2].removesuffix(".json")


def context_files(folder: Path) -> list[Path]:
    """What a build gets of a folder, in a stable order."""
    found = (path for path in folder.rglob("*") if not NOT_SENT & set(path.relative_to(folder).parts))
    return sorted(path for path in found if path.is_file() or path.is_symlink())


def digest_of(folder: Path) -> str:
    """A SHA-256 over the names, contents and rights to execute of all files a build gets."""
    digest = hashlib.sha256()
    for path in context_files(folder):
        content = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
        kind = "link" if path.is_symlink() else "program" if path.stat().st_mode & 0o100 else "file"
        digest.update(f"{path.relative_to(folder)}\0{kind}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def write_context(folder: Path, archive: Path) -> None:
    """A tar file of what a build gets."""
    with tarfile.open(archive, "w") as file:
        for path in context_files(folder):
            file.add(path, str(path.relative_to(folder)), recursive=False)


# --- what others need to know -----------------------------------------------------------------------------------------


def ports_of(text: str) -> tuple[int, int]:
    """``8100-8119`` as the first and the last port; (0, -1) for what is none."""
    found = PORTS.fullmatch(text)
    return (int(found[1]), int(found[2] or found[1])) if found else (0, -1)


def scheduled(settings: Settings, *, first: bool = True) -> list[dict[str, str]]:
    """What runs at its time: ``{unit, application, process, schedule}`` of each."""
    return [
        {
            "unit": f"{app['name']}-{process['name']}",
            "application": app["name"],
            "process": process["name"],
            "schedule": process["schedule"],
        }
        for app in on_host(settings, first)["app_applications"]
        for process in app["processes"]
        if process["schedule"]
    ]


def exports(settings: Settings, host: str, *, first: bool = True) -> dict[str, list[dict[str, Any]]]:
    """What others need to know of the applications of a host."""
    settings = on_host(settings, first)
    apps = settings["app_applications"]
    volumes = {v["source"] for app in apps for one in app["processes"] for v in one["volumes"] if not v["read_only"]}
    return {
        "listens": list(listens(settings)),
        "connections": list(connections(settings, host)),
        "health": [{"name": f"application {app['name']}", "units": ["docker.service"]} for app in apps],
        "logs": [{"job": app["name"], "application": app["name"]} for app in apps],
        "metrics": list(metrics(settings)),
        "memory": list(memory(settings)),
        "backup": [
            {"kind": "path", "path": one} if one.startswith("/") else {"kind": "volume", "volume": one}
            for one in sorted(volumes)
        ],
    }


def metrics(settings: Settings) -> Iterator[dict[str, Any]]:
    """Where processes tell their own figures: all ports that their replicas may have, in both slots."""
    for app in settings["app_applications"]:
        services = [one for one in app["processes"] if not one["schedule"]]
        placed = Application(
            app["name"],
            Image(""),
            [Process(one["name"], replicas=one["replicas"], port=one["port"]) for one in services],
            ports=ports_of(app["ports"]),
        )
        for one in services:
            if not (one["metrics"] and one["port"]):
                continue
            replicas = range(1, one["replicas"] + 1)
            yield {
                "job": "app",
                "name": app["name"],
                "process": one["name"],
                "address": app["address"].strip("[]"),
                "ports": [placed.port(slot, one["name"], number) for slot in SLOTS for number in replicas],
                "path": one["metrics"],
            }


def memory(settings: Settings) -> Iterator[dict[str, Any]]:
    """The most memory that containers may take, while one release takes the place of another."""
    for number, app in enumerate(settings["app_applications"]):
        for index, process in enumerate(app["processes"]):
            replicas = 1 if process["schedule"] or process["single"] else 2 * process["replicas"]
            yield {
                "setting": f"app_applications[{number}].processes[{index}].memory",
                "bytes": replicas * bytes_of(process["memory"]),
                "what": f"{replicas} x {process['memory']} of {app['name']} {process['name']}",
            }


def bytes_of(text: str) -> int:
    """``512m`` as a number of bytes, as Docker reads it; 0 for what is none."""
    found = MEMORY.fullmatch(text)
    return int(found[1]) * MULTIPLES[found[2]] if found else 0


def listens(settings: Settings) -> Iterator[dict[str, Any]]:
    """The ports that containers publish."""
    for number, app in enumerate(settings["app_applications"]):
        if any(process["port"] for process in app["processes"]):
            yield {
                "port": app["ports"],
                "address": app["address"],
                "from": app["from"],
                "published": True,
                "setting": f"app_applications[{number}].ports",
            }


def connections(settings: Settings, host: str) -> Iterator[dict[str, Any]]:
    """The connections to databases that the applications of this host may open, twice those of the replicas.

    While a release takes the place of another, both have theirs.
    """
    for app in settings["app_applications"]:
        for process in app["processes"]:
            for one in process["connections"]:
                replicas = 1 if process["schedule"] or process["single"] else 2 * process["replicas"]
                yield {
                    "host": one["host"],
                    "who": f"{app['name']} {process['name']} on {host}{'' if replicas == 1 else ', two releases'}",
                    "replicas": replicas,
                    **{key: one[key] for key in ("processes", "pools", "limit")},
                }


# --- visitors ---------------------------------------------------------------------------------------------------------

TOKEN_HEADER = "X-Production-Candidate"


def switch(
    app: App,
    host: str,
    addresses: Mapping[str, Mapping[str, list[str]]],
    slot: str,
    *,
    tried: str = "",
    token: str = "",
    asks: bool = False,
    patience: int = 60,
) -> dict[str, Any]:
    """What nginx is told of an application that answers on a host: ``{directories, files, probe}`` for service_config.

    addresses: ``{process: {slot: [address:port, ...]}}``. slot: the one that visitors are sent to; "" before the first.
    tried: a slot that only who sends the ``token`` reaches. asks: whether the application has to answer now.
    patience: seconds that connections with nginx may take to end where addresses are new to it.
    """
    told = nginx_files(app["name"], host, addresses, slot)
    if token:
        for flags in told.values():
            flags[f"{tried or slot}.{token}"] = "" if tried else None
    files = [
        {
            "dest": f"{folder}/{name}",
            **({"state": "absent"} if content is None else {"content": content}),
            **({} if name.endswith(ADDRESSES) else {"on_change": "nothing"}),
        }
        for folder, contents in told.items()
        for name, content in contents.items()
    ]
    directories = [{"path": folder, "group": NGINX_GROUP, "mode": "0750", "prune": True} for folder in told]
    known = [file["dest"] for file in files if file["dest"].endswith(ADDRESSES)]
    # A process of nginx that has read other addresses would ask there.
    probes = [{"unit": "nginx.service", "newer": known, "timeout": patience}]
    return {"directories": directories, "files": files, "probe": probes + (smoke(app, tried and token) if asks else [])}


def smoke(app: App, token: str) -> list[dict[str, Any]]:
    """The requests that a release has to answer through nginx, as probes on nginx's host."""
    found = []
    for one in app["smoke"]:
        parts = urlsplit(one["url"])
        found.append(
            {
                "http": one["url"],
                "address": one["address"] or f"127.0.0.1:{parts.port or 443}",
                "headers": {TOKEN_HEADER: token} if token else {},
                "expects": one["headers"],
                **{key: one[key] for key in ("status", "body", "trusted")},
            }
        )
    return found
