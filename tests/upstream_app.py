# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The application behind nginx, run on the host by its Python: it sends all headers that nginx owns itself, and worse.

The end of the path says what to do: `/status/404` answers so, `/late` after some seconds, `/nonce` with a page that
holds the placeholder given as argument, `/stranger` with one that also has a script without a nonce.
"""

from __future__ import annotations

import re
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = 3000
LATE_SECONDS = 5
ETAG = '"page-1"'
LAST_MODIFIED = "Mon, 02 Nov 2026 00:00:00 GMT"

# What Node's helmet sends by default, and older names of the same; each value says where it comes from.
OWN_HEADERS = [
    "Content-Security-Policy",
    "Content-Security-Policy-Report-Only",
    "Cross-Origin-Embedder-Policy",
    "Cross-Origin-Opener-Policy",
    "Cross-Origin-Resource-Policy",
    "Expect-CT",
    "Feature-Policy",
    "Origin-Agent-Cluster",
    "Permissions-Policy",
    "Referrer-Policy",
    "Report-To",
    "Reporting-Endpoints",
    "Strict-Transport-Security",
    "X-Content-Type-Options",
    "X-DNS-Prefetch-Control",
    "X-Download-Options",
    "X-Frame-Options",
    "X-Permitted-Cross-Domain-Policies",
    "X-Powered-By",
    "X-XSS-Protection",
]


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "Upstream/1.0"

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.partition("?")[0]
        if path.endswith("/late"):
            time.sleep(LATE_SECONDS)
        asked = re.search(r"/status/(\d{3})$", path)
        status = int(asked[1]) if asked else 200
        kept = self.headers.get("If-None-Match") == ETAG or self.headers.get("If-Modified-Since") == LAST_MODIFIED
        if kept and path.endswith(("/cached", "/nonce")):
            status = 304
        if self.headers.get("Upgrade") == "websocket":
            status = 101
        body = b"" if status in (101, 204, 304) else page(path, sys.argv[1]).encode()
        self.send_response(status)
        for name in OWN_HEADERS:
            self.send_header(name, "from-upstream")
            self.send_header(name.lower(), "from-upstream-again")
        if status == 101:
            self.send_header("Connection", "upgrade")
            self.send_header("Upgrade", "websocket")
        elif status != 204:
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("ETag", ETAG)
            self.send_header("Last-Modified", LAST_MODIFIED)
            self.send_header("Content-Length", str(len(body)))
        if 300 < status < 304:
            self.send_header("Location", "/elsewhere")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.close_connection = status == 101

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = answer

    def log_message(self, *_words: object) -> None:
        """Be silent."""


def page(path: str, placeholder: str) -> str:
    """The page of a path."""
    if path.endswith("/nonce"):
        return nonce_page(placeholder)
    if path.endswith("/stranger"):
        return nonce_page(placeholder) + '<script>document.documentElement.dataset.stranger = "ran";</script>'
    return f"<!doctype html><title>upstream</title><p>{path}</p>"


def nonce_page(placeholder: str) -> str:
    """A page whose script has the placeholder where its nonce belongs."""
    script = 'document.documentElement.dataset.page = "ran";'
    return f'<!doctype html><html lang="en"><title>nonce</title><script nonce="{placeholder}">{script}</script>'


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", PORT), App).serve_forever()
