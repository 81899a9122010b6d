# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who is told of what happened: state, metrics, a ping, a check-in, a webhook, mail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .settings import Settings


def state(settings: Settings) -> dict[str, Any]:
    """What is known of former runs: {"repositories": {NAME: {...}}, "drills": {NAME: {...}}, ...}; empty at first."""
    raise NotImplementedError


def record(settings: Settings, part: str, name: str, values: Mapping[str, Any]) -> None:
    """Take values into ``state[part][name]`` and write the metrics anew. A drill records itself by
    ``record(settings, "drills", REPOSITORY, {"last_attempt", "last_success", "rto_seconds", "rpo_seconds",
    "success"})``."""
    raise NotImplementedError


def tell(settings: Settings, verb: str, problem: str, seconds: float = 0.0) -> list[str]:
    """Tell of a verb that went well (``problem`` empty) or not. Returns what could not be told, as sentences."""
    raise NotImplementedError
