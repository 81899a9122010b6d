# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.fushuma.production.plugins.plugin_utils import loki_model as model
from ansible_collections.fushuma.production.plugins.plugin_utils import specs


def loki_model(settings: Any) -> dict[str, Any]:
    """What the loki role writes down, worked out of its settings."""
    try:
        return model.model(specs.settled("loki", settings))
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(f"loki_model: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"loki_model": loki_model}
