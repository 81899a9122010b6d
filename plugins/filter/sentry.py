# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.fushuma.production.plugins.plugin_utils import sentry_model as model
from ansible_collections.fushuma.production.plugins.plugin_utils import specs


def sentry_model(settings: Any) -> dict[str, Any]:
    """What the sentry role writes down, worked out of its settings."""
    try:
        return model.model(specs.settled("sentry", settings))
    except (OSError, TypeError, ValueError) as error:
        raise AnsibleFilterError(f"sentry_model: {error}") from error


def sentry_dsns(settings: Any) -> list[dict[str, str]]:
    """What applications and nginx have to know of each project."""
    try:
        return model.dsns(specs.settled("sentry", settings))
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(f"sentry_dsns: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"sentry_model": sentry_model, "sentry_dsns": sentry_dsns}
