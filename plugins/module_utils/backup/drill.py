# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A restore for practice: the newest off-site snapshot, into a folder and servers of its own, proven and timed.

The time to recover (RTO) is what a monotonic clock says from the beginning to the last check. What would have been lost
(RPO) is the time from the marker in the restored database to the beginning of the drill. Nothing of the host's own
data is read or written.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from . import loading, restore, runs, servers, signals
from .dumps import MARKER_DATABASE
from .programs import Failure
from .restic import Restic
from .restore import Part
from .settings import Query, Repository, Settings, read_json

# A dump, what a server makes of it, and the second dump that is compared with it.
DUMP_FACTOR = 4
# Results of former drills that are kept on the host.
KEPT = 500
HISTORY = "history.md"


@dataclass
class Result:
    """What came of a drill. Times are seconds, ``started`` and ``snapshot_time`` since the epoch.

    ``rto_seconds`` and ``rpo_seconds`` are none where the drill did not get as far as to measure them.
    """

    host: str
    repository: str
    started: float
    rto_target_seconds: float
    rpo_target_seconds: float
    ok: bool = False
    problems: list[str] = field(default_factory=list)
    rto_seconds: float | None = None
    rpo_seconds: float | None = None
    snapshot: str = ""
    snapshot_time: float | None = None
    versions: dict[str, str] = field(default_factory=dict)
    bytes: int = 0
    files: int = 0
    tables: int = 0
    rows: int = 0
    keys: int = 0
    queries: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)  # of each step


# --- what is judged: pure ---------------------------------------------------------------------------------------------


def judged(result: Result) -> list[str]:
    """What is wrong with the times that were measured, as sentences."""
    said = []
    for name, what, target in (
        ("RTO", result.rto_seconds, result.rto_target_seconds),
        ("RPO", result.rpo_seconds, result.rpo_target_seconds),
    ):
        if what is None:
            said.append(f"The {name} could not be measured")
        elif what <= 0:
            said.append(f"The {name} was measured as {what:.1f} s, which cannot be: look at the clock of this host")
        elif what > target:
            said.append(f"The {name} is {span(what)}, and the target is {span(target)}")
    return said


def span(seconds: float) -> str:
    """A time as people read it: 12.3 s, 4 min 5 s, 3 h 20 min, 2 d 4 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def answered(query: Query, rows: Sequence[Sequence[str]]) -> dict[str, Any]:
    """What a query of the application said, and whether that is enough."""
    answer = rows[0][0] if rows and rows[0] else ""
    with contextlib.suppress(ValueError):
        return {**asdict(query), "answer": answer, "ok": float(answer) >= query.at_least}
    return {**asdict(query), "answer": answer, "ok": False}


def history(results: Sequence[Mapping[str, Any]]) -> str:
    """The page of all drills, the newest first."""
    lines = [
        "# Restore drills",
        "",
        "Written by `production-backup drill`; changes by hand are undone by the next one.",
        "",
        "| when (UTC) | repository | snapshot | result | RTO | target | RPO | target | files | tables | rows | bytes |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in sorted(results, key=lambda each: float(each["started"]), reverse=True):
        when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(one["started"]))
        rto, rpo = ("–" if one[key] is None else span(one[key]) for key in ("rto_seconds", "rpo_seconds"))
        targets = span(one["rto_target_seconds"]), span(one["rpo_target_seconds"])
        outcome = "passed" if one["ok"] else "failed: " + loading.listed(one["problems"]).replace("|", "\\|")
        cells = [when, one["repository"], one["snapshot"][:8] or "–", outcome, rto, targets[0], rpo, targets[1]]
        cells += [f"{one[key]:,}" for key in ("files", "tables", "rows", "bytes")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def chosen(settings: Settings, name: str) -> list[Repository]:
    """The repository that is told, or the off-site ones for drills. Raises Failure where there is none."""
    if name:
        return [settings.repository(name)]
    found = [one for one in settings.for_purpose("drill") if one.offsite]
    if not found:
        raise Failure(
            "No repository is off-site and for drills: a drill proves what is left when this host is lost. "
            "Say offsite: true of one that is elsewhere, or name one by --from"
        )
    return found


# --- doing it ---------------------------------------------------------------------------------------------------------


@dataclass
class Drill:
    """One drill, and what it says of itself."""

    settings: Settings
    repository: Repository
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        settings = self.settings
        self.restic = Restic(settings, self.repository, say=self.say)
        self.result = Result(
            settings.host, self.repository.name, time.time(), float(settings.rto_seconds), float(settings.rpo_seconds)
        )
        self.limit = float(settings.limits.seconds)

    def run(self) -> Result:
        """From "go" to the last check; whatever goes wrong is in the result."""
        result = self.result
        result.started, began = time.time(), time.monotonic()
        try:
            with loading.scratch("drill", self.settings.scratch) as folder:
                self._recover(folder)
                result.rto_seconds = time.monotonic() - began
        except Failure as error:
            result.problems.append(str(error))
        result.problems += judged(result)
        result.ok = not result.problems
        return result

    def _recover(self, folder: Path) -> None:
        result, files = self.result, loading.private(folder / "files")
        with self._step("fetch"):
            snapshot = restore.choose(self.restic.snapshots(self.settings.host), "latest", result.started)
            result.snapshot, result.snapshot_time = snapshot.id, snapshot.time
            self.say(f"Snapshot {snapshot.id[:8]} of {self.repository.name}")
            stage = restore.stage_of(snapshot, self.settings)
            known = restore.manifest_of(self.restic, snapshot, stage, folder / "manifest")
            result.versions = dict(known.get("versions", {}))
            parts = restore.parts_of(known, stage)
            loading.enough(files, restore.needed(parts, DUMP_FACTOR))
            self.restic.restore(snapshot.id, files)
        with self._step("compare"):
            for one in parts:
                result.problems += restore.compared(one, files, known)
                result.bytes += int(one.entry["bytes"])
                result.files += int(one.entry.get("files", 0))
        marker = known.get("marker")
        if marker is None:
            # Without a database that a marker could lie in, what is lost is what came after the run had begun.
            result.rpo_seconds = result.started - float(known["started"])
        with self._step("databases"):
            self._mariadb([one for one in parts if one.kind == "mariadb"], marker, files, folder)
            self._postgresql([one for one in parts if one.kind == "postgresql"], files, folder)
            for one in parts:
                if one.kind == "redis":
                    self._redis(one, files, folder)
        result.problems += unasked(self.settings, result)

    def _mariadb(self, parts: Sequence[Part], marker: int | None, files: Path, folder: Path) -> None:
        if not parts:
            return
        with servers.private_mariadb(folder / "mariadb", self.limit) as server:

            def load(one: Part) -> None:
                server.ask(f"DROP DATABASE IF EXISTS {servers.quoted(one.name)}")
                loading.load_mariadb(one.name, one.entry, restored(one, files), server)

            self._loaded(parts, load, server, folder)
            if marker is not None:
                written = float(server.ask(f"SELECT written FROM {servers.quoted(MARKER_DATABASE)}.marker")[0][0])
                self.result.rpo_seconds = self.result.started - written
                if written != marker:
                    self.result.problems.append(f"The marker says {written:.0f}, and the manifest {marker}")
            servers.have_definers(server)
            self._ask(parts, server.ask)

    def _postgresql(self, parts: Sequence[Part], files: Path, folder: Path) -> None:
        if not parts:
            return
        version = self.result.versions.get("postgresql", "")
        with servers.private_postgresql(folder / "postgresql", version, self.limit) as server:
            server.have_roles(Path(f"{files}{parts[0].files[0]}"))

            def load(one: Part) -> None:
                server.ask(f"DROP DATABASE IF EXISTS {servers.identifier(one.name)}")
                loading.load_postgresql(one.name, one.entry, restored(one, files), server)

            self._loaded(parts, load, server, folder)
            self._ask(parts, server.ask)

    def _loaded(
        self,
        parts: Sequence[Part],
        load: Callable[[Part], None],
        server: servers.Mariadb | servers.Postgresql,
        folder: Path,
    ) -> None:
        """Load dumps and compare them. A view may need a database that comes later, so there is a second try."""
        again = []
        for one in parts:
            try:
                load(one)
            except Failure:
                again.append(one)
        for one in again:
            load(one)
        for one in parts:
            found = loading.tables_of(one.name, server, folder)
            self.result.problems += loading.differences(one.entry["tables"], found, one.name)
            self.result.tables += len(found)
            self.result.rows += sum(int(table["rows"]) for table in found.values())
            self.say(f"{one}: {len(found)} tables are back")

    def _redis(self, part: Part, files: Path, folder: Path) -> None:
        server = next(
            (one.server for one in self.settings.sources if one.kind == "redis" and one.instance == part.name), "redis"
        )
        keys, own = int(part.entry["keys"]), folder / f"redis-{part.name}"
        self.result.problems += loading.redis_problems(part.name, keys, restored(part, files), own, server)
        self.result.keys += keys

    def _ask(self, parts: Sequence[Part], ask: Callable[[str, str], list[list[str]]]) -> None:
        """The application's own questions."""
        there = {one.name for one in parts}
        for query in self.settings.queries:
            if query.database in there:
                said = answered(query, ask(query.query, query.database))
                self.result.queries.append(said)
                if not said["ok"]:
                    self.result.problems.append(
                        f"In {query.database} `{query.query}` says {said['answer'] or 'nothing'}, "
                        f"and at least {query.at_least:g} was wanted"
                    )

    @contextlib.contextmanager
    def _step(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.result.seconds[name] = round(time.monotonic() - began, 3)


def restored(part: Part, files: Path) -> Path:
    """Where a dump lies once its snapshot is restored below ``files``."""
    return Path(f"{files}{part.files[-1]}")


def unasked(settings: Settings, result: Result) -> list[str]:
    """Queries whose database no snapshot has."""
    asked = {one["database"] for one in result.queries}
    return [
        f"The snapshot has no database {one.database}, which a query of the drill is about"
        for one in settings.queries
        if one.database not in asked
    ]


def kept(settings: Settings, result: Result) -> Path:
    """Write the result, the page of all and the metrics; returns the result's file. Raises Failure."""
    folder = loading.private(settings.drills)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(result.started))
    path = folder / f"{stamp}-{result.repository}.json"
    try:
        signals.write(path, json.dumps(asdict(result), indent=1) + "\n", 0o600)
        results = sorted(folder.glob("*.json"))
        for one in results[:-KEPT]:
            one.unlink()
        signals.write(folder / HISTORY, history([read_json(one) for one in results[-KEPT:]]), 0o600)
    except OSError as error:
        raise Failure(f"The result of the drill cannot be written to {folder}: {error.strerror}") from None
    values: dict[str, Any] = {"last_attempt": result.started, "success": result.ok}
    # What was not measured leaves the last figure as it was.
    measured = {"rto_seconds": result.rto_seconds, "rpo_seconds": result.rpo_seconds}
    values |= {name: value for name, value in measured.items() if value is not None}
    values |= {"last_success": result.started} if result.ok else {}
    signals.record(settings, "drills", result.repository, values)
    return path


def main(argv: Sequence[str], settings: Settings, problems: list[str] | None = None) -> int:
    """The verb ``drill``: 0 where all was proven within the targets, 1 where not, 2 wrong usage.

    What went wrong is added to ``problems``, for who tells of it. Raises Failure where nothing could be tried.
    """
    parser = argparse.ArgumentParser(prog="production-backup drill", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--from", dest="repository", default="", metavar="NAME", help="of this one, and no other")
    parser.add_argument("--json", action="store_true", help="print one JSON document for machines")
    told = parser.parse_args(argv)
    results = []
    for repository in chosen(settings, told.repository):
        result = Drill(settings, repository, runs.quiet if told.json else runs.aloud).run()
        results.append(result)
        path = kept(settings, result)
        for line in result.problems:
            sys.stderr.write(f"{line}\n")
        if result.ok and not told.json:
            runs.aloud(f"RTO {span(result.rto_seconds or 0)}, RPO {span(result.rpo_seconds or 0)}: {path}")
    if told.json:
        runs.aloud(json.dumps({"ok": all(one.ok for one in results), "drills": [asdict(one) for one in results]}))
    if problems is not None:
        problems += [f"{one.repository}: {line}" for one in results for line in one.problems]
    return 0 if all(one.ok for one in results) else 1
