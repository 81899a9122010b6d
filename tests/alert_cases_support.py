# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Cases for the alert rules, written short, as the files that `promtool test rules` reads.

alert_cases/GROUP.yml says for each alert when it fires and when it is quiet::

    labels: {job: node, host: web1}       # of each series that does not name them, and of the alert
    interval: 1m                          # from one value of a series to the next
    cases:
      HostDown:
        labels, interval: ...             # of its cases, where they are others; a case may have an interval too
        fires:
          - {at: 10m, series: {up: "1x5 0x10"}, alerts: [{host: web1}]}
        quiet:
          - {at: 8m, series: {up: "1x5 0x10"}}

`alerts` are the labels of each alert that fires, without its name, severity and subject; by default one with `labels`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.fushuma.production.plugins.plugin_utils import alert_rules

# The role's defaults.
SETTINGS: Mapping[str, Any] = {
    "prometheus_rules": {},
    "prometheus_extra_rules": [],
    "prometheus_runbooks": "https://fushuma.com/alerts",
    "prometheus_slo": {"objective": 99.9, "latency": 0.5, "latency_objective": 99.0, "window": "30d"},
}
CASES = Path(__file__).parent / "unit" / "roles" / "alert_cases"

Labels = Mapping[str, str]


@dataclass(frozen=True)
class Case:
    """One situation: what is measured, and which alerts there are at a time."""

    group: str
    alert: str
    number: int
    at: str
    interval: str
    series: Mapping[str, str]
    alerts: Sequence[Labels]

    @property
    def name(self) -> str:
        return f"{self.alert} {'fires' if self.alerts else 'is quiet'} {self.number}"

    @property
    def metrics(self) -> set[str]:
        return {one.partition("{")[0] for one in self.series}


def cases_of(group: str) -> list[Case]:
    """All cases of a group of rules."""
    document = yaml.safe_load((CASES / f"{group}.yml").read_text("utf-8"))
    assert set(document) <= {"labels", "interval", "cases"}, group
    return [case for alert, one in document["cases"].items() for case in _cases(group, alert, {**document, **one})]


def _cases(group: str, alert: str, found: Mapping[str, Any]) -> Iterator[Case]:
    for kind in ("fires", "quiet"):
        for number, one in enumerate(found[kind], 1):
            assert set(one) <= {"at", "interval", "series", "alerts"}, f"{alert} {kind} {number}"
            yield Case(
                group=group,
                alert=alert,
                number=number,
                at=one["at"],
                interval=one.get("interval") or found.get("interval", "1m"),
                series={_whole(name, found["labels"]): values for name, values in one["series"].items()},
                alerts=one.get("alerts", [found["labels"]]) if kind == "fires" else [],
            )


def _whole(series: str, labels: Labels) -> str:
    """The series with the labels that it does not name itself."""
    name, _, own = series.rstrip("}").partition("{")
    named = set(re.findall(r'(\w+)="', own))
    rest = _listed({key: value for key, value in labels.items() if key not in named})
    return f"{name}{{{', '.join(filter(None, [own, rest]))}}}"


def write_cases(folder: Path, settings: Mapping[str, Any] = SETTINGS, groups: Collection[str] = ()) -> list[str]:
    """Write rules and cases, of all groups where none is named, and return the files for `promtool test rules`."""
    added = {name: rule.labels() for name, rule in alert_rules.catalogue().items()}
    names = []
    for name, text in alert_rules.rendered(settings).items():
        group = name.removesuffix(".yml")
        if groups and group not in groups:
            continue
        (folder / name).write_text(text, "utf-8")
        for case, cases in promtool_files(group, added, name).items():
            (folder / case).write_text(cases, "utf-8")
            names.append(case)
    return sorted(names)


def promtool_files(group: str, added: Mapping[str, Labels], rules: str) -> dict[str, str]:
    """A group's cases as promtool reads them, name to text.

    ``added`` are the labels that each alert adds; ``rules`` is the group's file of rules, seen from these. A file has
    one interval of evaluation, and long cases take too long with a short one.
    """
    files: dict[str, str] = {}
    cases = sorted(cases_of(group), key=lambda case: case.interval)
    for interval, some in itertools.groupby(cases, key=lambda case: case.interval):
        tests = [_test(case, added[case.alert]) for case in some]
        document = {"rule_files": [rules], "evaluation_interval": interval, "tests": tests}
        files[f"{group}-{interval}.test.yml"] = yaml.safe_dump(document, sort_keys=False)
    return files


def _test(case: Case, added: Labels) -> dict[str, Any]:
    expected = [{"labels": _alert(case.alert, {**added, **labels}), "value": 1} for labels in case.alerts]
    return {
        "name": case.name,
        "interval": case.interval,
        "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
        "promql_expr_test": [
            {
                "expr": f'ALERTS{{alertname="{case.alert}", alertstate="firing"}}',
                "eval_time": case.at,
                "exp_samples": expected,
            }
        ],
    }


def _alert(name: str, labels: Labels) -> str:
    whole = {"alertname": name, "alertstate": "firing", **labels}
    return f"ALERTS{{{_listed(whole)}}}"


def _listed(labels: Labels) -> str:
    return ", ".join(f'{key}="{value}"' for key, value in labels.items())
