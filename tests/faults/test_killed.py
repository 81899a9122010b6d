# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A converge killed at any moment is healed by the next one, and nginx serves through all of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest
from hosts_support import Client, Edge, disagreements, on_each
from killing_support import Killer, assert_all_healed, healed, seeded, told


def wrong(edge: Edge, letter: str) -> list[str]:
    """What is not as it should be with this setting in force."""
    found = disagreements(edge.host)
    sites = edge.host.sh("ls /etc/nginx/sites").split()
    if sites != ["localhost.conf", f"only-{letter}.example.conf"]:
        found.append(f"the sites are {sites}")
    if complaint := Client(edge.port, accept=lambda body: f"<title>{letter}</title>" in body).ask():
        found.append(f"the site does not serve the new content: {complaint}")
    return found


def test_a_killed_converge_is_healed_by_the_next_and_nginx_never_stops_serving(
    edges: list[Edge],
    settings: Mapping[str, Mapping[str, Any]],
    whole: Callable[[str], bool],
    capsys: pytest.CaptureFixture[str],
) -> None:
    killers = [Killer(edge, settings, ["nginx"], partial(wrong, edge), seeded(edge)) for edge in edges]

    def kill(killer: Killer) -> Client:
        with Client(killer.edge.port, accept=whole) as client:
            killer.run()
        return client

    clients = on_each(killers, kill)
    requests = sum(client.requests for client in clients)
    failures = [failure for client in clients for failure in client.failures]
    with capsys.disabled():
        print(f"{told(killers)}; {requests} requests, {len(failures)} failed")
    assert failures == []
    assert_all_healed(killers)
    assert requests > 10 * healed(killers)
