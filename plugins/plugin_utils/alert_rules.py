# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The alert rules of the prometheus role: a catalogue in files, changed by name, written as Prometheus reads it.

``roles/prometheus/files/rules/GROUP.yml`` holds a list of rules, and becomes the group and the file GROUP. In an
expression, a summary and a description ``{value}`` stands for the rule's threshold, and the names in ``_names`` for
what follows from the objectives. What stands in two braces is a template of Prometheus.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ansible.module_utils.common.yaml import yaml_load
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import Problem, repeated, value_of

Settings = Mapping[str, Any]

RULES = Path(__file__).parents[2] / "roles" / "prometheus" / "files" / "rules"
EXTRA = "extra"
SEVERITIES = ("critical", "warning", "info")
DURATION = re.compile(r"(?=.)(\d+y)?(\d+w)?(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?")
SECONDS = {"y": 31536000.0, "w": 604800.0, "d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
PLACE = re.compile(r"(?<!\{)\{([a-z_0-9]+)\}")
CHANGES = ("enabled", "for", "severity", "value")
EXTRA_KEYS = ("alert", "annotations", "expr", "for", "keep_firing_for", "labels", "record")
# A part of the budget that may be used up in a time before it is told. For a month the factors are 14.4, 6, 3 and 1.
BURNS = {"burn_1h": (0.02, "1h"), "burn_6h": (0.05, "6h"), "burn_1d": (0.1, "1d"), "burn_3d": (0.1, "3d")}
LEAST_WINDOW = "7d"


@dataclass(frozen=True)
class Rule:
    """One alert.

    ``value`` is None where there is no threshold to change; ``wait`` is Prometheus's ``for``. Alerts of one ``subject``
    say the same more or less urgently: Alertmanager leaves out a warning while a critical one of it fires.
    """

    name: str
    group: str
    expr: str
    value: float | None
    unit: str
    wait: str
    severity: str
    subject: str
    summary: str
    description: str

    def labels(self, severity: str = "") -> dict[str, str]:
        """What is added to the labels of the series."""
        return {"severity": severity or self.severity, **({"subject": self.subject} if self.subject else {})}


@dataclass(frozen=True)
class Record:
    """A series that is worked out beforehand, for each of the ``windows`` where there are any."""

    name: str
    group: str
    expr: str
    windows: tuple[str, ...]


@lru_cache
def groups() -> Mapping[str, Sequence[Rule | Record]]:
    """All rules as they are in the files, by group."""
    return {
        path.stem: tuple(_read(path.stem, one) for one in yaml_load(path.read_text("utf-8")))
        for path in sorted(RULES.glob("*.yml"))
    }


def _read(group: str, one: Mapping[str, Any]) -> Rule | Record:
    if "record" in one:
        return Record(one["record"], group, one["expr"], tuple(one.get("windows", ())))
    return Rule(
        name=one["alert"],
        group=group,
        expr=one["expr"],
        value=one.get("value"),
        unit=one.get("unit", ""),
        wait=one["for"],
        severity=one["severity"],
        subject=one.get("subject", ""),
        summary=one["summary"],
        description=one["description"],
    )


@lru_cache
def catalogue() -> Mapping[str, Rule]:
    """All alerts by name."""
    return {one.name: one for rules in groups().values() for one in rules if isinstance(one, Rule)}


# --- rendering --------------------------------------------------------------------------------------------------------


def rendered(settings: Settings) -> dict[str, str]:
    """The rule files, name to text. ``settings`` have no problems, and hold all defaults."""
    changes, runbooks = settings["prometheus_rules"], settings["prometheus_runbooks"]
    names = _names(settings["prometheus_slo"])
    files = {}
    for group, rules in groups().items():
        lines: list[str] = []
        for one in rules:
            if isinstance(one, Record):
                lines += _record(one, names)
            else:
                lines += _alert(one, changes.get(one.name, {}), names, runbooks)
        if lines:
            files[f"{group}.yml"] = "\n".join(["---", "groups:", f"  - name: {group}", "    rules:", *lines, ""])
    if settings["prometheus_extra_rules"]:
        extra = [_without_none(one) for one in settings["prometheus_extra_rules"]]
        files[f"{EXTRA}.yml"] = json.dumps({"groups": extra}, indent=2, ensure_ascii=False) + "\n"
    return files


def _names(slo: Mapping[str, Any]) -> dict[str, str]:
    """What stands for a name in braces, where it follows from the objectives."""
    latency = _number(slo["latency"])
    whole = "" if "." in latency else "([.]0)?"  # how libraries write the label of such a bucket differs
    names = {
        "budget": _number(round(1 - slo["objective"] / 100, 9)),
        "slow_budget": _number(round(1 - slo["latency_objective"] / 100, 9)),
        "latency": latency,
        "bucket": latency.replace(".", "[.]") + whole,
        "slo_window": slo["window"],
    }
    for name, (part, window) in BURNS.items():
        names[name] = _number(round(part * seconds_of(slo["window"]) / seconds_of(window), 6))
    return names


def _record(one: Record, names: Mapping[str, str]) -> list[str]:
    lines = []
    for window in one.windows or ("",):
        found = {**names, "window": window}
        lines += [f"      - record: {_filled(one.name, found)}", f"        expr: {_text(_filled(one.expr, found))}"]
    return lines


def _alert(one: Rule, change: Mapping[str, Any], names: Mapping[str, str], runbooks: str) -> list[str]:
    if not change.get("enabled", True):
        return []
    value = change.get("value", one.value)
    found = {**names, "value": "" if value is None else _number(value)}
    lines = [
        f"      - alert: {one.name}",
        f"        expr: {_text(_filled(one.expr, found))}",
        f"        for: {change.get('for', one.wait)}",
        f"        labels: {json.dumps(one.labels(change.get('severity', '')))}",
        "        annotations:",
        f"          summary: {_text(_filled(one.summary, found))}",
        f"          description: {_text(_filled(one.description, found))}",
    ]
    return [*lines, f"          runbook_url: {_text(f'{runbooks}/{one.name}.md')}"] if runbooks else lines


def _filled(text: str, names: Mapping[str, str]) -> str:
    return PLACE.sub(lambda place: names[place[1]], text)


def _text(text: str) -> str:
    """A text as YAML has it; what JSON writes is YAML too."""
    return json.dumps(text, ensure_ascii=False)


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{float(value):.12g}"


def _without_none(value: Any) -> Any:
    """Without the keys that nobody gave, which argument_specs fill with none."""
    if isinstance(value, Mapping):
        return {str(key): _without_none(one) for key, one in value.items() if one is not None}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_without_none(one) for one in value]
    return value


def seconds_of(duration: str) -> float:
    """A duration of Prometheus, such as 1h30m, in seconds."""
    return sum(int(count) * SECONDS[unit] for count, unit in re.findall(r"(\d+)(ms|[ywdhms])", duration))


# --- judging ----------------------------------------------------------------------------------------------------------


def problems(settings: Settings) -> list[Problem]:
    """Everything that cannot work in the settings that are about rules. They hold all defaults."""
    found: list[Problem] = []
    for name, change in settings["prometheus_rules"].items():
        found += [one.under(f"prometheus_rules.{name}") for one in _change_problems(name, change)]
    found += [one.under("prometheus_slo") for one in _slo_problems(settings["prometheus_slo"])]
    runbooks = settings["prometheus_runbooks"]
    if runbooks and not re.fullmatch(r"https?://[^\s/]\S*[^\s/]", runbooks):
        why = "the name of an alert follows it, and it has to be a link then"
        found.append(Problem("prometheus_runbooks", value_of(runbooks), why, "an address without a slash at its end"))
    extra = settings["prometheus_extra_rules"]
    found += repeated("prometheus_extra_rules", extra, "name")
    for number, group in enumerate(extra):
        found += [one.under(f"prometheus_extra_rules[{number}]") for one in _group_problems(group)]
    return found


def _near(word: str, words: Sequence[str], otherwise: str) -> str:
    """The word that was meant, or what else can be said."""
    matches = difflib.get_close_matches(word, words, 1)
    return matches[0] if matches else otherwise


def _change_problems(name: str, change: Any) -> Iterator[Problem]:
    rule = catalogue().get(name)
    if rule is None:
        instead = _near(name, list(catalogue()), "the name of an alert in docs/alerts/README.md")
        yield Problem("", value_of(change), "no alert has this name", instead)
        return
    if not isinstance(change, Mapping):
        yield Problem("", value_of(change), "a group of settings is needed", "{enabled: false}")
        return
    for key, value in change.items():
        if key not in CHANGES:
            instead = _near(str(key), CHANGES, f"one of {', '.join(CHANGES)}")
            yield Problem(str(key), value_of(value), "nothing reads a setting of this name", instead)
    if not isinstance(change.get("enabled", True), bool):
        yield Problem("enabled", value_of(change["enabled"]), "true or false is needed", "true or false")
    if "for" in change:
        yield from _duration_problems("for", change["for"])
    if change.get("severity", rule.severity) not in SEVERITIES:
        instead = _near(str(change["severity"]), SEVERITIES, f"one of {', '.join(SEVERITIES)}")
        yield Problem("severity", value_of(change["severity"]), "alerts are sent on by it", instead)
    if "value" in change:
        yield from _value_problems(rule, change["value"])


def _value_problems(rule: Rule, value: Any) -> Iterator[Problem]:
    if rule.value is None:
        why = "the alert has no threshold: it is so, or it is not"
        yield Problem("value", value_of(value), why, "for, severity or enabled instead")
    elif not _is_number(value):
        yield Problem("value", value_of(value), f"a number is needed: {rule.unit}", _number(rule.value))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _duration_problems(setting: str, value: Any, least: str = "0s") -> Iterator[Problem]:
    if not (isinstance(value, str) and DURATION.fullmatch(value)):
        yield Problem(setting, value_of(value), "it is no length of time as Prometheus has them", '"10m" or "1h30m"')
    elif seconds_of(value) < seconds_of(least):
        yield Problem(setting, value_of(value), f"it is shorter than {least}", f'"{least}" or more')


def _slo_problems(slo: Mapping[str, Any]) -> Iterator[Problem]:
    for key, usual in (("objective", "99.9"), ("latency_objective", "99")):
        if not 0 < slo[key] < 100:
            why = "it is a percentage, and what may fail is the rest of it"
            yield Problem(key, value_of(slo[key]), why, f"a number above 0 and below 100, such as {usual}")
    if not slo["latency"] > 0:
        yield Problem("latency", value_of(slo["latency"]), "nothing is that fast", "seconds, such as 0.5")
    yield from _duration_problems("window", slo["window"], LEAST_WINDOW)
    yield from _deaf_problems(slo)


def _deaf_problems(slo: Mapping[str, Any]) -> Iterator[Problem]:
    """Objectives so low that more than all requests would have to fail before it is told."""
    if not (isinstance(slo["window"], str) and DURATION.fullmatch(slo["window"])):
        return
    part, window = BURNS["burn_1h"]
    highest = 1 / (part * seconds_of(slo["window"]) / seconds_of(window))
    for key in ("objective", "latency_objective"):
        if 0 < slo[key] < 100 and 1 - slo[key] / 100 >= highest:
            why = "all requests could fail, and the alert for a budget that burns fast would be silent"
            yield Problem(key, value_of(slo[key]), why, f"more than {math.ceil((1 - highest) * 1000) / 10}")


def _group_problems(group: Mapping[str, Any]) -> Iterator[Problem]:
    if not group["name"]:
        yield Problem("name", value_of(group["name"]), "a group is called by it", "a name, such as shop")
    if group.get("interval") is not None:
        yield from _duration_problems("interval", group["interval"], "1s")
    if not group["rules"]:
        yield Problem("rules", value_of(group["rules"]), "a group without rules says nothing", "at least one rule")
    for number, rule in enumerate(group["rules"]):
        yield from (one.under(f"rules[{number}]") for one in _extra_problems(rule))


def _extra_problems(rule: Any) -> Iterator[Problem]:
    form = "{alert: ShopEmpty, expr: shop_products == 0, for: 10m, labels: {severity: warning}}"
    if not isinstance(rule, Mapping):
        yield Problem("", value_of(rule), "a rule is a group of settings", form)
        return
    for key, value in rule.items():
        if key not in EXTRA_KEYS:
            instead = _near(str(key), EXTRA_KEYS, f"one of {', '.join(EXTRA_KEYS)}")
            yield Problem(str(key), value_of(value), "Prometheus knows no such key of a rule", instead)
    if bool(rule.get("alert")) == bool(rule.get("record")):
        yield Problem("", value_of(rule), "a rule is an alert or a record", form)
    if not (isinstance(rule.get("expr"), str) and rule["expr"].strip()):
        yield Problem("expr", value_of(rule.get("expr")), "there is nothing to evaluate", "an expression of PromQL")
    for key in ("for", "keep_firing_for"):
        if rule.get(key) is not None:
            yield from _duration_problems(key, rule[key])
    if rule.get("alert") in catalogue():
        why = "an alert of the collection has this name"
        yield Problem("alert", value_of(rule["alert"]), why, f"another name, or prometheus_rules.{rule['alert']}")
