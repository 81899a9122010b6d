# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which files of each service are not any more what its last transaction brought into force.

The transactions' own records and their reader are on the host: see module_utils/journal.py.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path

from .text import Family

# The digest of a path as it stands now.
Digest = Callable[[str], str]


def records(state: Path) -> dict[str, Mapping[str, str]]:
    """The digests of each service's files; not of one whose change is under way, or was cut short."""
    found: dict[str, Mapping[str, str]] = {}
    for path in sorted(state.glob("*.record")):
        if path.with_suffix(".journal").exists():
            continue
        try:
            found[path.stem] = dict(json.loads(path.read_text("utf-8"))["files"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def differing(files: Mapping[str, str], digest: Digest, ignored: Sequence[str]) -> list[str]:
    """The paths that are not what the record says. ``ignored`` are patterns of those that others change rightly."""
    looked_at = (path for path in files if not any(fnmatch(path, pattern) for pattern in ignored))
    return [path for path in looked_at if digest(path) != files[path]]


def digest_of(journal: Path) -> Digest:
    """How the transactions of this host take a digest; raises OSError where there was never one."""
    spec = importlib.util.spec_from_file_location("production_journal", journal)
    if spec is None or spec.loader is None or not journal.exists():
        raise FileNotFoundError(journal)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look for it
    spec.loader.exec_module(module)

    def digest(path: str) -> str:
        try:
            return str(module.snapshot(path).digest)
        except (OSError, module.TransactionError):
            return ""  # it is nothing that a transaction brings

    return digest


def families(state: Path, ignored: Sequence[str], now: float) -> list[Family]:
    """The figures of all services; none where no transaction was ever made."""
    about = "Files of a service that are not what its last transaction brought into force."
    files = Family("production_drift_files", "gauge", about)
    checked = Family("production_drift_checked_timestamp_seconds", "gauge", "When the files were compared last.")
    try:
        digest = digest_of(state / "journal.py")
    except OSError:
        return []
    for service, recorded in records(state).items():
        wrong = differing(recorded, digest, ignored)
        files.add(len(wrong), service=service)
        for path in wrong:
            sys.stdout.write(f"{service}: {path} is not what was brought into force\n")
    checked.add(now)
    return [files, checked]
