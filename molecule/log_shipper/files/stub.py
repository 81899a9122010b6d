"""Runs on the host: takes lines as Loki does, refuses or fails as it is told, and counts.

A request with REFUSED in a line is answered with 400, and its other lines are kept, as Loki does. `POST /status` says
what all others are answered with from now on; `GET /lines` shows what is there, with the headers of the last request.
"""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

kept: list[str] = []
state = {"status": 204, "refused": 0, "tenant": ""}


class Store(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/status":
            state["status"] = int(body)
            return self.say(200)
        if state["status"] != 204:
            return self.say(state["status"])
        state["tenant"] = self.headers.get("X-Scope-OrgID", "")
        lines = [value[1] for stream in json.loads(body)["streams"] for value in stream["values"]]
        kept.extend(line for line in lines if "REFUSED" not in line)
        refused = sum("REFUSED" in line for line in lines)
        state["refused"] += refused
        return self.say(400 if refused else 204)

    def do_GET(self) -> None:
        where = urlsplit(self.path)
        if where.path == "/lines":
            return self.say(200, {**state, "lines": kept})
        word = parse_qs(where.query)["query"][0].rpartition("|= ")[2].strip('"')
        found = [line for line in kept if word in line]
        return self.say(200, {"status": "success", "data": {"resultType": "streams", "result": found}})

    def say(self, status: int, document: object = None) -> None:
        body = json.dumps(document).encode() if document is not None else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Nothing: what it says would be shipped to it."""


ThreadingHTTPServer(("127.0.0.1", 3100), Store).serve_forever()
