# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether repositories were opened as they are configured: asked by every run of the role, and of nobody else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.fushuma.production.plugins.module_utils.backup import cli
from ansible_collections.fushuma.production.plugins.module_utils.backup.settings import Repository, Settings

PASSWORD = "canary-4e9a1c07d2"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A host that has opened its two repositories."""
    folder, data = tmp_path / "etc", tmp_path / "data"
    (data / "opened").mkdir(parents=True)
    folder.mkdir()
    two = (Repository("one", "/srv/one"), Repository("two", "sftp://b@h:22//two"))
    for one in two:
        (folder / f"{one.name}.password").write_text(PASSWORD + "\n")
        known = {"id": "1f", "location": one.location, "password": PASSWORD}
        (data / "opened" / f"{one.name}.json").write_text(json.dumps(known))
    return Settings("web1", two, folder=folder, data=data, cache=tmp_path / "cache")


def test_what_was_opened_is_not_asked_again(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["opened"], settings) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("what", ["never", "password", "location"])
def test_what_was_not_opened_so_is_said(settings: Settings, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    if what == "never":
        (settings.opened / "two.json").unlink()
    elif what == "password":
        (settings.folder / "two.password").write_text("canary-another\n")
    else:
        settings = replace(settings, repositories=(settings.repositories[0], Repository("two", "/srv/elsewhere")))
    assert cli.main(["opened"], settings) == 1
    said = capsys.readouterr().err
    assert said == "Repository two was not yet opened with its password: production-backup init\n"


def test_a_password_that_is_not_there(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    (settings.folder / "one.password").unlink()
    assert cli.main(["opened", "--json"], settings) == 1
    assert "one.password cannot be read: No such file or directory" in capsys.readouterr().err
