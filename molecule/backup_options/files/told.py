"""Notes what it is told, a line of JSON each."""

import http.server
import json


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        with open("/run/told", "a") as file:
            file.write(json.dumps([self.path, body]) + "\n")
        self.send_response(200)
        self.end_headers()

    do_GET = do_POST

    def log_message(self, *words: object) -> None:
        """The addresses are secrets."""


http.server.ThreadingHTTPServer(("127.0.0.1", 8099), Handler).serve_forever()
