# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Settings of the grafana role that cannot work, and what it makes of those that can."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.fushuma.production.plugins.filter import grafana as filters
from ansible_collections.fushuma.production.plugins.plugin_utils import grafana, specs
from ansible_collections.fushuma.production.plugins.plugin_utils import grafana_model as model
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import sentences

OPTIONS = specs.role_options("grafana")
KEY = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmDMEaSZmvBYJ\n-----END PGP PUBLIC KEY BLOCK-----\n"
TRUSTED = {"key": KEY, "key_sha256": hashlib.sha256(KEY.encode()).hexdigest()}
SHA256 = "ab" * 32
URL = "https://dl.fushuma.com/grafana-12.3.0.linux-amd64.tar.gz"
SETTINGS: dict[str, Any] = {
    "grafana_enabled": True,
    "grafana_repository": TRUSTED,
    "grafana_root_url": "https://grafana.fushuma.com/",
    "grafana_admin_password": "canary-5f0c2e9a7b41d836",
    "grafana_secret_key": "canary-a9d1774be2c05f68",
}
PROMETHEUS = {"name": "Prometheus", "type": "prometheus", "url": "http://127.0.0.1:9090", "uid": "prometheus"}
ALERTMANAGER = {"name": "Alertmanager", "type": "alertmanager", "url": "http://[::1]:9093", "uid": "alertmanager"}
MYSQL = {"type": "mysql", "host": "db.fushuma.com:3306", "password": "canary-63b0d8f1a2c749e5"}


def settings(**changes: Any) -> dict[str, Any]:
    given = {**SETTINGS, **changes}
    assert not specs.problems(OPTIONS, given), "the shape is wrong already"
    return specs.filled(OPTIONS, given)


def said(**changes: Any) -> list[str]:
    return sentences(grafana.problems(settings(**changes)))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"grafana_repository": {**TRUSTED, "version": "12.3.*", "url": "https://mirror.fushuma.com:8443/grafana"}},
        {"grafana_archive": {"source": URL, "sha256": SHA256}, "grafana_repository": {}},
        {"grafana_address": "10.0.1.31", "grafana_from": ["10.0.0.0/8"]},
        {"grafana_address": "::1", "grafana_root_url": "https://fushuma.com:8443/"},
        {"grafana_database": MYSQL},
        {"grafana_database": {**MYSQL, "type": "postgres", "ssl_mode": "verify-full", "ca_file": "/etc/ssl/own.pem"}},
        {"grafana_datasources": [PROMETHEUS, ALERTMANAGER]},
        {"grafana_settings": {"smtp": {"enabled": True, "host": "localhost:25"}, "log": {"level": "warn"}}},
        # What Grafana itself takes from files and the environment.
        {"grafana_settings": {"smtp": {"password": "$__file{/etc/own/smtp}"}}},
        {"grafana_settings": {"auth.generic_oauth": {"enabled": True}, "security": {"cookie_samesite": "lax"}}},
        # What is not wanted is not judged.
        {"grafana_enabled": False, "grafana_root_url": "", "grafana_admin_password": "", "grafana_repository": {}},
    ],
)
def test_settings_that_work(changes: dict[str, Any]) -> None:
    assert said(**changes) == []


@pytest.mark.parametrize(
    ("changes", "setting", "why"),
    [
        (
            {"grafana_archive": {"source": "grafana.zip", "sha256": SHA256}},
            "grafana_archive.source",
            "no archive that can be had",
        ),
        (
            {"grafana_archive": {"source": "/none/grafana.tar.gz", "sha256": SHA256}},
            "grafana_archive.source",
            "the controller has no such file",
        ),
        ({"grafana_archive": {"source": URL}}, "grafana_archive.sha256", "known to the bit"),
        ({"grafana_archive": {"source": URL, "sha256": "ab"}}, "grafana_archive.sha256", "known to the bit"),
        ({"grafana_repository": {}}, "grafana_repository.key", "by exactly one key"),
        ({"grafana_repository": {**TRUSTED, "key_file": "/x"}}, "grafana_repository.key", "by exactly one key"),
        ({"grafana_repository": {"key_file": "/none.asc"}}, "grafana_repository.key_file", "no such file"),
        ({"grafana_repository": {"key_file": "own.asc"}}, "grafana_repository.key_file", "no such file"),
        ({"grafana_repository": {"key": "binary"}}, "grafana_repository.key", "no public key"),
        ({"grafana_repository": {**TRUSTED, "url": "http://apt.grafana.com"}}, "grafana_repository.url", "over TLS"),
        ({"grafana_repository": {**TRUSTED, "version": "newest"}}, "grafana_repository.version", "such a version"),
        ({"grafana_address": "localhost"}, "grafana_address", "it is no address"),
        ({"grafana_address": "0.0.0.0"}, "grafana_address", "others are told where to ask"),
        ({"grafana_port": 80}, "grafana_port", "ports from 1024"),
        ({"grafana_from": ["10.0.0.0/8"]}, "grafana_from", "loopback addresses only"),
        ({"grafana_root_url": ""}, "grafana_root_url", "not where people reach"),
        ({"grafana_root_url": "https://fushuma.com/grafana"}, "grafana_root_url", "not where people reach"),
        ({"grafana_root_url": "http://fushuma.com/"}, "grafana_root_url", "over TLS only"),
        ({"grafana_memory": "100mb"}, "grafana_memory", "less than Grafana takes"),
        ({"grafana_admin_password": ""}, "grafana_admin_password", "a password that everybody knows"),
        ({"grafana_secret_key": ""}, "grafana_secret_key", "a key that everybody knows"),
        ({"grafana_secret_key": SETTINGS["grafana_admin_password"]}, "grafana_secret_key", "it is the password"),
        ({"grafana_admin_password": "canary-1234\n5678abc"}, "grafana_admin_password", "one line without spaces"),
        ({"grafana_admin_password": "canary-12345678abc "}, "grafana_admin_password", "one line without spaces"),
        ({"grafana_secret_key": "canary-${HOME}5678"}, "grafana_secret_key", "cannot hold it"),
        ({"grafana_secret_key": 'canary-12345678"'}, "grafana_secret_key", "cannot hold it"),
        ({"grafana_database": {"host": "db:1"}}, "grafana_database.host", "a file has none"),
        ({"grafana_database": {"password": MYSQL["password"]}}, "grafana_database.password", "a file has none"),
        ({"grafana_database": {**MYSQL, "host": ""}}, "grafana_database.host", "cannot be reached without it"),
        ({"grafana_database": {**MYSQL, "name": "a b"}}, "grafana_database.name", "cannot be reached without it"),
        ({"grafana_database": {**MYSQL, "password": ""}}, "grafana_database.password", "nobody is let in"),
        ({"grafana_database": {**MYSQL, "password": "canary-%(home)s-12345"}}, "grafana_database.password", "cannot"),
        ({"grafana_datasources": [{**PROMETHEUS, "user": "me"}]}, "grafana_datasources[0].password", "both of them"),
        (
            {"grafana_datasources": [{**PROMETHEUS, "password": "canary-1234567890"}]},
            "grafana_datasources[0].password",
            "both of them",
        ),
        ({"grafana_datasources": [{**PROMETHEUS, "uid": "a b"}]}, "grafana_datasources[0].uid", "it is no uid"),
        ({"grafana_datasources": [{**PROMETHEUS, "url": "localhost"}]}, "grafana_datasources[0].url", "it is no URL"),
        ({"grafana_settings": {"S M": {}}}, "grafana_settings.S M", "no section"),
        ({"grafana_settings": {"smtp": True}}, "grafana_settings.smtp", "a section holds keys"),
        ({"grafana_settings": {"smtp": {"a b": 1}}}, "grafana_settings.smtp.a b", "no key"),
        ({"grafana_settings": {"smtp": {"host": ["a"]}}}, "grafana_settings.smtp.host", "one line"),
        ({"grafana_settings": {"smtp": {"host": "a\nb"}}}, "grafana_settings.smtp.host", "one line"),
        ({"grafana_settings": {"smtp": {"password": 'a"""b'}}}, "grafana_settings.smtp.password", "one line"),
        ({"grafana_settings": {"server": {"http_port": 1}}}, "grafana_settings.server.http_port", "the role decides"),
        ({"grafana_settings": {"security": {"secret_key": 1}}}, "security.secret_key", "Write grafana_secret_key."),
        ({"grafana_settings": {"auth.basic": {"enabled": False}}}, "auth.basic.enabled", "the role needs it as it is"),
        ({"grafana_dashboards_folder": "/none"}, "grafana_dashboards_folder", "no such folder"),
    ],
)
def test_settings_that_cannot_work(changes: dict[str, Any], setting: str, why: str) -> None:
    (sentence,) = said(**changes)
    assert setting in sentence
    assert why in sentence
    assert "canary" not in sentence


def test_files_of_the_controller_are_looked_at(tmp_path: Path) -> None:
    archive, key = tmp_path / "grafana.tar.gz", tmp_path / "key.asc"
    archive.write_bytes(b"")
    key.write_text(KEY)
    assert said(grafana_archive={"source": str(archive), "sha256": SHA256}) == []
    assert said(grafana_repository={**TRUSTED, "key": "", "key_file": str(key)}) == []
    assert "another key" in said(grafana_repository={"key": KEY})[0]


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("notes.txt", "hello", "is no JSON"),
        ("a.json", "[]", "no uid and title"),
        ("a.json", '{"uid": "a"}', "no uid and title"),
        ("a.json", '{"uid": "a b", "title": "A"}', "no uid and title"),
        ("a.json", '{"uid": "overview", "title": "A"}', "one of this collection has its uid overview"),
        ("z.json", '{"uid": "own", "title": "A"}', "below/own.json has its uid own"),
    ],
)
def test_own_dashboards_are_looked_at(tmp_path: Path, name: str, text: str, why: str) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "own.json").write_text('{"uid": "own", "title": "Own"}')
    assert said(grafana_dashboards_folder=str(tmp_path)) == []
    (tmp_path / name).write_text(text)
    (sentence,) = said(grafana_dashboards_folder=str(tmp_path))
    assert why in sentence
    assert name in sentence


def test_a_folder_of_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grafana, "CONTENT_LIMIT", 1)
    (tmp_path / "own.json").write_text('{"uid": "own", "title": "Own"}')
    (sentence,) = said(grafana_dashboards_folder=str(tmp_path))
    assert "would travel with every run" in sentence


# --- what is written --------------------------------------------------------------------------------------------------


def test_grafana_ini() -> None:
    ini = model.model(settings(grafana_settings={"smtp": {"enabled": True, "port": 25}, "log": {"level": "warn"}}))[
        "ini"
    ]
    assert (
        ini["server"] | {"http_addr": "127.0.0.1", "http_port": "3030", "domain": "grafana.fushuma.com"}
        == ini["server"]
    )
    assert ini["security"]["cookie_secure"] == "true"
    assert ini["users"]["allow_sign_up"] == "false"
    assert ini["database"] == {"type": "sqlite3", "path": "grafana.db"}
    assert ini["smtp"] == {"enabled": "true", "port": "25"}
    assert ini["log"] == {"mode": "console", "level": "warn"}


def test_a_database_elsewhere() -> None:
    given = {**MYSQL, "ssl_mode": "true", "ca_file": "/ca.pem"}
    found = model.model(settings(grafana_database=given))["ini"]["database"]
    assert found["host"] == "db.fushuma.com:3306"
    assert (found["ssl_mode"], found["ca_cert_path"], found["password"]) == ("true", "/ca.pem", MYSQL["password"])
    assert not {"ssl_mode", "ca_cert_path"} & model.ini(settings(grafana_database=MYSQL))["database"].keys()


@pytest.mark.parametrize(("value", "text"), [("a", "a"), ("a#b", '"""a#b"""'), (" a", '""" a"""'), (1, "1")])
def test_values_of_ini(value: object, text: str) -> None:
    assert model.written(value) == text


def made(*given: dict[str, Any], host: str = "ops1") -> list[dict[str, Any]]:
    filled = settings(grafana_datasources=list(given))["grafana_datasources"]
    found = model.datasources(filled, host)
    assert found["prune"]
    return list(found["datasources"])


def test_sources_of_data() -> None:
    found = made(ALERTMANAGER, PROMETHEUS)
    assert [(one["uid"], one["isDefault"]) for one in found] == [("alertmanager", False), ("prometheus", True)]
    assert found[1]["jsonData"]["alertmanagerUid"] == "alertmanager"
    (alone,) = made(PROMETHEUS)
    assert "alertmanagerUid" not in alone["jsonData"]
    assert "basicAuth" not in alone


def test_a_source_that_asks_for_a_name() -> None:
    (found,) = made({**PROMETHEUS, "user": "me", "password": "canary-a$b{12345678"})
    assert (found["basicAuth"], found["basicAuthUser"]) == (True, "me")
    assert found["secureJsonData"] == {"basicAuthPassword": "canary-a$$b{12345678"}


def test_of_several_sources_the_hosts_own_is_the_one_of_dashboards() -> None:
    both = [{**PROMETHEUS, "host": one, "url": f"http://{one}:9090"} for one in ("ops1", "ops2.fushuma.com")]
    assert [(one["uid"], one["url"]) for one in made(*both)] == [
        ("prometheus", "http://ops1:9090"),
        ("prometheus-ops2-fushuma-com", "http://ops2.fushuma.com:9090"),
    ]
    assert [one["uid"] for one in made(*both, host="ops2.fushuma.com")] == ["prometheus", "prometheus-ops1"]
    assert [one["name"] for one in made(*both)] == ["Prometheus", "Prometheus (ops2.fushuma.com)"]
    # A cluster behind one address, and two of whose hosts nothing is known.
    assert len(made(PROMETHEUS, {**PROMETHEUS, "host": "ops3"})) == 1
    assert made(PROMETHEUS, {**PROMETHEUS, "url": "http://other:9090"})[1]["uid"] == "prometheus-2"


def test_filters(tmp_path: Path) -> None:
    assert set(filters.FilterModule().filters()) == {"grafana_model", "grafana_dashboards"}
    assert filters.grafana_model({})["ini"]["server"]["http_port"] == "3030"
    with pytest.raises(AnsibleFilterError, match="grafana_model: expects"):
        filters.grafana_model([])
    found = filters.grafana_dashboards(str(specs.ROLES / "grafana" / "dashboards"))
    assert json.loads(found[0]["json"])["uid"] == found[0]["uid"]
    (tmp_path / "a.yml").write_text("[]")
    with pytest.raises(AnsibleFilterError, match="a group of keys is needed"):
        filters.grafana_dashboards(str(tmp_path))
