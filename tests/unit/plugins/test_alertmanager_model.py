# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the alertmanager role makes of its settings: the configuration, its secrets, who gets which alert."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.fushuma.production.plugins.filter.alertmanager import FilterModule
from ansible_collections.fushuma.production.plugins.plugin_utils import alertmanager_model, specs
from ansible_collections.fushuma.production.plugins.plugin_utils import alertmanager_routes as routing
from hypothesis import given
from hypothesis import strategies as st

FOLDER = "/etc/prometheus/alertmanager"
OPERATORS = {"name": "operators", "mail": ["operators@fushuma.com"]}


def model(**settings: Any) -> dict[str, Any]:
    named = {f"alertmanager_{name}": value for name, value in {"receivers": [OPERATORS], **settings}.items()}
    found: dict[str, Any] = FilterModule().filters()["alertmanager_model"](named, "ops1")
    return found


def files(**settings: Any) -> dict[str, str]:
    return {one["dest"]: one["content"] for one in model(**settings)["files"]}


def config(**settings: Any) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(files(**settings)["/etc/prometheus/alertmanager.yml"])
    return read


def receiver(**settings: Any) -> dict[str, Any]:
    found: dict[str, Any] = config(receivers=[{"name": "one", **settings}])["receivers"][0]
    return found


def test_little_makes_a_whole_configuration() -> None:
    found = config()
    assert found["route"]["receiver"] == "operators"
    assert found["route"]["routes"] == [
        {"receiver": alertmanager_model.NOBODY, "matchers": ['alertname="Watchdog"']},
    ]
    assert [one["name"] for one in found["receivers"]] == ["operators", alertmanager_model.NOBODY]
    assert found["global"] == {}
    assert found["templates"] == ["/etc/prometheus/alertmanager_templates/production.tmpl"]


def test_what_is_no_setting_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="alertmanager_model: expects the role's settings as a dict"):
        FilterModule().filters()["alertmanager_model"]([], "ops1")
    with pytest.raises(AnsibleFilterError, match="alertmanager_model: it is no matcher"):
        config(routes=[{"matchers": ["severity"]}])


def test_no_secret_that_may_be_elsewhere_is_in_the_configuration() -> None:
    mail = {"smarthost": "mail:587", "from": "a@b", "user": "alerts", "password": "canary-mail", "hello": "ops1"}
    found = files(
        mail=mail,
        secrets={"pager": "canary-pager"},
        receivers=[
            {
                "name": "one",
                "slack": [{"url": "https://chat/canary-a"}, {"url": "https://chat/canary-b"}],
                "webhooks": [{"url": "https://bot/x"}, {"url": "https://bot/y", "token": "canary-token"}],
            }
        ],
        users=[{"name": "prometheus", "password": "canary-web"}, {"name": "loki", "password": "canary-other"}],
    )
    text = found.pop("/etc/prometheus/alertmanager.yml")
    assert "canary" not in text
    client = yaml.safe_load(found.pop(f"{FOLDER}/client.yml"))
    assert client == {"basic_auth": {"username": "prometheus", "password_file": f"{FOLDER}/client.password"}}
    assert found == {
        f"{FOLDER}/mail": "canary-mail",
        f"{FOLDER}/one.slack0": "https://chat/canary-a",
        f"{FOLDER}/one.slack1": "https://chat/canary-b",
        f"{FOLDER}/one.webhook1": "canary-token",
        f"{FOLDER}/secrets/pager": "canary-pager",
        f"{FOLDER}/client.password": "canary-web",
    }
    assert yaml.safe_load(text)["global"] == {
        "smtp_smarthost": "mail:587",
        "smtp_from": "a@b",
        "smtp_hello": "ops1",
        "smtp_auth_username": "alerts",
        "smtp_auth_password_file": f"{FOLDER}/mail",
        "smtp_require_tls": True,
    }


@pytest.mark.parametrize(("port", "tls", "asked"), [(587, True, True), (465, True, False), (25, False, False)])
def test_tls_of_mail(port: int, tls: bool, asked: bool) -> None:
    found = config(mail={"smarthost": f"mail:{port}", "from": "a@b", "tls": tls})
    assert found["global"]["smtp_require_tls"] is asked


def test_ways_to_tell_somebody() -> None:
    assert receiver(mail=["a@b", "c@d"], resolved=False)["email_configs"][1] == {
        "to": "c@d",
        "send_resolved": False,
        "headers": {"Subject": '{{ template "production.title" . }}'},
        "html": "",
        "text": '{{ template "production.text" . }}',
    }
    (slack,) = receiver(slack=[{"url": "https://chat/x", "channel": "#a", "username": "hosts"}])["slack_configs"]
    assert (slack["api_url_file"], slack["channel"], slack["username"]) == (f"{FOLDER}/one.slack0", "#a", "hosts")
    assert slack["send_resolved"] is True
    hooks = receiver(
        webhooks=[{"url": "https://bot/x", "token": "t"}],
        settings={"webhook_configs": [{"url": "https://bot/y", "send_resolved": False}]},
    )["webhook_configs"]
    assert hooks == [
        {
            "url": "https://bot/x",
            "send_resolved": True,
            "http_config": {"authorization": {"credentials_file": f"{FOLDER}/one.webhook0"}},
        },
        {"url": "https://bot/y", "send_resolved": False},
    ]
    assert receiver() == {"name": "one"}


def test_the_heartbeat_has_a_route_of_its_own() -> None:
    found = config(heartbeat={"url": "https://beats/x", "interval": "2m"})
    route = found["route"]["routes"][0]
    assert (route["receiver"], route["group_interval"], route["repeat_interval"]) == ("heartbeat", "2m", "1s")
    assert found["receivers"][1] == {
        "name": "heartbeat",
        "webhook_configs": [{"url": "https://beats/x", "send_resolved": False}],
    }


def test_routes_say_what_they_say_and_no_more() -> None:
    inner = {"matchers": ["team=shop"], "group_by": ["..."], "continue": True}
    found = config(routes=[{"receiver": "operators", "matchers": ["severity = critical"], "routes": [inner]}])
    assert found["route"]["routes"][1] == {
        "receiver": "operators",
        "matchers": ['severity="critical"'],
        "routes": [{"matchers": ['team="shop"'], "group_by": ["..."], "continue": True}],
    }


def test_who_stands_for_whom() -> None:
    rules = {"source_matchers": ["a=b"], "target_matchers": ["c=d"], "equal": ["host"]}
    same, subject, down, own = config(inhibit_rules=[rules])["inhibit_rules"]
    assert same["source_matchers"] == ['severity="critical"', 'alertname!=""']
    assert same["equal"][:2] == ["alertname", "host"]
    assert subject["target_matchers"] == ['severity=~"warning|info"', 'subject!=""']
    assert down == {
        "source_matchers": ['alertname=~"HostDown|HostUnreachable"', 'host!=""'],
        "target_matchers": ['alertname!~"HostDown|HostUnreachable|Watchdog"', 'host!=""'],
        "equal": ["host"],
    }
    assert own == {"source_matchers": ['a="b"'], "target_matchers": ['c="d"'], "equal": ["host"]}
    assert config(inhibition={"labels": [], "host_down": []})["inhibit_rules"] == []


def test_how_it_is_started_and_reached() -> None:
    found = model()
    assert found["arguments"] == [
        "--web.listen-address=127.0.0.1:9093",
        "--web.route-prefix=/",
        "--data.retention=120h",
        "--cluster.listen-address=",
    ]
    assert found["url"] == "http://127.0.0.1:9093"
    assert found["reach"] == {"address": "127.0.0.1:9093", "scheme": "http"}
    assert found["probes"] == [
        {"http": "http://127.0.0.1:9093/-/ready"},
        {"http": "http://127.0.0.1:9093/api/v2/receivers", "body": alertmanager_model.NOBODY},
    ]


def test_for_others() -> None:
    found = model(
        addresses=["127.0.0.1", "fd00::5"],
        port=9193,
        tls={"certificate": "/c", "key": "/k", "authority": "/ca"},
        users=[{"name": "prometheus", "password": "canary-web"}],
        external_url="https://alerts",
        cluster={"address": "fd00::5", "peers": ["[fd00::6]:9094", "10.0.0.7:9094"]},
    )
    assert found["arguments"] == [
        "--web.listen-address=127.0.0.1:9193",
        "--web.listen-address=[fd00::5]:9193",
        "--web.config.file=/etc/prometheus/alertmanager/web.yml",
        "--web.external-url=https://alerts",
        "--web.route-prefix=/",
        "--data.retention=120h",
        "--cluster.listen-address=[fd00::5]:9094",
        "--cluster.peer=[fd00::6]:9094",
        "--cluster.peer=10.0.0.7:9094",
    ]
    assert found["cluster"] == ["fd00::6", "10.0.0.7"]
    assert found["url"] == "https://127.0.0.1:9193"
    assert found["reach"] == {
        "address": "[fd00::5]:9193",
        "scheme": "https",
        "user": "prometheus",
        "password": "canary-web",
    }
    client = yaml.safe_load({one["dest"]: one["content"] for one in found["files"]}[f"{FOLDER}/client.yml"])
    assert client["tls_config"] == {"ca_file": "/ca", "server_name": "ops1"}
    assert [one.get("status", 0) for one in found["probes"]] == [401, 0]


@pytest.mark.parametrize(
    ("addresses", "url"),
    [
        (["0.0.0.0"], "http://127.0.0.1:9093"),
        (["::"], "http://[::1]:9093"),
        (["10.0.1.5", "::1"], "http://[::1]:9093"),
        (["10.0.1.5"], "http://10.0.1.5:9093"),
    ],
)
def test_where_the_host_itself_reaches_it(addresses: list[str], url: str) -> None:
    found = model(addresses=addresses)
    assert found["url"] == url
    if addresses[0] in ("0.0.0.0", "::"):
        assert found["reach"]["address"] == "ops1:9093"


def test_tls_under_a_name_of_its_own() -> None:
    found = model(tls={"certificate": "/c", "key": "/k", "name": "alerts.fushuma.com"})
    assert found["reach"]["address"] == "alerts.fushuma.com:9093"


def test_route_tests_are_for_amtool() -> None:
    tests = [{"labels": {"severity": "critical", "team": "a b"}, "receivers": ["operators", "chat"]}]
    checks = model(route_tests=tests)["validate"]
    assert checks[0] == ["/usr/bin/amtool", "check-config", "/etc/prometheus/alertmanager.yml"]
    assert checks[1][-3:] == ["--verify.receivers=operators,chat", "severity=critical", "team=a b"]


# --- matchers and routes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "labels", "holds"),
    [
        ('severity="critical"', {"severity": "critical"}, True),
        ("severity=critical", {"severity": "warning"}, False),
        ('host!=""', {"host": "web1"}, True),
        ('host!=""', {}, False),
        ('host=~"web.*"', {"host": "web1"}, True),
        ('host=~"web"', {"host": "web1"}, False),
        ('host !~ "web.*|db"', {"host": "ops"}, True),
        (r'path="C:\\a \"b\"\n\d"', {"path": 'C:\\a "b"\n\\d'}, True),
    ],
)
def test_matchers(text: str, labels: dict[str, str], holds: bool) -> None:
    assert routing.matcher(text).holds(labels) is holds


@given(value=st.text(), operator=st.sampled_from(["=", "!="]))
def test_a_matcher_is_read_as_it_was_written(value: str, operator: str) -> None:
    written = routing.Matcher("host", operator, value)
    assert routing.matcher(str(written)) == written


ROUTES = routing.whole(
    [
        {"receiver": "night", "matchers": ["severity=critical"], "continue": True},
        {
            "receiver": "shop",
            "matchers": ["application=shop"],
            "routes": [{"matchers": ["severity=critical"]}, {"receiver": "nobody", "matchers": ["severity=info"]}],
        },
        {"receiver": "database", "matchers": ["job=mariadb"]},
    ]
)


@pytest.mark.parametrize(
    ("labels", "receivers"),
    [
        ({}, ["operators"]),
        ({"severity": "critical"}, ["night"]),
        ({"severity": "critical", "application": "shop", "job": "mariadb"}, ["night", "shop"]),
        ({"severity": "info", "application": "shop"}, ["nobody"]),
        ({"severity": "warning", "application": "shop"}, ["shop"]),
        ({"severity": "critical", "job": "mariadb"}, ["night", "database"]),
    ],
)
def test_who_gets_an_alert(labels: dict[str, str], receivers: list[str]) -> None:
    assert routing.receivers(ROUTES, labels, "operators") == receivers


def test_routes_and_those_around_them() -> None:
    found = dict(routing.paths(ROUTES))
    assert list(found) == ["[0]", "[1]", "[1].routes[0]", "[1].routes[1]", "[2]"]
    assert [one["receiver"] for one in found["[1].routes[1]"]] == ["shop", "nobody"]
    assert specs.role_options("alertmanager")["alertmanager_routes"]["options"].keys() == ROUTES[0].keys()
    assert not routing.may_take(found["[1].routes[1]"], "severity", "critical")
    assert routing.may_take(found["[2]"], "severity", "critical")
