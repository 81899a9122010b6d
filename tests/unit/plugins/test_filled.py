"""Groups of settings with their nested defaults, as roles ask for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import lookup_loader
from ansible.template import Templar
from ansible_collections.fushuma.production.plugins.plugin_utils import specs


def filled(name: str, variables: dict[str, Any]) -> Any:
    templar = Templar(loader=DataLoader(), variables=variables)
    plugin = lookup_loader.get("fushuma.production.filled", loader=DataLoader(), templar=templar)
    (value,) = plugin.run([name], variables)
    return value


def test_what_is_left_away_has_its_default() -> None:
    assert filled("hardening_journal", {"hardening_journal": {"size": "5G"}}) == {
        "size": "5G",
        "keep_free": "2G",
        "retention": "3month",
    }
    assert filled("hardening_journal", {})["size"] == "1G"


@pytest.mark.parametrize("name", ["hardening_jurnal", "nobodys_setting"])
def test_a_name_that_is_no_setting(name: str) -> None:
    with pytest.raises(AnsibleError, match="no role has a setting"):
        filled(name, {})


def test_of_two_roles_a_setting_is_that_of_the_longer_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for role in ("log", "log_shipper"):
        (tmp_path / role / "meta").mkdir(parents=True)
    monkeypatch.setattr(specs, "ROLES", tmp_path)
    names = ["log_shipper_stores", "log_stores", "log_shipper", "log", "logs_stores", ""]
    assert [specs.role_of(name) for name in names] == ["log_shipper", "log", "log", "", "", ""]
