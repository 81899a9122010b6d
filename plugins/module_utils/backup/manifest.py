# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a snapshot has to show when it is restored: files with their hashes, and what was dumped.

A listing has one JSON line for each entry below a path, in the order of their paths:
{"path": "/etc/hosts", "size": 12, "mtime_ns": ..., "ctime_ns": ..., "inode": ..., "sha256": "..."} of a file,
{"path": ..., "link": "target"} of a symbolic link, {"path": ..., "folder": true, "mtime_ns": ...} of a folder.
Bytes of names that are no UTF-8 are kept (surrogateescape).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .programs import Failure as Failure


@dataclass(frozen=True)
class Listed:
    """What a listing counts: files and their bytes, symbolic links, folders."""

    files: int
    bytes: int
    links: int
    folders: int


def listing(root: Path, into: Path, former: Path | None = None, exclude: Iterable[str] = ()) -> Listed:
    """List what is below ``root``. Hashes of files that did not change since ``former`` are taken from there.

    Raises Failure where ``root`` is not there.
    """
    raise NotImplementedError


def compare(listing_file: Path, root: Path, started: float) -> list[str]:
    """How restored files differ from their listing, as sentences; empty where all is as it was.

    ``root`` is the folder that the snapshot was restored to: /etc/hosts lies at ROOT/etc/hosts. What changed while
    it was backed up is excused: its own mtime, or (missing or new) its folder's, is not older than ``started``
    (seconds since the epoch).
    """
    raise NotImplementedError


def load(path: Path) -> Mapping[str, Any]:
    """A manifest; raises Failure where it is none."""
    raise NotImplementedError
