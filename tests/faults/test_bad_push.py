# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Configurations pushed to a host under load: no request fails, and afterwards one configuration is there, whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hosts_support import Client, Edge, disagreements, on_each, running_digest, tree_of
from load_support import Load, load_on

TAKEN_PORT = 9999
# A connection for each request: nginx before 1.27.4 closes idle connections when it reloads, which wrk counts as errors
# even where it could ask again (RFC 9112 §9.3.1).
CLOSING = ["-H", "Connection: close"]


def with_site(settings: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """The settings with options of the site localhost changed."""
    first, *others = settings["nginx_sites"]
    return {**settings, "nginx_sites": [{**first, **options}, *others]}


def push_all(one: Edge, settings: Mapping[str, Mapping[str, Any]], client: Client) -> Load:
    """Push a configuration that nginx refuses, one that does not come into force, and a good one."""
    before, running = tree_of(one.host), running_digest(one.host)
    with client, load_on(one.host, "https://localhost:443/", CLOSING) as load:
        # nginx -t looks the upstream's name up and does not find it.
        refused = one.play(with_site(settings["a"], upstream={"servers": ["backend.invalid:8080"]}, content=None))
        assert refused.failed
        assert "host not found in upstream" in refused.output
        assert "The former configuration is back and in force" in refused.output
        assert (tree_of(one.host), running_digest(one.host), disagreements(one.host)) == (before, running, [])

        # nginx -t minds no port that is taken; nginx itself cannot bind it, and somebody else answers the probe.
        silent = one.play({**settings["a"], "nginx_status_port": TAKEN_PORT})
        assert silent.failed
        assert "does not answer as it should" in silent.output
        assert "The former configuration is back and in force" in silent.output
        assert (tree_of(one.host), running_digest(one.host), disagreements(one.host)) == (before, running, [])

        one.play(settings["b"]).ok()
        assert running_digest(one.host) != running
        assert disagreements(one.host) == []
    return load


def test_no_push_fails_a_request(
    edges: list[Edge],
    settings: Mapping[str, Mapping[str, Any]],
    whole: Callable[[str], bool],
    capsys: pytest.CaptureFixture[str],
) -> None:
    def work(one: Edge) -> str:
        one.host.install("wrk", "procps")
        one.host.run(["systemd-run", "--quiet", "python3", "-m", "http.server", "-b", "127.0.0.1", str(TAKEN_PORT)])
        client = Client(one.port, accept=whole)
        load = push_all(one, settings, client)
        assert (load.errors, client.failures) == ([], [])
        assert load.requests > 1000
        assert one.play(settings["b"]).ok().changed == 0
        return f"{one.host.name}: {load.requests} requests of wrk and {client.requests} from outside, 0 failed"

    report = on_each(edges, work)
    with capsys.disabled():
        print("", *report, sep="\n")
