# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.fushuma.production.plugins.plugin_utils import exporters_model as model
from ansible_collections.fushuma.production.plugins.plugin_utils import specs


def exporters_model(settings: Any, host: str) -> dict[str, Any]:
    """What the exporters role writes down, worked out of its settings."""
    return _worked_out("exporters_model", model.model, settings, host)


def exporters_exports(settings: Any, host: str) -> dict[str, Any]:
    """What others need to know of the exporters of a host."""
    return _worked_out("exporters_exports", model.exports, settings, host)


def _worked_out(name: str, work: Callable[..., dict[str, Any]], settings: Any, host: str) -> dict[str, Any]:
    try:
        return work(specs.settled("exporters", settings), host)
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(f"{name}: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"exporters_model": exporters_model, "exporters_exports": exporters_exports}
