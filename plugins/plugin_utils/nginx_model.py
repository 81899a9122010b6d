# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the nginx role's templates need, worked out of its settings. Templates only write it down."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from ansible_collections.fushuma.production.plugins.plugin_utils import csp

Settings = Mapping[str, Any]
Site = Mapping[str, Any]

CERTIFICATES = "/etc/nginx/certificates"
CONTENT = "/var/www"
APPLICATIONS = "/etc/nginx/applications"  # what deployments say; plugin_utils/app_model.py writes there
MAINTENANCE = "/etc/nginx/maintenance"  # which sites are shut for a while; plugin_utils/maintenance.py writes there
REPORT_PATH = "/.well-known/csp-report"
REPORT_GROUP = "csp"
HTML = {".htm", ".html", ".shtml"}  # what nginx's mime.types calls text/html
# 32 random hexadecimal digits for each request (ngx_http_core_module), twice what CSP3 §7.1 asks of a nonce.
NONCE_VARIABLE = "$request_id"
# Empty over plain HTTP, where HSTS must not be sent (RFC 6797 §7.2); nginx leaves empty headers out.
HSTS_VARIABLE = "$production_hsts"

# What applications and their frameworks send on their own (helmet's defaults and older names of the same things).
# Two owners of one header end as `a, b`, which browsers read as neither.
UPSTREAM_HEADERS = (
    "Content-Security-Policy",
    "Content-Security-Policy-Report-Only",
    "Cross-Origin-Embedder-Policy",
    "Cross-Origin-Opener-Policy",
    "Cross-Origin-Resource-Policy",
    "Expect-CT",
    "Feature-Policy",
    "Origin-Agent-Cluster",
    "Permissions-Policy",
    "Public-Key-Pins",
    "Referrer-Policy",
    "Report-To",
    "Reporting-Endpoints",
    "Server",
    "Strict-Transport-Security",
    "X-Content-Type-Options",
    "X-DNS-Prefetch-Control",
    "X-Download-Options",
    "X-Frame-Options",
    "X-Permitted-Cross-Domain-Policies",
    "X-Powered-By",
    "X-XSS-Protection",
)


def model(settings: Settings) -> dict[str, Any]:
    """What the templates and tasks take. ``settings`` fit the role's argument_specs and hold all defaults."""
    sites = [_site(settings, site) for site in settings["nginx_sites"]]
    upstreams = [upstream for site in sites for upstream in site["upstreams"]]
    mine = [name for site in sites for name, _value in site["headers"]]
    return {
        "sites": sites,
        "upstreams": upstreams,
        "releases": any(upstream["releases"] for upstream in upstreams),
        "zones": [zone for site in sites for zone in site["zones"]],
        "hidden_headers": sorted({name.lower(): name for name in (*mine, *UPSTREAM_HEADERS)}.values()),
        "guarded": [place for site in sites for place in (site, *site["locations"]) if place["users"]],
        "placeholders": [
            {"name": site["name"], "names": site["names"], "folder": site["certificate_folder"], "acme": site["acme"]}
            for site in sites
            if site["certificate"]["source"] != "files"
        ],
        "fetched": [
            {"name": site["name"], "names": site["names"], "folder": site["certificate_folder"]}
            for site in sites
            if site["acme"]
        ],
        "acme": settings["nginx_acme"],
        "hsts": hsts(settings["nginx_hsts"]),
        "listens": list(listens(settings)),
        "probes": list(probes(settings)),
    }


def _site(settings: Settings, site: Site) -> dict[str, Any]:
    key = key_of(site["name"])
    places = [_answering(settings, place, f"{key}_{number}") for number, place in enumerate(site["locations"])]
    answering = (_answering(settings, site, key), *places)
    return {
        **answering[0],
        "names": [site["name"], *site["aliases"]],
        "root": site["root"] or (f"{CONTENT}/{site['name']}" if site["content"] else None),
        "locations": places,
        "upstreams": [one["upstream"] for one in answering if one["upstream"]],
        "zones": [{"key": one["key"], "rate": one["rate"]} for one in answering if one["rate"]],
        "headers": site_headers(settings, site),
        "certificate_folder": f"{CERTIFICATES}/{site['name']}",
        "acme": site["certificate"]["source"] == "acme",
        # A pattern outranks a prefix, so a prefix that opens the figures to some has to stand alone.
        "hides_metrics": bool(site["upstream"]) and not any(one["path"].rstrip("/") == "/metrics" for one in places),
    }


def _answering(settings: Settings, place: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A site or a location, with what names its upstream and, for an application, tells of its releases."""
    upstream = place["upstream"]
    if upstream:
        upstream = {**upstream, "key": key, "releases": releases(settings, key, upstream)}
    return {**place, "key": key, "upstream": upstream}


def releases(settings: Settings, key: str, upstream: Mapping[str, Any]) -> list[dict[str, str]]:
    """Where an application's releases are told of, for each host it runs on: ``{key, folder}``."""
    return [
        {"key": f"{key}_on{number}", "folder": f"{APPLICATIONS}/{upstream['application']}.{host}"}
        for number, host in enumerate(settings["nginx_app_hosts"] if upstream["application"] else ())
    ]


def key_of(name: str) -> str:
    """A name for nginx's zones and upstreams: of harmless characters, and the same on every run."""
    return "site_" + hashlib.sha256(name.encode()).hexdigest()[:10]


def site_policy(settings: Settings, site: Site, trial: Mapping[str, list[str]] | None = None) -> csp.Policy:
    """The policy of a site: the common one, its own directives, its pages' hashes, and where reports go.

    trial: directives to put in the place of the enforced ones, for the policy that is only reported.
    """
    policy: csp.Policy = {**settings["nginx_csp"], **site["csp"]["policy"], **(trial or {})}
    for path in html_files(site):
        found = page(path)
        policy = csp.merge(policy, {"script-src": found.script_src, "style-src": found.style_src})
    # report-uri is obsolete, but the only form that Firefox and Safari know.
    return {**policy, "report-uri": [REPORT_PATH], "report-to": [REPORT_GROUP]} if site["csp"]["report"] else policy


def html_files(site: Site) -> list[Path]:
    """The built pages on the controller whose inline parts the policy has to allow."""
    places = [Path(place) for place in site["csp"]["html"]]
    folders = [place for place in places if place.is_dir()] + ([Path(site["content"])] if site["content"] else [])
    found = [path for folder in folders for path in sorted(folder.rglob("*")) if path.suffix in HTML and path.is_file()]
    return [place for place in places if not place.is_dir()] + found


def page(path: Path) -> csp.HashResult:
    """What a page needs in its policy. Raises OSError, and UnicodeDecodeError where it is no UTF-8."""
    about = path.stat()
    return _page(path, about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=4096)
def _page(path: Path, _changed: int, _size: int) -> csp.HashResult:
    # Kept, for each use of the model by a template works everything out again.
    return csp.hashes(path.read_text("utf-8"))


def site_headers(settings: Settings, site: Site) -> list[tuple[str, str]]:
    """Every header that every response of the site carries, in the order of the settings.

    A later setting replaces an earlier one, whatever the case of its name (RFC 9110 §5.1); an empty one takes it away.
    """
    headers = policy_headers(settings, site)
    if site["csp"]["report"]:
        headers["Reporting-Endpoints"] = f'{REPORT_GROUP}="{REPORT_PATH}"'
    headers["Strict-Transport-Security"] = HSTS_VARIABLE
    named = {name.lower(): (name, value) for name, value in headers.items()}
    for own in (settings["nginx_headers"], site["headers"]):
        named |= {name.lower(): (name, "" if value is None else str(value)) for name, value in own.items()}
    return [pair for pair in named.values() if pair[1]]


def policy_headers(settings: Settings, site: Site) -> dict[str, str]:
    """The headers of the enforced policy and of the one that is only reported."""
    nonce = NONCE_VARIABLE if site["csp"]["nonce_placeholder"] else None
    headers = {"Content-Security-Policy": csp.header(site_policy(settings, site), nonce=nonce)}
    if site["csp"]["report_only"]:
        trial = site_policy(settings, site, site["csp"]["report_only"])
        headers["Content-Security-Policy-Report-Only"] = csp.header(trial, nonce=nonce)
    return headers


def hsts(options: Mapping[str, Any]) -> str:
    """Strict-Transport-Security (RFC 6797 §6.1)."""
    parts = [f"max-age={options['max_age']}"]
    parts += ["includeSubDomains"] if options["include_subdomains"] else []
    return "; ".join(parts + (["preload"] if options["preload"] else []))


def listens(settings: Settings) -> Iterator[dict[str, Any]]:
    """The ports nginx takes, for the firewall and for the rule that no two things take one."""
    for setting in ("nginx_http_port", "nginx_https_port"):
        for address in settings["nginx_listen_addresses"]:
            yield {"port": settings[setting], "setting": setting, "address": address.strip("[]"), "from": "world"}
    port = settings["nginx_status_port"]
    yield {"port": port, "setting": "nginx_status_port", "address": "127.0.0.1", "from": "host"}


def probes(settings: Settings) -> Iterator[dict[str, Any]]:
    """Where visitors find each site, to be asked as they ask it.

    address: where to connect, where whoever asks cannot find that out by the name. insecure: nobody trusts its
    certificate.
    """
    port = settings["nginx_public_https_port"]
    for site in settings["nginx_sites"]:
        found = {"name": site["name"], "url": f"https://{site['name']}{'' if port == 443 else f':{port}'}/"}
        address = {"address": settings["nginx_probe_address"]} if settings["nginx_probe_address"] else {}
        module = "http_login" if _asks_for_login(site) else "http"
        yield {**found, **address, "module": module, "insecure": site["certificate"]["source"] == "selfsigned"}


def _asks_for_login(site: Mapping[str, Any]) -> bool:
    """Whether the first page of a site is for its users alone."""
    first: Mapping[str, Any] = next((place for place in site["locations"] if place["path"] == "/"), {})
    if first.get("open") or first.get("redirect"):
        return False
    return bool(site["users"] or first.get("users"))
