# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The controller's half of service_config: renders the files, ships one payload, confirms over a new connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible_collections.fushuma.production.plugins.plugin_utils.rendering import (
    DIGEST_TOKEN,
    Renderer,
    expanded,
    shipped,
)

SERVICE_CONFIG = "fushuma.production.service_config"


class ActionModule(ActionBase):
    """Modules that make one transaction of a service derive their action from this one."""

    module = SERVICE_CONFIG
    service = ""  # the service's name, where the module has no argument for it

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        args = dict(self._task.args)
        files, digest = Renderer(self._templar, variables, self._find_needle).render(args.get("files") or [])
        args["files"] = [shipped(file) for file in files]
        args["directories"] = [one for spec in args.get("directories") or [] for one, _item in expanded(spec, "path")]
        if "probe" in args:
            args["probe"] = [with_digest(probe, digest) for probe in args["probe"] or []]
        result = self._ask(self.module, args, variables)
        if result.get("pending"):
            return self._confirm(args, variables, result)
        return result

    def _ask(self, module: str, args: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(module_name=module, module_args=args, task_vars=variables)
        # The arguments hold whole files, encoded; nobody reads them in a log.
        result.pop("invocation", None)
        return result

    def _confirm(self, args: dict[str, Any], variables: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        name = self.service or args["name"]
        reset = getattr(self._connection, "reset", None)
        try:
            if reset:
                reset()
            confirmed = self._ask(SERVICE_CONFIG, {"name": name, "state": "confirmed"}, variables)
        except AnsibleConnectionFailure as error:
            confirmed = {"failed": True, "msg": f"no new connection: {error}"}
        if not (confirmed.get("failed") or confirmed.get("unreachable")):
            return {**result, "pending": False}
        return {
            **result,
            "failed": True,
            "msg": f"{name}: the change was not confirmed, and the host puts the former configuration back "
            f"within {args['confirm_within']} s: {confirmed.get('msg', '')}",
        }


def with_digest(probe: Mapping[str, Any], digest: str) -> dict[str, Any]:
    """A probe with the digest in the place of its token."""
    return {**probe, "body": str(probe.get("body", "")).replace(DIGEST_TOKEN, digest)}
