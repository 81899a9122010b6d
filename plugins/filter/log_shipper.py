# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.fushuma.production.plugins.plugin_utils import log_shipper_model as model
from ansible_collections.fushuma.production.plugins.plugin_utils import specs


def log_shipper_model(settings: Any, host: str) -> list[dict[str, Any]]:
    """What the log_shipper role writes down, worked out of its settings."""
    try:
        return model.model(specs.settled("log_shipper", settings), host)
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(f"log_shipper_model: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"log_shipper_model": log_shipper_model}
