# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The collection's alert rules fire when they should, by the promtool of this release; the same cases as unit tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from alert_cases_support import SETTINGS, write_cases
from plays import Played, play
from testinfra.host import Host

FOLDER = "/srv/alert-cases"
CHANGED = {"HostDown": {"for": "30m"}, "BackupTooOld": {"value": 1000000}, "SiteSlow": {"value": 0.1}}


def tried(folder: Path, place: str) -> Played:
    """Bring rules and cases to all hosts in one piece, and try them there."""
    there = f"{FOLDER}/{place}"
    packed = shutil.make_archive(str(folder.with_name(place)), "tar", folder)
    names = sorted(path.name for path in folder.glob("*.test.yml"))
    rules = sorted(path.name for path in folder.glob("*.yml") if path.name not in names)
    return play(
        {"ansible.builtin.file": {"path": there, "state": "directory", "mode": "0755"}},
        {"ansible.builtin.unarchive": {"src": packed, "dest": there}},
        {"ansible.builtin.command": {"argv": ["promtool", "check", "rules", *rules], "chdir": there}},
        {
            "ansible.builtin.command": {"argv": ["promtool", "test", "rules", *names], "chdir": there},
            # Else half of its time goes into the collection of garbage.
            "environment": {"GOGC": "800"},
        },
        arguments=(),
    )


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    folder = tmp_path_factory.mktemp("right")
    write_cases(folder)
    yield tried(folder, "right")
    play({"ansible.builtin.file": {"path": FOLDER, "state": "absent"}}, arguments=())


def test_alerts_fire_when_they_should_and_only_then(host: Host, right: Played) -> None:
    results = right.results[host.backend.host]
    assert [result["rc"] for result in results[2:]] == [0, 0], right.output


def test_cases_find_rules_that_are_wrong(host: Host, right: Played, tmp_path: Path) -> None:
    """Rules that wait too long, never fire, and fire too early."""
    write_cases(tmp_path, {**SETTINGS, "prometheus_rules": CHANGED}, groups=("backup", "host", "probes"))
    said = tried(tmp_path, "wrong").results[host.backend.host][3]
    assert said["rc"] == 1
    assert [name for name in CHANGED if name not in said["stdout"] + said["stderr"]] == []
