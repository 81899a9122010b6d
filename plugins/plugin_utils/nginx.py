# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What cannot work in the settings of the nginx role."""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.fushuma.production.plugins.plugin_utils import csp, pem
from ansible_collections.fushuma.production.plugins.plugin_utils import nginx_model as model
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import Problem, value_of

Settings = Mapping[str, Any]

CONTENT_LIMIT = 8 * 1024 * 1024  # bytes; it travels with every run
NONCE_PLACEHOLDER_LENGTH = 16
HSTS_PRELOAD_AGE = 31536000  # seconds; the least that hstspreload.org takes

SIZE = re.compile(r"[1-9]\d*[kKmMgG]?|0")
DURATION = re.compile(r"(\d+(ms|[smhdwMy]))+|\d+")
RATE = re.compile(r"[1-9]\d*r/[sm]")
HOST_NAME = re.compile(r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
HEADER_NAME = re.compile(r"[A-Za-z0-9!#%&'*+.^_`|~-]+")
# Visible ASCII without what ends or changes a string in nginx's double quotes.
HEADER_VALUE = re.compile(r"[ !#%-\[\]-~]*")
LOCATION = re.compile(r"(= )?/[A-Za-z0-9/._~@:+-]*")
PLACEHOLDER = re.compile(r"[A-Za-z0-9_-]+")
SERVER = re.compile(r"unix:/[A-Za-z0-9/._-]+|(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):(\d{1,5})")
URL = re.compile(r"(https?://[^\s\"$;{}\\]+|/[^\s\"$;{}\\]*)")
PUBLIC_ONLY = "a name that the world's DNS knows, or another source: selfsigned or files"

OWN_OPTIONS = {
    "content-security-policy": "nginx_csp or the site's csp.policy",
    "content-security-policy-report-only": "the site's csp.report_only",
    "reporting-endpoints": "the site's csp.report",
    "strict-transport-security": "nginx_hsts",
}

FORMS: Mapping[str, tuple[re.Pattern[str], str, str]] = {
    "size": (SIZE, "it is no size that nginx knows", 'for example "10m", in k, m or g'),
    "duration": (DURATION, "it is no duration that nginx knows", 'for example "30s", in ms, s, m, h or d'),
    "rate": (RATE, "it is no rate that nginx knows", 'for example "10r/s" or "100r/m"'),
}


def problems(settings: Settings) -> list[Problem]:
    """Everything that cannot work. ``settings`` fit the role's argument_specs and hold all defaults."""
    found = list(_server_problems(settings))
    found += _name_problems(settings)
    for number, site in enumerate(settings["nginx_sites"]):
        found += [problem.under(f"nginx_sites[{number}]") for problem in _site_problems(settings, site)]
    return found


def _form(kind: str, setting: str, value: str | None) -> Iterator[Problem]:
    pattern, why, instead = FORMS[kind]
    if value is not None and not pattern.fullmatch(value):
        yield Problem(setting, value_of(value), why, instead)


def _port(setting: str, value: int) -> Iterator[Problem]:
    if not 1 <= value <= 65535:
        yield Problem(setting, value_of(value), "ports go from 1 to 65535", "a port in that range")


def _network(setting: str, value: str) -> Iterator[Problem]:
    try:
        ipaddress.ip_network(value)
    except ValueError as error:
        yield Problem(setting, value_of(value), f"it is no network ({error})", 'for example "10.0.0.0/8" or "::1"')


def _server_problems(settings: Settings) -> Iterator[Problem]:
    for name in ("nginx_http_port", "nginx_https_port", "nginx_public_https_port", "nginx_status_port"):
        yield from _port(name, settings[name])
    for name in ("nginx_client_timeout", "nginx_keepalive_timeout"):
        yield from _form("duration", name, settings[name])
    for number, network in enumerate(settings["nginx_trusted_proxies"]):
        yield from _network(f"nginx_trusted_proxies[{number}]", network)
    for number, address in enumerate(settings["nginx_listen_addresses"]):
        try:
            if ipaddress.ip_address(address.strip("[]")).version == 6 and not address.startswith("["):
                raise ValueError("IPv6 stands in brackets")
        except ValueError as error:
            setting = f"nginx_listen_addresses[{number}]"
            yield Problem(setting, value_of(address), f"nginx cannot listen there ({error})", '"0.0.0.0" or "[::]"')
    if not settings["nginx_worker_connections"] > 0:
        yield Problem(
            "nginx_worker_connections",
            value_of(settings["nginx_worker_connections"]),
            "without connections nothing is served",
            "for example 4096",
        )
    yield from _header_problems("nginx_headers", settings["nginx_headers"])
    yield from _hsts_problems(settings["nginx_hsts"])
    acme = settings["nginx_acme"]
    if not acme["directory"].startswith("https://"):
        why = "an ACME directory is only trusted over TLS"
        yield Problem("nginx_acme.directory", value_of(acme["directory"]), why, "its https:// URL")
    if not 0.1 <= acme["renew_at"] <= 0.9:
        why = "a renewal needs time before the end and must not follow on every run"
        yield Problem("nginx_acme.renew_at", value_of(acme["renew_at"]), why, "a part from 0.1 to 0.9, such as 0.66")


def _hsts_problems(hsts: Mapping[str, Any]) -> Iterator[Problem]:
    if hsts["max_age"] < 0:
        yield Problem("nginx_hsts.max_age", value_of(hsts["max_age"]), "it counts seconds", "0 or more")
    if hsts["preload"] and (hsts["max_age"] < HSTS_PRELOAD_AGE or not hsts["include_subdomains"]):
        why = "browsers take only sites with include_subdomains and a max_age of a year into their lists"
        yield Problem("nginx_hsts.preload", "true", why, f"max_age {HSTS_PRELOAD_AGE} and include_subdomains true beside it")


def _header_problems(setting: str, headers: Mapping[str, Any]) -> Iterator[Problem]:
    for name, value in headers.items():
        where = f"{setting}.{name}"
        if name.lower() in OWN_OPTIONS:
            yield Problem(where, value_of(value), "this header has an option of its own", OWN_OPTIONS[name.lower()])
        elif not HEADER_NAME.fullmatch(name):
            yield Problem(where, value_of(name), "it is no header name (RFC 9110 §5.1)", "letters, digits and hyphens")
        elif not HEADER_VALUE.fullmatch(str(value if value is not None else "")):
            why = 'a header cannot hold a line break, and nginx\'s strings no `"`, `$` or backslash'
            yield Problem(where, value_of(value), why, "the value without these")


def _name_problems(settings: Settings) -> Iterator[Problem]:
    places: list[tuple[str, str]] = []
    for number, site in enumerate(settings["nginx_sites"]):
        places.append((f"nginx_sites[{number}].name", site["name"]))
        places += [(f"nginx_sites[{number}].aliases[{i}]", alias) for i, alias in enumerate(site["aliases"])]
    counted = Counter(name for _setting, name in places)
    for setting, name in places:
        if not HOST_NAME.fullmatch(name):
            yield Problem(setting, value_of(name), "it is no host name in lower case (RFC 1123)", 'for example "www.fushuma.com"')
        if counted[name] > 1:
            first = next(place for place, other in places if other == name)
            if setting != first:
                yield Problem(setting, value_of(name), f"{first} has the same name", "a name of its own")


def _site_problems(settings: Settings, site: Mapping[str, Any]) -> Iterator[Problem]:
    sources = [name for name in ("root", "content", "upstream") if site[name]]
    if len(sources) != 1:
        yield Problem(
            "",
            f"a site with {' and '.join(sources) or 'no source'}",
            "what answers its requests must be one thing",
            "exactly one of root, content and upstream",
        )
    yield from _form("size", "body_size", site["body_size"])
    yield from _form("rate", "rate", site["rate"])
    yield from _header_problems("headers", site["headers"])
    if site["upstream"]:
        yield from _upstream_problems("upstream", site["upstream"])
    if site["content"]:
        yield from _content_problems(site)
    for number, prefix in enumerate(site["immutable"]):
        if not LOCATION.fullmatch(prefix) or not prefix.endswith("/"):
            yield Problem(f"immutable[{number}]", value_of(prefix), "it is no path prefix", 'for example "/assets/"')
    yield from _location_problems(site)
    yield from _certificate_problems(site)
    yield from _csp_problems(settings, site)
    if site["security_txt"]:
        yield from _security_txt_problems(site["security_txt"])


def _upstream_problems(setting: str, upstream: Mapping[str, Any]) -> Iterator[Problem]:
    if not upstream["servers"]:
        yield Problem(f"{setting}.servers", "[]", "nobody would answer", 'for example ["127.0.0.1:3000"]')
    for number, server in enumerate(upstream["servers"]):
        match = SERVER.fullmatch(server)
        if not match or (match[2] and not 1 <= int(match[2]) <= 65535):
            why = "it is no address with a port"
            yield Problem(f"{setting}.servers[{number}]", value_of(server), why, 'for example "127.0.0.1:3000"')
    for name in ("connect_timeout", "read_timeout", "send_timeout"):
        yield from _form("duration", f"{setting}.{name}", upstream[name])
    if upstream["keepalive"] < 1:
        why = "each request would open a connection of its own"
        yield Problem(f"{setting}.keepalive", value_of(upstream["keepalive"]), why, "1 or more, such as 16")


def _content_problems(site: Mapping[str, Any]) -> Iterator[Problem]:
    folder = Path(site["content"])
    if not folder.is_dir():
        why = "there is no such folder on the controller"
        yield Problem("content", value_of(str(folder)), why, "the absolute path of the built files")
        return
    if not (folder / site["index"]).is_file():
        yield Problem("content", value_of(str(folder)), f"it holds no {site['index']}", "the folder of the built files")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > CONTENT_LIMIT:
        why = f"its {size >> 20} MiB would travel with every run"
        yield Problem("content", value_of(str(folder)), why, "root, and have a deployment fill that folder")


def _location_problems(site: Mapping[str, Any]) -> Iterator[Problem]:
    counted = Counter(place["path"] for place in site["locations"])
    for number, place in enumerate(site["locations"]):
        where = f"locations[{number}]"
        path = place["path"]
        if not LOCATION.fullmatch(path):
            yield Problem(f"{where}.path", value_of(path), "it is no path", 'a prefix "/api/" or an exact path "= /metrics"')
        if counted[path] > 1 and path in (other["path"] for other in site["locations"][:number]):
            yield Problem(f"{where}.path", value_of(path), "another location has the same path", "one location with all of it")
        if path.lstrip("= ") in (model.REPORT_PATH, "/.well-known/security.txt", "/"):
            why = "the site itself answers there"
            yield Problem(f"{where}.path", value_of(path), why, "the site's own options (csp, security_txt, upstream)")
        actions = [name for name in ("upstream", "root", "redirect", "status") if place[name]]
        if len(actions) > 1:
            why = f"it is to do {' and '.join(actions)} at once"
            yield Problem(where, value_of(path), why, "one of them, or none to be served as the site is")
        if place["upstream"]:
            yield from _upstream_problems(f"{where}.upstream", place["upstream"])
        if place["redirect"] and not URL.fullmatch(place["redirect"]):
            why = "it is no URL or path that nginx can redirect to"
            yield Problem(f"{where}.redirect", value_of(place["redirect"]), why, 'for example "/new" or "https://…"')
        if place["status"] and not 200 <= place["status"] <= 599:
            yield Problem(f"{where}.status", value_of(place["status"]), "it is no HTTP status", "for example 404")
        yield from _form("size", f"{where}.body_size", place["body_size"])
        yield from _form("rate", f"{where}.rate", place["rate"])
        for index, network in enumerate(place["allow"]):
            yield from _network(f"{where}.allow[{index}]", network)


def _certificate_problems(site: Mapping[str, Any]) -> Iterator[Problem]:
    certificate = site["certificate"]
    names = [site["name"], *site["aliases"]]
    if certificate["source"] == "files":
        for part in ("chain", "key"):
            if not certificate[part]:
                yield Problem(f"certificate.{part}", "missing", "source is files", "it in PEM form, the key from a vault")
        if certificate["chain"] and certificate["key"]:
            yield from pem.pair_problems(certificate["chain"], certificate["key"], names, _now())
        return
    for part in ("chain", "key"):
        if certificate[part]:
            why = f"source is {certificate['source']}, so nobody reads it"
            yield Problem(f"certificate.{part}", "given", why, "source files, or leave it away")
    if certificate["source"] == "acme":
        for name in names:
            if "." not in name or name.rsplit(".", 1)[1] in ("localhost", "local", "internal", "test", "invalid", "example"):
                why = f"no public authority certifies {name}"
                yield Problem("certificate.source", '"acme"', why, PUBLIC_ONLY)


def _csp_problems(settings: Settings, site: Mapping[str, Any]) -> Iterator[Problem]:
    options = site["csp"]
    missing = [page for page in options["html"] if not Path(page).exists()]
    for page in missing:
        yield Problem("csp.html", value_of(page), "there is no such file on the controller", "the path of built HTML")
    yield from _nonce_problems(settings, site)
    if missing or (site["content"] and not Path(site["content"]).is_dir()):
        return
    policy = model.site_policy(settings, site)
    yield from csp.problems(policy, setting="csp.policy", waivers=options["waivers"], today=_now().date())
    if options["report_only"]:
        trial = model.report_only_policy(settings, site) or {}
        yield from csp.problems(trial, setting="csp.report_only", today=_now().date(), report_only=True)
    for page in model.html_files(site):
        for one in csp.page_problems(csp.hashes(page.read_text("utf-8")), policy):
            yield Problem(f"csp of {page.name}, line {one.line}", "blocked", one.found, f"it so: {one.fix}")


def _nonce_problems(settings: Settings, site: Mapping[str, Any]) -> Iterator[Problem]:
    placeholder = site["csp"]["nonce_placeholder"]
    policies = ({**settings["nginx_csp"], **site["csp"]["policy"]}, site["csp"]["report_only"])
    asked = any("'nonce'" in sources for policy in policies for sources in policy.values())
    shown = value_of(placeholder or "", secret=True)
    if asked and not placeholder:
        why = "a policy asks for 'nonce', and nobody writes nonces into the pages"
        yield Problem("csp.nonce_placeholder", "missing", why, "the random text the application writes where nonces belong")
    elif placeholder and not asked:
        why = "no directive of the policy asks for 'nonce'"
        yield Problem("csp.nonce_placeholder", shown, why, "\"'nonce'\" in script-src, or no placeholder")
    if placeholder and (len(placeholder) < NONCE_PLACEHOLDER_LENGTH or not PLACEHOLDER.fullmatch(placeholder)):
        why = "whoever guesses it can have a script blessed"
        form = f"at least {NONCE_PLACEHOLDER_LENGTH} random letters, digits, - and _, new in each build"
        yield Problem("csp.nonce_placeholder", shown, why, form)


def _security_txt_problems(options: Mapping[str, Any]) -> Iterator[Problem]:
    for number, contact in enumerate(options["contact"]):
        if not contact.startswith(("mailto:", "https://", "tel:")):
            why = "a contact is a URI (RFC 9116 §2.5.3)"
            yield Problem(f"security_txt.contact[{number}]", value_of(contact), why, 'for example "mailto:security@…"')
    checks: list[tuple[Callable[[datetime.datetime], bool], str]] = [
        (lambda when: when <= _now(), "it has passed, so nobody may trust the file"),
        (lambda when: when > _now() + datetime.timedelta(days=366), "RFC 9116 §2.5.5 recommends less than a year"),
    ]
    try:
        expires = datetime.datetime.fromisoformat(options["expires"])
        wrong = [why for fails, why in checks if fails(expires)]
    except (ValueError, TypeError):
        wrong = ["it is no time with a zone (RFC 3339)"]
    if wrong:
        form = f'for example "{(_now() + datetime.timedelta(days=300)).strftime("%Y-%m-%dT00:00:00Z")}"'
        yield Problem("security_txt.expires", value_of(options["expires"]), wrong[0], form)
    for name in ("policy", "languages", "contact"):
        texts = options[name] if isinstance(options[name], list) else [options[name] or ""]
        if any(set('"$\\\n') & set(text) for text in texts):
            yield Problem(f"security_txt.{name}", value_of(options[name]), "nginx cannot serve such a text", "it without quotes and $")


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)
