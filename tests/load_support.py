# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""wrk on a host, asking a site without a pause, and what it has counted."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from hosts_support import Host, wait_for

PAUSE = "/root/pause.lua"


@dataclass
class Load:
    """What wrk has counted, once it has ended."""

    requests: int = 0
    errors: list[str] = field(default_factory=list)


@contextmanager
def load_on(host: Host, url: str, options: Sequence[str] = (), pause: int = 0) -> Iterator[Load]:
    """wrk inside the host, from entering the context to leaving it. A slow machine is no error.

    pause: milliseconds that a connection waits before its next request; without one, the machine has nothing left for
    whatever else is to be done.
    """
    counted = Load()
    if pause:
        host.write(PAUSE, f"function delay() return {pause} end\n")
        options = [*options, "-s", PAUSE]
    command = shlex.join(["wrk", "-t1", "-c4", "-d3600s", "--timeout", "60s", *options, url])
    with ThreadPoolExecutor(1) as pool:
        output = pool.submit(host.sh, command)
        try:
            wait_for(lambda: host.run(["pgrep", "-x", "wrk"], check=False).code == 0, "wrk runs")
            yield counted
        finally:
            host.run(["pkill", "-INT", "-x", "wrk"], check=False)
    text = output.result()
    counted.requests = int(re.findall(r"(\d+) requests in", text)[0])
    counted.errors += re.findall(r"Socket errors: .*|Non-2xx or 3xx responses: .*", text)
