# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the alertmanager role writes and exports, for settings as operators have them."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from .render import Role

OPERATORS = {"name": "operators", "webhooks": [{"url": "https://bot.fushuma.com/canary-81c0"}]}
USER = {"name": "prometheus", "password": "canary-5e0d1c8b7f92"}
TLS = {"certificate": "/srv/chain.pem", "key": "/srv/key.pem"}
FOLDER = "/etc/prometheus/alertmanager"


def role(**settings: Any) -> Role:
    given = {"receivers": [OPERATORS], **settings}
    return Role("alertmanager", {f"alertmanager_{name}": value for name, value in given.items()})


def test_little_makes_few_files() -> None:
    files = role().files
    assert sorted(files) == [
        "/etc/default/prometheus-alertmanager",
        "/etc/prometheus/alertmanager.yml",
        "/etc/prometheus/alertmanager_templates/production.tmpl",
        "/etc/prometheus/amtool.yml",
        "/etc/systemd/system/prometheus-alertmanager.service.d/production.conf",
    ]
    assert 'ARGS="--web.listen-address=127.0.0.1:9093 ' in files["/etc/default/prometheus-alertmanager"]
    assert yaml.safe_load(files["/etc/prometheus/amtool.yml"]) == {"alertmanager.url": "http://127.0.0.1:9093"}
    assert "ExternalURL" not in files["/etc/prometheus/alertmanager_templates/production.tmpl"]


def test_a_secret_is_only_where_others_do_not_read() -> None:
    found = role(users=[USER], mail={"smarthost": "mail:587", "from": "a@b", "user": "a", "password": "canary-0c1d"})
    for path, text in found.files.items():
        if not path.startswith((FOLDER, "/etc/prometheus/alertmanager.yml")):
            assert "canary" not in text, path
    assert found.files[f"{FOLDER}/mail"] == "canary-0c1d"
    for declared in found.value(found.variables["_alertmanager_files"]):
        if "canary" in str(declared.get("content")):
            assert declared["mode"] == "0640"


@pytest.mark.parametrize(("tls", "users"), [(TLS, []), ({}, [USER]), (TLS, [USER])])
def test_how_others_may_come(tls: dict[str, str], users: list[dict[str, str]]) -> None:
    web = yaml.safe_load(role(tls=tls, users=users).files[f"{FOLDER}/web.yml"])
    assert set(web) == {
        *({"http_server_config", "tls_server_config"} if tls else ()),
        *(["basic_auth_users"] * bool(users)),
    }
    if users:
        assert web["basic_auth_users"]["prometheus"].startswith("$2b$08$")
        assert "canary" not in str(web)


def test_exports_of_one_that_is_the_hosts_own() -> None:
    found = role()
    exports = found.value(found.variables["alertmanager_exports"])
    assert exports["listens"] == [
        {"port": 9093, "address": "127.0.0.1", "setting": "alertmanager_port", "from": "host"},
    ]
    assert exports["alertmanagers"] == [{"host": "web1", "address": "127.0.0.1:9093", "scheme": "http"}]
    assert exports["scrapes"] == [
        {
            "job": "alertmanager",
            "host": "web1",
            "address": "127.0.0.1:9093",
            "scheme": "http",
            "path": "/metrics",
            "unit": "prometheus-alertmanager.service",
        }
    ]
    assert exports["datasources"] == [
        {"name": "Alertmanager", "type": "alertmanager", "uid": "alertmanager", "url": "http://127.0.0.1:9093"}
    ]
    assert exports["backup"] == [{"kind": "path", "path": "/var/lib/prometheus/alertmanager"}]
    assert exports["health"] == [{"name": "alertmanager", "units": ["prometheus-alertmanager.service"]}]
    assert exports["logs"] == [{"unit": "prometheus-alertmanager.service", "job": "alertmanager"}]


def test_exports_of_one_for_others() -> None:
    cluster = {"address": "10.0.1.5", "peers": ["10.0.1.6:9094"]}
    networks = ["10.0.0.0/8"]
    found = role(addresses=["0.0.0.0"], tls=TLS, users=[USER], cluster=cluster, **{"from": networks})
    exports = found.value(found.variables["alertmanager_exports"])
    assert exports["alertmanagers"] == [
        {
            "host": "web1",
            "address": "web1:9093",
            "scheme": "https",
            "user": "prometheus",
            "password": "canary-5e0d1c8b7f92",
        }
    ]
    assert exports["listens"][0]["from"] == networks
    assert [(one["port"], one["protocol"], one["from"]) for one in exports["listens"][1:]] == [
        (9094, "tcp", ["10.0.1.6"]),
        (9094, "udp", ["10.0.1.6"]),
    ]
