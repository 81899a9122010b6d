# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""When certificates end."""

from __future__ import annotations

import glob
import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .text import Family


def expiry(path: str) -> int | None:
    """When the first certificate in a file ends, in seconds since 1970; None for what is none."""
    argv = ["openssl", "x509", "-noout", "-enddate", "-in", path]
    try:
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=True
        )
        return int(ssl.cert_time_to_seconds(done.stdout.strip().removeprefix("notAfter=")))
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def families(patterns: Sequence[str]) -> list[Family]:
    """Each certificate is called by the folder it is in."""
    about = "When a certificate ends."
    found = Family("production_certificate_expiry_timestamp_seconds", "gauge", about)
    for path in sorted({path for pattern in patterns for path in glob.glob(pattern)}):
        ends = expiry(path)
        if ends is not None:
            found.add(ends, name=Path(path).parent.name, path=path)
    return [found]
