# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the nginx role writes, rendered as the role does it, on Debian 12 and 13. nginx itself is asked elsewhere."""

from __future__ import annotations

import datetime
import json
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible_collections.fushuma.production.plugins.plugin_utils import judging, nginx, specs
from ansible_collections.fushuma.production.plugins.plugin_utils.rendering import expanded

from ..plugins.certificates import made
from .nginx_config import Directive, headers_of, parsed, with_includes
from .render import Role, templar

OPTIONS = specs.role_options("nginx")
RELEASES = ("12", "13")
PLACEHOLDER = "Zk7vQ2mXb9Lr4TnYc3"
PASSWORD = "kq-Vb83nXw0pLz7m"
SERVERS = {"servers": ["127.0.0.1:3000"]}
STATIC: dict[str, Any] = {"name": "www.fushuma.com", "root": "/srv/www", "certificate": {"source": "selfsigned"}}
APP: dict[str, Any] = {"name": "app.fushuma.com", "upstream": SERVERS, "certificate": {"source": "selfsigned"}}
EXPIRES = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=90)).strftime("%Y-%m-%dT00:00:00Z")
FULL_SET = {
    "Content-Security-Policy",
    "Reporting-Endpoints",
    "Strict-Transport-Security",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "Referrer-Policy",
    "Permissions-Policy",
    "Cross-Origin-Opener-Policy",
    "Cross-Origin-Resource-Policy",
}


def role(*sites: dict[str, Any], release: str = "13", **settings: Any) -> Role:
    return Role("nginx", {"nginx_sites": list(sites), **settings}, release)


def http(role: Role) -> Directive:
    """The ``http`` block of nginx.conf."""
    (block,) = parsed(role.files["/etc/nginx/nginx.conf"]).blocks("http")
    return block


def site_file(role: Role, name: str) -> Directive:
    """The file of one site with the role's own includes in their places."""
    return with_includes(parsed(role.files[f"/etc/nginx/sites/{name}.conf"]), role.files)


def server(site: dict[str, Any], **settings: Any) -> Directive:
    """The ``server`` block under which a site alone on its host answers over TLS."""
    return site_file(role(site, **settings), site["name"]).blocks("server")[-1]


def location(server: Directive, path: str) -> Directive:
    """The location written with this path."""
    (found,) = [one for one in server.blocks("location") if " ".join(one.words[1:]) == path]
    return found


# --- every option away from its default ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built files with an inline script, one of a nonce, and a file that is no text."""
    folder = tmp_path_factory.mktemp("built")
    for name in ("content", "pages"):
        (folder / name).mkdir()
        (folder / name / "home.html").write_text(f"<script>{name}()</script>", "utf-8")
    (folder / "content" / "logo.png").write_bytes("für".encode())
    return folder


@cache
def own_certificate() -> dict[str, str]:
    pair = made(["all.fushuma.com", "fushuma.com"])
    return {"source": "files", "chain": pair.chain, "key": pair.key}


def everything(built: Path) -> dict[str, Any]:
    """Settings with every option of the spec away from its default."""
    upstream = {
        "servers": ["127.0.0.1:3000", "[::1]:3000", "unix:/run/app.sock"],
        "balance": "least_conn",
        "keepalive": 8,
        "websocket": True,
        "connect_timeout": "2s",
        "read_timeout": "5m",
        "send_timeout": "10s",
    }
    waiver = {"directive": "style-src", "source": "'unsafe-inline'", "reason": "charts", "owner": "web team"}
    return {
        "nginx_sites": [
            {
                "name": "all.fushuma.com",
                "aliases": ["fushuma.com"],
                "certificate": {**own_certificate()},
                "root": "/srv/all",
                "index": "home.html",
                "single_page": True,
                "immutable": ["/assets/"],
                "locations": [
                    {"path": "/api/", "upstream": upstream, "rate": "10r/s", "burst": 5, "body_size": "2m"},
                    {"path": "/docs/", "root": "/srv/docs", "allow": ["10.0.0.0/8"], "users": {"me": PASSWORD}},
                    {"path": "/old", "redirect": "/new"},
                    {"path": "= /gone", "status": 410},
                ],
                "body_size": "5m",
                "rate": "50r/s",
                "burst": 7,
                "headers": {
                    "X-Frame-Options": "",
                    "Permissions-Policy": 'geolocation=(self "https://maps.fushuma.com")',
                },
                "csp": {
                    "policy": {
                        "script-src": ["'nonce'", "'strict-dynamic'"],
                        "style-src": ["'self'", "'unsafe-inline'"],
                    },
                    "html": [str(built / "pages")],
                    "nonce_placeholder": PLACEHOLDER,
                    "report_only": {"require-trusted-types-for": ["'script'"]},
                    "waivers": [{**waiver, "expires": "2099-12-31"}],
                },
                "security_txt": {
                    "contact": ["mailto:security@fushuma.com", "https://fushuma.com/security"],
                    "expires": EXPIRES,
                    "policy": "https://fushuma.com/disclosure",
                    "languages": "en, de",
                },
            },
            {
                "name": "built.fushuma.com",
                "certificate": {"source": "selfsigned"},
                "content": str(built / "content"),
                "index": "home.html",
                "csp": {"report": False},
            },
            {
                "name": "app.fushuma.com",
                "upstream": upstream,
                "users": {"me": PASSWORD},
                "locations": [{"path": "= /ready", "open": True}],
            },
            {
                "name": "shop.fushuma.com",
                "upstream": {"application": "shop.web"},
                "locations": [{"path": "/socket/", "upstream": {"application": "shop.socket", "websocket": True}}],
            },
        ],
        "nginx_csp": {
            "default-src": ["'none'"],
            "script-src": ["'self'"],
            "base-uri": ["'none'"],
            "form-action": ["'none'"],
            "frame-ancestors": ["'self'"],
        },
        "nginx_headers": {"X-Content-Type-Options": "nosniff", "X-Frame-Options": "SAMEORIGIN", "X-Own": "1"},
        "nginx_hsts": {"max_age": 31536000, "include_subdomains": False, "preload": False},
        "nginx_tls_profile": "modern",
        "nginx_listen_addresses": ["192.0.2.7"],
        "nginx_http_port": 8080,
        "nginx_https_port": 8443,
        "nginx_public_https_port": 9443,
        "nginx_probe_address": "192.0.2.7:8443",
        "nginx_status_port": 9000,
        "nginx_trusted_proxies": ["10.0.0.0/8", "2001:db8::/32"],
        "nginx_worker_connections": 1024,
        "nginx_app_hosts": ["app1", "app2"],
        "nginx_shutdown_timeout": 60,
        "nginx_client_timeout": "10s",
        "nginx_keepalive_timeout": "15s",
        "nginx_acme": {
            "email": "ops@fushuma.com",
            "directory": "https://ca.fushuma.com/directory",
            "ca_bundle": "/etc/ssl/own.pem",
            "renew_at": 0.5,
        },
    }


Path_ = tuple[str, ...]


def leaves(options: specs.Options, above: Path_ = ()) -> Iterator[Path_]:
    """Every option of a spec that is no group of others, by its path."""
    for name, option in options.items():
        if option.get("options"):
            yield from leaves(option["options"], (*above, name))
        else:
            yield (*above, name)


def holders(settings: Any, path: Path_) -> list[dict[str, Any]]:
    """Every group in the settings that gives the option."""
    if isinstance(settings, list):
        return [found for one in settings for found in holders(one, path)]
    if not isinstance(settings, dict) or path[0] not in settings:
        return []
    return [settings] if len(path) == 1 else holders(settings[path[0]], path[1:])


def spec_of(path: Path_) -> dict[str, Any]:
    """What the spec says of an option."""
    option: dict[str, Any] = {"options": OPTIONS}
    for name in path:
        option = option["options"][name]
    return option


LEAVES = sorted(leaves(OPTIONS))
# Both values of HSTS's preload cannot stand beside the others, so it is the only one that is tried on its own.
ALONE: dict[Path_, Any] = {("nginx_hsts", "preload"): True}
# What stands in the place of a value that has no default.
OTHERS: dict[Path_, Any] = {
    ("nginx_sites", "name"): "other.fushuma.com",
    ("nginx_sites", "locations", "path"): "/other/",
    ("nginx_sites", "csp", "waivers", "directive"): "script-src",
    ("nginx_sites", "csp", "waivers", "source"): "'unsafe-eval'",
    ("nginx_sites", "csp", "waivers", "reason"): " ",
    ("nginx_sites", "csp", "waivers", "owner"): " ",
    ("nginx_sites", "csp", "waivers", "expires"): "2020-01-01",
    ("nginx_sites", "security_txt", "contact"): ["mailto:other@fushuma.com"],
    ("nginx_sites", "security_txt", "expires"): "2099-01-01T00:00:00Z",
}


def outcome(settings: dict[str, Any]) -> tuple[object, ...]:
    """All that reaches the host or other roles: files, what the tasks are given, exports; and what is said of waivers.

    Directories are named as the host gets them: their declarations carry whole sites, of which nobody may read a part.
    """
    one = Role("nginx", settings)
    tasks = [(module, dict(given)) for module, given in one.tasks]
    for _module, given in tasks:
        if "directories" in given:
            given["directories"] = [folder["path"] for folder in directories(given)]
    waivers = [problem for problem in nginx.problems(specs.filled(OPTIONS, settings)) if ".waivers" in problem.setting]
    return one.files, tasks, one.exports, waivers


def directories(given: dict[str, Any]) -> list[dict[str, Any]]:
    """The directories a task of service_config asks for, one by one."""
    return [folder for spec in given["directories"] for folder, _item in expanded(spec, "path")]


def test_these_settings_are_accepted(built: Path) -> None:
    host = judging.Host("web1", {"inventory_hostname": "web1", **everything(built)}, ["nginx"])
    assert judging.judge([host], templar()) == []


@pytest.fixture(scope="module")
def usual(built: Path) -> tuple[object, ...]:
    """What all settings together lead to."""
    return outcome(everything(built))


@pytest.mark.parametrize("path", LEAVES, ids=".".join)
def test_no_option_is_dead(path: Path_, built: Path, usual: tuple[object, ...]) -> None:
    """Each option alone, put back to its default or given another value, changes what the role does."""
    settings = everything(built)
    option, (holder, *_others) = spec_of(path), holders(settings, path)
    if path in ALONE:
        assert holder[path[-1]] == option["default"]
        holder[path[-1]] = ALONE[path]
    elif path in OTHERS:
        assert option["required"]
        holder[path[-1]] = OTHERS[path]
    else:
        assert not option.get("required")
        assert holder.pop(path[-1]) != option.get("default")
    if path[-1] == "nonce_placeholder":  # without it there is no policy at all
        with pytest.raises(AnsibleError, match="uses 'nonce', but there is no value"):
            outcome(settings)
    else:
        assert outcome(settings) != usual


def test_everything_is_away_from_its_default_but_what_is_tried_alone(built: Path) -> None:
    settings = everything(built)
    for path in LEAVES:
        default = spec_of(path).get("default")
        assert any(holder[path[-1]] != default for holder in holders(settings, path)) != (path in ALONE), path


# --- the configuration as a whole ------------------------------------------------------------------------------------


@pytest.fixture(params=RELEASES)
def whole(request: pytest.FixtureRequest, built: Path) -> Role:
    """Everything, on each release."""
    return Role("nginx", everything(built), request.param)


def test_nothing_is_left_of_a_template(whole: Role) -> None:
    for dest, text in whole.files.items():
        found = re.search(r"\{\{|\}\}|\{%|%\}|(?<!-)\bNone\b|\bTrue\b|\bFalse\b|\bUndefined\b", text)
        assert not found, (dest, text[found.start() - 60 : found.end() + 60])


def test_all_files_can_be_read_and_refer_to_what_is_there(whole: Role) -> None:
    """Names of zones, upstreams, files and variables, each of them said once and elsewhere."""
    text = {dest: content for dest, content in whole.files.items() if re.search(r"nginx\.conf|/sites/|/headers/", dest)}
    directives = [one for content in text.values() for one in parsed(content).below()]

    def words(name: str) -> list[str]:
        return [word for one in directives if one.name == name for word in one.words[1:]]

    zones = [word.removeprefix("zone=").partition(":")[0] for word in words("limit_req_zone") if "zone=" in word]
    used = {word.removeprefix("zone=") for word in words("limit_req") if word.startswith("zone=")}
    assert sorted(set(zones)) == sorted(zones)
    assert used == set(zones)

    upstreams = words("upstream")
    named = {word.removeprefix("http://") for word in words("proxy_pass")}
    # Of an application's releases, a variable says which one.
    targets = {target for word in named for slot in "ab" for target in [re.sub(r"\$\w+", slot, word)]}
    assert sorted(set(upstreams)) == sorted(upstreams)
    assert targets == {*upstreams, "127.0.0.1:9000/accepted"}

    included = {word for word in words("include") if word.startswith("/etc/nginx/headers/")}
    assert included == {dest for dest in text if "/headers/" in dest}
    assert set(words("auth_basic_user_file")) == {dest for dest in whole.files if "/users/" in dest}

    maps = {one.words[2] for one in directives if one.name == "map"} | set(words("set")[::2])
    ours = {match for content in text.values() for match in re.findall(r"\$(?:production|site)_\w+", content)}
    assert ours == maps


def test_every_location_carries_the_full_set_once(whole: Role) -> None:
    found = 0
    for site in ("all.fushuma.com", "built.fushuma.com", "app.fushuma.com"):
        wanted = sorted(
            name for name, *_rest in parsed(whole.files[f"/etc/nginx/headers/{site}.conf"]).all("add_header")
        )
        for block in site_file(whole, site).blocks("server"):
            levels = [(block,)] + [(block, place) for place in block.blocks("location")]
            for level in levels:
                if level[-1].words[1:] == ["@range_outside"]:  # a second pass: the first has added them
                    continue
                headers = headers_of(*level)
                assert sorted(name for name, *_rest in headers if name != "Cache-Control") == wanted, level[-1].words
                assert all(rest == ["always"] for name, _value, *rest in headers if name != "Cache-Control")
                assert sum(name == "Cache-Control" for name, *_rest in headers) <= 1
                found += 1
    assert found > 25


def test_the_full_set_is_what_it_shall_be() -> None:
    names = [
        words[0] for words in parsed(role(STATIC).files["/etc/nginx/headers/www.fushuma.com.conf"]).all("add_header")
    ]
    assert set(names) == FULL_SET
    assert len(names) == len(FULL_SET)


def test_no_directive_of_one_value_stands_twice(whole: Role) -> None:
    once = {
        "log_not_found",
        "root",
        "index",
        "try_files",
        "proxy_pass",
        "return",
        "auth_basic",
        "client_max_body_size",
        "sub_filter_once",
    }
    once |= {"ssl_certificate", "ssl_certificate_key", "server_name", "proxy_http_version", "charset", "etag"}
    for site in ("all.fushuma.com", "built.fushuma.com", "app.fushuma.com"):
        for block in site_file(whole, site).below():
            for name in once:
                block.one(name)
            paths = [" ".join(place.words[1:]) for place in block.blocks("location")]
            assert len(set(paths)) == len(paths)
            passed = [words[0] for words in block.all("proxy_set_header")]
            assert len(set(passed)) == len(passed)


def test_the_same_settings_give_the_same_files(built: Path) -> None:
    one, other = (Role("nginx", everything(built)) for _ in range(2))
    assert one.files == other.files
    assert one.digest == other.digest
    assert one.digest != role().digest


def test_the_digest_is_what_the_probe_asks_for(whole: Role) -> None:
    (status,) = [one for one in http(whole).blocks("server") if ["127.0.0.1:9000"] in one.all("listen")]
    assert location(status, "= /digest").one("return") == f"200 {whole.digest}\n"
    (service,) = given_to(whole, "service_config")
    assert service["probe"] == [{"http": "http://127.0.0.1:9000/digest", "body": "@config_digest@"}]


def test_an_unknown_release_is_no_guess() -> None:
    one = role(STATIC)
    one.variables["ansible_facts"] = {"distribution_major_version": "11"}
    with pytest.raises(AnsibleError, match=r"/etc/nginx/nginx.conf does not render"):
        one.files  # noqa: B018


# --- what differs between the releases -------------------------------------------------------------------------------


def test_http2_is_said_as_the_release_knows_it() -> None:
    old, new = (role({**STATIC, "aliases": ["fushuma.com"]}, release=release) for release in RELEASES)
    assert http(old).all("http2") == []
    assert http(new).all("http2") == [["on"]]
    for one, ending in ((old, ["ssl", "http2"]), (new, ["ssl"])):
        blocks = [*http(one).blocks("server"), *site_file(one, STATIC["name"]).blocks("server")]
        listens = [words for block in blocks for words in block.all("listen") if words[0].endswith(":443")]
        assert len(listens) == 6
        for words in listens:
            assert [word for word in words[1:] if word != "default_server"] == ending


def test_key_exchange_and_tickets_are_those_of_the_release() -> None:
    old, new = (http(role(release=release)) for release in RELEASES)
    assert old.one("ssl_ecdh_curve") == "X25519:prime256v1:secp384r1"
    assert new.one("ssl_ecdh_curve") == "X25519MLKEM768:X25519:prime256v1:secp384r1"
    # Before 1.23.2 the keys of tickets live as long as nginx does, and all sessions of that time with them.
    assert (old.one("ssl_session_tickets"), new.one("ssl_session_tickets")) == ("off", "on")


@pytest.mark.parametrize("release", RELEASES)
def test_tls_profiles(release: str) -> None:
    intermediate, modern = (http(role(release=release, nginx_tls_profile=name)) for name in ("intermediate", "modern"))
    assert intermediate.one("ssl_protocols") == "TLSv1.2 TLSv1.3"
    assert all(name.startswith("ECDHE-") for name in intermediate.one("ssl_ciphers").split(":"))
    assert not re.search(r"CBC|SHA$|SHA384(?!:|$)|RC4|3DES", intermediate.one("ssl_ciphers").replace("-GCM-SHA384", ""))
    assert modern.one("ssl_protocols") == "TLSv1.3"
    assert modern.all("ssl_ciphers") == []


# --- names and ports -------------------------------------------------------------------------------------------------


def test_names_that_no_site_has_get_no_answer() -> None:
    plain, secure = [one for one in http(role()).blocks("server") if ["_"] in one.all("server_name")][:2]
    assert plain.all("listen") == [["0.0.0.0:80", "default_server"], ["[::]:80", "default_server"]]
    assert plain.one("return") == "444"
    assert [words[0] for words in secure.all("listen")] == ["0.0.0.0:443", "[::]:443"]
    assert all("default_server" in words for words in secure.all("listen"))
    assert secure.one("ssl_reject_handshake") == "on"
    # For a request that names another host than the handshake did.
    assert secure.one("return") == "444"


def test_plain_http_leads_to_the_same_name_over_tls() -> None:
    one = role({**STATIC, "aliases": ["fushuma.com"]}, nginx_public_https_port=8443)
    plain, alias, _site = site_file(one, STATIC["name"]).blocks("server")
    assert plain.one("server_name") == "www.fushuma.com fushuma.com"
    assert location(plain, "/").one("return") == "301 https://$host:8443$request_uri"
    assert location(plain, "^~ /.well-known/acme-challenge/").one("root") == "/var/www/acme"
    assert alias.one("server_name") == "fushuma.com"
    assert alias.one("return") == "301 https://www.fushuma.com:8443$request_uri"
    assert alias.one("ssl_certificate") == "/etc/nginx/certificates/www.fushuma.com/chain.pem"


def test_the_usual_port_is_not_written() -> None:
    text = role({**STATIC, "aliases": ["fushuma.com"]}).files["/etc/nginx/sites/www.fushuma.com.conf"]
    assert re.findall(r"return 301 (.*);", text) == [
        "https://$host$request_uri",
        "https://www.fushuma.com$request_uri",
    ]


def test_a_site_without_aliases_has_two_servers() -> None:
    assert len(site_file(role(STATIC), STATIC["name"]).blocks("server")) == 2


def test_hsts_is_promised_over_tls_only() -> None:
    one = role(STATIC, nginx_hsts={"max_age": 100, "include_subdomains": False})
    (hsts,) = [block for block in http(one).blocks("map") if block.words[2] == "$production_hsts"]
    assert hsts.words[1] == "$https"
    assert [directive.words for directive in hsts.block] == [["on", "max-age=100"]]
    headers = dict(
        words[:2] for words in parsed(one.files["/etc/nginx/headers/www.fushuma.com.conf"]).all("add_header")
    )
    assert headers["Strict-Transport-Security"] == "$production_hsts"


def test_clients_behind_trusted_proxies() -> None:
    assert "real_ip" not in role().files["/etc/nginx/nginx.conf"]
    block = http(role(nginx_trusted_proxies=["10.0.0.0/8", "::1"]))
    assert block.all("set_real_ip_from") == [["10.0.0.0/8"], ["::1"]]
    assert block.one("real_ip_header") == "X-Forwarded-For"
    assert block.one("real_ip_recursive") == "on"


def test_connections_have_files_enough() -> None:
    whole = parsed(role(nginx_worker_connections=1000).files["/etc/nginx/nginx.conf"])
    (events,) = whole.blocks("events")
    assert events.one("worker_connections") == "1000"
    assert int(whole.one("worker_rlimit_nofile")) >= 2 * 1000  # a client's and an upstream's


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_site_of_files() -> None:
    root = location(server(STATIC), "/")
    assert root.one("try_files") == "$uri $uri/ =404"
    assert root.all("add_header")[-1] == ["Cache-Control", "$production_page_cache"]
    assert server(STATIC).one("root") == "/srv/www"
    assert server(STATIC).one("index") == "index.html"


def test_an_application_that_routes_in_the_browser() -> None:
    one = role({**STATIC, "single_page": True, "index": "home.html"})
    (chosen,) = site_file(one, STATIC["name"]).blocks("map")
    source, variable = chosen.words[1:]
    assert source == "$uri"
    assert location(server({**STATIC, "single_page": True}), "/").one("try_files") == f"$uri $uri/ {variable} =404"
    assert chosen.one("default") == "/home.html"
    (pattern,) = [directive.name for directive in chosen.block if directive.name.startswith("~")]
    for path, is_page in (("/a/b", True), ("/a.js", False), ("/a.b/c", True), ("/.x", False), ("/", True)):
        assert bool(re.search(pattern[1:], path)) != is_page, path
    assert site_file(role(STATIC), STATIC["name"]).blocks("map") == []


def test_files_that_never_change_are_kept_but_not_if_they_are_sensitive() -> None:
    place = location(server({**STATIC, "immutable": ["/assets/"]}), "/assets/")
    assert place.all("add_header")[-1] == ["Cache-Control", "public, max-age=31536000, immutable"]
    assert (place.all("try_files"), place.one("log_not_found")) == ([], "off")
    # No ^~, for then the pattern of sensitive files would not be asked.
    assert place.words[1:] == ["/assets/"]


@pytest.mark.parametrize("site", [STATIC, APP])
def test_sensitive_files(site: dict[str, Any]) -> None:
    (pattern,) = [one for one in server(site).blocks("location") if "bak" in one.words[-1]]
    assert pattern.words[1] == "~*"
    assert pattern.one("return") == "404"
    for path in (
        "/.env",
        "/a/.git/config",
        "/x.BAK",
        "/dump.sql",
        "/a.swp",
        "/a~",
        "/server.key",
        "/db.sqlite3",
        "/a.log",
    ):
        assert re.search(pattern.words[2], path, re.IGNORECASE), path
    for path in ("/", "/.well-known/security.txt", "/a.js", "/key", "/environment", "/a.sqlx", "/logs/", "/config"):
        assert not re.search(pattern.words[2], path, re.IGNORECASE), path


def test_content_is_published_with_the_configuration(built: Path) -> None:
    one = role({**STATIC, "root": None, "content": str(built / "content"), "index": "home.html"})
    assert one.files["/var/www/www.fushuma.com/home.html"] == "<script>content()</script>"
    assert site_file(one, STATIC["name"]).blocks("server")[-1].one("root") == "/var/www/www.fushuma.com"
    (service,) = given_to(one, "service_config")
    assert {"path": "/var/www/www.fushuma.com", "prune": True} in directories(service)
    text = one.files["/etc/nginx/headers/www.fushuma.com.conf"]
    assert "script-src 'self' 'sha256-" in text


# --- upstreams -------------------------------------------------------------------------------------------------------


def test_a_request_as_the_application_gets_it() -> None:
    place = location(server(APP), "/")
    passed = dict(words for words in place.all("proxy_set_header"))
    assert passed == {
        "Host": "$host",
        "X-Real-IP": "$remote_addr",
        "X-Forwarded-For": "$remote_addr",
        "X-Forwarded-Host": "$host",
        "X-Forwarded-Proto": "https",
        "Forwarded": "",
        "Proxy": "",
        "Connection": "",
    }
    assert place.one("proxy_http_version") == "1.1"
    assert place.one("charset") == "off"
    assert (place.one("proxy_connect_timeout"), place.one("proxy_read_timeout")) == ("5s", "60s")
    hidden = {words[0] for words in place.all("proxy_hide_header")}
    assert FULL_SET | {"X-Powered-By", "Server"} <= hidden
    assert "Cache-Control" not in hidden


def test_the_application_hears_the_port_that_clients_use() -> None:
    passed = dict(location(server(APP, nginx_public_https_port=8443), "/").all("proxy_set_header"))
    assert passed["Host"] == passed["X-Forwarded-Host"] == "$host:8443"


def test_websockets_and_no_other_upgrade_are_passed_on() -> None:
    socket = {**APP, "upstream": {**SERVERS, "websocket": True}}
    passed = dict(location(server(socket), "/").all("proxy_set_header"))
    assert passed["Upgrade"] == "$production_upgrade"
    assert passed["Connection"] == "$production_connection"
    for variable, value in (("$production_upgrade", "websocket"), ("$production_connection", "upgrade")):
        (block,) = [one for one in http(role(socket)).blocks("map") if one.words[2] == variable]
        assert block.words[1] == "$http_upgrade"
        assert [one.words for one in block.block] == [["default", ""], ["~*^websocket$", value]]


@pytest.mark.parametrize(
    ("balance", "first"), [("round_robin", "server"), ("least_conn", "least_conn"), ("ip_hash", "ip_hash")]
)
def test_servers_share_requests_and_keep_connections(balance: str, first: str) -> None:
    servers = ["127.0.0.1:1", "[::1]:2", "unix:/run/a.sock"]
    site = {**APP, "upstream": {"servers": servers, "balance": balance, "keepalive": 4}}
    (block,) = http(role(site)).blocks("upstream")
    assert block.block[0].name == first
    assert [words[0] for words in block.all("server")] == servers
    # nginx wants it behind the way of sharing.
    assert block.block[-1].words == ["keepalive", "4"]
    assert location(server(site), "/").one("proxy_pass") == f"http://{block.words[1]}"


def test_figures_of_an_application_are_hidden_however_they_are_spelt() -> None:
    (place,) = [one for one in server(APP).blocks("location") if "metrics" in one.words[-1]]
    assert place.words[1] == "~*"
    assert place.one("return") == "404"
    for path, hidden in (("/metrics", True), ("/metrics/", True), ("/METRICS", True), ("/metrics/x", False)):
        assert bool(re.search(place.words[2], path, re.IGNORECASE)) == hidden
    opened = server({**APP, "locations": [{"path": "= /metrics", "allow": ["10.0.0.0/8"]}]})
    paths = [" ".join(one.words[1:]) for one in opened.blocks("location")]
    assert {"= /metrics", "~* ^/metrics/?$"} <= set(paths)
    below = server({**APP, "locations": [{"path": "/metrics", "allow": ["10.0.0.0/8"]}]})
    assert [one.words[1:] for one in below.blocks("location") if "metrics" in one.words[-1]] == [["/metrics"]]
    assert "metrics" not in role(STATIC).files["/etc/nginx/sites/www.fushuma.com.conf"]


# --- locations -------------------------------------------------------------------------------------------------------


def place(**options: Any) -> Directive:
    """A location of a site of files with these options."""
    return location(server({**STATIC, "locations": [{"path": "/a/", **options}]}), "/a/")


def test_a_location_does_one_thing() -> None:
    assert place(redirect="https://b.com/x").one("return") == "302 https://b.com/x"
    assert place(status=410).one("return") == "410"
    assert place(upstream=SERVERS).one("proxy_pass").startswith("http://site_")
    assert (place(root="/srv/b").one("root"), place(root="/srv/b").one("try_files")) == ("/srv/b", "$uri $uri/ =404")
    assert place().one("try_files") == "$uri $uri/ =404"
    assert place().one("root") == ""
    assert location(server({**APP, "locations": [{"path": "= /a"}]}), "= /a").one("proxy_pass")


def test_only_some_addresses_are_let_in() -> None:
    guarded = place(allow=["10.0.0.0/8", "::1"])
    rules = [one.words for one in guarded.block if one.name in ("allow", "deny")]
    assert rules == [["allow", "10.0.0.0/8"], ["allow", "::1"], ["deny", "all"]]
    assert not [one for one in place().block if one.name in ("allow", "deny")]


def test_only_some_users_are_let_in() -> None:
    users = {"me": PASSWORD, "you": PASSWORD}
    one = role({**STATIC, "locations": [{"path": "/a/", "users": users}]})
    guarded = location(site_file(one, STATIC["name"]).blocks("server")[-1], "/a/")
    assert guarded.one("auth_basic") == "www.fushuma.com"
    lines = one.files[guarded.one("auth_basic_user_file")].splitlines()
    assert [line.partition(":")[0] for line in lines] == ["me", "you"]
    hashes = [line.partition(":")[2] for line in lines]
    assert all(re.fullmatch(r"\$6\$[0-9a-f]{16}\$[./0-9A-Za-z]{86}", each) for each in hashes)
    assert len(set(hashes)) == 2
    assert not any(PASSWORD in text for text in one.files.values())
    assert Role("nginx", one.settings).files == one.files


def test_a_whole_site_may_ask_for_a_password() -> None:
    """All of it but what must stay open; and nobody behind nginx hears the password."""
    places = [
        {"path": "/own/", "users": {"you": PASSWORD}},
        {"path": "= /ready", "open": True},
        {"path": "/api/", "upstream": SERVERS},
    ]
    one = role({**APP, "users": {"me": PASSWORD}, "locations": places})
    plain, guarded = site_file(one, APP["name"]).blocks("server")
    assert not [directive for directive in plain.below() if directive.name.startswith("auth_basic")]
    assert guarded.one("auth_basic") == "app.fushuma.com"
    assert one.files[guarded.one("auth_basic_user_file")].startswith("me:$6$")
    own = location(guarded, "/own/")
    assert one.files[own.one("auth_basic_user_file")].startswith("you:$6$")
    for path in ("= /ready", "= /.well-known/csp-report"):
        assert location(guarded, path).one("auth_basic") == "off"
    heard = {path: ["Authorization", ""] for path in ("/", "/own/", "= /ready", "/api/")}
    assert {path for path in heard if heard[path] in location(guarded, path).all("proxy_set_header")} == {
        "/",
        "/own/",
        "/api/",
    }


def test_a_password_of_digits_may_stand_without_quotes() -> None:
    settings = [{**STATIC, "locations": [{"path": "/a/", "users": {"me": value}}]} for value in (123456, "123456")]
    assert role(settings[0]).files == role(settings[1]).files


def test_rates() -> None:
    places = [{"path": "/a/", "rate": "5r/m", "burst": 3}, {"path": "/b/", "rate": "6r/m", "burst": 0}, {"path": "/c/"}]
    site = {**STATIC, "rate": "50r/s", "locations": places}
    zones = [words for words in http(role(site)).all("limit_req_zone") if "csp_report" not in words[1]]
    assert [words[0] for words in zones] == ["$binary_remote_addr"] * 3
    assert [words[2] for words in zones] == ["rate=50r/s", "rate=5r/m", "rate=6r/m"]
    names = [words[1].removesuffix(":10m") for words in zones]
    block = server(site)
    assert block.all("limit_req") == [[names[0], "burst=100", "nodelay"]]
    assert location(block, "/a/").all("limit_req") == [[names[1], "burst=3", "nodelay"]]
    # nginx refuses burst=0.
    assert location(block, "/b/").all("limit_req") == [[names[2], "nodelay"]]
    assert location(block, "/c/").all("limit_req") == []
    assert http(role(site)).one("limit_req_status") == "429"
    assert server(STATIC).all("limit_req") == []


def test_bodies() -> None:
    assert server({**STATIC, "body_size": "5m"}).one("client_max_body_size") == "5m"
    assert place(body_size="2k").one("client_max_body_size") == "2k"
    assert place().one("client_max_body_size") == ""


# --- policies --------------------------------------------------------------------------------------------------------

NONCED = {"policy": {"script-src": ["'nonce'", "'strict-dynamic'"]}, "nonce_placeholder": PLACEHOLDER}


def test_a_page_gets_the_nonce_of_its_response() -> None:
    for site in (STATIC, APP):
        one = role({**site, "csp": NONCED, "immutable": ["/assets/"] if site is STATIC else []})
        block = site_file(one, site["name"]).blocks("server")[-1]
        root = location(block, "/")
        assert root.one("sub_filter") == f"{PLACEHOLDER} $request_id"
        assert root.one("sub_filter_once") == "off"
        assert root.all("add_header")[-1] == ["Cache-Control", "$production_nonce_cache", "always"]
        headers = one.files[f"/etc/nginx/headers/{site['name']}.conf"]
        assert "'nonce-$request_id'" in headers
        assert PLACEHOLDER not in headers
    (cache,) = [each for each in http(role()).blocks("map") if each.words[2] == "$production_nonce_cache"]
    assert [each.words for each in cache.block] == [
        ["default", "$upstream_http_cache_control"],
        ["~^text/html", "no-store"],
    ]


def test_a_page_with_a_nonce_is_asked_for_whole_and_anew() -> None:
    static, app = (location(server({**site, "csp": NONCED}), "/") for site in (STATIC, APP))
    assert (static.one("etag"), static.one("if_modified_since")) == ("off", "off")
    passed = dict(app.all("proxy_set_header"))
    assert [passed[name] for name in ("Accept-Encoding", "If-None-Match", "If-Modified-Since")] == ["", "", ""]
    assert ["Cache-Control"] in app.all("proxy_hide_header")


def test_without_a_nonce_nothing_is_replaced() -> None:
    for site in (STATIC, APP):
        root = location(server(site), "/")
        assert not [one for one in root.block if one.name.startswith("sub_filter")]
        assert not {"Accept-Encoding", "If-None-Match"} & {words[0] for words in root.all("proxy_set_header")}
    kept = location(server({**STATIC, "csp": NONCED, "immutable": ["/assets/"]}), "/assets/")
    assert not kept.all("sub_filter")


def test_reports_are_taken_and_logged() -> None:
    taken = location(server(STATIC, nginx_status_port=9000), "= /.well-known/csp-report")
    (methods,) = taken.blocks("limit_except")
    assert methods.words[1:] == ["POST"]
    assert methods.one("deny") == "all"
    assert taken.one("access_log") == "/var/log/nginx/csp.log csp"
    assert taken.one("proxy_pass") == "http://127.0.0.1:9000/accepted"
    assert taken.one("proxy_pass_request_headers") == "off"
    (status,) = [one for one in http(role()).blocks("server") if ["127.0.0.1:8081"] in one.all("listen")]
    assert location(status, "= /accepted").one("return") == "204"
    # What is larger than the buffer would be in a file, and not in the log.
    assert taken.one("client_max_body_size") == taken.one("client_body_buffer_size")
    assert taken.all("limit_req") == [["zone=csp_report", "burst=50", "nodelay"]]
    formats = {words[0]: "".join(words[2:]) for words in http(role()).all("log_format")}
    assert '"report":"$request_body"' in formats["csp"]
    assert all(json.loads(re.sub(r"\$\w+", "0", text)) for text in formats.values())
    without = role({**STATIC, "csp": {"report": False}}).files
    assert "csp-report" not in without["/etc/nginx/sites/www.fushuma.com.conf"]
    assert "Reporting-Endpoints" not in without["/etc/nginx/headers/www.fushuma.com.conf"]


def test_header_values_reach_the_client_as_they_were_written() -> None:
    value = """geolocation=(self "https://maps.fushuma.com"), a='b'"""
    one = role({**STATIC, "headers": {"Permissions-Policy": value}})
    headers = dict(
        words[:2] for words in parsed(one.files["/etc/nginx/headers/www.fushuma.com.conf"]).all("add_header")
    )
    assert headers["Permissions-Policy"] == value
    assert headers["Reporting-Endpoints"] == 'csp="/.well-known/csp-report"'


# --- security.txt ----------------------------------------------------------------------------------------------------


def test_security_txt() -> None:
    options = {"contact": ["mailto:a@b.com", "https://b.com/x"], "expires": EXPIRES}
    path = "= /.well-known/security.txt"
    short = location(server({**STATIC, "security_txt": options}), path)
    head = f"Contact: mailto:a@b.com\nContact: https://b.com/x\nExpires: {EXPIRES}\n"
    canonical = "Canonical: https://www.fushuma.com/.well-known/security.txt\n"
    assert short.all("return") == [["200", f"{head}Preferred-Languages: en\n{canonical}"]]
    assert short.one("default_type") == "text/plain"
    more = {**options, "policy": "https://b.com/policy", "languages": "de, en"}
    long = location(server({**STATIC, "security_txt": more}, nginx_public_https_port=8443), path)
    assert long.all("return")[0][1] == (
        f"{head}Preferred-Languages: de, en\n{canonical.replace('.com/', '.com:8443/')}Policy: https://b.com/policy\n"
    )
    assert "security.txt" not in role(STATIC).files["/etc/nginx/sites/www.fushuma.com.conf"]


# --- certificates ----------------------------------------------------------------------------------------------------


def test_own_certificates_are_files_of_the_transaction(built: Path) -> None:
    one = Role("nginx", everything(built))
    folder = "/etc/nginx/certificates/all.fushuma.com"
    assert one.files[f"{folder}/chain.pem"].strip() == own_certificate()["chain"].strip()
    assert one.files[f"{folder}/key.pem"].strip() == own_certificate()["key"].strip()
    (key,) = [file for file in one.variables["_nginx_files"] if file["dest"].endswith("/key.pem")]
    assert (key["mode"], key["sensitive"]) == ("0600", True)
    for site in ("built", "app"):
        assert f"/etc/nginx/certificates/{site}.fushuma.com/chain.pem" not in one.files


def given_to(role: Role, module: str) -> list[dict[str, Any]]:
    """The arguments of each task that calls this module of the collection."""
    return [given for name, given in role.tasks if name == module]


def test_what_the_tasks_are_given(built: Path) -> None:
    one = Role("nginx", everything(built))
    ((placeholders,), (service,), (fetched,)) = (
        given_to(one, name) for name in ("self_signed_certificates", "service_config", "acme_certificates")
    )
    assert [each["name"] for each in placeholders["certificates"]] == [
        "built.fushuma.com",
        "app.fushuma.com",
        "shop.fushuma.com",
    ]
    # What the task before makes counts for whether nginx has to be reloaded; certbot's hook reloads by itself.
    assert service["reads"] == ["/etc/nginx/certificates/built.fushuma.com/chain.pem"]
    assert service["units"] == ["nginx.service"]
    assert service["packages"] == ["nginx", "openssl", "certbot"]
    # What is left of a site that is gone would still be served.
    pruned = {folder["path"] for folder in directories(service) if folder.get("prune")}
    assert pruned == {"/etc/nginx/sites", "/etc/nginx/headers", "/etc/nginx/users", "/var/www/built.fushuma.com"}
    assert [each["name"] for each in fetched["certificates"]] == ["app.fushuma.com", "shop.fushuma.com"]
    assert (fetched["directory"], fetched["email"]) == ("https://ca.fushuma.com/directory", "ops@fushuma.com")
    assert (fetched["ca_bundle"], fetched["webroot"]) == ("/etc/ssl/own.pem", "/var/www/acme")


def test_without_certificates_to_make_or_fetch_nobody_is_asked() -> None:
    one = role({**STATIC, "certificate": own_certificate()})
    assert given_to(one, "service_config")[0]["packages"] == ["nginx", "openssl"]
    assert given_to(one, "self_signed_certificates") == given_to(one, "acme_certificates") == []
    (fetched,) = given_to(role({**STATIC, "certificate": {"source": "acme"}}), "acme_certificates")
    assert (fetched["email"], fetched["ca_bundle"]) == ("omitted", "omitted")


def test_renewals_trust_the_same_private_authority() -> None:
    private = {"directory": "https://ca.internal/directory", "ca_bundle": "/etc/ssl/own.pem"}
    dropin = "/etc/systemd/system/certbot.service.d/production.conf"
    fetched, made_here = ({**STATIC, "certificate": {"source": source}} for source in ("acme", "selfsigned"))
    assert "REQUESTS_CA_BUNDLE=/etc/ssl/own.pem" in role(fetched, nginx_acme=private).files[dropin]
    assert dropin not in role(fetched).files
    assert dropin not in role(made_here, nginx_acme=private).files


@pytest.mark.parametrize(("renew_at", "percent"), [(0.66, 34), (0.1, 90), (0.9, 10), (0.5, 50)])
def test_certificates_are_renewed_after_a_part_of_their_life(renew_at: float, percent: int) -> None:
    script = role(nginx_acme={"renew_at": renew_at}).files["/usr/local/sbin/deploy-certificate"]
    assert f" * {percent} / 100 / 3600 " in script
    assert subprocess.run(["sh", "-n"], input=script, text=True, check=False).returncode == 0


# --- exports ---------------------------------------------------------------------------------------------------------


def test_exports_have_the_shape_that_playbooks_hand_over(whole: Role) -> None:
    exports = whole.exports
    assert set(exports) == {"listens", "logs", "metrics", "probes", "health", "backup"}
    for part, keys in {
        "listens": {"port", "setting", "address", "from"},
        "logs": {"path", "format", "job"},
        "metrics": {"job", "url"},
        "probes": {"host", "name", "url", "module", "insecure", "address"},
        "health": {"name", "units", "url"},
        "backup": {"kind", "path"},
    }.items():
        assert exports[part]
        assert all(set(one) == keys for one in exports[part]), part
    assert all(isinstance(one["port"], int) for one in exports["listens"])
    assert {one["format"] for one in exports["logs"]} == {"json", "text"}


def test_exports_say_what_is_configured(whole: Role) -> None:
    exports = whole.exports
    assert [(one["address"], one["port"], one["from"]) for one in exports["listens"]] == [
        ("192.0.2.7", 8080, "world"),
        ("192.0.2.7", 8443, "world"),
        ("127.0.0.1", 9000, "host"),
    ]
    files = [*whole.files.values()]
    for log in exports["logs"]:
        assert any(f" {log['path']}" in text for text in files), log
    for url in (exports["metrics"][0]["url"], exports["health"][0]["url"]):
        path = url.removeprefix("http://127.0.0.1:9000")
        assert f"location = {path} " in whole.files["/etc/nginx/nginx.conf"]


# --- applications ----------------------------------------------------------------------------------------------------

SHOP: dict[str, Any] = {
    "name": "shop.fushuma.com",
    "upstream": {"application": "shop.web"},
    "certificate": {"source": "selfsigned"},
}


def groups(one: Role) -> dict[str, Directive]:
    """The groups of servers in nginx.conf by what they are called without the site's key."""
    return {block.words[1].partition("_on")[2]: block for block in http(one).blocks("upstream")}


def test_an_application_of_one_host_is_asked_in_the_slot_that_counts() -> None:
    one = role(SHOP, nginx_app_hosts=["app1"])
    text = one.files["/etc/nginx/sites/shop.fushuma.com.conf"]
    key = re.findall(r"set \$(site_\w+_on0) a;", text)[0]
    folder = "/etc/nginx/applications/shop.web.app1"
    assert f"if (-f {folder}/b.on) {{ set ${key} b; }}" in text
    for slot in "ab":
        assert f"if (-f {folder}/{slot}.$production_candidate) {{ set ${key} {slot}; }}" in text
    assert f"proxy_pass http://{key}_${key};" in text
    assert 'proxy_set_header X-Production-Candidate "";' in text, "the application does not hear the token"
    assert sorted(groups(one)) == ["0_a", "0_b"]
    assert "unix:/run/nginx-production" not in one.files["/etc/nginx/nginx.conf"]
    assert "/etc/systemd/system/nginx.service.d/production.conf" not in one.files


def test_before_the_first_deployment_nobody_answers() -> None:
    conf = role(SHOP, nginx_app_hosts=["app1"]).files["/etc/nginx/nginx.conf"]
    for slot in "ab":
        assert f"include /etc/nginx/applications/shop.web.app1/{slot}.server*;" in conf
    assert conf.count("server 127.0.0.1:1 down;") == 2
    assert conf.count("keepalive_timeout 2s;") == 2


def test_an_application_of_several_hosts_is_shared_among_them() -> None:
    one = role(SHOP, nginx_app_hosts=["app1", "app2"])
    conf, text = one.files["/etc/nginx/nginx.conf"], one.files["/etc/nginx/sites/shop.fushuma.com.conf"]
    key = re.findall(r"proxy_pass http://(site_\w+);", text)[0]
    assert "proxy_set_header X-Production-Candidate $http_x_production_candidate;" in text
    assert "set $" not in text, "each host's server decides"
    for number, host in enumerate(("app1", "app2")):
        assert f"server unix:/run/nginx-production/{key}_on{number};" in conf
        assert f"listen unix:/run/nginx-production/{key}_on{number};" in conf
        assert f"if (-f /etc/nginx/applications/shop.web.{host}/b.on) {{ set ${key}_on{number} b; }}" in conf
        assert f"proxy_pass http://{key}_on{number}_${key}_on{number};" in conf
    assert "RuntimeDirectory=nginx-production" in one.files["/etc/systemd/system/nginx.service.d/production.conf"]


def test_a_token_is_no_path() -> None:
    (candidate,) = [
        block
        for block in http(role(SHOP, nginx_app_hosts=["app1"])).blocks("map")
        if "$production_candidate" in block.words
    ]
    pattern = r"^[0-9a-f]{32}$"
    assert f'"~{pattern}"' in role(SHOP, nginx_app_hosts=["app1"]).files["/etc/nginx/nginx.conf"]
    assert candidate.words[1] == "$http_x_production_candidate"
    assert not re.search(pattern, "../../passwd")


def test_without_applications_nothing_of_them_is_there() -> None:
    for one in (role(APP), role(APP, nginx_app_hosts=["app1"])):
        text = one.files["/etc/nginx/nginx.conf"] + one.files["/etc/nginx/sites/app.fushuma.com.conf"]
        assert "andidate" not in text
        assert "applications" not in text
