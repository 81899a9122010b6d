# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The verbs of the schedule: init, run, prune, check, and what is known of them: status, snapshots."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from . import dumps, manifest, programs, signals
from .programs import Failure
from .restic import SHORT, TAG, Meaning, Refused, Restic, pattern, summary_of
from .settings import Repository, Settings, Source, read_json

Say = Callable[[str], None]
DOCKER = "/usr/bin/docker"
LOCK_SECONDS = 3600.0
# For init, which a run of Ansible waits for, and it gives a command two minutes: all repositories, and a call of one.
INIT_SECONDS, LONGEST_CALL = 100.0, 20.0
# A snapshot that is so much newer than now was made by a clock that was wrong.
FUTURE_SECONDS = 86400
RETENTION = ("last", "hourly", "daily", "weekly", "monthly", "yearly")
RETENTION_WITHIN = ("within", *(f"within_{one}" for one in RETENTION[1:]))


@dataclass
class Outcome:
    """What came of a verb: ``problems`` are sentences (none: it went well), ``values`` what a machine is told."""

    problems: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)


def quiet(line: str) -> None:
    """Where nobody listens."""


def aloud(line: str) -> None:
    """At once, also into a pipe or the journal: it has been said, whatever ends what comes next."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@contextlib.contextmanager
def locked(
    settings: Settings, seconds: float = LOCK_SECONDS, pause: Callable[[float], None] = time.sleep
) -> Iterator[None]:
    """Alone on this host; raises Failure where another verb has not ended after so many seconds.

    A lock of a process that died is none.
    """
    settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    limit = time.monotonic() + seconds
    with settings.lock.open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > limit:
                    raise Failure(f"Another production-backup has not ended within {seconds:.0f} s") from None
                pause(1.0)
        yield


# --- init -------------------------------------------------------------------------------------------------------------


def init(settings: Settings, say: Say = quiet) -> Outcome:
    """Open each repository, or make it where this host has never seen it; the password that is set opens it then.

    ``values["repositories"]`` says of each: created, opened, or password (a new one was brought in).
    """
    outcome = Outcome(values={"repositories": {}})
    for folder in (settings.data, settings.listings, settings.opened, settings.drills):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    limit = time.monotonic() + INIT_SECONDS
    # Whoever waits can try again.
    once = replace(settings, limits=replace(settings.limits, attempts=1))
    for left, repository in zip(range(len(settings.repositories), 0, -1), settings.repositories, strict=True):
        try:
            seconds = min(LONGEST_CALL, max(5.0, (limit - time.monotonic()) / left))
            became = _init(settings, Restic(once, repository, say=say), seconds)
        except Failure as error:
            outcome.problems.append(str(error))
            continue
        if became == "created":
            # Runs count on from here; of a repository that was there already, a check counts first.
            signals.record(settings, "repositories", repository.name, {"snapshots": 0})
        outcome.values["repositories"][repository.name] = became
        say(f"Repository {repository.name}: {became}")
    return outcome


def _init(settings: Settings, restic: Restic, seconds: float = SHORT) -> str:
    name = restic.repository.name
    path = settings.opened / f"{name}.json"
    known: Mapping[str, str] = read_json(path) if path.exists() else {}
    became = "opened"
    try:
        found = restic.id(seconds)
    except Refused as error:
        if error.meaning == Meaning.ABSENT and not known:
            restic.call(["init"], seconds)
            found, became = restic.id(seconds), "created"
        elif error.meaning == Meaning.ABSENT:
            raise Failure(
                f"Repository {name} is gone: this host has seen {known['id'][:8]} at {restic.repository.location}, and "
                f"there is none now; remove {path} to have a new one made there"
            ) from None
        elif error.meaning == Meaning.PASSWORD and _former_passwords(settings, name, known):
            found = _bring_in(settings, restic, _former_passwords(settings, name, known))
            became = "password"
        else:
            raise
    if known and known["id"] != found:
        raise Failure(
            f"Repository {name} is another one: this host has seen {known['id'][:8]}, and {found[:8]} is at "
            f"{restic.repository.location} now; remove {path} to go on with that one"
        )
    proven = {"id": found, "location": restic.repository.location, "password": _password(settings, name)}
    if known != proven:
        signals.write(path, json.dumps(proven) + "\n", 0o600)
    return became


def opened(settings: Settings) -> Outcome:
    """Whether each repository was opened where and with the password that is set; none of them is asked."""
    outcome = Outcome()
    for one in settings.repositories:
        path = settings.opened / f"{one.name}.json"
        known = read_json(path) if path.exists() else {}
        if (known.get("location"), known.get("password")) != (one.location, _password(settings, one.name)):
            outcome.problems.append(
                f"Repository {one.name} was not yet opened with its password: production-backup init"
            )
    return outcome


def _password(settings: Settings, name: str) -> str:
    path = settings.folder / f"{name}.password"
    try:
        return path.read_text("utf-8").rstrip("\n")
    except OSError as error:
        raise Failure(f"{path} cannot be read: {error.strerror}") from None


def _former_passwords(settings: Settings, name: str, known: Mapping[str, str]) -> list[str]:
    """Passwords that may still open it: the one that is being replaced, and the last that was proven."""
    path = settings.folder / f"{name}.former-password"
    former = [path.read_text("utf-8").rstrip("\n")] if path.exists() else []
    return [*former, *([known["password"]] if known else [])]


def _bring_in(settings: Settings, restic: Restic, passwords: Iterable[str]) -> str:
    """Add the password that is set, by one that opens the repository, and return its ID. Raises Failure if none does.

    The former one goes on opening it for as long as it is set as such, or where nothing may be removed.
    """
    name = restic.repository.name
    with tempfile.TemporaryDirectory(dir=settings.data) as folder:
        file = Path(folder) / "password"
        for password in dict.fromkeys(passwords):
            signals.write(file, password + "\n", 0o600)
            by_former = Restic(settings, restic.repository, password_file=file, say=restic.say)
            try:
                by_former.id()
            except Refused as error:
                if error.meaning == Meaning.PASSWORD:
                    continue
                raise
            by_former.call(["key", "add", f"--new-password-file={settings.folder / f'{name}.password'}"], SHORT)
            found = restic.id()
            if not (settings.folder / f"{name}.former-password").exists() and not restic.repository.append_only:
                keys = json.loads(by_former.call(["key", "list", "--json"], SHORT).out)
                for key in keys:
                    if key["current"]:
                        restic.call(["key", "remove", key["id"]], SHORT)
            return found
    raise Failure(
        f"Repository {name} is opened neither by its password nor by a former one: set the one that opens it as "
        f"former_password"
    )


# --- run --------------------------------------------------------------------------------------------------------------


def run(settings: Settings, say: Say = quiet) -> Outcome:
    """One backup of all sources into all repositories. A repository that fails does not keep the others from theirs."""
    started = time.time()
    name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(started))}-{secrets.token_hex(3)}"
    outcome = Outcome(values={"run": name, "started": started, "repositories": {}})
    with locked(settings):
        # What a run that was killed left.
        shutil.rmtree(settings.stage, ignore_errors=True)
        repositories = settings.for_purpose("backup")
        signals.record_all(settings, "repositories", {one.name: {"last_attempt": started} for one in repositories})
        try:
            _run(settings, name, started, outcome, say)
        except (Failure, OSError) as error:
            outcome.problems.insert(0, str(error))
        finally:
            # First of all: where the disk is full, it is full of this.
            shutil.rmtree(settings.stage, ignore_errors=True)
        missed = [one.name for one in repositories if one.name not in outcome.values["repositories"]]
        signals.record_all(settings, "repositories", {one: {"exit_code": 1} for one in missed})
    outcome.values["seconds"] = round(time.time() - started, 3)
    return outcome


def _run(settings: Settings, name: str, started: float, outcome: Outcome, say: Say) -> None:
    repositories = settings.for_purpose("backup")
    if not repositories:
        raise Failure("No repository has the purpose backup: nothing was backed up")
    if not settings.sources:
        raise Failure("backup_sources and backup_paths name nothing to back up")
    try:
        for argv in settings.before:
            _hook(settings, argv, name, say)
        paths = _stage(settings, name, started, say)
        for repository in repositories:
            try:
                values = _into(settings, repository, paths, name, started, say)
                outcome.values["repositories"][repository.name] = values
                say(f"Repository {repository.name}: {values['bytes_added']} new bytes, {values['snapshot'][:8]}")
            except Refused as error:
                outcome.problems.append(str(error))
                outcome.values["repositories"][repository.name] = {"problem": str(error)}
                signals.record(settings, "repositories", repository.name, {"exit_code": error.done.code})
    finally:
        for argv in settings.after:
            try:
                _hook(settings, argv, name, say)
            except Failure as error:
                outcome.problems.append(str(error))


def _hook(settings: Settings, argv: Sequence[str], name: str, say: Say) -> None:
    say(f"Hook {argv[0]}")
    done = programs.run(argv, seconds=settings.limits.seconds, environment={"PRODUCTION_BACKUP_RUN": name})
    if done.code:
        raise Failure(f"Hook {argv[0]} failed (exit code {done.code}): {done.said}")


def _stage(settings: Settings, name: str, started: float, say: Say) -> list[str]:
    """Dumps, listings and the manifest into the stage; the paths that restic is to take. Raises Failure."""
    stage = settings.stage
    (stage / "listings").mkdir(mode=0o700, parents=True)
    os.chmod(stage, 0o700)
    files = [(one, place(one)) for one in settings.sources if one.kind in ("path", "volume")]
    exclude = excluded(settings, [path for _source, path in files])
    stop = threading.Event()
    with ThreadPoolExecutor(1) as aside:
        # Files are hashed while the databases write their dumps.
        listed = aside.submit(_list, settings, files, exclude, stop)
        try:
            dumped = _dump(settings, name, say)
        except BaseException:
            stop.set()
            raise
        paths = listed.result()
    # The hashes are right whatever becomes of this run.
    shutil.rmtree(settings.listings, ignore_errors=True)
    shutil.copytree(stage / "listings", settings.listings)
    content = {
        "run": name,
        "host": settings.host,
        "started": started,
        "finished": time.time(),
        **dumped,
        "paths": paths,
    }
    content["versions"]["restic"] = Restic(settings, settings.repositories[0]).version()
    signals.write(stage / "manifest.json", json.dumps(content, indent=1, sort_keys=True) + "\n", 0o600)
    _refuse_to_lose(stage, exclude)
    return [*(path for _source, path in files), str(stage)]


def _refuse_to_lose(stage: Path, exclude: Sequence[str]) -> None:
    """Raises Failure where a pattern of the operator would leave out what the stage holds."""
    whole = {one["path"] for one in manifest.entries(str(stage))}
    taken = {one["path"] for one in manifest.entries(str(stage), manifest.excludes(exclude))}
    if lost := sorted(whole - taken):
        raise Failure(f"backup_exclude leaves out {lost[0]}, which has the dumps: exclude less than its folder")


def place(source: Source) -> str:
    """The folder or file of a path or volume on this host. Raises Failure where there is none."""
    if source.kind == "volume":
        done = programs.run(
            [DOCKER, "volume", "inspect", "--format", "{{.Mountpoint}}", "--", source.volume],
            seconds=dumps.SHORT,
        )
        if done.code:
            raise Failure(f"Docker volume {source.volume} cannot be backed up: {done.said}")
        return done.out.strip()
    try:
        status = os.lstat(source.path)
    except OSError as error:
        raise Failure(f"Path {source.path} cannot be backed up: {error.strerror}") from None
    if stat.S_ISLNK(status.st_mode):
        raise Failure(
            f"Path {source.path} is a symbolic link, and a backup would hold no more than that: name "
            f"{os.path.realpath(source.path)}"
        )
    return source.path


def excluded(settings: Settings, paths: Iterable[str]) -> list[str]:
    """Patterns of what is left out of a backup of these paths: what the operator says, and the program's own files.

    A pattern that is no whole path counts below each path, and not for the dumps in the stage.
    """
    own = [settings.listings, settings.opened, settings.drills, settings.restored, settings.scratch]
    own += [settings.lock, settings.state]
    local = [one.location for one in settings.repositories if one.location.startswith("/")]
    if refused := [one for one in settings.exclude if one.startswith("!")]:
        raise Failure(
            f"backup_exclude has {refused[0]}, which takes back what another pattern leaves out: name that less"
        )
    whole = [one for one in settings.exclude if one.startswith("/")]
    parts = [one for one in settings.exclude if not one.startswith("/")]
    return [
        *whole,
        *(f"{pattern(path.rstrip('/'))}/**/{one}" for path in paths for one in parts),
        *(pattern(str(one)) for one in (*own, settings.cache, *local)),
    ]


def _list(
    settings: Settings, files: Iterable[tuple[Source, str]], exclude: Sequence[str], stop: threading.Event
) -> list[dict[str, Any]]:
    found = []
    for source, path in files:
        name = f"{source.name}.jsonl"
        listed = manifest.listing(
            path,
            settings.stage / "listings" / name,
            settings.listings / name,
            [*exclude, pattern(str(settings.stage))],
            stop,
        )
        if listed == manifest.Listed():
            raise Failure(f"backup_exclude leaves nothing of {path}: take the path away or exclude less")
        found.append({"path": path, "volume": source.volume, "listing": f"listings/{name}", **asdict(listed)})
    return found


def _dump(settings: Settings, name: str, say: Say) -> dict[str, Any]:
    """All that is not a file as the manifest has it: databases, redis, marker, versions. Raises Failure."""
    seconds, stage = float(settings.limits.seconds), settings.stage
    found: dict[str, Any] = {"databases": [], "redis": [], "marker": None, "versions": {}}
    kinds = {one.kind for one in settings.sources}
    if unknown := kinds - {"path", "volume", "mariadb", "postgresql", "redis"}:
        raise Failure(f"backup_sources has a source of kind {min(unknown)}, which nobody knows to back up")
    if "mariadb" in kinds:
        say("Dumping MariaDB")
        found["marker"], found["versions"]["mariadb"] = dumps.mark(name)
        found["databases"] += [one.as_dict() for one in dumps.mariadb(_databases(settings, "mariadb"), stage, seconds)]
    if "postgresql" in kinds:
        say("Dumping PostgreSQL")
        found["versions"]["postgresql"] = dumps.postgresql_ask("SHOW server_version").strip()
        wanted = _databases(settings, "postgresql")
        found["databases"] += [one.as_dict() for one in dumps.postgresql(wanted, stage, seconds)]
    for source in settings.sources:
        if source.kind == "redis":
            say(f"Saving Redis instance {source.instance}")
            found["redis"].append(dumps.redis(source, stage, seconds))
    return found


def _databases(settings: Settings, kind: str) -> list[str]:
    """The databases that sources name; none where one of them means all."""
    named = [one.databases for one in settings.sources if one.kind == kind]
    return sorted({name for names in named for name in names}) if all(named) else []


def _into(
    settings: Settings, repository: Repository, paths: Sequence[str], name: str, started: float, say: Say
) -> dict[str, Any]:
    """One snapshot in one repository, whole or not at all. Raises Refused."""
    restic = Restic(settings, repository, say=say)
    known = signals.state(settings)["repositories"].get(repository.name, {})
    # Runs of which nobody saw how they ended: what they left may be half.
    unproven = known.get("unproven", [])
    signals.record(settings, "repositories", repository.name, {"unproven": [*unproven, name]})
    exclude = excluded(settings, paths[:-1])
    tags = (TAG, f"run={name}")
    try:
        summary = restic.backup(paths, tags, exclude)
    except Refused as error:
        if error.meaning != Meaning.INCOMPLETE:
            raise
        _forget_half(restic, error)
        say(f"{error}; trying once more")
        try:
            summary = restic.backup(paths, tags, exclude)
        except Refused as again:
            if again.meaning == Meaning.INCOMPLETE:
                _forget_half(restic, again)
            raise
    now = time.time()
    values = {
        "snapshot": str(summary.get("snapshot_id", "")),
        "last_success": now,
        "exit_code": 0,
        "duration": round(now - started, 3),
        "bytes_added": int(summary.get("data_added", 0)),
        "newest_snapshot": now,
        "unproven": [] if repository.append_only else unproven,
    }
    if "snapshots" in known:
        values["snapshots"] = known["snapshots"] + 1
    signals.record(settings, "repositories", repository.name, values)
    if unproven:
        # Their locks do not keep a backup out, but whoever wants the repository for himself.
        restic.unlock()
    if unproven and not repository.append_only:
        _forget_unproven(restic, unproven)
        signals.record(settings, "repositories", repository.name, {"unproven": []})
    return values


def _forget_half(restic: Restic, error: Refused) -> None:
    """A snapshot that lacks files is none; where nothing may be removed it stays, and its manifest tells on it."""
    if (half := str(summary_of(error.done).get("snapshot_id", ""))) and not restic.repository.append_only:
        restic.forget([half])


def _forget_unproven(restic: Restic, names: Iterable[str]) -> None:
    left = [one.id for one in restic.snapshots(restic.settings.host) if one.run in names]
    if left:
        restic.say(f"Repository {restic.repository.name}: forgetting what runs left that were killed")
        restic.forget(left)


# --- prune and check --------------------------------------------------------------------------------------------------


def prune(settings: Settings, say: Say = quiet) -> Outcome:
    """Forget snapshots of this host that the retention does not keep, and remove what only they had."""

    def one(restic: Restic) -> dict[str, Any]:
        keep = _keep(restic.repository.retention)
        if restic.repository.append_only or not keep:
            why = "nothing may be removed from here" if restic.repository.append_only else "it has no retention"
            say(f"Repository {restic.repository.name}: left alone, {why}")
            return {"skipped": True}
        host = _whose(restic.repository, settings)
        newest = restic.snapshots(host)
        if newest and newest[-1].time > time.time() + FUTURE_SECONDS:
            raise Failure(
                f"Repository {restic.repository.name}: snapshot {newest[-1].id[:8]} is of the future, and retention "
                f"counts from the newest one; forget it, or set the clock right: production-backup restic "
                f"{restic.repository.name} -- forget {newest[-1].id[:8]}"
            )
        of = [f"--host={host}"] if host else []
        restic.call(["forget", "--json", "--prune", *of, f"--tag={TAG}", "--group-by=host", *keep])
        left = restic.snapshots(host)
        return {
            "prune_success": time.time(),
            "snapshots": len(left),
            "newest_snapshot": left[-1].time if left else 0,
        }

    return _each(settings, "prune", one, say)


def _whose(repository: Repository, settings: Settings) -> str | None:
    """Whose snapshots are looked at: this host's, or those of all hosts where it makes none itself."""
    return settings.host if "backup" in repository.purposes else None


def _keep(retention: Mapping[str, int | str]) -> list[str]:
    return [
        f"--keep-{key.replace('_', '-')}={retention[key]}"
        for key in (*RETENTION, *RETENTION_WITHIN)
        if retention.get(key)
    ]


def check(settings: Settings, say: Say = quiet) -> Outcome:
    """Check each repository, and read another part of its data each time: all of it in ``check_parts`` checks."""
    known = signals.state(settings)["repositories"]

    def one(restic: Restic) -> dict[str, Any]:
        parts = max(1, restic.repository.check_parts)
        part = known.get(restic.repository.name, {}).get("check_part", 0) % parts + 1
        restic.call(["check", f"--read-data-subset={part}/{parts}"])
        found = restic.snapshots(_whose(restic.repository, settings))
        return {
            "check_success": time.time(),
            "check_part": part,
            "snapshots": len(found),
            "newest_snapshot": found[-1].time if found else 0,
        }

    return _each(settings, "check", one, say)


def _each(settings: Settings, purpose: str, one: Callable[[Restic], dict[str, Any]], say: Say) -> Outcome:
    outcome = Outcome(values={"repositories": {}})
    with locked(settings):
        for repository in settings.for_purpose(purpose):
            try:
                values = one(Restic(settings, repository, say=say))
            except Failure as error:
                outcome.problems.append(str(error))
                values = {"problem": str(error)}
            else:
                say(f"Repository {repository.name}: {purpose} went well")
                if not values.get("skipped"):
                    signals.record(settings, "repositories", repository.name, values)
            outcome.values["repositories"][repository.name] = values
    return outcome


# --- what is known ----------------------------------------------------------------------------------------------------


def snapshots(settings: Settings, names: Sequence[str] = (), every_host: bool = False) -> Outcome:
    """The snapshots in each repository (or in those that are named), the oldest first."""
    outcome = Outcome(values={"repositories": {}})
    for repository in [settings.repository(name) for name in names] or settings.repositories:
        try:
            found = Restic(settings, repository).snapshots(None if every_host else settings.host)
        except Failure as error:
            outcome.problems.append(str(error))
        else:
            outcome.values["repositories"][repository.name] = [asdict(one) for one in found]
    return outcome


def status(settings: Settings) -> Outcome:
    """The state, with what of it is not as it should be; no repository is asked."""
    found, now = signals.state(settings), time.time()
    outcome = Outcome(values=found)
    for one in settings.for_purpose("backup"):
        last = found["repositories"].get(one.name, {}).get("last_success", 0)
        if now - last > settings.rpo_seconds:
            age = f"{(now - last) / 3600:.1f} hours ago" if last else "never"
            outcome.problems.append(f"Repository {one.name}: the last backup that went well was {age}")
    for verb, values in sorted(found["verbs"].items()):
        outcome.problems += [f"{verb}: {problem}" for problem in values.get("problems", [])]
    return outcome
