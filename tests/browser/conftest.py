# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A host with the demo site and those of sites.yml, and a headless Chromium that visits them.

Chromium is Debian's, or the machine's own. Playwright drives it: of what can, it alone shows every response with its
headers as they came, every message of the console and every failed request. Its own browsers are not downloaded.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import demo_support
import pytest
from browser.visiting import Sites, Visit
from hosts_support import ROOT, Host, free_port, prepare
from playwright.sync_api import Browser, sync_playwright
from programs_support import needs_apt
from upstream_app import nonce_page

RELEASE = "13"
SITES = Path(__file__).parent / "sites.yml"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
# Nothing that Chromium does on its own is wanted here, and no name but this machine's is looked up.
OPTIONS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Reports that follow one another go out at once, not once a minute.
    "--short-reporting-delay",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE *.localhost, EXCLUDE 127.0.0.1",
]
# Before any script of the page: keeps what the policy has stopped.
WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => violations.push(event.effectiveDirective));
"""


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Chromium, running."""
    path = needs_apt("chromium", *CHROMIUM)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def sites(chromium: Browser, boot: Callable[..., Host]) -> Sites:
    """The host, converged; booted only where there is a browser."""
    prepare([RELEASE])
    port = free_port()
    host = boot(f"browser{RELEASE}", RELEASE, publish={port: 443})
    pages = ROOT / ".cache" / "browser" / "pages"
    pages.mkdir(parents=True, exist_ok=True)
    (pages / "index.html").write_text(nonce_page(demo_support.PLACEHOLDER), "utf-8")
    demo_support.serve([host], "browser", {**demo_support.settings(SITES, port), "pages": str(pages)})
    return Sites(host)


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[Callable[..., Visit]]:
    """Opens a page in a profile of its own; certificates are not judged."""
    contexts = []

    def opened(**options: Any) -> Visit:
        context = chromium.new_context(ignore_https_errors=True, **options)
        contexts.append(context)
        context.add_init_script(WATCH)
        return Visit(context.new_page())

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture
def mark() -> str:
    """A query that no address had before, by which the reports of a test are known."""
    return f"?{secrets.token_hex(8)}"


@pytest.fixture
def visit(open_page: Callable[..., Visit]) -> Visit:
    """A page that is still empty."""
    return open_page()
