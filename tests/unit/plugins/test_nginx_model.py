# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the nginx role's templates are given: headers with one owner, policies with hashes of pages, names and ports."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.plugin_utils import csp, specs
from ansible_collections.fushuma.production.plugins.plugin_utils import nginx_model as model
from hypothesis import given
from hypothesis import strategies as st

SITE: dict[str, Any] = {"name": "www.fushuma.com", "root": "/srv/www"}
SERVERS = {"servers": ["127.0.0.1:3000"]}
PLACEHOLDER = "Zk7vQ2mXb9Lr4TnYc3"


def filled(**settings: Any) -> dict[str, Any]:
    return specs.filled(specs.role_options("nginx"), settings)


def modelled(*sites: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return model.model(filled(nginx_sites=list(sites), **settings))


def site(**options: Any) -> dict[str, Any]:
    """One site as the templates see it."""
    found: dict[str, Any] = modelled({**SITE, **options})["sites"][0]
    return found


def headers(common: dict[str, Any] | None = None, **options: Any) -> dict[str, str]:
    """The headers of one site."""
    settings = {} if common is None else {"nginx_headers": common}
    found = modelled({**SITE, **options}, **settings)["sites"][0]["headers"]
    assert len({name.lower() for name, _value in found}) == len(found)
    return dict(found)


# --- headers ---------------------------------------------------------------------------------------------------------


def test_the_set_of_headers_without_any_settings() -> None:
    assert list(headers()) == [
        "Content-Security-Policy",
        "Reporting-Endpoints",
        "Strict-Transport-Security",
        "X-Content-Type-Options",
        "X-Frame-Options",
        "Referrer-Policy",
        "Permissions-Policy",
        "Cross-Origin-Opener-Policy",
        "Cross-Origin-Resource-Policy",
    ]


@pytest.mark.parametrize(
    ("own", "found"),
    [
        ({}, {"X-A": "1", "X-B": "2"}),
        ({"X-C": 3}, {"X-A": "1", "X-B": "2", "X-C": "3"}),
        ({"X-A": "own"}, {"X-A": "own", "X-B": "2"}),
        ({"x-a": "own"}, {"x-a": "own", "X-B": "2"}),
        ({"X-A": ""}, {"X-B": "2"}),
        ({"x-a": None, "X-B": "0"}, {"X-B": "0"}),
        ({"X-B": 0}, {"X-A": "1", "X-B": "0"}),
    ],
)
def test_a_sites_headers_replace_the_common_ones(own: dict[str, Any], found: dict[str, str]) -> None:
    fixed = ("Content-Security-Policy", "Reporting-Endpoints", "Strict-Transport-Security")
    mine = headers({"X-A": "1", "X-B": 2, "X-None": None}, headers=own)
    assert {name: value for name, value in mine.items() if name not in fixed} == found


@given(
    st.dictionaries(st.sampled_from(["X-A", "x-a", "X-B", "X-b"]), st.sampled_from(["1", "", None]), max_size=4),
    st.dictionaries(st.sampled_from(["X-A", "x-A", "x-b", "X-C"]), st.sampled_from(["2", "", None]), max_size=4),
)
def test_no_header_comes_twice(common: dict[str, Any], own: dict[str, Any]) -> None:
    found = headers(common, headers=own)
    lower = {name.lower(): value for each in (common, own) for name, value in each.items()}
    assert {name.lower() for name in found if name.lower().startswith("x-")} == {
        n for n, value in lower.items() if value
    }


@pytest.mark.parametrize(
    ("options", "header"),
    [
        ({}, "max-age=63072000; includeSubDomains"),
        ({"max_age": 0, "include_subdomains": False}, "max-age=0"),
        ({"preload": True}, "max-age=63072000; includeSubDomains; preload"),
    ],
)
def test_hsts(options: dict[str, Any], header: str) -> None:
    assert modelled(SITE, nginx_hsts=options)["hsts"] == header


def test_whatever_is_sent_or_known_to_be_sent_by_frameworks_is_hidden_once() -> None:
    hidden = modelled({**SITE, "headers": {"x-frame-options": "DENY", "X-Own": "1"}})["hidden_headers"]
    assert hidden == sorted(hidden)
    assert len({name.lower() for name in hidden}) == len(hidden)
    assert {"X-Own", "X-Powered-By", "Content-Security-Policy", "Reporting-Endpoints"} <= set(hidden)


# --- policies --------------------------------------------------------------------------------------------------------


def policy(name: str = "Content-Security-Policy", **options: Any) -> csp.Policy:
    return csp.parse(headers(**options)[name])


def test_a_sites_directives_replace_the_common_ones() -> None:
    found = policy(csp={"policy": {"img-src": ["https:"], "sandbox": []}})
    assert found["img-src"] == ["https:"]
    assert found["sandbox"] == []
    assert found["script-src"] == ["'self'"]
    assert found["report-uri"] == ["/.well-known/csp-report"]
    assert found["report-to"] == ["csp"]


def test_without_reports() -> None:
    found = headers(csp={"report": False})
    assert "Reporting-Endpoints" not in found
    assert not {"report-uri", "report-to"} & set(csp.parse(found["Content-Security-Policy"]))


def test_the_reported_policy_is_the_enforced_one_with_changes(tmp_path: Path) -> None:
    assert "Content-Security-Policy-Report-Only" not in headers()
    (tmp_path / "a.html").write_text("<script>a()</script>", "utf-8")
    options = {"html": [str(tmp_path)], "report_only": {"script-src": ["'strict-dynamic'"]}}
    enforced = policy(csp=options)
    reported = policy("Content-Security-Policy-Report-Only", csp=options)
    (hashed,) = csp.hashes("<script>a()</script>").script_src
    assert enforced["script-src"] == ["'self'", hashed]
    assert reported["script-src"] == ["'strict-dynamic'", hashed]
    assert {**enforced, "script-src": []} == {**reported, "script-src": []}


def test_a_nonce_is_new_in_each_response() -> None:
    asked = {"policy": {"script-src": ["'nonce'"]}, "report_only": {"style-src": ["'nonce'"]}}
    found = headers(csp={**asked, "nonce_placeholder": PLACEHOLDER})
    assert "script-src 'nonce-$request_id';" in found["Content-Security-Policy"]
    assert "style-src 'nonce-$request_id';" in found["Content-Security-Policy-Report-Only"]
    with pytest.raises(ValueError, match="no value that is new in every response"):
        headers(csp=asked)


def test_pages_come_from_content_and_from_named_files_and_folders(tmp_path: Path) -> None:
    for name in ("content/index.html", "content/a/b.htm", "content/c.txt", "more/d.shtml", "more/e.HTML", "one.xyz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"<script>{name}</script><style>{name}</style>", "utf-8")
    (tmp_path / "content" / "folder.html").mkdir()
    html = [str(tmp_path / "one.xyz"), str(tmp_path / "more")]
    settings = filled(nginx_sites=[{**SITE, "content": str(tmp_path / "content"), "csp": {"html": html}}])
    pages = model.html_files(settings["nginx_sites"][0])
    assert [str(page.relative_to(tmp_path)) for page in pages] == [
        "one.xyz",
        "more/d.shtml",
        "content/a/b.htm",
        "content/index.html",
    ]
    found = model.site_policy(settings, settings["nginx_sites"][0])
    assert len(found["script-src"]) == len(found["style-src"]) == 1 + len(pages)


def test_a_page_is_read_anew_when_it_has_changed(tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    page.write_text("<script>a</script>", "utf-8")
    before = model.page(page)
    assert model.page(page) is before
    page.write_text("<script>more</script>", "utf-8")
    assert model.page(page).script_src != before.script_src


# --- names, folders, ports -------------------------------------------------------------------------------------------


def test_where_a_site_lies(tmp_path: Path) -> None:
    (tmp_path / "index.html").touch()
    assert site()["root"] == "/srv/www"
    assert site(root=None, content=str(tmp_path))["root"] == "/var/www/www.fushuma.com"
    assert site(root=None, upstream=SERVERS)["root"] is None
    assert site(aliases=["fushuma.com"])["names"] == ["www.fushuma.com", "fushuma.com"]
    assert site()["certificate_folder"] == "/etc/nginx/certificates/www.fushuma.com"


def test_zones_and_upstreams_have_names_of_their_own() -> None:
    places = [{"path": "/a", "rate": "1r/s"}, {"path": "/b", "upstream": SERVERS}, {"path": "/c"}]
    found = modelled(
        {**SITE, "root": None, "upstream": SERVERS, "rate": "9r/s", "locations": places},
        {"name": "b.com", "root": "/b", "rate": "2r/s", "locations": places[:1]},
    )
    one, other = (each["key"] for each in found["sites"])
    assert re.fullmatch(r"site_[0-9a-f]{10}", one)
    assert [(zone["key"], zone["rate"]) for zone in found["zones"]] == [
        (one, "9r/s"),
        (f"{one}_0", "1r/s"),
        (other, "2r/s"),
        (f"{other}_0", "1r/s"),
    ]
    assert [upstream["key"] for upstream in found["upstreams"]] == [one, f"{one}_1"]
    assert found["upstreams"][0]["keepalive"] == 16
    assert modelled(SITE)["sites"][0]["key"] == one


def test_who_is_asked_for_a_password() -> None:
    places = [{"path": "/a", "users": {"me": "p"}}, {"path": "/b"}]
    assert [place["path"] for place in modelled({**SITE, "locations": places})["guarded"]] == ["/a"]


@pytest.mark.parametrize(
    ("options", "module"),
    [
        ({}, "http"),
        ({"users": {"a": "secret"}}, "http_login"),
        ({"users": {"a": "secret"}, "locations": [{"path": "/", "open": True}]}, "http"),
        ({"users": {"a": "secret"}, "locations": [{"path": "/", "redirect": "/shop/"}]}, "http"),
        ({"locations": [{"path": "/", "users": {"a": "secret"}}]}, "http_login"),
        ({"locations": [{"path": "/admin/", "users": {"a": "secret"}}]}, "http"),
    ],
)
def test_a_site_with_users_has_to_ask_for_them(options: dict[str, Any], module: str) -> None:
    assert [one["module"] for one in modelled({**SITE, **options})["probes"]] == [module]


@pytest.mark.parametrize(
    ("options", "hides"),
    [
        ({"upstream": SERVERS, "root": None}, True),
        ({"upstream": SERVERS, "root": None, "locations": [{"path": "= /metrics"}]}, True),
        ({"upstream": SERVERS, "root": None, "locations": [{"path": "/metrics"}]}, False),
        ({"upstream": SERVERS, "root": None, "locations": [{"path": "/metrics/"}]}, False),
        ({"upstream": SERVERS, "root": None, "locations": [{"path": "/metrics/own"}]}, True),
        ({}, False),
    ],
)
def test_an_applications_figures_are_hidden(options: dict[str, Any], hides: bool) -> None:
    assert site(**options)["hides_metrics"] is hides


def test_certificates() -> None:
    found = modelled(
        {"name": "acme.com", "root": "/a", "aliases": ["www.acme.com"]},
        {"name": "files.com", "root": "/b", "certificate": {"source": "files", "chain": "c", "key": "k"}},
        {"name": "self.com", "root": "/c", "certificate": {"source": "selfsigned"}},
    )
    folder = "/etc/nginx/certificates"
    names = ["acme.com", "www.acme.com"]
    assert found["placeholders"] == [
        {"name": "acme.com", "names": names, "folder": f"{folder}/acme.com", "acme": True},
        {"name": "self.com", "names": ["self.com"], "folder": f"{folder}/self.com", "acme": False},
    ]
    assert found["fetched"] == [{"name": "acme.com", "names": names, "folder": f"{folder}/acme.com"}]
    assert found["acme"]["renew_at"] == 0.66


def test_ports() -> None:
    found = modelled(nginx_http_port=81, nginx_listen_addresses=["192.0.2.7", "[::]"], nginx_status_port=9000)[
        "listens"
    ]
    assert [(one["setting"], one["address"], one["port"], one["from"]) for one in found] == [
        ("nginx_http_port", "192.0.2.7", 81, "world"),
        ("nginx_http_port", "::", 81, "world"),
        ("nginx_https_port", "192.0.2.7", 443, "world"),
        ("nginx_https_port", "::", 443, "world"),
        ("nginx_status_port", "127.0.0.1", 9000, "host"),
    ]


@pytest.mark.parametrize("hosts", [[], ["app1"], ["app1", "app2"]])
def test_where_an_applications_releases_are_told_of(hosts: list[str]) -> None:
    shop = {"name": "b.com", "upstream": {"application": "shop.web"}}
    found = modelled({**SITE, "root": None, "upstream": SERVERS}, shop, nginx_app_hosts=hosts)
    plain, application = found["upstreams"]
    assert found["releases"] is bool(hosts)
    assert plain["releases"] == []
    assert application["releases"] == [
        {"key": f"{application['key']}_on{number}", "folder": f"{model.APPLICATIONS}/shop.web.{host}"}
        for number, host in enumerate(hosts)
    ]
    assert modelled(SITE, nginx_app_hosts=hosts)["releases"] is False
