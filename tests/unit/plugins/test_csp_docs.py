# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""docs/csp.md lists every rule as it is, and what it recommends passes."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

import yaml
from ansible_collections.fushuma.production.plugins.plugin_utils import csp
from ansible_collections.fushuma.production.plugins.plugin_utils.csp_rules import RULES, Rule
from ansible_collections.fushuma.production.plugins.plugin_utils.csp_waivers import WAIVER_PARTS

TEXT = (Path(__file__).parents[3] / "docs" / "csp.md").read_text(encoding="utf-8")
EXAMPLES = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)]


def verdict(rule: Rule) -> str:
    if rule.severity == "hint":
        return "hint"
    return "refused, a waiver can allow it" if rule.waivable else "refused"


def test_the_table_of_rules_is_the_rules() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| ([^|]+) \|", TEXT, re.MULTILINE)
    assert rows == [(name, verdict(rule)) for name, rule in RULES.items()]


def test_every_part_of_a_waiver_is_shown() -> None:
    (waivers,) = [example["waivers"] for example in EXAMPLES if "waivers" in example]
    assert {tuple(waiver) for waiver in waivers} == {tuple(WAIVER_PARTS)}


def test_the_policies_shown_pass() -> None:
    shown = [example for example in EXAMPLES if "policy" in example]
    assert shown
    for example in shown:
        options = {"waivers": example.get("waivers", ()), "today": datetime.date(2026, 11, 24)}
        assert csp.problems(example["policy"], setting="policy", **options) == []
    for example in EXAMPLES:
        if "report_only" in example:
            today = datetime.date(2026, 11, 24)
            assert csp.problems(example["report_only"], setting="report_only", today=today, report_only=True) == []
