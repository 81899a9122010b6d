# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.fushuma.production.plugins.plugin_utils import alertmanager_model as model
from ansible_collections.fushuma.production.plugins.plugin_utils import specs


def alertmanager_model(settings: Any, host: str, address: str = "") -> dict[str, Any]:
    """What the alertmanager role writes down, worked out of its settings."""
    try:
        return _model(json.dumps(settings), host, address or host)
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(f"alertmanager_model: {error}") from error


@lru_cache(maxsize=16)
def _model(settings: str, host: str, address: str) -> dict[str, Any]:
    """Ansible asks again wherever the model is named, and to write YAML takes longest."""
    return model.model(specs.settled("alertmanager", json.loads(settings)), host, address)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"alertmanager_model": alertmanager_model}
