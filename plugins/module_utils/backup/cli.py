# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The command ``production-backup``: its verbs, what they print, and how they end.

0: it went well. 1: it did not, and a sentence on standard error says why. 2: the command was not understood.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from . import runs, signals
from .programs import Failure
from .restic import Restic
from .runs import Outcome, Say
from .settings import Settings

VERBS: dict[str, Callable[[Settings, Say], Outcome]] = {
    "init": runs.init,
    "run": runs.run,
    "prune": runs.prune,
    "check": runs.check,
}
HELP = {
    "init": "open or make the repositories",
    "run": "back up now",
    "prune": "forget old snapshots, and remove what only they had",
    "check": "check the repositories, and read a part of their data",
}


def main(argv: Sequence[str], settings: Settings | None = None) -> int:
    """0 well, 1 not, 2 wrong usage. Settings are those of the host, if none are given."""
    # Dumps and listings are for root alone.
    os.umask(0o077)
    signal.signal(signal.SIGTERM, _terminated)
    try:
        if argv[:1] in (["restore"], ["drill"]):
            return _elsewhere(argv[0], argv[1:], settings or Settings.load())
        arguments = parser().parse_args(argv)
        return _dispatch(arguments, settings or Settings.load())
    except SystemExit as ended:
        # argparse ends so; 2 is its code for what it does not understand.
        return ended.code if isinstance(ended.code, int) else 1
    except Failure as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _terminated(number: int, frame: object) -> None:
    """systemd stops a unit so: what was begun is put in order on the way out."""
    raise SystemExit(128 + number)


def parser() -> argparse.ArgumentParser:
    """The verbs but restore and drill, which have parsers of their own."""
    result = argparse.ArgumentParser(
        "production-backup", description="Backups of this host; restore and drill have --help."
    )
    verbs = result.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, what in HELP.items():
        _json(verbs.add_parser(verb, help=what))
    one = verbs.add_parser("snapshots", help="list snapshots")
    one.add_argument(
        "--from", dest="repository", action="append", default=[], metavar="NAME", help="of this repository"
    )
    one.add_argument("--every-host", action="store_true", help="also those of other hosts")
    _json(one)
    _json(
        verbs.add_parser("opened", help="whether init has opened all repositories as they are set; asks none of them")
    )
    _json(verbs.add_parser("status", help="what is known of former runs; 1 where something is not as it should be"))
    one = verbs.add_parser("restic", help="restic by hand, let into a repository", usage="%(prog)s NAME -- ARGUMENT...")
    one.add_argument("repository", metavar="NAME")
    one.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARGUMENT")
    one = verbs.add_parser("failed", help="tell of a verb that failed; systemd calls it")
    one.add_argument("failed", metavar="VERB")
    return result


def _json(one: argparse.ArgumentParser) -> None:
    one.add_argument("--json", action="store_true", help="print one JSON document for machines")


def _dispatch(arguments: argparse.Namespace, settings: Settings) -> int:
    if arguments.verb == "restic":
        return _by_hand(settings, arguments.repository, arguments.arguments)
    if arguments.verb == "failed":
        return _failed(settings, arguments.failed)
    say = _to_stderr if arguments.json else runs.aloud
    if arguments.verb in VERBS:
        with _recorded(settings, arguments.verb) as recorded:
            outcome = VERBS[arguments.verb](settings, say)
            recorded += outcome.problems
        if not outcome.problems:
            for line in signals.tell(settings, arguments.verb, ""):
                say(line)
    elif arguments.verb == "snapshots":
        outcome = runs.snapshots(settings, arguments.repository, arguments.every_host)
    else:
        outcome = runs.opened(settings) if arguments.verb == "opened" else runs.status(settings)
    return _ended(arguments, outcome)


def _ended(arguments: argparse.Namespace, outcome: Outcome) -> int:
    if arguments.json:
        runs.aloud(json.dumps({"ok": not outcome.problems, "problems": outcome.problems, **outcome.values}, indent=1))
    elif arguments.verb == "snapshots":
        for name, found in outcome.values["repositories"].items():
            for one in found:
                when = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(one["time"]))
                runs.aloud(f"{name}  {one['id'][:8]}  {when}  {one['host']}")
    elif arguments.verb == "status":
        _print_status(outcome.values)
    for problem in outcome.problems:
        sys.stderr.write(f"{problem}\n")
    return 1 if outcome.problems else 0


def _print_status(values: dict[str, Any]) -> None:
    times = (("last_success", "backup"), ("prune_success", "prune"), ("check_success", "check"))
    for name, one in sorted(values["repositories"].items()):
        said = [f"{what} {_ago(one[key])}" for key, what in times if one.get(key)]
        runs.aloud(f"{name}: {', '.join(said) or 'nothing yet'}; {one.get('snapshots', 'unknown')} snapshots")
    for name, one in sorted(values["drills"].items()):
        runs.aloud(f"{name}: drill {_ago(one['last_success']) if one.get('last_success') else 'never well'}")


def _ago(moment: float) -> str:
    return f"{(time.time() - moment) / 3600:.1f} hours ago"


@contextlib.contextmanager
def _recorded(settings: Settings, verb: str) -> Iterator[list[str]]:
    """Keeps what became of a verb, for ``status`` and ``failed``; takes its problems as they come."""
    problems: list[str] = []
    signals.record(settings, "verbs", verb, {"started": time.time(), "ended": None, "problems": []})
    try:
        yield problems
    except Failure as error:
        problems.append(str(error))
        raise
    finally:
        if sys.exc_info()[0] is None or isinstance(sys.exc_info()[1], Failure):
            signals.record(settings, "verbs", verb, {"ended": time.time(), "problems": problems})


def _elsewhere(verb: str, argv: Sequence[str], settings: Settings) -> int:
    """restore and drill, which a host needs rarely: only then are they loaded."""
    if verb == "restore":
        from . import restore

        return restore.main(argv, settings)
    from . import drill

    with _recorded(settings, verb) as problems:
        code = drill.main(argv, settings, problems)
    if code == 0:
        for line in signals.tell(settings, verb, ""):
            _to_stderr(line)
    return code


def _by_hand(settings: Settings, name: str, arguments: Sequence[str]) -> int:
    """Becomes restic, with what lets it into a repository."""
    restic = Restic(settings, settings.repository(name))
    argv = restic.argv(list(arguments[1:] if arguments[:1] == ["--"] else arguments))
    os.execve(argv[0], argv, {**os.environ, **restic.environment()})


def _failed(settings: Settings, verb: str) -> int:
    """Tell of a verb that failed, whatever it was that ended it."""
    found = signals.state(settings)
    one = found["verbs"].get(verb, {})
    problem = "; ".join(one.get("problems", []))
    if not problem:
        problem = f"it was ended before it could say why: see journalctl -u production-backup@{verb}.service"
        signals.record(settings, "verbs", verb, {"ended": time.time(), "problems": [problem]})
        if verb == "run":
            for name in (each.name for each in settings.for_purpose("backup")):
                known = found["repositories"].get(name, {})
                if known.get("last_attempt", 0) > known.get("last_success", 0):
                    signals.record(settings, "repositories", name, {"exit_code": 1})
    untold = signals.tell(settings, verb, problem)
    for line in untold:
        _to_stderr(line)
    return 1 if untold else 0


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")
