# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What `make demo` is given and what it says at the end."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import demo
import pytest


@pytest.mark.parametrize("role", ["loki", "grafana"])
def test_an_archive_that_is_given_is_brought_with_its_checksum(tmp_path: Path, role: str) -> None:
    archive = tmp_path / "program.zip"
    archive.write_bytes(b"program")
    assert demo.given({f"{role.upper()}_ARCHIVE": str(archive)}) == {
        f"{role}_enabled": True,
        f"{role}_archive": {"source": str(archive), "sha256": sha256(b"program").hexdigest()},
    }


def test_a_path_below_the_current_folder_is_given_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loki.zip").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert demo.given({"LOKI_ARCHIVE": "loki.zip"})["loki_archive"]["source"] == str(tmp_path / "loki.zip")


@pytest.mark.parametrize("environment", [{}, {"LOKI_ARCHIVE": "", "GRAFANA_ARCHIVE": ""}])
def test_what_is_not_given_is_left_out_and_said(environment: dict[str, str]) -> None:
    assert demo.given(environment) == {}
    said = demo.summary(1.0, "", {})
    assert "LOKI_ARCHIVE=FILE make demo" in said
    assert "GRAFANA_ARCHIVE=FILE make demo" in said
    assert demo.LOGS not in said
    assert demo.DASHBOARDS not in said


def test_where_logs_and_dashboards_are_is_said_with_their_logins() -> None:
    said = demo.summary(1.0, "", {"loki_enabled": True, "grafana_enabled": True})
    assert (
        f".secrets/logs-operator) {demo.LOGS}loki/api/v1/query_range --data-urlencode 'query={{job=\"shop\"}}'" in said
    )
    assert f"{demo.DASHBOARDS}, user admin, password in" in said
    assert "FILE make demo" not in said
