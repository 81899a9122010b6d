# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.fushuma.production.plugins.plugin_utils import prometheus_model as model
from ansible_collections.fushuma.production.plugins.plugin_utils import specs


def prometheus_model(settings: Any, host: str) -> dict[str, Any]:
    """What the prometheus role writes down, worked out of its settings."""
    try:
        return model.model(specs.settled("prometheus", settings), host)
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(f"prometheus_model: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"prometheus_model": prometheus_model}
