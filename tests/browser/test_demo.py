# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The demo site in a real browser: it works, what is injected does not run, and the host hears of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from browser.visiting import Sites, Visit
from hosts_support import ROOT

DEMO = "localhost"
SHOTS = ROOT / ".cache" / "browser"
OWN_HEADERS = [
    "content-security-policy",
    "cross-origin-embedder-policy",
    "cross-origin-opener-policy",
    "cross-origin-resource-policy",
    "permissions-policy",
    "referrer-policy",
    "reporting-endpoints",
    "strict-transport-security",
    "x-content-type-options",
    "x-frame-options",
]


def opened(sites: Sites, visit: Visit, path: str = "/") -> Visit:
    """The demo's page, at its end."""
    assert visit.go(sites.url(DEMO, path)).status == 200
    visit.wait("ready")
    return visit


def test_the_page_works_and_nothing_of_it_is_stopped(sites: Sites, visit: Visit, mark: str) -> None:
    opened(sites, visit, f"/{mark}")
    assert (visit.data("inline"), visit.data("ready")) == ("ran, allowed by its hash", "yes")
    assert visit.page.title() == "It runs"
    assert "default-src 'none';\n" in visit.page.inner_text("#facts")
    visit.page.wait_for_load_state("networkidle")
    assert (visit.complaints, visit.violations(), sites.reports(mark)) == ([], [], [])
    assert {response.status for response in visit.responses} == {200}
    assert {response.url.rpartition("/")[2] for response in visit.responses} >= {"page.css", "page.js", "mark.svg"}


def test_styles_apply(sites: Sites, visit: Visit) -> None:
    opened(sites, visit)
    inline = visit.page.evaluate("getComputedStyle(document.documentElement).colorScheme")
    file = visit.page.evaluate("getComputedStyle(document.querySelector('main')).maxWidth")
    assert (inline, file) == ("light dark", "736px")


def test_it_comes_over_http2_with_each_header_once(sites: Sites, visit: Visit) -> None:
    opened(sites, visit)
    assert visit.page.evaluate("performance.getEntriesByType('navigation')[0].nextHopProtocol") == "h2"
    for response in visit.responses:
        counted = Counter(header["name"].lower() for header in response.headers_array())
        assert {name: counted[name] for name in OWN_HEADERS} == dict.fromkeys(OWN_HEADERS, 1)


def test_it_looks_different_in_the_dark(sites: Sites, open_page: Callable[..., Visit]) -> None:
    colours = set()
    for scheme in ("light", "dark"):
        visit = opened(sites, open_page(color_scheme=scheme))
        colours.add(visit.page.evaluate("getComputedStyle(document.body).backgroundColor"))
        visit.page.screenshot(path=SHOTS / f"demo-{scheme}.png", full_page=True)
    assert len(colours) == 2
    assert all(Path(SHOTS / f"demo-{scheme}.png").stat().st_size > 10_000 for scheme in ("light", "dark"))


def test_a_script_that_the_page_injects_is_blocked_and_reported(sites: Sites, visit: Visit, mark: str) -> None:
    opened(sites, visit, f"/{mark}")
    visit.page.click("#try")
    assert visit.wait_for_violations() == ["script-src-elem"]
    assert visit.page.inner_text("#verdict").startswith("Blocked by script-src-elem; the report is in the host's log")
    assert visit.data("injected") is None
    report = sites.wait_for_report(mark, "script-src-elem")
    assert (report["blockedURL"], report["disposition"], report["statusCode"]) == ("inline", "enforce", 200)
    assert report["originalPolicy"].startswith("default-src 'none'; script-src 'self' 'sha256-")


class Injection(NamedTuple):
    """``script`` brings something into the page, which would note `data-injected`; ``directive`` has to stop it."""

    directive: str
    script: str


RUN = "document.documentElement.dataset.injected = 'ran'"
ELSEWHERE = "https://127.0.0.1:9"


def html(text: str, then: str = "") -> str:
    """A script that appends HTML to the page."""
    return f"document.body.insertAdjacentHTML('beforeend', `{text}`); {then}"


def script(properties: str) -> str:
    """A script that appends a script."""
    return f"document.body.append(Object.assign(document.createElement('script'), {{{properties}}}))"


# What the debugger runs may evaluate texts; what a timer of the page runs may not.
def later(text: str) -> str:
    return f"setTimeout(() => {{ {text} }})"


INJECTIONS = {
    "inline script": Injection("script-src-elem", script(f"textContent: `{RUN}`")),
    "inline script with a made-up nonce": Injection("script-src-elem", script(f"nonce: 'abc', textContent: `{RUN}`")),
    "inline module": Injection("script-src-elem", script(f"type: 'module', textContent: `{RUN}`")),
    "script from elsewhere": Injection("script-src-elem", script(f"src: '{ELSEWHERE}/a.js'")),
    "script in its address": Injection("script-src-elem", script(f"src: `data:text/javascript,{RUN}`")),
    "event handler": Injection("script-src-attr", html(f'<img src="/assets/mark.svg" onload="{RUN}">')),
    "javascript: address": Injection(
        "script-src-elem", html(f'<a id="trap" href="javascript:{RUN}">', "document.getElementById('trap').click()")
    ),
    "eval": Injection("script-src", later(f"eval(`{RUN}`)")),
    "function of a text": Injection("script-src", later(f"new Function(`{RUN}`)()")),
    "timer with a text": Injection("script-src", later(f"setTimeout(`{RUN}`)")),
    "worker from elsewhere": Injection(
        "worker-src", f"try {{ new Worker(URL.createObjectURL(new Blob([`{RUN}`]))) }} catch {{}}"
    ),
    "inline style": Injection("style-src-elem", html("<style>main { display: none }</style>")),
    "style attribute": Injection("style-src-attr", html('<p style="display: none">')),
    "picture from elsewhere": Injection("img-src", html(f'<img src="{ELSEWHERE}/a.png">')),
    "request to elsewhere": Injection("connect-src", f"fetch('{ELSEWHERE}/').catch(() => {{}})"),
    "frame": Injection("frame-src", html(f'<iframe src="{ELSEWHERE}/"></iframe>')),
    "plug-in": Injection("object-src", html(f'<object data="{ELSEWHERE}/"></object>')),
    "base": Injection("base-uri", f"document.head.insertAdjacentHTML('beforeend', `<base href='{ELSEWHERE}/'>`)"),
    "form to elsewhere": Injection(
        "form-action", html(f'<form id="trap" action="{ELSEWHERE}/">', "document.getElementById('trap').submit()")
    ),
}


@pytest.mark.parametrize("name", INJECTIONS)
def test_what_is_injected_is_blocked_and_reported(name: str, sites: Sites, visit: Visit, mark: str) -> None:
    opened(sites, visit, f"/{mark}")
    visit.page.evaluate(f"() => {{ {INJECTIONS[name].script} }}")
    assert set(visit.wait_for_violations()) == {INJECTIONS[name].directive}
    assert visit.data("injected") is None
    assert sites.wait_for_report(mark, INJECTIONS[name].directive)["disposition"] == "enforce"


def test_nobody_frames_it(sites: Sites, visit: Visit) -> None:
    visit.page.set_content(f'<iframe src="{sites.url(DEMO)}"></iframe>')
    frame = visit.page.frames[1]
    frame.wait_for_load_state()
    assert frame.evaluate("document.documentElement.dataset.inline ?? null") is None
    assert any("frame" in said and "'none'" in said for said in visit.complaints)


def test_a_deep_link_shows_the_page(sites: Sites, visit: Visit) -> None:
    opened(sites, visit, "/a/deep/link")
    assert visit.page.inner_text("h1") == "It runs"
    assert (visit.complaints, visit.violations()) == ([], [])


@pytest.mark.parametrize("path", ["/assets/missing.js", "/missing.png", "/a/deep/missing.css"])
def test_a_missing_file_is_missing_and_not_the_page(path: str, sites: Sites, visit: Visit) -> None:
    assert visit.go(sites.url(DEMO, path)).status == 404
    assert visit.page.title() == "404 Not Found"
