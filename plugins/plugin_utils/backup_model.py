# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the backup role writes down, worked out of its settings. The program on the host reads it (settings.py)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.fushuma.production.plugins.plugin_utils import cron

Settings = Mapping[str, Any]

FOLDER = "/etc/production-backup"
DATA = "/var/lib/production-backup"
CACHE = "/var/cache/production-backup"
SCRATCH = "/var/lib/production-backup-scratch"

PURPOSES = ("backup", "prune", "check", "drill")
# Each verb of the schedule, with the purpose that a repository has to have.
VERBS = {"run": "backup", "prune": "prune", "check": "check", "drill": "drill"}
NEVER = "2000-01-01 00:00:00"  # for OnCalendar=, which a timer cannot be without
# What of a source says something, by its kind.
FIELDS = {
    "path": ("path",),
    "volume": ("volume",),
    "mariadb": ("databases",),
    "postgresql": ("databases",),
    "redis": ("instance", "server", "rdb", "folder", "unit", "cli"),
}

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
DURATION = re.compile(r"(\d{1,6})([smhd])")
DAYS = {"h": 1 / 24, "d": 1, "m": 30, "y": 365}
SPAN = re.compile(r"(?:\d{1,4}[hdmy])+")


def model(settings: Settings, host: str) -> dict[str, Any]:
    """``settings`` fit the role's argument_specs and hold all defaults.

    The result: ``config`` and ``signals`` as the program reads them; files as ``{name, content}``, ``secrets`` by which
    repositories open and ``servers`` by which they are known; ``timers`` as ``{verb, cron, calendars}``, those that
    nothing starts without ``cron``; ``packages``; ``offsite``, whether any repository is.
    """
    repositories = settings["backup_repositories"]
    return {
        "config": config(settings, host),
        "signals": _signals(settings["backup_signals"]),
        "secrets": [one for repository in repositories for one in _files(repository, _secrets(repository))],
        "servers": [one for repository in repositories for one in _files(repository, _servers(repository))],
        "timers": timers(settings),
        "packages": _packages(settings),
        "offsite": any(is_offsite(one) for one in repositories),
    }


def config(settings: Settings, host: str) -> dict[str, Any]:
    """What is in config.json. There is no secret in it."""
    signals = settings["backup_signals"]
    return {
        "host": host,
        "repositories": [_repository(one, settings) for one in settings["backup_repositories"]],
        "sources": list(sources(settings)),
        "exclude": excluded(settings),
        "hooks": settings["backup_hooks"],
        "limits": settings["backup_limits"],
        "targets": {"rpo_seconds": seconds(settings["backup_rpo"]), "rto_seconds": seconds(settings["backup_rto"])},
        "drill": settings["backup_drill"],
        "textfile": signals["textfile_folder"],
        "mail_to": signals["mail_to"],
    }


# --- repositories -----------------------------------------------------------------------------------------------------


def _repository(one: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    return {
        "name": one["name"],
        "location": location(one),
        "offsite": is_offsite(one),
        # Whether this host may take nothing away; another one that prunes for it may.
        "append_only": one["append_only"] and "prune" not in purposes(one),
        "purposes": purposes(one),
        "options": [f"sftp.command={_ssh(one)}"] if one["kind"] == "sftp" else [],
        "ca": f"{FOLDER}/{one['name']}.ca.pem" if one["ca"] else "",
        "retention": retention(one, settings),
        "check_parts": settings["backup_check_parts"],
    }


def location(one: Mapping[str, Any]) -> str:
    """Where a repository is, as restic writes it."""
    if one["kind"] == "local":
        return whole(one["path"])
    if one["kind"] == "sftp":
        host = f"[{one['host']}]" if ":" in one["host"] else one["host"]
        return f"sftp://{one['user']}@{host}:{one['port']}/{one['path'].rstrip('/')}"
    # A location of a REST server ends with a slash.
    end = "/" if one["kind"] == "rest" else ""
    return f"{one['kind']}:{one['url'].rstrip('/')}/{one['path'].strip('/')}".rstrip("/") + end


def _ssh(one: Mapping[str, Any]) -> str:
    """How ssh is called; what it says of a host or a user elsewhere on this host does not count."""
    files = f"{FOLDER}/{one['name']}"
    said = {
        "BatchMode": "yes",
        "ConnectTimeout": "30",
        "GlobalKnownHostsFile": "/dev/null",
        "IdentitiesOnly": "yes",
        "ServerAliveCountMax": "4",
        "ServerAliveInterval": "30",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": f"{files}.known_hosts",
    }
    options = " ".join(f"-o {name}={value}" for name, value in said.items())
    return f"ssh -F none {options} -i {files}.key -p {one['port']} -l {one['user']} {one['host']} -s sftp"


def _files(one: Mapping[str, Any], contents: Mapping[str, str]) -> list[dict[str, str]]:
    """A repository's files by what their names end with; those without content are none."""
    return [{"name": f"{one['name']}.{end}", "content": content} for end, content in contents.items() if content]


def _secrets(one: Mapping[str, Any]) -> dict[str, str]:
    environment = {
        "AWS_ACCESS_KEY_ID": one["access_key"],
        "AWS_SECRET_ACCESS_KEY": one["secret_key"],
        "AWS_DEFAULT_REGION": one["region"],
        "RESTIC_REST_USERNAME": one["user"] if one["kind"] == "rest" else "",
        "RESTIC_REST_PASSWORD": one["user_password"],
    }
    known = {name: value for name, value in environment.items() if value}
    return {
        "password": one["password"],
        "former-password": one["former_password"],
        "environment.json": json.dumps(known) if known else "",
        "key": one["private_key"].strip(),
    }


def _servers(one: Mapping[str, Any]) -> dict[str, str]:
    host = one["host"] if one["port"] == 22 else f"[{one['host']}]:{one['port']}"
    return {
        "known_hosts": "\n".join(f"{host} {key.strip()}" for key in one["host_keys"]),
        "ca.pem": one["ca"].strip(),
    }


def is_offsite(one: Mapping[str, Any]) -> bool:
    """Whether a repository is elsewhere."""
    return bool(one["kind"] != "local" if one["offsite"] is None else one["offsite"])


def purposes(one: Mapping[str, Any]) -> list[str]:
    """What the host does with a repository."""
    if one["purposes"] is not None:
        return list(one["purposes"])
    return [name for name in PURPOSES if not (name == "prune" and one["append_only"])]


def retention(one: Mapping[str, Any], settings: Settings) -> Mapping[str, Any]:
    """What is kept in a repository."""
    found: Mapping[str, Any] = one["retention"] or settings["backup_retention"]
    return found


# --- what is backed up ------------------------------------------------------------------------------------------------


def sources(settings: Settings) -> Iterator[dict[str, Any]]:
    """Everything there is to back up, each once; a path within another one is there already."""
    declared = [_source(one) for one in settings["backup_sources"]]
    declared += [{"kind": "path", "path": whole(one)} for one in settings["backup_paths"]]
    if settings["backup_postgresql"]:
        declared.append({"kind": "postgresql", "databases": settings["backup_postgresql"]})
    paths = {one["path"] for one in declared if "path" in one}
    seen: list[dict[str, Any]] = []
    for one in declared:
        if one in seen or any(is_within(one.get("path", ""), other) for other in paths):
            continue
        seen.append(one)
        yield one


def _source(one: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: one[name] for name in FIELDS[one["kind"]] if one[name]}
    if "path" in found:
        found["path"] = whole(found["path"])
    return {"kind": one["kind"], **found}


def whole(path: str) -> str:
    """A path without what says nothing; POSIX alone would keep two slashes at its beginning."""
    return re.sub("^//", "/", os.path.normpath(path)) if path else ""


def is_within(path: str, folder: str) -> bool:
    """Whether a path lies below a folder, and is not the folder itself."""
    return path != folder and path.startswith(folder.rstrip("/") + "/")


def excluded(settings: Settings) -> list[str]:
    """What is left out of paths: what the operator says, and what opens the repositories.

    Restored in place, it would take the place of what opens them then. The program leaves out what else is its own.
    """
    return [*settings["backup_exclude"], FOLDER]


def local_places(settings: Settings) -> list[str]:
    """The folders of this host that are repositories."""
    places = [location(one) for one in settings["backup_repositories"] if one["kind"] == "local"]
    return [one for one in places if one.strip("/")]


# --- when -------------------------------------------------------------------------------------------------------------


def timers(settings: Settings) -> list[dict[str, Any]]:
    """Of each verb ``{verb, cron, calendars}``; without ``cron`` where it has no time, or no repository is for it."""
    wanted = {purpose for one in settings["backup_repositories"] for purpose in purposes(one)}
    found = []
    for verb, purpose in VERBS.items():
        time = settings["backup_schedule"][verb]
        if purpose in wanted and time:
            found.append({"verb": verb, "cron": time, "calendars": cron.parsed(time).calendars()})
        else:
            found.append({"verb": verb, "calendars": [NEVER]})
    return found


def seconds(text: str) -> int:
    """``26h`` as a number of seconds; -1 for what is no such text."""
    found = DURATION.fullmatch(text)
    return int(found[1]) * SECONDS[found[2]] if found else -1


def span(text: str) -> float:
    """``1y6m`` as seconds, about as restic reckons it; -1 for what is no such text."""
    if not SPAN.fullmatch(text):
        return -1
    return sum(int(number) * DAYS[unit] for number, unit in re.findall(r"(\d+)([hdmy])", text)) * SECONDS["d"]


# --- and what it takes ------------------------------------------------------------------------------------------------


def _packages(settings: Settings) -> list[str]:
    kinds = {one["kind"] for one in settings["backup_repositories"]}
    return [
        "restic",
        *["ca-certificates"] * bool(kinds & {"s3", "rest"}),
        *["cron"] * (settings["backup_schedule"]["by"] == "cron"),
        *["openssh-client"] * ("sftp" in kinds),
    ]


def _signals(signals: Mapping[str, Any]) -> dict[str, str]:
    return {"ping": signals["ping_url"], "sentry": signals["sentry_url"], "webhook": signals["webhook_url"]}
