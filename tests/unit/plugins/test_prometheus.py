# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Settings of the prometheus role that cannot work, each with the sentence that an operator reads."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.plugin_utils import specs
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import sentences
from ansible_collections.fushuma.production.plugins.plugin_utils.prometheus import problems, seconds_of

OPTIONS = specs.role_options("prometheus")
USER = {"name": "grafana", "password": "canary-1f0e9d8c7b6a"}
NODE = {"job": "node", "host": "web1", "address": "10.0.0.1:9100"}
PROBE = {"name": "shop", "host": "edge1", "url": "https://shop.example.com/"}
STORE = {"name": "longterm", "url": "https://store.example.com/api/v1/write"}


def said(**settings: Any) -> list[str]:
    given = {f"prometheus_{name}": value for name, value in settings.items()}
    assert not specs.problems(OPTIONS, given), "the shape is wrong already"
    return sentences(problems(specs.filled(OPTIONS, given)))


def target(**settings: Any) -> dict[str, Any]:
    return {"targets": [{**NODE, **settings}]}


def probe(**settings: Any) -> dict[str, Any]:
    return {"probes": [{**PROBE, **settings}]}


def store(**settings: Any) -> dict[str, Any]:
    return {"remote_write": [{**STORE, **settings}]}


def job(**settings: Any) -> dict[str, Any]:
    return {"scrape_configs": [{"job_name": "mine", **settings}]}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"address": "10.0.0.1", "users": [USER]},
        {"address": "::", "users": [USER], "from": ["10.0.0.0/8"], "tls": {"certificate": "/a", "key": "/b"}},
        {"url": "https://prometheus.example.com:8443/figures"},
        {"retention": {"time": "1y2w", "size": "200gb"}, "intervals": {"scrape": "1m", "timeout": "1m"}},
        {"external_labels": {"site": "a", "replica": 1}},
        target(),
        target(
            scheme="https", path="/own", params={"target": "a", "n": 1}, labels={"instance": "web1/a"}, insecure=True
        ),
        target(user="me", password="canary-0a1b2c3d4e5f"),
        {"targets": [NODE, {**NODE, "job": "nginx"}, {**NODE, "labels": {"instance": "web1/two"}}]},
        probe(),
        probe(address="10.0.0.1", insecure=True),
        probe(module="tcp", url="10.0.0.1:22"),
        {"probes": [PROBE, {**PROBE, "host": "edge2"}]},
        {"alertmanagers": [{"address": "[::1]:9093", "scheme": "https", "host": "ops1"}]},
        store(),
        store(user="me", password="canary-0a1b2c3d4e5f"),
        store(bearer="canary-0a1b2c3d4e5f", url="http://10.0.0.5:9090/api/v1/write"),
        store(bearer="canary-0a1b2c3d4e5f", url="http://store:9090/api/v1/write"),
        store(tls={"certificate": "/a", "key": "/b", "authority": "/c"}),
        job(scrape_interval="5m", scrape_timeout="30s", static_configs=[{"labels": {"__scheme__": "https"}}]),
        job(ec2_sd_configs=[{}], static_configs=["nonsense that promtool sees"]),
        {"flags": {"query.max-samples": 5, "web.cors.origin": "https://a", "storage.tsdb.wal-compression": False}},
    ],
)
def test_settings_that_work(settings: dict[str, Any]) -> None:
    assert said(**settings) == []


@pytest.mark.parametrize(
    ("settings", "setting", "why"),
    [
        ({"address": "localhost"}, "address", "it is no address"),
        ({"address": "10.0.0.1"}, "address", "could read all figures"),
        ({"address": "0.0.0.0", "tls": {"certificate": "/a", "key": "/b"}}, "address", "could read all figures"),
        ({"from": ["10.0.0.0/8"]}, "from", "loopback addresses only"),
        ({"from": "world"}, "from", "only machines that are named"),
        ({"port": 0}, "port", "ports go from 1"),
        ({"url": "prometheus.example.com"}, "url", "it is no URL"),
        ({"url": "http://a:b/"}, "url", "it is no URL"),
        ({"users": [{**USER, "name": "a:b"}]}, "users[0].name", "it is no name for a user"),
        ({"users": [USER, USER]}, "users[1].name", "users[0] has it already"),
        ({"users": [{**USER, "password": "canary" + "0123456789" * 7}]}, "users[0].password", "72 bytes"),
        ({"retention": {"time": "month"}}, "retention.time", "it is no time"),
        ({"retention": {"time": "2d"}}, "retention.time", "rules look back three days"),
        ({"retention": {"size": "100mb"}}, "retention.size", "less than the last hours take"),
        ({"retention": {"size": "5G"}}, "retention.size", "it is no size"),
        ({"memory": "64mb"}, "memory", "less than an idle server needs"),
        ({"intervals": {"scrape": ""}}, "intervals.scrape", "it is no time"),
        ({"intervals": {"scrape": "2m"}}, "intervals.scrape", "rules look at five minutes"),
        ({"intervals": {"evaluation": "1h"}}, "intervals.evaluation", "rules look at five minutes"),
        ({"intervals": {"scrape": "5s"}}, "intervals.timeout", "a scrape begins every 5s"),
        ({"external_labels": {"my-site": "a"}}, "external_labels.my-site", "it is no name for a label"),
        ({"external_labels": {"__a": "a"}}, "external_labels.__a", "it is no name for a label"),
        ({"external_labels": {"a": ["b"]}}, "external_labels.a", "a label has one value"),
        (target(job="a b"), "targets[0].job", "it is no name for a job"),
        (target(path="metrics"), "targets[0].path", "it does not begin with /"),
        (target(address="10.0.0.1"), "targets[0].address", "it is no host with a port"),
        (target(address="http://a:1"), "targets[0].address", "it is no host with a port"),
        (target(address="a:99999"), "targets[0].address", "it is no host with a port"),
        (target(params={"a": ["b"]}), "targets[0].params.a", "a parameter has one value"),
        (target(params={"a[]": "b"}), "targets[0].params.a[]", "Prometheus cannot send it"),
        (target(labels={"a b": "c"}), "targets[0].labels.a b", "it is no name for a label"),
        (target(user="me"), "targets[0].password", "a user has a password"),
        (target(password="canary-0a1b2c3d4e5f"), "targets[0].user", "nobody whose it is"),
        ({"targets": [NODE, {**NODE, "address": "10.0.0.2:9100"}]}, "targets[1]", "same labels as those of prom"),
        (probe(url="shop.example.com"), "probes[0].url", "it is no URL"),
        (probe(url="", module="tcp"), "probes[0].url", "nothing would be asked"),
        (probe(module="a b"), "probes[0].module", "it is no name of a module"),
        ({"probes": [PROBE, PROBE]}, "probes[1]", "prometheus_probes[0] asks the same"),
        ({"blackbox": "here"}, "blackbox", "it is no host with a port"),
        ({"alertmanagers": [{"address": "a"}]}, "alertmanagers[0].address", "it is no host with a port"),
        ({"alertmanagers": [{"address": "a:1", "user": "me"}]}, "alertmanagers[0].password", "a user has a password"),
        (store(name="Long"), "remote_write[0].name", "a file is called by it"),
        (store(url="store/api"), "remote_write[0].url", "it is no URL of HTTP"),
        (store(url="https://me:canary@store/"), "remote_write[0].url", "holds a user"),
        (store(url="http://a.example.com/", bearer="canary-0a1b2c3d4e5f"), "remote_write[0].url", "for all to read"),
        (store(url="http://9.9.9.9/", bearer="canary-0a1b2c3d4e5f"), "remote_write[0].url", "for all to read"),
        (store(timeout="soon"), "remote_write[0].timeout", "it is no time"),
        (store(user="me"), "remote_write[0].password", "a user has a password"),
        (
            store(user="me", password="canary-0a1b2c3d4e5f", bearer="canary-0a1b2c3d4e5f"),
            "remote_write[0].bearer",
            "there is a user too",
        ),
        (store(tls={"key": "/a"}), "remote_write[0].tls", "a certificate is shown with its key"),
        (store(tls={"insecure": True, "authority": "/a"}), "remote_write[0].tls.insecure", "would not be asked"),
        ({"remote_write": [STORE, STORE]}, "remote_write[1].name", "remote_write[0] has it already"),
        ({"scrape_configs": [{}]}, "scrape_configs[0].job_name", "each job has a name"),
        (job(job_name="prometheus"), "scrape_configs[0].job_name", "a job of this name is a target's already"),
        ({**target(), **job(job_name="node")}, "scrape_configs[0].job_name", "is a target's already"),
        ({"scrape_configs": [{"job_name": "a"}] * 2}, "scrape_configs[1].job_name", "is prometheus_scrape_configs[0]"),
        (job(scrape_interval="often"), "scrape_configs[0].scrape_interval", "it is no time"),
        (job(scrape_timeout="30s"), "scrape_configs[0].scrape_timeout", "a scrape of it begins every 15s"),
        (
            job(static_configs=[{"labels": {"a-b": "c"}}]),
            "scrape_configs[0].static_configs[0].labels.a-b",
            "it is no name for a label",
        ),
        ({"flags": {"web.listen-address": ":9090"}}, "flags.web.listen-address", "Write prometheus_address"),
        ({"flags": {"--query.x": 1}}, "flags.--query.x", "it is no name of a flag"),
        ({"flags": {"query.x": [1]}}, "flags.query.x", "a flag has one value"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], setting: str, why: str) -> None:
    (found,) = said(**settings)
    assert found.startswith(f"prometheus_{setting} is ")
    assert why in found
    assert "canary" not in found


def test_everything_is_said_at_once() -> None:
    assert len(said(port=0, memory="1", intervals={"scrape": "x", "timeout": "y", "evaluation": "z"})) == 5


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("15s", 15), ("1m30s", 90), ("1y", 31536000), ("500ms", 0.5), ("", 0), ("5", 0), ("s", 0), ("1s1m", 0), (None, 0)],
)
def test_times(text: Any, seconds: float) -> None:
    assert seconds_of(text) == seconds
