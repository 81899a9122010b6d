# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether a host is well: what its roles stand for, and what ran before."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.module_utils import health
from ansible_collections.fushuma.production.plugins.module_utils.health import Promise, Seen, complaints
from ansible_collections.fushuma.production.plugins.module_utils.journal import Finished, Unit
from ansible_collections.fushuma.production.plugins.modules.health import main

from .modules import run_module


@dataclass
class Systemd:
    """What systemd would say; ``later`` takes its place once it has been asked for units."""

    active: list[str] = field(default_factory=list)
    enabled: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    later: Systemd | None = None

    def run(self, argv: Sequence[str]) -> Finished:
        names = {"--state=active": self.active, "--state=enabled": self.enabled, "--state=failed": self.failed}
        output = "".join(f"{name} loaded active running Some words\n" for name in names[argv[2]])
        return Finished(argv, 0, output)

    def units(self, names: Sequence[str]) -> list[Unit]:
        found = [Unit(name, True, name in self.active, True, False) for name in names]
        if self.later:
            self.__dict__.update(self.later.__dict__)
        return found


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch) -> Systemd:
    found = Systemd(["web.service", "cron.service", "dbus.service"], ["web.service", "cron.service", "off.service"])
    monkeypatch.setattr(health, "run", found.run)
    monkeypatch.setattr(health, "units", found.units)
    monkeypatch.setattr(health, "PAUSE", 0)
    return found


def test_what_starts_at_boot_and_runs_is_what_counts(systemd: Systemd) -> None:
    systemd.failed = ["odd.service"]
    assert health.look() == Seen(frozenset({"web.service", "cron.service"}), frozenset({"odd.service"}))


def test_a_systemd_that_does_not_answer(systemd: Systemd, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(health, "run", lambda argv: Finished(argv, 1, "no bus"))
    assert run_module(main, capsys)["msg"] == "systemd does not answer: no bus"


@pytest.mark.parametrize(
    ("since", "now", "said"),
    [
        (None, Seen(failed=frozenset({"a"})), []),
        (Seen(frozenset({"a", "b"})), Seen(frozenset({"a", "b", "c"})), []),
        (Seen(frozenset({"a", "b"})), Seen(frozenset({"a"})), ["b ran before and does not now"]),
        (Seen(frozenset({"a"})), Seen(failed=frozenset({"a"})), ["a has failed"]),
        (Seen(failed=frozenset({"a"})), Seen(failed=frozenset({"a"})), []),
    ],
)
def test_before_and_now(systemd: Systemd, since: Seen | None, now: Seen, said: list[str]) -> None:
    assert complaints([], since, now) == said


@pytest.fixture
def url() -> Iterator[str]:
    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/well" else 503)
            self.end_headers()

        def log_message(self, *_arguments: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_promises(systemd: Systemd, url: str) -> None:
    kept = [Promise("web", ["web.service"], f"{url}/well"), Promise("cron", ["cron.service"])]
    assert complaints(kept, None, Seen()) == []
    broken = [Promise("web", ["web.service"], f"{url}/ill"), Promise("off", ["off.service"], f"{url}/ill")]
    assert complaints(broken, None, Seen()) == [
        f"web: {url}/ill answers 503, not 200",
        "off: off.service is not active",
    ]


def test_it_waits_until_all_is_well(systemd: Systemd, capsys: pytest.CaptureFixture[str]) -> None:
    systemd.later = Systemd([*systemd.active, "off.service"], systemd.enabled)
    result = run_module(main, capsys, services=[{"name": "off", "units": ["off.service"]}])
    assert not result.get("failed")
    assert result["running"] == ["cron.service", "off.service", "web.service"]
    assert result["changed"] is False


def test_it_says_what_is_not_well(systemd: Systemd, capsys: pytest.CaptureFixture[str]) -> None:
    before = run_module(main, capsys)
    systemd.active, systemd.failed = ["cron.service"], ["web.service"]
    services = [{"name": "web", "units": ["web.service"]}]
    result = run_module(main, capsys, check=True, services=services, since=before, timeout=0)
    assert result["failed"]
    assert result["msg"] == "The host is not well: web: web.service is not active; web.service has failed."
    assert (result["running"], result["failed_services"]) == (["cron.service"], ["web.service"])
