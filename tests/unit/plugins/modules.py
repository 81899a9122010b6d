"""Runs a module's main() in this process, as Ansible would on a host."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args


def run_module(
    main: Callable[[], None], capsys: pytest.CaptureFixture[str], *, check: bool = False, **args: Any
) -> dict[str, Any]:
    """The module's result; ``failed`` tells whether it failed."""
    with patch_module_args({**args, "_ansible_check_mode": check, "_ansible_diff": True}), pytest.raises(SystemExit):
        main()
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result
