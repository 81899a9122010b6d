# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a suite's commands left behind, judged: pure functions for tools/prove.py.

An exit code of 0 is not believed alone. Molecule ends with 0 where a step's playbook is missing, pytest where it
skipped all its tests, and neither minds that half of the code was never run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

LEAST_COVERAGE = 95.0  # per cent of plugins/, of lines and of branches
ROLE_STEPS = ("check", "converge", "idempotence", "verify")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # Molecule colours a failed step even where it is told not to
NOTHING_COLLECTED = 5  # pytest's exit code where no test ran, also where a whole module asked to be skipped


@dataclass(frozen=True)
class Run:
    """A command that has ended. ``code`` is None where it was stopped because it took too long."""

    command: Sequence[str]
    code: int | None
    output: str


@dataclass(frozen=True)
class Verdict:
    """``problems`` fail a suite; ``note`` says what was counted; ``skipped`` holds names and reasons of tests."""

    problems: tuple[str, ...] = ()
    note: str = ""
    skipped: tuple[tuple[str, str], ...] = ()
    nothing_ran: bool = False


def judge_commands(runs: Iterable[Run]) -> Verdict:
    """All commands have to succeed."""
    return Verdict(tuple(f"{describe(run.command)}: {ending(run.code)}" for run in runs if run.code != 0))


def describe(command: Sequence[str]) -> str:
    """The words by which a reader knows a command."""
    words = [Path(command[0]).name, *command[1:]]
    return " ".join(words[:4])


def ending(code: int | None) -> str:
    """How a command ended."""
    return "stopped, it took too long" if code is None else f"exit code {code}"


def judge_role_pages(runs: Sequence[Run], roles: Sequence[str]) -> Verdict:
    """The output of ansible-doc has to show every role; it succeeds also where it finds none of them."""
    log = COLOUR.sub("", "\n".join(run.output for run in runs))
    lost = [role for role in roles if not re.search(rf"^> ROLE: \W*{re.escape(role)}\b", log, re.MULTILINE)]
    return Verdict(tuple(f"ansible-doc does not show {role}" for role in lost), f"{len(roles)} roles")


def judge_pytest(runs: Sequence[Run], report: str) -> Verdict:
    """pytest has to succeed and to have run something. ``report`` is its JUnit report, "" where it left none."""
    if not report:
        return Verdict((*judge_commands(runs).problems, "pytest left no report"))
    cases = list(ElementTree.fromstring(report).iter("testcase"))
    skipped = tuple(
        (f"{case.get('classname', '')}::{case.get('name', '')}".strip(":"), mark.get("message") or "no reason given")
        for case in cases
        if (mark := case.find("skipped")) is not None
    )
    nothing_ran = len(skipped) == len(cases)
    problems = judge_commands(run for run in runs if not (nothing_ran and skipped and run.code == NOTHING_COLLECTED))
    if not cases:
        return Verdict((*problems.problems, "no tests ran"))
    return Verdict(problems.problems, f"{len(cases) - len(skipped)} tests", skipped, nothing_ran)


def judge_coverage(report: str) -> Verdict:
    """Lines and branches each have to be covered. ``report`` is coverage's JSON report, "" where it left none."""
    if not report:
        return Verdict(("coverage left no report",))
    totals = json.loads(report)["totals"]
    counts = {
        "lines": (totals["covered_lines"], totals["num_statements"]),
        "branches": (totals["covered_branches"], totals["num_branches"]),
    }
    # Where nothing was measured nothing was covered.
    found = {name: 100.0 * covered / total if total else 0.0 for name, (covered, total) in counts.items()}
    return Verdict(
        tuple(
            f"{value:.1f} % of {name} covered, wanted {LEAST_COVERAGE:.0f} %"
            for name, value in found.items()
            if value < LEAST_COVERAGE
        ),
        ", ".join(f"{value:.1f} % of {name}" for name, value in found.items()),
    )


def judge_molecule(runs: Sequence[Run], scenario: str, has_tests: bool, wanted: Iterable[str]) -> Verdict:
    """A scenario has to succeed, to have tests, to pass over no step and to run all ``wanted`` ones."""
    log = COLOUR.sub("", "\n".join(run.output for run in runs))
    found = re.findall(rf"\[{re.escape(scenario)} > (\w+)\] (Executed: |Skipping, )(.+)", log)
    steps = [(name, outcome.strip()) for name, word, outcome in found if word == "Executed: "]
    problems = [
        *judge_commands(runs).problems,
        *([] if has_tests else ["has neither tests/test_*.py nor verify.yml"]),
        *(f"{name}: {outcome}" for name, outcome in steps if outcome != "Successful"),
        *(f"{name} skipped: {why.strip()}" for name, word, why in found if word == "Skipping, "),
        *(f"{name} did not run" for name in wanted if name not in dict(steps)),
    ]
    if not problems and re.search(r"\bmissing=[1-9]", log):
        problems.append("Molecule's recap counts something as missing")
    passed = sum(int(count) for count in re.findall(r"^=.*\b(\d+) passed\b.*=$", log, re.MULTILINE))
    return Verdict(tuple(problems), f"{passed} tests" if passed else "", skipped_in_log(log))


def skipped_in_log(log: str) -> tuple[tuple[str, str], ...]:
    """Place and reason of each test that pytest's short summary (``-rs``) calls skipped."""
    found = re.findall(r"^SKIPPED \[(\d+)\] (\S+): (.*)$", log, re.MULTILINE)
    return tuple((where, why if count == "1" else f"{why} ({count} times)") for count, where, why in found)


def judge_all(*verdicts: Verdict) -> Verdict:
    """Several verdicts on one suite as one."""
    return Verdict(
        tuple(problem for verdict in verdicts for problem in verdict.problems),
        ", ".join(verdict.note for verdict in verdicts if verdict.note),
        tuple(test for verdict in verdicts for test in verdict.skipped),
        any(verdict.nothing_ran for verdict in verdicts),
    )
