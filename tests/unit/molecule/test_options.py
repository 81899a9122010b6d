# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every option of every role has, in one of the role's scenarios, another value than its default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
ROLES = sorted(path.parent.parent.name for path in ROOT.glob("roles/*/meta/argument_specs.yml"))
UNSET = object()

Options = Mapping[str, Mapping[str, Any]]


ELSEWHERE = {
    # What playbooks say and no inventory, and what needs a registry: tests/deploys tries these.
    *(
        "app_dsns",
        "app_edges",
        "app_force",
        "app_back",
        "app_is_edge",
        "app_migrates",
        "app_restart",
        "app_scale",
        "app_applications.image.reference",
    ),
    # For a server elsewhere only, which the tests of molecule/sentry_options try.
    "sentry_projects.dsn",
    # The kernel of test hosts cannot limit it, and Docker then makes no container; test_app_model.py has it.
    "app_applications.processes.cpus",
}


def options_of(role: str) -> Options:
    document = yaml.safe_load((ROOT / "roles" / role / "meta" / "argument_specs.yml").read_text("utf-8"))
    options: Options = document["argument_specs"]["main"]["options"]
    return options


def settings_of(role: str) -> list[Mapping[str, Any]]:
    """The settings of all scenarios that apply the role."""
    found = []
    for path in ROOT.glob("molecule/*/vars.yml"):
        settings = yaml.safe_load(path.read_text("utf-8"))
        if settings.get("role", path.parent.name) == role:
            found.append(settings)
    # Scenarios with an inventory run site.yml, and so all roles.
    inventories = ROOT.glob("molecule/*/inventory/group_vars/all/main.yml")
    return found + [yaml.safe_load(path.read_text("utf-8")) for path in inventories]


def unchanged(options: Options, groups: list[Mapping[str, Any]], prefix: str = "") -> Iterator[str]:
    """The options, at any depth, that no group sets to another value than the default."""
    for name, option in options.items():
        values = [group[name] for group in groups if group.get(name, UNSET) not in (UNSET, option.get("default"))]
        if not values:
            yield f"{prefix}{name}"
        elif "options" in option:
            below = [one for value in values for one in (value if option["type"] == "list" else [value])]
            yield from unchanged(option["options"], below, f"{prefix}{name}.")


@pytest.mark.parametrize("role", ROLES)
def test_every_option_is_away_from_its_default_somewhere(role: str) -> None:
    assert [name for name in unchanged(options_of(role), settings_of(role)) if name not in ELSEWHERE] == []


def test_an_option_nobody_sets_is_found() -> None:
    part = {"size": {"type": "str", "default": "1m"}, "rate": {"type": "str"}}
    options = {"port": {"type": "int", "default": 80}, "sites": {"type": "list", "options": part}}
    settings = [{"port": 80, "sites": [{"size": "1m"}, {"rate": "1r/s"}]}, {"sites": []}]
    assert list(unchanged(options, settings)) == ["port", "sites.size"]
    assert list(unchanged(options, [])) == ["port", "sites"]
