# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a snapshot has to show when it is restored: its files with their hashes, and what was dumped.

A listing has a JSON line for each entry of a path, a folder before what is in it, names in their order:

- a file: {"path": "/etc/hosts", "size": 12, "mtime_ns": ..., "ctime_ns": ..., "inode": ..., "sha256": "..."}
- a symbolic link: {"path": ..., "link": "target"}
- a folder: {"path": ..., "folder": true}

Sockets, pipes and devices are left out. Bytes of names that are no UTF-8 are kept (surrogateescape).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from .programs import Failure
from .settings import read_json

# Files that are being hashed, or wait for one before them in the listing.
AHEAD = 256


@dataclass(frozen=True)
class Listed:
    """What a listing counts: files and their bytes, symbolic links, folders."""

    files: int = 0
    bytes: int = 0
    links: int = 0
    folders: int = 0


# --- listing ----------------------------------------------------------------------------------------------------------


def listing(
    root: str,
    into: Path,
    former: Path | None = None,
    exclude: Sequence[str] = (),
    stop: threading.Event | None = None,
) -> Listed:
    """List a folder with all that is in it, or a file. Hashes of files that are as ``former`` has them come from there.

    ``exclude`` are restic's patterns. A file that goes meanwhile is not listed. Raises Failure where the root is not
    there, something in it cannot be read, or ``stop`` is set.
    """
    try:
        with (
            _Former(former) as known,
            into.open("w", encoding="ascii") as file,
            ThreadPoolExecutor(os.cpu_count()) as pool,
        ):
            lines = _Lines(file)
            for entry in entries(root, excludes(exclude)):
                if stop and stop.is_set():
                    raise Failure(f"{root} was not listed to its end")
                if "size" in entry and (sha256 := known.hash_of(entry)) is None:
                    lines.add(entry, pool.submit(_hash, entry["path"]))
                else:
                    lines.add({**entry, "sha256": sha256} if "size" in entry else entry)
            lines.write(until=0)
    except OSError as error:
        raise Failure(f"{error.filename or into} cannot be read or listed: {error.strerror}") from None
    return Listed(**lines.counts)


class _Lines:
    """Writes entries in their order, files as soon as those before them are hashed."""

    def __init__(self, file: IO[str]) -> None:
        self.counts = {"files": 0, "bytes": 0, "links": 0, "folders": 0}
        self._file = file
        self._waiting: deque[tuple[dict[str, Any], Future[str | None] | None]] = deque()

    def add(self, entry: dict[str, Any], hashed: Future[str | None] | None = None) -> None:
        self._waiting.append((entry, hashed))
        self.write(until=AHEAD)

    def write(self, until: int) -> None:
        """Write all but so many; raises OSError for a file that cannot be read."""
        while len(self._waiting) > until:
            entry, hashed = self._waiting.popleft()
            if hashed:
                entry["sha256"] = hashed.result()
                if entry["sha256"] is None:
                    continue
            self.counts["files" if "size" in entry else "links" if "link" in entry else "folders"] += 1
            self.counts["bytes"] += entry.get("size", 0)
            self._file.write(json.dumps(entry) + "\n")


def entries(root: str, excluded: re.Pattern[str] | None = None) -> Iterator[dict[str, Any]]:
    """The entries of a listing in their order, without hashes. Raises OSError for what cannot be read."""
    found = _entry(root, os.lstat(root)) if not (excluded and excluded.match(f"{root}/")) else None
    if found is None:
        return
    yield found
    # Folders whose entries are still to come, each with the rest of its names; not a recursion: paths may be deep.
    open_folders = [_names(root)] if "folder" in found else []
    while open_folders:
        one = next(open_folders[-1], None)
        if one is None:
            open_folders.pop()
            continue
        if excluded and excluded.match(f"{one.path}/"):
            continue
        try:
            found = _entry(one.path, one.stat(follow_symlinks=False))
            below = _names(one.path) if found and "folder" in found else None
        except FileNotFoundError:
            continue
        if found:
            yield found
        if below:
            open_folders.append(below)


def _names(folder: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as found:
        return iter(sorted(found, key=lambda one: one.name))


def _entry(path: str, status: os.stat_result) -> dict[str, Any] | None:
    if stat.S_ISREG(status.st_mode):
        return {
            "path": path,
            "size": status.st_size,
            "mtime_ns": status.st_mtime_ns,
            "ctime_ns": status.st_ctime_ns,
            "inode": status.st_ino,
        }
    if stat.S_ISDIR(status.st_mode):
        return {"path": path, "folder": True}
    if stat.S_ISLNK(status.st_mode):
        return {"path": path, "link": os.readlink(path)}
    return None


def _hash(path: str) -> str | None:
    """The SHA-256 of a file; none where it is gone or no file any more. Its time of access stays as it is."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        try:
            descriptor = os.open(path, flags | os.O_NOATIME)
        except PermissionError:
            # Not every file system lets root have that.
            descriptor = os.open(path, flags)
    except FileNotFoundError:
        return None
    with open(descriptor, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Former:
    """A former listing, read along with the walk, for both have the same order."""

    SAME = ("size", "mtime_ns", "ctime_ns", "inode")

    def __init__(self, path: Path | None) -> None:
        self._lines = path.open(encoding="ascii") if path and path.exists() else None
        self._next: Mapping[str, Any] | None = None
        self._advance()

    def _advance(self) -> None:
        line = self._lines.readline() if self._lines else ""
        try:
            self._next = json.loads(line) if line else None
        except ValueError:
            self._next = None

    def hash_of(self, entry: Mapping[str, Any]) -> str | None:
        """The hash of a file that did not change; none where it is not known."""
        key = _order(entry["path"])
        while self._next is not None and _order(self._next["path"]) < key:
            self._advance()
        one = self._next
        if one is None or one["path"] != entry["path"] or any(one.get(key) != entry[key] for key in self.SAME):
            return None
        return str(one["sha256"])

    def __enter__(self) -> _Former:
        return self

    def __exit__(self, *_: object) -> None:
        if self._lines:
            self._lines.close()


def _order(path: str) -> list[str]:
    return path.split("/")


# --- what restic leaves out -------------------------------------------------------------------------------------------


def excludes(patterns: Iterable[str]) -> re.Pattern[str] | None:
    """Patterns as restic has them (https://restic.readthedocs.io/en/stable/040_backup.html#excluding-files).

    One that begins with / is of the whole path, another one of any part of it. ``*`` and ``?`` stand for characters
    of one name, ``**`` for folders.
    """
    translated = [_translated(one.rstrip("/")) for one in patterns if one.rstrip("/")]
    return re.compile("|".join(translated), re.DOTALL) if translated else None


def _translated(pattern: str) -> str:
    """A pattern for the beginning of a path with a slash after it: so it has what is in an excluded folder too."""
    names = pattern.strip("/").split("/")
    return ("/" if pattern.startswith("/") else "(?:.*/)?") + "".join(
        "(?:[^/]+/)*" if name == "**" else _name_translated(name) + "/" for name in names
    )


def _name_translated(name: str) -> str:
    """One name of a pattern, as Go's filepath.Match reads it."""
    found, at = "", 0
    while at < len(name):
        one = name[at]
        closing = name.find("]", at + 2)
        if one == "*":
            found += "[^/]*"
        elif one == "?":
            found += "[^/]"
        elif one == "\\" and at + 1 < len(name):
            at += 1
            found += re.escape(name[at])
        elif one == "[" and closing > 0:
            inside = name[at + 1 : closing]
            found += f"(?!/)[{inside.replace('[', chr(92) + '[')}]"
            at = closing
        else:
            found += re.escape(one)
        at += 1
    return found


# --- comparing --------------------------------------------------------------------------------------------------------


def compare(listing_file: Path, root: Path, started: float) -> list[str]:
    """How restored files differ from their listing, as sentences; empty where all is as it was.

    ``root`` is the folder that the snapshot was restored to: /etc/hosts lies at ROOT/etc/hosts. What changed while
    it was backed up is excused: its own mtime, or (missing, new, or another file by its mtime) its folder's, is not
    older than ``started`` (seconds since the epoch).
    """
    return list(_differences(listing_file, root, started))


def _differences(listing_file: Path, root: Path, started: float) -> Iterator[str]:
    prefix = str(root).rstrip("/")
    with listing_file.open(encoding="ascii") as lines, ThreadPoolExecutor(os.cpu_count()) as pool:
        wanted = (json.loads(line) for line in lines)
        first = next(wanted, None)
        if first is None:
            return
        there = _below(prefix, first["path"])
        waiting: deque[tuple[Mapping[str, Any], Mapping[str, Any], Future[str | None]]] = deque()
        for want, have in _side_by_side(_chain(first, wanted), there):
            if want and have and "size" in want and "size" in have and want["size"] == have["size"]:
                waiting.append((want, have, pool.submit(_hash, prefix + want["path"])))
            elif problem := _difference(want, have, prefix, started):
                yield problem
            if len(waiting) > AHEAD:
                yield from _hash_difference(*waiting.popleft(), prefix, started)
        while waiting:
            yield from _hash_difference(*waiting.popleft(), prefix, started)


def _chain(first: Mapping[str, Any], rest: Iterator[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    yield first
    yield from rest


def _below(prefix: str, path: str) -> Iterator[Mapping[str, Any]]:
    """What was restored of a path, with the paths it had."""
    if not os.path.lexists(prefix + path):
        return
    for one in entries(prefix + path):
        yield {**one, "path": one["path"][len(prefix) :]}


def _side_by_side(
    wanted: Iterator[Mapping[str, Any]], there: Iterator[Mapping[str, Any]]
) -> Iterator[tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]]:
    """Entries of two listings by path; none where one of them has it not."""
    want, have = next(wanted, None), next(there, None)
    while want or have:
        if have is None or (want is not None and _order(want["path"]) < _order(have["path"])):
            yield want, None
            want = next(wanted, None)
        elif want is None or _order(have["path"]) < _order(want["path"]):
            yield None, have
            have = next(there, None)
        else:
            yield want, have
            want, have = next(wanted, None), next(there, None)


def _difference(
    want: Mapping[str, Any] | None, have: Mapping[str, Any] | None, prefix: str, started: float
) -> str | None:
    """What differs where no content has to be read."""
    if want is None or have is None:
        path = (want or have or {})["path"]
        if _changed_since(prefix + os.path.dirname(path), started):
            return None
        return f"{_shown(path)} is missing" if want else f"{_shown(path)} was not there"
    return _unequal(want, have, prefix, started)


def _hash_difference(
    want: Mapping[str, Any], have: Mapping[str, Any], hashed: Future[str | None], prefix: str, started: float
) -> Iterator[str]:
    if hashed.result() != want["sha256"] and (problem := _unequal(want, have, prefix, started)):
        yield problem


def _unequal(want: Mapping[str, Any], have: Mapping[str, Any], prefix: str, started: float) -> str | None:
    path = want["path"]
    kinds = [next(kind for kind in ("folder", "link", "size") if kind in one) for one in (want, have)]
    if kinds[0] == kinds[1] and kinds[0] == "folder":
        return None
    if kinds[0] == kinds[1] == "link" and want["link"] == have["link"]:
        return None
    replaced = kinds != ["size", "size"] or want["mtime_ns"] != have["mtime_ns"]
    if have.get("mtime_ns", 0) >= started * 1e9 or (
        replaced and _changed_since(prefix + os.path.dirname(path), started)
    ):
        return None
    if kinds[0] != kinds[1]:
        return f"{_shown(path)} is another kind of file"
    if kinds[0] == "link":
        return f"{_shown(path)} points to {_shown(have['link'])} instead of {_shown(want['link'])}"
    if want["size"] != have["size"]:
        return f"{_shown(path)} has {have['size']} bytes instead of {want['size']}"
    return f"{_shown(path)} has another content"


def _changed_since(folder: str, started: float) -> bool:
    try:
        return os.lstat(folder).st_mtime_ns >= started * 1e9
    except OSError:
        return False


def _shown(path: str) -> str:
    """A path as it may be printed, whatever bytes are in it."""
    return path.encode("utf-8", "backslashreplace").decode()


# --- the manifest itself ----------------------------------------------------------------------------------------------


def load(path: Path) -> Mapping[str, Any]:
    """A manifest; raises Failure where it is none."""
    found = read_json(path)
    if not isinstance(found, dict) or "run" not in found or "started" not in found:
        raise Failure(f"{path} is no manifest of a backup")
    return found
