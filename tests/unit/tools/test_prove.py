# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The runner of `make test`: which suites there are, how they end, what the table says."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import prove
import pytest
from prove import Result, Runner, Suite
from verdicts import ROLE_STEPS, Run, Verdict


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of its own, so that no test touches the logs of a real run."""
    folder = tmp_path / ".cache" / "prove"
    folder.mkdir(parents=True)
    monkeypatch.setattr(prove, "ROOT", tmp_path)
    monkeypatch.setattr(prove, "LOGS", folder)
    return folder


@pytest.fixture
def runner() -> Runner:
    return Runner(prove.environment_for(Path(sys.executable).parent, os.environ))


def python(code: str) -> tuple[str, ...]:
    """A command that runs a line of Python."""
    return (sys.executable, "-c", code)


def make(root: Path, *names: str) -> None:
    """Empty files."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_suites_follow_from_what_exists(tmp_path: Path) -> None:
    make(tmp_path, "roles/web/meta/argument_specs.yml", "molecule/web/molecule.yml", "molecule/web/verify.yml")
    make(tmp_path, "molecule/stack/molecule.yml", "molecule/shared/converge.yml")
    make(tmp_path, "tests/csp_evaluator/test_a.py", "tests/faults/test_b.py", "tests/lockout/test_c.py")
    suites = {suite.name: suite for suite in prove.all_suites(tmp_path)}
    assert list(suites) == [
        *("generated", "lint", "types", "unit", "tests/csp_evaluator", "sanity"),
        *("tests/lockout", "molecule/stack", "molecule/web", "tests/faults"),
    ]
    make(tmp_path, "tests/observe/test_d.py", "tests/deploys/test_e.py", "tests/outside/test_f.py")
    after = [suite.name for suite in prove.all_suites(tmp_path)]
    assert after[-3:] == ["tests/deploys", "tests/faults", "tests/outside"]
    sharing = ["tests/lockout", "molecule/stack", "molecule/web"]
    assert [name for name, suite in suites.items() if suite.needs_hosts] == [*sharing, "tests/faults"]
    assert [name for name, suite in suites.items() if suite.at_a_time == 1] == ["tests/faults"]
    assert suites["generated"].commands[1][-1] == "fushuma.production.web"
    assert suites["tests/csp_evaluator"].programs == ("node", "npm")


def test_a_roles_scenario_has_to_do_more_than_another(tmp_path: Path) -> None:
    make(tmp_path, "roles/web/meta/argument_specs.yml", "molecule/web/molecule.yml", "molecule/web/tests/test_a.py")
    make(tmp_path, "molecule/stack/molecule.yml")
    stack, web = prove.all_suites(tmp_path)[-2:]
    nothing = [Run(("molecule",), 0, "")]
    assert web.judge(nothing).problems == tuple(f"{step} did not run" for step in ROLE_STEPS)
    assert stack.judge(nothing).problems == ("has neither tests/test_*.py nor verify.yml", "verify did not run")


def test_tests_that_no_suite_runs_are_found(tmp_path: Path) -> None:
    make(tmp_path, "tests/unit/a/test_a.py", "tests/hosts/test_b.py", "tests/benchmark/run.py")
    assert prove.folders_without_suite(tmp_path) == []
    make(tmp_path, "tests/lost/deep/test_c.py", "tests/test_d.py")
    assert prove.folders_without_suite(tmp_path) == [
        Result("tests/lost", "failed", 0.0, "no suite runs it"),
        Result("tests/test_d.py", "failed", 0.0, "no suite runs it"),
    ]


def test_suites_are_chosen_by_name_or_group() -> None:
    suites = [Suite(name, ()) for name in ("lint", "molecule/a", "molecule/b", "molecules")]
    assert [suite.name for suite in prove.select(suites, ["molecule", "lint"])] == ["lint", "molecule/a", "molecule/b"]
    with pytest.raises(SystemExit, match=r"There is no suite lin\. There are: lint, molecule/a"):
        prove.select(suites, ["lint", "lin"])


def test_all_commands_run_and_the_failed_one_is_shown(
    runner: Runner, logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = (python("print('first'); exit(3)"), python("print('second')"))
    [row] = prove.run_suite(Suite("a/b", commands), runner)
    assert (row.name, row.outcome) == ("a/b", "failed")
    assert row.reason.endswith("exit code 3")
    shown = capsys.readouterr().out
    assert "\nfirst\n" in shown
    assert "second" not in shown.replace(commands[1][2], "")
    assert "--- all of it: .cache/prove/a-b.log" in shown
    assert "\nsecond\n" in (logs / "a-b.log").read_text()


def test_what_failed_is_told_by_its_own_lines(runner: Runner, logs: Path) -> None:
    lines = ["about FAILED", *(f"FAILED test_{number}" for number in range(5)), "[ERROR]: task", "fatal: " + "x" * 400]
    [row] = prove.run_suite(Suite("a", (python(f"print({chr(10).join(lines)!r}); exit(1)"),)), runner)
    assert row.told == ("FAILED test_2", "FAILED test_3", "FAILED test_4", "[ERROR]: task", "fatal: " + "x" * 293)
    [row] = prove.run_suite(Suite("a", (python(f"print({lines[1]!r})"),)), runner)
    assert (row.outcome, row.told) == ("passed", ())


def test_each_judge_sees_only_the_output_of_its_own_run(runner: Runner, logs: Path) -> None:
    seen: list[str] = []

    def judge(runs: Sequence[Run]) -> Verdict:
        seen.extend(run.output for run in runs)
        return Verdict()

    for text in ("old", "new"):
        prove.run_suite(Suite("a", (python(f"print('{text}')"),), judge), runner)
    assert seen == ["old\n", "new\n"]


def test_a_report_of_an_earlier_run_is_not_believed(runner: Runner, logs: Path, tmp_path: Path) -> None:
    make(tmp_path, "tests/a/test_a.py")
    [suite] = prove.pytest_suite(tmp_path, "a")
    (logs / "tests-a.xml").write_text("<testsuites><testcase classname='a' name='b' /></testsuites>")
    [row] = prove.run_suite(replace(suite, commands=(python("pass"),)), runner)
    assert (row.outcome, row.reason) == ("failed", "pytest left no report")


def test_a_suite_without_its_program_is_skipped_by_name(runner: Runner) -> None:
    suite = Suite("a", (python("raise SystemExit(1)"),), programs=("sh", "no-such-program"))
    assert prove.run_suite(suite, runner) == [Result("a", "skipped", 0.0, "this machine lacks no-such-program")]


@pytest.mark.parametrize("value", [None, ""])
def test_a_suite_without_what_it_is_given_is_skipped_by_name(tmp_path: Path, value: str | None) -> None:
    make(tmp_path, "molecule/loki/molecule.yml", "molecule/loki_install/molecule.yml")
    loki, install = prove.all_suites(tmp_path)[-2:]
    assert (loki.given, install.given) == ("LOKI_ARCHIVE", "")
    given = {"PATH": os.defpath} | ({} if value is None else {"LOKI_ARCHIVE": value})
    runner = Runner(prove.environment_for(Path(sys.executable).parent, given))
    assert prove.run_suite(loki, runner) == [Result("molecule/loki", "skipped", 0.0, "needs LOKI_ARCHIVE")]


@pytest.mark.parametrize(("within", "outcome"), [(0.0, "skipped"), (5.0, "passed"), (None, "passed")])
def test_a_suite_that_would_begin_late_is_skipped_by_name(within: float | None, outcome: str) -> None:
    runner = Runner(prove.environment_for(Path(sys.executable).parent, os.environ), within)
    [row] = prove.run_suite(Suite("a", (python("pass"),)), runner)
    assert (row.name, row.outcome) == ("a", outcome)
    assert ("0 minutes" in row.reason) == (outcome == "skipped")


def test_a_suite_with_what_it_is_given_runs() -> None:
    runner = Runner(prove.environment_for(Path(sys.executable).parent, {**os.environ, "LOKI_ARCHIVE": "/srv/loki.zip"}))
    code = "import os, sys; sys.exit(os.environ['LOKI_ARCHIVE'] != '/srv/loki.zip')"
    [row] = prove.run_suite(Suite("a", (python(code),), given="LOKI_ARCHIVE"), runner)
    assert row.outcome == "passed"


@pytest.mark.parametrize(
    ("verdict", "rows"),
    [
        (Verdict(note="3 tests"), [Result("a", "passed", 1.0, "3 tests")]),
        (Verdict(("x", "y"), "3 tests"), [Result("a", "failed", 1.0, "x; y")]),
        (
            Verdict(skipped=(("t", "why"),), nothing_ran=True),
            [Result("a", "skipped", 1.0, "every test was skipped, see below"), Result("a: t", "skipped", 0.0, "why")],
        ),
        (
            Verdict(("x",), skipped=(("t", "w"),)),
            [Result("a", "failed", 1.0, "x"), Result("a: t", "skipped", 0.0, "w")],
        ),
    ],
)
def test_a_verdict_becomes_rows(verdict: Verdict, rows: list[Result]) -> None:
    assert prove.rows_of("a", verdict, 1.0) == rows


def test_the_table_ends_with_the_counts() -> None:
    results = [
        Result("lint", "passed", 1.26),
        Result("molecule/web", "failed", 61.0, "why", ("FAILED test_web.py::test_page",)),
        Result("x", "skipped", 0.0, "y"),
        Result(f"x: {'t' * 40}", "skipped", 0.0, "z"),
    ]
    assert prove.table(results).splitlines() == [
        f"{'suite':<32}  result   seconds  reason",
        "-" * 64,
        f"{'lint':<32}  passed       1.3",
        f"{'molecule/web':<32}  failed      61.0  why",
        f"{'x':<32}  skipped      0.0  y",
        f"x: {'t' * 40}  skipped      0.0  z",
        "",
        "molecule/web failed: why",
        "  FAILED test_web.py::test_page",
        "",
        "1 passed, 1 failed, 2 skipped",
    ]


def host_tool(root: Path, code: str) -> None:
    """A stand-in for tools/testhosts."""
    make(root, "tools/testhosts/__main__.py")
    (root / "tools/testhosts/__main__.py").write_text(code)


@pytest.mark.parametrize(
    ("code", "required", "outcome", "reason"),
    [
        ("print('fine')", True, "passed", "Debian 12 and 13"),
        ("print('x\\nNo engine.'); raise SystemExit(2)", False, "skipped", "No engine."),
        ("print('x\\nNo engine.'); raise SystemExit(2)", True, "failed", "No engine."),
        ("raise SystemExit(1)", False, "failed", "it said nothing"),
        (
            "import sys; sys.exit(2 if sys.argv[1:] == ['image', '12', '13'] else 0)",
            False,
            "skipped",
            "it said nothing",
        ),
    ],
)
def test_suites_that_need_hosts_share_their_fate(
    tmp_path: Path, runner: Runner, code: str, required: bool, outcome: str, reason: str
) -> None:
    host_tool(tmp_path, code)
    suites = [Suite("static", (python("pass"),)), Suite("a", (python("pass"),), needs_hosts=True, at_a_time=2)]
    suites.append(Suite("b", (python("pass"),), needs_hosts=True))
    hosts, static, *others = prove.run_all(suites, runner, required)
    assert static.outcome == "passed"
    assert (hosts.name, hosts.outcome, hosts.reason) == ("test hosts", outcome, reason)
    assert [row.name for row in others] == ["a", "b"]
    assert {row.outcome for row in others} == {outcome}
    assert outcome == "passed" or {row.reason for row in others} == {f"no test hosts: {reason}"}


def test_long_scenarios_begin_first(tmp_path: Path) -> None:
    for name in ("alone", "backup", "backup_options", "alone_options", "stack", "web"):
        make(tmp_path, f"molecule/{name}/molecule.yml")
    assert prove.scenarios(tmp_path) == (["stack", "backup", "alone", "web"], ["backup_options", "alone_options"])


def test_what_few_use_comes_last(tmp_path: Path) -> None:
    make(tmp_path, "molecule/web_refusals/molecule.yml", "molecule/web/molecule.yml")
    make(tmp_path, "tests/faults/test_a.py", "tests/audit/test_a.py")
    after = [suite.name for suite in prove.all_suites(tmp_path)]
    assert after[-4:] == ["molecule/web", "tests/faults", "tests/audit", "molecule/web_refusals"]


def test_scenarios_run_side_by_side(runner: Runner, tmp_path: Path) -> None:
    """Each waits for the other's file, so one after the other would never end."""
    code = "import pathlib, time; pathlib.Path({0!r}).touch()\nwhile not pathlib.Path({1!r}).exists(): time.sleep(0.01)"
    ours, theirs = str(tmp_path / "1"), str(tmp_path / "2")
    commands = (python(code.format(ours, theirs)), python(code.format(theirs, ours)))
    suites = [Suite(f"s{number}", (command,), at_a_time=2) for number, command in enumerate(commands)]
    assert [row.outcome for row in prove.run_all(suites, runner, False)] == ["passed", "passed"]


# A child that starts another one in its group, says both names and waits for long.
FAMILY = """
import os, pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path({0!r}).write_text(f"{{os.getpid()}} {{child.pid}}")
{1}
"""


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until it holds; fail where it does not come to that."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not collected yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def family(path: Path) -> list[int]:
    """The processes that FAMILY has named, once it has."""
    wait_for(lambda: path.is_file() and len(path.read_text().split()) == 2)
    return [int(pid) for pid in path.read_text().split()]


@pytest.mark.parametrize("then", ["time.sleep(600)", "pass"], ids=["hangs", "leaves a child"])
def test_nothing_outlives_a_command(runner: Runner, tmp_path: Path, logs: Path, then: str) -> None:
    names = tmp_path / "pids"
    run = runner.run(python(FAMILY.format(str(names), then)), logs / "x.log", longest=2.0)
    assert run.code == (0 if then == "pass" else None)
    wait_for(lambda: not any(alive(pid) for pid in family(names)))


def test_an_interrupt_ends_all_and_starts_no_more(runner: Runner, tmp_path: Path) -> None:
    names = tmp_path / "pids"
    hangs = python(FAMILY.format(str(names), "time.sleep(600)"))
    suites = [Suite("a", (hangs,), at_a_time=1), Suite("b", (python("pass"),), at_a_time=1)]

    def interrupt() -> None:
        family(names)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        prove.run_all(suites, runner, False)
    thread.join()
    wait_for(lambda: not any(alive(pid) for pid in family(names)))
    assert not (prove.LOGS / "b.log").exists()


def test_a_stopped_runner_starts_nothing(runner: Runner, logs: Path) -> None:
    runner.stop()
    with pytest.raises(KeyboardInterrupt):
        runner.run(python("pass"), logs / "x.log")


def test_colours_and_foreign_locales_are_kept_out() -> None:
    given = {"FORCE_COLOR": "1", "PY_COLORS": "1", "PATH": "/bin", "LC_ALL": "de_DE", "HOME": "/h"}
    found = prove.environment_for(Path("/venv/bin"), given)
    assert found["PATH"] == "/venv/bin:/bin"
    assert found["LC_ALL"] == "C.UTF-8"
    assert found["HOME"] == "/h"
    assert not {"FORCE_COLOR", "PY_COLORS"} & set(found)


def test_main_fails_where_a_suite_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    suites = [Suite("good", (python("pass"),)), Suite("bad", (python("exit(1)"),))]
    monkeypatch.setattr(prove, "all_suites", lambda _root: suites)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    make(tmp_path, "tests/lost/test_a.py")
    assert prove.main(["--list"]) == 0
    assert capsys.readouterr().out == "good\nbad\n"
    assert prove.main(["--only", "good"]) == 0
    assert capsys.readouterr().out.endswith("\n1 passed, 0 failed, 0 skipped\n")
    assert prove.main([]) == 1
    assert capsys.readouterr().out.endswith("\n1 passed, 2 failed, 0 skipped\n")
