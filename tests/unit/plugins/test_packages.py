"""The packages module with a dpkg-query and an apt-get that only take notes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from ansible_collections.fushuma.production.plugins.modules import packages

from .conftest import Host
from .modules import run_module

INSTALLED = 'echo "nginx installed"; echo "openssl config-files"'


@pytest.fixture
def lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "lists"
    folder.mkdir()
    monkeypatch.setattr(packages, "LISTS", folder)
    return folder


@pytest.fixture(autouse=True)
def apt(host: Host, lists: Path) -> None:
    host.program("dpkg-query", INSTALLED)
    host.program("apt-get", f'echo "$@" >> {host.bin}/log')


def fetched(lists: Path, age: float = 0) -> None:
    (lists / "mirror_dists_stable_Packages.lz4").touch()
    os.utime(lists, (time.time() - age, time.time() - age))


def test_nothing_is_missing(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_module(packages.main, capsys, names=["nginx"])
    assert (result["changed"], result["missing"], host.commands()) == (False, [], [])


def test_only_what_is_missing_is_installed(host: Host, lists: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fetched(lists)
    result = run_module(packages.main, capsys, names=["nginx", "openssl", "wrk:amd64"])
    assert result["missing"] == ["openssl", "wrk:amd64"], "a package of which only settings are left is missing too"
    (command,) = host.commands()
    assert " install " in command
    assert command.endswith("--force-confold openssl wrk:amd64")


@pytest.mark.parametrize("age", [None, 4000])
def test_old_and_missing_lists_are_fetched_first(
    host: Host, lists: Path, capsys: pytest.CaptureFixture[str], age: float | None
) -> None:
    if age is not None:
        fetched(lists, age)
    run_module(packages.main, capsys, names=["wrk"])
    assert [command.rsplit(" ", 1)[1] for command in host.commands()] == ["update", "wrk"]


def test_check_mode_only_looks(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_module(packages.main, capsys, check=True, names=["wrk"])
    assert (result["changed"], host.commands()) == (True, [])
    assert result["diff"]["after"] == "wrk\n"


def test_apts_own_words(host: Host, lists: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fetched(lists)
    host.program("apt-get", "echo E: Unable to locate package wrkk; exit 100")
    result = run_module(packages.main, capsys, names=["wrkk"])
    assert result["failed"]
    assert "Unable to locate package wrkk" in result["msg"]
