# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hosts for the suites that need some."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def boot() -> Iterator[Callable[..., Any]]:
    """Boots hosts: ``boot(name, release, publish={8443: 443}) -> hosts_support.Host``. They go at the end."""
    import hosts_support  # only here: the unit tests do without what it imports

    names: list[str] = []

    def booted(name: str, release: str, **options: Any) -> hosts_support.Host:
        names.append(name)
        return hosts_support.booted(name, release, **options)

    yield booted
    for name in names:
        hosts_support.removed(name)
