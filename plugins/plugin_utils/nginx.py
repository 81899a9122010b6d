# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What cannot work in the settings of the nginx role."""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.fushuma.production.plugins.plugin_utils import csp, pem
from ansible_collections.fushuma.production.plugins.plugin_utils import nginx_model as model
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import Problem, value_of

Settings = Mapping[str, Any]

CONTENT_LIMIT = 8 * 1024 * 1024  # bytes; it travels with every run
NONCE_PLACEHOLDER_LENGTH = 16
HSTS_PRELOAD_AGE = 31536000  # seconds; the least that hstspreload.org takes
LONGEST_TEXT = 4000  # characters; nginx reads its configuration through a buffer of 4096 (NGX_CONF_BUFFER)

SIZE = re.compile(r"[1-9]\d*[kKmMgG]?|0")
# Units in falling order, each once, as ngx_parse_time takes them where milliseconds count.
DURATION = re.compile(r"(?=\d)(\d+w)?(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?|\d+")
TIMEOUT = re.compile(rf"(?=.*[1-9])({DURATION.pattern})")
RATE = re.compile(r"[1-9]\d*r/[sm]")
PROBE_ADDRESS = re.compile(r"(\[[0-9a-f:]+\]|[A-Za-z0-9.-]+):[1-9]\d{0,4}")
HOST_NAME = re.compile(r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
HEADER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
# Visible ASCII without what stands for something else in nginx's strings; quotes are escaped by the templates.
HEADER_VALUE = re.compile(r"[ -#%-\[\]-~]*")
LOCATION = re.compile(r"(= )?/[A-Za-z0-9/._~@:+-]*")
HOST_PATH = re.compile(r"/[A-Za-z0-9/._~@:+-]*")
FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
MAIL = re.compile(r"[^\s@]+@[^\s@]+")
USER = re.compile(r"[A-Za-z0-9._@-]+")
PLACEHOLDER = re.compile(r"[A-Za-z0-9_-]+")
SERVER = re.compile(r"unix:/[A-Za-z0-9/._-]+|(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):(\d{1,5})")
APPLICATION = re.compile(r"[a-z][a-z0-9-]*\.[a-z][a-z0-9-]*")
URL = re.compile(r"(https?://[^\s\"$;{}\\]+|/[^\s\"$;{}\\]*)")
UNSAFE_TEXT = set('"$\\\n\r')
PUBLIC_ONLY = "a name that the world's DNS knows, or another source: selfsigned or files"
# Names that no public authority certifies: RFC 6761, RFC 6762, RFC 8375, and ICANN's resolution on .internal.
PRIVATE_NAMES = (
    *("example", "home.arpa", "internal", "invalid", "local", "localhost", "test"),
    *("example.com", "example.net", "example.org"),
)

OWN_OPTIONS = {
    "content-security-policy": "nginx_csp or the site's csp.policy",
    "content-security-policy-report-only": "the site's csp.report_only",
    "reporting-endpoints": "the site's csp.report",
    "strict-transport-security": "nginx_hsts",
}
# A second copy of these confuses clients, or ends the connection.
WRITTEN_BY_NGINX = {
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "date",
    "etag",
    "last-modified",
    "location",
    "server",
    "transfer-encoding",
}

FORMS: Mapping[str, tuple[re.Pattern[str], str, str]] = {
    "size": (SIZE, "it is no size that nginx knows", 'for example "10m", in k, m or g'),
    "duration": (DURATION, "it is no duration that nginx knows", 'for example "1m30s", in w, d, h, m, s and ms'),
    "timeout": (TIMEOUT, "nginx knows no such time to wait", 'for example "1m30s", in w, d, h, m, s and ms'),
    "rate": (RATE, "it is no rate that nginx knows", 'for example "10r/s" or "100r/m"'),
    "path": (HOST_PATH, "it is no absolute path of letters, digits and /._~@:+-", 'for example "/srv/www"'),
    "mail": (MAIL, "it is no address of mail", 'for example "ops@fushuma.com"'),
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


def _at_least(least: int, setting: str, value: int, why: str, instead: str) -> Iterator[Problem]:
    if value < least:
        yield Problem(setting, value_of(value), why, instead)


def _burst(setting: str, value: int) -> Iterator[Problem]:
    yield from _at_least(0, setting, value, "it counts requests", "0 or more")


def _network(setting: str, value: str) -> Iterator[Problem]:
    try:
        ipaddress.ip_network(value)
    except ValueError as error:
        yield Problem(setting, value_of(value), f"it is no network ({error})", 'for example "10.0.0.0/8" or "::1"')


def _server_problems(settings: Settings) -> Iterator[Problem]:
    for name in ("nginx_http_port", "nginx_https_port", "nginx_public_https_port", "nginx_status_port"):
        if not 1 <= settings[name] <= 65535:
            yield Problem(name, value_of(settings[name]), "ports go from 1 to 65535", "a port in that range")
    address = settings["nginx_probe_address"]
    if address and not PROBE_ADDRESS.fullmatch(address):
        yield Problem("nginx_probe_address", value_of(address), "it is no address with a port", '"10.0.1.11:443"')
    yield from _form("timeout", "nginx_client_timeout", settings["nginx_client_timeout"])
    yield from _form("duration", "nginx_keepalive_timeout", settings["nginx_keepalive_timeout"])
    for number, network in enumerate(settings["nginx_trusted_proxies"]):
        yield from _network(f"nginx_trusted_proxies[{number}]", network)
    yield from _listen_problems(settings["nginx_listen_addresses"])
    connections = settings["nginx_worker_connections"]
    why = "without connections nothing is served"
    yield from _at_least(1, "nginx_worker_connections", connections, why, "for example 4096")
    yield from _header_problems("nginx_headers", settings["nginx_headers"])
    yield from _hsts_problems(settings["nginx_hsts"])
    yield from _shape_problems("nginx_csp", settings["nginx_csp"])
    acme = settings["nginx_acme"]
    yield from _form("mail", "nginx_acme.email", acme["email"])
    yield from _form("path", "nginx_acme.ca_bundle", acme["ca_bundle"])
    if not acme["directory"].startswith("https://"):
        why = "an ACME directory is only trusted over TLS"
        yield Problem("nginx_acme.directory", value_of(acme["directory"]), why, "its https:// URL")
    if not 0.1 <= acme["renew_at"] <= 0.9:
        why = "a renewal needs time before the end and must not follow on every run"
        yield Problem("nginx_acme.renew_at", value_of(acme["renew_at"]), why, "a part from 0.1 to 0.9, such as 0.66")


def _listen_problems(addresses: list[str]) -> Iterator[Problem]:
    if not addresses:
        yield Problem("nginx_listen_addresses", "[]", "nobody could connect", '["0.0.0.0", "[::]"]')
    for number, address in enumerate(addresses):
        setting = f"nginx_listen_addresses[{number}]"
        try:
            version = ipaddress.ip_address(address.strip("[]")).version
            if address != (f"[{address.strip('[]')}]" if version == 6 else address.strip("[]")):
                raise ValueError("IPv6 stands in brackets, IPv4 does not")
        except ValueError as error:
            yield Problem(setting, value_of(address), f"nginx cannot listen there ({error})", '"0.0.0.0" or "[::]"')
        if address in addresses[:number]:
            yield Problem(setting, value_of(address), "it stands there twice", "each address once")


def _hsts_problems(hsts: Mapping[str, Any]) -> Iterator[Problem]:
    yield from _at_least(0, "nginx_hsts.max_age", hsts["max_age"], "it counts seconds", "0 or more")
    if hsts["preload"] and (hsts["max_age"] < HSTS_PRELOAD_AGE or not hsts["include_subdomains"]):
        why = "browsers take only sites with include_subdomains and a max_age of a year into their lists"
        form = f"max_age {HSTS_PRELOAD_AGE} or more and include_subdomains true beside it"
        yield Problem("nginx_hsts.preload", "true", why, form)


def _header_problems(setting: str, headers: Mapping[str, Any]) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for name, value in headers.items():
        where, lower = f"{setting}.{name}", name.lower()
        if lower in OWN_OPTIONS:
            yield Problem(where, value_of(value), "this header has an option of its own", OWN_OPTIONS[lower])
        elif lower in WRITTEN_BY_NGINX:
            why = "nginx or the application writes this header for each response"
            yield Problem(where, value_of(value), why, "no such header here")
        elif not HEADER_NAME.fullmatch(name):
            yield Problem(where, value_of(name), "it is no header name (RFC 9110 §5.1)", "letters, digits and hyphens")
        elif lower in seen:
            why = f"{seen[lower]} is the same header (RFC 9110 §5.1)"
            yield Problem(where, value_of(value), why, "one of the two")
        else:
            yield from _header_value_problems(where, value)
        seen.setdefault(lower, name)


def _header_value_problems(setting: str, value: object) -> Iterator[Problem]:
    if isinstance(value, (bool, list, Mapping)):
        yield Problem(setting, value_of(value), "a header holds one line of text", "that line, in quotes")
    elif value is not None and not HEADER_VALUE.fullmatch(str(value)):
        why = "a header is one line of ASCII, and nginx's strings hold no $ and no backslash"
        yield Problem(setting, value_of(value), why, "the value without these")
    elif len(str(value)) > LONGEST_TEXT:
        yield _too_long(setting, str(value), "a shorter value")


def _too_long(setting: str, text: str, instead: str) -> Problem:
    shown = f"a header of {len(text)} characters"
    return Problem(setting, shown, f"nginx takes {LONGEST_TEXT} in one text of its configuration", instead)


def _name_problems(settings: Settings) -> Iterator[Problem]:
    places: list[tuple[str, str]] = []
    for number, site in enumerate(settings["nginx_sites"]):
        places.append((f"nginx_sites[{number}].name", site["name"]))
        places += [(f"nginx_sites[{number}].aliases[{i}]", alias) for i, alias in enumerate(site["aliases"])]
    first: dict[str, str] = {}
    for setting, name in places:
        form = 'for example "www.fushuma.com"'
        if _is_address(name):
            why = "TLS clients never name an IP address (RFC 6066 §3), so nobody would reach the site"
            yield Problem(setting, value_of(name), why, form)
        elif not HOST_NAME.fullmatch(name):
            yield Problem(setting, value_of(name), "it is no host name in lower case (RFC 1123)", form)
        if name in first:
            yield Problem(setting, value_of(name), f"{first[name]} has the same name", "a name of its own")
        first.setdefault(name, setting)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _site_problems(settings: Settings, site: Mapping[str, Any]) -> Iterator[Problem]:
    sources = [name for name in ("root", "content", "upstream") if site[name]]
    if len(sources) != 1:
        yield Problem(
            "",
            f"a site with {' and '.join(sources) or 'no source'}",
            "what answers its requests must be one thing",
            "exactly one of root, content and upstream",
        )
    yield from _form("path", "root", site["root"])
    if not FILE_NAME.fullmatch(site["index"]):
        yield Problem("index", value_of(site["index"]), "it is no name of a file", 'for example "index.html"')
    yield from _form("size", "body_size", site["body_size"])
    yield from _form("rate", "rate", site["rate"])
    yield from _burst("burst", site["burst"])
    yield from _header_problems("headers", site["headers"])
    yield from _user_problems(site["users"])
    if not settings["nginx_app_hosts"]:
        yield from _homeless_problems(site)
    if site["upstream"]:
        yield from _upstream_problems("upstream", site["upstream"])
        yield from _unread_problems(site)
    if site["content"]:
        yield from _content_problems(site)
    yield from _immutable_problems(site)
    yield from _location_problems(site)
    yield from _certificate_problems(settings, site)
    yield from _csp_problems(settings, site)
    if site["security_txt"]:
        yield from _security_txt_problems(site["security_txt"])


def _unread_problems(site: Mapping[str, Any]) -> Iterator[Problem]:
    """What only sites of files have, asked of one whose answers come from elsewhere."""
    instead = "it for a site with root or content"
    if site["immutable"]:
        why = "how long answers of an upstream are kept, the application says"
        yield Problem("immutable", value_of(site["immutable"]), why, instead)
    if site["single_page"] and not any(place["root"] for place in site["locations"]):
        yield Problem("single_page", "true", "the upstream answers all paths", instead)


def _upstream_problems(setting: str, upstream: Mapping[str, Any]) -> Iterator[Problem]:
    application = upstream["application"]
    if not (upstream["servers"] or application):
        yield Problem(f"{setting}.servers", "[]", "nobody would answer", 'for example ["127.0.0.1:3000"]')
    if upstream["servers"] and application:
        why = "each deployment of the application says which servers answer"
        yield Problem(f"{setting}.servers", value_of(upstream["servers"]), why, "servers or application, not both")
    if application and not APPLICATION.fullmatch(application):
        why = "it is no process of an application"
        yield Problem(f"{setting}.application", value_of(application), why, 'NAME.PROCESS, for example "shop.web"')
    for number, server in enumerate(upstream["servers"]):
        match = SERVER.fullmatch(server)
        if not match or (match[2] and not 1 <= int(match[2]) <= 65535):
            why = "it is no address with a port"
            yield Problem(f"{setting}.servers[{number}]", value_of(server), why, 'for example "127.0.0.1:3000"')
    for name in ("connect_timeout", "read_timeout", "send_timeout"):
        yield from _form("timeout", f"{setting}.{name}", upstream[name])
    why = "each request would open a connection of its own"
    yield from _at_least(1, f"{setting}.keepalive", upstream["keepalive"], why, "1 or more, such as 16")


def _homeless_problems(site: Mapping[str, Any]) -> Iterator[Problem]:
    """Upstreams that are applications, where no host has any."""
    places = [("upstream", site), *((f"locations[{n}].upstream", place) for n, place in enumerate(site["locations"]))]
    for where, place in places:
        if place["upstream"] and place["upstream"]["application"]:
            shown = value_of(place["upstream"]["application"])
            yield Problem(f"{where}.application", shown, "no host is in the group app", "servers, or put a host there")


def _content_problems(site: Mapping[str, Any]) -> Iterator[Problem]:
    folder = Path(site["content"])
    if not folder.is_absolute() or not folder.is_dir():
        why = "there is no such folder on the controller"
        yield Problem("content", value_of(str(folder)), why, "the absolute path of the built files")
        return
    if not (folder / site["index"]).is_file():
        yield Problem("content", value_of(str(folder)), f"it holds no {site['index']}", "the folder of the built files")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > CONTENT_LIMIT:
        why = f"its {size >> 20} MiB would travel with every run"
        yield Problem("content", value_of(str(folder)), why, "root, and have a deployment fill that folder")


def _immutable_problems(site: Mapping[str, Any]) -> Iterator[Problem]:
    taken = [place["path"] for place in site["locations"]]
    for number, prefix in enumerate(site["immutable"]):
        where = f"immutable[{number}]"
        if not HOST_PATH.fullmatch(prefix) or not prefix.endswith("/") or prefix == "/":
            yield Problem(where, value_of(prefix), "it is no path prefix", 'for example "/assets/"')
        elif prefix in (*taken, *site["immutable"][:number]):
            yield Problem(where, value_of(prefix), "the same prefix has another rule", "it in one place")


def _location_problems(site: Mapping[str, Any]) -> Iterator[Problem]:
    paths: list[str] = []
    for number, place in enumerate(site["locations"]):
        where = f"locations[{number}]"
        path = place["path"]
        if not LOCATION.fullmatch(path):
            why = "it is no path"
            yield Problem(f"{where}.path", value_of(path), why, 'a prefix "/api/" or an exact path "= /metrics"')
        if path in paths:
            why = "another location has the same path"
            yield Problem(f"{where}.path", value_of(path), why, "one location with all of it")
        paths.append(path)
        if path.lstrip("= ") in (model.REPORT_PATH, "/.well-known/security.txt", "/"):
            why, form = "the site itself answers there", "the site's own options (csp, security_txt, upstream)"
            yield Problem(f"{where}.path", value_of(path), why, form)
        yield from (problem.under(where) for problem in _place_problems(place))
        if place["open"] and (place["users"] or not site["users"]):
            why = "it asks for users of its own" if place["users"] else "nobody is asked for a password on this site"
            yield Problem(
                f"{where}.open", "true", why, "one of open and users" if place["users"] else "it for a site with users"
            )


def _place_problems(place: Mapping[str, Any]) -> Iterator[Problem]:
    actions = [name for name in ("upstream", "root", "redirect", "status") if place[name] is not None]
    if len(actions) > 1:
        why = f"it is to do {' and '.join(actions)} at once"
        yield Problem("", value_of(place["path"]), why, "one of them, or none to be served as the site is")
    ready = {"redirect", "status"} & set(actions)
    limits = [name for name in ("allow", "users", "open", "rate", "body_size") if place[name]]
    if ready and limits:
        why = f"nginx sends a {ready.pop()} before it looks at {' and '.join(limits)}"
        yield Problem("", value_of(place["path"]), why, "one of the two")
    if place["upstream"]:
        yield from _upstream_problems("upstream", place["upstream"])
    yield from _form("path", "root", place["root"])
    if place["redirect"] is not None and not URL.fullmatch(place["redirect"]):
        why = "it is no URL or path that nginx can redirect to"
        yield Problem("redirect", value_of(place["redirect"]), why, 'for example "/new" or "https://…"')
    if place["status"] is not None:
        yield from _status_problems(place["status"])
    yield from _form("size", "body_size", place["body_size"])
    yield from _form("rate", "rate", place["rate"])
    yield from _burst("burst", place["burst"])
    for index, network in enumerate(place["allow"]):
        yield from _network(f"allow[{index}]", network)
    yield from _user_problems(place["users"])


def _user_problems(users: Mapping[str, Any]) -> Iterator[Problem]:
    for name in users:
        if not USER.fullmatch(name):
            why = "a line of the file of passwords cannot hold it"
            yield Problem("users", value_of(name), why, "letters, digits and . _ @ -")


def _status_problems(status: int) -> Iterator[Problem]:
    if 300 <= status <= 399:
        yield Problem("status", value_of(status), "a redirect needs a target", "redirect, with the URL or path")
    elif not 200 <= status <= 599:
        yield Problem("status", value_of(status), "it is no HTTP status", "for example 404")


def _certificate_problems(settings: Settings, site: Mapping[str, Any]) -> Iterator[Problem]:
    certificate = site["certificate"]
    names = [site["name"], *site["aliases"]]
    if certificate["source"] == "files":
        for part in ("chain", "key"):
            if not certificate[part]:
                form = "it in PEM form, the key from a vault"
                yield Problem(f"certificate.{part}", "missing", "source is files", form)
        if certificate["chain"] and certificate["key"]:
            yield from pem.pair_problems(certificate["chain"], certificate["key"], names, _now())
        return
    for part in ("chain", "key"):
        if certificate[part]:
            why = f"source is {certificate['source']}, so nobody reads it"
            yield Problem(f"certificate.{part}", "given", why, "source files, or leave it away")
    # An authority that needs a bundle of its own is a private one, and may certify whatever it likes.
    if certificate["source"] == "acme" and not settings["nginx_acme"]["ca_bundle"]:
        for name in names:
            if "." not in name or f".{name}".endswith(tuple(f".{ending}" for ending in PRIVATE_NAMES)):
                why = f"no public authority certifies {name}"
                yield Problem("certificate.source", '"acme"', why, PUBLIC_ONLY)


def _csp_problems(settings: Settings, site: Mapping[str, Any]) -> Iterator[Problem]:
    options = site["csp"]
    unread = list(_page_problems(site))
    shapes = [
        *_shape_problems("csp.policy", options["policy"]),
        *_shape_problems("csp.report_only", options["report_only"]),
    ]
    yield from (*unread, *shapes)
    if shapes or any(_shape_problems("nginx_csp", settings["nginx_csp"])):
        return
    yield from _nonce_problems(settings, site)
    if unread:
        return
    policy = model.site_policy(settings, site)
    today = _now().date()
    found = list(csp.problems(policy, setting="csp.policy", waivers=options["waivers"], today=today))
    if options["report_only"]:
        trial = model.site_policy(settings, site, options["report_only"])
        found += csp.problems(trial, setting="csp.report_only", today=today, report_only=True)
    yield from found or _length_problems(settings, site)
    for path in model.html_files(site):
        for one in csp.page_problems(model.page(path), policy):
            yield Problem(f"csp of {path}, line {one.line}", "blocked", one.found, f"it so: {one.fix}")


def _shape_problems(setting: str, policy: Mapping[str, Any]) -> Iterator[Problem]:
    """What keeps a policy from being merged with another at all."""
    for finding in csp.findings(policy):
        if finding.rule == "shape":
            place = "" if finding.at is None else f"[{finding.at}]"
            yield Problem(f"{setting}.{finding.directive}{place}", finding.value, finding.why, finding.instead)


def _page_problems(site: Mapping[str, Any]) -> Iterator[Problem]:
    """Pages whose inline parts cannot be read."""
    for path in model.html_files(site):
        try:
            model.page(path)
        except UnicodeDecodeError as error:
            why = f"it is no UTF-8 ({error.reason} at byte {error.start}), and nginx would say that it is"
            yield Problem("csp.html", value_of(str(path)), why, "the page in UTF-8")
        except OSError as error:
            why = f"the controller cannot read it ({error.strerror})"
            yield Problem("csp.html", value_of(str(path)), why, "the path of built HTML")


def _length_problems(settings: Settings, site: Mapping[str, Any]) -> Iterator[Problem]:
    """Policies that nginx could not take. Only a policy without problems has a header at all."""
    asked = _asks_for_nonce(settings, site)
    if asked and not site["csp"]["nonce_placeholder"]:
        return
    for name, value in model.policy_headers(settings, site).items():
        if len(value) > LONGEST_TEXT:
            setting = "csp.report_only" if name.endswith("Report-Only") else "csp.policy"
            yield _too_long(setting, value, "fewer hashes: move inline scripts and styles into files")


def _asks_for_nonce(settings: Settings, site: Mapping[str, Any]) -> bool:
    policies: Iterable[csp.Policy] = (
        {**settings["nginx_csp"], **site["csp"]["policy"]},
        site["csp"]["report_only"],
    )
    return any("'nonce'" in sources for policy in policies for sources in policy.values())


def _nonce_problems(settings: Settings, site: Mapping[str, Any]) -> Iterator[Problem]:
    placeholder = site["csp"]["nonce_placeholder"]
    asked = _asks_for_nonce(settings, site)
    shown = value_of(placeholder or "", secret=True)
    if asked and not placeholder:
        why = "a policy asks for 'nonce', and nobody writes nonces into the pages"
        form = "the random text the application writes where nonces belong"
        yield Problem("csp.nonce_placeholder", "missing", why, form)
    elif placeholder and not asked:
        why = "no directive of the policy asks for 'nonce'"
        yield Problem("csp.nonce_placeholder", shown, why, "\"'nonce'\" in script-src, or no placeholder")
    if placeholder and (len(placeholder) < NONCE_PLACEHOLDER_LENGTH or not PLACEHOLDER.fullmatch(placeholder)):
        why = "whoever guesses it can have a script blessed"
        form = f"at least {NONCE_PLACEHOLDER_LENGTH} random letters, digits, - and _, new in each build"
        yield Problem("csp.nonce_placeholder", shown, why, form)


def _security_txt_problems(options: Mapping[str, Any]) -> Iterator[Problem]:
    if not options["contact"]:
        yield Problem("security_txt.contact", "[]", "it is what the file is for", 'for example ["mailto:security@…"]')
    for number, contact in enumerate(options["contact"]):
        if not contact.startswith(("mailto:", "https://", "tel:")):
            why = "a contact is a URI (RFC 9116 §2.5.3)"
            yield Problem(f"security_txt.contact[{number}]", value_of(contact), why, 'for example "mailto:security@…"')
    if options["policy"] and not options["policy"].startswith("https://"):
        why = "a policy is read over TLS (RFC 9116 §2.5.7)"
        yield Problem("security_txt.policy", value_of(options["policy"]), why, "its https:// URL")
    why = _why_not_until(options["expires"])
    if why:
        form = f'for example "{(_now() + datetime.timedelta(days=300)).strftime("%Y-%m-%dT00:00:00Z")}"'
        yield Problem("security_txt.expires", value_of(options["expires"]), why, form)
    for name in ("policy", "languages", "contact"):
        if UNSAFE_TEXT & set("".join(options[name] or "")):
            why = "nginx cannot serve such a text"
            yield Problem(f"security_txt.{name}", value_of(options[name]), why, "it without quotes and $")


def _why_not_until(expires: str) -> str:
    """Why a security.txt cannot be valid until then; "" if it can."""
    try:
        left = datetime.datetime.fromisoformat(expires) - _now()
    except (ValueError, TypeError):
        return "it is no time with a zone (RFC 3339)"
    if left <= datetime.timedelta(0):
        return "it has passed, so nobody may trust the file"
    return "RFC 9116 §2.5.5 recommends less than a year" if left > datetime.timedelta(days=366) else ""


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
