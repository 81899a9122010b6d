# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is to be backed up, where to and where its traces lie on the host, out of files the role wrote.

The settings were judged before they came here. A file that is missing or cannot be read is a Failure all the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .programs import Failure

FOLDER = Path("/etc/production-backup")
DATA = Path("/var/lib/production-backup")
CACHE = Path("/var/cache/production-backup")
# Not below DATA, which only root may pass: servers for a restore run as users of their own.
SCRATCH = Path("/var/lib/production-backup-scratch")


@dataclass(frozen=True)
class Repository:
    """A restic repository; ``purposes`` are the verbs that may use it: backup, prune, check, drill."""

    name: str
    location: str
    offsite: bool = False
    append_only: bool = False
    purposes: tuple[str, ...] = ("backup", "prune", "check", "drill")
    options: tuple[str, ...] = ()
    ca: str = ""
    # last, hourly, daily, weekly, monthly, yearly: how many; within, within_hourly, ...: durations such as 7d.
    retention: Mapping[str, int | str] = field(default_factory=dict)
    check_parts: int = 8


@dataclass(frozen=True)
class Source:
    """What is backed up; which fields say something depends on ``kind``: path, volume, mariadb, postgresql, redis."""

    kind: str
    path: str = ""
    volume: str = ""
    databases: tuple[str, ...] = ()  # none: all that hold data of users
    instance: str = ""
    server: str = "redis"  # or valkey
    rdb: str = ""
    folder: str = ""
    unit: str = ""
    cli: tuple[str, ...] = ()  # argv of a client that is let in as the instance's admin

    @property
    def name(self) -> str:
        """The source as a file name, the same in each run: ``path-%2Fetc``, ``volume-shop_uploads``."""
        name = f"{self.kind}-{quote(self.path or self.volume or self.instance, safe='')}".rstrip("-")
        # A name may have 255 bytes, and an extension is still to come.
        return name if len(name) <= 200 else f"{name[:100]}-{hashlib.sha256(name.encode()).hexdigest()}"


@dataclass(frozen=True)
class Limits:
    """Seconds a restic call may take, how often what failed is tried, and KiB/s up and down (0: as fast as it goes)."""

    seconds: int = 43200
    attempts: int = 3
    upload_kib: int = 0
    download_kib: int = 0


@dataclass(frozen=True)
class Query:
    """What a drill asks a restored database, and the least that the first field of the answer has to be."""

    database: str
    query: str
    at_least: float = 1


@dataclass(frozen=True)
class Signals:
    """Where a run is told of. The URLs are secrets."""

    ping: str = ""
    sentry: str = ""
    webhook: str = ""


@dataclass(frozen=True)
class Settings:
    """All of config.json and signals.json; ``folder`` has these files, ``data`` what runs leave on the host."""

    host: str
    repositories: tuple[Repository, ...] = ()
    sources: tuple[Source, ...] = ()
    exclude: tuple[str, ...] = ()
    before: tuple[tuple[str, ...], ...] = ()
    after: tuple[tuple[str, ...], ...] = ()
    limits: Limits = Limits()
    rpo_seconds: int = 93600
    rto_seconds: int = 3600
    queries: tuple[Query, ...] = ()
    textfile: str = ""
    mail_to: str = ""
    signals: Signals = Signals()
    folder: Path = FOLDER
    data: Path = DATA
    cache: Path = CACHE
    scratch: Path = SCRATCH

    @classmethod
    def load(cls, folder: Path = FOLDER, data: Path = DATA, cache: Path = CACHE) -> Settings:
        """Raises Failure where a file is missing or does not say what it should."""
        config = read_json(folder / "config.json")
        signals = read_json(folder / "signals.json") if (folder / "signals.json").exists() else {}
        try:
            return cls._of(config, signals, folder, data, cache)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise Failure(f"{folder}/config.json cannot be used ({error!r}): run the role backup again") from None

    @classmethod
    def _of(cls, config: Any, signals: Any, folder: Path, data: Path, cache: Path) -> Settings:
        hooks, targets = config.get("hooks", {}), config.get("targets", {})
        return cls(
            host=config["host"],
            repositories=tuple(Repository(**_tuples(one)) for one in config.get("repositories", [])),
            sources=tuple(Source(**_tuples(one)) for one in config.get("sources", [])),
            exclude=tuple(config.get("exclude", [])),
            before=tuple(tuple(argv) for argv in hooks.get("before", [])),
            after=tuple(tuple(argv) for argv in hooks.get("after", [])),
            limits=Limits(**config.get("limits", {})),
            rpo_seconds=targets.get("rpo_seconds", cls.rpo_seconds),
            rto_seconds=targets.get("rto_seconds", cls.rto_seconds),
            queries=tuple(Query(**one) for one in config.get("drill", {}).get("queries", [])),
            textfile=config.get("textfile", ""),
            mail_to=config.get("mail_to", ""),
            signals=Signals(**signals),
            folder=folder,
            data=data,
            cache=cache,
        )

    def repository(self, name: str) -> Repository:
        """Raises Failure for a name that is none."""
        for one in self.repositories:
            if one.name == name:
                return one
        known = ", ".join(one.name for one in self.repositories) or "none"
        raise Failure(f"There is no repository {name}: this host has {known}")

    def for_purpose(self, purpose: str) -> list[Repository]:
        return [one for one in self.repositories if purpose in one.purposes]

    @property
    def stage(self) -> Path:
        """Dumps and the manifest until restic has them; the same path always, so that restic finds what it knows."""
        return self.data / "stage"

    @property
    def listings(self) -> Path:
        return self.data / "listings"

    @property
    def state(self) -> Path:
        return self.data / "state.json"

    @property
    def opened(self) -> Path:
        return self.data / "opened"

    @property
    def drills(self) -> Path:
        return self.data / "drills"

    @property
    def restored(self) -> Path:
        return self.data / "restored"

    @property
    def lock(self) -> Path:
        return self.data / "lock"


def _tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}


def read_json(path: Path) -> Any:
    """Raises Failure where the file is missing or is no JSON."""
    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise Failure(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise Failure(f"{path} is no JSON: {error}") from None
