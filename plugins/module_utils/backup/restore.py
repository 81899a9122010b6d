# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A snapshot brought back: into a folder of its own, or in the place of what is there.

Whatever is asked for is restored to a folder first and compared with the snapshot's manifest. In place, a database is
loaded into a private server besides, and what is there is kept in a snapshot of its own, before anything is touched.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from . import dumps, files, inplace, loading, manifest, runs, servers
from .loading import digest, enough, listed, private, scratch
from .programs import Failure
from .restic import TAG, Restic, Snapshot, pattern
from .settings import Settings, Source

# Snapshots of what an in-place restore overwrote. `run` and `prune` know nothing of them.
SAFETY = "production-backup-safety"
SAFETY_KEPT = "30d"
# The program's own database, with the marker; each run writes it anew.
OWN_DATABASE = "production_backup"
# PostgreSQL's roles, beside its dumps.
ROLES = "globals.sql"
KINDS = ("database", "table", "path", "volume", "redis", "postgresql")
# Bytes of a restore in place for each byte of a dump: the dump, a private server, the server itself and its log.
DUMP_FACTOR = 5


@dataclass(frozen=True)
class Wanted:
    """What is to be brought back: ``kind`` is everything or one of KINDS."""

    kind: str
    name: str = ""

    @classmethod
    def of(cls, text: str) -> Wanted:
        """Raises Failure for a text that means nothing."""
        kind, _colon, name = text.partition(":")
        name = name.rstrip("/") if kind == "path" and name != "/" else name
        if text == "everything":
            return cls("everything")
        if kind in KINDS and name and (kind != "table" or all(name.partition("."))):
            if kind == "path" and not name.startswith("/"):
                raise Failure(f'--what is "{text}": a path begins with /, as in path:/srv/uploads')
            return cls(kind, name)
        raise Failure(
            f'--what is "{text}": write everything, database:NAME, table:DATABASE.TABLE, path:/FOLDER, volume:NAME, '
            "redis:INSTANCE or postgresql:DATABASE"
        )

    def confirmation(self, host: str) -> str:
        """What has to be typed before it is overwritten: its name, or the host's where it is everything."""
        return self.name or host


@dataclass(frozen=True)
class Part:
    """One database, instance or path of a snapshot. ``entry`` is what its manifest says of it."""

    kind: str  # mariadb, postgresql, redis or path
    name: str
    entry: Mapping[str, Any]
    files: tuple[str, ...]  # in the snapshot
    table: str = ""
    volume: str = ""
    alone: bool = True  # asked for by its name

    def __str__(self) -> str:
        if self.volume:
            return f"volume {self.volume}"
        if self.table:
            return f"table {self.name}.{self.table}"
        kind = {"mariadb": "database", "postgresql": "PostgreSQL database", "redis": "Redis instance"}.get(
            self.kind, "path"
        )
        return f"{kind} {self.name}"

    @property
    def system(self) -> bool:
        """Whether the host's own configuration is in it: accounts, networks and file systems of another host."""
        return self.kind == "path" and Path("/etc").is_relative_to(self.name)


# --- which snapshot, and what of it: pure -----------------------------------------------------------------------------


def choose(snapshots: Sequence[Snapshot], asked: str, now: float) -> Snapshot:
    """The newest that is no safety snapshot, or the one whose ID begins so. Raises Failure where there is none."""
    if asked == "latest":
        # One of the future was made by a clock that was wrong, and would be the newest for long.
        backups = [one for one in snapshots if TAG in one.tags and one.time <= now + runs.FUTURE_SECONDS]
        if not backups and any(TAG in one.tags for one in snapshots):
            raise Failure("All snapshots of this host are of the future: set its clock right, or name one by its ID")
        if not backups:
            raise Failure("The repository has no snapshot of this host")
        return max(backups, key=lambda one: one.time)
    found = [one for one in snapshots if asked and one.id.startswith(asked)]
    if len(found) != 1:
        known = ", ".join(one.id[:8] for one in snapshots[-10:]) or "none"
        kind = "several snapshots begin" if found else "no snapshot begins"
        raise Failure(f'--snapshot is "{asked}", and {kind} so. The newest are {known}; or write latest')
    return found[0]


def stage_of(snapshot: Snapshot, settings: Settings) -> str:
    """The folder in the snapshot that has its dumps and its manifest. Raises Failure where it has none."""
    own = str(settings.stage)
    found = [path for path in snapshot.paths if path == own or path.endswith("/stage")]
    if not found:
        raise Failure(f"Snapshot {snapshot.id[:8]} has no manifest: it was not made by production-backup")
    return own if own in found else found[0]


def plan(wanted: Wanted, known: Mapping[str, Any], stage: str) -> list[Part]:
    """The parts of a snapshot that are wanted; raises Failure that says what there is."""
    parts = parts_of(known, stage)
    if wanted.kind == "everything":
        return [replace(one, alone=False) for one in parts if one.name != OWN_DATABASE]
    if wanted.kind == "path":
        found = [_below(one, wanted.name) for one in parts if one.kind == "path" and _holds(one.name, wanted.name)]
        found = found[-1:]
    elif wanted.kind == "table":
        database, _dot, table = wanted.name.partition(".")
        found = [
            replace(one, table=table)
            for one in parts
            if one.kind == "mariadb" and one.name == database and table in one.entry["tables"]
        ]
    else:
        kind = {"database": "mariadb", "volume": "path"}.get(wanted.kind, wanted.kind)
        key = "volume" if wanted.kind == "volume" else "name"
        found = [one for one in parts if one.kind == kind and getattr(one, key) == wanted.name]
    if not found:
        raise Failure(f"The snapshot has no {wanted.kind} {wanted.name}. It has {', '.join(map(str, parts))}")
    return found


def parts_of(known: Mapping[str, Any], stage: str) -> list[Part]:
    """All parts of a manifest: databases first, paths last."""
    databases = [Part(one["kind"], one["name"], one, _files_of(one, stage)) for one in known.get("databases", [])]
    redis = [Part("redis", one["instance"], one, (f"{stage}/{one['file']}",)) for one in known.get("redis", [])]
    paths = [
        Part("path", one["path"], one, (str(Path(stage, one["listing"])), one["path"]), volume=one.get("volume") or "")
        for one in known.get("paths", [])
    ]
    return databases + redis + paths


def _files_of(entry: Mapping[str, Any], stage: str) -> tuple[str, ...]:
    file = f"{stage}/{entry['file']}"
    return (str(Path(file).with_name(ROLES)), file) if entry["kind"] == "postgresql" else (file,)


def _holds(root: str, path: str) -> bool:
    return Path(path).is_relative_to(root)


def _below(part: Part, path: str) -> Part:
    """The same part, of which only what is below a path is wanted."""
    if part.name == path:
        return part
    # How much of the whole it is, nobody knows.
    return replace(part, name=path, entry={**part.entry, "bytes": 0}, files=(part.files[0], path), volume="")


def needed(parts: Iterable[Part], factor: int = 1) -> int:
    """Bytes that have to be free for a restore: ``factor`` for each of a dump, and one for each of all else."""
    return sum(int(one.entry["bytes"]) * (factor if one.kind in ("mariadb", "postgresql") else 1) for one in parts)


# --- doing it ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """What the operator has said.

    Without ``repository`` it is the first that has such a snapshot; without ``to`` a restore goes to a new folder below
    /var/lib/production-backup.
    """

    what: Wanted
    repository: str = ""
    snapshot: str = "latest"
    to: Path | None = None
    in_place: bool = False
    confirm: str = ""
    dry_run: bool = False
    host: str = ""


@dataclass
class Restore:
    """One restore: a repository, a snapshot of it, and what it says of itself."""

    settings: Settings
    asked: Asked
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        asked, settings = self.asked, self.settings
        wanted = asked.what.confirmation(settings.host)
        if asked.in_place and not asked.dry_run and asked.confirm != wanted:
            raise Failure(
                f'--confirm is "{asked.confirm}": --in-place overwrites {wanted}, so write --confirm={wanted} '
                "if that is meant"
            )
        if asked.in_place and asked.to:
            raise Failure("--to and --in-place say two different things: leave one away")
        named = [settings.repository(asked.repository)] if asked.repository else settings.repositories
        if not named:
            raise Failure("This host has no repository: set backup_repositories")
        self.restics = [Restic(settings, one, say=self.say) for one in named]
        self.restic = self.restics[0]
        self.live = servers.Mariadb(seconds=float(settings.limits.seconds))

    def run(self) -> dict[str, Any]:
        """Do it; returns what a machine is told. Raises Failure."""
        began = time.monotonic()
        snapshot = self._choose()
        stage = stage_of(snapshot, self.settings)
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(snapshot.time))
        self.say(f"Snapshot {snapshot.id[:8]} of {when}, from {self.restic.repository.name}")
        with scratch("restore", self.settings.scratch) as folder:
            known = manifest_of(self.restic, snapshot, stage, folder / "manifest")
            parts = plan(self.asked.what, known, stage)
            left = [one for one in parts if self.asked.in_place and one.system and not one.alone]
            parts = [one for one in parts if one not in left]
            result: dict[str, Any] = {
                "repository": self.restic.repository.name,
                "snapshot": snapshot.id,
                "time": snapshot.time,
                "in_place": self.asked.in_place,
                "parts": [str(one) for one in parts],
                "left": [str(one) for one in left],
            }
            for one in left:
                self.say(f"{one} stays as it is: it is this host's own. Ask for it by its name to have it overwritten")
            if self.asked.dry_run:
                result["seconds"] = time.monotonic() - began
                return result
            if self.asked.in_place:
                with runs.locked(self.settings):
                    result["safety"] = self._in_place(snapshot, parts, known, folder)
            else:
                result["to"] = str(self._beside(snapshot, parts, known, folder))
        result["seconds"] = time.monotonic() - began
        return result

    def _choose(self) -> Snapshot:
        """The snapshot that is asked for, in the first repository that has it. Raises Failure."""
        problems, host = [], self.asked.host or self.settings.host
        for restic in self.restics:
            self.restic = restic
            try:
                return choose(self.restic.snapshots(host, (TAG, SAFETY)), self.asked.snapshot, time.time())
            except Failure as error:
                problems.append(f"{self.restic.repository.name}: {error}")
        raise Failure("; ".join(problems))

    def _beside(self, snapshot: Snapshot, parts: Sequence[Part], known: Mapping[str, Any], folder: Path) -> Path:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        target = self.asked.to or self.settings.restored / f"{snapshot.id[:8]}-{stamp}"
        if target.exists() and any(target.iterdir()):
            raise Failure(f"--to is {target}, which is not empty: write a folder that is")
        private(target)
        self._fetch(snapshot, parts, known, target)
        for one in parts:
            self.say(f"{one} is at {self._table(one, target, folder) if one.table else f'{target}{one.files[-1]}'}")
        return target

    def _table(self, part: Part, target: Path, folder: Path) -> Path:
        """The dump of one table, made by a private server out of the dump of its database, in whose place it is."""
        database = Path(f"{target}{part.files[-1]}")
        file = database.with_name(f"{quote(part.name, safe='')}.{quote(part.table, safe='')}.sql")
        with servers.private_mariadb(folder / "mariadb", self.live.seconds) as own:
            loading.load_mariadb(part.name, part.entry, database, own)
            inplace.same(part.entry["tables"], loading.tables_of(part.name, own, folder), part.name)
            file.touch(mode=0o600)
            own.dump(["--triggers", "--", part.name, part.table], file)
        database.unlink()
        return file

    def _fetch(self, snapshot: Snapshot, parts: Sequence[Part], known: Mapping[str, Any], target: Path) -> None:
        """Restore parts below ``target`` and compare them with the manifest. Raises Failure where they differ."""
        enough(target, needed(parts, DUMP_FACTOR if self.asked.in_place else 1))
        self.restic.restore(snapshot.id, target, sorted({file for one in parts for file in one.files}))
        problems = [line for one in parts for line in compared(one, target, known)]
        if problems:
            raise Failure(f"What was restored to {target} is not what was backed up: {listed(problems)}")

    def _in_place(self, snapshot: Snapshot, parts: Sequence[Part], known: Mapping[str, Any], folder: Path) -> str:
        """Everything is fetched, compared and loaded once before the first part is put in its place."""
        target = private(folder / "files")
        self._fetch(snapshot, parts, known, target)
        works = [self._work(one, target, folder) for one in parts]
        try:
            for one, work in zip(parts, works, strict=True):
                work.prepare()
                self.say(f"{one} is what was backed up")
            safety = self._safety(parts, folder)
            self.say(f"What is there now is kept in snapshot {safety[:8]} of {self.restic.repository.name}")
            for one, work in zip(parts, works, strict=True):
                work.bring()
                self.say(f"{one} is back")
        finally:
            for work in works:
                work.discard()
        return safety

    def _work(self, part: Part, target: Path, folder: Path) -> inplace.Work:
        """How a part that was restored below ``target`` is put in its place."""
        file = Path(f"{target}{part.files[-1]}")
        if part.kind == "mariadb":
            return inplace.MariadbWork(part.name, part.table, part.entry, file, folder, self.live)
        if part.kind == "postgresql":
            live = servers.Postgresql(seconds=self.live.seconds)
            return inplace.PostgresqlWork(part.name, part.entry, file, file.with_name(ROLES), folder, live)
        if part.kind == "redis":
            return inplace.RedisWork(self._instance(part.name), part.entry["keys"], file, folder)
        return files.PathWork(file, self._place(part))

    def _instance(self, name: str) -> Source:
        """The instance as this host has it. Raises Failure where it has none of that name."""
        for one in self.settings.sources:
            if one.kind == "redis" and one.instance == name:
                return one
        raise Failure(f"This host has no Redis instance {name}: run site.yml first, or restore it with --to")

    def _place(self, part: Part) -> Path:
        """Where a path belongs on this host, which may keep its volumes elsewhere."""
        return Path(runs.place(Source(kind="volume", volume=part.volume)) if part.volume else part.name)

    def _safety(self, parts: Sequence[Part], folder: Path) -> str:
        """Keep what the parts overwrite in a snapshot like any other; returns its ID. Raises Failure."""
        # Nobody else is at work there: the lock of all verbs is ours.
        stage = self.settings.stage
        shutil.rmtree(stage, ignore_errors=True)
        try:
            known, paths, exclude = self._staged(parts, private(stage), folder.name)
            (stage / "manifest.json").write_text(json.dumps(known), "utf-8")
            done = self.restic.backup([str(stage), *paths], (SAFETY, f"run={folder.name}"), exclude)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
        snapshot = choose(self.restic.snapshots(self.settings.host, (SAFETY,)), str(done["snapshot_id"]), time.time())
        # It counts when it can be read again.
        manifest_of(self.restic, snapshot, str(stage), folder / "safety")
        if not self.restic.repository.append_only:
            self.restic.call(
                ["forget", f"--tag={SAFETY}", f"--host={self.settings.host}", f"--keep-within={SAFETY_KEPT}"]
            )
        return snapshot.id

    def _staged(self, parts: Sequence[Part], stage: Path, name: str) -> tuple[dict[str, Any], list[str], list[str]]:
        """What the parts overwrite: its manifest, the paths, and the patterns of what is left out. Raises Failure."""
        seconds, began = self.live.seconds, time.time()
        known: dict[str, Any] = {"run": name, "host": self.settings.host, "started": began, "marker": None}
        known |= {"versions": {"restic": self.restic.version()}, "databases": [], "redis": [], "paths": []}
        paths: list[str] = []
        there = self._databases(parts)
        exclude = runs.excluded(self.settings, [str(self._place(one)) for one in parts if one.kind == "path"])
        for one in parts:
            if one.kind in ("mariadb", "postgresql") and (one.kind, one.name) in there:
                dump = dumps.mariadb if one.kind == "mariadb" else dumps.postgresql
                made = dump([one.name], stage, seconds)
                known["databases"] += [each.as_dict() for each in made if each.name == one.name]
            elif one.kind == "redis":
                try:
                    known["redis"].append(dict(dumps.redis(self._instance(one.name), stage, seconds)))
                except Failure as error:
                    # One that does not run is what is restored over; its files are kept as they lie.
                    self.say(f"{one} cannot save what it has, so its files are kept: {error}")
                    paths.append(self._instance(one.name).folder)
            elif one.kind == "path" and (place := self._place(one)).exists():
                listing = f"listings/{len(paths)}.jsonl"
                private(stage / "listings")
                counts = manifest.listing(str(place), stage / listing, exclude=[*exclude, pattern(str(stage))])
                known["paths"].append({"path": str(place), "volume": one.volume, "listing": listing, **vars(counts)})
                paths.append(str(place))
        known["finished"] = time.time()
        return known, paths, exclude

    def _databases(self, parts: Sequence[Part]) -> set[tuple[str, str]]:
        """The databases that this host has, of the kinds that are asked for."""
        found = set()
        if any(one.kind == "mariadb" for one in parts):
            found |= {("mariadb", row[0]) for row in self.live.ask("SHOW DATABASES")}
        if any(one.kind == "postgresql" for one in parts):
            found |= {("postgresql", row[0]) for row in servers.Postgresql().ask("SELECT datname FROM pg_database")}
        return found


def manifest_of(restic: Restic, snapshot: Snapshot, stage: str, folder: Path) -> Mapping[str, Any]:
    """What a snapshot has to show. Raises Failure where it has no manifest."""
    restic.restore(snapshot.id, private(folder), [f"{stage}/manifest.json"])
    return manifest.load(Path(f"{folder}{stage}/manifest.json"))


def compared(part: Part, target: Path, known: Mapping[str, Any]) -> list[str]:
    """How a part that was restored below ``target`` differs from the manifest, as sentences."""
    missing = [one for one in part.files if not os.path.lexists(f"{target}{one}")]
    if missing:
        return [f"{one} is not in the snapshot" for one in missing]
    if part.kind != "path":
        same = digest(Path(f"{target}{part.files[-1]}")) == part.entry["sha256"]
        return [] if same else [f"{part} is not the file that was written then"]
    listing = Path(f"{target}{part.files[0]}")
    if part.name != part.entry["path"]:
        listing = files.listing_below(listing, part.name)
    return manifest.compare(listing, target, float(known["started"]))


def main(argv: Sequence[str], settings: Settings) -> int:
    """The verb ``restore``: 0 well, 1 not, 2 wrong usage."""
    parser = argparse.ArgumentParser(prog="production-backup restore", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--from", dest="repository", default="", metavar="NAME", help="repository (the first with such a snapshot)"
    )
    parser.add_argument("--snapshot", default="latest", metavar="ID", help="or latest, which is the default")
    parser.add_argument(
        "--what",
        required=True,
        help="everything, database:NAME, table:DATABASE.TABLE, path:/FOLDER, volume:NAME, redis:INSTANCE or "
        "postgresql:DATABASE",
    )
    parser.add_argument("--to", type=Path, metavar="FOLDER", help=f"an empty folder (one below {settings.restored})")
    parser.add_argument("--in-place", action="store_true", help="overwrite what is there")
    parser.add_argument(
        "--confirm", default="", metavar="NAME", help="with --in-place: the name of what is overwritten"
    )
    parser.add_argument("--host", default="", metavar="NAME", help="a host whose snapshots are in the repository")
    parser.add_argument("--dry-run", action="store_true", help="say what would be restored")
    parser.add_argument("--json", action="store_true", help="one line of JSON for a machine")
    told = vars(parser.parse_args(argv))
    as_json = told.pop("json")
    say = runs.quiet if as_json else runs.aloud
    result: dict[str, Any]
    try:
        asked = Asked(**{**told, "what": Wanted.of(told["what"])})
        result = {"ok": True, **Restore(settings, asked, say).run()}
    except Failure as error:
        result = {"ok": False, "problem": str(error)}
        sys.stderr.write(f"{error}\n")
    if as_json:
        runs.aloud(json.dumps(result))
    elif result["ok"]:
        done = f"Would restore {', '.join(result['parts'])}" if told["dry_run"] else "Restored"
        runs.aloud(f"{done} ({result['seconds']:.1f} s)")
    return 0 if result["ok"] else 1
