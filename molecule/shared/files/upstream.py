"""An application as nginx finds it behind itself: it sends headers of its own, and says what it was asked.

Usage: upstream.py PORT. By the last part of a path: ``slow`` keeps silent for a while, ``socket`` is a websocket that
echoes, ``metrics`` tells figures, ``page`` is HTML with a place for a nonce. All other requests are told as JSON.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SLOW_SECONDS = 3
WEBSOCKET_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
NONCE_PLACEHOLDER = "nonce-4f9Kq2Lx8Zr1"

# What helmet and common frameworks send on their own.
OWN_HEADERS = {
    "Content-Security-Policy": "default-src * 'unsafe-inline'",
    "Strict-Transport-Security": "max-age=1",
    "X-Content-Type-Options": "own",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "unsafe-url",
    "Permissions-Policy": "camera=*",
    "Cross-Origin-Opener-Policy": "unsafe-none",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Reporting-Endpoints": 'own="/own"',
    "X-Powered-By": "Express",
    "X-XSS-Protection": "1",
    "X-Own": "kept",
}


class Application(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        last = self.path.rpartition("/")[2]
        if last == "socket":
            self.echo_frame()
        elif last == "slow":
            time.sleep(SLOW_SECONDS)
            self.answer("late")
        elif last == "page":
            self.answer(f"<!doctype html><script nonce={NONCE_PLACEHOLDER}></script>", "text/html")
        elif last == "metrics":
            self.answer("figure 1\n")
        else:
            told = {"port": self.server.server_port, "path": self.path, "headers": dict(self.headers.items())}  # type: ignore[attr-defined]
            self.answer(json.dumps(told), "application/json")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        size = len(self.rfile.read(int(self.headers.get("Content-Length", "0"))))
        self.answer(json.dumps({"received": size}), "application/json")

    def answer(self, text: str, kind: str = "text/plain") -> None:
        body = text.encode()
        self.send_response(200)
        for name, value in {**OWN_HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def echo_frame(self) -> None:
        """Accept the upgrade and send the first frame's text back; texts up to 125 bytes (RFC 6455 §5.2)."""
        if self.headers.get("Upgrade", "").lower() != "websocket":
            self.answer("no upgrade")
            return
        accept = base64.b64encode(hashlib.sha1((self.headers["Sec-WebSocket-Key"] + WEBSOCKET_GUID).encode()).digest())
        self.send_response(101)
        for name, value in {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Accept": accept.decode(),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        size = self.rfile.read(2)[1] & 0x7F
        mask, masked = self.rfile.read(4), self.rfile.read(size)
        self.wfile.write(bytes([0x81, size]) + bytes(one ^ mask[at % 4] for at, one in enumerate(masked)))
        self.close_connection = True

    def log_message(self, *_parts: Any) -> None:
        """Nobody reads it."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Application).serve_forever()
