# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Each alert has cases that fire it and that do not, figures that somebody makes, and a page for who is woken by it.

Where promtool is there the cases are tried; molecule/prometheus does it with the versions of both releases.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from alert_cases_support import CASES, SETTINGS, Case, cases_of, write_cases
from ansible_collections.fushuma.production.plugins.module_utils.backup import signals
from ansible_collections.fushuma.production.plugins.plugin_utils import alert_rules
from ansible_collections.fushuma.production.plugins.plugin_utils.alert_rules import Record, Rule

ROOT = Path(__file__).resolve().parents[3]
PAGES = ROOT / "docs" / "alerts"
BASE = SETTINGS["prometheus_runbooks"]
GROUPS = alert_rules.groups()
CATALOGUE = alert_rules.catalogue()
ALERTS = list(CATALOGUE.values())
# It always fires, for who is told has to hear of it; there is no case in which it does not.
ALWAYS = "Watchdog"
KNOWN = {
    name
    for names in yaml.safe_load(Path(__file__).with_name("known_metrics.yml").read_text("utf-8")).values()
    for name in names
}
CASES_OF: dict[str, list[Case]] = {
    name: [case for case in cases_of(rule.group) if case.alert == name] for name, rule in CATALOGUE.items()
}
HEADINGS = [
    "What it means.",
    "What users feel.",
    "First look.",
    "What to do.",
    "Runbooks.",
    "When to silence.",
]

# What in PromQL is a name and no series.
WORDS = {"and", "or", "unless", "on", "ignoring", "group_left", "group_right", "by", "without", "offset", "bool"}


def metrics(expr: str) -> set[str]:
    """The series that an expression of PromQL reads."""
    bare = re.sub(r'"[^"]*"', "", expr)
    bare = re.sub(r"\{[^{}]*\}|\[[^\]]*\]", " ", bare)
    bare = re.sub(r"\b(by|without|on|ignoring|group_left|group_right) ?\([^()]*\)", " ", bare)
    found = set(re.findall(r"(?<![\w:])[a-zA-Z_:][a-zA-Z0-9_:]*(?! *\(|[a-zA-Z0-9_:])", bare))
    return found - WORDS


def expressions() -> Iterator[tuple[str, str]]:
    """All expressions as Prometheus gets them, each with the name of its rule."""
    for text in alert_rules.rendered(SETTINGS).values():
        for group in yaml.safe_load(text)["groups"]:
            for rule in group["rules"]:
                yield rule.get("alert") or rule["record"], rule["expr"]


RENDERED = list(expressions())
RECORDED = {name for name, _ in RENDERED if ":" in name}
EXPR = dict(RENDERED)


# --- the rules themselves ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule.name)
def test_an_alert_says_what_it_should(rule: Rule) -> None:
    assert re.fullmatch(r"([A-Z][a-z]+){1,4}", rule.name)
    assert rule.severity in alert_rules.SEVERITIES
    assert alert_rules.DURATION.fullmatch(rule.wait)
    assert len(rule.summary) <= 120
    assert not rule.summary.endswith(".")
    assert rule.description.endswith(".")
    # A threshold is used, and says what it counts.
    assert ("{value}" in rule.expr) == (rule.value is not None) == bool(rule.unit)


def test_names_and_groups_are_unique() -> None:
    names = [rule.name for rules in GROUPS.values() for rule in rules]
    assert sorted(names) == sorted(set(names))
    assert alert_rules.EXTRA not in GROUPS


def test_no_name_in_braces_is_left() -> None:
    for text in alert_rules.rendered(SETTINGS).values():
        assert alert_rules.PLACE.findall(text.replace("{severity", "")) == []


def test_alerts_of_a_subject_differ_in_their_severity() -> None:
    subjects = {rule.subject for rule in ALERTS if rule.subject}
    assert subjects
    for subject in subjects:
        assert {"critical", "warning"} <= {rule.severity for rule in ALERTS if rule.subject == subject}, subject


@pytest.mark.parametrize(("name", "expr"), RENDERED, ids=[name for name, _ in RENDERED])
def test_each_figure_is_made_by_somebody(name: str, expr: str) -> None:
    assert metrics(expr) - KNOWN - RECORDED == set(), name


def test_a_figure_with_a_typing_mistake_is_found() -> None:
    expr = 'sum by (host) (rate(node_cpu_secnds_total{mode="idle"}[5m])) / on (host) up{job="a b"} > 1e3 and time() > 2'
    assert metrics(expr) == {"node_cpu_secnds_total", "up"}
    assert metrics("app:x:rate5m offset 1h > bool 3 unless on (app) ALERTS") == {"app:x:rate5m", "ALERTS"}


def test_no_figure_is_known_that_nobody_reads() -> None:
    read = {name for _, expr in RENDERED for name in metrics(expr)}
    pages = " ".join(path.read_text("utf-8") for path in PAGES.glob("*.md"))
    assert {name for name in KNOWN - read if not re.search(rf"\b{name}\b", pages)} == set()


def test_each_recording_is_read_or_for_dashboards() -> None:
    read = {name for _, expr in RENDERED for name in metrics(expr)}
    assert RECORDED - read == {
        "app:http_requests:rate5m",
        "app:http_request_duration_seconds:p50_5m",
        "app:http_request_duration_seconds:p95_5m",
        "app:http_request_duration_seconds:p99_5m",
    }


def test_figures_of_roles_of_this_collection_have_the_names_that_these_give_them() -> None:
    """The roles' own text has them; a figure that is renamed there is found here."""
    backup = {name for rows in signals.METRICS.values() for name, *_ in rows}
    backup |= {"production_backup_rpo_target_seconds", "production_restore_drill_rpo_target_seconds"}
    backup |= {"production_restore_drill_rto_target_seconds"}
    assert {name for name in KNOWN if name.startswith(("production_backup_", "production_restore_"))} <= backup
    budget = (ROOT / "roles" / "mariadb" / "templates" / "budget.prom.j2").read_text("utf-8")
    assert {name for name in KNOWN if name.startswith("mariadb_")} <= set(re.findall(r"mariadb_connection_\w+", budget))


# --- cases ------------------------------------------------------------------------------------------------------------


def test_cases_are_of_alerts_that_there_are() -> None:
    assert sorted(path.stem for path in CASES.glob("*.yml")) == sorted(GROUPS)
    for group in GROUPS:
        named = {case.alert for case in cases_of(group)}
        assert named == {rule.name for rule in ALERTS if rule.group == group}


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule.name)
def test_an_alert_has_a_case_that_fires_it_and_one_that_does_not(rule: Rule) -> None:
    cases = CASES_OF[rule.name]
    assert any(case.alerts for case in cases)
    assert rule.name == ALWAYS or any(not case.alerts for case in cases)


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule.name)
def test_cases_measure_what_the_alert_reads(rule: Rule) -> None:
    """Else a case in which nothing fires would say nothing."""
    read = everything_read(rule.name)
    for case in CASES_OF[rule.name]:
        assert rule.name == ALWAYS or case.metrics, case.name
        assert case.metrics <= read, case.name


def everything_read(name: str) -> set[str]:
    """The series that a rule reads, also by way of recordings."""
    found = metrics(EXPR[name])
    return found | {one for record in found & RECORDED for one in everything_read(record)}


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule.name)
def test_texts_speak_of_labels_that_the_alert_has(rule: Rule) -> None:
    spoken = set(re.findall(r"\$labels[.](\w+)", rule.summary + rule.description))
    for case in CASES_OF[rule.name]:
        for labels in case.alerts:
            # `url`, for one, is a label of some of its series only.
            assert spoken <= {*labels, *rule.labels()}, case.name


PROMTOOL = shutil.which("promtool")


def tried(folder: Path, settings: Mapping[str, Any]) -> str:
    """What promtool says where a case is not as it should be."""
    names = write_cases(folder, settings)
    done = subprocess.run([str(PROMTOOL), "test", "rules", *names], cwd=folder, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.skipif(not PROMTOOL, reason="this machine has no promtool")
def test_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    assert tried(tmp_path, SETTINGS) == ""


@pytest.mark.skipif(not PROMTOOL, reason="this machine has no promtool")
def test_a_wrong_threshold_is_found(tmp_path: Path) -> None:
    """Neither side of a threshold is without a case."""
    changed = [rule for rule in ALERTS if rule.value is not None]
    for value in (-1e12, 1e12):
        said = tried(tmp_path, {**SETTINGS, "prometheus_rules": {rule.name: {"value": value} for rule in changed}})
        assert [rule.name for rule in changed if f'alertname=\\"{rule.name}\\"' not in said] == [], value


# --- pages ------------------------------------------------------------------------------------------------------------


def page_of(name: str) -> str:
    return (PAGES / f"{name}.md").read_text("utf-8")


def blocks(text: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_each_alert_has_a_page_and_each_page_an_alert() -> None:
    assert {path.stem for path in PAGES.glob("*.md")} == {*CATALOGUE, "README"}


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule.name)
def test_a_page_has_what_is_needed_at_three_in_the_morning(rule: Rule) -> None:
    text = page_of(rule.name)
    assert text.startswith(f"# {rule.name}\n")
    assert re.findall(r"^\*\*(.+?)\*\*", text, re.MULTILINE) == HEADINGS
    assert [block for kind in ("promql", "logql", "sh") for block in blocks(text, kind)]
    assert len(text.splitlines()) <= 50, "nobody reads more than that then"
    assert len(text) >= 500


def test_no_two_pages_say_the_same() -> None:
    said: dict[str, str] = {}
    for name in CATALOGUE:
        doing = re.search(r"\*\*What to do\.\*\*(.+?)\n\n", page_of(name), re.DOTALL)
        assert doing
        assert said.setdefault(doing[1], name) == name


@pytest.mark.parametrize("path", sorted(PAGES.glob("*.md")), ids=lambda path: path.stem)
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)", path.read_text("utf-8")):
        assert link.startswith("https://") or (path.parent / link).exists(), link


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule.name)
def test_queries_of_a_page_read_figures_that_there_are(rule: Rule) -> None:
    for block in blocks(page_of(rule.name), "promql"):
        for line in block.splitlines():
            assert metrics(line.partition("  #")[0]) <= KNOWN | RECORDED, line


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule.name)
def test_a_page_speaks_of_alerts_and_runbooks_that_there_are(rule: Rule) -> None:
    text = page_of(rule.name)
    for name in re.findall(r"\[([A-Z]\w+)\]\(\1\.md\)", text):
        assert name in CATALOGUE
    for name in re.findall(r"fushuma\.production\.runbooks\.(\w+)", text):
        assert (ROOT / "playbooks" / "runbooks" / f"{name}.yml").exists()


def table(severity: str) -> str:
    """The rows of docs/alerts/README.md for a severity."""
    rows = [
        f"| [{rule.name}]({rule.name}.md) | {threshold(rule)} | {rule.wait} |"
        for rule in sorted(ALERTS, key=lambda rule: (list(GROUPS).index(rule.group), rule.name))
        if rule.severity == severity
    ]
    return "".join(f"{row}\n" for row in rows)


def threshold(rule: Rule) -> str:
    return "" if rule.value is None else f"{alert_rules._number(rule.value)} {rule.unit}"


@pytest.mark.parametrize("severity", alert_rules.SEVERITIES)
def test_the_list_of_alerts_is_whole(severity: str) -> None:
    assert table(severity) in (PAGES / "README.md").read_text("utf-8"), f"\n{table(severity)}"


def test_an_alert_links_its_page() -> None:
    for text in alert_rules.rendered(SETTINGS).values():
        for rule in yaml.safe_load(text)["groups"][0]["rules"]:
            if "alert" in rule:
                assert rule["annotations"]["runbook_url"] == f"{BASE}/{rule['alert']}.md"


def test_records_have_no_page() -> None:
    assert any(isinstance(one, Record) for rules in GROUPS.values() for one in rules)
    assert not [one for one in CATALOGUE if ":" in one]
