"""Takes whatever people would be told, by HTTP and by mail, and notes each as a line of JSON in /srv/inbox/told.

It listens on the address that it is given, or on 127.0.0.1.
"""

from __future__ import annotations

import base64
import json
import os
import socketserver
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOLD = "/srv/inbox/told"
HTTP_PORT, MAIL_PORT = 8099, 2525


def note(**told: Any) -> None:
    with open(TOLD, "a", encoding="utf-8") as lines:
        lines.write(json.dumps({"at": time.time(), **told}) + "\n")


class Http(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
        try:
            told = json.loads(body or "{}")
        except ValueError:
            told = body
        note(path=self.path, authorization=self.headers["Authorization"], body=told)
        # Slack's webhooks say this word, and Alertmanager takes nothing else for an answer of theirs.
        kind, answer = ("text/html", b"ok") if self.path.startswith("/slack/") else ("application/json", b"{}")
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_words: object) -> None:
        pass


class Mail(socketserver.StreamRequestHandler):
    """As much of SMTP as a client needs that logs in and sends one message after the other."""

    def handle(self) -> None:
        self.say("220 inbox")
        seen: dict[str, Any] = {}
        for line in iter(lambda: self.rfile.readline().decode().strip(), ""):
            word, _space, rest = line.partition(" ")
            word = word.upper()
            if word in ("EHLO", "HELO"):
                seen["hello"] = rest
                self.say("250-inbox\r\n250 AUTH PLAIN")
            elif word == "AUTH":
                seen["login"] = base64.b64decode(rest.split()[1]).decode().split("\0")[1:]
                self.say("235 welcome")
            elif word == "DATA":
                self.say("354 go on")
                seen["message"] = "".join(iter(lambda: self.rfile.readline().decode("utf-8", "replace"), ".\r\n"))
                note(**seen)
                self.say("250 taken")
            elif word == "QUIT":
                self.say("221 bye")
                return
            else:
                seen[word] = rest
                self.say("250 fine")

    def say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


if __name__ == "__main__":
    os.umask(0o077)  # secrets come along
    address = (sys.argv[1:] or ["127.0.0.1"])[0]
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    mail = socketserver.ThreadingTCPServer((address, MAIL_PORT), Mail)
    threading.Thread(target=mail.serve_forever, daemon=True).start()
    ThreadingHTTPServer((address, HTTP_PORT), Http).serve_forever()
