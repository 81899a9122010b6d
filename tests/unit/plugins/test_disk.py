# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What of a disk may go: what is chosen, what stays, and what is said of it."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.module_utils import disk
from ansible_collections.fushuma.production.plugins.module_utils.disk import Part, Usage, telling
from ansible_collections.fushuma.production.plugins.module_utils.journal import Finished
from ansible_collections.fushuma.production.plugins.modules import free_disk

from .modules import run_module

DAY = 86400
GIB = 1 << 30


def planted(root: Path, name: str, *, size: int = 4096, days: float = 0) -> str:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(size))
    then = time.time() - days * DAY
    os.utime(path, (then, then))
    return str(path)


class Programs:
    """What programs say, by the words that begin their command lines; and what was run."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, str]] = {}
        self.said: list[str] = []

    def run(self, argv: Sequence[str], timeout: float | None = None) -> Finished:
        self.said.append(" ".join(argv))
        found = [answer for words, answer in self.answers.items() if self.said[-1].startswith(words)]
        return Finished(argv, *(found[-1] if found else (0, "")))


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Programs:
    found = Programs()
    monkeypatch.setattr(disk, "run", found.run)
    return found


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "base", "size"),
    [
        ("500M", 1024, 500 << 20),
        ("1G", 1024, 1 << 30),
        ("1.5k", 1024, 1536),
        ("4096", 1024, 4096),
        (" 2GiB ", 1024, 2 << 30),
        ("1.2GB", 1000, 1_200_000_000),
        ("0B", 1000, 0),
        ("12.5kB", 1000, 12_500),
    ],
)
def test_sizes(text: str, base: int, size: int) -> None:
    assert disk.bytes_of(text, base) == size


@pytest.mark.parametrize("text", ["", "much", "-1M", "1X", "1 M M"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        disk.bytes_of(text)


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (2048, "2 KiB"), (5 << 20, "5 MiB"), (5 << 40, "5120.0 GiB")]
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert disk.readable(size) == text


# --- files ------------------------------------------------------------------------------------------------------------


def test_rotated_logs(tmp_path: Path) -> None:
    goes = (
        "syslog.1",
        "syslog.2.gz",
        "app/access.log-20260901.gz",
        "app/access.log-20260901-1234",
        "x.old",
        "y.12.zst",
    )
    stays = ("syslog", "dump.gz", "mysql/mariadb-bin.000001", "app/v1.2.log", "journal/1/system.1", "app/2026.log")
    for name in (*goes, *stays):
        planted(tmp_path, f"var/log/{name}", days=20)
    planted(tmp_path, "var/log/young.1", days=13)
    (tmp_path / "var/log/link.1").symlink_to(planted(tmp_path, "srv/data.1", days=20))
    part = disk.rotated_logs(14, time.time(), str(tmp_path))
    assert (part.count, part.size, part.what) == (len(goes), 4096 * len(goes), "rotated logs older than 14 days")
    part.go()
    left = {str(path.relative_to(tmp_path / "var/log")) for path in (tmp_path / "var/log").rglob("*") if path.is_file()}
    assert left == {*stays, "young.1", "link.1"}
    assert part.failures == []


def test_core_dumps(tmp_path: Path) -> None:
    planted(tmp_path, "var/lib/systemd/coredump/core.a.zst")
    planted(tmp_path, "var/crash/202611/dump")
    assert disk.core_dumps(str(tmp_path)).count == 2
    assert disk.core_dumps(str(tmp_path / "none")).count == 0


def test_what_does_not_go_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [planted(tmp_path, f"var/crash/{name}") for name in ("gone", "held", "goes")]
    part = disk.core_dumps(str(tmp_path))
    os.unlink(paths[0])
    real = os.unlink

    def unlink(path: str) -> None:
        if path == paths[1]:
            raise OSError(1, "Operation not permitted")
        real(path)

    monkeypatch.setattr(disk.os, "unlink", unlink)
    part.go()
    assert part.as_dict()["failures"] == [f"{paths[1]}: Operation not permitted"]
    assert not os.path.exists(paths[2])


def test_other_file_systems_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted(tmp_path, "var/crash/own/a")
    other = planted(tmp_path, "var/crash/other/b")
    gone = tmp_path / "var/crash/vanishes"
    gone.mkdir()
    real = os.lstat

    def lstat(path: Any) -> os.stat_result:
        if str(path) == str(gone):
            raise FileNotFoundError
        about = list(real(path))
        about[stat.ST_DEV] += str(path) == os.path.dirname(other)
        return os.stat_result(about + [None] * 0) if str(path) == os.path.dirname(other) else real(path)

    monkeypatch.setattr(disk.os, "lstat", lstat)
    assert [os.path.basename(one.path) for one in disk.files_below(str(tmp_path / "var/crash"))] == ["a"]


def test_packages(tmp_path: Path, programs: Programs) -> None:
    for name in ("archives/a_1_all.deb", "archives/partial/b", "pkgcache.bin", "archives/lock"):
        planted(tmp_path, f"var/cache/apt/{name}")
    part = disk.packages(str(tmp_path))
    assert part.count == 3
    part.go()
    assert (programs.said, part.failures) == (["apt-get clean"], [])
    programs.answers["apt-get"] = (100, "Could not get lock")
    part.go()
    assert part.failures == ["apt-get clean: Could not get lock"]


@pytest.mark.parametrize(("bound", "count"), [(0, 2), (12 * 1024, 1), (1 << 30, 0)])
def test_the_journal(tmp_path: Path, programs: Programs, bound: int, count: int) -> None:
    folder = "var/log/journal/1"
    planted(tmp_path, f"{folder}/system.journal", size=8192)
    planted(tmp_path, f"{folder}/system@1.journal", days=9)
    planted(tmp_path, f"{folder}/user-1000@2.journal~", days=1)
    planted(tmp_path, f"{folder}/note")
    part = disk.journal(bound, str(tmp_path))
    assert (part.count, part.size) == (count, count * 4096)
    programs.answers["journalctl"] = (1, "no")
    part.go()
    assert programs.said == [f"journalctl --vacuum-size={bound}"]
    assert part.failures == ["journalctl: no"]
    programs.answers.clear()
    part.go()
    assert len(part.failures) == 1


# --- Docker -----------------------------------------------------------------------------------------------------------

ENDED: dict[str, Any] = {
    "Id": "1",
    "State": {"Status": "exited"},
    "Config": {"Labels": {"a": "b"}},
    "HostConfig": {"RestartPolicy": {"Name": "no"}},
    "Mounts": [{"Type": "bind"}],
    "SizeRw": 1000,
}


@pytest.mark.parametrize(
    ("changes", "goes"),
    [
        ({}, True),
        ({"State": {"Status": "dead"}}, True),
        ({"Config": None, "HostConfig": None, "Mounts": None}, True),
        ({"HostConfig": {"RestartPolicy": {"Name": ""}}}, True),
        ({"State": {"Status": "running"}}, False),
        ({"State": {"Status": "created"}}, False),
        ({"State": {"Status": "paused"}}, False),
        ({"State": None}, False),
        ({"Config": {"Labels": {"production.application": "shop"}}}, False),
        ({"HostConfig": {"RestartPolicy": {"Name": "unless-stopped"}}}, False),
        ({"HostConfig": {"RestartPolicy": {"Name": "on-failure"}}}, False),
        ({"Mounts": [{"Type": "bind"}, {"Type": "volume", "Name": "kept"}]}, False),
    ],
)
def test_which_containers_ended_for_good(changes: dict[str, Any], goes: bool) -> None:
    assert disk.expendable({**ENDED, **changes}) is goes


IMAGES = [
    {"ID": "sha256:a", "Repository": "<none>", "Tag": "<none>", "Size": "1.2MB"},
    {"ID": "sha256:b", "Repository": "<none>", "Tag": "<none>", "Size": "odd"},
    {"ID": "sha256:c", "Repository": "registry.example.net/shop", "Tag": "<none>", "Size": "9MB"},
    {"ID": "sha256:d", "Repository": "<none>", "Tag": "<none>", "Size": "9MB"},
]
DISK = [{"Type": "Images", "Reclaimable": "5GB (20%)"}, {"Type": "Build Cache", "Reclaimable": "2.5GB"}]


def lines(rows: Sequence[dict[str, Any]]) -> str:
    return "\n".join(json.dumps(row) for row in rows)


def test_what_docker_has_to_spare(programs: Programs) -> None:
    running = {**ENDED, "Id": "2", "Image": "sha256:d", "State": {"Status": "running"}}
    programs.answers |= {
        "docker ps": (0, "1\n2"),
        "docker container inspect": (0, json.dumps([ENDED, running])),
        "docker image ls": (0, lines(IMAGES)),
        "docker system df": (0, lines(DISK)),
    }
    parts = disk.docker()
    assert [(part.what, part.count, part.size) for part in parts] == [
        ("containers that ended", 1, 1000),
        ("images without a name", 2, 1_200_000),
        ("what builds have left", 1, 2_500_000_000),
    ]
    programs.said.clear()
    programs.answers["docker image rm sha256:b"] = (1, "it is used")
    programs.answers["docker builder"] = (1, "no")
    for part in parts:
        part.go()
    assert programs.said == [
        "docker container rm 1",
        "docker image rm sha256:a",
        "docker image rm sha256:b",
        "docker builder prune --all --force",
    ]
    assert [part.failures for part in parts] == [[], ["docker image rm: it is used"], ["docker builder prune: no"]]
    del programs.answers["docker builder"]
    assert list(parts[2].remove()) == []


def test_a_docker_that_is_none_or_says_nothing(programs: Programs) -> None:
    programs.answers["docker"] = (127, "docker: No such file or directory")
    assert disk.docker() == []
    programs.answers |= {"docker ps": (0, "1"), "docker image ls": (1, "no")}
    assert [(part.count, part.size) for part in disk.docker()] == [(0, 0), (0, 0), (0, 0)]
    programs.answers["docker ps"] = (0, "")
    assert [part.count for part in disk.docker()] == [0, 0, 0]


# --- what fills the disks ---------------------------------------------------------------------------------------------

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:5 / /proc rw - proc proc rw
24 22 8:1 /srv /srv rw - ext4 /dev/sda1 rw
25 22 8:17 / /usr rw - xfs /dev/sdb1 rw
26 22 0:40 / /mnt/far rw - nfs4 far:/ rw
27 22 0:50 / /var rw - overlay overlay rw
28 22 8:33 / /does\\040not/exist rw - ext4 /dev/sdc1 rw
"""


def test_file_systems_on_disks() -> None:
    assert disk.places(MOUNTS) == ["/", "/usr"]
    assert disk.places("22 1 0:31 / / rw - overlay overlay rw\n") == ["/"]


def test_how_full_a_file_system_is(monkeypatch: pytest.MonkeyPatch) -> None:
    about = os.statvfs_result((4096, 4096, 1000, 400, 300, 100, 25, 25, 0, 255))
    monkeypatch.setattr(disk.os, "statvfs", lambda place: about)
    found = disk.usage("/")
    assert found == Usage("/", 900 * 4096, 600 * 4096, 75)
    assert found.line == "/: 2 MiB of 4 MiB (67 %, inodes 75 %)"
    monkeypatch.setattr(disk.os, "statvfs", lambda place: os.statvfs_result((4096, 4096, 0, 0, 0, 0, 0, 0, 0, 255)))
    assert disk.usage("/boot").line == "/boot: 0 B of 0 B (0 %)"


def test_folders_that_say_where_it_is(programs: Programs) -> None:
    programs.answers["du"] = (1, f"du: cannot read\n{GIB}\t/srv/large\n{GIB + 10}\t/srv\n500\t/etc\n{GIB * 2}\t/")
    assert disk.largest("/") == [("/srv/large", GIB), ("/etc", 500)]
    assert programs.said[0].endswith("-- /")
    programs.answers["du"] = (124, "du did not end")
    assert disk.largest("/") is None
    assert telling({"/a": 100, "/a/b": 50, "/a/c": 50, "/d": 0}, 2) == [("/a", 100), ("/a/b", 50)]


def test_deleted_files_that_a_process_keeps(tmp_path: Path) -> None:
    path = tmp_path / "gone"
    with path.open("wb") as large, (tmp_path / "small").open("wb") as small, path.open("rb"):
        large.write(b"x" * (2 << 20))
        large.flush()
        path.unlink()
        (tmp_path / "small").unlink()
        found = disk.deleted_but_open()
        assert small
    mine = [(what, size) for what, size in found if str(tmp_path) in what]
    assert mine == [(f"{path}, kept by {Path('/proc/self/comm').read_text().strip()} ({os.getpid()})", 2 << 20)]
    assert disk.deleted_but_open(str(tmp_path)) == []


# --- the module -------------------------------------------------------------------------------------------------------


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[Part]:
    went: list[str] = []
    found = [
        Part("core dumps", 2048, 1, lambda: went.append("core dumps") or ["one stays"]),  # type: ignore[func-returns-value]
        Part("nothing", 0, 0, lambda: went.append("nothing") or []),  # type: ignore[func-returns-value]
        Part("went", remove=lambda: went),
    ]
    monkeypatch.setattr(free_disk, "expendables", lambda bound, days: found if (bound, days) == (1 << 30, 14) else [])
    monkeypatch.setattr(free_disk, "places", lambda text: ["/", "/far"])
    monkeypatch.setattr(free_disk, "usage", lambda place: Usage(place, 100, 50, 1))
    monkeypatch.setattr(free_disk, "largest", lambda place: [("/srv", 4096)] if place == "/" else None)
    monkeypatch.setattr(free_disk, "deleted_but_open", lambda: [("/tmp/x, kept by a (1)", 5 << 20)])
    return found


def test_it_frees_and_says_so(parts: list[Part], capsys: pytest.CaptureFixture[str]) -> None:
    result = run_module(free_disk.main, capsys)
    assert result["changed"] is True
    assert result["report"] == [
        "before: /: 50 B of 100 B (50 %)",
        "before: /far: 50 B of 100 B (50 %)",
        "after: /: 50 B of 100 B (50 %)",
        "after: /far: 50 B of 100 B (50 %)",
        "freed: core dumps, 2 KiB",
        "not removed: one stays",
        "large: /srv, 4 KiB",
        "which folders of /far take most was not known within 300 s",
        "deleted, and there until its process ends: /tmp/x, kept by a (1), 5 MiB",
    ]
    assert parts[2].remove() == ["core dumps"]


def test_a_dry_run_removes_nothing(parts: list[Part], capsys: pytest.CaptureFixture[str]) -> None:
    result = run_module(free_disk.main, capsys, check=True)
    assert (result["changed"], parts[2].remove()) == (True, [])
    assert "would free: core dumps, 2 KiB" in result["report"]
    assert not [line for line in result["report"] if line.startswith("after")]


def test_nothing_to_free(parts: list[Part], capsys: pytest.CaptureFixture[str]) -> None:
    result = run_module(free_disk.main, capsys, days=15)
    assert result["changed"] is False
    assert "there is nothing that may go without asking" in result["report"]


@pytest.mark.parametrize(("wrong", "said"), [({"journal": "much"}, 'journal is "much"'), ({"days": 0}, "days is 0")])
def test_what_cannot_be_meant(
    parts: list[Part], capsys: pytest.CaptureFixture[str], wrong: dict[str, Any], said: str
) -> None:
    result = run_module(free_disk.main, capsys, **wrong)
    assert said in result["msg"]
    assert parts[2].remove() == []


def test_all_that_may_go(tmp_path: Path, programs: Programs) -> None:
    programs.answers["docker"] = (127, "")
    assert [part.what for part in disk.expendables(GIB, 14, str(tmp_path))] == [
        "downloaded packages",
        "rotated logs older than 14 days",
        "journal beyond 1.0 GiB",
        "core dumps",
    ]
