# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What stood on the host before a change, and how to put it back.

This one file imports the standard library only: the engine copies it to the host, where a timer (an unconfirmed change)
and the boot (a change cut short by a power loss) run it by itself: ``python3 journal.py restore NAME``.

Below STATE, for each service NAME:
  NAME.record   what was last activated: ``{"files": {path: digest}}``; missing = unknown, so the next run activates.
  NAME.journal  what stood there before the change now under way; missing = no change is under way.
  NAME.lock     held while a change or its reversal runs.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import fcntl
import grp
import hashlib
import json
import os
import pwd
import stat
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

STATE = Path("/var/lib/fushuma-production")
COMMAND_TIMEOUT = 120  # seconds; a checker or systemctl that takes longer is stuck
# `reload` falls back to a restart for units that cannot reload, such as timers.
VERBS = {"reload": "reload-or-restart", "restart": "restart"}


class TransactionError(Exception):
    """A step that failed, in words for the operator."""


# --- one path of the file system -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A path as it stands, or as it shall stand.

    kind: ``absent``, ``file``, ``link``, ``directory``, or ``attributes`` for owner and mode of whatever is there;
    ``data`` holds a file's bytes or a link's target.
    """

    path: str
    kind: str = "absent"
    data: bytes = b""
    mode: int = 0
    uid: int = 0
    gid: int = 0

    @property
    def digest(self) -> str:
        """A SHA-256 over all of it, so that a wrong mode or owner counts as a difference too."""
        attributes = f"{self.kind} {self.mode:o} {self.uid} {self.gid} ".encode()
        return hashlib.sha256(attributes + self.data).hexdigest()


def snapshot(path: str) -> Entry:
    """The path as it stands now; links are not followed."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return Entry(path)
    mode, uid, gid = stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid
    if stat.S_ISLNK(found.st_mode):
        return Entry(path, "link", os.fsencode(os.readlink(path)))
    if stat.S_ISDIR(found.st_mode):
        return Entry(path, "directory", b"", mode, uid, gid)
    if stat.S_ISREG(found.st_mode):
        return Entry(path, "file", Path(path).read_bytes(), mode, uid, gid)
    raise TransactionError(f"{path} is neither a file, a link nor a directory; it is left alone")


def attributes_of(path: str) -> Entry:
    """Owner and mode of a path, whatever it is; links are not followed, for they have no mode of their own."""
    found = snapshot(path)
    return found if found.kind in ("absent", "link") else replace(found, kind="attributes", data=b"")


def staged_name(path: str) -> str:
    """Where new content waits for its rename: beside its place, and hidden from the ``*`` of include directives."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.fushuma-new")


def make_so(entries: Iterable[Entry]) -> None:
    """Make every path stand as its entry says.

    All new content is on the disk before the first path is replaced, so a full disk is found while nothing has changed.
    """
    ordered = sorted(entries, key=lambda entry: entry.path)
    for entry in ordered:
        if entry.kind == "directory":
            os.makedirs(entry.path, exist_ok=True)
        if entry.kind == "directory" or (entry.kind == "attributes" and os.path.exists(entry.path)):
            # In this order: a new owner takes the set-user-id bit away.
            os.chown(entry.path, entry.uid, entry.gid)
            os.chmod(entry.path, entry.mode)
    replaced = [entry for entry in ordered if entry.kind in ("file", "link")]
    try:
        for entry in replaced:
            _stage(entry)
        for entry in replaced:
            os.replace(staged_name(entry.path), entry.path)
    finally:
        discard_staged(entry.path for entry in replaced)
    for entry in reversed(ordered):
        if entry.kind == "absent":
            _remove(entry.path)
    for folder in {os.path.dirname(entry.path) for entry in ordered}:
        _sync(folder)


def _stage(entry: Entry) -> None:
    staged = staged_name(entry.path)
    discard_staged([entry.path])
    try:
        if entry.kind == "link":
            os.symlink(os.fsdecode(entry.data), staged)
            return
        # Opened unreadable for others: the content may be secret before the mode is set.
        descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(entry.data)
            out.flush()
            os.fchown(descriptor, entry.uid, entry.gid)
            os.fchmod(descriptor, entry.mode)
            os.fsync(descriptor)
    except OSError as error:
        # A write, unlike an open, does not say which file it was about.
        raise OSError(error.errno, error.strerror, entry.path) from error


def discard_staged(paths: Iterable[str]) -> None:
    for path in paths:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(staged_name(path))


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if os.path.isdir(path) and not os.path.islink(path):
            # Something else may have put files there meanwhile; they are not ours to delete.
            with contextlib.suppress(OSError):
                os.rmdir(path)
        else:
            os.unlink(path)


def _sync(folder: str) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def user_id(name: str) -> int | None:
    """The uid of a user name; None where the host does not know it (yet)."""
    try:
        return int(name) if name.isdigit() else pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def group_id(name: str) -> int | None:
    """The gid of a group name; None where the host does not know it (yet)."""
    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except KeyError:
        return None


# --- programs and units ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finished:
    """A program that has ended."""

    argv: Sequence[str]
    code: int
    output: str


def run(argv: Sequence[str], timeout: float | None = None) -> Finished:
    """Run a program to its end; one that cannot be started or is stuck counts as failed, never as an exception."""
    seconds = COMMAND_TIMEOUT if timeout is None else timeout
    try:
        # AnsibleModule.run_command is not there when a timer or the boot runs this file.
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except OSError as error:
        return Finished(argv, 127, f"{argv[0]}: {error.strerror}")
    except subprocess.TimeoutExpired:
        return Finished(argv, 124, f"{argv[0]} did not end within {seconds} s")
    return Finished(argv, done.returncode, done.stdout.decode("utf-8", "replace").strip())


def must(argv: Sequence[str], timeout: float | None = None) -> None:
    """Run a program that has to succeed."""
    done = run(argv, timeout)
    if done.code:
        raise TransactionError(f"`{' '.join(argv)}` failed ({done.code}): {done.output}")


@dataclass(frozen=True)
class Unit:
    """A systemd unit as systemd sees it now."""

    name: str
    loaded: bool
    active: bool
    enabled: bool
    stale: bool  # its file is newer than what systemd has read


def units(names: Sequence[str]) -> list[Unit]:
    """The state of the units, in the order given, in one call."""
    if not names:
        return []
    properties = "LoadState,ActiveState,UnitFileState,NeedDaemonReload"
    shown = run(["systemctl", "show", f"--property={properties}", "--", *names])
    blocks = shown.output.split("\n\n")
    if shown.code or len(blocks) != len(names):
        raise TransactionError(f"systemd does not answer: {shown.output}")
    found = []
    for name, block in zip(names, blocks, strict=True):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        found.append(
            Unit(
                name,
                loaded=values.get("LoadState") == "loaded",
                active=values.get("ActiveState") in ("active", "reloading", "activating"),
                enabled=values.get("UnitFileState") in ("enabled", "static", "alias", "indirect", "generated"),
                stale=values.get("NeedDaemonReload") == "yes",
            )
        )
    return found


# --- the journal -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Before:
    """What a change may have to put back, and how the service takes up its files.

    ``retire`` are commands that want to see the new files once more, ``apply`` those that bring the former ones into
    force, and ``on_change`` what the units do then: reload, restart or, where the change was none of theirs, nothing
    (""). ``activated`` is the record as it was; ``wanted`` the
    one that holds once the change is confirmed.
    """

    entries: list[Entry]
    units: list[Unit] = field(default_factory=list)
    retire: list[list[str]] = field(default_factory=list)
    apply: list[list[str]] = field(default_factory=list)
    on_change: str = "reload"
    activated: dict[str, str] | None = None
    wanted: dict[str, str] = field(default_factory=dict)
    armed: bool = False  # a timer restores unless the change is confirmed
    replaced: list[Unit] = field(default_factory=list)  # units in whose place the service's own ones work


class Store:
    """The record, the journal and the lock of one service."""

    def __init__(self, name: str, state: Path | None = None) -> None:
        self.state = state or STATE
        self.name = name
        self.record_path = self.state / f"{name}.record"
        self.journal_path = self.state / f"{name}.journal"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the service's lock; a second run on the same host waits for the first."""
        self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(self.state / f"{self.name}.lock", "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # A run that was killed while it wrote one of them has left a part of it.
            discard_staged([str(self.record_path), str(self.journal_path)])
            yield

    def activated(self) -> dict[str, str] | None:
        """The digests of the files the service last took up; None if that is not known."""
        try:
            return dict(json.loads(self.record_path.read_text("utf-8"))["files"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def record(self, files: dict[str, str]) -> None:
        self._write(self.record_path, {"files": files})

    def forget(self) -> None:
        """From here on nobody knows what the service runs with."""
        self.record_path.unlink(missing_ok=True)
        _sync(str(self.state))

    def open(self, before: Before) -> None:
        """Note what stands there, before anything is touched."""
        document = asdict(before)
        for entry in document["entries"]:
            entry["data"] = base64.b64encode(entry["data"]).decode("ascii")
        self._write(self.journal_path, document)

    def pending(self) -> Before | None:
        """What the change under way, or left by a killed run, has to put back."""
        try:
            document = json.loads(self.journal_path.read_text("utf-8"))
        except FileNotFoundError:
            return None
        entries = [Entry(**{**entry, "data": base64.b64decode(entry["data"])}) for entry in document["entries"]]
        found = {key: [Unit(**unit) for unit in document.get(key, [])] for key in ("units", "replaced")}
        return Before(**{**document, "entries": entries, **found})

    def close(self) -> None:
        self.journal_path.unlink(missing_ok=True)
        _sync(str(self.state))

    def _write(self, path: Path, document: object) -> None:
        make_so([Entry(str(path), "file", json.dumps(document).encode(), 0o600, os.geteuid(), os.getegid())])

    def restore(self, *, activate: bool = True) -> list[str]:
        """Put back what the journal holds; returns what could not be put back, empty when all was.

        The journal goes last: a restore that is killed is done again. The record tells whether the service may have
        seen the new files: `forget` comes before the first activation, and the record of the change at its end.
        """
        before = self.pending()
        if before is None:
            return []
        recorded = self.activated()
        seen = activate and (recorded is None or recorded == before.wanted != before.activated)
        complaints = retire(before.units) + _complaints(before.retire) if seen else []
        discard_staged(entry.path for entry in before.entries)
        # Only what really differs is written: on a full disk the originals are still there, and no room for copies.
        make_so(entry for entry in before.entries if snapshot(entry.path) != entry)
        if seen:
            complaints += reactivate(before)
        if not activate:
            # At boot the units start with what is on the disk now, and nobody watches how that goes.
            self.forget()
        elif seen and not complaints and before.activated is not None:
            # Without the record the next run activates once more, which does no harm.
            with contextlib.suppress(OSError):
                self.record(before.activated)
        self.close()
        return complaints


def retire(were: Sequence[Unit]) -> list[str]:
    """Stop and disable the units that the change brought, while their files are still there to be disabled by."""
    brought = [unit.name for unit in were if not unit.loaded]
    return _complaints([["systemctl", "disable", "--now", name] for name in brought])


def reactivate(before: Before) -> list[str]:
    """Make the service run again as it ran before; goes on after a failure and returns all of them."""
    were = [unit for unit in before.units if unit.loaded]
    # What was to be taken up may have failed so often that systemd would not start it once more (StartLimitBurst=).
    for name in [unit.name for unit in (*were, *before.replaced) if unit.active]:
        run(["systemctl", "reset-failed", name])
    commands = [["systemctl", "daemon-reload"], *before.apply] if before.units else list(before.apply)
    back = [was for was in before.replaced if was.active]
    if all(now.active for now in units([was.name for was in back])):
        back = []
    if back:
        # A socket is not taken back from a service that still runs.
        commands += [["systemctl", "stop", unit.name] for unit in were]
    complaints = _complaints(commands)
    found = list(zip(were, units([unit.name for unit in were]), strict=True))
    commands = [["systemctl", "enable", unit.name] for unit in before.replaced if unit.enabled]
    for was, now in found:
        if was.enabled != now.enabled:
            commands.append(["systemctl", "enable" if was.enabled else "disable", was.name])
    commands += [["systemctl", "start", unit.name] for unit in back]
    for was, now in found:
        if was.active and not now.active:
            commands.append(["systemctl", "restart", was.name])
        elif was.active and before.on_change:
            commands.append(["systemctl", VERBS[before.on_change], was.name])
        elif now.active and not was.active:
            commands.append(["systemctl", "stop", was.name])
    return complaints + _complaints(commands)


def _complaints(commands: Iterable[Sequence[str]]) -> list[str]:
    results = [run(command) for command in commands]
    return [f"`{' '.join(done.argv)}`: {done.output}" for done in results if done.code]


def main(arguments: Sequence[str]) -> int:
    """Restore services by hand, by timer or at boot; prints what could not be restored."""
    parser = argparse.ArgumentParser(description="Put back what an unfinished change replaced.")
    parser.add_argument("command", choices=["restore"])
    parser.add_argument("names", nargs="*", help="services; all with a journal when none is named")
    parser.add_argument("--state", type=Path, default=STATE)
    parser.add_argument("--boot", action="store_true", help="files only: the units have not started yet")
    options = parser.parse_args(arguments)
    complaints: list[str] = []
    for name in options.names or sorted(path.stem for path in options.state.glob("*.journal")):
        store = Store(name, options.state)
        with store.locked():
            complaints += store.restore(activate=not options.boot)
    sys.stderr.write("".join(f"{complaint}\n" for complaint in complaints))
    return 1 if complaints else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
