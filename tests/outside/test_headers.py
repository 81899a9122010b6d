# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every answer of every site carries each security header once, with the site's own value, whatever brings it about.

Asked from another machine than the host, byte by byte. The application behind the sites sends all of these headers
itself, twice and with other values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from hosts_support import Host
from outside.wire import Answer, ask, request
from upstream_app import ETAG, OWN_HEADERS

FILES, APP, NONCE, DEMO = "files.test", "app.test", "nonce.test", "localhost"
POLICY_START = "default-src 'none'; script-src "
POLICY_END = (
    "; img-src 'self'; font-src 'self'; connect-src 'self'; manifest-src 'self'; worker-src 'self'; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; upgrade-insecure-requests"
)
REPORTS = "; report-uri /.well-known/csp-report; report-to csp"
HASH = r"'sha256-[A-Za-z0-9+/]{43}='"

# What each header has to be, in full, as a pattern. HSTS is not in it: it belongs to TLS alone.
COMMON = {
    "reporting-endpoints": re.escape('csp="/.well-known/csp-report"'),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "strict-origin-when-cross-origin",
    "permissions-policy": re.escape(
        "accelerometer=(), camera=(), geolocation=(), gyroscope=(), magnetometer=(), microphone=(), payment=(), usb=()"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "server": "nginx",
}
HSTS = {"strict-transport-security": "max-age=63072000; includeSubDomains"}


def policy(scripts: str, styles: str, more: str = "") -> str:
    """The pattern of a policy."""
    start, end = re.escape(POLICY_START), re.escape(POLICY_END)
    return f"{start}{scripts}; style-src {styles}{end}{re.escape(more + REPORTS)}"


NONCE_SCRIPTS = "'nonce-[0-9a-f]{32}' 'strict-dynamic'"
OF_SITE: Mapping[str, Mapping[str, str]] = {
    DEMO: {
        "content-security-policy": policy(f"'self' {HASH}", f"'self' {HASH}"),
        "cross-origin-embedder-policy": "require-corp",
    },
    FILES: {"content-security-policy": policy(f"'self' {HASH}", f"'self' {HASH}")},
    APP: {"content-security-policy": policy("'self'", "'self'")},
    NONCE: {
        "content-security-policy": policy(NONCE_SCRIPTS, "'self'"),
        "content-security-policy-report-only": policy(NONCE_SCRIPTS, "'self'", "; require-trusted-types-for 'script'"),
    },
}


@dataclass(frozen=True)
class Kind:
    """One way to make a site answer: the bytes that are sent, how often, and the status of the last answer."""

    site: str
    message: bytes
    status: int
    times: int = 1
    said: str = ""  # the name in the TLS handshake, where it is not the site's


def kind(site: str, path: str, status: int, method: str = "GET", times: int = 1, **headers: str) -> Kind:
    """A well-formed request; header names have _ for -."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return Kind(site, request(site, path, method, fields), status, times)


def posted(site: str, path: str, status: int, size: int) -> Kind:
    return Kind(site, request(site, path, "POST", {"Content-Type": "text/plain"}, b"x" * size), status)


FOREIGN = {"Origin": "https://foreign.example", "Access_Control_Request_Method": "PUT"}
UPGRADE = {"Connection": "upgrade", "Upgrade": "websocket", "Sec_WebSocket_Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
KINDS = {
    # Files
    "page": kind(FILES, "/", 200),
    "page, HEAD": kind(FILES, "/", 200, "HEAD"),
    "page, a part of it": kind(FILES, "/index.html", 206, Range="bytes=0-9"),
    "page, a part that is not there": kind(FILES, "/index.html", 416, Range="bytes=9999999-"),
    "page, not changed": kind(FILES, "/index.html", 304, If_None_Match="*"),
    "page, precondition failed": kind(FILES, "/index.html", 412, If_Match='"another"'),
    "page, OPTIONS from elsewhere": kind(FILES, "/", 405, "OPTIONS", **FOREIGN),
    "page, POST": kind(FILES, "/", 405, "POST"),
    "page, TRACE": kind(FILES, "/", 405, "TRACE"),
    "immutable": kind(FILES, "/assets/page.js", 200),
    "immutable, compressed": kind(FILES, "/assets/page.css", 200, Accept_Encoding="gzip"),
    "immutable, not changed": kind(FILES, "/assets/page.js", 304, If_None_Match="*"),
    "immutable, missing": kind(FILES, "/assets/missing.js", 404),
    "immutable, POST": kind(FILES, "/assets/page.js", 405, "POST"),
    "missing": kind(FILES, "/missing", 404),
    "missing, HEAD": kind(FILES, "/missing", 404, "HEAD"),
    "folder of its own": kind(FILES, "/common-licenses/GPL-3", 200),
    "folder of its own, not changed": kind(FILES, "/common-licenses/GPL-3", 304, If_None_Match="*"),
    "folder of its own, missing": kind(FILES, "/common-licenses/missing", 404),
    "folder of its own, its name alone": kind(FILES, "/common-licenses", 404),
    "redirect": kind(FILES, "/moved", 302),
    "fixed status": kind(FILES, "/teapot", 418),
    "dot file": kind(FILES, "/.git/config", 404),
    "dump": kind(FILES, "/backup.sql", 404),
    "figures": kind(FILES, "/metrics", 404),
    "security.txt": kind(FILES, "/.well-known/security.txt", 200),
    "addresses that are not let in": kind(FILES, "/inside/", 403),
    "no password": kind(FILES, "/private/", 401),
    "too many requests": kind(FILES, "/hasty/", 429, times=2),
    "report": posted(FILES, "/.well-known/csp-report", 204, 20),
    "report, not posted": kind(FILES, "/.well-known/csp-report", 403),
    "report, too long": posted(FILES, "/.well-known/csp-report", 413, 20_000),
    # A location with an application
    "application": kind(FILES, "/app/", 200),
    "application, HEAD": kind(FILES, "/app/", 200, "HEAD"),
    "application, OPTIONS from elsewhere": kind(FILES, "/app/", 200, "OPTIONS", **FOREIGN),
    "application, PUT": kind(FILES, "/app/", 200, "PUT"),
    "application, 204": kind(FILES, "/app/status/204", 204),
    "application, 302": kind(FILES, "/app/status/302", 302),
    "application, not changed": kind(FILES, "/app/cached", 304, If_None_Match=ETAG),
    "application, 403": kind(FILES, "/app/status/403", 403),
    "application, 404": kind(FILES, "/app/status/404", 404),
    "application, 405": kind(FILES, "/app/status/405", 405),
    "application, 500": kind(FILES, "/app/status/500", 500),
    "application, 503": kind(FILES, "/app/status/503", 503),
    "application, websocket": kind(FILES, "/app/", 101, **UPGRADE),
    "application, too much for it": posted(FILES, "/small/", 413, 2000),
    "application, too late": kind(FILES, "/slow/late", 504),
    "application, gone": kind(FILES, "/dead/", 502),
    # A site that is an application
    "site of an application": kind(APP, "/", 200),
    "site of an application, 500": kind(APP, "/status/500", 500),
    "site of an application, 302": kind(APP, "/status/302", 302),
    "site of an application, POST": posted(APP, "/", 200, 2000),
    "site of an application, too much": posted(APP, "/", 413, 2_000_000),
    "site of an application, dot file": kind(APP, "/.env", 404),
    "site of an application, figures": kind(APP, "/metrics", 404),
    # A site with nonces
    "nonce": kind(NONCE, "/nonce", 200),
    "nonce, HEAD": kind(NONCE, "/nonce", 200, "HEAD"),
    "nonce, 404": kind(NONCE, "/status/404", 404),
    "nonce, asked whether changed": kind(NONCE, "/cached", 200, If_None_Match=ETAG),
    # The demo
    "demo": kind(DEMO, "/", 200),
    "demo, deep link": kind(DEMO, "/a/deep/link", 200),
    "demo, asset": kind(DEMO, "/assets/page.js", 200),
    "demo, missing asset": kind(DEMO, "/assets/missing.js", 404),
    "demo, no password": kind(DEMO, "/status", 401),
    # Another name of a site
    "alias": Kind(FILES, request("www.files.test"), 301, said="www.files.test"),
    # What is no proper request
    "malformed request line": Kind(FILES, b"nonsense\r\n\r\n", 400),
    "malformed host": Kind(FILES, b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    "malformed header": Kind(FILES, b"GET / HTTP/1.1\r\nHost: files.test\r\nContent-Length: x\r\n\r\n", 400),
    "path out of the site": kind(FILES, "/../../etc/passwd", 400),
    "headers too long": kind(FILES, "/", 400, X_Long="x" * 20_000),
    "path too long": kind(FILES, f"/{'x' * 20_000}", 414),
    "unknown transfer": kind(FILES, "/", 501, Transfer_Encoding="unheard-of"),
    "unknown version": Kind(FILES, b"GET / HTTP/9.9\r\nHost: files.test\r\n\r\n", 505),
}


def wrong(answer: Answer, wanted: Mapping[str, str]) -> list[str]:
    """What is not as it should be: own headers that are missing, twice there or another, and those of the upstream."""
    known = {name.lower() for name in OWN_HEADERS} | set(HSTS) | set(wanted)
    found = [f"{name}: {value}" for name, value in answer.headers if "upstream" in value.lower()]
    for name in sorted(known):
        values = answer.all(name)
        if name in wanted and not (len(values) == 1 and re.fullmatch(wanted[name], values[0])):
            found.append(f"{name}: {values or 'missing'}")
        elif name not in wanted and values:
            found.append(f"{name} is not expected: {values}")
    return found


@pytest.mark.parametrize("name", KINDS)
def test_each_header_is_there_once(name: str, host: Host) -> None:
    one = KINDS[name]
    answers = [ask(host.port(443), one.message, one.said or one.site) for _ in range(one.times)]
    answer = answers[-1]
    assert answer is not None
    assert answer.status == one.status
    assert wrong(answer, {**COMMON, **HSTS, **OF_SITE[one.site]}) == []


PLAIN = {
    "redirect": (request(FILES, "/a?b=c"), 301, "https://files.test/a?b=c"),
    "redirect, HEAD": (request(FILES, "/", "HEAD"), 301, "https://files.test/"),
    "redirect, POST": (request(FILES, "/", "POST", body=b"x"), 301, "https://files.test/"),
    "redirect of another name": (request("www.files.test", "/a"), 301, "https://www.files.test/a"),
    "challenge that nobody set": (request(FILES, "/.well-known/acme-challenge/x"), 404, None),
}


@pytest.mark.parametrize("name", PLAIN)
def test_in_the_clear_each_header_but_hsts_is_there_once(name: str, host: Host) -> None:
    message, status, place = PLAIN[name]
    answer = ask(host.port(80), message, None)
    assert answer is not None
    assert (answer.status, answer.all("Location")) == (status, [place] if place else [])
    assert wrong(answer, {**COMMON, **OF_SITE[FILES]}) == []


def test_plain_http_to_the_port_of_tls_brings_no_hsts(host: Host) -> None:
    answer = ask(host.port(443), request(FILES), None)
    assert answer is not None
    assert answer.status == 400
    assert wrong(answer, {**COMMON, **OF_SITE[FILES]}) == []


def test_what_names_no_site_in_the_clear_brings_no_header_of_one(host: Host) -> None:
    for message in (b"nonsense\r\n\r\n", request("files.test", f"/{'x' * 20_000}")):
        answer = ask(host.port(80), message, None)
        assert answer is not None
        assert answer.status in (400, 414)
        assert wrong(answer, {"server": "nginx"}) == []


def test_a_name_that_no_site_has_gets_no_answer(host: Host) -> None:
    assert ask(host.port(80), request("unknown.test"), None) is None
    assert ask(host.port(443), request("unknown.test"), FILES) is None


def test_redirects_over_tls_lead_to_the_right_place(host: Host) -> None:
    places = {
        "https://files.test/a?b=c": ask(host.port(443), request("www.files.test", "/a?b=c"), "www.files.test"),
        "/assets/": ask(host.port(443), request(FILES, "/moved"), FILES),
        "/elsewhere": ask(host.port(443), request(APP, "/status/302"), APP),
    }
    assert {place: answer and answer.one("Location") for place, answer in places.items()} == {
        place: place for place in places
    }


def test_head_has_the_headers_of_get_and_no_body(host: Host) -> None:
    get, head = (ask(host.port(443), request(FILES, "/", method), FILES) for method in ("GET", "HEAD"))
    assert get is not None
    assert head is not None
    assert [name for name, _value in head.headers] == [name for name, _value in get.headers]
    assert (len(get.body) > 0, head.body) == (True, b"")


def test_no_origin_is_let_in(host: Host) -> None:
    for site, path in ((DEMO, "/"), (FILES, "/"), (FILES, "/app/"), (APP, "/")):
        for method in ("OPTIONS", "GET"):
            fields = {name.replace("_", "-"): value for name, value in FOREIGN.items()}
            answer = ask(host.port(443), request(site, path, method, fields), site)
            assert answer is not None
            assert [name for name, _value in answer.headers if name.startswith("access-control-")] == []


def test_each_response_has_a_nonce_of_its_own(host: Host) -> None:
    nonces = set()
    for _ in range(3):
        answer = ask(host.port(443), request(NONCE, "/nonce"), NONCE)
        assert answer is not None
        (nonce,) = set(re.findall(rb'nonce="([^"]*)"', answer.body))
        for name in ("Content-Security-Policy", "Content-Security-Policy-Report-Only"):
            assert f"script-src 'nonce-{nonce.decode()}' " in answer.one(name)
        assert answer.one("Cache-Control") == "no-store"
        assert [*answer.all("ETag"), *answer.all("Last-Modified")] == []
        nonces.add(nonce)
    assert len(nonces) == 3
