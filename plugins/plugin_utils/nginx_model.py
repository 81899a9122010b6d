# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the nginx role's templates need, worked out of its settings. Templates only write it down."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.fushuma.production.plugins.plugin_utils import csp

Settings = Mapping[str, Any]
Site = Mapping[str, Any]

CERTIFICATES = "/etc/nginx/certificates"
CONTENT = "/var/www"
REPORT_PATH = "/.well-known/csp-report"
REPORT_GROUP = "csp"
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
    mine = {name for site in sites for name, _value in site["headers"]}
    return {
        "sites": sites,
        "upstreams": [upstream for site in sites for upstream in site["upstreams"]],
        "zones": [zone for site in sites for zone in site["zones"]],
        "hidden_headers": sorted(mine | set(UPSTREAM_HEADERS)),
        "guarded": [place for site in sites for place in site["locations"] if place["users"]],
        "placeholders": [
            {"name": site["name"], "names": site["names"], "folder": site["certificate_folder"], "acme": site["acme"]}
            for site in sites
            if site["certificate"]["source"] != "files"
        ],
        "fetched": [{"name": site["name"], "names": site["names"]} for site in sites if site["acme"]],
        "acme": settings["nginx_acme"],
        "hsts": hsts(settings["nginx_hsts"]),
        "listens": list(listens(settings)),
    }


def _site(settings: Settings, site: Site) -> dict[str, Any]:
    key = _key(site["name"])
    places = [{**place, "key": f"{key}_{number}"} for number, place in enumerate(site["locations"])]
    headers = site_headers(settings, site)
    return {
        **site,
        "key": key,
        "names": [site["name"], *site["aliases"]],
        "root": site["root"] or (f"{CONTENT}/{site['name']}" if site["content"] else None),
        "locations": places,
        "upstreams": [{**one["upstream"], "key": one["key"]} for one in ({**site, "key": key}, *places) if one["upstream"]],
        "zones": [{"key": one["key"], "rate": one["rate"]} for one in ({**site, "key": key}, *places) if one["rate"]],
        "headers": headers,
        "certificate_folder": f"{CERTIFICATES}/{site['name']}",
        "acme": site["certificate"]["source"] == "acme",
        "hides_metrics": not any(place["path"].lstrip("= ").rstrip("/") == "/metrics" for place in places),
    }


def _key(name: str) -> str:
    """A name for nginx's zones and upstreams: of harmless characters, and the same on every run."""
    return "site_" + hashlib.sha256(name.encode()).hexdigest()[:10]


def site_policy(settings: Settings, site: Site) -> csp.Policy:
    """The enforced policy of a site: the common one, its own directives, its pages' hashes, and where reports go."""
    policy: csp.Policy = {**settings["nginx_csp"], **site["csp"]["policy"]}
    for page in html_files(site):
        found = csp.hashes(page.read_text("utf-8"))
        policy = csp.merge(policy, {"script-src": found.script_src, "style-src": found.style_src})
    return _with_reports(site, policy)


def report_only_policy(settings: Settings, site: Site) -> csp.Policy | None:
    """The policy that is only reported: the enforced one with the changes under trial."""
    trial = site["csp"]["report_only"]
    return {**site_policy(settings, site), **trial} if trial else None


def _with_reports(site: Site, policy: csp.Policy) -> csp.Policy:
    # report-uri is obsolete, but the only form that Firefox and Safari know.
    return {**policy, "report-uri": [REPORT_PATH], "report-to": [REPORT_GROUP]} if site["csp"]["report"] else policy


def html_files(site: Site) -> list[Path]:
    """The built pages on the controller whose inline parts the policy has to allow."""
    places = [Path(place) for place in (*site["csp"]["html"], *([site["content"]] if site["content"] else []))]
    return [page for place in places for page in (sorted(place.rglob("*.html")) if place.is_dir() else [place])]


def site_headers(settings: Settings, site: Site) -> list[tuple[str, str]]:
    """Every header that every response of the site carries, in the order of the settings."""
    nonce = NONCE_VARIABLE if site["csp"]["nonce_placeholder"] else None
    headers = {"Content-Security-Policy": csp.header(site_policy(settings, site), nonce=nonce)}
    trial = report_only_policy(settings, site)
    if trial:
        headers["Content-Security-Policy-Report-Only"] = csp.header(trial, nonce=nonce)
    if site["csp"]["report"]:
        headers["Reporting-Endpoints"] = f'{REPORT_GROUP}="{REPORT_PATH}"'
    headers["Strict-Transport-Security"] = HSTS_VARIABLE
    headers.update({name: str(value) for name, value in {**settings["nginx_headers"], **site["headers"]}.items()})
    return [(name, value) for name, value in headers.items() if value]


def hsts(options: Mapping[str, Any]) -> str:
    """Strict-Transport-Security (RFC 6797 §6.1)."""
    parts = [f"max-age={options['max_age']}"]
    parts += ["includeSubDomains"] if options["include_subdomains"] else []
    return "; ".join(parts + (["preload"] if options["preload"] else []))


def listens(settings: Settings) -> Iterator[dict[str, Any]]:
    """The ports nginx takes, for the firewall and for the rule that no two things take one."""
    for setting, open_to in (("nginx_http_port", "world"), ("nginx_https_port", "world")):
        yield {"port": settings[setting], "setting": setting, "address": "", "from": open_to}
    yield {
        "port": settings["nginx_status_port"],
        "setting": "nginx_status_port",
        "address": "127.0.0.1",
        "from": "host",
    }
