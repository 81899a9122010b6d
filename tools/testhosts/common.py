# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What every part shares: where things lie, what the user reads, how work stops."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"
HOSTS = CACHE / "testhosts"
ENGINE = CACHE / "engine"

LACKING = 2
"""Exit code when the machine lacks something only its owner can give."""


class Stop(Exception):
    """The work cannot go on; the message is all the user has to read."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def say(step: str) -> None:
    """One line for one step. On stderr: stdout belongs to what a command prints as its result."""
    print(step, file=sys.stderr, flush=True)


def shown(path: Path) -> str:
    """A path as the user reads it: from the repository's root."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def tail(text: str, lines: int = 15) -> str:
    """The last lines of an output, indented, to stand under an error message."""
    return "\n".join(f"    {line}" for line in text.strip().splitlines()[-lines:])


def run(argv: Sequence[str], log: Path, environment: dict[str, str] | None = None) -> None:
    """Run a program with its output in ``log``; when it fails, stop with the last lines of it."""
    if shutil.which(argv[0]) is None:
        raise Stop(f"{argv[0]} is needed and not installed.", LACKING)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            check=False,
        )
    if done.returncode:
        last = tail(log.read_text(errors="replace"))
        raise Stop(f"{argv[0]} failed with exit code {done.returncode} ({shown(log)}):\n{last}")


def wait_until(condition: Callable[[], bool], seconds: float, pause: float = 0.1) -> bool:
    """Ask until the condition holds (True) or the time is over (False)."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(pause)
    return True


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Only one process at a time does the work of this name; the lock goes with the process that holds it."""
    folder = CACHE / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
