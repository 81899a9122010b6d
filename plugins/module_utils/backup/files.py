# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Restored files in the place of those that are there, each at once and whole.

What differs is copied beside its place first. If that works for all of them, they are renamed, which needs no room and
does not fail half way. Folders stay the same folders, so a container that has one mounted sees the new files. Files
that the snapshot does not have stay.
"""

from __future__ import annotations

import contextlib
import filecmp
import itertools
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .programs import Failure

BESIDE = ".production-restore-"
# Copies by another name than this are of a restore that was killed.
OWN = f"{BESIDE}{secrets.token_hex(4)}-"
NUMBERS = itertools.count()


def listing_below(listing: Path, path: str) -> Path:
    """The part of a listing that is at or below a path, as a file beside it."""
    part = listing.with_name(f"{listing.name}.part")
    with listing.open(encoding="utf-8", errors="surrogateescape") as source:
        lines = [line for line in source if Path(json.loads(line)["path"]).is_relative_to(path)]
    part.write_text("".join(lines), "utf-8", "surrogateescape")
    return part


@dataclass
class PathWork:
    """What lies at ``source`` shall be at ``target``; both are folders, or neither is."""

    source: Path
    target: Path
    _renames: list[tuple[Path, Path]] = field(default_factory=list)  # (copied beside, its place)
    _made: list[Path] = field(default_factory=list)  # folders
    _links: dict[tuple[int, int], Path] = field(default_factory=dict)  # hard links: where the first copy is

    def prepare(self) -> None:
        """Copy what differs beside its place. Raises Failure where a file and a folder have the same name."""
        try:
            self._have_parents()
            for source, target in self._pairs():
                if source.is_dir() and not source.is_symlink():
                    self._have_folder(target)
                else:
                    self._copy_beside(source, target)
        except OSError as error:
            raise Failure(f"{self.target} cannot be restored: {error.strerror}: {error.filename}") from None

    def bring(self) -> None:
        """Put the copies in their places. Raises Failure."""
        try:
            while self._renames:
                beside, target = self._renames[-1]
                beside.replace(target)
                self._renames.pop()
            # The inner ones first: what happens in a folder changes its time.
            for source, target in sorted(self._pairs(), reverse=True):
                if source.is_dir() and not source.is_symlink():
                    like(source, target)
        except OSError as error:
            raise Failure(f"{self.target} is restored in part only, run it again: {error}") from None
        self._made.clear()
        os.sync()

    def discard(self) -> None:
        """Take away what was copied and not put in its place."""
        for beside, _target in self._renames:
            with contextlib.suppress(OSError):
                beside.unlink()
        for folder in reversed(self._made):
            with contextlib.suppress(OSError):
                folder.rmdir()

    def _pairs(self) -> Iterator[tuple[Path, Path]]:
        """Each entry and its place, folders before what is in them."""
        yield self.source, self.target
        if self.source.is_dir() and not self.source.is_symlink():
            for root, folders, names in os.walk(self.source):
                for name in folders + names:
                    source = Path(root, name)
                    yield source, self.target / source.relative_to(self.source)

    def _have_parents(self) -> None:
        """Folders above the place, as the snapshot has them where it does."""
        missing = [one for one in self.target.parents if not one.exists()]
        for folder in reversed(missing):
            folder.mkdir()
            folder.chmod(0o755)
            self._made.append(folder)
            source = self.source.parents[self.target.parents.index(folder)]
            if source.name == folder.name:
                like(source, folder)

    def _have_folder(self, target: Path) -> None:
        if target.is_dir() and not target.is_symlink():
            for left in target.glob(f"{BESIDE}*"):
                if not left.name.startswith(OWN):
                    left.unlink()
            return
        if target.is_symlink() or target.exists():
            raise Failure(f"{target} is a folder in the snapshot and is none now: move it away first")
        target.mkdir(mode=0o700)
        self._made.append(target)

    def _copy_beside(self, source: Path, target: Path) -> None:
        if target.is_dir() and not target.is_symlink():
            raise Failure(f"{target} is a folder now and is none in the snapshot: move it away first")
        about = source.lstat()
        inode = (about.st_dev, about.st_ino)
        if same(source, target):
            self._links.setdefault(inode, target)
            return
        beside = target.with_name(f"{OWN}{next(NUMBERS)}")
        self._renames.append((beside, target))
        if about.st_nlink > 1 and inode in self._links:
            beside.hardlink_to(self._links[inode])
            return
        copy(source, beside)
        self._links[inode] = beside


def same(source: Path, target: Path) -> bool:
    """Whether a file is there already: kind, owner, mode, time and content."""
    try:
        have, want = target.lstat(), source.lstat()
    except FileNotFoundError:
        return False
    if (have.st_mode, have.st_uid, have.st_gid) != (want.st_mode, want.st_uid, want.st_gid):
        return False
    if stat.S_ISLNK(want.st_mode):
        return source.readlink() == target.readlink()
    if not stat.S_ISREG(want.st_mode):
        return have.st_rdev == want.st_rdev
    return have.st_mtime_ns == want.st_mtime_ns and filecmp.cmp(source, target, shallow=False)


def copy(source: Path, target: Path) -> None:
    """A file, a link or what else is no folder, with owner, mode, times and attributes."""
    about = source.lstat()
    if stat.S_ISLNK(about.st_mode):
        target.symlink_to(source.readlink())
    elif stat.S_ISREG(about.st_mode):
        shutil.copyfile(source, target)
    else:
        os.mknod(target, about.st_mode, about.st_rdev)
    like(source, target)


def like(source: Path, target: Path) -> None:
    """Give owner, mode, times and attributes of one to the other."""
    about = source.lstat()
    # First: a change of owner takes capabilities and the setuid bit away.
    os.chown(target, about.st_uid, about.st_gid, follow_symlinks=False)
    shutil.copystat(source, target, follow_symlinks=False)
