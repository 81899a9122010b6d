# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the prometheus role makes of settings: one file that says everything, and no secret in it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible_collections.fushuma.production.plugins.filter.prometheus import FilterModule
from ansible_collections.fushuma.production.plugins.plugin_utils import prometheus_model
from ansible_collections.fushuma.production.plugins.plugin_utils.judging import exports_of
from hypothesis import given
from hypothesis import strategies as st

worked_out = FilterModule().filters()["prometheus_model"]
PASSWORD = "canary-1f0e9d8c7b6a"
NODE = {"job": "node", "host": "web1", "address": "10.0.0.1:9100"}


def made(**settings: Any) -> dict[str, Any]:
    found: dict[str, Any] = worked_out({f"prometheus_{name}": value for name, value in settings.items()}, "ops1")
    return found


def files(**settings: Any) -> dict[str, str]:
    found = made(**settings)
    return {one["path"]: one["content"] for one in (*found["files"], *found["private"])}


def config(**settings: Any) -> Any:
    return yaml.safe_load(files(**settings)["prometheus.yml"])


def test_without_settings_it_watches_itself() -> None:
    assert config() == {
        "global": {"scrape_interval": "15s", "scrape_timeout": "10s", "evaluation_interval": "15s"},
        "rule_files": ["/etc/prometheus/rules/*.yml", "/etc/prometheus/rules/none-@config_digest@*"],
        "scrape_configs": [
            {
                "job_name": "prometheus",
                "static_configs": [
                    {"targets": ["127.0.0.1:9090"], "labels": {"host": "ops1", "instance": "ops1"}},
                ],
            }
        ],
    }
    assert yaml.safe_load(files()["web.yml"]) == {}


def test_targets_that_are_asked_in_the_same_way_are_one_job() -> None:
    exporter = {**NODE, "job": "redis", "path": "/scrape"}
    jobs = config(
        targets=[
            NODE,
            {**NODE, "host": "web2", "labels": {"zone": 1}},
            {**exporter, "params": {"target": "a"}, "labels": {"instance": "web1/a", "redis": "a"}},
            {**exporter, "path": "/metrics"},
            {**NODE, "scheme": "https", "insecure": True, "user": "me", "password": PASSWORD},
        ]
    )["scrape_configs"][1:]
    assert [one["job_name"] for one in jobs] == ["node", "redis", "redis-2", "node-2"]
    assert [one["labels"] for one in jobs[0]["static_configs"]] == [
        {"host": "web1", "instance": "web1"},
        {"host": "web2", "instance": "web2", "zone": "1"},
    ]
    assert jobs[1]["metrics_path"] == "/scrape"
    assert jobs[1]["static_configs"][0]["labels"] == {
        "host": "web1",
        "instance": "web1/a",
        "redis": "a",
        "__param_target": "a",
    }
    assert jobs[2]["static_configs"][0]["labels"]["job"] == "redis"
    assert jobs[3] == {
        "job_name": "node-2",
        "scheme": "https",
        "basic_auth": {"username": "me", "password_file": "/etc/prometheus/secrets/job-node-2"},
        "tls_config": {"insecure_skip_verify": True},
        "static_configs": [
            {"targets": ["10.0.0.1:9100"], "labels": {"host": "web1", "instance": "web1", "job": "node"}}
        ],
    }


@pytest.mark.parametrize(
    ("settings", "params"),
    [
        ({}, {"module": "http", "target": "https://shop.example.com:8443/up?a=b"}),
        ({"insecure": True}, {"module": "http_insecure", "target": "https://shop.example.com:8443/up?a=b"}),
        (
            {"address": "10.0.0.1"},
            {"module": "http", "target": "https://10.0.0.1:8443/up?a=b", "hostname": "shop.example.com"},
        ),
        (
            {"address": "10.0.0.1:443"},
            {"module": "http", "target": "https://10.0.0.1:443/up?a=b", "hostname": "shop.example.com"},
        ),
        (
            {"address": "fd00::1"},
            {"module": "http", "target": "https://[fd00::1]:8443/up?a=b", "hostname": "shop.example.com"},
        ),
        (
            {"address": "[fd00::1]:443"},
            {"module": "http", "target": "https://[fd00::1]:443/up?a=b", "hostname": "shop.example.com"},
        ),
        (
            {"url": "https://shop.example.com/", "address": "fd00::1"},
            {"module": "http", "target": "https://[fd00::1]/", "hostname": "shop.example.com"},
        ),
        (
            {"url": "10.0.0.1:22", "module": "tcp", "address": "10.0.0.2"},
            {"module": "tcp", "target": "10.0.0.1:22"},
        ),
    ],
)
def test_probes_are_targets_of_the_blackbox_exporter(settings: dict[str, Any], params: dict[str, str]) -> None:
    probe = {"name": "shop", "host": "edge1", "url": "https://shop.example.com:8443/up?a=b", **settings}
    job = config(probes=[probe])["scrape_configs"][1]
    assert (job["job_name"], job["metrics_path"]) == ("probe", "/probe")
    (one,) = job["static_configs"]
    assert one["targets"] == ["127.0.0.1:9115"]
    labels = {"host": "edge1", "instance": "shop", "site": "shop", "url": probe["url"]}
    assert one["labels"] == labels | {f"__param_{name}": value for name, value in params.items()}


def test_remote_stores_and_alertmanagers_have_their_secrets_in_files() -> None:
    settings = {
        "alertmanagers": [
            {"address": "10.0.0.1:9093", "scheme": "https", "insecure": True, "user": "me", "password": PASSWORD},
            {"address": "10.0.0.2:9093"},
        ],
        "remote_write": [
            {"name": "a", "url": "https://a/", "user": "me", "password": PASSWORD, "tls": {"authority": "/ca"}},
            {"name": "b", "url": "https://b/", "bearer": PASSWORD, "queue": {"max_shards": 1}},
            {"name": "c", "url": "https://c/", "relabel": [{"action": "drop", "regex": "go_.*"}]},
        ],
    }
    found = files(**settings)
    for name in ("alertmanager-0", "remote-a", "remote-b"):
        assert found[f"secrets/{name}"] == PASSWORD
    assert "canary" not in found["prometheus.yml"]
    written = config(**settings)
    assert written["alerting"]["alertmanagers"][1] == {"static_configs": [{"targets": ["10.0.0.2:9093"]}]}
    first, second, third = written["remote_write"]
    assert first["basic_auth"] == {"username": "me", "password_file": "/etc/prometheus/secrets/remote-a"}
    assert first["tls_config"] == {"ca_file": "/ca"}
    assert second["authorization"] == {"credentials_file": "/etc/prometheus/secrets/remote-b"}
    assert second["queue_config"] == {"max_shards": 1}
    assert third["write_relabel_configs"] == [{"action": "drop", "regex": "go_.*"}]


def test_users_are_asked_for_a_password_that_the_server_cannot_tell() -> None:
    settings = {
        "address": "::",
        "users": [{"name": "a", "password": PASSWORD}, {"name": "b", "password": PASSWORD}],
        "tls": {"certificate": "/srv/c.pem", "key": "/srv/k.pem"},
    }
    found = files(**settings)
    web = yaml.safe_load(found["web.yml"])
    assert web["tls_server_config"] == {"cert_file": "/srv/c.pem", "key_file": "/srv/k.pem"}
    # The same with each version of ansible-core, and with another salt for each user.
    assert web["basic_auth_users"] == {
        "a": "$2b$08$WxOxWh/kXBWwXEXhW0OxMO6Sf1KTM0uGHEdFbSLqCCOFN/lAdZ5m.",
        "b": "$2b$08$K0PkWx.2LxayKUPhWkWzXecdCGLpjMaVQw59gdDGjbzGqr6VG.8vG",
    }
    assert found["secrets/job-prometheus"] == PASSWORD
    (itself,) = config(**settings)["scrape_configs"]
    assert itself["static_configs"][0]["targets"] == ["[::1]:9090"]
    assert (itself["scheme"], itself["basic_auth"]["username"]) == ("https", "a")


def test_secrets_of_ones_own_jobs_are_in_files() -> None:
    job = {
        "job_name": "own",
        "basic_auth": {"username": "me", "password": PASSWORD},
        "http_sd_configs": [{"url": "http://a/", "authorization": {"credentials": PASSWORD}}],
    }
    found = files(scrape_configs=[job])
    assert found["secrets/own-0-password"] == found["secrets/own-0-0-credentials"] == PASSWORD
    assert yaml.safe_load(found["prometheus.yml"])["scrape_configs"][1] == {
        "job_name": "own",
        "basic_auth": {"username": "me", "password_file": "/etc/prometheus/secrets/own-0-password"},
        "http_sd_configs": [
            {
                "url": "http://a/",
                "authorization": {"credentials_file": "/etc/prometheus/secrets/own-0-0-credentials"},
            }
        ],
    }


def test_a_file_is_open_unless_secrets_are_in_it() -> None:
    def private(**settings: Any) -> list[str]:
        return [one["path"] for one in made(**settings)["private"] if not one["path"].startswith("secrets/")]

    assert private() == []
    assert private(scrape_configs=[{"job_name": "own", "basic_auth": {"password": PASSWORD}}]) == []
    discovery = {"job_name": "own", "consul_sd_configs": [{"server": "a", "token": PASSWORD}]}
    assert private(scrape_configs=[discovery]) == ["prometheus.yml"]
    assert private(users=[{"name": "a", "password": PASSWORD}]) == ["web.yml"]


def test_rules_are_files_of_their_own() -> None:
    group = {"name": "own", "rules": [{"record": "a:b", "expr": "up"}]}
    assert yaml.safe_load(files(extra_rules=[group])["rules/extra.yml"]) == {"groups": [group]}


def test_flags() -> None:
    found = made(
        address="::1",
        memory="1gb",
        url="https://a/50%$",
        retention={"time": "5d", "size": "10gb"},
        flags={"query.max-samples": 5, "storage.tsdb.wal-compression": False, "web.x": True, "a": 'b"\\'},
    )
    assert found["flags"][3:] == [
        '"--storage.tsdb.retention.time=5d"',
        '"--storage.tsdb.retention.size=10GB"',
        '"--web.config.file=/etc/prometheus/web.yml"',
        '"--web.listen-address=[::1]:9090"',
        '"--web.route-prefix=/"',
        '"--web.external-url=https://a/50%%$$"',
        '"--query.max-samples=5"',
        "--no-storage.tsdb.wal-compression",
        "--web.x",
        '"--a=b\\"\\\\"',
    ]
    assert (found["memory"], found["busy"]) == (1024**3, int(1024**3 * 0.9))


def test_settings_that_are_none_are_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="expects the role's settings as a dict"):
        worked_out([], "ops1")
    with pytest.raises(AnsibleFilterError, match="prometheus_port"):
        made(port="many")


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("ab"), st.booleans()), max_size=8))
def test_each_target_is_in_one_job_and_no_two_jobs_share_a_name(kinds: list[tuple[str, str, bool]]) -> None:
    targets = [
        {**NODE, "job": job, "path": f"/{path}", "insecure": insecure, "address": f"a:{number + 1}"}
        for number, (job, path, insecure) in enumerate(kinds)
    ]
    jobs = config(targets=targets)["scrape_configs"]
    names = [one["job_name"] for one in jobs]
    assert len(set(names)) == len(names)
    found = [one["targets"][0] for job in jobs[1:] for one in job["static_configs"]]
    assert sorted(found) == sorted(one["address"] for one in targets)


def test_ansibles_marks_are_taken_off() -> None:
    settings = json.loads(json.dumps({"prometheus_targets": [NODE]}))

    class Marked(str):
        __slots__ = ()

    settings["prometheus_targets"][0]["host"] = Marked("web1")
    (one,) = [one for one in worked_out(settings, Marked("ops1"))["files"] if one["path"] == "prometheus.yml"]
    assert "host: web1" in one["content"]
    assert prometheus_model.MANAGED in one["content"]


def exports(**settings: Any) -> Any:
    templar = Templar(loader=DataLoader(), variables={})
    given = {f"prometheus_{name}": value for name, value in settings.items()}
    return exports_of("prometheus", {"inventory_hostname": "ops1", "ansible_host": "10.0.0.9", **given}, templar)


def test_what_others_are_told() -> None:
    told = exports(tls=None)
    assert told == exports()
    assert told["listens"] == [{"port": 9090, "address": "127.0.0.1", "setting": "prometheus_port", "from": "host"}]
    assert told["health"] == [
        {"name": "prometheus", "units": ["prometheus.service"], "url": "http://127.0.0.1:9090/-/ready"}
    ]
    assert told["memory"] == [
        {"setting": "prometheus_memory", "bytes": 512 * 1024**2, "what": "the figures of all hosts"}
    ]
    assert told["datasources"] == [
        {
            "name": "Prometheus",
            "type": "prometheus",
            "uid": "prometheus",
            "url": "http://127.0.0.1:9090",
            "host": "ops1",
        }
    ]


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("0.0.0.0", "https://10.0.0.9:9090"),
        ("fd00::1", "https://[fd00::1]:9090"),
        ("10.0.0.3", "https://10.0.0.3:9090"),
    ],
)
def test_others_are_told_how_to_get_in(address: str, url: str) -> None:
    users = [{"name": "grafana", "password": PASSWORD}]
    told = exports(address=address, users=users, tls={"certificate": "/a", "key": "/b"})
    assert told["health"][0]["url"] == ""
    (source,) = told["datasources"]
    assert (source["url"], source["user"], source["password"]) == (url, "grafana", PASSWORD)
