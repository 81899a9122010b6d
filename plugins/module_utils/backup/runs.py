# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The verbs of the schedule: init, run, prune, check, status."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .settings import Settings, Source


@dataclass
class Outcome:
    """What came of a verb: ``problems`` are sentences (none: it went well), ``values`` what a machine is told."""

    problems: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)


@contextlib.contextmanager
def locked(settings: Settings, seconds: float = 3600.0) -> Iterator[None]:
    """Alone on this host; raises Failure where another verb has not ended after so many seconds."""
    raise NotImplementedError
    yield


def place(source: Source) -> str:
    """The folder or file of a path or volume on this host. Raises Failure where there is none."""
    raise NotImplementedError


def run(settings: Settings, say: Callable[[str], None]) -> Outcome:
    """One backup of all sources into all repositories."""
    raise NotImplementedError
