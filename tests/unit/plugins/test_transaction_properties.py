"""Over arbitrary sets of files: a transaction arrives whole, or leaves what was there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from ansible_collections.fushuma.production.plugins.module_utils import journal, transaction
from ansible_collections.fushuma.production.plugins.module_utils.journal import Store, TransactionError
from ansible_collections.fushuma.production.plugins.module_utils.transaction import Directory, File, Service, converge
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ME, US = str(os.geteuid()), str(os.getegid())

# Few names, so that sets overlap, nest and get into each other's way.
names = st.lists(st.sampled_from(["a", "b", "c.conf"]), min_size=1, max_size=3).map("/".join)
contents = st.one_of(st.none(), st.binary(max_size=12))
modes = st.sampled_from([0o644, 0o600, 0o755])
trees = st.dictionaries(names, st.tuples(contents, modes), max_size=6).map(lambda tree: without_conflicts(tree))

Tree = Mapping[str, tuple[bytes | None, int]]
many = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def without_conflicts(tree: Tree) -> Tree:
    """The tree without paths below a path that is itself a file, for no file system can hold both."""
    return {
        path: value
        for path, value in tree.items()
        if not any(path.startswith(f"{other}/") for other in tree) and not (value[0] is None and any_below(tree, path))
    }


def any_below(tree: Tree, path: str) -> bool:
    return any(other.startswith(f"{path}/") for other in tree)


def service(root: Path, tree: Tree, *, prune: bool, validate: list[list[str]] | None = None) -> Service:
    files = [File(str(root / "own" / path), content, ME, US, mode) for path, (content, mode) in tree.items()]
    folders = [Directory(str(root / "own"), ME, US, prune=prune)]
    return Service("web", files, folders, validate=validate or [])


def content(root: Path) -> dict[str, object]:
    return {
        str(path.relative_to(root)): (path.stat().st_mode, path.read_bytes() if path.is_file() else None)
        for path in sorted(root.rglob("*"))
    }


@pytest.fixture(autouse=True)
def no_healer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction, "install_healer", lambda _state: None)


@many
@given(before=trees, after=trees, prune=st.booleans())
def test_it_arrives_whole_and_then_rests(before: Tree, after: Tree, prune: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        root, store = Path(name, "root"), Store("web", Path(name, "state"))
        root.mkdir()
        converge(service(root, before, prune=True), store)
        try:
            foreseen = converge(service(root, after, prune=prune), store, check=True)
        except TransactionError:  # a file stands where a folder is wanted, or the other way round
            return
        assert converge(service(root, after, prune=prune), store) == foreseen
        for path, (wanted, mode) in after.items():
            there = root / "own" / path
            assert there.exists() == (wanted is not None)
            if wanted is not None:
                assert there.read_bytes() == wanted
                assert there.stat().st_mode & 0o777 == mode
        if prune:
            wanted_files = {str(root / "own" / path) for path, (data, _mode) in after.items() if data is not None}
            assert {str(path) for path in root.rglob("*") if path.is_file()} == wanted_files
        assert not converge(service(root, after, prune=prune), store).changed


@many
@given(before=trees, after=trees, prune=st.booleans())
def test_what_is_refused_leaves_no_trace(before: Tree, after: Tree, prune: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        root, store = Path(name, "root"), Store("web", Path(name, "state"))
        root.mkdir()
        converge(service(root, before, prune=True), store)
        was, record = content(root), store.activated()
        bad = service(root, after, prune=prune, validate=[["false"]])
        try:
            changed = converge(bad, store, check=True).changed
        except TransactionError:
            changed = True
        if changed:
            with pytest.raises(TransactionError):
                converge(bad, store)
        assert content(root) == was
        assert store.activated() == record
        assert store.pending() is None


class Killed(BaseException):
    """Stands for SIGKILL: no handler of the engine may catch it."""


@many
@given(
    before=trees,
    after=trees,
    prune=st.booleans(),
    at=st.integers(0, 16),
    boots=st.booleans(),
    goes_on=st.booleans(),
)
def test_killed_between_any_two_file_operations(
    before: Tree, after: Tree, prune: bool, at: int, boots: bool, goes_on: bool
) -> None:
    """Every rename, removal and staging is a moment to be killed at, those of the journal and the record too.

    The next run heals from all of them, whether the host boots in between or not, and whether the operator goes on or
    back. Nothing is left lying about.
    """
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patched:
        root, store = Path(name, "root"), Store("web", Path(name, "state"))
        root.mkdir()
        former, wanted = service(root, before, prune=True), service(root, after, prune=prune)
        converge(former, store)
        was = content(root)
        steps = iter(range(at))
        real = {step: getattr(journal, step) for step in ("_stage", "_remove")} | {"replace": os.replace}

        def dying(step: str) -> object:
            def call(*args: object) -> object:
                # The staged files stay where they are: a killed process tidies nothing up.
                if next(steps, None) is None:
                    patched.setattr(journal, "discard_staged", lambda _paths: None)
                    raise Killed
                return real[step](*args)

            return call

        patched.setattr(journal, "_stage", dying("_stage"))
        patched.setattr(journal, "_remove", dying("_remove"))
        patched.setattr(journal.os, "replace", dying("replace"))
        try:
            converge(wanted, store)
        except TransactionError:
            return
        except Killed:
            patched.undo()
            patched.setattr(transaction, "install_healer", lambda _state: None)
            if boots:
                journal.main(["restore", "--boot", "--state", str(store.state)])
                assert content(root) == was
            if not goes_on:
                wanted = former
            converge(wanted, store)
            assert goes_on or content(root) == was
        assert {path.name for path in store.state.iterdir()} <= {"web.lock", "web.record"}
        assert not list(Path(name).rglob(".*.fushuma-new"))
        patched.undo()
        assert not converge(wanted, store).changed
