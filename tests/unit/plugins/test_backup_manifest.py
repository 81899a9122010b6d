# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Listings of files, what restic leaves out, and how restored files are compared with their listing."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path

import pytest
from ansible_collections.fushuma.production.plugins.module_utils.backup import manifest
from ansible_collections.fushuma.production.plugins.module_utils.backup.manifest import (
    Listed,
    compare,
    entries,
    excludes,
    listing,
    load,
)
from ansible_collections.fushuma.production.plugins.module_utils.backup.programs import Failure
from hypothesis import given, settings
from hypothesis import strategies as st

OLD = 1_600_000_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with all kinds of entries, none of which changed lately."""
    found = tmp_path / "root"
    (found / "deep" / "er").mkdir(parents=True)
    (found / "empty").mkdir()
    (found / "file").write_text("one")
    (found / "deep" / "er" / "file").write_text("two")
    (found / "deep-").write_text("sorted by names, not by paths")
    (found / os.fsdecode(b"latin-\xe9")).write_text("no UTF-8")
    (found / "link").symlink_to("nowhere")
    os.mkfifo(found / "pipe")
    age(found)
    return found


def age(root: Path) -> None:
    for path in [*root.rglob("*"), root]:
        os.utime(path, (OLD, OLD), follow_symlinks=False)


def restored(root: Path, to: Path) -> Path:
    """As restic restores: below the target, under the path it had, with the times it had."""
    target = Path(f"{to}{root}")
    target.parent.mkdir(parents=True)
    if root.is_dir():
        shutil.copytree(root, target, symlinks=True, ignore=lambda _, names: {"pipe"} & set(names))
    else:
        shutil.copy2(root, target)
    return target


def test_a_listing(root: Path, tmp_path: Path) -> None:
    counts = listing(str(root), tmp_path / "list")
    assert counts == Listed(files=4, bytes=3 + 3 + 29 + 8, links=1, folders=4)
    lines = [json.loads(line) for line in (tmp_path / "list").read_text().splitlines()]
    names = [os.fsencode(one["path"][len(str(root)) :]) for one in lines]
    assert names == [
        *(b"", b"/deep", b"/deep/er", b"/deep/er/file", b"/deep-", b"/empty", b"/file", b"/latin-\xe9", b"/link")
    ]
    assert lines[1] == {"path": f"{root}/deep", "folder": True}
    assert lines[-1] == {"path": f"{root}/link", "link": "nowhere"}
    file = lines[6]
    assert (file["size"], file["mtime_ns"]) == (3, OLD * 10**9)
    assert file["sha256"] == "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"


def test_a_file_alone(root: Path, tmp_path: Path) -> None:
    assert listing(str(root / "file"), tmp_path / "list") == Listed(1, 3)
    restored(root / "file", tmp_path / "to")
    assert compare(tmp_path / "list", tmp_path / "to", OLD + 1) == []


def test_hashes_of_a_former_listing(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing(str(root), tmp_path / "first")
    read: list[str] = []
    hashed = manifest._hash
    monkeypatch.setattr(manifest, "_hash", lambda path: read.append(os.path.basename(path)) or hashed(path))
    listing(str(root), tmp_path / "second", tmp_path / "first")
    assert read == []
    assert (tmp_path / "second").read_bytes() == (tmp_path / "first").read_bytes()

    (root / "file").write_text("ONE")
    os.utime(root / "file", (OLD, OLD))
    (root / "deep" / "new").write_text("new")
    (root / "deep-").unlink()
    listing(str(root), tmp_path / "third", tmp_path / "first")
    assert sorted(read) == ["file", "new"], "a change shows in the time of the inode, whatever mtime says"

    lines = (tmp_path / "third").read_text().splitlines(keepends=True)
    (tmp_path / "broken").write_text("".join([*lines[:3], lines[3][:-30]]))
    read.clear()
    listing(str(root), tmp_path / "fourth", tmp_path / "broken")
    assert (tmp_path / "fourth").read_bytes() == (tmp_path / "third").read_bytes()
    listing(str(root), tmp_path / "fifth", tmp_path / "not there")
    assert (tmp_path / "fifth").read_bytes() == (tmp_path / "third").read_bytes()


def test_what_goes_meanwhile(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = listing(str(root), tmp_path / "list")
    hashed, named = manifest._hash, manifest._names

    def late(path: str) -> str | None:
        if path.endswith("deep-"):
            os.remove(path)
        return hashed(path)

    def later(folder: str) -> object:
        found = list(named(folder))
        if folder == str(root):
            shutil.rmtree(root / "empty")
        return iter(found)

    monkeypatch.setattr(manifest, "_hash", late)
    monkeypatch.setattr(manifest, "_names", later)
    counts = listing(str(root), tmp_path / "list")
    assert (counts.files, counts.folders) == (whole.files - 1, whole.folders - 1)


def test_what_cannot_be_read(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Failure, match=r"/gone cannot be read or listed: No such file"):
        listing(str(root / "gone"), tmp_path / "list")

    opened = os.open

    def strict(path: str, flags: int, *rest: int) -> int:
        if flags & os.O_NOATIME:
            raise PermissionError(1, "Operation not permitted", path)
        return opened(path, flags, *rest)

    monkeypatch.setattr(os, "open", strict)
    assert listing(str(root), tmp_path / "list").files == 4, "not every file system leaves times of access alone"

    def broken(path: str, *_: object) -> int:
        raise OSError(5, "Input/output error", path)

    monkeypatch.setattr(os, "open", broken)
    with pytest.raises(Failure, match=r"cannot be read or listed: Input/output error"):
        listing(str(root), tmp_path / "list")


def test_a_listing_that_is_stopped(root: Path, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Failure, match="was not listed to its end"):
        listing(str(root), tmp_path / "list", stop=stop)


def test_many_files_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "AHEAD", 3)
    (tmp_path / "root").mkdir()
    for number in range(20):
        (tmp_path / "root" / f"{number:02}").write_text(str(number))
    listing(str(tmp_path / "root"), tmp_path / "list")
    names = [json.loads(line)["path"][-2:] for line in (tmp_path / "list").read_text().splitlines()]
    assert names[1:] == [f"{number:02}" for number in range(20)]
    age(tmp_path / "root")
    listing(str(tmp_path / "root"), tmp_path / "list")
    to = restored(tmp_path / "root", tmp_path / "to")
    (to / "07").write_text("8")
    os.utime(to / "07", (OLD, OLD))
    assert compare(tmp_path / "list", tmp_path / "to", OLD + 1) == [f"{tmp_path}/root/07 has another content"]


# --- what is left out -------------------------------------------------------------------------------------------------


# What restic 0.14 was seen to do with these.
@pytest.mark.parametrize(
    ("pattern", "path", "out"),
    [
        ("*.tmp", "/a/b.tmp", True),
        ("*.tmp", "/a.tmp/b", True),
        ("*.tmp", "/a/b.tmpx", False),
        ("a/b", "/x/a/b/c", True),
        ("a/b", "/x/a/c/b", False),
        ("/a", "/a/b", True),
        ("/a", "/x/a", False),
        ("a/**/b", "/x/a/1/2/b", True),
        ("a/**/b", "/x/a/b", True),
        ("a/**", "/x/a", True),
        ("**/b", "/b", True),
        ("/x/**/*.sql", "/x/y.sql", True),
        ("/x/**/*.sql", "/x/1/2/y.sql", True),
        ("/x/**/*.sql", "/z/y.sql", False),
        ("?", "/ab/c", True),
        ("?", "/ab/cd", False),
        ("[ab]", "/a", True),
        ("[^ab]", "/a", False),
        ("[^ab]", "/c", True),
        (r"\[q\]", "/[q]", True),
        (r"y\*z", "/y*z", True),
        (r"y\*z", "/yxz", False),
        ("[", "/[", True),
        ("b/", "/a/b/c", True),
        ("a.b", "/axb", False),
        ("\\", "/\\", True),
    ],
)
def test_patterns_of_restic(pattern: str, path: str, out: bool) -> None:
    found = excludes([pattern])
    assert found is not None
    assert bool(found.match(f"{path}/")) == out


def test_no_patterns() -> None:
    assert excludes([]) is None
    assert excludes(["", "/"]) is None


def test_entries_that_are_left_out(root: Path) -> None:
    def names(*patterns: str) -> list[str]:
        return [one["path"][len(str(root)) + 1 :] for one in entries(str(root), excludes(patterns))]

    assert "deep/er/file" not in names("er")
    assert "deep/er" not in names("er")
    assert names("deep*", "file", "l*", "empty") == [""]
    assert names(str(root)) == []


# --- comparing --------------------------------------------------------------------------------------------------------


@pytest.fixture
def back(root: Path, tmp_path: Path) -> Path:
    """The folder as it was restored."""
    listing(str(root), tmp_path / "list")
    return restored(root, tmp_path / "to")


def told(back: Path, started: float = OLD + 1) -> list[str]:
    tmp = back
    while tmp.name != "to":
        tmp = tmp.parent
    return [one.replace(str(tmp.parent / "root"), "") for one in compare(tmp.parent / "list", tmp, started)]


def keep_times(folder: Path) -> None:
    os.utime(folder, (OLD, OLD))


def test_what_was_restored_as_it_was(back: Path) -> None:
    assert told(back) == []


def test_what_differs(back: Path) -> None:
    (back / "file").write_text("ONE")
    (back / "deep-").write_text("shorter")
    (back / "link").unlink()
    (back / "link").symlink_to("elsewhere")
    (back / "deep" / "er" / "file").unlink()
    (back / "deep" / "er" / "file").mkdir()
    shutil.rmtree(back / "empty")
    (back / "new").write_text("")
    (back / os.fsdecode(b"latin-\xe9")).unlink()
    age(back)
    assert told(back) == [
        "/deep/er/file is another kind of file",
        "/deep- has 7 bytes instead of 29",
        "/empty is missing",
        "/latin-\\udce9 is missing",
        "/link points to elsewhere instead of nowhere",
        "/new was not there",
        "/file has another content",
    ]


def test_what_changed_while_it_was_backed_up_is_excused(back: Path) -> None:
    (back / "file").write_text("ONE")
    keep_times(back)
    assert told(back) == [], "its own time says so"
    os.utime(back / "file", (OLD, OLD))
    assert told(back) == ["/file has another content"]

    # A log that was rotated: another file under the name, with a time before the run; its folder changed.
    os.utime(back / "file", (OLD - 5, OLD - 5))
    os.utime(back)
    assert told(back) == []
    keep_times(back)
    assert told(back) == ["/file has another content"]
    (back / "file").unlink()
    (back / "newer").write_text("")
    assert told(back) == [], "its folder changed"
    keep_times(back)
    assert told(back) == ["/file is missing", "/newer was not there"]


def test_damage_is_not_excused_by_a_folder_that_changed(back: Path) -> None:
    (back / "file").write_text("ONE")
    os.utime(back / "file", (OLD, OLD))
    os.utime(back)
    assert told(back) == ["/file has another content"]


def test_nothing_was_restored(root: Path, tmp_path: Path) -> None:
    listing(str(root), tmp_path / "list")
    (tmp_path / "to").mkdir()
    assert len(compare(tmp_path / "list", tmp_path / "to", OLD + 1)) == 9
    (tmp_path / "list").write_text("")
    assert compare(tmp_path / "list", tmp_path / "to", OLD + 1) == []


TREES = st.recursive(
    st.binary(max_size=5),
    lambda inner: st.dictionaries(
        st.binary(min_size=1, max_size=3).filter(lambda name: not set(name) & {0, 47} and name not in (b".", b"..")),
        inner,
        max_size=4,
    ),
    max_leaves=8,
)


def put(tree: object, at: bytes) -> list[bytes]:
    """Make a tree of files; returns the paths of files."""
    if isinstance(tree, bytes):
        with open(at, "wb") as file:
            file.write(tree)
        return [at]
    assert isinstance(tree, dict)
    os.mkdir(at)
    return [path for name, one in tree.items() for path in put(one, at + b"/" + name)]


@settings(max_examples=50)
@given(TREES, st.integers(0, 10**6))
def test_any_tree_compares_with_itself_and_with_no_other(tree: object, which: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        tmp = Path(name)
        files = put(tree, os.fsencode(tmp / "root"))
        age(tmp / "root")
        counts = listing(str(tmp / "root"), tmp / "list")
        assert counts.files == len(files)
        listing(str(tmp / "root"), tmp / "again", tmp / "list")
        assert (tmp / "again").read_bytes() == (tmp / "list").read_bytes()
        restored(tmp / "root", tmp / "to")
        assert compare(tmp / "list", tmp / "to", OLD + 1) == []
        if files:
            changed = os.fsencode(tmp / "to") + files[which % len(files)]
            with open(changed, "ab") as file:
                file.write(b"more")
            os.utime(changed, (OLD, OLD))
            assert len(compare(tmp / "list", tmp / "to", OLD + 1)) == 1


# --- the manifest itself ----------------------------------------------------------------------------------------------


def test_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "m").write_text(json.dumps({"run": "1", "started": time.time()}))
    assert load(tmp_path / "m")["run"] == "1"
    for text in ("[]", "{}"):
        (tmp_path / "m").write_text(text)
        with pytest.raises(Failure, match="is no manifest of a backup"):
            load(tmp_path / "m")
