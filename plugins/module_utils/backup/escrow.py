# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Proves that repositories open without their host: on another machine, by a password that was kept elsewhere.

Runs by itself on that machine, out of a folder with the settings; nothing there is written but in that folder.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import restore
from .loading import private
from .programs import Failure
from .restic import Restic
from .settings import Repository, Settings


def prove(settings: Settings, repository: Repository, password: Path, now: float) -> dict[str, Any]:
    """What the password shows of a repository: its ID, and its newest snapshot down to the manifest. Raises Failure."""
    restic = Restic(settings, repository, password_file=password)
    found = restic.id()
    snapshot = restore.choose(restic.snapshots(settings.host), "latest", now)
    stage = restore.stage_of(snapshot, settings)
    known = restore.manifest_of(restic, snapshot, stage, private(settings.folder / "manifests" / repository.name))
    if known["host"] != settings.host:
        raise Failure(f"Snapshot {snapshot.id[:8]} of {repository.name} is of {known['host']}, not of {settings.host}")
    return {
        "name": repository.name,
        "id": found,
        "snapshot": snapshot.id,
        "time": snapshot.time,
        "age_seconds": round(now - snapshot.time),
        "has": [str(one) for one in restore.parts_of(known, stage)],
    }


def repositories(settings: Settings, names: Sequence[str]) -> list[Repository]:
    """Those that are named, or all that are elsewhere. Raises Failure where none can be opened from another machine."""
    found = [settings.repository(name) for name in names] or [one for one in settings.repositories if one.offsite]
    here = [one.name for one in found if one.location.startswith("/")]
    if here or not found:
        raise Failure(
            f"{', '.join(here) or 'No repository'} {'lies on the host itself' if here else 'is off-site'}: what opens "
            "from another machine is one of kind sftp, s3 or rest"
        )
    return found


def main(argv: Sequence[str]) -> int:
    """0 where all opened, 1 where not; prints one JSON document."""
    parser = argparse.ArgumentParser(prog="escrow", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--settings", type=Path, required=True, metavar="FOLDER", help="with config.json and credentials"
    )
    parser.add_argument("--password", type=Path, required=True, metavar="FILE", help="that was kept elsewhere")
    parser.add_argument("--from", dest="names", action="append", default=[], metavar="NAME", help="of this repository")
    told = parser.parse_args(argv)
    proven, problems = [], []
    try:
        settings = Settings.load(told.settings, cache=told.settings / "cache")
        # Whoever waits for an answer here wants it now.
        settings = replace(settings, limits=replace(settings.limits, attempts=1))
        wanted = repositories(settings, told.names)
    except Failure as error:
        problems, wanted = [str(error)], []
    for repository in wanted:
        try:
            proven.append(prove(settings, repository, told.password, time.time()))
        except Failure as error:
            problems.append(str(error))
    answer = {"ok": not problems, "problems": problems, "proven": time.time(), "repositories": proven}
    sys.stdout.write(f"{json.dumps(answer)}\n")
    return 1 if problems else 0
