# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.fushuma.production.plugins.plugin_utils.apt_repository import update


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"apt_update": update}
