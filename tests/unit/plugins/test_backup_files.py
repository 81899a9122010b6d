# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Restored files in the place of those that are there: all of them, or none."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from ansible_collections.fushuma.production.plugins.module_utils.backup import files
from ansible_collections.fushuma.production.plugins.module_utils.backup.files import PathWork
from ansible_collections.fushuma.production.plugins.module_utils.backup.programs import Failure


def tree(root: Path) -> dict[str, object]:
    """What is below a folder: kind, mode, time and content of all."""
    found: dict[str, object] = {}
    for path in sorted([root, *root.rglob("*")]):
        about = path.lstat()
        content: object = path.readlink() if path.is_symlink() else None
        if stat.S_ISREG(about.st_mode):
            content = path.read_bytes()
        found[str(path.relative_to(root))] = (oct(about.st_mode), about.st_mtime_ns, content)
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """What a snapshot has."""
    root = tmp_path / "restored"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "empty").mkdir(mode=0o750)
    (root / "file").write_text("one")
    (root / "file").chmod(0o640)
    (root / "deep" / "er" / "file").write_text("two")
    (root / "link").symlink_to("nowhere")
    (root / "first").write_text("twice")
    (root / "second").hardlink_to(root / "first")
    os.mkfifo(root / "pipe", 0o600)
    for path in [*root.rglob("*"), root]:
        os.utime(path, ns=(10**18, 10**18), follow_symlinks=False)
    return root


def put(source: Path, target: Path) -> None:
    work = PathWork(source, target)
    work.prepare()
    work.bring()
    work.discard()


def test_a_folder_that_is_gone(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "not" / "there"
    put(source, target)
    assert tree(target) == tree(source)
    assert (target / "first").samefile(target / "second")
    inodes = {path: path.lstat().st_ino for path in target.rglob("*")}
    put(source, target)
    assert {path: path.lstat().st_ino for path in target.rglob("*")} == inodes, "what is the same stays"


def test_what_differs_is_replaced_and_what_is_new_stays(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    put(source, target)
    wanted = tree(target)
    (target / "file").write_text("changed")
    (target / "deep" / "er" / "file").unlink()
    (target / "link").unlink()
    (target / "link").symlink_to("elsewhere")
    (target / "second").unlink()
    (target / "pipe").unlink()
    (target / "pipe").write_text("none")
    (target / "empty").chmod(0o700)
    (target / "new").write_text("mine")
    put(source, target)
    assert (target / "new").read_text() == "mine"
    (target / "new").unlink()
    os.utime(target, ns=(10**18, 10**18))
    assert tree(target) == wanted
    assert (target / "first").samefile(target / "second")


def test_times_and_modes_count(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    put(source, target)
    (target / "file").chmod(0o600)
    os.utime(target / "first", ns=(5, 5))
    put(source, target)
    assert tree(target) == tree(source)


def test_folders_above_are_as_the_snapshot_has_them(tmp_path: Path) -> None:
    source = tmp_path / "restored" / "srv" / "app" / "data"
    source.mkdir(parents=True)
    source.parent.chmod(0o750)
    put(source, tmp_path / "live" / "srv" / "app" / "data")
    assert (tmp_path / "live" / "srv" / "app").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "live").stat().st_mode & 0o777 == 0o755


def test_a_single_file(source: Path, tmp_path: Path) -> None:
    put(source / "file", tmp_path / "there" / "file")
    assert (tmp_path / "there" / "file").read_text() == "one"


@pytest.mark.parametrize("path", ["deep", "file", "deep/er/file"])
def test_a_folder_and_a_file_of_one_name(source: Path, tmp_path: Path, path: str) -> None:
    target = tmp_path / "target"
    put(source, target)
    (target / "first").write_text("changed")
    (target / path).rename(tmp_path / "away")
    if (tmp_path / "away").is_dir():
        (target / path).write_text("a file")
    else:
        (target / path).mkdir()
    before = tree(target)
    work = PathWork(source, target)
    with pytest.raises(Failure, match=f"target/{path} is a folder .*: move it away first"):
        work.prepare()
    work.discard()
    after = tree(target)
    for folder in [name for name in before if str(before[name]).startswith("('0o4")]:
        before.pop(folder), after.pop(folder)  # their times say that something was there for a moment
    assert after == before


def test_no_room_changes_nothing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "file").write_text("mine")
    copied = []

    def copy(source: Path, beside: Path) -> None:
        copied.append(beside)
        beside.touch()
        if len(copied) == 3:
            raise OSError(28, "No space left on device", str(beside))

    monkeypatch.setattr(files, "copy", copy)
    work = PathWork(source, target)
    with pytest.raises(Failure, match="target cannot be restored: No space left on device"):
        work.prepare()
    work.discard()
    assert {name: (target / name).read_text() for name in os.listdir(target)} == {"file": "mine"}


def test_what_a_killed_restore_left_goes(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    put(source, target)
    (target / "file").write_text("changed")
    left = target / "deep" / "er" / f"{files.BESIDE}0"
    left.write_text("half")
    work = PathWork(source, target)
    work.prepare()
    # Another part of the same restore may lie within this one; its copies are still to come to their places.
    PathWork(source, target).prepare()
    work.bring()
    work.discard()
    assert not left.exists()
    assert (target / "file").read_text() == "one"


def test_a_restore_cut_short_says_so(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "target"
    work = PathWork(source, target)
    work.prepare()
    monkeypatch.setattr(files, "like", lambda source, target: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    with pytest.raises(Failure, match="target is restored in part only, run it again"):
        work.bring()
    work.discard()
    monkeypatch.undo()
    put(source, target)
    assert tree(target) == tree(source)


def test_the_part_of_a_listing(tmp_path: Path) -> None:
    lines = [json.dumps({"path": path}) + "\n" for path in ("/srv", "/srv/a", "/srv/a/b", "/srv/ab", "/srv/\udcff")]
    (tmp_path / "l.jsonl").write_text("".join(lines), "ascii")
    part = files.listing_below(tmp_path / "l.jsonl", "/srv/a")
    assert part.read_text() == "".join(lines[1:3])
    assert files.listing_below(tmp_path / "l.jsonl", "/srv").read_text() == "".join(lines)


def test_the_owner_comes_before_the_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of owner takes the setuid bit and capabilities away."""
    said: list[object] = []
    monkeypatch.setattr(os, "chown", lambda path, uid, gid, follow_symlinks: said.append((uid, gid, follow_symlinks)))
    monkeypatch.setattr(files.shutil, "copystat", lambda source, target, follow_symlinks: said.append("mode"))  # type: ignore[attr-defined]
    (tmp_path / "source").touch()
    files.like(tmp_path / "source", tmp_path / "target")
    assert said == [(os.getuid(), os.getgid(), False), "mode"]
