# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Looks for missing packages, and calls apt only for those."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        found: dict[str, Any] = self._execute_module(
            module_name="fushuma.production.packages", module_args=self._task.args, task_vars=task_vars
        )
        if found.get("failed") or not found.get("missing") or self._task.check_mode:
            return found
        installed: dict[str, Any] = self._execute_module(
            module_name="ansible.builtin.apt",
            module_args={
                "name": found["missing"],
                "install_recommends": False,
                "update_cache": found["lists_stale"],
            },
            task_vars=task_vars,
        )
        return installed if installed.get("failed") else {**found, "changed": True}
