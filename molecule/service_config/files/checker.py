"""A service's checker: refuses a configuration in which a line begins with ``broken``, and quotes that line.

Usage: checker.py NAME. Where /run/served/NAME.kill exists it removes that and kills the program that called it, as a
power cut would at a bad moment.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

NAME = sys.argv[1]
TRAP = Path("/run/served", f"{NAME}.kill")

if TRAP.exists():
    TRAP.unlink()
    os.kill(os.getppid(), signal.SIGKILL)
for number, line in enumerate(Path("/etc", NAME, "main.conf").read_text("utf-8").splitlines(), start=1):
    if line.startswith("broken"):
        raise SystemExit(f"line {number} makes no sense: {line}")
