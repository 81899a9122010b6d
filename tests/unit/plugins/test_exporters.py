# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Settings of the exporters role that cannot work, each with the sentence that an operator reads, and what it makes of
those that can."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.fushuma.production.plugins.filter.exporters import FilterModule
from ansible_collections.fushuma.production.plugins.plugin_utils import specs
from ansible_collections.fushuma.production.plugins.plugin_utils.exporters import problems
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import sentences

OPTIONS = specs.role_options("exporters")
SECRET = "canary-1f0e9d8c7b6a"
NGINX = {"job": "nginx", "url": "http://127.0.0.1:8081/status"}
CACHE = {"job": "redis", "name": "cache", "host": "127.0.0.1", "port": 6379, "user": "figures", "password": SECRET}
JOBS = {**CACHE, "name": "jobs", "host": "::1", "port": 6380, "tls": True}
MARIADB = {"job": "mariadb", "socket": "/run/mysqld/mysqld.sock", "port": 3306, "user": "figures", "password": SECRET}
APP = {"job": "app", "name": "shop", "process": "web", "address": "::1", "ports": [8100, 8110], "path": "/metrics"}
BUDGET = {"job": "mariadb", "textfile": "/var/lib/prometheus/node-exporter/mariadb_connection_budget.prom"}
SCRAPE = {"job": "mail", "address": "127.0.0.1:9154"}


def settings(**given: Any) -> dict[str, Any]:
    assert not specs.problems(OPTIONS, given), "the shape is wrong already"
    return specs.filled(OPTIONS, given)


def said(**given: Any) -> list[str]:
    return sentences(problems(settings(**given)))


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"exporters_sources": [NGINX, CACHE, JOBS, MARIADB, BUDGET, APP, {"job": "containers"}, {"job": "new"}]},
        {"exporters_address": "10.0.1.31", "exporters_from": ["10.0.1.0/24"]},
        {"exporters_address": "fd00::1"},
        {"exporters_ports": {"node": 19100}},
        {"exporters_arguments": {"node": ["--collector.processes", "--no-collector.arp", "--collector.a=^(x|y)$"]}},
        {"exporters_textfile_folder": "/srv/figures"},
        {"exporters_extra": {"modules": {"dns_own": {"prober": "dns"}}}},
        {"exporters_extra": {"scrapes": [SCRAPE, {**SCRAPE, "path": "/other", "labels": {"server": "out"}}]}},
        {"exporters_extra": {"scrapes": [{**SCRAPE, "address": "[::1]:9154"}, {**SCRAPE, "address": "own.test:1"}]}},
    ],
)
def test_settings_that_work(given: dict[str, Any]) -> None:
    assert said(**given) == []


@pytest.mark.parametrize(
    ("given", "setting", "why"),
    [
        ({"exporters_address": "localhost"}, "exporters_address", "it is no address"),
        ({"exporters_address": "0.0.0.0"}, "exporters_address", "has to know one address"),
        ({"exporters_address": "1.1.1.1"}, "exporters_address", "the whole world reaches it"),
        ({"exporters_from": ["10.0.0.0/8"]}, "exporters_from", "loopback addresses only"),
        ({"exporters_from": "world"}, "exporters_from", "only machines that are named"),
        (
            {"exporters_address": "10.0.0.1", "exporters_from": ["0.0.0.0/0"]},
            "exporters_from[0]",
            "it is the whole world",
        ),
        ({"exporters_ports": {"redis": 0}}, "exporters_ports.redis", "ports go from 1 to 65535"),
        ({"exporters_ports": {"nginx": 9100}}, "exporters_ports.nginx", "exporters_ports.node has it already"),
        ({"exporters_arguments": {"node": ["collector"]}}, "exporters_arguments.node[0]", "it is no argument"),
        ({"exporters_arguments": {"node": ["--a=b c"]}}, "exporters_arguments.node[0]", "do not survive a unit"),
        ({"exporters_arguments": {"node": ["--a='b'"]}}, "exporters_arguments.node[0]", "do not survive a unit"),
        (
            {"exporters_arguments": {"node": ["--no-collector.systemd"]}},
            "exporters_arguments.node[0]",
            "Write nothing; it is on",
        ),
        (
            {"exporters_arguments": {"redis": ["-redis.password=abc"]}},
            "exporters_arguments.redis[0]",
            "Write a user of the instance whose role is exporter",
        ),
        ({"exporters_textfile_folder": "/srv/a b"}, "exporters_textfile_folder", "it is no plain path"),
        ({"exporters_textfile_folder": "/srv/../etc"}, "exporters_textfile_folder", "it is no plain path"),
        ({"exporters_certificates": ["own.pem"]}, "exporters_certificates[0]", "no pattern of paths"),
        ({"exporters_drift_ignored": ["*.pem"]}, "exporters_drift_ignored[0]", "no pattern of paths"),
        (
            {"exporters_textfile_folder": "/srv/figures", "exporters_sources": [BUDGET]},
            "exporters_sources[0].textfile",
            "node_exporter reads /srv/figures",
        ),
        ({"exporters_sources": [{"job": "nginx"}]}, "exporters_sources[0].url", "nginx cannot be measured without"),
        (
            {"exporters_sources": [{**CACHE, "password": None}]},
            "exporters_sources[0].password",
            "redis cannot be measured without",
        ),
        (
            {"exporters_sources": [NGINX, CACHE, {**JOBS, "user": "other"}]},
            "exporters_sources[2].user",
            "one exporter asks all instances of a host, and exporters_sources[1].user is figures",
        ),
        (
            {"exporters_extra": {"modules": {"Mail": {"prober": "tcp"}}}},
            "exporters_extra.modules.Mail",
            "it is no name",
        ),
        (
            {"exporters_extra": {"modules": {"tcp": {"prober": "tcp"}}}},
            "exporters_extra.modules.tcp",
            "the role has a module of that name itself",
        ),
        (
            {"exporters_extra": {"modules": {"mail": {"prober": "smtp"}}}},
            "exporters_extra.modules.mail",
            "it does not say how to ask",
        ),
        ({"exporters_extra": {"modules": {"mail": "tcp"}}}, "exporters_extra.modules.mail", "does not say how to ask"),
        (
            {"exporters_extra": {"scrapes": [SCRAPE, {**SCRAPE, "job": "other"}]}},
            "exporters_extra.scrapes[1].address",
            "exporters_extra.scrapes[0] has it already",
        ),
        (
            {"exporters_extra": {"scrapes": [{**SCRAPE, "job": "My job"}]}},
            "exporters_extra.scrapes[0].job",
            "it is no name",
        ),
        (
            {"exporters_extra": {"scrapes": [{**SCRAPE, "address": "127.0.0.1"}]}},
            "exporters_extra.scrapes[0].address",
            "it is no address",
        ),
        (
            {"exporters_extra": {"scrapes": [{**SCRAPE, "address": "127.0.0.1:70000"}]}},
            "exporters_extra.scrapes[0].address",
            "it is no address",
        ),
        (
            {"exporters_extra": {"scrapes": [{**SCRAPE, "path": "metrics"}]}},
            "exporters_extra.scrapes[0].path",
            "it does not begin with /",
        ),
        (
            {"exporters_extra": {"scrapes": [{**SCRAPE, "labels": {"a-b": "c"}}]}},
            "exporters_extra.scrapes[0].labels.a-b",
            "it is no name of a label",
        ),
        (
            {"exporters_extra": {"scrapes": [{**SCRAPE, "labels": {"host": "c"}}]}},
            "exporters_extra.scrapes[0].labels.host",
            "the role says it itself",
        ),
    ],
)
def test_settings_that_cannot_work(given: dict[str, Any], setting: str, why: str) -> None:
    (found,) = said(**given)
    assert found.startswith(f"{setting} is ")
    assert why in found
    assert "canary" not in found


# --- what it makes of them --------------------------------------------------------------------------------------------


def model(name: str = "exporters_model", **given: Any) -> Any:
    return FilterModule().filters()[name](given, "web1")


def file_of(found: Any, dest: str) -> Any:
    return next(one for one in found["files"] if one["dest"] == dest)


def arguments(found: Any) -> dict[str, str]:
    return {one["name"]: one["arguments"] for one in file_of(found, "/etc/default/{unit}")["each"]}


def test_a_host_without_anything() -> None:
    found = model()
    assert found["packages"] == ["prometheus-node-exporter", "openssl", "python3"]
    assert found["units"] == ["prometheus-node-exporter.service", "production-figures-host.timer"]
    assert found["unwanted_units"] == [
        "prometheus-nginx-exporter.service",
        "prometheus-redis-exporter.service",
        "prometheus-mysqld-exporter.service",
        "prometheus-blackbox-exporter.service",
        "production-figures-containers.timer",
        "prometheus-node-exporter-apt.timer",
    ]
    assert list(arguments(found)) == ["node"]
    assert file_of(found, "/etc/prometheus-exporters/{name}")["each"] == []
    gone = file_of(found, "/var/lib/prometheus/node-exporter/{name}.prom")["each"]
    assert gone == [{"name": "production_containers"}, {"name": "apt"}]
    assert found["probes"] == [{"http": "http://127.0.0.1:9100/", "body": ""}]
    assert found["scrapes"] == [
        {
            "job": "node",
            "host": "web1",
            "address": "127.0.0.1:9100",
            "unit": "prometheus-node-exporter.service",
            "labels": {"instance": "web1"},
        }
    ]


def test_a_host_with_everything() -> None:
    found = model(
        exporters_sources=[NGINX, CACHE, JOBS, BUDGET, MARIADB, APP, {"job": "containers"}],
        exporters_blackbox=True,
        exporters_arguments={"mysqld": ["--collect.info_schema.processlist"]},
    )
    assert [one for one in found["units"] if one in found["unwanted_units"]] == []
    assert found["unwanted_units"] == ["prometheus-node-exporter-apt.timer"]
    assert file_of(found, "/var/lib/prometheus/node-exporter/{name}.prom")["each"] == [{"name": "apt"}]
    told = arguments(found)
    assert told["nginx"] == "--web.listen-address=127.0.0.1:9113 --nginx.scrape-uri=http://127.0.0.1:8081/status"
    assert told["redis"] == (
        "--web.listen-address=127.0.0.1:9121 --redis.addr= --config-command=- --redis.user=figures"
        " --redis.password-file=/run/credentials/prometheus-redis-exporter.service/redis.json --skip-tls-verification"
    )
    assert told["mysqld"] == (
        "--web.listen-address=127.0.0.1:9104"
        " --config.my-cnf=/run/credentials/prometheus-mysqld-exporter.service/mysqld.cnf"
        " --collect.info_schema.processlist"
    )
    assert "canary" not in json.dumps(told)
    secrets = {one["name"]: one["content"] for one in file_of(found, "/etc/prometheus-exporters/{name}")["each"]}
    assert file_of(found, "/etc/prometheus-exporters/{name}")["mode"] == "0600"
    assert json.loads(secrets["redis.json"]) == {
        "redis://127.0.0.1:6379": SECRET,
        "redis://figures@127.0.0.1:6379": SECRET,
        "rediss://[::1]:6380": SECRET,
        "rediss://figures@[::1]:6380": SECRET,
    }
    assert f"user=figures\npassword=`{SECRET}`\nsocket=/run/mysqld/mysqld.sock\n" in secrets["mysqld.cnf"]
    assert [one["http"] for one in found["probes"] if one["body"].endswith("redis_up 1")] == [
        "http://127.0.0.1:9121/scrape?target=redis://127.0.0.1:6379",
        "http://127.0.0.1:9121/scrape?target=rediss://[::1]:6380",
    ]


def test_what_is_told_to_prometheus() -> None:
    mail = {**SCRAPE, "scheme": "https", "labels": {"server": "out"}, "unit": "postfix.service"}
    told = model(
        "exporters_exports",
        exporters_sources=[CACHE, JOBS, MARIADB, APP],
        exporters_extra={"scrapes": [mail]},
        exporters_address="fd00::1",
        exporters_from=["fd00::/64"],
    )
    assert set(told) == {"scrapes", "listens", "health", "logs"}
    assert [(one["job"], one["address"], one["labels"]["instance"]) for one in told["scrapes"]] == [
        ("node", "[fd00::1]:9100", "web1"),
        ("redis", "[fd00::1]:9121", "web1/cache"),
        ("redis", "[fd00::1]:9121", "web1/jobs"),
        ("mariadb", "[fd00::1]:9104", "web1"),
        ("app", "[::1]:8100", "web1/shop/web/8100"),
        ("app", "[::1]:8110", "web1/shop/web/8110"),
        ("mail", "127.0.0.1:9154", "web1"),
    ]
    cache, _jobs, _mariadb, app = told["scrapes"][1:5]
    assert (cache["path"], cache["params"]) == ("/scrape", {"target": "redis://127.0.0.1:6379"})
    assert cache["labels"]["redis"] == "cache"
    assert (app["path"], app["labels"]["app"], app["labels"]["process"]) == ("/metrics", "shop", "web")
    assert told["scrapes"][-1] == {
        **mail,
        "host": "web1",
        "labels": {"instance": "web1", "server": "out"},
    }
    assert told["listens"][1] == {
        "port": 9121,
        "address": "fd00::1",
        "from": ["fd00::/64"],
        "setting": "exporters_ports.redis",
    }
    assert told["health"] == [
        {
            "name": "exporters",
            "units": [f"prometheus-{name}-exporter.service" for name in ("node", "redis", "mysqld")],
        }
    ]
    assert {"unit": "prometheus-node-exporter.service", "job": "exporters"} in told["logs"]


def test_what_asks_from_outside() -> None:
    own = {"ping": {"prober": "icmp"}}
    found = model(exporters_blackbox=True, exporters_extra={"modules": own})
    modules = json.loads(file_of(found, "/etc/prometheus/blackbox.yml")["content"])["modules"]
    guarded = {"http_login", "http_login_insecure"}
    assert set(modules) == {"http", "http_2xx", "http_insecure", "tcp", "ping", *guarded}
    assert {name for name, one in modules.items() if "valid_status_codes" in one.get("http", {})} == guarded
    assert {name for name, one in modules.items() if "tls_config" in one.get("http", {})} == {
        "http_insecure",
        "http_login_insecure",
    }
    assert "tls_config" not in modules["http_2xx"]["http"]
    (blackbox,) = [one for one in file_of(found, "/etc/default/{unit}")["each"] if one["name"] == "blackbox"]
    assert blackbox["capabilities"] == "CAP_NET_RAW"
    plain = model(exporters_blackbox=True)
    assert {one["capabilities"] for one in file_of(plain, "/etc/default/{unit}")["each"]} == {""}


@pytest.mark.parametrize("name", ["exporters_model", "exporters_exports"])
@pytest.mark.parametrize("given", [7, {"exporters_ports": {"none": 1}}])
def test_what_are_no_settings(name: str, given: Any) -> None:
    with pytest.raises(AnsibleFilterError, match=f"^{name}: "):
        FilterModule().filters()[name](given, "web1")
