# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The secrets among a host's settings."""

from __future__ import annotations

from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import lookup_loader
from ansible.template import Templar, trust_as_template


def asked(variables: dict[str, Any]) -> list[str]:
    templar = Templar(loader=DataLoader(), variables=variables)
    plugin = lookup_loader.get("fushuma.production.secret_values", loader=DataLoader(), templar=templar)
    found: list[str] = plugin.run([], variables)
    return found


def test_secrets_of_all_roles_at_any_depth() -> None:
    places = [{"path": "/x/", "users": {"operator": "canary-1"}}]
    variables = {
        "vault_cache": "canary-2",
        "redis_admin_password": trust_as_template("{{ vault_cache }}"),
        "redis_instances": [{"name": "cache", "users": [{"name": "app", "password": "canary-3"}]}],
        "nginx_sites": [{"name": "www.fushuma.com", "root": "/srv", "locations": places}],
        "app_applications": [{"name": "shop", "secrets": {"KEY": "canary-4", "MORE": ["canary-5", None, "short"]}}],
        "anything_else": "plain",
    }
    assert asked(variables) == ["canary-1", "canary-2", "canary-3", "canary-4", "canary-5"]


def test_settings_that_are_wrong_hide_no_others() -> None:
    variables = {
        "redis_admin_password": trust_as_template("{{ vault_that_nobody_has }}"),
        "nginx_sites": "none",
        "app_applications": ["shop", {"name": "shop", "secrets": {"KEY": "canary-1"}}],
    }
    assert asked(variables) == ["canary-1"]


def test_a_host_without_secrets() -> None:
    assert asked({}) == []
