#!/usr/bin/python3
"""Runs on the host: logs lines in all ways there are, and tells what came of them.

logs write TEXTS            TEXTS is {place: text} as JSON in base64, so that none of it stands in a line that sudo
                            logs; a place is a file, or the name of a container, for which the journal gets what
                            Docker sends it
logs store WORD NUMBER      the entries with a word that VictoriaLogs has, as soon as there are so many of them
logs stub WORD NUMBER       the lines with a word that the other store has, and what it counted
logs status NUMBER          what the other store answers with from now on
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
import time
import urllib.request
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

PATIENCE = 60.0  # seconds
STUB = "http://127.0.0.1:3100"


def write(place: str, text: str) -> None:
    lines = text.encode("utf-8", "surrogateescape").splitlines(keepends=True)
    if place.startswith("/"):
        with open(place, "ab", buffering=0) as file:
            file.write(b"".join(lines))
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.connect("/run/systemd/journal/socket")
        for line in lines:
            journal.send(b"CONTAINER_NAME=%s\nPRIORITY=6\nMESSAGE=%s" % (place.encode(), line))


def stored(word: str) -> list[dict[str, Any]]:
    with open("/etc/production-logs.json", encoding="utf-8") as file:
        (store,) = (one for one in json.load(file)["stores"] if one["kind"] == "victorialogs")
    login = b64encode(f"{store['user']}:{store['password']}".encode()).decode()
    request = urllib.request.Request(
        f"{store['url']}/select/logsql/query?{urlencode({'query': f'_time:1h {word}'})}",
        headers={"Authorization": f"Basic {login}", **store["headers"]},
    )
    context = ssl.create_default_context(cafile=store["authorities"])
    try:
        with urllib.request.urlopen(request, context=context, timeout=20) as answer:
            return [json.loads(line) for line in answer]
    except urllib.error.URLError:
        return []  # it is just starting


def kept(word: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{STUB}/lines", timeout=20) as answer:
        told = json.load(answer)
    return {**told, "lines": [line for line in told["lines"] if word in line]}


def waited(ask: Callable[[], Any], enough: Callable[[Any], bool]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not enough(found := ask()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


verb, first, *rest = sys.argv[1:]
if verb == "write":
    for place, text in json.loads(b64decode(first)).items():
        write(place, text)
elif verb == "store":
    print(json.dumps(waited(lambda: stored(first), lambda entries: len(entries) >= int(rest[0]))))
elif verb == "stub":
    print(json.dumps(waited(lambda: kept(first), lambda told: len(told["lines"]) >= int(rest[0]))))
else:
    urllib.request.urlopen(f"{STUB}/status", first.encode(), timeout=20).close()
