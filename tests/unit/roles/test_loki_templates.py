# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the loki role writes and tells others, for settings as operators have them."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from .render import Role

ARCHIVE = {"source": "https://packages.fushuma.com/loki.zip", "sha256": "ab" * 32}
S3 = {"url": "https://s3.fushuma.com/", "bucket": "logs", "access_key": "AKLOKI", "secret_key": "canary-s3-77d0/+="}
CLUSTER = {"peers": ["10.0.1.41", "10.0.1.42", "10.0.1.43"], "compactor": "10.0.1.41"}
RULES = [
    {
        "name": "app",
        "rules": [
            {
                "alert": "Errors",
                "expr": 'sum(rate({job="app"} |= "error" [5m])) > 1',
                "labels": {"severity": "warning"},
                "annotations": {"summary": "errors: {{ $value }}"},
            }
        ],
    }
]
BOTH = [{"from": "2024-01-01"}, {"from": "2026-01-01", "storage": "s3"}]

CASES: dict[str, dict[str, Any]] = {
    "alone": {},
    "from a package": {"loki_source": "repository", "loki_repository": {"key": "-----BEGIN PGP PUBLIC KEY BLOCK-----"}},
    "a key in a file": {"loki_source": "repository", "loki_repository": {"key_file": __file__}},
    "object storage": {"loki_schema": BOTH, "loki_s3": S3 | {"ca_file": "/etc/ssl/s3.pem"}},
    "cluster": {"loki_schema": BOTH, "loki_s3": S3, "loki_cluster": CLUSTER, "loki_address": "10.0.1.42"},
    "old index": {"loki_schema": [{"from": "2020-01-01", "store": "boltdb-shipper", "version": "v12"}, BOTH[0]]},
    "rules": {"loki_rules": RULES, "loki_alertmanagers": [{"address": "127.0.0.1:9093"}]},
    "alertmanagers that ask for a name": {
        "loki_alertmanagers": [
            {"address": "10.0.1.50:9093", "scheme": "https", "user": "loki", "password": "canary-1", "insecure": True},
            {"address": "10.0.1.51:9093", "scheme": "https", "user": "loki", "password": "canary-1"},
        ]
    },
    "streams": {"loki_retention": {"streams": [{"selector": '{job="debug"}', "period": "24h"}]}},
    "local archive": {"loki_archive": {"source": "/srv/loki.zip", "sha256": "CD" * 32}},
}


def role(release: str = "13", **settings: Any) -> Role:
    given = {"loki_enabled": True, "loki_source": "archive", "loki_archive": ARCHIVE, **settings}
    return Role("loki", given, release)


def config(**settings: Any) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(role(**settings).files["/etc/loki/config.yml"])
    return found


@pytest.mark.parametrize("release", ["12", "13"])
@pytest.mark.parametrize("case", CASES)
def test_all_files_render_and_are_yaml(case: str, release: str) -> None:
    found = role(release, **CASES[case]).files
    document = yaml.safe_load(found["/etc/loki/config.yml"])
    assert document["storage_config"]["use_thanos_objstore"] is False
    assert document["auth_enabled"] is False
    assert document["compactor"]["retention_enabled"] is True
    assert document["compactor"]["delete_request_store"] == document["schema_config"]["configs"][-1]["object_store"]
    assert document["limits_config"]["retention_period"] == "744h"
    assert document["limits_config"]["max_query_parallelism"] == 16
    assert "canary" not in found["/etc/loki/config.yml"]
    assert "Managed by Ansible" in found["/etc/loki/environment"]


def test_nothing_is_done_or_told_where_it_is_not_wanted() -> None:
    off = Role("loki", {})
    assert off.files == {}
    assert [module for module, _given in off.tasks] == []
    assert {part: off.value(value) for part, value in off.variables["loki_exports"].items() if off.value(value)} == {}


def test_the_program_and_where_it_comes_from() -> None:
    archive = role(loki_version="3.7.5").files
    assert '"binary": "/opt/loki/3.7.5-abababababab/loki"' in archive["/etc/loki/release.json"]
    assert "ExecStart=/opt/loki/3.7.5-abababababab/loki -config" in unit(archive)
    assert "/etc/systemd/system/loki.service" in archive
    local = role(**CASES["local archive"]).files["/etc/loki/release.json"]
    assert '"source": "/var/cache/loki-3.7.6-cdcdcdcdcdcd.archive"' in local
    package = role(**CASES["from a package"]).files
    assert "ExecStart=/usr/bin/loki -config" in unit(package)
    assert "Pin: version 3.7.6\n" in package["/etc/apt/preferences.d/loki"]
    assert "Signed-By: /etc/apt/keyrings/grafana.asc" in package["/etc/apt/sources.list.d/loki.sources"]
    assert package["/etc/apt/keyrings/grafana.asc"].startswith("-----BEGIN")
    # The package's own unit and what Grafana's role has there are left alone.
    assert "/etc/systemd/system/loki.service" not in package
    assert not [one for one in role().value(role().variables["_loki_files"]) if "keyrings" in one["dest"]]


def unit(files: dict[str, str]) -> str:
    return files["/etc/systemd/system/loki.service.d/production.conf"]


def test_memory_is_bounded_for_all_who_count() -> None:
    files = role(loki_memory="512mb").files
    assert f"MemoryMax={512 * 1024**2}\n" in unit(files)
    assert f"GOMEMLIMIT={512 * 1024**2 * 85 // 100}\n" in unit(files)
    assert "replay_memory_ceiling: 256MB" in files["/etc/loki/config.yml"]
    one = role(loki_memory="512mb")
    assert one.value(one.variables["loki_exports"]["memory"])[0]["bytes"] == 512 * 1024**2


def test_keys_of_object_storage_are_in_one_file_for_root() -> None:
    one = role(**CASES["object storage"])
    assert "LOKI_S3_SECRET_KEY=canary-s3-77d0/+=\n" in one.files["/etc/loki/environment"]
    assert [path for path, text in one.files.items() if "canary" in text] == ["/etc/loki/environment"]
    declared = {file["dest"]: file for file in one.value(one.variables["_loki_files"])}
    assert declared["/etc/loki/environment"]["mode"] == "0600"
    found = config(**CASES["object storage"])
    assert found["storage_config"]["aws"] == {
        "endpoint": "s3.fushuma.com",
        "insecure": False,
        "bucketnames": "logs",
        "region": "us-east-1",
        "access_key_id": "${LOKI_S3_ACCESS_KEY}",
        "secret_access_key": "${LOKI_S3_SECRET_KEY}",
        "s3forcepathstyle": True,
        "http_config": {"ca_file": "/etc/ssl/s3.pem"},
    }
    assert [one["object_store"] for one in found["schema_config"]["configs"]] == ["filesystem", "s3"]


def test_alertmanagers_that_ask_for_a_name() -> None:
    one = role(**CASES["alertmanagers that ask for a name"])
    assert "LOKI_ALERTMANAGER_PASSWORD=canary-1\n" in one.files["/etc/loki/environment"]
    found = yaml.safe_load(one.files["/etc/loki/config.yml"])["ruler"]
    assert found["alertmanager_url"] == "https://10.0.1.50:9093,https://10.0.1.51:9093"
    assert found["alertmanager_client"] == {
        "basic_auth_username": "loki",
        "basic_auth_password": "${LOKI_ALERTMANAGER_PASSWORD}",
        "tls_insecure_skip_verify": True,
    }
    # Quoted, for Loki puts the secret in its place before it reads YAML.
    assert "basic_auth_password: '${LOKI_ALERTMANAGER_PASSWORD}'\n" in one.files["/etc/loki/config.yml"]


def test_a_cluster() -> None:
    found = config(**CASES["cluster"])
    assert found["common"]["compactor_grpc_address"] == "10.0.1.41:9095"
    assert found["memberlist"]["join_members"] == ["10.0.1.41:7946", "10.0.1.42:7946", "10.0.1.43:7946"]
    assert found["compactor"]["horizontal_scaling_mode"] == "worker"
    assert (found["server"]["grpc_listen_address"], found["common"]["replication_factor"]) == ("10.0.1.42", 3)
    first = config(**{**CASES["cluster"], "loki_address": "10.0.1.41"})
    assert first["compactor"]["horizontal_scaling_mode"] == "main"
    backend = config(**CASES["cluster"], loki_target="backend")
    assert "horizontal_scaling_mode" not in backend["compactor"]


def test_rules_and_whom_they_tell() -> None:
    one = role(**CASES["rules"])
    text = one.files["/etc/loki/rules/fake/production.yml"]
    assert yaml.safe_load(text)["groups"][0]["rules"] == [
        {
            "alert": "Errors",
            "expr": 'sum(rate({job="app"} |= "error" [5m])) > 1',
            "for": "0m",
            "labels": {"severity": "warning"},
            "annotations": {"summary": "errors: {{ $value }}"},
        }
    ]
    assert config(**CASES["rules"])["ruler"]["alertmanager_url"] == "http://127.0.0.1:9093"
    assert "alertmanager_url" not in config()["ruler"]
    ready, _retention, asked = one.value(one.variables["_loki_model"])["probes"]
    assert (ready["body"], ready["timeout"]) == ("ready", 60)
    assert asked["exec"] == [*one.value(one.variables["_loki_run"]), "rules", "http://127.0.0.1:3100/loki/api/v1/rules"]
    reader = role(**CASES["rules"], loki_target="read")
    assert len(reader.value(reader.variables["_loki_model"])["probes"]) == 2


@pytest.mark.parametrize(
    ("settings", "ports"),
    [
        ({}, [(3100, "127.0.0.1", "host"), (9095, "127.0.0.1", "host")]),
        (
            {"loki_address": "10.0.1.41", "loki_from": ["10.0.0.0/8"]},
            [(3100, "10.0.1.41", ["10.0.0.0/8"]), (9095, "127.0.0.1", "host")],
        ),
        (
            {"loki_address": "10.0.1.42", "loki_cluster": CLUSTER},
            [
                (3100, "10.0.1.42", "host"),
                (9095, "10.0.1.42", ["10.0.1.41", "10.0.1.43"]),
                (7946, "10.0.1.42", ["10.0.1.41", "10.0.1.43"]),
            ],
        ),
        (
            {"loki_address": "10.0.1.42", "loki_cluster": {"peers": ["10.0.1.42"], "port": 7000}},
            [(3100, "10.0.1.42", "host"), (9095, "10.0.1.42", "host"), (7000, "10.0.1.42", "host")],
        ),
    ],
)
def test_where_it_listens(settings: dict[str, Any], ports: list[tuple[Any, ...]]) -> None:
    one = role(**settings)
    found = one.value(one.variables["loki_exports"]["listens"])
    assert [(port["port"], port["address"], port["from"]) for port in found] == ports


def test_what_others_are_told() -> None:
    one = role(loki_address="fd00::41")
    exports = {part: one.value(value) for part, value in one.variables["loki_exports"].items()}
    assert exports["log_stores"] == [{"url": "http://[fd00::41]:3100", "push": "/loki/api/v1/push", "host": "web1"}]
    assert exports["datasources"] == [{"name": "Loki", "type": "loki", "url": "http://[fd00::41]:3100", "uid": "loki"}]
    assert exports["scrapes"] == [
        {"job": "loki", "host": "web1", "address": "[fd00::41]:3100", "unit": "loki.service"},
    ]
    assert exports["health"] == [{"name": "loki", "units": ["loki.service"]}]
    assert exports["logs"] == [{"unit": "loki.service", "job": "loki"}]
    assert exports["backup"] == []
    kept = role(loki_backup=True)
    assert kept.value(kept.variables["loki_exports"]["backup"]) == [{"kind": "path", "path": "/var/lib/loki"}]


def test_members_behind_a_gateway_are_told_as_one() -> None:
    told = []
    for address in CLUSTER["peers"]:
        one = role(loki_address=address, loki_gateway="http://10.0.1.40:3100/", loki_cluster=CLUSTER)
        told += one.value(one.variables["loki_exports"]["log_stores"])
    assert told == [{"url": "http://10.0.1.40:3100", "push": "/loki/api/v1/push", "host": "loki"}] * 3


@pytest.mark.parametrize(("target", "stores", "sources"), [("write", 1, 0), ("read", 0, 1), ("backend", 0, 0)])
def test_parts_of_a_cluster_are_told_for_what_they_do(target: str, stores: int, sources: int) -> None:
    one = role(loki_target=target)
    found = {part: one.value(one.variables["loki_exports"][part]) for part in ("log_stores", "datasources")}
    assert (len(found["log_stores"]), len(found["datasources"])) == (stores, sources)
