# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The controller's half of harden: renders the files of all items and ships one payload."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.fushuma.production.plugins.plugin_utils.hardening import chosen
from ansible_collections.fushuma.production.plugins.plugin_utils.rendering import Renderer, shipped


class ActionModule(ActionBase):
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        variables, args = task_vars or {}, self._task.args
        renderer = Renderer(self._templar, variables, self._find_needle)
        items = []
        for item in chosen(args.get("items") or [], args.get("level") or "strict", args.get("switches") or {}):
            files, _digest = renderer.render(item.get("files") or [])
            items.append({**item, "files": [shipped(file) for file in files]})
        result: dict[str, Any] = self._execute_module(
            module_name="fushuma.production.harden", module_args={"items": items}, task_vars=variables
        )
        # The arguments hold whole files, encoded; nobody reads them in a log.
        result.pop("invocation", None)
        return result
