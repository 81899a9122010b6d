# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The judges of `make test`: each kind of silence is heard."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest
from verdicts import (
    ROLE_STEPS,
    Run,
    Verdict,
    describe,
    judge_all,
    judge_commands,
    judge_coverage,
    judge_molecule,
    judge_pytest,
    judge_role_pages,
)

GOOD = Run(("/venv/bin/pytest", "tests"), 0, "")
JUNIT = """<?xml version="1.0" encoding="utf-8"?><testsuites name="pytest tests"><testsuite>
<testcase classname="tests.test_a" name="test_one" time="0.1" />{more}</testsuite></testsuites>"""
SKIPPED = """<testcase classname="tests.test_a" name="test_two">
<skipped type="pytest.skip" message="no browser">x</skipped></testcase>"""
EXPECTED_TO_FAIL = '<testcase classname="t" name="test_three"><skipped type="pytest.xfail" message="" /></testcase>'
MODULE_SKIPPED = """<testsuites><testsuite><testcase classname="" name="tests.test_b"><skipped message="no node" />
</testcase></testsuite></testsuites>"""


def test_all_commands_have_to_succeed() -> None:
    runs = [GOOD, Run(("/x/ruff", "format", "--check", ".", "-v"), 2, ""), Run(("mypy",), None, "")]
    assert judge_commands(runs).problems == (
        "ruff format --check .: exit code 2",
        "mypy: stopped, it took too long",
    )
    assert judge_commands([GOOD]) == Verdict()


def test_a_command_is_named_by_its_first_words() -> None:
    assert describe(("/a/b/python", "-m", "pytest", "tests/unit", "--junitxml=x")) == "python -m pytest tests/unit"


def test_a_role_ansible_doc_does_not_show_is_found() -> None:
    run = Run(("ansible-doc",), 0, "> ROLE: \x1b[1mns.name.web\x1b[0m (/x)\n\n> ROLE: *ns.name.redis2* (/x)\n")
    assert judge_role_pages([run], ["ns.name.web"]) == Verdict(note="1 roles")
    assert judge_role_pages([run], ["ns.name.redis"]).problems == ("ansible-doc does not show ns.name.redis",)


def test_a_skipped_test_is_named_with_its_reason() -> None:
    verdict = judge_pytest([GOOD], JUNIT.format(more=SKIPPED + EXPECTED_TO_FAIL))
    assert verdict == Verdict(
        note="1 tests",
        skipped=(("tests.test_a::test_two", "no browser"), ("t::test_three", "no reason given")),
    )


@pytest.mark.parametrize(
    ("code", "report", "problems"),
    [
        (0, "", ("pytest left no report",)),
        (5, "<testsuites><testsuite /></testsuites>", ("pytest tests: exit code 5", "no tests ran")),
        (0, "<testsuites><testsuite /></testsuites>", ("no tests ran",)),
        (1, JUNIT.format(more=""), ("pytest tests: exit code 1",)),
        (5, JUNIT.format(more=""), ("pytest tests: exit code 5",)),
        (1, MODULE_SKIPPED, ("pytest tests: exit code 1",)),
    ],
)
def test_pytest_may_not_be_silent(code: int, report: str, problems: tuple[str, ...]) -> None:
    assert judge_pytest([Run(GOOD.command, code, "")], report).problems == problems


def test_a_module_that_skips_itself_is_a_skip() -> None:
    verdict = judge_pytest([Run(GOOD.command, 5, "")], MODULE_SKIPPED)
    assert verdict.problems == ()
    assert verdict.nothing_ran
    assert verdict.skipped == (("tests.test_b", "no node"),)


def coverage_report(lines: tuple[int, int], branches: tuple[int, int]) -> str:
    """coverage's JSON report, cut to what is read."""
    names = ("covered_lines", "num_statements", "covered_branches", "num_branches")
    return json.dumps({"totals": dict(zip(names, (*lines, *branches), strict=True))})


@pytest.mark.parametrize(
    ("lines", "branches", "problems"),
    [
        ((95, 100), (95, 100), ()),
        ((949, 1000), (100, 100), ("94.9 % of lines covered, wanted 95 %",)),
        ((100, 100), (94, 100), ("94.0 % of branches covered, wanted 95 %",)),
        ((0, 0), (0, 0), ("0.0 % of lines covered, wanted 95 %", "0.0 % of branches covered, wanted 95 %")),
    ],
)
def test_lines_and_branches_are_judged_apart(
    lines: tuple[int, int], branches: tuple[int, int], problems: tuple[str, ...]
) -> None:
    assert judge_coverage(coverage_report(lines, branches)).problems == problems


def test_a_missing_coverage_report_is_a_failure() -> None:
    assert judge_coverage("").problems == ("coverage left no report",)


def molecule_log(steps: Iterable[tuple[str, str]], missing: int = 0) -> str:
    """What Molecule prints, cut to what is read."""
    lines = [f"INFO     [web > {name}] Executed: {outcome}" for name, outcome in steps]
    return "\n".join(
        [
            "INFO     [web > verify] Executing Testinfra tests found in /x/molecule/web/tests/...",
            "SKIPPED [1] tests/test_x.py:3: no kernel modules",
            "SKIPPED [2] ../shared/test_y.py:30: in a container: no audit",
            "========================= 12 passed, 3 skipped in 0.54s =========================",
            *lines,
            f"web                       : actions=7  successful=5  disabled=0  skipped=0  missing={missing}  failed=0",
        ]
    )


GOOD_STEPS = [(name, "Successful") for name in ("create", *ROLE_STEPS, "destroy")]


def judge_log(log: str, code: int = 0, has_tests: bool = True, wanted: tuple[str, ...] = ROLE_STEPS) -> Verdict:
    """The verdict on one run of the scenario web."""
    return judge_molecule([Run(("molecule", "test"), code, log)], "web", has_tests, wanted)


def test_a_good_scenario_counts_its_tests_and_names_what_was_skipped() -> None:
    assert judge_log(molecule_log(GOOD_STEPS)) == Verdict(
        note="12 tests",
        skipped=(
            ("tests/test_x.py:3", "no kernel modules"),
            ("../shared/test_y.py:30", "in a container: no audit (2 times)"),
        ),
    )


@pytest.mark.parametrize("step", ROLE_STEPS)
def test_a_step_left_out_is_a_failure(step: str) -> None:
    log = molecule_log((name, outcome) for name, outcome in GOOD_STEPS if name != step)
    assert judge_log(log).problems == (f"{step} did not run",)


def test_a_step_passed_over_is_a_failure() -> None:
    log = molecule_log([*GOOD_STEPS[:-1], ("side_effect", "Missing playbook (Remove from test_sequence)")], missing=1)
    assert judge_log(log).problems == ("side_effect: Missing playbook (Remove from test_sequence)",)


def test_a_step_that_skips_its_work_is_a_failure() -> None:
    log = molecule_log(GOOD_STEPS) + "\nWARNING  [web > verify] Skipping, no tests found.\n"
    assert judge_log(log).problems == ("verify skipped: no tests found.",)


def test_colours_hide_nothing() -> None:
    log = molecule_log([*GOOD_STEPS, ("cleanup", "Failed")]).replace(
        "Executed: Failed", "\x1b[31mExecuted: Failed\x1b[0m"
    )
    assert judge_log(log).problems == ("cleanup: Failed",)


def test_the_recap_is_read_too() -> None:
    assert judge_log(molecule_log(GOOD_STEPS, missing=10)).problems == ("Molecule's recap counts something as missing",)


def test_steps_of_another_scenario_do_not_count() -> None:
    log = molecule_log(GOOD_STEPS).replace("[web > ", "[website > ")
    assert judge_log(log, wanted=("verify",)).problems == ("verify did not run",)


def test_a_scenario_without_tests_is_a_failure() -> None:
    verdict = judge_log(molecule_log(GOOD_STEPS), has_tests=False)
    assert verdict.problems == ("has neither tests/test_*.py nor verify.yml",)


def test_a_failed_scenario_says_where() -> None:
    log = molecule_log([("create", "Successful"), ("converge", "Failed")])
    assert judge_log(log, code=2, wanted=("converge",)).problems == (
        "molecule test: exit code 2",
        "converge: Failed",
    )


def test_verdicts_add_up() -> None:
    one = Verdict(("a",), "1 tests", (("x", "y"),), True)
    assert judge_all(one, Verdict(("b",), "2 %")) == Verdict(("a", "b"), "1 tests, 2 %", (("x", "y"),), True)
    assert judge_all(Verdict(), Verdict()) == Verdict()
