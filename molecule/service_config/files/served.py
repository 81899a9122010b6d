"""A service in small: it takes up the first word of its configuration, tells it over HTTP, and notes that it did so.

Usage: served.py NAME PORT. It reads /etc/NAME/main.conf when it starts and upon SIGHUP, and adds ``start WORD`` or
``reload WORD`` to /run/served/NAME. Two words make it misbehave: with ``mute`` it answers 500, with ``fatal`` it ends.
"""

from __future__ import annotations

import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

NAME, PORT = sys.argv[1], int(sys.argv[2])
CONFIGURATION = Path("/etc", NAME, "main.conf")
HISTORY = Path("/run/served", NAME)
taken_up = ""


def take_up(verb: str) -> None:
    global taken_up
    taken_up = CONFIGURATION.read_text("utf-8")
    word = taken_up.split()[0]
    HISTORY.parent.mkdir(exist_ok=True)
    with HISTORY.open("a") as history:
        history.write(f"{verb} {word}\n")
    if word == "fatal":
        raise SystemExit("this word is fatal")


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(500 if taken_up.startswith("mute") else 200)
        self.end_headers()
        self.wfile.write(taken_up.encode())

    def log_message(self, *_parts: Any) -> None:
        """Nobody reads it."""


take_up("start")
signal.signal(signal.SIGHUP, lambda _number, _frame: take_up("reload"))
ThreadingHTTPServer(("127.0.0.1", PORT), Answer).serve_forever()
