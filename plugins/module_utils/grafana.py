# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs by itself on a host with Grafana: is its admin let in with the password of a file?

Grafana lets nobody in for some minutes after five refusals, not even with the right password. So a refusal is kept for
a while, in which it is not asked again: transactions ask until an answer is right or their time is over.
"""

from __future__ import annotations

import base64
import http.client
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

ADMIN = "admin"
TIMEOUT = 5.0  # seconds
REFUSED = Path("/run/grafana-refused")
KEPT = 30.0  # seconds; less than four refusals in the time that a transaction has
UNAUTHORIZED = 401


def status(url: str, password: str) -> int:
    """What Grafana answers to its admin. Raises OSError or HTTPException where it does not."""
    login = base64.b64encode(f"{ADMIN}:{password}".encode()).decode("ascii")
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT)
    try:
        connection.request("GET", "/api/user", headers={"Authorization": f"Basic {login}"})
        return connection.getresponse().status
    finally:
        connection.close()


def refused_lately() -> bool:
    """Whether there was a refusal a short while ago."""
    try:
        return abs(time.time() - REFUSED.stat().st_mtime) < KEPT
    except OSError:
        return False


def main(arguments: Sequence[str]) -> int:
    """0 where the admin is let in, or 1 with a sentence on standard error."""
    url, path = arguments
    if refused_lately():
        sys.stderr.write("Grafana has just refused the password of its admin\n")
        return 1
    try:
        code = status(url, Path(path).read_text("utf-8").removesuffix("\n"))
    except (OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"{url} does not answer: {error}\n")
        return 1
    if code == UNAUTHORIZED:
        REFUSED.touch()
    else:
        REFUSED.unlink(missing_ok=True)
    if code != http.client.OK:
        sys.stderr.write(f"Grafana answers its admin with {code}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
