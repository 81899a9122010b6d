"""Stands in for an Alertmanager: keeps what it is told of, one JSON document a line."""

from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path


class Told(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        with Path("/srv/alerts.log").open("a", encoding="utf-8") as out:
            out.write(f"{self.path} {body}\n")
        self.send_response(200)
        self.end_headers()


HTTPServer(("127.0.0.1", 9093), Told).serve_forever()
