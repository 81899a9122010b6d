# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Programs that end: within their time, with the one that started them, and with what they said at hand."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

TIMED_OUT = 124  # as coreutils' timeout says it
NOT_THERE = 127  # as a shell says it
# How long a program that was asked to end may take to put its things in order: restic removes its lock.
GRACE_SECONDS = 20.0
# A program whose parent is killed would go on reading files that the next run removes.
WITH_ITS_PARENT = ("/usr/bin/setpriv", "--pdeathsig", "KILL", "--")
BLOCK = 1 << 20


class Failure(Exception):
    """What went wrong, in one sentence without secrets."""


@dataclass(frozen=True)
class Done:
    """How a program ended: its exit code (TIMED_OUT and NOT_THERE are ours), what it said, and how long it took."""

    code: int
    out: str
    err: str
    seconds: float = 0.0

    @property
    def said(self) -> str:
        """Its complaint as one line, or what it said at all."""
        lines = [line.strip() for line in (self.err.strip() or self.out.strip()).splitlines()]
        return "; ".join(line for line in lines if line)


def run(
    argv: Sequence[str],
    *,
    seconds: float,
    environment: Mapping[str, str] | None = None,
    text: str | None = None,
    stdin: IO[Any] | None = None,
    stdout: IO[Any] | None = None,
    folder: Path | None = None,
) -> Done:
    """Run a program to its end, or end it after so many seconds.

    It has this process's environment and ``environment`` besides, and reads ``text``, ``stdin`` or nothing. What it
    writes is returned, or goes to ``stdout``. What becomes of it is said by ``Done.code``, also where it could not be
    started.
    """
    began = time.monotonic()
    source = subprocess.PIPE if text is not None else stdin or subprocess.DEVNULL
    try:
        process = subprocess.Popen(
            [*WITH_ITS_PARENT, *argv],
            stdin=source,
            stdout=stdout or subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(environment or {})},
            cwd=folder,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        return Done(NOT_THERE, "", str(error))
    timed_out = False
    try:
        out, err = process.communicate(text, timeout=seconds)
    except subprocess.TimeoutExpired:
        timed_out = True
        out, err = _end(process)
    except BaseException:
        _end(process)
        raise
    return _done(process, out, err, began, seconds if timed_out else None)


def _done(
    process: subprocess.Popen[Any], out: str | None, err: str | None, began: float, ended_after: float | None
) -> Done:
    code = process.returncode if process.returncode >= 0 else 128 - process.returncode
    if ended_after is not None:
        code, err = TIMED_OUT, f"{err or ''}\nended after {ended_after:.0f} s".strip()
    return Done(code, out or "", err or "", time.monotonic() - began)


def _end(process: subprocess.Popen[str]) -> tuple[str, str]:
    """End a program and what it started: asked first, then killed. Returns what it said."""
    _signal(process, signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.communicate(timeout=GRACE_SECONDS)
    _signal(process, signal.SIGKILL)
    return process.communicate()


def _signal(process: subprocess.Popen[Any], number: int) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
