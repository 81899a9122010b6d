# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One restic repository: how restic is called, for how long, and what its answer means.

Written for restic 0.14 (Debian 12) and 0.18 (Debian 13). 0.14 says all failures by exit code 1 and tells them apart by
words; since 0.17 there are codes (https://restic.readthedocs.io/en/stable/075_scripting.html#exit-codes). Both are
read, whatever the version.
"""

from __future__ import annotations

import datetime
import enum
import functools
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from . import programs
from .programs import TIMED_OUT, Done, Failure
from .settings import Repository, Settings, read_json

PROGRAM = "/usr/bin/restic"
TAG = "production-backup"
# To open a repository, list its snapshots or forget one. restic 0.18 goes on trying a wrong S3 secret for many minutes.
SHORT = 300.0
# Pauses before a locked repository, or one that failed, is tried again.
FIRST_PAUSE, LONGEST_PAUSE = 15.0, 600.0


class Meaning(enum.StrEnum):
    """What an exit code of restic, or its words, mean."""

    DONE = "done"
    INCOMPLETE = "incomplete"  # a source could not be read, or forget left a snapshot
    ABSENT = "absent"  # there is no repository
    LOCKED = "locked"
    PASSWORD = "password"
    DAMAGED = "damaged"  # what is stored is not what was
    LIMIT = "limit"  # ended by us
    CANCELLED = "cancelled"
    FAILED = "failed"  # all else, and every code that is not known


CODES = {
    0: Meaning.DONE,
    3: Meaning.INCOMPLETE,
    10: Meaning.ABSENT,
    11: Meaning.LOCKED,
    12: Meaning.PASSWORD,
    TIMED_OUT: Meaning.LIMIT,
    130: Meaning.CANCELLED,
}
# How 0.14 says it by exit code 1. "Is there a repository at the following location?" also follows a refused
# connection, so what counts as absent is only what the store itself says of the file.
WORDS = (
    (Meaning.DAMAGED, re.compile(r"repository contains errors|ciphertext verification failed")),
    (Meaning.PASSWORD, re.compile(r"wrong password or no key found")),
    (Meaning.LOCKED, re.compile(r"repository is already locked|unable to create lock in backend.*locked")),
    (
        Meaning.ABSENT,
        re.compile(
            r"unable to open config file: .*"
            r"(?:no such file or directory|(?:file|key|bucket|<config/>) does not exist|\b404\b)"
        ),
    ),
)
SENTENCES = {
    Meaning.INCOMPLETE: "restic could not read all of the sources",
    Meaning.ABSENT: "there is no repository",
    Meaning.LOCKED: "the repository is locked by another process",
    Meaning.PASSWORD: "the password does not open it",
    Meaning.DAMAGED: "what is stored in it is damaged",
    Meaning.LIMIT: "restic did not end within its time",
    Meaning.CANCELLED: "restic was cancelled",
    Meaning.FAILED: "restic failed",
}


class Refused(Failure):
    """A call of restic that did not do what was asked; ``meaning`` says why, ``done`` what restic said."""

    def __init__(self, sentence: str, meaning: Meaning, done: Done) -> None:
        super().__init__(sentence)
        self.meaning, self.done = meaning, done


@dataclass(frozen=True)
class Snapshot:
    """A snapshot as restic lists it; ``time`` in seconds since the epoch."""

    id: str
    time: float
    host: str
    tags: tuple[str, ...]
    paths: tuple[str, ...]

    @property
    def run(self) -> str:
        """The run that made it, or nothing."""
        return next((tag[4:] for tag in self.tags if tag.startswith("run=")), "")


def meaning_of(done: Done) -> Meaning:
    """What restic's end means. An unknown exit code is a failure."""
    if done.code == 1:
        said = f"{done.err}\n{done.out}"
        return next((meaning for meaning, words in WORDS if words.search(said)), Meaning.FAILED)
    return CODES.get(done.code, Meaning.FAILED)


def messages(text: str) -> Iterator[Mapping[str, Any]]:
    """The JSON objects among lines of restic; what else it says is passed over."""
    for line in text.splitlines():
        if line.startswith("{"):
            try:
                yield json.loads(line)
            except ValueError:
                continue


def words_of(done: Done) -> str:
    """What restic complains of, as one line: plain lines of 0.14, and since 0.17 with --json objects."""
    said = []
    for line in (done.err.strip() or done.out.strip()).splitlines():
        found = next(messages(line), None)
        if found is None:
            said.append(line.strip())
        elif found.get("message_type") == "exit_error":
            said.append(" ".join(str(found.get("message", "")).split()))
        elif found.get("message_type") == "error":
            said.append(f"{found.get('item', '')}: {_reason(found.get('error'))}".removeprefix(": "))
    return "; ".join(dict.fromkeys(one for one in said if one))


def _reason(error: Any) -> str:
    """Why a source could not be read: a message, and in 0.14 whatever Go's error consists of."""
    if isinstance(error, dict) and isinstance(error.get("Err"), int):
        return f"{error.get('Op', 'read')}: {os.strerror(error['Err'])}"
    return str(error.get("message") or "it could not be read" if isinstance(error, dict) else error)


def snapshots_in(text: str) -> list[Snapshot]:
    """What ``snapshots --json`` lists, the oldest first."""
    found = [
        Snapshot(
            id=one["id"],
            time=seconds_of(one["time"]),
            host=one.get("hostname", ""),
            tags=tuple(one.get("tags") or ()),
            paths=tuple(one.get("paths") or ()),
        )
        for one in json.loads(text) or []
    ]
    return sorted(found, key=lambda one: one.time)


def seconds_of(text: str) -> float:
    """A time as Go writes it, in seconds since the epoch."""
    return datetime.datetime.fromisoformat(text).timestamp()


def pattern(path: str) -> str:
    """A path as restic's patterns write it: no character of it stands for others."""
    return re.sub(r"([*?\[\\])", r"\\\1", path)


@dataclass
class Restic:
    """restic, for one repository. ``pause`` waits so many seconds, ``say`` takes a line of what happens."""

    settings: Settings
    repository: Repository
    password_file: Path | None = None  # another one than the repository's own
    pause: Callable[[float], None] = time.sleep
    say: Callable[[str], None] = lambda line: None
    _secrets: list[str] = field(default_factory=list, repr=False)

    # --- how it is called ---

    def argv(self, args: Sequence[str]) -> list[str]:
        """The command line, which everybody may see: no secret is in it."""
        limits, options = self.settings.limits, []
        if self.repository.ca:
            options.append(f"--cacert={self.repository.ca}")
        if limits.upload_kib:
            options.append(f"--limit-upload={limits.upload_kib}")
        if limits.download_kib:
            options.append(f"--limit-download={limits.download_kib}")
        return [PROGRAM, *options, *(f"--option={one}" for one in self.repository.options), *args]

    def environment(self) -> dict[str, str]:
        """What restic is told where only root and itself can read it. Raises Failure where a file is missing."""
        folder, name = self.settings.folder, self.repository.name
        path = folder / f"{name}.environment.json"
        own: dict[str, str] = read_json(path) if path.exists() else {}
        self._secrets = [value for value in own.values() if len(value) > 3]
        return {
            "RESTIC_REPOSITORY": with_user(self.repository.location, own),
            "RESTIC_PASSWORD_FILE": str(self.password_file or folder / f"{name}.password"),
            "RESTIC_CACHE_DIR": str(self.settings.cache),
            **own,
        }

    @functools.cached_property
    def flags(self) -> frozenset[str]:
        """The options that this restic's ``backup`` has, such as no-scan: asked, not inferred from its version."""
        done = programs.run([PROGRAM, "help", "backup"], seconds=SHORT)
        return frozenset(re.findall(r"--([a-z][a-z-]+)", done.out))

    def version(self) -> str:
        """As restic says it: 0.14.0. Nothing where it does not."""
        found = re.search(r"restic (\S+)", programs.run([PROGRAM, "version"], seconds=SHORT).out)
        return found[1] if found else ""

    def scrubbed(self, text: str) -> str:
        """Words of restic without what could be a secret in them."""
        for secret in self._secrets:
            text = text.replace(secret, "***").replace(quote(secret, safe=""), "***")
        return re.sub(r"://[^/@\s]+@", "://***@", text)

    def once(self, args: Sequence[str], seconds: float = SHORT, text: str | None = None) -> Done:
        """One call, whatever comes of it."""
        environment = self.environment()
        self.settings.cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        return programs.run(self.argv(args), seconds=seconds, environment=environment, text=text)

    def call(self, args: Sequence[str], seconds: float | None = None) -> Done:
        """A call that has to do what is asked, within so many seconds; raises Refused where it does not.

        A lock of a dead process is removed; that of a living one is waited for. What else fails, such as a
        network, is tried again as often as the limits say.
        """
        limit = time.monotonic() + (self.settings.limits.seconds if seconds is None else seconds)
        pause, failures, unlocked = FIRST_PAUSE, 0, 0
        while True:
            done = self.once(args, max(1.0, limit - time.monotonic()))
            meaning = meaning_of(done)
            if meaning == Meaning.DONE:
                return done
            failures += meaning == Meaning.FAILED
            again = meaning == Meaning.LOCKED or (
                meaning == Meaning.FAILED and failures < self.settings.limits.attempts
            )
            if not again or time.monotonic() + pause > limit:
                raise self.refused(args, meaning, done)
            self.say(f"{self._sentence(args, meaning, done)}; trying again")
            if meaning == Meaning.LOCKED:
                self.unlock()
                unlocked += 1
            if meaning != Meaning.LOCKED or unlocked > 1:
                self.pause(pause)
                pause = min(pause * 2, LONGEST_PAUSE)

    def unlock(self) -> None:
        """Remove locks of processes that are gone, and those that nobody has refreshed for half an hour."""
        self.once(["unlock"])

    def refused(self, args: Sequence[str], meaning: Meaning, done: Done) -> Refused:
        return Refused(self._sentence(args, meaning, done), meaning, done)

    def _sentence(self, args: Sequence[str], meaning: Meaning, done: Done) -> str:
        said = self.scrubbed(words_of(done))[:1000]
        verb = next((one for one in args if not one.startswith("-")), "")
        return (
            f"Repository {self.repository.name}: {SENTENCES[meaning]} (restic {verb}, exit code {done.code}"
            f"{': ' + said if said else ''})"
        )

    # --- what is asked of it ---

    def id(self, seconds: float = SHORT) -> str:
        """Which repository it is; raises Refused where there is none, or the password is not its."""
        said = self.call(["cat", "config"], seconds).out
        # Some restics say on the way which cache they made.
        return str(json.loads(said[max(said.find("{"), 0) :])["id"])

    def snapshots(self, host: str | None = None, tags: Iterable[str] = (TAG,)) -> list[Snapshot]:
        """Snapshots with any of these tags, the oldest first; of all hosts where none is named. Raises Refused."""
        of = [f"--host={host}"] if host else []
        done = self.call(["snapshots", "--json", *of, *(f"--tag={one}" for one in tags)], SHORT)
        return snapshots_in(done.out)

    def backup(self, paths: Iterable[str], tags: Iterable[str], exclude: Iterable[str] = ()) -> Mapping[str, Any]:
        """One snapshot; returns restic's summary: snapshot_id (short in 0.14), data_added (bytes), ....

        Raises Refused; with Meaning.INCOMPLETE there is a snapshot all the same, see ``summary_of``.
        """
        args = ["backup", "--json", "--quiet", f"--host={self.settings.host}", f"--tag={','.join(tags)}"]
        args += [f"--exclude={one}" for one in exclude]
        if "no-scan" in self.flags:
            # It walks all folders a second time to say how long it will take, and nobody looks.
            args.append("--no-scan")
        return summary_of(self.call([*args, "--", *paths]))

    def forget(self, ids: Iterable[str]) -> None:
        """Raises Refused."""
        self.call(["forget", *ids], SHORT)

    def restore(self, snapshot: str, target: Path, includes: Iterable[str] = (), seconds: float | None = None) -> Done:
        """Files of a snapshot below ``target``, under the paths they had; ``includes`` are paths, not patterns."""
        only = [f"--include={pattern(one)}" for one in includes]
        return self.call(["restore", snapshot, f"--target={target}", *only], seconds)


def summary_of(done: Done) -> Mapping[str, Any]:
    """What ``backup --json`` says at its end; empty where it made no snapshot."""
    return next((one for one in messages(done.out) if one.get("message_type") == "summary"), {})


def with_user(location: str, environment: Mapping[str, str]) -> str:
    """The location of a REST server with user and password in it: restic 0.14 does not know RESTIC_REST_USERNAME."""
    user, password = environment.get("RESTIC_REST_USERNAME"), environment.get("RESTIC_REST_PASSWORD", "")
    if not user or not location.startswith("rest:"):
        return location
    return location.replace("://", f"://{quote(user, safe='')}:{quote(password, safe='')}@", 1)
