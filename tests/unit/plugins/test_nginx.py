# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Settings of the nginx role: which are accepted, and the sentence that each kind of problem is told in."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.plugin_utils import nginx, specs
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import sentences
from hypothesis import given
from hypothesis import strategies as st

from .certificates import made

SITE: dict[str, Any] = {"name": "www.fushuma.com", "root": "/srv/www"}
SERVERS = {"servers": ["127.0.0.1:3000"]}
APP: dict[str, Any] = {"name": "www.fushuma.com", "upstream": SERVERS}
NONCE = {"script-src": ["'nonce'", "'strict-dynamic'"]}
PLACEHOLDER = "Zk7vQ2mXb9Lr4TnYc3"
SECURITY: dict[str, Any] = {"contact": ["mailto:security@fushuma.com"], "expires": "2099"}
NOW = datetime.datetime.now(datetime.UTC)
SOON = (NOW + datetime.timedelta(days=100)).strftime("%Y-%m-%dT00:00:00Z")


def said(**settings: Any) -> list[str]:
    """What the judge says of these settings, on top of the role's defaults."""
    return sentences(nginx.problems(specs.filled(specs.role_options("nginx"), settings)))


def said_of(site: dict[str, Any], **more: Any) -> list[str]:
    """What it says of one site, without the site's place."""
    return [one.removeprefix("nginx_sites[0]").removeprefix(".") for one in said(nginx_sites=[{**site, **more}])]


# --- the whole server ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"nginx_http_port": 1, "nginx_https_port": 65535, "nginx_public_https_port": 8443, "nginx_status_port": 9000},
        {"nginx_client_timeout": "1h30m", "nginx_keepalive_timeout": "0"},
        {"nginx_client_timeout": "1w2d3h4m5s6ms"},
        {"nginx_client_timeout": "500ms"},
        {"nginx_trusted_proxies": ["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::1"]},
        {"nginx_listen_addresses": ["192.0.2.7", "[2001:db8::1]"]},
        {"nginx_worker_connections": 1},
        {"nginx_headers": {}},
        {"nginx_headers": {"X-Frame-Options": None, "Referrer-Policy": "", "X-XSS-Protection": 0}},
        {"nginx_headers": {"X-Long": "a" * 4000}},
        {"nginx_headers": {"Permissions-Policy": 'geolocation=(self "https://maps.fushuma.com")'}},
        {"nginx_hsts": {"max_age": 0, "include_subdomains": False}},
        {"nginx_hsts": {"max_age": 31536000, "preload": True}},
        {"nginx_acme": {"renew_at": 0.1, "email": "ops@fushuma.com", "ca_bundle": "/etc/ssl/own.pem"}},
        {"nginx_acme": {"renew_at": 0.9, "directory": "https://ca.fushuma.com/directory"}},
    ],
)
def test_server_settings_that_work(settings: dict[str, Any]) -> None:
    assert said(**settings) == []


PORT = "ports go from 1 to 65535. Write a port in that range."
WAIT = 'nginx knows no such time to wait. Write for example "1m30s", in w, d, h, m, s and ms.'
ROOT = 'it is no absolute path of letters, digits and /._~@:+-. Write for example "/srv/www".'
LISTEN = 'Write "0.0.0.0" or "[::]".'
PRELOAD = (
    "nginx_hsts.preload is true: browsers take only sites with include_subdomains and a max_age of a year into their "
    "lists. Write max_age 31536000 or more and include_subdomains true beside it."
)
RENEW = (
    "a renewal needs time before the end and must not follow on every run. Write a part from 0.1 to 0.9, such as 0.66."
)
SHAPE = "a directive takes a list of sources, each a string."


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"nginx_http_port": 0}, f"nginx_http_port is 0: {PORT}"),
        ({"nginx_https_port": 65536}, f"nginx_https_port is 65536: {PORT}"),
        ({"nginx_public_https_port": -1}, f"nginx_public_https_port is -1: {PORT}"),
        (
            {"nginx_probe_address": "10.0.1.11"},
            'nginx_probe_address is "10.0.1.11": it is no address with a port. Write "10.0.1.11:443".',
        ),
        ({"nginx_status_port": 70000}, f"nginx_status_port is 70000: {PORT}"),
        ({"nginx_client_timeout": "30 s"}, f'nginx_client_timeout is "30 s": {WAIT}'),
        ({"nginx_client_timeout": "0"}, f'nginx_client_timeout is "0": {WAIT}'),
        ({"nginx_client_timeout": "0m0s"}, f'nginx_client_timeout is "0m0s": {WAIT}'),
        ({"nginx_client_timeout": ""}, f'nginx_client_timeout is "": {WAIT}'),
        ({"nginx_client_timeout": "5s1m"}, f'nginx_client_timeout is "5s1m": {WAIT}'),
        ({"nginx_client_timeout": "1s1s"}, f'nginx_client_timeout is "1s1s": {WAIT}'),
        ({"nginx_client_timeout": "1y"}, f'nginx_client_timeout is "1y": {WAIT}'),
        ({"nginx_client_timeout": "1.5s"}, f'nginx_client_timeout is "1.5s": {WAIT}'),
        (
            {"nginx_keepalive_timeout": "long"},
            'nginx_keepalive_timeout is "long": it is no duration that nginx knows. '
            'Write for example "1m30s", in w, d, h, m, s and ms.',
        ),
        (
            {"nginx_trusted_proxies": ["10.0.0.0/8", "10.0.0.1/8"]},
            'nginx_trusted_proxies[1] is "10.0.0.1/8": it is no network (10.0.0.1/8 has host bits set). '
            'Write for example "10.0.0.0/8" or "::1".',
        ),
        (
            {"nginx_trusted_proxies": ["unix:"]},
            "nginx_trusted_proxies[0] is \"unix:\": it is no network ('unix:' does not appear to be an IPv4 or IPv6 "
            'network). Write for example "10.0.0.0/8" or "::1".',
        ),
        (
            {"nginx_listen_addresses": []},
            'nginx_listen_addresses is []: nobody could connect. Write ["0.0.0.0", "[::]"].',
        ),
        (
            {"nginx_listen_addresses": ["::"]},
            'nginx_listen_addresses[0] is "::": nginx cannot listen there '
            f"(IPv6 stands in brackets, IPv4 does not). {LISTEN}",
        ),
        (
            {"nginx_listen_addresses": ["[10.0.0.1]"]},
            'nginx_listen_addresses[0] is "[10.0.0.1]": nginx cannot listen there '
            f"(IPv6 stands in brackets, IPv4 does not). {LISTEN}",
        ),
        (
            {"nginx_listen_addresses": ["*"]},
            "nginx_listen_addresses[0] is \"*\": nginx cannot listen there ('*' does not appear to be an IPv4 or IPv6 "
            f"address). {LISTEN}",
        ),
        (
            {"nginx_listen_addresses": ["[::]", "0.0.0.0", "[::]"]},
            'nginx_listen_addresses[2] is "[::]": it stands there twice. Write each address once.',
        ),
        (
            {"nginx_worker_connections": 0},
            "nginx_worker_connections is 0: without connections nothing is served. Write for example 4096.",
        ),
        (
            {"nginx_hsts": {"max_age": -1}},
            "nginx_hsts.max_age is -1: it counts seconds. Write 0 or more.",
        ),
        ({"nginx_hsts": {"max_age": 31535999, "preload": True}}, PRELOAD),
        ({"nginx_hsts": {"include_subdomains": False, "preload": True}}, PRELOAD),
        (
            {"nginx_acme": {"directory": "http://ca.fushuma.com"}},
            'nginx_acme.directory is "http://ca.fushuma.com": an ACME directory is only trusted over TLS. '
            "Write its https:// URL.",
        ),
        (
            {"nginx_acme": {"email": "ops"}},
            'nginx_acme.email is "ops": it is no address of mail. Write for example "ops@fushuma.com".',
        ),
        ({"nginx_acme": {"ca_bundle": "own.pem"}}, f'nginx_acme.ca_bundle is "own.pem": {ROOT}'),
        ({"nginx_acme": {"renew_at": 0.95}}, f"nginx_acme.renew_at is 0.95: {RENEW}"),
        ({"nginx_acme": {"renew_at": 0}}, f"nginx_acme.renew_at is 0.0: {RENEW}"),
        (
            {"nginx_csp": {"default-src": "'none' 'self'"}, "nginx_sites": [SITE]},
            f"nginx_csp.default-src is \"'none' 'self'\": {SHAPE} Write [\"'none'\", \"'self'\"].",
        ),
        (
            {"nginx_csp": {"upgrade-insecure-requests": None}, "nginx_sites": [SITE]},
            f"nginx_csp.upgrade-insecure-requests is null: {SHAPE} Write [] or a list.",
        ),
    ],
)
def test_server_settings_that_cannot_work(settings: dict[str, Any], sentence: str) -> None:
    assert said(**settings) == [sentence]


def test_all_problems_are_told_at_once() -> None:
    found = said(
        nginx_http_port=0,
        nginx_client_timeout="x",
        nginx_hsts={"max_age": -1},
        nginx_sites=[{**SITE, "rate": "x"}, {**SITE, "name": "Two", "body_size": "x"}],
    )
    starts = [one.split(" is ")[0] for one in found]
    assert starts == [
        "nginx_client_timeout",
        "nginx_hsts.max_age",
        "nginx_http_port",
        "nginx_sites[0].rate",
        "nginx_sites[1].body_size",
        "nginx_sites[1].certificate.source",
        "nginx_sites[1].name",
    ]


# --- headers ---------------------------------------------------------------------------------------------------------

OWN = "this header has an option of its own."
WRITTEN = "nginx or the application writes this header for each response. Write no such header here."
NO_NAME = "it is no header name (RFC 9110 §5.1). Write letters, digits and hyphens."
NO_VALUE = (
    "a header is one line of ASCII, and nginx's strings hold no $ and no backslash. Write the value without these."
)
NO_TEXT = "a header holds one line of text. Write that line, in quotes."


@pytest.mark.parametrize(
    ("headers", "sentence"),
    [
        (
            {"content-security-policy": "default-src *"},
            f'content-security-policy is "default-src *": {OWN} Write nginx_csp or the site\'s csp.policy.',
        ),
        (
            {"Content-Security-Policy-Report-Only": "x"},
            f'Content-Security-Policy-Report-Only is "x": {OWN} Write the site\'s csp.report_only.',
        ),
        ({"Reporting-Endpoints": "x"}, f'Reporting-Endpoints is "x": {OWN} Write the site\'s csp.report.'),
        (
            {"Strict-Transport-Security": None},
            f"Strict-Transport-Security is null: {OWN} Write nginx_hsts.",
        ),
        ({"Cache-Control": "no-store"}, f'Cache-Control is "no-store": {WRITTEN}'),
        ({"content-length": 5}, f"content-length is 5: {WRITTEN}"),
        ({"X Frame": "x"}, f'X Frame is "X Frame": {NO_NAME}'),
        ({"#X": "x"}, f'#X is "#X": {NO_NAME}'),
        ({"": "x"}, f' is "": {NO_NAME}'),
        ({"X-A": "a$b"}, f'X-A is "a$b": {NO_VALUE}'),
        ({"X-A": "a\\b"}, f'X-A is "a\\\\b": {NO_VALUE}'),
        ({"X-A": "a\nb"}, f'X-A is "a\\nb": {NO_VALUE}'),
        ({"X-A": "für"}, f'X-A is "für": {NO_VALUE}'),
        ({"X-A": True}, f"X-A is true: {NO_TEXT}"),
        ({"X-A": ["a"]}, f'X-A is ["a"]: {NO_TEXT}'),
        ({"X-A": {"a": 1}}, f'X-A is {{"a": 1}}: {NO_TEXT}'),
        (
            {"X-A": "1", "x-a": "2"},
            'x-a is "2": X-A is the same header (RFC 9110 §5.1). Write one of the two.',
        ),
        (
            {"X-A": "a" * 4001},
            "X-A is a header of 4001 characters: nginx takes 4000 in one text of its configuration. "
            "Write a shorter value.",
        ),
    ],
)
def test_headers_that_cannot_be_sent(headers: dict[str, Any], sentence: str) -> None:
    assert said(nginx_headers=headers) == [f"nginx_headers.{sentence}"]
    assert said_of(SITE, headers=headers) == [f"headers.{sentence}"]


# --- names and sources -----------------------------------------------------------------------------------------------

NAME = 'it is no host name in lower case (RFC 1123). Write for example "www.fushuma.com".'
SOURCES = "what answers its requests must be one thing. Write exactly one of root, content and upstream."


def own(name: str, *aliases: str) -> dict[str, Any]:
    return {"name": name, "aliases": list(aliases), "root": "/srv/www", "certificate": {"source": "selfsigned"}}


@pytest.mark.parametrize("name", ["fushuma.com", "localhost", "a-b.xn--bcher-kva.example", "1.fushuma.com", "a" * 63])
def test_names_that_work(name: str) -> None:
    assert said(nginx_sites=[own(name, f"www.{name}")]) == []


@pytest.mark.parametrize(
    ("sites", "told"),
    [
        ([own("WWW.fushuma.com")], [f'nginx_sites[0].name is "WWW.fushuma.com": {NAME}']),
        ([own("a_b.com")], [f'nginx_sites[0].name is "a_b.com": {NAME}']),
        ([own("a.com", "*.a.com")], [f'nginx_sites[0].aliases[0] is "*.a.com": {NAME}']),
        ([own("-a.com")], [f'nginx_sites[0].name is "-a.com": {NAME}']),
        ([own("a..com")], [f'nginx_sites[0].name is "a..com": {NAME}']),
        ([own("a" * 64)], [f'nginx_sites[0].name is "{"a" * 64}": {NAME}']),
        ([own("bücher.com")], [f'nginx_sites[0].name is "bücher.com": {NAME}']),
        (
            [own("192.0.2.7", "[::1]")],
            [
                'nginx_sites[0].aliases[0] is "[::1]": TLS clients never name an IP address (RFC 6066 §3), '
                'so nobody would reach the site. Write for example "www.fushuma.com".',
                'nginx_sites[0].name is "192.0.2.7": TLS clients never name an IP address (RFC 6066 §3), '
                'so nobody would reach the site. Write for example "www.fushuma.com".',
            ],
        ),
        (
            [own("a.com"), own("b.com"), own("a.com")],
            ['nginx_sites[2].name is "a.com": nginx_sites[0].name has the same name. Write a name of its own.'],
        ),
        (
            [own("a.com", "b.com", "b.com"), own("b.com")],
            [
                'nginx_sites[0].aliases[1] is "b.com": nginx_sites[0].aliases[0] has the same name. '
                "Write a name of its own.",
                'nginx_sites[1].name is "b.com": nginx_sites[0].aliases[0] has the same name. Write a name of its own.',
            ],
        ),
    ],
)
def test_names_that_cannot_work(sites: list[dict[str, Any]], told: list[str]) -> None:
    assert said(nginx_sites=sites) == told


def test_exactly_one_thing_answers(tmp_path: Path) -> None:
    (tmp_path / "index.html").touch()
    name = {"name": "www.fushuma.com"}
    content = {"content": str(tmp_path)}
    assert said_of(SITE) == said_of(APP) == said_of({**name, **content}) == []
    assert said_of(name) == [f" is a site with no source: {SOURCES}"]
    assert said_of(SITE, **content) == [f" is a site with root and content: {SOURCES}"]
    assert said_of(SITE, upstream=SERVERS, **content) == [f" is a site with root and content and upstream: {SOURCES}"]


# --- one site --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("site", "more"),
    [
        (SITE, {"body_size": "0"}),
        (SITE, {"body_size": "512k", "rate": "100r/m", "burst": 0}),
        (SITE, {"index": "home.html", "single_page": True, "immutable": ["/assets/", "/_next/static/"]}),
        (APP, {"upstream": {"servers": ["[::1]:3000", "app.internal:80", "unix:/run/app.sock"], "keepalive": 1}}),
        (APP, {"upstream": {**SERVERS, "connect_timeout": "500ms", "read_timeout": "1h", "send_timeout": "90"}}),
        (APP, {"single_page": True, "locations": [{"path": "/app/", "root": "/srv/app"}]}),
        (SITE, {"locations": [{"path": "/a"}, {"path": "= /a"}, {"path": "/a/"}]}),
        (SITE, {"locations": [{"path": "/old", "redirect": "/new?a=b"}, {"path": "/gone", "status": 410}]}),
        (SITE, {"locations": [{"path": "/x", "redirect": "https://other.fushuma.com/"}]}),
        (SITE, {"locations": [{"path": f"/{status}", "status": status} for status in (200, 299, 400, 599)]}),
        (SITE, {"locations": [{"path": "/admin/", "allow": ["10.0.0.0/8"], "users": {"me.too@x": "p"}}]}),
        (APP, {"users": {"me.too@x": "p"}, "locations": [{"path": "= /ready", "open": True}]}),
        (APP, {"locations": [{"path": "= /login", "rate": "5r/m", "burst": 3, "body_size": "2k"}]}),
        (APP, {"locations": [{"path": "/docs/", "root": "/srv/docs"}, {"path": "/api/", "upstream": SERVERS}]}),
        (SITE, {"certificate": {"source": "selfsigned"}, "name": "localhost"}),
        (SITE, {"security_txt": {**SECURITY, "expires": SOON, "policy": "https://fushuma.com/policy"}}),
        (SITE, {"security_txt": {"contact": ["https://a.com", "tel:+1-201-555-0123"], "expires": SOON}}),
    ],
)
def test_sites_that_work(site: dict[str, Any], more: dict[str, Any]) -> None:
    assert said_of(site, **more) == []


SIZE = 'it is no size that nginx knows. Write for example "10m", in k, m or g.'
RATE = 'it is no rate that nginx knows. Write for example "10r/s" or "100r/m".'
SERVER = 'it is no address with a port. Write for example "127.0.0.1:3000".'
PREFIX = 'it is no path prefix. Write for example "/assets/".'
PATH = 'it is no path. Write a prefix "/api/" or an exact path "= /metrics".'
RESERVED = "the site itself answers there. Write the site's own options (csp, security_txt, upstream)."
TARGET = 'it is no URL or path that nginx can redirect to. Write for example "/new" or "https://…".'
REQUESTS = "it counts requests. Write 0 or more."


def upstream(**options: Any) -> dict[str, Any]:
    return {"upstream": {**SERVERS, **options}}


def place(**options: Any) -> dict[str, Any]:
    return {"locations": [{"path": "/a/", **options}]}


@pytest.mark.parametrize(
    ("site", "more", "sentence"),
    [
        (SITE, {"root": "srv/www"}, f'root is "srv/www": {ROOT}'),
        (SITE, {"root": "/srv/my site"}, f'root is "/srv/my site": {ROOT}'),
        (SITE, {"root": "/srv/$host"}, f'root is "/srv/$host": {ROOT}'),
        (
            SITE,
            {"index": "a/b.html"},
            'index is "a/b.html": it is no name of a file. Write for example "index.html".',
        ),
        (SITE, {"body_size": "1.5m"}, f'body_size is "1.5m": {SIZE}'),
        (SITE, {"body_size": "10mb"}, f'body_size is "10mb": {SIZE}'),
        (SITE, {"body_size": "-1"}, f'body_size is "-1": {SIZE}'),
        (SITE, {"rate": "10"}, f'rate is "10": {RATE}'),
        (SITE, {"rate": "0r/s"}, f'rate is "0r/s": {RATE}'),
        (SITE, {"rate": "10r/h"}, f'rate is "10r/h": {RATE}'),
        (SITE, {"burst": -1}, f"burst is -1: {REQUESTS}"),
        # Upstreams
        (
            APP,
            upstream(servers=[]),
            'upstream.servers is []: nobody would answer. Write for example ["127.0.0.1:3000"].',
        ),
        (APP, upstream(servers=["127.0.0.1"]), f'upstream.servers[0] is "127.0.0.1": {SERVER}'),
        (APP, upstream(servers=["a:1", "http://a:80"]), f'upstream.servers[1] is "http://a:80": {SERVER}'),
        (APP, upstream(servers=["a:0"]), f'upstream.servers[0] is "a:0": {SERVER}'),
        (APP, upstream(servers=["a:65536"]), f'upstream.servers[0] is "a:65536": {SERVER}'),
        (APP, upstream(servers=["unix:app.sock"]), f'upstream.servers[0] is "unix:app.sock": {SERVER}'),
        (APP, upstream(connect_timeout="0"), f'upstream.connect_timeout is "0": {WAIT}'),
        (APP, upstream(read_timeout="x"), f'upstream.read_timeout is "x": {WAIT}'),
        (APP, upstream(send_timeout="5 s"), f'upstream.send_timeout is "5 s": {WAIT}'),
        (
            APP,
            upstream(keepalive=0),
            "upstream.keepalive is 0: each request would open a connection of its own. Write 1 or more, such as 16.",
        ),
        (
            APP,
            {"immutable": ["/assets/"]},
            'immutable is ["/assets/"]: how long answers of an upstream are kept, the application says. '
            "Write it for a site with root or content.",
        ),
        (
            APP,
            {"single_page": True},
            "single_page is true: the upstream answers all paths. Write it for a site with root or content.",
        ),
        # Prefixes of files that never change
        (SITE, {"immutable": ["assets/"]}, f'immutable[0] is "assets/": {PREFIX}'),
        (SITE, {"immutable": ["/assets"]}, f'immutable[0] is "/assets": {PREFIX}'),
        (SITE, {"immutable": ["/"]}, f'immutable[0] is "/": {PREFIX}'),
        (SITE, {"immutable": ["= /a/"]}, f'immutable[0] is "= /a/": {PREFIX}'),
        (
            SITE,
            {"immutable": ["/a/", "/b/", "/a/"]},
            'immutable[2] is "/a/": the same prefix has another rule. Write it in one place.',
        ),
        (
            SITE,
            {"immutable": ["/a/"], **place()},
            'immutable[0] is "/a/": the same prefix has another rule. Write it in one place.',
        ),
        # Locations
        (SITE, place(path="api"), f'locations[0].path is "api": {PATH}'),
        (SITE, place(path="~ ^/a"), f'locations[0].path is "~ ^/a": {PATH}'),
        (SITE, place(path="/a b"), f'locations[0].path is "/a b": {PATH}'),
        (SITE, place(path="/a{"), f'locations[0].path is "/a{{": {PATH}'),
        (SITE, place(path="=/a"), f'locations[0].path is "=/a": {PATH}'),
        (
            SITE,
            {"locations": [{"path": "/a"}, {"path": "/b"}, {"path": "/a"}]},
            'locations[2].path is "/a": another location has the same path. Write one location with all of it.',
        ),
        (SITE, place(path="/"), f'locations[0].path is "/": {RESERVED}'),
        (SITE, place(path="= /"), f'locations[0].path is "= /": {RESERVED}'),
        (
            SITE,
            place(path="= /.well-known/csp-report"),
            f'locations[0].path is "= /.well-known/csp-report": {RESERVED}',
        ),
        (
            SITE,
            place(path="/.well-known/security.txt"),
            f'locations[0].path is "/.well-known/security.txt": {RESERVED}',
        ),
        (
            SITE,
            place(root="/srv/a", redirect="/b", status=404),
            'locations[0] is "/a/": it is to do root and redirect and status at once. '
            "Write one of them, or none to be served as the site is.",
        ),
        (
            SITE,
            place(upstream=SERVERS, root="/srv/a"),
            'locations[0] is "/a/": it is to do upstream and root at once. '
            "Write one of them, or none to be served as the site is.",
        ),
        (
            SITE,
            place(status=404, allow=["::1"], users={"me": "p"}),
            'locations[0] is "/a/": nginx sends a status before it looks at allow and users. Write one of the two.',
        ),
        (
            SITE,
            place(redirect="/b", rate="1r/s", body_size="1k"),
            'locations[0] is "/a/": nginx sends a redirect before it looks at rate and body_size. '
            "Write one of the two.",
        ),
        (SITE, place(upstream={"servers": ["a"]}), f'locations[0].upstream.servers[0] is "a": {SERVER}'),
        (SITE, place(root="a"), f'locations[0].root is "a": {ROOT}'),
        (SITE, place(redirect="new"), f'locations[0].redirect is "new": {TARGET}'),
        (SITE, place(redirect=""), f'locations[0].redirect is "": {TARGET}'),
        (SITE, place(redirect="/a;b"), f'locations[0].redirect is "/a;b": {TARGET}'),
        (SITE, place(redirect="ftp://a/b"), f'locations[0].redirect is "ftp://a/b": {TARGET}'),
        (SITE, place(redirect="/$uri"), f'locations[0].redirect is "/$uri": {TARGET}'),
        (SITE, place(status=0), "locations[0].status is 0: it is no HTTP status. Write for example 404."),
        (SITE, place(status=199), "locations[0].status is 199: it is no HTTP status. Write for example 404."),
        (SITE, place(status=600), "locations[0].status is 600: it is no HTTP status. Write for example 404."),
        (
            SITE,
            place(status=300),
            "locations[0].status is 300: a redirect needs a target. Write redirect, with the URL or path.",
        ),
        (
            SITE,
            place(status=399),
            "locations[0].status is 399: a redirect needs a target. Write redirect, with the URL or path.",
        ),
        (SITE, place(body_size="1 m"), f'locations[0].body_size is "1 m": {SIZE}'),
        (SITE, place(rate="fast"), f'locations[0].rate is "fast": {RATE}'),
        (SITE, place(burst=-5), f"locations[0].burst is -5: {REQUESTS}"),
        (
            SITE,
            place(allow=["10.0.0.0/8", "all"]),
            "locations[0].allow[1] is \"all\": it is no network ('all' does not appear to be an IPv4 or IPv6 network). "
            'Write for example "10.0.0.0/8" or "::1".',
        ),
        (
            SITE,
            place(users={"me:too": "p"}),
            'locations[0].users is "me:too": a line of the file of passwords cannot hold it. '
            "Write letters, digits and . _ @ -.",
        ),
        (
            SITE,
            {"users": {"me:too": "p"}},
            'users is "me:too": a line of the file of passwords cannot hold it. Write letters, digits and . _ @ -.',
        ),
        (
            SITE,
            place(open=True),
            "locations[0].open is true: nobody is asked for a password on this site. Write it for a site with users.",
        ),
        (
            SITE,
            {"users": {"me": "p"}, **place(open=True, users={"you": "p"})},
            "locations[0].open is true: it asks for users of its own. Write one of open and users.",
        ),
        # security.txt
        (
            SITE,
            {"security_txt": {"contact": [], "expires": SOON}},
            'security_txt.contact is []: it is what the file is for. Write for example ["mailto:security@…"].',
        ),
        (
            SITE,
            {"security_txt": {"contact": ["tel:1", "security@fushuma.com"], "expires": SOON}},
            'security_txt.contact[1] is "security@fushuma.com": a contact is a URI (RFC 9116 §2.5.3). '
            'Write for example "mailto:security@…".',
        ),
        (
            SITE,
            {"security_txt": {**SECURITY, "expires": SOON, "policy": "http://fushuma.com/policy"}},
            'security_txt.policy is "http://fushuma.com/policy": a policy is read over TLS (RFC 9116 §2.5.7). '
            "Write its https:// URL.",
        ),
        (
            SITE,
            {"security_txt": {**SECURITY, "expires": SOON, "languages": 'en"'}},
            'security_txt.languages is "en\\"": nginx cannot serve such a text. Write it without quotes and $.',
        ),
        (
            SITE,
            {"security_txt": {"contact": ["mailto:a$b"], "expires": SOON}},
            'security_txt.contact is ["mailto:a$b"]: nginx cannot serve such a text. Write it without quotes and $.',
        ),
    ],
)
def test_sites_that_cannot_work(site: dict[str, Any], more: dict[str, Any], sentence: str) -> None:
    assert said_of(site, **more) == [sentence]


@pytest.mark.parametrize(
    ("expires", "why"),
    [
        ("2020-01-01T00:00:00Z", "it has passed, so nobody may trust the file"),
        ("2099-01-01T00:00:00Z", "RFC 9116 §2.5.5 recommends less than a year"),
        ("2027-01-01", "it is no time with a zone (RFC 3339)"),
        ("2027-01-01T00:00:00", "it is no time with a zone (RFC 3339)"),
        ("next year", "it is no time with a zone (RFC 3339)"),
    ],
)
def test_a_security_txt_ends_within_a_year(expires: str, why: str) -> None:
    (sentence,) = said_of(SITE, security_txt={**SECURITY, "expires": expires})
    form = re.fullmatch(
        rf'security_txt\.expires is "{expires}": {re.escape(why)}\. Write for example "(.*)"\.', sentence
    )
    assert form
    assert said_of(SITE, security_txt={**SECURITY, "expires": form[1]}) == []


# --- content ---------------------------------------------------------------------------------------------------------


def test_content_has_to_be_there(tmp_path: Path) -> None:
    site = {"name": "www.fushuma.com", "content": str(tmp_path / "dist")}
    missing = "there is no such folder on the controller. Write the absolute path of the built files."
    assert said_of(site) == [f'content is "{tmp_path}/dist": {missing}']
    (tmp_path / "dist").touch()
    assert said_of(site) == [f'content is "{tmp_path}/dist": {missing}']
    (tmp_path / "dist").unlink()
    (tmp_path / "dist").mkdir()
    assert said_of(site) == [
        f'content is "{tmp_path}/dist": it holds no index.html. Write the folder of the built files.'
    ]
    assert said_of(site, content="plugins") == [f'content is "plugins": {missing}']


def test_content_is_not_large(tmp_path: Path) -> None:
    (tmp_path / "index.html").touch()
    (tmp_path / "assets").mkdir()
    with (tmp_path / "assets" / "film").open("wb") as film:
        film.truncate(8 << 20)
    site = {"name": "www.fushuma.com", "content": str(tmp_path)}
    assert said_of(site) == []
    (tmp_path / "one more").write_bytes(b"x")
    assert said_of(site) == [
        f'content is "{tmp_path}": its 8 MiB would travel with every run. '
        "Write root, and have a deployment fill that folder."
    ]


# --- certificates ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair() -> dict[str, str]:
    one = made(["www.fushuma.com", "fushuma.com"])
    return {"chain": one.chain, "key": one.key}


def test_own_certificates(pair: dict[str, str]) -> None:
    own_files = {"certificate": {"source": "files", **pair}}
    assert said_of(SITE, aliases=["fushuma.com"], **own_files) == []
    assert said_of(SITE, name="shop.fushuma.com", **own_files) == [
        'certificate.chain is "CN=www.fushuma.com": it is for www.fushuma.com, fushuma.com and not for '
        "shop.fushuma.com. Write a certificate for all names of the site."
    ]
    form = "source is files. Write it in PEM form, the key from a vault."
    assert said_of(SITE, certificate={"source": "files", "chain": pair["chain"]}) == [
        f"certificate.key is missing: {form}"
    ]
    assert said_of(SITE, certificate={"source": "files"}) == [
        f"certificate.chain is missing: {form}",
        f"certificate.key is missing: {form}",
    ]


@pytest.mark.parametrize("source", ["acme", "selfsigned"])
def test_files_that_nobody_reads(source: str, pair: dict[str, str]) -> None:
    why = f"source is {source}, so nobody reads it. Write source files, or leave it away."
    assert said_of(SITE, certificate={"source": source, **pair}) == [
        f"certificate.chain is given: {why}",
        f"certificate.key is given: {why}",
    ]


@pytest.mark.parametrize(
    "name",
    [
        "localhost",
        "web",
        "web.local",
        "a.internal",
        "a.test",
        "a.invalid",
        "a.example",
        "www.example.com",
        "a.home.arpa",
    ],
)
def test_no_public_authority_certifies_private_names(name: str) -> None:
    assert said_of(SITE, aliases=[name]) == [
        f'certificate.source is "acme": no public authority certifies {name}. '
        "Write a name that the world's DNS knows, or another source: selfsigned or files."
    ]
    private = {"directory": "https://ca.internal/directory", "ca_bundle": "/etc/ssl/ca.pem"}
    assert said(nginx_sites=[{**SITE, "aliases": [name]}], nginx_acme=private) == []


@pytest.mark.parametrize("name", ["testing.com", "my-example.com", "notlocal.de", "a.localhost.de"])
def test_public_names_that_look_like_private_ones(name: str) -> None:
    assert said_of(SITE, aliases=[name]) == []


# --- Content-Security-Policy -----------------------------------------------------------------------------------------


def csp(**options: Any) -> dict[str, Any]:
    return {"csp": options}


STYLE = {"directive": "style-src", "source": "'unsafe-inline'", "reason": "charts", "owner": "front end"}
INLINE = {"style-src": ["'self'", "'unsafe-inline'"]}


@pytest.mark.parametrize(
    "options",
    [
        {"policy": {"img-src": ["'self'", "https://images.fushuma.com"]}},
        {"policy": INLINE, "waivers": [{**STYLE, "expires": "2099-12-31"}]},
        {"policy": NONCE, "nonce_placeholder": PLACEHOLDER},
        {"policy": NONCE, "nonce_placeholder": PLACEHOLDER[:16]},
        {"report_only": NONCE, "nonce_placeholder": PLACEHOLDER},
        {"report_only": {"require-trusted-types-for": ["'script'"]}},
        {"report_only": {"style-src": ["'self'", "'unsafe-inline'"]}},
        {"report": False},
    ],
)
def test_policies_that_work(options: dict[str, Any]) -> None:
    assert said_of(SITE, **csp(**options)) == []


def starts(found: list[str]) -> list[str]:
    """The settings that problems are about."""
    return [one.split(" is ")[0] for one in found]


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({"policy": {"script-src": ["'unsafe-inline'"]}}, ["csp.policy.script-src[0]"]),
        ({"policy": {"script-source": ["'self'"]}}, ["csp.policy.script-source"]),
        ({"policy": INLINE, "waivers": [{**STYLE, "expires": "2020-01-01"}]}, ["csp.waivers[0].expires"]),
        ({"policy": INLINE, "waivers": [{**STYLE, "expires": "soon"}]}, ["csp.waivers[0].expires"]),
        ({"waivers": [{**STYLE, "expires": "2099-12-31"}]}, ["csp.waivers[0]"]),
        ({"report_only": {"script-source": []}}, ["csp.report_only.script-source"]),
        ({"report_only": {"img-src": ["*"]}, "report": False}, ["csp.report_only.report-uri"]),
        ({"policy": NONCE}, ["csp.nonce_placeholder"]),
        ({"report_only": NONCE}, ["csp.nonce_placeholder"]),
        ({"nonce_placeholder": PLACEHOLDER}, ["csp.nonce_placeholder"]),
        # What has the wrong shape cannot be merged, so nothing more is said of it.
        ({"policy": {"script-src": "'self'"}}, ["csp.policy.script-src"]),
        (
            {"policy": {"script-src": [1]}, "report_only": {"img-src": None}},
            ["csp.policy.script-src[0]", "csp.report_only.img-src"],
        ),
    ],
)
def test_policies_that_cannot_work(options: dict[str, Any], settings: list[str]) -> None:
    assert starts(said_of(SITE, **csp(**options))) == settings


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"policy": NONCE},
            "csp.nonce_placeholder is missing: a policy asks for 'nonce', and nobody writes nonces into the pages. "
            "Write the random text the application writes where nonces belong.",
        ),
        (
            {"nonce_placeholder": PLACEHOLDER},
            "csp.nonce_placeholder is a secret of 18 characters: no directive of the policy asks for 'nonce'. "
            "Write \"'nonce'\" in script-src, or no placeholder.",
        ),
        (
            {"policy": NONCE, "nonce_placeholder": PLACEHOLDER[:15]},
            "csp.nonce_placeholder is a secret of 15 characters: whoever guesses it can have a script blessed. "
            "Write at least 16 random letters, digits, - and _, new in each build.",
        ),
        (
            {"policy": NONCE, "nonce_placeholder": f"{PLACEHOLDER}'"},
            "csp.nonce_placeholder is a secret of 19 characters: whoever guesses it can have a script blessed. "
            "Write at least 16 random letters, digits, - and _, new in each build.",
        ),
    ],
)
def test_nonces(options: dict[str, Any], sentence: str) -> None:
    assert said_of(SITE, **csp(**options)) == [sentence]


def test_a_common_policy_of_wrong_shape_is_told_once() -> None:
    sites = [{**SITE, "name": f"{name}.fushuma.com", **csp(policy={"img-src": "*"})} for name in "ab"]
    assert starts(said(nginx_csp={"font-src": "*"}, nginx_sites=sites)) == [
        "nginx_csp.font-src",
        "nginx_sites[0].csp.policy.img-src",
        "nginx_sites[1].csp.policy.img-src",
    ]


# --- built pages -----------------------------------------------------------------------------------------------------


def test_inline_parts_of_pages_are_allowed_by_hash(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<script>start()</script><style>p {}</style>", "utf-8")
    assert said_of({"name": "www.fushuma.com", "content": str(tmp_path)}) == []
    assert said_of(APP, **csp(html=[str(tmp_path)])) == []
    assert said_of(APP, **csp(html=[str(tmp_path / "index.html")])) == []


def test_what_no_hash_allows_is_named_with_its_page_and_line(tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    page.write_text("<p>\n<b onclick='x()'>", "utf-8")
    assert said_of(APP, **csp(html=[str(tmp_path)])) == [
        f"csp of {page}, line 2 is blocked: <b> has the inline event handler onclick. "
        "Write it so: Call addEventListener in a script instead."
    ]


@pytest.mark.parametrize("suffix", ["html", "htm", "shtml"])
def test_a_page_has_to_be_utf8(tmp_path: Path, suffix: str) -> None:
    page = tmp_path / f"old.{suffix}"
    page.write_bytes(b"<p>f\xfcr")
    (tmp_path / "index.html").touch()
    sentence = (
        f'csp.html is "{page}": it is no UTF-8 (invalid start byte at byte 4), and nginx would say that it is. '
        "Write the page in UTF-8."
    )
    assert said_of({"name": "www.fushuma.com", "content": str(tmp_path)}) == [sentence]
    assert said_of(APP, **csp(html=[str(page)])) == [sentence]


def test_a_page_has_to_be_there(tmp_path: Path) -> None:
    (tmp_path / "index.html").touch()
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "dangling.html").symlink_to("nowhere")
    (tmp_path / "image.png").write_bytes(b"\xff")
    assert said_of(APP, **csp(html=[str(tmp_path)])) == []
    missing = str(tmp_path / "missing.html")
    assert said_of(APP, **csp(html=[str(tmp_path), missing])) == [
        f'csp.html is "{missing}": the controller cannot read it (No such file or directory). '
        "Write the path of built HTML."
    ]


def test_a_page_that_cannot_be_read_hides_no_other_problem(tmp_path: Path) -> None:
    found = said_of(APP, **csp(html=[str(tmp_path / "missing.html")], policy=NONCE))
    assert starts(found) == ["csp.html", "csp.nonce_placeholder"]


def scripts(folder: Path, number: int) -> str:
    (folder / "index.html").write_text("".join(f"<script>start({one})</script>" for one in range(number)), "utf-8")
    return str(folder)


def test_a_policy_longer_than_nginx_can_read(tmp_path: Path) -> None:
    assert said_of(APP, **csp(html=[scripts(tmp_path, 60)])) == []
    found = said_of(APP, **csp(html=[scripts(tmp_path, 80)], report_only={"img-src": ["*"]}))
    assert starts(found) == ["csp.policy", "csp.report_only"]
    assert re.fullmatch(
        r"csp\.policy is a header of \d{4} characters: nginx takes 4000 in one text of its configuration\. "
        r"Write fewer hashes: move inline scripts and styles into files\.",
        found[0],
    )
    # Without a placeholder there is no header that could be measured.
    html = [str(tmp_path)]
    assert starts(said_of(APP, **csp(html=html, policy=NONCE))) == ["csp.nonce_placeholder"]
    found = said_of(APP, **csp(html=html, policy=NONCE, nonce_placeholder=PLACEHOLDER))
    assert starts(found) == ["csp.policy"]


# --- forms -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 99), min_size=6, max_size=6), st.sets(st.integers(0, 5), min_size=1))
def test_durations_have_their_units_in_falling_order(numbers: list[int], chosen: set[int]) -> None:
    units = ["w", "d", "h", "m", "s", "ms"]
    parts = [f"{numbers[one]}{units[one]}" for one in sorted(chosen)]
    assert nginx.DURATION.fullmatch("".join(parts))
    if len(parts) > 1:
        assert not nginx.DURATION.fullmatch("".join(reversed(parts)))


@given(st.text(max_size=20))
def test_what_is_let_into_a_header_stays_in_its_string(value: str) -> None:
    if nginx.HEADER_VALUE.fullmatch(value):
        assert value.isascii()
        assert value.isprintable()
        assert not {"$", "\\"} & set(value)


# --- applications ----------------------------------------------------------------------------------------------------

SHOP: dict[str, Any] = {"name": "www.fushuma.com", "upstream": {"application": "shop.web"}}


def test_an_application_in_place_of_servers() -> None:
    place = {"path": "/api/", "upstream": {"application": "shop-2.api"}}
    assert said(nginx_sites=[{**SHOP, "locations": [place]}], nginx_app_hosts=["app1"]) == []


@pytest.mark.parametrize(
    ("upstream", "problem"),
    [
        ({}, 'upstream.servers is []: nobody would answer. Write for example ["127.0.0.1:3000"].'),
        (
            {**SERVERS, "application": "shop.web"},
            'upstream.servers is ["127.0.0.1:3000"]: each deployment of the application says which servers answer. '
            "Write servers or application, not both.",
        ),
        (
            {"application": "shop"},
            'upstream.application is "shop": it is no process of an application. '
            'Write NAME.PROCESS, for example "shop.web".',
        ),
        (
            {"application": "../shop.web"},
            'upstream.application is "../shop.web": it is no process of an application. '
            'Write NAME.PROCESS, for example "shop.web".',
        ),
    ],
)
def test_upstreams_that_are_no_application(upstream: dict[str, Any], problem: str) -> None:
    assert said(nginx_sites=[{**SHOP, "upstream": upstream}], nginx_app_hosts=["app1"]) == [f"nginx_sites[0].{problem}"]


def test_an_application_needs_a_host() -> None:
    site = {**SHOP, "locations": [{"path": "/api/", "upstream": {"application": "shop.api"}}]}
    homeless = "no host is in the group app. Write servers, or put a host there."
    assert said(nginx_sites=[site]) == [
        f'nginx_sites[0].locations[0].upstream.application is "shop.api": {homeless}',
        f'nginx_sites[0].upstream.application is "shop.web": {homeless}',
    ]
