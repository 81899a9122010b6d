# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the playbooks of backups bring to another machine, for settings as operators have them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from ansible_collections.fushuma.production.plugins.module_utils.backup.settings import Settings
from ansible_collections.fushuma.production.plugins.plugin_utils import specs
from ansible_collections.fushuma.production.plugins.plugin_utils.judging import plain, yaml_of

from .render import templar
from .test_backup_templates import KEY, PASSWORDS, REPOSITORIES

RUNBOOKS = specs.ROLES.parent / "playbooks" / "runbooks"


def test_what_proves_that_repositories_open_elsewhere(tmp_path: Path) -> None:
    """The program runs from what is brought, reads it, and has the passwords of the inventory nowhere."""
    (tmp_path / "paper").write_text("from the safe\nand a note\n")
    variables = {
        **yaml_of(RUNBOOKS / "prove_escrow.yml")[0]["vars"],
        "playbook_dir": str(RUNBOOKS),
        "inventory_hostname": "web1",
        "backup_repositories": REPOSITORIES,
        "key": str(tmp_path / "paper"),
        "__folder": {"path": str(tmp_path / "there")},
    }

    def value(name: str) -> Any:
        return plain(templar(variables).template(variables[name]))

    there = tmp_path / "there"
    argv = [sys.executable, "-I", "-c", value("write"), str(there)]
    subprocess.run(argv, input=json.dumps(value("brought")), text=True, check=True)
    found = Settings.load(there)
    assert [one.name for one in found.repositories] == ["local", "offsite", "bucket", "rest"]
    assert found.repositories[3].ca == f"{there}/rest.ca.pem"
    assert f"-i {there}/offsite.key " in found.repositories[1].options[0]
    assert (there / "offsite.key").read_text() == KEY
    assert (there / "offsite.key").stat().st_mode & 0o777 == 0o600
    assert "AKIA1" in (there / "bucket.environment.json").read_text()
    assert {"offsite.known_hosts", "rest.ca.pem"} <= {one.name for one in there.iterdir()}
    assert (there / "escrowed").read_text() == "from the safe"
    everything = "".join(one.read_text() for one in there.rglob("*") if one.is_file())
    assert not [one for one in PASSWORDS if one in everything]
    said = [f"--settings={there}", f"--password={there / 'escrowed'}", "--from=local"]
    argv = [sys.executable, "-I", "-B", "-c", value("start"), f"{there}/library", *said]
    proof = json.loads(subprocess.run(argv, capture_output=True, text=True, check=False).stdout)
    assert "local lies on the host itself" in proof["problems"][0]
