# Managed by Ansible, role fushuma.production.sentry.
"""Proof that errors arrive: sends a test event as an application does, and looks for it where it can be read.

proof.py send       send one; the time when it was found is noted
proof.py proven     end with 0 where one was found since the server or these settings changed, and not too long ago
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

CONFIG = Path("/etc/sentry-proof")
STAMP = Path("/var/lib/sentry-proof/found")
# A stamp that is older than so many times the period between two test events proves nothing any more.
MISSED = 3


class Failure(Exception):
    """What an operator is told in a sentence."""


class Busy(Failure):
    """What may pass."""


def main(words: list[str]) -> int:
    told = json.loads((CONFIG / "proof.json").read_text("utf-8"))
    try:
        if words == ["send"]:
            return send({**told, **json.loads((CONFIG / "key.json").read_text("utf-8"))})
        if words == ["proven"]:
            return proven(told)
    except (Failure, OSError) as error:
        print(f"the test event: {error or type(error).__name__}", file=sys.stderr)
        return 1
    print(__doc__, file=sys.stderr)
    return 2


def send(told: Mapping[str, Any]) -> int:
    import uuid

    event, now = uuid.uuid4().hex, time.time()
    item = {
        "event_id": event,
        "timestamp": now,
        "platform": "other",
        "level": "info",
        "logger": "proof",
        "message": "Errors arrive",
        "fingerprint": ["proof"],
    }
    body = "\n".join([json.dumps({"event_id": event}), json.dumps({"type": "event"}), json.dumps(item), ""])
    headers = {
        "Content-Type": "application/x-sentry-envelope",
        "X-Sentry-Auth": f"Sentry sentry_version=7, sentry_client=proof/1, sentry_key={told['key']}",
    }
    deadline = time.monotonic() + told["patience"]
    again(deadline, lambda: ask(told, "POST", f"/api/{told['number']}/envelope/", body, headers) or True)
    # What belongs to somebody else is only asked to take it.
    if told["token"] and not again(deadline, lambda: found(told, event)):
        raise Failure(f"it was taken, and is not found after {told['patience']} seconds")
    STAMP.write_text(f"{time.time():.3f}\n", "utf-8")
    if told["metrics"]:
        note(Path(told["metrics"]))
    return 0


def again(deadline: float, work: Callable[[], bool]) -> bool:
    """Do it until it succeeds: a server that has just begun may take its time, and an event is not there at once."""
    while True:
        late = time.monotonic() > deadline
        try:
            done = work()
            if done or late:
                return done
        except (Busy, OSError):
            if late:
                raise
        time.sleep(0.2)


def note(folder: Path) -> None:
    name = "production_errors_canary_timestamp_seconds"
    lines = [f"# HELP {name} When a test event was last sent and found again.", f"# TYPE {name} gauge"]
    new = folder / "production_errors.prom.new"
    new.write_text("\n".join([*lines, f"{name} {time.time():.3f}", ""]), "utf-8")
    new.chmod(0o644)
    new.rename(folder / "production_errors.prom")


def found(told: Mapping[str, Any], event: str) -> bool:
    headers = {"Authorization": f"Bearer {told['token']}"}
    base = "/api/canonical/0"
    issues = ask(told, "GET", f"{base}/issues/?project={told['number']}&sort=last_seen&order=desc", "", headers)
    for issue in issues["results"][:3]:
        events = ask(told, "GET", f"{base}/events/?issue={issue['id']}", "", headers)
        if any(str(one["event_id"]).replace("-", "") == event for one in events["results"]):
            return True
    return False


def ask(told: Mapping[str, Any], method: str, path: str, body: str, headers: Mapping[str, str]) -> Any:
    """One request, on the host itself as nginx sends it, or to a server elsewhere."""
    import http.client  # only here: to ask whether it is proven has to be quick

    kind = http.client.HTTPSConnection if told["tls"] else http.client.HTTPConnection
    connection = kind(told["address"], told["port"], timeout=10)
    try:
        given = {**headers, "Host": told["host"], "X-Forwarded-Proto": "https"}
        connection.request(method, told["folder"] + path, body.encode(), given)
        answer = connection.getresponse()
        text = answer.read().decode("utf-8", "replace")
    except http.client.HTTPException as error:
        raise Busy(f"{path.split('?')[0]}: {type(error).__name__}") from error
    finally:
        connection.close()
    if answer.status != 200:
        kind_of_failure = Busy if answer.status >= 500 else Failure
        raise kind_of_failure(f"{path.split('?')[0]} answers {answer.status}: {text[:200]}")
    try:
        return json.loads(text or "null")
    except ValueError as error:
        raise Failure(f"{path.split('?')[0]} answers what is no JSON: {text[:200]}") from error


def proven(told: Mapping[str, Any]) -> int:
    since = max((CONFIG / name).stat().st_mtime for name in ("proof.json", "key.json"))
    if told["unit"]:
        since = max(since, began(told["unit"]))
    try:
        last = float(STAMP.read_text("utf-8"))
    except (OSError, ValueError):
        last = 0.0
    if last < since:
        print("no test event has been found since the server began")
        return 1
    if time.time() - last > told["minutes"] * 60 * MISSED:
        print(f"the last test event was found {(time.time() - last) / 60:.0f} minutes ago")
        return 1
    return 0


def began(unit: str) -> float:
    """When the unit began to run. Raises Failure where it does not."""
    import subprocess

    asked = ["systemctl", "show", "--property=ActiveEnterTimestamp", "--timestamp=unix", "--value", unit]
    shown = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip().lstrip("@")
    if not shown.isdigit() or shown == "0":
        raise Failure(f"{unit} does not run")
    return float(shown)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
