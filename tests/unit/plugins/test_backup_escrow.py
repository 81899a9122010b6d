# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""That a repository opens from another machine, and what does not count as that."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.module_utils.backup import escrow
from ansible_collections.fushuma.production.plugins.module_utils.backup.programs import Failure
from ansible_collections.fushuma.production.plugins.module_utils.backup.restic import Snapshot

STAGE = "/var/lib/production-backup/stage"
KNOWN = {"run": "r1", "host": "web1", "started": 1, "paths": [{"path": "/srv", "listing": "listings/srv.jsonl"}]}
FAR = {"name": "far", "location": "sftp://x/r", "offsite": True}


class FakeRestic:
    """Opens by the right password alone."""

    known: dict[str, Any] = KNOWN

    def __init__(self, settings: Any, repository: Any, password_file: Path) -> None:
        assert settings.limits.attempts == 1
        self.name, self.password = repository.name, password_file.read_text()

    def id(self) -> str:
        if self.password != "right":
            raise Failure(f"Repository {self.name}: the password does not open it")
        return f"id of {self.name}"

    def snapshots(self, host: str) -> list[Snapshot]:
        return [Snapshot("abcd0001", time.time() - 60, host, ("production-backup",), (STAGE, "/srv"))]

    def restore(self, id: str, target: Path, includes: Iterable[str]) -> None:
        for one in includes:
            path = Path(f"{target}{one}")
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps(self.known))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(escrow, "Restic", FakeRestic)
    configure(tmp_path, FAR, {"name": "here", "location": "/srv/backup"})
    (tmp_path / "key").write_text("right")
    return tmp_path


def configure(folder: Path, *repositories: dict[str, Any]) -> None:
    (folder / "config.json").write_text(json.dumps({"host": "web1", "repositories": list(repositories)}))


def proven(folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, Any]:
    code = escrow.main([f"--settings={folder}", f"--password={folder}/key", *more])
    return code, json.loads(capsys.readouterr().out)


def test_a_repository_that_opens(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = proven(folder, capsys)
    assert (code, said["ok"], said["problems"]) == (0, True, [])
    (one,) = said["repositories"]
    assert (one["name"], one["id"], one["snapshot"], one["age_seconds"]) == ("far", "id of far", "abcd0001", 60)
    assert one["has"] == ["path /srv"]


def test_another_password(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure(folder, FAR, {**FAR, "name": "farther"})
    (folder / "key").write_text("wrong")
    code, said = proven(folder, capsys)
    assert (code, said["ok"], said["repositories"]) == (1, False, [])
    assert len(said["problems"]) == 2, "each is tried"


def test_the_snapshots_of_another_host(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeRestic, "known", {**KNOWN, "host": "web2"})
    code, said = proven(folder, capsys)
    assert code == 1
    assert said["problems"] == ["Snapshot abcd0001 of far is of web2, not of web1"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--from=here"], "here lies on the host itself: what opens from another machine"),
        (["--from=nowhere"], "There is no repository nowhere"),
    ],
)
def test_what_proves_nothing(folder: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str) -> None:
    code, found = proven(folder, capsys, *more)
    assert code == 1
    assert said in found["problems"][0]


def test_nothing_elsewhere(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure(folder)
    code, found = proven(folder, capsys)
    assert (code, found["problems"][0][:27]) == (1, "No repository is off-site: ")
