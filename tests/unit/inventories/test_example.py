"""The example inventories are what a stranger copies: they pass the judge, and it refuses their sample secrets."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "inventories" / "example"
ENVIRONMENTS = ("production", "staging")


def preflight(inventory: Path) -> subprocess.CompletedProcess[str]:
    playbook = Path(sys.executable).with_name("ansible-playbook")
    return subprocess.run(
        [playbook, "-i", inventory, ROOT / "playbooks" / "preflight.yml"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )


@pytest.fixture(params=ENVIRONMENTS)
def copied(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(EXAMPLE / request.param, tmp_path / "inventory"))


def test_with_secrets_it_passes(copied: Path) -> None:
    vault = copied / "group_vars" / "all"
    lines = (vault / "vault.yml.sample").read_text("utf-8").splitlines()
    # Each with a number of its own, for two repositories do not have one password.
    own = [line.replace("change-me", f"q7Rk2vXw9LmPz4Tn8BcJ{number}") for number, line in enumerate(lines)]
    (vault / "vault.yml").write_text("\n".join(own))
    done = preflight(copied)
    assert done.returncode == 0, done.stdout


def test_the_sample_is_refused_by_name(copied: Path) -> None:
    vault = copied / "group_vars" / "all"
    shutil.copy(vault / "vault.yml.sample", vault / "vault.yml")
    done = preflight(copied)
    assert done.returncode != 0
    assert "it is a placeholder that anybody would try first" in done.stdout
    assert "change-me" not in done.stdout


def test_without_a_vault_the_missing_name_is_said(copied: Path) -> None:
    done = preflight(copied)
    assert done.returncode != 0
    assert "'vault_status_password' is undefined" in done.stdout
