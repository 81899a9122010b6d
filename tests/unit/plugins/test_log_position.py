# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The program that has syslog-ng begin at the end of the journal, with tools that are none."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from ansible_collections.fushuma.production.plugins.module_utils import log_position

CURSOR = "s=3f0e;i=12e;b=2c2c;m=1f;t=63d1;x=9ba3"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of syslog-ng, with a tool that keeps what it is given as it is."""
    monkeypatch.setattr(log_position, "FOLDER", str(tmp_path))
    monkeypatch.setattr(log_position, "KNOWN", ["cat"])
    monkeypatch.setattr(log_position, "ADDED", ["sh", "-c", f'cat >"$0/{log_position.STATE}"'])
    last(monkeypatch, f'{{"__CURSOR":"{CURSOR}","_PID":"7"}}\n')
    return tmp_path


def last(monkeypatch: pytest.MonkeyPatch, entry: str) -> None:
    """What the journal says of its last entry."""
    monkeypatch.setattr(log_position, "LAST", ["printf", "%s", entry])


def test_it_begins_behind_the_last_entry(folder: Path) -> None:
    assert log_position.main() == 0
    name, _equals, value = (folder / log_position.STATE).read_text("utf-8").partition(" = ")
    assert name == "systemd-journal"
    before, key, between, packed, after = value.split('"')
    assert (before, key, between, after) == ("{ ", "value", ": ", " }\n")
    kept = bytes.fromhex(packed)
    assert len(kept) == 1026
    assert kept[2:].rstrip(b"\0").decode() == CURSOR
    # The tool reads lines of so many characters.
    assert len(name + value) < 4000


def test_what_it_remembers_stays(folder: Path) -> None:
    known = 'run_id = { "value": "00" }\n\nsystemd-journal = { "value": "00 00" }\n'
    (folder / log_position.STATE).write_text(known, "utf-8")
    assert log_position.main() == 0
    assert (folder / log_position.STATE).read_text("utf-8") == known


def test_what_it_remembers_of_files_is_no_position_in_the_journal(folder: Path) -> None:
    (folder / log_position.STATE).write_text('run_id = { "value": "00" }\n', "utf-8")
    assert log_position.main() == 0
    assert "systemd-journal" in (folder / log_position.STATE).read_text("utf-8")


def test_an_empty_journal_has_nothing_to_leave_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last(monkeypatch, "")
    assert log_position.main() == 0
    assert not list(folder.iterdir())


def test_a_tool_that_fails_is_heard(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_position, "ADDED", ["false"])
    with pytest.raises(subprocess.CalledProcessError):
        log_position.main()
