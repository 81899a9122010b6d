# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The controller's half of app_release: sends an image or a build's context to a host that lacks it."""

from __future__ import annotations

import base64
import json
import tempfile
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.fushuma.production.plugins.plugin_utils.app_model import write_context
from ansible_collections.fushuma.production.plugins.plugin_utils.rendering import Renderer, shipped


class ActionModule(ActionBase):
    TRANSFERS_FILES = True
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        args = dict(self._task.args)
        args["applications"], args["environments"] = apart(args["applications"])
        if args.get("files"):
            files, _digest = Renderer(self._templar, task_vars or {}, self._find_needle).render(args["files"])
            args["files"] = [shipped(file) for file in files]
        folder = ""
        if args.get("state") == "prepared" and not self._task.check_mode:
            image = (args.get("meant") or args["applications"][0])["image"]
            if image["source"] != "registry" and args.get("send", True):
                folder = self._make_tmp_path()
                args["image_file"] = self._send(image, folder)
        result: dict[str, Any] = self._execute_module(
            module_name="fushuma.production.app_release", module_args=args, task_vars=task_vars
        )
        if folder:
            self._remove_tmp_path(folder, force=True)
        result.pop("invocation", None)
        return result

    def _send(self, image: dict[str, Any], folder: str) -> str:
        remote: str = self._connection._shell.join_path(folder, "image.tar")
        if image["source"] == "archive":
            self._transfer_file(image["reference"], remote)
        else:
            with tempfile.TemporaryDirectory() as here:
                context = Path(here) / "context.tar"
                write_context(Path(image["reference"]), context)
                self._transfer_file(str(context), remote)
        self._fixup_perms2((folder, remote))
        return remote


def apart(applications: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], str]:
    """The applications without the variables of their processes, and those as base64 of JSON.

    A module logs what it is called with, except for what its spec calls a secret as a whole.
    """
    bare = [
        {**one, "processes": [{k: v for k, v in process.items() if k != "environment"} for process in one["processes"]]}
        for one in applications
    ]
    told = {
        one["name"]: {process["name"]: process.get("environment", {}) for process in one["processes"]}
        for one in applications
    }
    return bare, base64.b64encode(json.dumps(told).encode()).decode("ascii")
