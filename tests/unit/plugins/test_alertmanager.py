# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Settings of the alertmanager role that cannot work, each with the sentence that an operator reads."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.plugin_utils import specs
from ansible_collections.fushuma.production.plugins.plugin_utils.alertmanager import problems, seconds
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import sentences

OPTIONS = specs.role_options("alertmanager")
MAIL = {"smarthost": "mail.fushuma.com:587", "from": "alerts@fushuma.com"}
OPERATORS = {"name": "operators", "mail": ["operators@fushuma.com"]}
CHAT = {"name": "chat", "slack": [{"url": "https://chat.fushuma.com/hooks/canary-61f0c2"}]}
NOBODY = {"name": "nobody"}
NIGHT = {"name": "night", "time_intervals": [{"times": [{"start_time": "00:00", "end_time": "06:00"}]}]}
TLS = {"certificate": "/srv/chain.pem", "key": "/srv/key.pem"}
USER = {"name": "prometheus", "password": "canary-8c1f90e4d2a7"}


def said(**settings: Any) -> list[str]:
    """What is said of settings; those that are not given work."""
    given = {"mail": MAIL, "receivers": [OPERATORS, CHAT, NOBODY], "time_intervals": [NIGHT], **settings}
    named = {f"alertmanager_{name}": value for name, value in given.items()}
    assert not specs.problems(OPTIONS, named), "the shape is wrong already"
    found = sentences(problems(specs.filled(OPTIONS, named)))
    assert "canary" not in " ".join(found)
    return found


def receiver(**settings: Any) -> dict[str, Any]:
    return {"receivers": [{**OPERATORS, **settings}]}


def route(**settings: Any) -> dict[str, Any]:
    return {"routes": [{"receiver": "chat", "matchers": ['severity="warning"'], **settings}]}


def expecting(labels: dict[str, Any], *receivers: str, **settings: Any) -> dict[str, Any]:
    return {"route_tests": [{"labels": labels, "receivers": list(receivers)}], **settings}


PAGER = {"url": "http://10.0.0.7/pager", "routing_key_file": "/etc/prometheus/alertmanager/secrets/pager"}
HEARTBEAT = {"url": "https://beats.fushuma.com/canary-5b0e77"}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"mail": {}, "receivers": [CHAT]},
        {"mail": {**MAIL, "user": "alerts", "password": "canary-0f1e2d3c4b"}},
        {"mail": {**MAIL, "smarthost": "[::1]:25", "user": "a", "password": "canary-0f1e2d3c4b", "tls": False}},
        {"mail": {**MAIL, "smarthost": "localhost:25", "user": "a", "password": "canary-0f1e2d3c4b", "tls": False}},
        receiver(settings={"pagerduty_configs": [PAGER]}),
        receiver(webhooks=[{"url": "http://10.0.0.7:8099/hook"}, {"url": "http://bot.internal/hook"}]),
        {"secrets": {"pager": "canary-77aa00c1"}},
        route(),
        route(group_by=["..."]),
        {"routes": [{"matchers": ["a=b"], "receiver": "chat"}, {"continue": True}, {"receiver": "operators"}]},
        route(group_wait="0s", group_interval="1m", repeat_interval="1h30m"),
        route(mute_time_intervals=["night"]),
        route(matchers=["severity=critical"], mute_time_intervals=["night"], **{"continue": True}),
        route(receiver="nobody", matchers=['severity!="critical"']),
        route(receiver="nobody", matchers=['severity=~"info|warning"', "job=app"]),
        route(routes=[{"receiver": "nobody", "matchers": ["job=app"]}]),
        route(matchers=[], routes=[{"matchers": ['alertname=~"Disk.+"'], "receiver": "operators"}]),
        expecting({"severity": "warning"}, "chat", **route()),
        expecting({"severity": "critical"}, "operators", **route()),
        expecting({"alertname": "Watchdog"}, "heartbeat", heartbeat=HEARTBEAT),
        {"heartbeat": {**HEARTBEAT, "interval": "5m"}},
        {"addresses": ["127.0.0.1", "::1"]},
        {"addresses": ["10.0.1.5"], "tls": TLS, "users": [USER], "from": ["10.0.0.0/8"]},
        {"external_url": "https://alerts.fushuma.com/all"},
        {"cluster": {"address": "10.0.1.5", "peers": ["10.0.1.6:9094", "[fd00::1]:9094"]}},
        {"inhibit_rules": [{"source_matchers": ["a=b"], "target_matchers": ["c=d"], "equal": ["host"]}]},
    ],
)
def test_settings_that_work(settings: dict[str, Any]) -> None:
    assert said(**settings) == []


@pytest.mark.parametrize(
    ("settings", "setting", "why"),
    [
        ({"receivers": []}, "receivers", "nobody would be told of anything"),
        (receiver(name="heartbeat"), "receivers[0].name", "the role has a receiver of that name itself"),
        (receiver(name="on call"), "receivers[0].name", "files and tests call it by its name"),
        (receiver(mail=["operators"]), "receivers[0].mail[0]", "it is no address for mail"),
        (receiver(webhooks=[{"url": "canary"}]), "receivers[0].webhooks[0].url", "it is no address of a server"),
        (receiver(webhooks=[{"url": "http://[canary"}]), "receivers[0].webhooks[0].url", "it is no address of a serv"),
        (receiver(webhooks=[{"url": "http://canary.fushuma.com/"}]), "receivers[0].webhooks[0].url", "on the way"),
        (receiver(slack=[{"url": "http://1.1.1.1/canary"}]), "receivers[0].slack[0].url", "on the way"),
        (receiver(settings={"pagerduty": []}), "receivers[0].settings.pagerduty", "it is no list of a kind"),
        (receiver(settings={"pagerduty_configs": {}}), "receivers[0].settings.pagerduty_configs", "it is no list"),
        (
            receiver(settings={"pagerduty_configs": [{"routing_key": "canary"}]}),
            "receivers[0].settings.pagerduty_configs[0].routing_key",
            "Write routing_key_file: /etc/prometheus/alertmanager/secrets/NAME",
        ),
        (
            receiver(settings={"webhook_configs": [{"http_config": {"authorization": {"credentials": "canary"}}}]}),
            "receivers[0].settings.webhook_configs[0].http_config.authorization.credentials",
            "a secret has a file of its own",
        ),
        ({"secrets": {"../pager": "canary"}}, "secrets", "a file is called by it"),
        ({"secrets": {"pager": " "}}, "secrets.pager", "it is empty"),
        ({"mail": {**MAIL, "smarthost": ""}}, "mail.smarthost", "nobody takes it"),
        ({"mail": {**MAIL, "smarthost": "mail.fushuma.com"}}, "mail.smarthost", "it is no server with a port"),
        ({"mail": {**MAIL, "smarthost": "mail.fushuma.com:0"}}, "mail.smarthost", "it is no server with a port"),
        ({"mail": {**MAIL, "from": ""}}, "mail.from", "mail needs the address of a sender"),
        ({"mail": {**MAIL, "password": "canary"}}, "mail.user", "nobody whose it is"),
        ({"mail": {**MAIL, "user": "alerts"}}, "mail.password", "there is a user without one"),
        ({"mail": {**MAIL, "user": "a", "password": "canary", "tls": False}}, "mail.tls", "could read the password"),
        ({"route": {"receiver": "me"}}, "route.receiver", "Write one of operators, chat, nobody."),
        ({"route": {"receiver": "nobody"}}, "route.receiver", "what no route takes would reach nobody"),
        ({"route": {"group_by": ["a-b"]}}, "route.group_by[0]", "it is no label"),
        ({"route": {"group_wait": "soon"}}, "route.group_wait", "it is no time"),
        ({"route": {"group_interval": "0s"}}, "route.group_interval", "it is no time"),
        ({"route": {"repeat_interval": "1m"}}, "route.repeat_interval", "asked once in each group_interval"),
        ({"route": {"repeat_interval": "1w"}}, "route.repeat_interval", "what was told is forgotten before"),
        (route(repeat_interval="2m"), "routes[0].repeat_interval", "asked once in each group_interval"),
        (route(receiver="people"), "routes[0].receiver", "no receiver has that name"),
        (route(matchers=["severity"]), "routes[0].matchers[0]", "it is no matcher"),
        (route(matchers=['host=~"("']), "routes[0].matchers[0]", "it is no regular expression"),
        (route(mute_time_intervals=["day"]), "routes[0].mute_time_intervals[0]", "none of that name"),
        ({**route(active_time_intervals=["day"]), "time_intervals": []}, "routes[0].active_time_intervals[0]", "none"),
        (route(routes=[{"receivr": "chat"}]), "routes[0].routes[0].receivr", "Write receiver"),
        (route(routes=[{"routes": ["chat"]}]), "routes[0].routes[0].routes[0]", "a group of settings is needed"),
        (route(routes=[{"routes": [{"matchers": ["x"]}]}]), "routes[0].routes[0].routes[0].matchers[0]", "no matcher"),
        (route(receiver="nobody", matchers=["job=app"]), "routes[0].receiver", 'Write another one, or severity!="crit'),
        (
            route(matchers=["job=app"], routes=[{"receiver": "nobody", "matchers": ["team=x"]}]),
            "routes[0].routes[0].receiver",
            "critical alerts may come that way",
        ),
        (route(matchers=["job=app"], mute_time_intervals=["night"]), "routes[0].mute_time_intervals", "told of them"),
        (route(matchers=["job=app"], active_time_intervals=["night"]), "routes[0].active_time_intervals", "at other"),
        (
            {"routes": [{"receiver": "chat"}, {"receiver": "operators", "matchers": ["a=b"]}]},
            "routes[0].matchers",
            "it takes all alerts",
        ),
        ({"time_intervals": [NIGHT, NIGHT]}, "time_intervals[1].name", "has it already"),
        (
            expecting({"severity": "critical"}, "chat"),
            "route_tests[0].receivers",
            "with severity=critical goes to operators",
        ),
        (expecting({"alertname": "Watchdog"}, "operators"), "route_tests[0].receivers", "goes to nobody"),
        (expecting({"severity": "critical"}, "me"), "route_tests[0].receivers", "no receiver has that name"),
        (expecting({}, "operators"), "route_tests[0].labels", "these are no labels"),
        (expecting({"a-b": "c"}, "operators"), "route_tests[0].labels", "these are no labels"),
        (expecting({"a": 'b"'}, "operators"), "route_tests[0].labels", "these are no labels"),
        ({"heartbeat": {"url": "http://beats.fushuma.com/canary"}}, "heartbeat.url", "everybody on the way"),
        ({"heartbeat": {**HEARTBEAT, "interval": "2h"}}, "heartbeat.interval", "every five seconds to every hour"),
        ({"heartbeat": {**HEARTBEAT, "interval": "often"}}, "heartbeat.interval", "every five seconds to every hour"),
        ({"retention": "30m", "route": {"repeat_interval": "10m"}}, "retention", "told again"),
        ({"inhibition": {"labels": ["a b"]}}, "inhibition.labels[0]", "it is no label"),
        ({"inhibition": {"host_down": ["a|b"]}}, "inhibition.host_down[0]", "it is no alert's name"),
        (
            {"inhibit_rules": [{"source_matchers": [], "target_matchers": ["a=b"]}]},
            "inhibit_rules[0].source_matchers",
            "it would be every alert",
        ),
        (
            {"inhibit_rules": [{"source_matchers": ["a=b"], "target_matchers": ["a"]}]},
            "inhibit_rules[0].target_matchers[0]",
            "it is no matcher",
        ),
        ({"addresses": ["localhost", "127.0.0.1"]}, "addresses[0]", "it is no address"),
        ({"addresses": ["10.0.1.5"]}, "addresses", "could silence all alerts"),
        ({"addresses": ["10.0.1.5"], "tls": TLS}, "addresses", "could silence all alerts"),
        ({"tls": {"certificate": "/c"}}, "tls.key", "there is the certificate without it"),
        ({"tls": {"key": "/k"}}, "tls.certificate", "there is the key without it"),
        ({"tls": {"authority": "/a"}}, "tls.certificate", "there is the authority without it"),
        ({"port": 0}, "port", "ports go from 1 to 65535"),
        ({"external_url": "alerts"}, "external_url", "it is no address"),
        ({"users": [USER, USER]}, "users[1].name", "has it already"),
        ({"users": [{**USER, "name": "a b"}]}, "users[0].name", "it is no name for a user"),
        ({"cluster": {"peers": ["10.0.1.6:9094"]}}, "cluster.address", "they reach it nowhere"),
        ({"cluster": {"address": "0.0.0.0"}}, "cluster.address", "it is no private address"),
        ({"cluster": {"address": "1.1.1.1"}}, "cluster.address", "it is no private address"),
        ({"cluster": {"address": "10.0.1.5", "port": 0}}, "cluster.port", "ports go from 1 to 65535"),
        ({"cluster": {"address": "10.0.1.5", "peers": ["other:9094"]}}, "cluster.peers[0]", "it is no private address"),
        ({"cluster": {"address": "10.0.1.5", "peers": ["10.0.1.6"]}}, "cluster.peers[0]", "it is no private address"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], setting: str, why: str) -> None:
    (found,) = said(**settings)
    assert found.startswith(f"alertmanager_{setting} is ")
    assert why in found


@pytest.mark.parametrize(
    ("text", "value"),
    [("1h30m", 5400), ("0s", 0), ("1w1d", 691200), ("", -1), ("5", -1), ("5 m", -1), ("5m1h", -1)],
)
def test_times(text: str, value: int) -> None:
    assert seconds(text) == value
