"""Runs on a host: tries ports of an address and prints as JSON how each answers, in the order they were given.

Arguments: the address, a kind (tcp or udp), ports separated by commas, and optionally the address to ask from. A port
is ``open``, ``refused`` or ``silent``; one may be given several times.
"""

from __future__ import annotations

import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor

SECONDS = 1.5  # a SYN that was lost is repeated after one


def answer(address: str, kind: str, port: int, source: str) -> str:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as one:
            one.settimeout(SECONDS)
            if source:
                one.bind((source, 0))
            one.connect((address, port))
            if kind == "udp":
                one.send(b"knock")
                one.recv(16)
    except TimeoutError:
        return "silent"
    except OSError:
        return "refused"
    return "open"


address, kind, ports = sys.argv[1:4]
source = sys.argv[4] if len(sys.argv) > 4 else ""
with ThreadPoolExecutor(64) as pool:
    print(json.dumps(list(pool.map(lambda port: answer(address, kind, int(port), source), ports.split(",")))))
