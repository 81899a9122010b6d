# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One host of each release with the demo site and those of sites.yml, asked over the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import demo_support
import pytest
from hosts_support import Host, free_port, prepare

RELEASES = ("12", "13")
SITES = Path(__file__).parent / "sites.yml"


@pytest.fixture(scope="session")
def hosts(boot: Callable[..., Host]) -> Mapping[str, Host]:
    """By release. Ports 80 and 443 are published; the sites believe that clients reach them on just those."""
    prepare(RELEASES)

    def booted(release: str) -> Host:
        return boot(f"outside{release}", release, publish={free_port(): 80, free_port(): 443})

    with ThreadPoolExecutor() as pool:
        found = dict(zip(RELEASES, pool.map(booted, RELEASES), strict=True))
    demo_support.serve(list(found.values()), "outside", demo_support.settings(SITES, public_port=443))
    return found


@pytest.fixture(params=RELEASES, ids=lambda release: f"debian{release}")
def host(request: Any, hosts: Mapping[str, Host]) -> Host:
    """Each of them in turn."""
    return hosts[request.param]
