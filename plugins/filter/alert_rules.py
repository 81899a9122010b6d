# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.fushuma.production.plugins.plugin_utils import alert_rules as model
from ansible_collections.fushuma.production.plugins.plugin_utils import specs
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import sentences


def alert_rules(settings: Any) -> dict[str, str]:
    """The rule files that the prometheus role makes of its settings."""
    try:
        settled = specs.settled("prometheus", settings)
        wrong = sentences(model.problems(settled))
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(f"alert_rules: {error}") from error
    if wrong:
        raise AnsibleFilterError(f"alert_rules: {' '.join(wrong)}")
    return model.rendered(settled)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"alert_rules": alert_rules}
