# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the grafana role writes down, worked out of its settings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

Settings = Mapping[str, Any]
Ini = dict[str, dict[str, str]]

# Characters that the reader of grafana.ini takes for something else where a value has them without quotes.
SPECIAL = re.compile(r"[#;`\"'\\]|^\s|\s$")
# What no quotes help against: lines, the quotes themselves, and what Grafana puts something else in the place of.
UNWRITABLE = re.compile(r"[\r\n]|\"\"\"|\$\{|\$__|%\(|\"$")

UNFIT = re.compile(r"[^A-Za-z0-9_-]")  # for a uid

EXTRA: Mapping[str, Mapping[str, Any]] = {
    "prometheus": {"httpMethod": "POST", "manageAlerts": True, "alertmanagerUid": "alertmanager"},
    "loki": {"maxLines": 1000, "manageAlerts": True, "alertmanagerUid": "alertmanager"},
    "alertmanager": {"implementation": "prometheus", "handleGrafanaManagedAlerts": False},
}


def model(settings: Settings, host: str = "") -> dict[str, Any]:
    """``settings`` fit the role's argument_specs and hold all defaults; ``host`` is the inventory's name of the host.

    The result: ``ini``, the sections of grafana.ini with their keys, and ``datasources`` as Grafana provisions them.
    """
    return {"ini": ini(settings), "datasources": datasources(settings["grafana_datasources"], host)}


def own(settings: Settings) -> dict[str, dict[str, Any]]:
    """What the role itself decides on in grafana.ini."""
    root = urlsplit(settings["grafana_root_url"])
    return {
        "server": {
            "protocol": "http",
            "http_addr": settings["grafana_address"],
            "http_port": settings["grafana_port"],
            "domain": root.hostname or "localhost",
            "root_url": settings["grafana_root_url"],
            "enable_gzip": False,  # the length of a compressed page can tell secrets (BREACH)
        },
        "paths": {
            "data": "/var/lib/grafana",
            "logs": "/var/lib/grafana/log",
            "plugins": "/var/lib/grafana/plugins",
            "provisioning": "/run/grafana/provisioning",  # a copy of what stands in /etc/grafana
        },
        "database": _database(settings["grafana_database"]),
        "security": {
            # At the first start; later the role gives it to the admin, for which nothing has to be restarted.
            "admin_user": "admin",
            "admin_password": "$__file{/run/grafana/admin-password}",
            "secret_key": settings["grafana_secret_key"],
            "cookie_secure": True,
            "cookie_samesite": "strict",
            "disable_gravatar": True,
            "allow_embedding": False,
            "content_security_policy": True,
            "strict_transport_security": True,  # another address is refused
            "x_content_type_options": True,
            "x_xss_protection": False,
        },
        "users": {"allow_sign_up": False, "allow_org_create": False},
        "auth": {"disable_login_form": False},
        "auth.anonymous": {"enabled": False},
        # The role asks by it whether the admin's password is right.
        "auth.basic": {"enabled": True},
        "analytics": {
            "reporting_enabled": False,
            "check_for_updates": False,
            "check_for_plugin_updates": False,
            "feedback_links_enabled": False,
        },
        "snapshots": {"external_enabled": False},
        "news": {"news_feed_enabled": False},
        # Plugins come from elsewhere and run as Grafana: nobody brings one by a click, and none comes by itself.
        "plugins": {"plugin_admin_enabled": False, "preinstall_disabled": True},
        "dashboards": {"default_home_dashboard_path": "/etc/grafana/dashboards/production/overview.json"},
        # Rules are those of Prometheus and Loki. Grafana shows them and evaluates none of its own.
        "unified_alerting": {"enabled": True, "execute_alerts": False},
        "log": {"mode": "console", "level": "info"},
        "log.console": {"format": "text"},
        "metrics": {"enabled": True},
    }


# What an operator may say otherwise, though the role has a value for it.
YIELDING = {
    ("analytics", "feedback_links_enabled"),
    ("auth", "disable_login_form"),
    ("dashboards", "default_home_dashboard_path"),
    ("log", "level"),
    ("news", "news_feed_enabled"),
    ("plugins", "plugin_admin_enabled"),
    ("plugins", "preinstall_disabled"),
    ("security", "cookie_samesite"),
    ("unified_alerting", "enabled"),
    ("unified_alerting", "execute_alerts"),
    ("users", "allow_org_create"),
}


def _database(given: Settings) -> dict[str, Any]:
    if given["type"] == "sqlite3":
        return {"type": "sqlite3", "path": "grafana.db"}
    found = {"type": given["type"], "host": given["host"], "name": given["name"], "user": given["user"]}
    found |= {"password": given["password"]}
    found |= {"ssl_mode": given["ssl_mode"]} if given["ssl_mode"] else {}
    return found | ({"ca_cert_path": given["ca_file"]} if given["ca_file"] else {})


def ini(settings: Settings) -> Ini:
    """The sections of grafana.ini; what the operator adds comes last."""
    sections = {name: dict(values) for name, values in own(settings).items()}
    for name, values in settings["grafana_settings"].items():
        sections.setdefault(name, {}).update(values)
    return {name: {key: written(value) for key, value in values.items()} for name, values in sections.items()}


def written(value: object) -> str:
    """A value as grafana.ini has it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    return f'"""{text}"""' if SPECIAL.search(text) else text


def datasources(given: Sequence[Settings], host: str = "") -> dict[str, Any]:
    """The file by which Grafana knows its sources of data."""
    found = list(distinct(given, host))
    known = {one["uid"] for one in found}
    first = next((one["uid"] for one in found if one["type"] == "prometheus"), "")
    return {
        "apiVersion": 1,
        # What this file has brought before goes, where it is not in it any more.
        "prune": True,
        "datasources": [
            {
                "name": one["name"],
                "type": one["type"],
                "uid": one["uid"],
                "url": literal(one["url"]),
                "access": "proxy",
                "isDefault": one["uid"] == first,
                "editable": False,
                "jsonData": {
                    key: value
                    for key, value in EXTRA[one["type"]].items()
                    if key != "alertmanagerUid" or value in known
                },
                **_login(one),
            }
            for one in found
        ],
    }


def _login(one: Settings) -> dict[str, Any]:
    if not one["user"]:
        return {}
    password = {"basicAuthPassword": literal(one["password"])}
    return {"basicAuth": True, "basicAuthUser": literal(one["user"]), "secureJsonData": password}


def literal(text: str) -> str:
    """A text of a provisioned file in which Grafana puts nothing in the place of anything."""
    return text.replace("$", "$$")


def distinct(given: Sequence[Settings], host: str) -> Iterator[Settings]:
    """One source for each uid, that of the host itself if there is one; others of the same uid get uids of their own.

    Hosts that tell the same address, as those of a cluster do, tell of the same source.
    """
    uids: set[str] = set()
    places: set[tuple[str, str]] = set()
    for one in sorted(given, key=lambda source: source["host"] != host):
        if (one["uid"], one["url"]) in places:
            continue
        places.add((one["uid"], one["url"]))
        if one["uid"] in uids:
            where = one["host"] or str(len(places))
            one = {**one, "uid": f"{one['uid']}-{UNFIT.sub('-', where)}"[:40], "name": f"{one['name']} ({where})"}
        uids.add(one["uid"])
        yield one
