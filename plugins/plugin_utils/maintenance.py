# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A site that is shut for a while: what nginx is told of it, and what cannot be meant."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.fushuma.production.plugins.plugin_utils.nginx_model import MAINTENANCE, REPORT_PATH, key_of
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import Problem, value_of

Wanted = Mapping[str, Any]

MESSAGE = "We are working on this site. It will be back soon."
RETRY_AFTER = 600  # seconds
LONGEST_MESSAGE = 300  # characters; each may become ten, and nginx takes no word of more than 4096
LONGEST_RETRY = 7 * 86400
# The host itself is let in: what a deployment asks of a release goes through nginx from there.
OWN_NETWORKS = ("127.0.0.1/32", "::1/128")
# What nginx answers by itself for every site, and has to answer now too.
KEPT_PATHS = (REPORT_PATH, "/.well-known/security.txt")
# Who is let in sees what visitors see by sending this header with any value.
VISITOR_HEADER = "X-Production-Visitor"
# No upstream is ever asked for a path that begins with a dot, so what answers here is nginx.
PROBE_PATH = "/.maintenance"


def wanted_of(told: Wanted) -> dict[str, Any]:
    """What was said on the command line, ``{site, state, allow, message, retry_after}``, with the defaults filled in.

    There ``on`` may have become a boolean, and a list is a text such as ``['192.0.2.1/32']``.
    """
    state, allow = told.get("state"), told.get("allow") or []
    return {
        "site": str(told.get("site") or ""),
        "state": {True: "on", False: "off"}[state] if isinstance(state, bool) else str(state),
        "allow": [one for one in re.split(r"[\s,'\"\[\]]+", allow) if one] if isinstance(allow, str) else list(allow),
        "message": str(told.get("message") or MESSAGE),
        "retry_after": str(told.get("retry_after") or RETRY_AFTER),
    }


def problems(wanted: Wanted, sites: Sequence[Mapping[str, Any]]) -> list[Problem]:
    """What cannot be meant. ``sites`` are the host's nginx_sites."""
    return [
        *_site_problems(wanted["site"], sites),
        *_state_problems(wanted["state"]),
        *(
            problem
            for number, one in enumerate(wanted["allow"])
            for problem in _network_problems(f"allow[{number}]", one)
        ),
        *_page_problems(wanted),
    ]


def _site_problems(site: str, sites: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    names = [str(one["name"]) for one in sites]
    whose = [str(one["name"]) for one in sites if site in (one.get("aliases") or [])]
    if whose:
        yield Problem("site", value_of(site), f"it is another name of {whose[0]}", whose[0])
    elif site not in names:
        instead = f"one of {', '.join(sorted(names))}" if names else "a site, once nginx_sites has one"
        yield Problem("site", value_of(site), "nginx has no such site", instead)


def _state_problems(state: str) -> Iterator[Problem]:
    if state not in ("on", "off"):
        yield Problem("state", value_of(state), "the site is either shut or not", "on or off")


def _network_problems(setting: str, value: object) -> Iterator[Problem]:
    try:
        network = ipaddress.ip_network(str(value))
    except ValueError as error:
        yield Problem(setting, value_of(value), f"it is no network ({error})", 'for example "203.0.113.7/32"')
        return
    if network.prefixlen == 0:
        yield Problem(setting, value_of(value), "it is every address there is", "the networks of those who work on it")


def _page_problems(wanted: Wanted) -> Iterator[Problem]:
    message, retry = wanted["message"], wanted["retry_after"]
    if len(message) > LONGEST_MESSAGE:
        yield Problem("message", value_of(message), "nobody reads that much", f"at most {LONGEST_MESSAGE} characters")
    if not (re.fullmatch(r"[0-9]{1,9}", retry) and 1 <= int(retry) <= LONGEST_RETRY):
        why = f"it is no number of seconds from 1 to {LONGEST_RETRY}"
        yield Problem("retry_after", value_of(retry), why, f"for example {RETRY_AFTER}")


def model(wanted: Wanted, addresses: Sequence[str], port: int) -> dict[str, Any]:
    """What service_config is to do: ``{files, probe}``. ``wanted`` has no problems.

    addresses, port: where nginx listens for TLS.
    """
    site, on = wanted["site"], wanted["state"] == "on"
    texts = {"http": _http(wanted), "server": _server(wanted)}
    files = [
        {"dest": f"{MAINTENANCE}/{site}.{part}", **({"content": text} if on else {"state": "absent"})}
        for part, text in texts.items()
    ]
    probe = {
        "http": f"https://{site}{PROBE_PATH}",
        "address": f"{_asked(addresses)}:{port}",
        "headers": {VISITOR_HEADER: "probe"},
        "status": 503 if on else 404,
        "expects": {"Retry-After": wanted["retry_after"]} if on else {},
        "body": "@config_digest@" if on else "",
    }
    return {"files": files, "probe": [probe]}


def _asked(addresses: Sequence[str]) -> str:
    """An address of this host on which nginx listens."""
    return "127.0.0.1" if {"0.0.0.0", "127.0.0.1"} & set(addresses) else addresses[0].replace("[::]", "[::1]")


def _http(wanted: Wanted) -> str:
    key = key_of(wanted["site"])
    inside = dict.fromkeys([*OWN_NETWORKS, *map(str, wanted["allow"])])
    return f"""\
# Written by the runbook maintenance_mode, and taken away by it.
geo ${key}_outside {{
    default 1;
{"".join(f"    {network} 0;{chr(10)}" for network in inside)}}}
map $http_{VISITOR_HEADER.lower().replace("-", "_")} ${key}_visitor {{
    default 1;
    "" ${key}_outside;
}}
map $uri ${key}_shut {{
    default ${key}_visitor;
{"".join(f"    {path} 0;{chr(10)}" for path in KEPT_PATHS)}}}
"""


def _server(wanted: Wanted) -> str:
    return f"""\
# Written by the runbook maintenance_mode, and taken away by it.
if (${key_of(wanted["site"])}_shut) {{
    return 503;
}}
error_page 503 @maintenance;
location @maintenance {{
    include /etc/nginx/headers/{wanted["site"]}.conf;
    add_header Retry-After {wanted["retry_after"]} always;
    add_header Cache-Control no-store always;
    default_type text/html;
    return 503 "{page(wanted["site"], wanted["message"])}";
}}
"""


def page(site: str, message: str) -> str:
    """The page in one line. It has nothing that a policy would have to allow, nor anything that nginx takes apart."""
    start = "<!doctype html><meta charset=utf-8><meta name=viewport content='width=device-width'>"
    return f"{start}<title>{site}</title><h1>{site}</h1><p>{_harmless(message)}</p><!-- @config_digest@ -->"


def _harmless(text: str) -> str:
    """The text with everything that HTML or nginx could take for theirs as a numbered character."""
    return re.sub(r"[^A-Za-z0-9 .,:!?()-]", lambda found: f"&#{ord(found[0])};", text)
