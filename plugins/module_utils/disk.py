# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What of a host's disks may go without asking, what it takes, and what fills the rest.

Never touched are volumes, tagged images, releases of applications, and whatever somebody could miss.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.fushuma.production.plugins.module_utils.engine import LABEL
from ansible_collections.fushuma.production.plugins.module_utils.journal import run

# As rotated by logrotate: syslog.1, syslog.2.gz, access.log-20261126.gz. Not a database's mariadb-bin.000001.
ROTATED = re.compile(r".+(?:\.\d{1,3}|\.old|-(?:19|20)\d{6}(?:-?\d{1,10})?)(?:\.(?:gz|xz|bz2|zst))?")
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kKMGTP]?)(i?[bB])?")
UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}
# File systems on disks of the host itself; others may hang, or are memory.
ON_DISK = {"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "jfs", "zfs", "vfat", "overlay"}
DOCKER_SECONDS = 600
WALK_SECONDS = 300
TIMED_OUT = 124  # how `run` says that a program did not end
LARGE = 1 << 20  # bytes from which a deleted file is worth a line
MOST_LISTED = 10
MOST_OF_IT = 0.8  # a folder in which one folder takes more than this is not listed, but that folder is


def bytes_of(text: str, base: int = 1024) -> int:
    """A size as ``500M``, or as Docker writes it (``base`` 1000); raises ValueError for what is none."""
    found = SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text} is no size")
    return int(float(found[1]) * base ** UNITS[found[2].upper()])


def readable(size: float) -> str:
    """A size for people."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


@dataclass
class Part:
    """One thing that may go: what it is, how much it takes (bytes), and how it goes; what failed meanwhile."""

    what: str
    size: int = 0
    count: int = 0
    remove: Callable[[], Iterable[str]] = field(default=list)
    failures: list[str] = field(default_factory=list)

    def go(self) -> None:
        self.failures += self.remove()

    def as_dict(self) -> dict[str, Any]:
        return {"what": self.what, "count": self.count, "bytes": self.size, "failures": self.failures}


# --- files ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """A file and what it takes of the disk."""

    path: str
    size: int
    changed: float


def files_below(folder: str) -> Iterator[Found]:
    """The files below a folder, on its own file system; links are neither followed nor named."""
    with contextlib.suppress(OSError):
        device = os.lstat(folder).st_dev
        for here, folders, names in os.walk(folder):
            folders[:] = [one for one in folders if _on_device(os.path.join(here, one), device)]
            for name in names:
                with contextlib.suppress(OSError):
                    about = os.lstat(os.path.join(here, name))
                    if stat.S_ISREG(about.st_mode):
                        yield Found(os.path.join(here, name), about.st_blocks * 512, about.st_mtime)


def _on_device(path: str, device: int) -> bool:
    with contextlib.suppress(OSError):
        return os.lstat(path).st_dev == device
    return False


def removal(files: Sequence[Found]) -> Callable[[], list[str]]:
    def remove() -> list[str]:
        failures = []
        for file in files:
            try:
                os.unlink(file.path)
            except FileNotFoundError:
                continue
            except OSError as error:
                failures.append(f"{file.path}: {error.strerror}")
        return failures

    return remove


def _files(what: str, files: Sequence[Found]) -> Part:
    return Part(what, sum(file.size for file in files), len(files), removal(files))


def packages(root: str = "/") -> Part:
    """What apt has downloaded and can download again."""
    cache = os.path.join(root, "var/cache/apt")
    files = [one for one in files_below(cache) if one.path.endswith((".deb", ".bin")) or "/partial/" in one.path]

    def clean() -> list[str]:
        done = run(["apt-get", "clean"])
        return [f"apt-get clean: {done.output}"] if done.code else []

    return Part("downloaded packages", sum(file.size for file in files), len(files), clean)


def rotated_logs(days: float, now: float, root: str = "/") -> Part:
    """Logs that were rotated and have not changed for some days."""
    old = [
        one
        for one in files_below(os.path.join(root, "var/log"))
        if ROTATED.fullmatch(os.path.basename(one.path))
        and now - one.changed > days * 86400
        and "/var/log/journal/" not in one.path
    ]
    return _files(f"rotated logs older than {days:g} days", old)


def core_dumps(root: str = "/") -> Part:
    """What systemd-coredump and kdump have left of programs that crashed."""
    folders = ("var/lib/systemd/coredump", "var/crash")
    return _files("core dumps", [one for place in folders for one in files_below(os.path.join(root, place))])


def journal(bound: int, root: str = "/") -> Part:
    """The oldest archived files of the journal, until what is left is within the bound."""
    files = [one for one in files_below(os.path.join(root, "var/log/journal")) if ".journal" in one.path]
    left = sum(file.size for file in files)
    gone = []
    # An archived file has an @ in its name; the others are being written (systemd-journald.service(8)).
    for file in sorted((one for one in files if "@" in os.path.basename(one.path)), key=lambda one: one.changed):
        if left <= bound:
            break
        gone.append(file)
        left -= file.size

    def vacuum() -> list[str]:
        done = run(["journalctl", f"--vacuum-size={bound}"])
        return [f"journalctl: {done.output}"] if done.code else []

    return Part(f"journal beyond {readable(bound)}", sum(file.size for file in gone), len(gone), vacuum)


# --- Docker -----------------------------------------------------------------------------------------------------------


def docker() -> list[Part]:
    """Containers that ended and nobody misses, images without a name, and what builds have left; [] without Docker."""
    listed = run(["docker", "ps", "--all", "--no-trunc", "--quiet"])
    if listed.code:
        return []
    containers = _inspected("container", listed.output.split())
    gone = [one for one in containers if expendable(one)]
    # Docker lists an image without a name as dangling also while a container needs it.
    used = {one.get("Image") for one in containers if not expendable(one)}
    images = run(["docker", "image", "ls", "--filter=dangling=true", "--no-trunc", "--format={{json .}}"])
    return [
        _removed("containers that ended", "container", [(str(one["Id"]), _written(one)) for one in gone]),
        _removed("images without a name", "image", _nameless(images.output, used) if not images.code else []),
        _build_cache(),
    ]


def _inspected(kind: str, ids: Sequence[str]) -> list[dict[str, Any]]:
    if not ids:
        return []
    size = ["--size"] if kind == "container" else []
    try:
        return list(json.loads(run(["docker", kind, "inspect", *size, *ids]).output))
    except ValueError:  # one of them went meanwhile; next time
        return []


def expendable(container: Mapping[str, Any]) -> bool:
    """Whether a container has ended for good.

    No release brings it, Docker would never start it again by itself, and it has no volume, in which data could be.
    """
    labels = (container.get("Config") or {}).get("Labels") or {}
    policy = ((container.get("HostConfig") or {}).get("RestartPolicy") or {}).get("Name") or "no"
    volumes = [mount for mount in container.get("Mounts") or [] if mount.get("Type") == "volume"]
    ended = (container.get("State") or {}).get("Status") in ("exited", "dead")
    return ended and f"{LABEL}application" not in labels and policy == "no" and not volumes


def _written(container: Mapping[str, Any]) -> int:
    return int(container.get("SizeRw") or 0)


def _nameless(output: str, used: Container[Any]) -> list[tuple[str, int]]:
    """The images that nothing uses and that have neither a tag nor the name of a registry, with their sizes."""
    rows = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    nameless = [row for row in rows if row.get("Repository") == "<none>" and row.get("Tag") == "<none>"]
    return [(str(row["ID"]), _size(str(row.get("Size", "")))) for row in nameless if row["ID"] not in used]


def _size(text: str) -> int:
    try:
        return bytes_of(text.partition(" (")[0], 1000)
    except ValueError:
        return 0


def _removed(what: str, kind: str, found: Sequence[tuple[str, int]]) -> Part:
    def remove() -> list[str]:
        # One by one and without force: what something uses after all stays.
        done = [run(["docker", kind, "rm", one], DOCKER_SECONDS) for one, _size_of_it in found]
        return [f"docker {kind} rm: {one.output}" for one in done if one.code]

    return Part(what, sum(size for _id, size in found), len(found), remove)


def _build_cache() -> Part:
    shown = run(["docker", "system", "df", "--format={{json .}}"], DOCKER_SECONDS)
    rows = [json.loads(line) for line in shown.output.splitlines() if line.startswith("{")]
    size = sum(_size(str(row.get("Reclaimable", ""))) for row in rows if row.get("Type") == "Build Cache")

    def prune() -> list[str]:
        done = run(["docker", "builder", "prune", "--all", "--force"], DOCKER_SECONDS)
        return [f"docker builder prune: {done.output}"] if done.code else []

    return Part("what builds have left", size, int(size > 0), prune)


# --- what fills the disks ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Usage:
    """A file system: where it is, its size and what is used of it in bytes, and the share of inodes in percent."""

    place: str
    size: int
    used: int
    inodes: int

    @property
    def line(self) -> str:
        percent = round(100 * self.used / self.size) if self.size else 0
        inodes = f", inodes {self.inodes} %" if self.inodes >= 50 else ""
        return f"{self.place}: {readable(self.used)} of {readable(self.size)} ({percent} %{inodes})"


def places(mountinfo: str) -> list[str]:
    """Where the file systems on disks are, each once (proc_pid_mountinfo(5))."""
    first: dict[str, str] = {}
    for line in mountinfo.splitlines():
        fields, _dash, rest = line.partition(" - ")
        device, place, kind = fields.split()[2], fields.split()[4], rest.split()[0]
        place = re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), place)
        known = first.get(device)
        # Containers have overlays of their own, which are on a file system that is counted already.
        fits = kind in ON_DISK and (kind != "overlay" or place == "/") and os.path.isdir(place)
        if fits and (known is None or len(place) < len(known)):
            first[device] = place
    return sorted(first.values())


def usage(place: str) -> Usage:
    about = os.statvfs(place)
    # As df counts: what is kept for root is neither free nor used.
    used = (about.f_blocks - about.f_bfree) * about.f_frsize
    inodes = round(100 * (about.f_files - about.f_ffree) / about.f_files) if about.f_files else 0
    return Usage(place, used + about.f_bavail * about.f_frsize, used, inodes)


def largest(place: str) -> list[tuple[str, int]] | None:
    """The folders of a file system that take most, with what is below them; None where that takes too long."""
    argv = ["du", "--one-file-system", "--block-size=1", "--max-depth=6", "--", place]
    done = run(argv, WALK_SECONDS)
    if done.code == TIMED_OUT:
        return None
    sizes = {}
    for line in done.output.splitlines():
        size, _tab, path = line.partition("\t")
        if size.isdigit():
            sizes[path] = int(size)
    sizes.pop(place, None)
    return telling(sizes)


def telling(sizes: Mapping[str, int], most: int = MOST_LISTED) -> list[tuple[str, int]]:
    """Of folders and what is below them those that say where it is: none of which one folder takes nearly all."""
    inner: dict[str, int] = {}
    for path, size in sizes.items():
        parent = os.path.dirname(path)
        inner[parent] = max(inner.get(parent, 0), size)
    found = [(path, size) for path, size in sizes.items() if size and inner.get(path, 0) <= MOST_OF_IT * size]
    return sorted(found, key=lambda one: (-one[1], one[0]))[:most]


def deleted_but_open(proc: str = "/proc") -> list[tuple[str, int]]:
    """Large files that have no name any more and that a process keeps, with their sizes."""
    found: dict[tuple[int, int], tuple[str, int]] = {}
    for descriptor in Path(proc).glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            target = os.readlink(descriptor)
            if not target.endswith(" (deleted)") or target.startswith(("/memfd:", "/dev/", "/SYSV")):
                continue
            about = os.stat(descriptor)
            size = about.st_blocks * 512
            if stat.S_ISREG(about.st_mode) and size >= LARGE:
                process = descriptor.parent.parent
                name = (process / "comm").read_text("utf-8", "replace").strip()
                kept = f"{target.removesuffix(' (deleted)')}, kept by {name} ({process.name})"
                found.setdefault((about.st_dev, about.st_ino), (kept, size))
    return sorted(found.values(), key=lambda one: (-one[1], one[0]))[:MOST_LISTED]


def expendables(bound: int, days: float, root: str = "/") -> list[Part]:
    """All that may go, with what it takes."""
    return [
        packages(root),
        rotated_logs(days, time.time(), root),
        journal(bound, root),
        core_dumps(root),
        *docker(),
    ]
