# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Is a host well? What its roles stand for answers, what ran before runs, and nothing has failed that had not."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from ansible_collections.fushuma.production.plugins.module_utils.journal import TransactionError, run, units
from ansible_collections.fushuma.production.plugins.module_utils.probe import Probe, complaint

PAUSE = 0.5  # seconds between two looks


@dataclass(frozen=True)
class Promise:
    """What a role stands for, as its exports say under ``health``: units that are active and a URL that answers 200."""

    name: str
    units: Sequence[str] = ()
    url: str = ""


@dataclass(frozen=True)
class Seen:
    """The services of a host: those that start at boot and run now, and those that have failed."""

    running: frozenset[str] = field(default_factory=frozenset)
    failed: frozenset[str] = field(default_factory=frozenset)


def look() -> Seen:
    """The services as systemd sees them now."""
    active = _names(["list-units", "--state=active"])
    return Seen(active & _names(["list-unit-files", "--state=enabled"]), _names(["list-units", "--state=failed"]))


def _names(asked: Sequence[str]) -> frozenset[str]:
    shown = run(["systemctl", *asked, "--type=service", "--plain", "--no-legend", "--no-pager", "--full"])
    if shown.code:
        raise TransactionError(f"systemd does not answer: {shown.output}")
    return frozenset(line.split()[0] for line in shown.output.splitlines() if line.strip())


def complaints(promises: Sequence[Promise], since: Seen | None, now: Seen) -> list[str]:
    """Everything that is not as it should be, each a clause. ``since`` is how the host was before."""
    found = []
    for promise in promises:
        down = [unit.name for unit in units(promise.units) if not unit.active]
        found += [f"{promise.name}: {name} is not active" for name in down]
        if promise.url and not down and (wrong := complaint(Probe(http=promise.url))):
            found.append(f"{promise.name}: {wrong}")
    if since is not None:
        found += [f"{name} has failed" for name in sorted(now.failed - since.failed)]
        gone = since.running - now.running - now.failed
        found += [f"{name} ran before and does not now" for name in sorted(gone)]
    return found


def wait_until_well(promises: Sequence[Promise], since: Seen | None, timeout: float) -> tuple[Seen, list[str]]:
    """Look until all is well or ``timeout`` seconds have passed; returns what was seen last and what was wrong then."""
    deadline = time.monotonic() + timeout
    while True:
        now = look()
        wrong = complaints(promises, since, now)
        if not wrong or time.monotonic() >= deadline:
            return now, wrong
        time.sleep(PAUSE)
