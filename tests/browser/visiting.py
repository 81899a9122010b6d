# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the browser tests share: a page with all that Chromium said of it, and the sites with the reports they got."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from hosts_support import Host, wait_for
from playwright.sync_api import Page, Response

CSP_LOG = "/var/log/nginx/csp.log"

# A report that Chromium could not deliver, on a machine that is too busy, is sent again after a minute.
REPORT_SECONDS = 150.0

Report = dict[str, Any]


@dataclass
class Visit:
    """A page and everything that Chromium had to say while it was open."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    responses: list[Response] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", lambda said: self.complaints.append(f"{said.type}: {said.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        self.page.on("requestfailed", lambda request: self.complaints.append(f"{request.url}: {request.failure}"))
        self.page.on("response", lambda response: self.responses.append(response))

    def go(self, url: str) -> Response:
        """Open an address; returns the response that brought the page."""
        response = self.page.goto(url)
        assert response is not None
        return response

    def data(self, name: str) -> str | None:
        """What the page's scripts have noted on its root element (`data-*`)."""
        found: str | None = self.page.evaluate("name => document.documentElement.dataset[name] ?? null", name)
        return found

    def wait(self, name: str) -> None:
        """Wait until they have noted it."""
        self.page.wait_for_selector(f"html[data-{name}]", state="attached")

    def violations(self) -> list[str]:
        """The directives that have stopped something on this page."""
        found: list[str] = self.page.evaluate("violations")
        return found

    def wait_for_violations(self) -> list[str]:
        """The same, once there are some."""
        wait_for(self.violations, "something is stopped")
        return self.violations()


@dataclass(frozen=True)
class Sites:
    """The host whose sites are visited."""

    host: Host

    def url(self, name: str, path: str = "/") -> str:
        return f"https://{name}:{self.host.port(443)}{path}"

    def reports(self, mark: str) -> list[Report]:
        """The reports in the host's log about documents in whose address the mark stands."""
        logged = [json.loads(line) for line in self.host.read(CSP_LOG).splitlines()]
        sent = [one for line in logged for one in json.loads(line["report"])]
        assert all(one["type"] == "csp-violation" for one in sent)
        return [one["body"] for one in sent if mark in one["body"]["documentURL"]]

    def wait_for_report(self, mark: str, directive: str) -> Report:
        """The report of a directive; it comes a moment after the violation."""

        def found() -> list[Report]:
            return [one for one in self.reports(mark) if one["effectiveDirective"] == directive]

        wait_for(found, f"a report of {directive} for {mark}", REPORT_SECONDS)
        return found()[0]
