"""Groups of settings with their nested defaults, as roles ask for them."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import lookup_loader
from ansible.template import Templar


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
