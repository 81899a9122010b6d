# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Changes to alert rules: what they change, what they leave alone, and what is refused in which words."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
from alert_cases_support import SETTINGS
from ansible.errors import AnsibleFilterError
from ansible.module_utils.common.yaml import yaml_load
from ansible_collections.fushuma.production.plugins.filter import alert_rules as filters
from ansible_collections.fushuma.production.plugins.plugin_utils import alert_rules, specs
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import sentences
from hypothesis import given
from hypothesis import strategies as st

NAMES = sorted(alert_rules.catalogue())


def settings(**changes: Any) -> dict[str, Any]:
    """The defaults with some of them changed; of the objectives only those that are given."""
    slo = {**SETTINGS["prometheus_slo"], **changes.pop("prometheus_slo", {})}
    return copy.deepcopy({**SETTINGS, **changes, "prometheus_slo": slo})


def said(**changes: Any) -> list[str]:
    return sentences(alert_rules.problems(settings(**changes)))


def rules(**changes: Any) -> dict[str, dict[str, Any]]:
    """All rules of all files by name, as Prometheus reads them."""
    assert said(**changes) == []
    found = {}
    for text in alert_rules.rendered(settings(**changes)).values():
        for group in yaml_load(text)["groups"]:
            found |= {rule.get("alert") or rule["record"]: rule for rule in group["rules"]}
    return found


BEFORE = rules()

# --- rendering --------------------------------------------------------------------------------------------------------


def test_each_group_is_a_file() -> None:
    files = alert_rules.rendered(settings())
    assert sorted(files) == sorted(f"{name}.yml" for name in alert_rules.groups())
    for name, text in files.items():
        assert [group["name"] for group in yaml_load(text)["groups"]] == [name.removesuffix(".yml")]


def test_an_alert_as_prometheus_reads_it() -> None:
    assert rules()["DiskAlmostFull"] == {
        "alert": "DiskAlmostFull",
        "expr": 'node_filesystem_avail_bytes{job="node", fstype!~"tmpfs|ramfs|overlay|fuse.*"} '
        "/ node_filesystem_size_bytes * 100 < 5 and node_filesystem_readonly == 0",
        "for": "5m",
        "labels": {"severity": "critical", "subject": "disk_space"},
        "annotations": {
            "summary": "{{ $labels.mountpoint }} of {{ $labels.host }} is nearly full",
            "description": 'Only {{ $value | printf "%.1f" }} % of {{ $labels.mountpoint }} ({{ $labels.device }}) on '
            "{{ $labels.host }} is free.",
            "runbook_url": "https://fushuma.com/alerts/DiskAlmostFull.md",
        },
    }


def test_what_is_changed_by_name() -> None:
    change = {"value": 2.5, "for": "1h30m", "severity": "warning"}
    found = rules(prometheus_rules={"DiskAlmostFull": change, "HostRebooted": {"enabled": False}})
    assert "* 100 < 2.5 and" in found["DiskAlmostFull"]["expr"]
    assert found["DiskAlmostFull"]["for"] == "1h30m"
    assert found["DiskAlmostFull"]["labels"] == {"severity": "warning", "subject": "disk_space"}
    assert "HostRebooted" not in found


def test_a_threshold_of_which_the_texts_speak() -> None:
    found = rules(prometheus_rules={"DiskWillFill": {"value": 36}})["DiskWillFill"]
    assert "[6h], 36 * 3600 )" in found["expr"]
    assert found["annotations"]["summary"].endswith("within 36 hours")


def test_a_group_of_which_nothing_is_left_is_no_file() -> None:
    names = [name for name, rule in alert_rules.catalogue().items() if rule.group == "nginx"]
    files = alert_rules.rendered(settings(prometheus_rules={name: {"enabled": False} for name in names}))
    assert "nginx.yml" not in files
    assert "redis.yml" in files


def test_without_pages_there_are_no_links() -> None:
    assert all("runbook_url" not in rule.get("annotations", {}) for rule in rules(prometheus_runbooks="").values())


def test_objectives_of_a_month_have_the_usual_factors() -> None:
    found = rules()
    assert "app:http_errors:ratio_rate1h > 14.4 * 0.001 and" in found["AppErrorsBurnFast"]["expr"]
    assert "app:http_errors:ratio_rate6h > 6 * 0.001 and" in found["AppErrorsBurnFast"]["expr"]
    assert "app:http_errors:ratio_rate1d > 3 * 0.001 and" in found["AppErrorsBurnSlowly"]["expr"]
    assert "app:http_errors:ratio_rate3d > 1 * 0.001 and" in found["AppErrorsBurnSlowly"]["expr"]
    assert "app:http_slow:ratio_rate1h > 14.4 * 0.01 and" in found["AppSlowBurnFast"]["expr"]
    assert 'le=~"0[.]5"' in found["app:http_slow:ratio_rate5m"]["expr"]


def test_objectives_are_changed_in_one_place() -> None:
    found = rules(prometheus_slo={"objective": 99, "latency": 1, "latency_objective": 95, "window": "1w"})
    assert "ratio_rate1h > 3.36 * 0.01 and" in found["AppErrorsBurnFast"]["expr"]
    assert "ratio_rate1h > 3.36 * 0.05 and" in found["AppSlowBurnFast"]["expr"]
    # Libraries write the label of a whole number as 1 or as 1.0.
    assert 'le=~"1([.]0)?"' in found["app:http_slow:ratio_rate3d"]["expr"]
    assert "longer than 1 seconds" in found["AppSlowBurnFast"]["annotations"]["description"]
    assert "that 1w may have" in found["AppErrorsBurnFast"]["annotations"]["description"]


def test_rules_of_your_own_come_as_they_are() -> None:
    rule = {"alert": "NoOrders", "expr": "increase(orders_total[1h]) == 0", "for": "5m", "labels": {"team": "Käufe"}}
    group = {"name": "orders", "interval": None, "rules": [rule, {"record": "a:b", "expr": "vector(1)"}]}
    files = alert_rules.rendered(settings(prometheus_extra_rules=[group]))
    assert yaml_load(files["extra.yml"]) == {"groups": [{"name": "orders", "rules": group["rules"]}]}
    assert "Käufe" in files["extra.yml"]


@given(
    name=st.sampled_from(NAMES),
    value=st.floats(min_value=0.001, max_value=1e9),
    wait=st.integers(0, 99),
    severity=st.sampled_from(alert_rules.SEVERITIES),
)
def test_a_change_reaches_its_alert_and_no_other(name: str, value: float, wait: int, severity: str) -> None:
    change: dict[str, Any] = {"for": f"{wait}m", "severity": severity}
    if alert_rules.catalogue()[name].value is not None:
        change["value"] = value
    before, after = BEFORE, rules(prometheus_rules={name: change})
    assert list(after) == list(before)
    assert {other for other in after if after[other] != before[other]} <= {name}
    assert (after[name]["for"], after[name]["labels"]["severity"]) == (f"{wait}m", severity)
    if "value" in change:
        numbers = [float(text) for text in re.findall(r"\d+(?:[.]\d+)?(?:e[-+]?\d+)?", after[name]["expr"])]
        assert any(number == pytest.approx(value) for number in numbers)


# --- judging ----------------------------------------------------------------------------------------------------------

OWN = {"name": "shop", "rules": [{"alert": "ShopEmpty", "expr": "shop_products == 0"}]}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"prometheus_rules": {name: {} for name in NAMES}},
        {"prometheus_rules": {"SiteDown": {"enabled": True, "for": "0s", "severity": "info"}}},
        {"prometheus_rules": {"SiteSlow": {"value": 0}, "SiteUnsteady": {"value": 99.5}}},
        {"prometheus_rules": {"SiteSlow": {"for": "1y2w3d4h5m6s7ms"}}},
        {"prometheus_slo": {"objective": 99.999, "latency": 2.5, "window": "28d"}},
        {"prometheus_slo": {"objective": 94, "latency_objective": 93.2}},
        {"prometheus_runbooks": ""},
        {"prometheus_extra_rules": [OWN, {"name": "b", "interval": "30s", "rules": [{"record": "a:b", "expr": "up"}]}]},
        {
            "prometheus_extra_rules": [
                {"name": "c", "rules": [{"alert": "C", "expr": "up", "for": "1m", "keep_firing_for": "5m"}]}
            ]
        },
    ],
)
def test_settings_that_work(changes: dict[str, Any]) -> None:
    assert said(**changes) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"prometheus_rules": {"DiskFill": {"value": 3}}},
            'prometheus_rules.DiskFill is {"value": 3}: no alert has this name. Write DiskWillFill.',
        ),
        (
            {"prometheus_rules": {"zzz": {}}},
            "prometheus_rules.zzz is {}: no alert has this name. Write the name of an alert in docs/alerts/README.md.",
        ),
        (
            {"prometheus_rules": {"SiteDown": False}},
            "prometheus_rules.SiteDown is false: a group of settings is needed. Write {enabled: false}.",
        ),
        (
            {"prometheus_rules": {"SiteDown": {"enable": False}}},
            "prometheus_rules.SiteDown.enable is false: nothing reads a setting of this name. Write enabled.",
        ),
        (
            {"prometheus_rules": {"SiteDown": {"xyz": 1}}},
            "prometheus_rules.SiteDown.xyz is 1: nothing reads a setting of this name. "
            "Write one of enabled, for, severity, value.",
        ),
        (
            {"prometheus_rules": {"SiteDown": {"enabled": "no"}}},
            'prometheus_rules.SiteDown.enabled is "no": true or false is needed. Write true or false.',
        ),
        (
            {"prometheus_rules": {"SiteDown": {"for": "10 minutes"}}},
            'prometheus_rules.SiteDown.for is "10 minutes": it is no length of time as Prometheus has them. '
            'Write "10m" or "1h30m".',
        ),
        (
            {"prometheus_rules": {"SiteDown": {"for": 300}}},
            "prometheus_rules.SiteDown.for is 300: it is no length of time as Prometheus has them. "
            'Write "10m" or "1h30m".',
        ),
        (
            {"prometheus_rules": {"SiteDown": {"for": ""}}},
            'prometheus_rules.SiteDown.for is "": it is no length of time as Prometheus has them. '
            'Write "10m" or "1h30m".',
        ),
        (
            {"prometheus_rules": {"SiteDown": {"severity": "warn"}}},
            'prometheus_rules.SiteDown.severity is "warn": alerts are sent on by it. Write warning.',
        ),
        (
            {"prometheus_rules": {"SiteDown": {"severity": "page"}}},
            'prometheus_rules.SiteDown.severity is "page": alerts are sent on by it. '
            "Write one of critical, warning, info.",
        ),
        (
            {"prometheus_rules": {"SiteDown": {"value": 3}}},
            "prometheus_rules.SiteDown.value is 3: the alert has no threshold: it is so, or it is not. "
            "Write for, severity or enabled instead.",
        ),
        (
            {"prometheus_rules": {"SiteSlow": {"value": "3s"}}},
            'prometheus_rules.SiteSlow.value is "3s": a number is needed: seconds. Write 2.',
        ),
        (
            {"prometheus_rules": {"SiteSlow": {"value": True}}},
            "prometheus_rules.SiteSlow.value is true: a number is needed: seconds. Write 2.",
        ),
        (
            {"prometheus_rules": {"SiteSlow": {"value": float("inf")}}},
            "prometheus_rules.SiteSlow.value is Infinity: a number is needed: seconds. Write 2.",
        ),
        (
            {"prometheus_slo": {"objective": 100}},
            "prometheus_slo.objective is 100: it is a percentage, and what may fail is the rest of it. "
            "Write a number above 0 and below 100, such as 99.9.",
        ),
        (
            {"prometheus_slo": {"latency_objective": 0}},
            "prometheus_slo.latency_objective is 0: it is a percentage, and what may fail is the rest of it. "
            "Write a number above 0 and below 100, such as 99.",
        ),
        (
            {"prometheus_slo": {"objective": 90}},
            "prometheus_slo.objective is 90: all requests could fail, and the alert for a budget that burns fast would "
            "be silent. Write more than 93.1.",
        ),
        (
            {"prometheus_slo": {"latency": 0}},
            "prometheus_slo.latency is 0: nothing is that fast. Write seconds, such as 0.5.",
        ),
        (
            {"prometheus_slo": {"window": "month"}},
            'prometheus_slo.window is "month": it is no length of time as Prometheus has them. Write "10m" or "1h30m".',
        ),
        (
            {"prometheus_slo": {"window": "1d"}},
            'prometheus_slo.window is "1d": it is shorter than 7d. Write "7d" or more.',
        ),
        (
            {"prometheus_runbooks": "https://fushuma.com/alerts/"},
            'prometheus_runbooks is "https://fushuma.com/alerts/": the name of an alert follows it, and it has to be a '
            "link then. Write an address without a slash at its end.",
        ),
        (
            {"prometheus_extra_rules": [OWN, OWN]},
            'prometheus_extra_rules[1].name is "shop": prometheus_extra_rules[0] has it already. Write another name.',
        ),
        (
            {"prometheus_extra_rules": [{**OWN, "name": ""}]},
            'prometheus_extra_rules[0].name is "": a group is called by it. Write a name, such as shop.',
        ),
        (
            {"prometheus_extra_rules": [{**OWN, "interval": "0s"}]},
            'prometheus_extra_rules[0].interval is "0s": it is shorter than 1s. Write "1s" or more.',
        ),
        (
            {"prometheus_extra_rules": [{**OWN, "rules": []}]},
            "prometheus_extra_rules[0].rules is []: a group without rules says nothing. Write at least one rule.",
        ),
    ],
)
def test_settings_that_cannot_work(changes: dict[str, Any], sentence: str) -> None:
    assert said(**changes) == [sentence]


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ("up == 0", ' is "up == 0": a rule is a group of settings. Write {alert: ShopEmpty, '),
        ({"expr": "up"}, ' is {"expr": "up"}: a rule is an alert or a record. Write {alert: ShopEmpty, '),
        ({"alert": "A", "record": "b", "expr": "up"}, ": a rule is an alert or a record. Write "),
        ({"alert": "A"}, ".expr is null: there is nothing to evaluate. Write an expression of PromQL."),
        ({"alert": "A", "expr": " "}, '.expr is " ": there is nothing to evaluate. Write an expression of PromQL.'),
        (
            {"alert": "A", "expr": "up", "labls": {}},
            ".labls is {}: Prometheus knows no such key of a rule. Write labels.",
        ),
        (
            {"alert": "A", "expr": "up", "xyz": 1},
            ".xyz is 1: Prometheus knows no such key of a rule. Write one of alert, ",
        ),
        (
            {"alert": "A", "expr": "up", "for": "long"},
            '.for is "long": it is no length of time as Prometheus has them. ',
        ),
        ({"alert": "A", "expr": "up", "keep_firing_for": "1"}, '.keep_firing_for is "1": it is no length of time as '),
        (
            {"alert": "SiteDown", "expr": "up"},
            '.alert is "SiteDown": an alert of the collection has this name. '
            "Write another name, or prometheus_rules.SiteDown.",
        ),
    ],
)
def test_rules_of_your_own_that_cannot_work(rule: Any, sentence: str) -> None:
    (found,) = said(prometheus_extra_rules=[{"name": "shop", "rules": [rule]}])
    assert found.startswith("prometheus_extra_rules[0].rules[0]")
    assert sentence in found


def test_all_problems_are_said_at_once() -> None:
    changes = {"SiteDwn": {}, "SiteSlow": {"value": "x", "for": "y", "severity": "z"}}
    assert (
        len(said(prometheus_rules=changes, prometheus_slo={"window": "w", "latency": 0}, prometheus_runbooks="/")) == 7
    )


@pytest.mark.parametrize(
    ("duration", "seconds"), [("0s", 0), ("90m", 5400), ("1h30m", 5400), ("30d", 2592000), ("1y1w1ms", 32140800.001)]
)
def test_durations(duration: str, seconds: float) -> None:
    assert alert_rules.seconds_of(duration) == pytest.approx(seconds)


# --- the filter -------------------------------------------------------------------------------------------------------


def test_the_filter_takes_what_an_operator_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(specs, "settled", lambda role, given: settings(**given))
    one = filters.FilterModule().filters()["alert_rules"]
    assert "SiteDown" not in one({"prometheus_rules": {"SiteDown": {"enabled": False}}})["probes.yml"]
    with pytest.raises(
        AnsibleFilterError, match=r"alert_rules: prometheus_rules.SiteDwn is {}: no alert has this name"
    ):
        one({"prometheus_rules": {"SiteDwn": {}}})


def test_the_filter_refuses_what_is_no_settings() -> None:
    with pytest.raises(AnsibleFilterError, match="alert_rules: expects the role's settings as a dict, not list"):
        filters.alert_rules([])
