"""Takes mail (port 9025) and webhooks (port 9099) and writes each to a file of /var/tmp/sink."""

from __future__ import annotations

import http.server
import itertools
import socketserver
import threading
from pathlib import Path

FOLDER = Path("/var/tmp/sink")
NUMBERS = itertools.count()


def keep(kind: str, text: str) -> None:
    (FOLDER / f"{kind}-{next(NUMBERS)}").write_text(text, "utf-8")


class Mail(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(b"220 sink\r\n")
        while line := self.rfile.readline():
            verb = line[:4].upper()
            if verb == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                lines = iter(self.rfile.readline, b".\r\n")
                keep("mail", b"".join(lines).decode("utf-8", "replace"))
            self.wfile.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")
            if verb == b"QUIT":
                return


class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        keep("hook", f"{self.path}\n{body}")
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_words: object) -> None:
        pass


FOLDER.mkdir(exist_ok=True)
socketserver.ThreadingTCPServer.allow_reuse_address = True
threading.Thread(target=socketserver.ThreadingTCPServer(("127.0.0.1", 9025), Mail).serve_forever).start()
http.server.ThreadingHTTPServer(("127.0.0.1", 9099), Hook).serve_forever()
