# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Sites whose scripts carry a nonce, from an application and from files, in a real browser."""

from __future__ import annotations

from email.utils import formatdate
from typing import NamedTuple

import pytest
from browser.visiting import Sites, Visit
from demo_support import PLACEHOLDER
from playwright.sync_api import Response
from upstream_app import ETAG, LAST_MODIFIED

NONCE = "document.scripts[0].nonce"


class Place(NamedTuple):
    site: str
    path: str


@pytest.fixture(params=[Place("app.localhost", "/nonce"), Place("pages.localhost", "/")], ids=["application", "files"])
def place(request: pytest.FixtureRequest) -> Place:
    """Where the page with the nonce is."""
    found: Place = request.param
    return found


def test_the_page_works_and_its_placeholder_never_arrives(place: Place, sites: Sites, visit: Visit, mark: str) -> None:
    response = visit.go(sites.url(place.site, place.path + mark))
    assert (response.status, visit.data("page")) == (200, "ran")
    assert PLACEHOLDER not in response.text()
    nonce = visit.page.evaluate(NONCE)
    assert f'nonce="{nonce}"' in response.text()
    assert f"'nonce-{nonce}'" in response.headers["content-security-policy"]
    # The page has no icon.
    complaints = [said for said in visit.complaints if "404" not in said]
    assert (complaints, visit.violations(), sites.reports(mark)) == ([], [], [])


RUN = "document.documentElement.dataset.injected = 'ran'"
# What a flaw in the application would let into its HTML. Scripts that the page's own scripts append are another matter:
# 'strict-dynamic' lets them run (CSP3 §8.2).
INJECTIONS = {
    "script": (f"<script>{RUN}</script>", "script-src-elem"),
    "script with a made-up nonce": (f'<script nonce="abc">{RUN}</script>', "script-src-elem"),
    "script with the placeholder": (f'<script nonce="{PLACEHOLDER}">{RUN}</script>', "script-src-elem"),
    "script from the site itself": ('<script src="/a.js"></script>', "script-src-elem"),
    "event handler": (f'<img src="/" onerror="{RUN}">', "script-src-attr"),
}


@pytest.mark.parametrize("name", INJECTIONS)
def test_what_is_injected_does_not_run(name: str, place: Place, sites: Sites, visit: Visit, mark: str) -> None:
    html, directive = INJECTIONS[name]
    visit.go(sites.url(place.site, place.path + mark))
    visit.page.evaluate(
        """html => {
            document.open();
            document.addEventListener("securitypolicyviolation", (event) => violations.push(event.effectiveDirective));
            document.write(html);
            document.close();
        }""",
        html,
    )
    assert (visit.wait_for_violations(), visit.data("injected")) == ([directive], None)
    sites.wait_for_report(mark, directive)


def test_a_script_in_the_page_that_nobody_blessed_does_not_run(sites: Sites, visit: Visit, mark: str) -> None:
    visit.go(sites.url("app.localhost", f"/stranger{mark}"))
    assert (visit.data("page"), visit.data("stranger")) == ("ran", None)
    assert visit.violations() == ["script-src-elem"]
    sites.wait_for_report(mark, "script-src-elem")


def test_each_load_has_a_nonce_of_its_own_and_no_old_page_returns(place: Place, sites: Sites, visit: Visit) -> None:
    url = sites.url(place.site, place.path)
    nonces = []
    for load in (lambda: visit.go(url), visit.page.reload, lambda: visit.go(url), lambda: back(visit, sites)):
        response = load()
        assert response is not None
        assert (response.status, visit.data("page")) == (200, "ran")
        nonces.append(visit.page.evaluate(NONCE))
    assert len(set(nonces)) == len(nonces)


def back(visit: Visit, sites: Sites) -> Response | None:
    """Leave the page and return by the browser's history."""
    visit.go(sites.url("localhost"))
    return visit.page.go_back()


def test_a_page_that_did_not_change_is_sent_again(place: Place, sites: Sites, visit: Visit) -> None:
    visit.go(sites.url(place.site, place.path))
    # What a browser would have kept of a page that was served without a nonce before.
    headers = {"If-None-Match": ETAG, "If-Modified-Since": LAST_MODIFIED}
    if place.site == "pages.localhost":
        size, changed = map(int, sites.host.sh("stat -c '%s %Y' /var/www/pages.localhost/index.html").split())
        headers = {"If-None-Match": f'"{changed:x}-{size:x}"', "If-Modified-Since": formatdate(changed, usegmt=True)}
    for name, value in headers.items():
        status = visit.page.evaluate(
            "async (headers) => (await fetch(location.href, { headers, cache: 'no-store' })).status", {name: value}
        )
        assert (name, status) == (name, 200)
