# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run the whole proof and end with one table: each suite and scenario, passed, failed or skipped and why.

What is skipped or missing in silence counts as failed. Each suite's output goes to .cache/prove.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

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

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / ".cache" / "prove"
PYTHON = sys.executable

LONGEST_COMMAND = 1800.0  # seconds; what takes longer hangs
WIDTH = 120
NAME_WIDTH = 32
TAIL = 40  # lines of output shown where a suite fails
# How pytest, Molecule and Ansible say what failed. So many of these lines, and so much of each, stand below the table,
# for often nothing but the end of a long run is kept.
TELLING = re.compile(r"(FAILED |ERROR |fatal: |\[ERROR\])")
TOLD, TOLD_WIDTH = 5, 300
AT_A_TIME = 2
MACHINE_LACKS = 2  # the exit code by which tools/testhosts says that it cannot work here
RELEASES = ("12", "13")

# Folders below tests/. Each runs where it exists.
LOCAL_FOLDERS: Mapping[str, tuple[str, ...]] = {"csp_evaluator": ("node", "npm")}  # the programs they need
# These need hosts, which are called as no other suite's, and mostly wait for them: they run beside another suite,
# before the scenarios and the longest first, so that none is left to run alone at the end.
SHARING_FOLDERS = ("backup", "lockout", "runbooks", "observe", "acme", "application")
# Scenarios that take several minutes begin before the others, for the same reason.
LONG_SCENARIOS = ("stack", "backup", "backup_options", "log_shipper", "docker")
# Scenarios with these endings try what few use, and Lynis' score seldom changes. They come last, for a run whose time
# may end (`--within`).
RARE = ("_options", "_refusals", "_install")
RARE_FOLDERS = ("audit",)
# These need hosts and the machine for themselves: they hit upon moments, bring load or drive a browser.
LONELY_FOLDERS = ("hosts", "deploys", "faults", "outside", "browser")
# These need a program that no registry has: a file of it, which this variable of the environment names.
GIVEN: Mapping[str, str] = {"molecule/loki": "LOKI_ARCHIVE", "molecule/grafana": "GRAFANA_ARCHIVE"}

Command = tuple[str, ...]


@dataclass(frozen=True)
class Suite:
    """Commands, all of which run, and the judge of what they left behind.

    It is skipped where this machine lacks one of ``programs``, or has no variable of the name ``given``.
    """

    name: str
    commands: tuple[Command, ...]
    judge: Callable[[Sequence[Run]], Verdict] = judge_commands
    programs: tuple[str, ...] = ()
    given: str = ""
    needs_hosts: bool = False
    at_a_time: int = AT_A_TIME


@dataclass(frozen=True)
class Result:
    """One row of the table. ``outcome`` is passed, failed or skipped; ``told`` are the telling lines of its output."""

    name: str
    outcome: str
    seconds: float
    reason: str = ""
    told: tuple[str, ...] = ()


# The suites


def left_by(suite: str, suffix: str) -> Path:
    """Where a suite leaves its log or its report."""
    return LOGS / f"{suite.replace('/', '-')}.{suffix}"


def text_of(path: Path) -> str:
    """The text of a report; "" where there is none."""
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def static_suite(root: Path) -> list[Suite]:
    """What judges the text of the collection."""
    roles = [
        f"fushuma.production.{path.parent.parent.name}" for path in sorted(root.glob("roles/*/meta/argument_specs.yml"))
    ]
    pages: tuple[Command, ...] = (("ansible-doc", "--type", "role", *roles),) if roles else ()
    return [
        Suite(
            "generated",
            ((PYTHON, "tools/generate.py", "--check"), *pages),
            lambda runs: judge_all(judge_commands(runs), judge_role_pages(runs, roles)),
        ),
        Suite(
            "lint",
            (
                ("ruff", "check", "."),
                ("ruff", "format", "--check", "."),
                ("yamllint", "--strict", "."),
                ("ansible-lint", "--offline"),
                ("antsibull-changelog", "lint"),
            ),
        ),
        Suite("types", (("mypy",),)),
    ]


def unit_suite() -> Suite:
    """The unit tests and what they cover of the plugins."""
    junit, covered = left_by("unit", "xml"), left_by("unit", "json")
    return Suite(
        "unit",
        (
            ("coverage", "run", "-m", "pytest", "tests/unit", f"--junitxml={junit}"),
            ("coverage", "report"),
            ("coverage", "json", "-q", "-o", str(covered)),
        ),
        lambda runs: judge_all(judge_pytest(runs, text_of(junit)), judge_coverage(text_of(covered))),
    )


def pytest_suite(root: Path, folder: str, **options: Any) -> list[Suite]:
    """One pytest run over a folder below tests/, where it exists; ``options`` are those of its Suite."""
    name = f"tests/{folder}"
    junit = left_by(name, "xml")
    command = (PYTHON, "-m", "pytest", name, f"--junitxml={junit}")
    suite = Suite(name, (command,), lambda runs: judge_pytest(runs, text_of(junit)), **options)
    return [suite] if (root / name).is_dir() else []


def scenario_suite(root: Path, scenario: str) -> Suite:
    """One Molecule scenario; a role's has to run every step a role promises."""
    folder = root / "molecule" / scenario
    judge = partial(
        judge_molecule,
        scenario=scenario,
        has_tests=(folder / "verify.yml").is_file() or any(folder.glob("tests/test_*.py")),
        wanted=ROLE_STEPS if (root / "roles" / scenario).is_dir() else ("verify",),
    )
    name, command = f"molecule/{scenario}", ("molecule", "test", "-s", scenario)
    return Suite(name, (command,), judge, given=GIVEN.get(name, ""), needs_hosts=True)


def all_suites(root: Path) -> list[Suite]:
    """Everything `make test` runs, in order: what fails fast comes first, what few use last."""
    usual, rare = scenarios(root)
    return [
        *static_suite(root),
        unit_suite(),
        *(suite for name, needed in LOCAL_FOLDERS.items() for suite in pytest_suite(root, name, programs=needed)),
        Suite("sanity", ((PYTHON, "tools/sanity.py"),)),
        *(suite for name in SHARING_FOLDERS for suite in pytest_suite(root, name, needs_hosts=True)),
        *(scenario_suite(root, name) for name in usual),
        *(suite for name in LONELY_FOLDERS for suite in pytest_suite(root, name, needs_hosts=True, at_a_time=1)),
        *(suite for name in RARE_FOLDERS for suite in pytest_suite(root, name, needs_hosts=True)),
        *(scenario_suite(root, name) for name in rare),
    ]


def scenarios(root: Path) -> tuple[list[str], list[str]]:
    """The names of the usual scenarios and of the rare ones, in each the long ones first."""
    found = sorted(path.parent.name for path in root.glob("molecule/*/molecule.yml"))
    order = {name: place for place, name in enumerate(LONG_SCENARIOS)}
    found = sorted(found, key=lambda name: order.get(name, len(order)))
    return [name for name in found if not name.endswith(RARE)], [name for name in found if name.endswith(RARE)]


def folders_without_suite(root: Path) -> list[Result]:
    """A failed row for whatever below tests/ holds tests that no suite runs."""
    known = {"unit", *LOCAL_FOLDERS, *SHARING_FOLDERS, *LONELY_FOLDERS, *RARE_FOLDERS}
    found = {path.relative_to(root / "tests").parts[0] for path in (root / "tests").rglob("test_*.py")}
    return [Result(f"tests/{name}", "failed", 0.0, "no suite runs it") for name in sorted(found - known)]


def select(suites: Sequence[Suite], wanted: Sequence[str]) -> list[Suite]:
    """The suites of these names and those below them (`molecule`); an unknown name ends the program."""
    for name in wanted:
        if not any(is_below(suite.name, name) for suite in suites):
            raise SystemExit(f"There is no suite {name}. There are: {', '.join(suite.name for suite in suites)}.")
    return [suite for suite in suites if any(is_below(suite.name, name) for name in wanted)]


def is_below(name: str, wanted: str) -> bool:
    """Whether a suite is the wanted one or one of the wanted group."""
    return name == wanted or name.startswith(f"{wanted}/")


# Running them


class Runner:
    """Starts commands, each in a process group of its own, and can end them all."""

    def __init__(self, environment: Mapping[str, str], within: float | None = None) -> None:
        """``within``: the minutes after which no suite begins any more; None for no limit."""
        self.environment = dict(environment)
        self.within = within
        self._began = time.monotonic()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False
        self._lock = threading.Lock()

    def is_late(self) -> bool:
        """Whether the time is over in which suites begin."""
        return self.within is not None and time.monotonic() - self._began >= self.within * 60

    def run(self, command: Command, log: Path, longest: float = LONGEST_COMMAND) -> Run:
        """Run one command from the repository's root and add its output to ``log``."""
        with log.open("ab") as file:
            file.write(f"$ {' '.join(command)}\n".encode())
            file.flush()
            start = file.tell()
            process = self._start(command, file.fileno())
            try:
                code: int | None = process.wait(longest)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                end_group(process)
                self._running.discard(process)
        if self._stopped:
            raise KeyboardInterrupt
        return Run(command, code, log.read_bytes()[start:].decode(errors="replace"))

    def _start(self, command: Command, output: int) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._stopped:
                raise KeyboardInterrupt
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._running.add(process)
            return process

    def stop(self) -> None:
        """End everything that runs and start nothing more."""
        with self._lock:
            self._stopped = True
        for process in list(self._running):
            end_group(process)


def end_group(process: subprocess.Popen[bytes], patience: float = 10.0) -> None:
    """End a command and whatever it left running in its process group; it has ``patience`` seconds to tidy up."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + patience
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)


def environment_for(programs: Path, given: Mapping[str, str]) -> dict[str, str]:
    """The environment of all suites: the virtual environment's programs first, no colours, one locale."""
    colours = ("ANSIBLE_FORCE_COLOR", "FORCE_COLOR", "PY_COLORS")
    return {
        **{name: value for name, value in given.items() if name not in colours},
        "ANSIBLE_NOCOLOR": "1",
        "HYPOTHESIS_STORAGE_DIRECTORY": str(ROOT / ".cache" / "hypothesis"),
        "LC_ALL": "C.UTF-8",
        "NO_COLOR": "1",
        "PATH": f"{programs}:{given.get('PATH', os.defpath)}",
        "PYTHONUNBUFFERED": "1",
    }


def run_suite(suite: Suite, runner: Runner) -> list[Result]:
    """Run all commands of a suite, the later ones also where an earlier one failed, and judge them."""
    missing = [name for name in suite.programs if shutil.which(name, path=runner.environment["PATH"]) is None]
    if missing:
        return [Result(suite.name, "skipped", 0.0, f"this machine lacks {', '.join(missing)}")]
    if suite.given and not runner.environment.get(suite.given):
        return [Result(suite.name, "skipped", 0.0, f"needs {suite.given}")]
    if runner.is_late():
        return [Result(suite.name, "skipped", 0.0, f"it would have begun after more than {runner.within:g} minutes")]
    for suffix in ("log", "xml", "json"):
        left_by(suite.name, suffix).unlink(missing_ok=True)
    log = left_by(suite.name, "log")
    print(f"  {suite.name} ...", flush=True)
    started = time.monotonic()
    runs = [runner.run(command, log) for command in suite.commands]
    rows = rows_of(suite.name, suite.judge(runs), time.monotonic() - started)
    if rows[0].outcome == "failed":
        print(f"{last_words(runs)}\n--- all of it: {log.relative_to(ROOT)}")
        rows[0] = replace(rows[0], told=telling(runs))
    print(f"  {suite.name}: {rows[0].outcome} in {rows[0].seconds:.0f} s", flush=True)
    return rows


def last_words(runs: Sequence[Run]) -> str:
    """The end of what each command that failed has said, or of what all said where none did."""
    shown = [run for run in runs if run.code != 0] or runs
    return "\n".join(
        line for run in shown for line in [f"--- {describe(run.command)}", *run.output.splitlines()[-TAIL:]]
    )


def telling(runs: Sequence[Run]) -> tuple[str, ...]:
    """The last lines of the output that say what failed."""
    lines = [line[:TOLD_WIDTH] for run in runs for line in run.output.splitlines() if TELLING.match(line)]
    return tuple(lines[-TOLD:])


def rows_of(name: str, verdict: Verdict, seconds: float) -> list[Result]:
    """The suite's row and one for each test it skipped."""
    if verdict.problems:
        row = Result(name, "failed", seconds, "; ".join(verdict.problems))
    elif verdict.nothing_ran:
        row = Result(name, "skipped", seconds, "every test was skipped, see below")
    else:
        row = Result(name, "passed", seconds, verdict.note)
    return [row, *(Result(f"{name}: {test}", "skipped", 0.0, why) for test, why in verdict.skipped)]


def prepare_hosts(runner: Runner, required: bool) -> Result:
    """Start the engine and build the images; skipped where this machine cannot, unless hosts are required."""
    log = left_by("hosts", "log")
    log.unlink(missing_ok=True)
    print("  test hosts ...", flush=True)
    started = time.monotonic()
    outcome, reason = "passed", f"Debian {' and '.join(RELEASES)}"
    for arguments in (("engine", "start"), ("image", *RELEASES)):
        run = runner.run((PYTHON, "tools/testhosts", *arguments), log)
        if run.code != 0:
            outcome = "skipped" if run.code == MACHINE_LACKS and not required else "failed"
            reason = (run.output.strip().splitlines() or ["it said nothing"])[-1]
            break
    seconds = time.monotonic() - started
    print(f"  test hosts: {outcome} in {seconds:.0f} s", flush=True)
    return Result("test hosts", outcome, seconds, reason)


def run_all(suites: Sequence[Suite], runner: Runner, hosts_required: bool) -> list[Result]:
    """Run the suites in order, neighbours that allow it side by side, while the hosts are prepared."""
    results: list[Result] = []
    with ThreadPoolExecutor(1) as beside:
        needed = any(suite.needs_hosts for suite in suites)
        hosts = beside.submit(prepare_hosts, runner, hosts_required) if needed else None
        for at_a_time, group in groupby(suites, lambda suite: suite.at_a_time):
            with ThreadPoolExecutor(at_a_time) as pool:
                futures = [pool.submit(run_on, hosts, suite, runner) for suite in group]
                try:
                    for future in futures:
                        results += future.result()
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    runner.stop()
                    raise
        return [hosts.result(), *results] if hosts else results


def run_on(hosts: Future[Result] | None, suite: Suite, runner: Runner) -> list[Result]:
    """Run a suite; one that needs hosts waits for them, and shares their fate."""
    if hosts and suite.needs_hosts and (found := hosts.result()).outcome != "passed":
        return [Result(suite.name, found.outcome, 0.0, f"no test hosts: {found.reason}")]
    return run_suite(suite, runner)


def table(results: Sequence[Result]) -> str:
    """All rows, those that failed once more with what they said, then the counts on a line of their own."""
    rows = [("suite", "result", "seconds", "reason")]
    rows += [(row.name, row.outcome, f"{row.seconds:.1f}", row.reason) for row in results]
    # A skipped test's name may be long; it does not widen all rows.
    name, outcome, seconds = (min(NAME_WIDTH, max(len(row[column]) for row in rows)) for column in range(3))
    lines = [f"{row[0]:<{name}}  {row[1]:<{outcome}}  {row[2]:>{seconds}}  {row[3]}".rstrip() for row in rows]
    lines.insert(1, "-" * min(WIDTH, max(map(len, lines))))
    for row in results:
        if row.outcome == "failed":
            lines += ["", f"{row.name} failed: {row.reason}", *(f"  {line}" for line in row.told)]
    outcomes = [row.outcome for row in results]
    return "\n".join(
        [*lines, "", ", ".join(f"{outcomes.count(kind)} {kind}" for kind in ("passed", "failed", "skipped"))]
    )


def stop_like_interrupt(_number: int, _frame: object) -> None:
    """Let every polite end take the way of Ctrl-C, also where the shell has it ignored."""
    raise KeyboardInterrupt


def main(arguments: Sequence[str]) -> int:
    """1 where anything failed, 130 where it was interrupted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="run these suites; `molecule` means all scenarios")
    parser.add_argument("--within", type=float, metavar="MINUTES", help="begin no suite later; it is skipped by name")
    parser.add_argument("--list", action="store_true", help="name the suites and run none")
    options = parser.parse_args(arguments)
    suites = all_suites(ROOT)
    if options.list:
        print("\n".join(suite.name for suite in suites))
        return 0
    chosen = select(suites, options.only) if options.only else suites
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop_like_interrupt)
    LOGS.mkdir(parents=True, exist_ok=True)
    runner = Runner(environment_for(Path(PYTHON).parent, os.environ), options.within)
    try:
        results = run_all(chosen, runner, hosts_required=os.environ.get("CI") == "true")
    except KeyboardInterrupt:
        print("Interrupted; what it had started was ended.", file=sys.stderr)
        return 130
    if not options.only:
        results += folders_without_suite(ROOT)
    print(f"\n{table(results)}")
    return int(any(row.outcome == "failed" for row in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
