# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who is told of what happened: the state on the host, metrics, a ping, a check-in, a webhook, mail.

A verb that went well says so itself. That one failed is said by ``production-backup failed VERB``, which systemd starts
whatever became of it: killed, out of memory or out of time.

The state is JSON, times in seconds since the epoch::

    {"verbs": {"run": {"started": ..., "ended": ..., "problems": []}},
     "repositories": {"offsite": {"last_attempt": ..., "last_success": ..., "exit_code": 0, "duration": 1.5,
       "bytes_added": 0, "snapshots": 7, "newest_snapshot": ..., "snapshot": "id", "unproven": ["run"],
       "prune_success": ..., "check_success": ..., "check_part": 3}},
     "drills": {"offsite": {"last_attempt": ..., "last_success": ..., "rto_seconds": 81.2, "rpo_seconds": 3600,
       "success": true}}}
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from . import programs
from .programs import Failure
from .settings import Settings

METRICS_FILE = "production_backup.prom"
SENDMAIL = "/usr/sbin/sendmail"
SECONDS = 15.0
TRIES = 2

# A metric, what it says, and where its value is in the state of a repository. 0 stands for never: an alert for the age
# of the last success then has a repository that was never backed up, too.
BACKUP_METRICS = (
    ("production_backup_last_success_timestamp_seconds", "When a backup last went well", "last_success", 0),
    ("production_backup_last_attempt_timestamp_seconds", "When a backup was last tried", "last_attempt", 0),
    ("production_backup_last_exit_code", "How restic ended in the last backup", "exit_code", None),
    ("production_backup_duration_seconds", "How long the last backup took", "duration", None),
    ("production_backup_bytes_added", "What the last backup added to the repository", "bytes_added", None),
    ("production_backup_snapshots", "Snapshots of this host in the repository", "snapshots", None),
    ("production_backup_newest_snapshot_timestamp_seconds", "When the newest snapshot was made", "newest_snapshot", 0),
)
PRUNE_METRICS = (
    ("production_backup_prune_last_success_timestamp_seconds", "When old snapshots last went", "prune_success", 0),
)
CHECK_METRICS = (
    ("production_backup_check_last_success_timestamp_seconds", "When a check last found no damage", "check_success", 0),
    ("production_backup_check_parts_read", "Parts of the data that were read since all were", "check_part", 0),
)
DRILL_METRICS = (
    ("production_restore_drill_last_success_timestamp_seconds", "When a drill last went well", "last_success", 0),
    ("production_restore_drill_last_attempt_timestamp_seconds", "When a drill was last tried", "last_attempt", 0),
    ("production_restore_drill_rto_seconds", "How long the last drill took to have all back", "rto_seconds", None),
    ("production_restore_drill_rpo_seconds", "How old what the last drill restored was", "rpo_seconds", None),
    ("production_restore_drill_success", "Whether the last drill went well", "success", None),
)
METRICS = {"backup": BACKUP_METRICS, "prune": PRUNE_METRICS, "check": CHECK_METRICS, "drill": DRILL_METRICS}


# --- state ------------------------------------------------------------------------------------------------------------


def state(settings: Settings) -> dict[str, Any]:
    """What is known of former runs; its parts are there, but empty at first. A state that is no JSON is begun anew."""
    found: Any = {}
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(settings.state.read_text("utf-8"))
    return {"verbs": {}, "repositories": {}, "drills": {}, **(found if isinstance(found, dict) else {})}


def record(settings: Settings, part: str, name: str, values: Mapping[str, Any]) -> None:
    """Take values into ``state[part][name]``, and write the metrics anew. Raises Failure where that cannot be written.

    A drill records itself by ``record(settings, "drills", REPOSITORY, {"last_attempt": ..., "success": ...})``.
    """
    record_all(settings, part, {name: values})


def record_all(settings: Settings, part: str, values: Mapping[str, Mapping[str, Any]]) -> None:
    """``record`` for several names at once."""
    try:
        with _alone(settings.data / "state.lock"):
            found = state(settings)
            for name, one in values.items():
                found[part][name] = {**found[part].get(name, {}), **one}
            write(settings.state, json.dumps(found, indent=1, sort_keys=True) + "\n", 0o600)
            write_metrics(settings, found)
    except OSError as error:
        raise Failure(f"{error.filename or settings.state} cannot be written: {error.strerror}") from None


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write(path: Path, text: str, mode: int) -> None:
    """Put a file into its place whole; raises OSError."""
    new = path.with_name(f".{path.name}.new")
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with open(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, mode)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        os.replace(new, path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


# --- metrics ----------------------------------------------------------------------------------------------------------


def write_metrics(settings: Settings, found: Mapping[str, Any]) -> None:
    """Write what node_exporter shows, where it is asked for; raises OSError."""
    if settings.textfile:
        write(Path(settings.textfile) / METRICS_FILE, metrics(settings, found), 0o644)


def metrics(settings: Settings, found: Mapping[str, Any]) -> str:
    """The state as Prometheus reads it."""
    lines = []
    for purpose, rows in METRICS.items():
        of = found["drills" if purpose == "drill" else "repositories"]
        # Drills are of what is elsewhere.
        names = [one.name for one in settings.for_purpose(purpose) if one.offsite or purpose != "drill"]
        for metric, what, key, default in rows:
            values = [(name, of.get(name, {}).get(key, default)) for name in names]
            lines += _metric(metric, what, [(name, value) for name, value in values if value is not None])
        if purpose in ("backup", "drill"):
            start = "production_backup" if purpose == "backup" else "production_restore_drill"
            lines += _metric(
                f"{start}_rpo_target_seconds",
                "How much of what was written last may be lost",
                [(name, settings.rpo_seconds) for name in names],
            )
        if purpose == "drill":
            lines += _metric(
                "production_restore_drill_rto_target_seconds",
                "How long it may take to have all back",
                [(name, settings.rto_seconds) for name in names],
            )
    return "".join(f"{line}\n" for line in lines)


def _metric(name: str, what: str, values: list[tuple[str, float]]) -> list[str]:
    if not values:
        return []
    return [
        f"# HELP {name} {what}.",
        f"# TYPE {name} gauge",
        *(f'{name}{{repository="{repository}"}} {value + 0}' for repository, value in values),
    ]


# --- telling others ---------------------------------------------------------------------------------------------------


def tell(settings: Settings, verb: str, problem: str) -> list[str]:
    """Tell of a verb that went well (``problem`` is empty) or not. Returns what could not be told, as sentences.

    Ping and check-in stand for the schedule of backups, and hear of ``run`` alone; webhook and mail of all failures.
    """
    ways: list[tuple[str, str, Callable[[], None]]] = []
    text = f"{settings.host}: production-backup {verb}: {problem or 'went well'}"
    if verb == "run":
        ways += [
            ("ping_url", settings.signals.ping, lambda: _ping(settings.signals.ping, text, problem)),
            ("sentry_url", settings.signals.sentry, lambda: _check_in(settings.signals.sentry, problem)),
        ]
    if problem:
        ways += [
            ("webhook_url", settings.signals.webhook, lambda: _hook(settings, verb, problem, text)),
            ("mail_to", settings.mail_to, lambda: _mail(settings, verb, text)),
        ]
    return [failed for name, wanted, way in ways if wanted and (failed := _tried(name, way))]


def _tried(name: str, way: Callable[[], None]) -> str:
    """Empty where it worked, or a sentence: without the address, which is a secret."""
    problem = ""
    for _try in range(TRIES):
        try:
            way()
            return ""
        except (OSError, ValueError, Failure) as error:
            # An answer that refuses has a code, and a connection that fails a reason.
            code, reason = getattr(error, "code", None), getattr(error, "reason", error)
            problem = str(reason) if isinstance(reason, OSError | Failure) else type(error).__name__
            problem = f"the answer is {code}" if code else problem
    return f"backup_signals.{name} could not be told: {problem}"


def _ping(url: str, text: str, problem: str) -> None:
    parts = urlsplit(url)
    path = parts.path.rstrip("/") + "/fail" if problem else parts.path
    _send(urlunsplit(parts._replace(path=path)), text.encode(), "text/plain; charset=utf-8")


def _check_in(url: str, problem: str) -> None:
    parts = urlsplit(url)
    query = "&".join(filter(None, [parts.query, f"status={'error' if problem else 'ok'}"]))
    _send(urlunsplit(parts._replace(query=query)), b"", "text/plain")


def _hook(settings: Settings, verb: str, problem: str, text: str) -> None:
    body = {"host": settings.host, "verb": verb, "problem": problem, "text": text}
    _send(settings.signals.webhook, json.dumps(body).encode(), "application/json")


def _send(url: str, body: bytes, kind: str) -> None:
    # Takes as long to load as all the rest, and most hosts tell nobody.
    from urllib.request import Request, build_opener

    request = Request(url, body, {"Content-Type": kind, "User-Agent": "production-backup"})
    with build_opener().open(request, timeout=SECONDS) as answer:
        answer.read(1024)


def _mail(settings: Settings, verb: str, text: str) -> None:
    message = (
        f"To: {settings.mail_to}\nSubject: {settings.host}: production-backup {verb} failed\n"
        f"Content-Type: text/plain; charset=utf-8\n\n{text}\n\n"
        f"More: journalctl -u production-backup@{verb}.service\n"
    )
    done = programs.run([SENDMAIL, "-oi", "-t"], seconds=SECONDS, text=message)
    if done.code:
        raise Failure(f"{SENDMAIL} says: {done.said}")
