# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Settings of the loki role that cannot work, each with the sentence that an operator reads."""

from __future__ import annotations

import datetime
import hashlib
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.fushuma.production.plugins.filter.loki import FilterModule
from ansible_collections.fushuma.production.plugins.plugin_utils import specs
from ansible_collections.fushuma.production.plugins.plugin_utils.loki import LIMITS, problems
from ansible_collections.fushuma.production.plugins.plugin_utils.loki_model import host_of, seconds
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import sentences

OPTIONS = specs.role_options("loki")
ARCHIVE = {"source": "https://packages.fushuma.com/loki.zip", "sha256": "ab" * 32}
KEY = "-----BEGIN PGP PUBLIC KEY BLOCK-----\nx\n"
S3 = {"url": "https://s3.fushuma.com", "bucket": "logs", "access_key": "AKLOKI", "secret_key": "canary-1f0e9d8c7b6a"}
BOTH = [{"from": "2024-01-01"}, {"from": "2026-01-01", "storage": "s3"}]
CLUSTER = {"peers": ["10.0.1.41", "10.0.1.42", "10.0.1.43"], "compactor": "10.0.1.41"}
MEMBER = {"loki_address": "10.0.1.42", "loki_schema": BOTH, "loki_s3": S3, "loki_cluster": CLUSTER}
EXPR = 'sum(rate({job="app"} |= "error" [5m])) > 1'
LOGIN = {"address": "a:1", "user": "a", "password": "canary-0a1b2c3d4e"}
TOLD = {"loki_alertmanagers": [{"address": "127.0.0.1:9093"}]}


def said(**settings: Any) -> list[str]:
    given = {"loki_enabled": True, "loki_source": "archive", "loki_archive": ARCHIVE, **settings}
    assert not specs.problems(OPTIONS, given), "the shape is wrong already"
    return sentences(problems(specs.filled(OPTIONS, given)))


def group(**rule: Any) -> dict[str, Any]:
    rules = [{"alert": "Errors", "expr": EXPR, **rule}]
    return {"loki_rules": [{"name": "app", "rules": rules}], **TOLD}


def sum_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def repository(**settings: Any) -> dict[str, Any]:
    return {"loki_source": "repository", "loki_repository": {"key": KEY, "key_sha256": sum_of(KEY), **settings}}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"loki_enabled": False, "loki_version": "nonsense", "loki_archive": None},
        {"loki_archive": {"source": __file__, "sha256": "AB" * 32}},
        repository(),
        repository(url="https://mirror.fushuma.com/grafana"),
        {"loki_address": "10.0.1.41", "loki_from": ["10.0.0.0/8"]},
        {"loki_address": "fd00::41"},
        {"loki_address": "::1"},
        {"loki_address": "100.64.0.7"},
        MEMBER,
        MEMBER | {"loki_address": "10.0.1.41", "loki_target": "backend"},
        MEMBER | {"loki_target": "write"},
        {"loki_schema": BOTH, "loki_s3": S3 | {"url": "http://127.0.0.1:9000", "ca_file": "/etc/ssl/s3.pem"}},
        {"loki_schema": [{"from": "2020-01-01", "store": "boltdb-shipper", "version": "v11"}, *BOTH], "loki_s3": S3},
        {"loki_schema": [{"from": "2020-01-01", "version": "v12"}, {"from": "2024-01-01"}]},
        {"loki_s3": S3 | {"bucket": "?"}},  # which nothing uses
        {"loki_retention": {"period": "24h", "streams": [{"selector": '{job="a", app=~"b,c"}', "period": "31d"}]}}
        | {"loki_limits": {"reject_old_samples_max_age": "24h"}},
        group(),
        group(expr='count_over_time({job="a"} |~ `\\d+"[(` [5m]) > 0', **{"for": "5m"}),
        group(labels={"severity": "warning", "team": 3}, annotations={"summary": "x"}),
        {"loki_gateway": "https://logs.fushuma.com"},
        {"loki_alertmanagers": [{"address": "[fd00::1]:9093", "scheme": "https", "insecure": True}]},
        {"loki_alertmanagers": [LOGIN]},
    ],
)
def test_settings_that_work(settings: dict[str, Any]) -> None:
    assert said(**settings) == []


@pytest.mark.parametrize(
    ("settings", "setting", "why"),
    [
        ({"loki_version": "latest"}, "loki_version", "no release is called so"),
        ({"loki_archive": None}, "loki_archive", "nobody knows which one"),
        ({"loki_archive": ARCHIVE | {"source": "http://a.de/x"}}, "loki_archive.source", "over TLS"),
        ({"loki_archive": ARCHIVE | {"source": "https://u:p@a.de/x"}}, "loki_archive.source", "without a login"),
        ({"loki_archive": ARCHIVE | {"source": "loki.zip"}}, "loki_archive.source", "the controller has no such file"),
        ({"loki_archive": ARCHIVE | {"sha256": "abc"}}, "loki_archive.sha256", "it is no SHA-256"),
        (repository(url="http://apt.grafana.com"), "loki_repository.url", "packages come over TLS"),
        (repository(key=""), "loki_repository.key", "is missing"),
        (repository(key_file="/srv/key"), "loki_repository.key", "given, and key_file too"),
        (repository(key="", key_file="/srv/none"), "loki_repository.key_file", "the controller has no such file"),
        (repository(key="", key_file=__file__), "loki_repository.key_file", "no public key"),
        (repository(key_sha256=""), "loki_repository.key", "key_sha256 says nothing"),
        ({"loki_address": "logs.fushuma.com"}, "loki_address", "it is no address"),
        ({"loki_address": "0.0.0.0"}, "loki_address", "reads all logs"),
        ({"loki_address": "224.0.0.1"}, "loki_address", "reads all logs"),
        ({"loki_address": "8.8.8.8"}, "loki_address", "reads all logs"),
        ({"loki_from": ["10.0.0.0/8"]}, "loki_from", "nobody else can connect"),
        ({"loki_address": "10.0.1.41", "loki_from": ["0.0.0.0/0"]}, "loki_from[0]", "the whole world"),
        ({"loki_port": 80}, "loki_port", "runs without rights"),
        ({"loki_grpc_port": 70000}, "loki_grpc_port", "runs without rights"),
        ({"loki_grpc_port": 3100}, "loki_grpc_port", "loki_port is the same"),
        ({"loki_gateway": "10.0.1.40:3100"}, "loki_gateway", "it is no URL"),
        ({"loki_memory": "100mb"}, "loki_memory", "less than Loki needs"),
        ({"loki_ready_within": 5}, "loki_ready_within", "ten seconds always"),
        ({"loki_target": "read"}, "loki_target", "there is no loki_cluster"),
        (MEMBER | {"loki_address": "10.0.1.44"}, "loki_cluster.peers", "not among them"),
        (MEMBER | {"loki_cluster": CLUSTER | {"peers": ["10.0.1.42", "127.0.0.1", "x"]}}, "loki_cluster.peers[1]", ""),
        (MEMBER | {"loki_cluster": CLUSTER | {"peers": ["10.0.1.42"] * 2}}, "loki_cluster.peers[1]", "already"),
        (MEMBER | {"loki_cluster": CLUSTER | {"compactor": "10.0.9.9"}}, "loki_cluster.compactor", "it is no member"),
        (
            MEMBER | {"loki_target": "read", "loki_cluster": CLUSTER | {"compactor": "10.0.1.42"}},
            "loki_cluster.compactor",
            "nothing would be removed",
        ),
        (MEMBER | {"loki_cluster": CLUSTER | {"replicas": 4}}, "loki_cluster.replicas", "there are 3 members"),
        (MEMBER | {"loki_cluster": CLUSTER | {"replicas": 2}}, "loki_cluster.replicas", "both have to answer"),
        (MEMBER | {"loki_cluster": CLUSTER | {"port": 3100}}, "loki_cluster.port", "Loki's other port"),
        (MEMBER | {"loki_schema": BOTH[:1]}, "loki_schema[0].storage", "would not see each other's data"),
        ({"loki_schema": []}, "loki_schema", "how to keep anything"),
        ({"loki_schema": [{"from": "2024-02-30"}]}, "loki_schema[0].from", "it is no day"),
        ({"loki_schema": [{"from": "20240101"}]}, "loki_schema[0].from", "it is no day"),
        ({"loki_schema": [{"from": "2024-01-01"}] * 2}, "loki_schema[1].from", "periods follow each other"),
        ({"loki_schema": [{"from": "2999-01-01"}]}, "loki_schema[0].from", "could not be kept"),
        ({"loki_schema": [{"from": "2024-01-01", "version": "v12"}]}, "loki_schema[0].version", "gives up"),
        ({"loki_schema": [{"from": "2024-01-01", "store": "boltdb-shipper"}]}, "loki_schema[0].store", "gives up"),
        (
            {"loki_schema": [{"from": "2020-01-01", "version": "v11"}, {"from": "2024-01-01"}]},
            "loki_schema[0].version",
            "at least v12",
        ),
        ({"loki_schema": BOTH}, "loki_s3", "nobody knows where that is"),
        (MEMBER | {"loki_s3": S3 | {"url": "https://s3.fushuma.com/logs"}}, "loki_s3.url", "a service alone"),
        (MEMBER | {"loki_s3": S3 | {"url": "s3.fushuma.com"}}, "loki_s3.url", "a service alone"),
        (MEMBER | {"loki_s3": S3 | {"url": "http://s3.fushuma.com"}}, "loki_s3.url", "readable for anybody"),
        (MEMBER | {"loki_s3": S3 | {"bucket": "Logs"}}, "loki_s3.bucket", "no bucket"),
        (MEMBER | {"loki_s3": S3 | {"secret_key": "canary $x 'y"}}, "loki_s3.secret_key", "characters no key has"),
        (MEMBER | {"loki_s3": S3 | {"ca_file": "s3.pem"}}, "loki_s3.ca_file", "no whole path"),
        ({"loki_retention": {"period": "12h"}}, "loki_retention.period", "by whole days"),
        ({"loki_retention": {"period": "1 month"}}, "loki_retention.period", "no time in hours or days"),
        (
            {"loki_retention": {"streams": [{"selector": '{a="b"}', "period": "1h"}]}},
            "loki_retention.streams[0].period",
            "",
        ),
        (
            {"loki_retention": {"streams": [{"selector": "job=a", "period": "24h"}]}},
            "loki_retention.streams[0].selector",
            "it selects no streams",
        ),
        (
            {"loki_retention": {"streams": [{"selector": '{job=~"a$"}', "period": "24h"}]}},
            "loki_retention.streams[0].selector",
            "it selects no streams",
        ),
        ({"loki_limits": {"max_query_series": 0}}, "loki_limits.max_query_series", "no limit at all"),
        ({"loki_limits": {"max_line_size": "256K"}}, "loki_limits.max_line_size", "it is no size"),
        ({"loki_limits": {"query_timeout": "0"}}, "loki_limits.query_timeout", "it is no time"),
        ({"loki_limits": {"ingestion_rate_mb": 20}}, "loki_limits.ingestion_burst_size_mb", "less is taken at once"),
        (
            {"loki_limits": {"per_stream_rate_limit": "1gb"}},
            "loki_limits.per_stream_rate_limit_burst",
            "less is taken at once",
        ),
        ({"loki_retention": {"period": "48h"}}, "loki_limits.reject_old_samples_max_age", "as soon as they have come"),
        (group() | {"loki_alertmanagers": []}, "loki_alertmanagers", "nobody to tell"),
        (group() | {"loki_alertmanagers": [{"address": "http://x"}]}, "loki_alertmanagers[0].address", "with a port"),
        (
            {
                "loki_alertmanagers": [
                    {"address": "a:1", "user": "a", "password": "canary-0a1b2c3d4e"},
                    {"address": "b:1"},
                ]
            },
            "loki_alertmanagers[1].user",
            "one name for all of them",
        ),
        (
            {"loki_alertmanagers": [{"address": "a:1", "user": "a"}]},
            "loki_alertmanagers[0].password",
            "it is none, or has quotes",
        ),
        ({"loki_rules": [{"name": "a/b", "rules": []}], **TOLD}, "loki_rules[0].name", "no name for a group"),
        ({"loki_rules": [{"name": "a", "rules": []}], **TOLD}, "loki_rules[0].rules", "says nothing"),
        (
            {"loki_rules": [{"name": "a", "interval": "1s", "rules": [{"alert": "A", "expr": EXPR}]}], **TOLD},
            "loki_rules[0].interval",
            "less than 10 seconds",
        ),
        ({"loki_rules": [group()["loki_rules"][0]] * 2, **TOLD}, "loki_rules[1].name", "has it already"),
        (group(alert="Too many"), "loki_rules[0].rules[0].alert", "no name for an alert"),
        (group(**{"for": "soon"}), "loki_rules[0].rules[0].for", "it is no time"),
        (group(labels={"a-b": "x"}), "loki_rules[0].rules[0].labels.a-b", "no label can be called so"),
        (group(annotations={"summary": None}), "loki_rules[0].rules[0].annotations.summary", "it is no text"),
        (group(expr='{job="app}'), "loki_rules[0].rules[0].expr", "has no end"),
        (group(expr='sum(rate({job="a"}[5m])'), "loki_rules[0].rules[0].expr", "a ) is missing"),
        (group(expr='rate({job="a"}[5m]))'), "loki_rules[0].rules[0].expr", "closes nothing"),
        (group(expr='rate({job="a"]5m})'), "loki_rules[0].rules[0].expr", "closes nothing"),
        (group(expr="vector(1)"), "loki_rules[0].rules[0].expr", "it selects no streams"),
        (group(expr='{job="app"} |= "error"'), "loki_rules[0].rules[0].expr", "never an alert"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], setting: str, why: str) -> None:
    found = said(**settings)
    assert [one for one in found if one.startswith(f"{setting} is ") and why in one], found


def test_each_limit_is_judged() -> None:
    names = [name for names, *_rest in LIMITS for name in names]
    assert sorted(names) == sorted(OPTIONS["loki_limits"]["options"])


def test_a_secret_is_never_repeated() -> None:
    assert not [one for one in said(**MEMBER | {"loki_s3": S3 | {"secret_key": "canary $x"}}) if "canary" in one]


def test_a_group_nobody_evaluates_here_needs_no_alertmanager() -> None:
    assert said(**MEMBER, loki_target="read", loki_rules=group()["loki_rules"]) == []


def test_the_key_of_a_file_is_compared(tmp_path: Path) -> None:
    file = tmp_path / "grafana.asc"
    file.write_text(KEY, "utf-8")
    assert said(**repository(key="", key_file=str(file))) == []
    assert "it has the SHA-256" in said(**repository(key="", key_file=str(file), key_sha256="00"))[0]


def test_a_period_that_begins_today_anywhere_is_a_first_one() -> None:
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    assert said(loki_schema=[{"from": today}]) == []


@pytest.mark.parametrize(("text", "number"), [("90s", 90), ("2w", 1209600), ("1h30m", 0), ("", 0), ("0h", 0)])
def test_times(text: str, number: int) -> None:
    assert seconds(text) == number


def test_addresses_before_a_port() -> None:
    assert (host_of("fd00::1"), host_of("10.0.0.1")) == ("[fd00::1]", "10.0.0.1")


def test_the_filter() -> None:
    model = FilterModule().filters()["loki_model"]
    assert model({"loki_archive": ARCHIVE, "loki_source": "archive"})["url"] == "http://127.0.0.1:3100"
    assert model({"loki_archive": ARCHIVE, "loki_source": "archive"})["environment"] == {}
    with pytest.raises(AnsibleFilterError, match="loki_port"):
        model({"loki_port": "x"})
