# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.fushuma.production.plugins.plugin_utils import operators
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import sentences


def operator_problems(
    settings: Any,
    operator: str,
    keys: Sequence[str] = (),
    sudo: str = "nopasswd",
    removing: bool = False,
    host: str = "",
) -> list[str]:
    """What stands against letting an operator in, or shutting one out, each a sentence."""
    if not isinstance(settings, Mapping):
        raise AnsibleFilterError(
            f"operator_problems: expects the host's settings as a dict, not {type(settings).__name__}"
        )
    if removing:
        return sentences(operators.removing_problems(operator, settings), host)
    return sentences(operators.adding_problems(operator, keys, sudo, settings), host)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"operator_problems": operator_problems}
