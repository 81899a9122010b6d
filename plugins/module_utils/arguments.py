# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files and directories of a transaction, as modules are told of them."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.fushuma.production.plugins.module_utils.transaction import Directory, File

OWNED = {"owner": {"type": "str", "default": "root"}, "group": {"type": "str", "default": "root"}}
# What the controller has used up before the module runs is here only so that ansible-doc and the module agree.
FILE_SPEC = {
    "dest": {"type": "path", "required": True},
    "src": {"type": "str"},
    "copy": {"type": "str"},
    "content": {"type": "str", "no_log": True},
    "each": {"type": "list", "elements": "raw"},
    "vars": {"type": "dict"},
    "mode": {"type": "str", "default": "0644"},
    "sensitive": {"type": "bool", "default": False},
    "on_change": {"type": "str", "choices": ["reload", "restart", "nothing"]},
    "apply": {"type": "list", "elements": "list", "default": []},
    "merge_json": {"type": "int", "default": 0},
    "reload_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
    "undo": {"type": "list", "elements": "list", "default": []},
    "in_force": {"type": "list", "elements": "str", "default": []},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    **OWNED,
}
DIRECTORY_SPEC = {
    "path": {"type": "path", "required": True},
    "each": {"type": "list", "elements": "raw"},
    "mode": {"type": "str", "default": "0755"},
    "prune": {"type": "bool", "default": False},
    **OWNED,
}


def octal(mode: str) -> int:
    """Permissions as a number; ValueError for what is no octal number."""
    number = int(mode, 8)
    if not 0 <= number <= 0o7777:
        raise ValueError(mode)
    return number


def files_from(params: Sequence[Mapping[str, Any]]) -> list[File]:
    """Contents arrive as base64, as the controller sends them. Raises ValueError for what is none, or no mode."""
    return [
        File(
            dest=file["dest"],
            content=base64.b64decode(file["content"] or "") if file["state"] == "present" else None,
            owner=file["owner"],
            group=file["group"],
            mode=octal(file["mode"]),
            on_change=file["on_change"],
            sensitive=file["sensitive"],
            apply=file["apply"],
            merge_json=file["merge_json"],
            reload_keys=file["reload_keys"],
            undo=file["undo"],
            in_force=file["in_force"],
        )
        for file in params
    ]


def directories_from(params: Sequence[Mapping[str, Any]]) -> list[Directory]:
    """Raises ValueError for a mode that is no octal number."""
    return [
        Directory(folder["path"], folder["owner"], folder["group"], octal(folder["mode"]), folder["prune"])
        for folder in params
    ]
