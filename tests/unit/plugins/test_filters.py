# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every filter of the collection is found by its full name and has a page that ansible-doc can show."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.plugins.loader import filter_loader
from ansible_collections.fushuma.production.plugins.filter import nginx

FOLDER = Path(nginx.__file__).parent
PACKAGE = nginx.__name__.rpartition(".")[0]


def filters() -> dict[str, Callable[..., Any]]:
    """All filters by name."""
    modules = [importlib.import_module(f"{PACKAGE}.{path.stem}") for path in sorted(FOLDER.glob("*.py"))]
    return {name: function for module in modules for name, function in module.FilterModule().filters().items()}


def test_each_page_describes_a_filter() -> None:
    assert sorted(filters()) == sorted(path.stem for path in FOLDER.glob("*.yml"))


@pytest.mark.parametrize("name", sorted(filters()))
def test_each_filter_is_found_and_described(name: str) -> None:
    assert filter_loader.get(f"fushuma.production.{name}") is not None
    page = yaml.safe_load((FOLDER / f"{name}.yml").read_text("utf-8"))
    assert page["DOCUMENTATION"]["name"] == name
    assert page["DOCUMENTATION"]["options"]["_input"]["required"] is True
    assert yaml.safe_load(page["EXAMPLES"])
    assert page["RETURN"]["_value"]["type"]
