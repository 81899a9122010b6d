# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The hosts that all runbooks share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture(scope="session")
def fleet(boot: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    from fleet_support import Fleet  # only here: what it imports is not there for all suites
    from hosts_support import RELEASES

    hosts = [boot(f"run{release}", release, network="runbooks") for release in RELEASES]
    found = Fleet(hosts, tmp_path_factory.mktemp("runbooks"))
    found.site()
    return found
