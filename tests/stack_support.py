# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A whole application on throw-away hosts: nginx, the demo application's containers, MariaDB and Redis."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import application_image
import yaml
from hosts_support import ROOT, Controller, Host, Played, play
from testhosts.inventory import variables

SITE = "shop.test"
SUBNET, GATEWAY = "172.31.9.0/24", "172.31.9.1"
SECRETS = {
    name: f"canary-{number}f3b7c9d1e5a2"
    for number, name in enumerate(("admin", "app", "queue", "shop", "migrate", "session", "figures"))
}
GROUPS = ("edge", "app", "data")
READY = '"database":"ok"'


def settings(
    release: str,
    behaviour: str = "good",
    *,
    database: str,
    secrets: Mapping[str, str] = SECRETS,
    former: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The settings of the whole, on one host unless they are changed. ``database`` is the name of its host."""
    former = former or {}
    image = application_image.build(release, behaviour)
    redis = {"addresses": ["127.0.0.1", GATEWAY], "from": [SUBNET], "memory": "64mb"}

    def user(name: str, secret: str, **more: Any) -> dict[str, Any]:
        old = {"former_password": former[secret]} if secret in former else {}
        return {"name": name, "password": secrets[secret], **old, **more}

    return {
        "host_memory": "8gb",
        # AIDE takes a minute of a processor to read a host.
        "hardening_items": {"integrity": False},
        # tests/observe is about those.
        "exporters_enabled": False,
        "nginx_sites": [
            {
                "name": SITE,
                "upstream": {"application": "shop.web"},
                "certificate": {"source": "selfsigned"},
                "csp": {"html": [str(ROOT / "tools/demo_application/public/index.html")]},
                "locations": [{"path": "/api/uploads", "body_size": "10m"}],
            }
        ],
        "redis_admin_password": secrets["admin"],
        "redis_instances": [{"name": "cache", "users": [user("shop", "app", keys=["shop:*"])], **redis}],
        "mariadb_addresses": ["127.0.0.1", GATEWAY],
        "mariadb_from": [SUBNET],
        "mariadb_trusted_networks": [SUBNET],
        "mariadb_memory": "128mb",
        "mariadb_databases": [{"name": "shop"}],
        "mariadb_users": [
            user("shop", "shop", databases=["shop"], hosts=[SUBNET]),
            user("migrate", "migrate", databases=["shop"], hosts=[SUBNET], role="migrate"),
        ],
        "app_applications": [application(image, database, secrets)],
    }


def application(image: application_image.Image, database: str, secrets: Mapping[str, str]) -> dict[str, Any]:
    """The demo application as the role takes it."""
    return {
        "name": "shop",
        "image": {"archive": str(image.archive)},
        "subnet": SUBNET,
        "ready_timeout": 20,
        "drain_timeout": 10,
        "processes": [
            {
                "name": "web",
                "command": ["web"],
                "replicas": 2,
                "port": 3000,
                "ready": {"path": "/ready", "body": '"redis"'},
                "volumes": [{"source": "shop-uploads", "target": "/uploads"}],
                "memory": "256m",
                "connections": [{"host": database, "limit": 5}],
            },
            {
                "name": "worker",
                "command": ["worker"],
                "memory": "128m",
                "connections": [{"host": database, "limit": 1}],
            },
            {
                "name": "report",
                "command": ["report"],
                "schedule": "*-*-* 03:30",
                "single": True,
                "memory": "128m",
                "connections": [{"host": database, "limit": 1}],
            },
        ],
        "env": [
            {"name": "DATABASE_HOST"},
            {"name": "DATABASE_NAME", "default": "shop"},
            {"name": "DATABASE_USER", "default": "shop"},
            {"name": "DATABASE_PASSWORD", "secret": True},
            {"name": "DATABASE_POOL", "type": "int", "default": 5},
            {"name": "REDIS_HOST"},
            {"name": "REDIS_USER", "default": "shop"},
            {"name": "REDIS_PASSWORD", "secret": True},
            {"name": "SESSION_SECRET", "secret": True},
            {"name": "SESSION_FORMER_SECRET", "secret": True, "required": False},
            {"name": "UPLOADS", "default": "/uploads"},
        ],
        "values": {"DATABASE_HOST": GATEWAY, "REDIS_HOST": GATEWAY},
        "secrets": {
            "DATABASE_PASSWORD": secrets["shop"],
            "REDIS_PASSWORD": secrets["app"],
            "SESSION_SECRET": secrets["session"],
        },
        "migrate": {
            "command": ["migrate"],
            "values": {"DATABASE_USER": "migrate"},
            "secrets": {"DATABASE_PASSWORD": secrets["migrate"]},
        },
        "smoke": [
            {"url": f"https://{SITE}/", "trusted": False, "body": "Shop", "headers": {"X-Release": ""}},
            {"url": f"https://{SITE}/api/items", "trusted": False},
        ],
    }


@dataclass
class Stack:
    """Hosts with all of it, and the folder of the inventory. ``hosts`` is ``{group: [host, ...]}``."""

    folder: Path
    hosts: Mapping[str, Sequence[Host]]
    options: Mapping[str, Any] = field(default_factory=dict)  # further settings

    @property
    def edge(self) -> Host:
        return self.hosts["edge"][0]

    @property
    def app(self) -> Host:
        return self.hosts["app"][0]

    def inventory(self, told: Mapping[str, Any]) -> Path:
        known = {one.name: variables(one.record) for hosts in self.hosts.values() for one in hosts}
        children = {
            group: {"hosts": {one.name: known[one.name] for one in hosts}} for group, hosts in self.hosts.items()
        }
        path = self.folder / f"{self.edge.name}.yml"
        document = {"all": {"vars": {**told, **self.options}, "children": children}}
        path.write_text(yaml.safe_dump(document, sort_keys=False, width=1000), "utf-8")
        return path

    def play(self, playbook: str, told: Mapping[str, Any], **options: Any) -> Played:
        """Run one of the collection's playbooks with these settings to its end."""
        return play(ROOT / "playbooks" / playbook, self.inventory(told), **options)

    def start(self, playbook: str, told: Mapping[str, Any]) -> Controller:
        """The same in the background."""
        return Controller(ROOT / "playbooks" / playbook, self.inventory(told), self.folder / f"{self.edge.name}.log")

    def settings(self, release: str, behaviour: str = "good", **more: Any) -> dict[str, Any]:
        return settings(release, behaviour, database=self.hosts["data"][0].name, **more)

    def answers(self) -> str:
        """The release that answers visitors."""
        return str(
            json.loads(self.edge.sh(f"curl -sk --resolve {SITE}:443:127.0.0.1 https://{SITE}/version"))["release"]
        )


def on_one(host: Host, folder: Path, **options: Any) -> Stack:
    """All of it on one host."""
    return Stack(folder, {group: [host] for group in GROUPS}, options)
