# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.fushuma.production.plugins.plugin_utils import dashboards, specs
from ansible_collections.fushuma.production.plugins.plugin_utils import grafana_model as model


def grafana_model(settings: Any, host: str = "") -> dict[str, Any]:
    """What the grafana role writes down, worked out of its settings."""
    try:
        return model.model(specs.settled("grafana", settings), host)
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(f"grafana_model: {error}") from error


def grafana_dashboards(folder: str) -> list[dict[str, str]]:
    """Each dashboard of a folder as ``{uid, json}``."""
    try:
        return [{"uid": one["uid"], "json": dashboards.text(one)} for one in dashboards.load(Path(folder))]
    except (OSError, TypeError, ValueError, KeyError) as error:
        raise AnsibleFilterError(f"grafana_dashboards: {folder}: {error!r}") from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"grafana_model": grafana_model, "grafana_dashboards": grafana_dashboards}
