# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.fushuma.production.plugins.plugin_utils import mariadb_model as model
from ansible_collections.fushuma.production.plugins.plugin_utils import specs
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import sentences


def mariadb_model(settings: Any) -> dict[str, Any]:
    """What the mariadb role writes down, worked out of its settings."""
    if not isinstance(settings, Mapping):
        raise AnsibleFilterError(f"mariadb_model: expects the role's settings as a dict, not {type(settings).__name__}")
    options = specs.role_options("mariadb")
    misfits = sentences(specs.problems(options, settings))
    if misfits:
        raise AnsibleFilterError(f"mariadb_model: {' '.join(misfits)}")
    try:
        return model.model(specs.filled(options, settings))
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(f"mariadb_model: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"mariadb_model": mariadb_model}
