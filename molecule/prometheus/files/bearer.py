"""A remote store that wants a token, and keeps nothing. It tells the last token's length at /token."""

from __future__ import annotations

import ssl
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LAST = {"authorization": ""}


class Store(BaseHTTPRequestHandler):
    timeout = 10

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        scheme, _space, token = self.headers.get("Authorization", "").partition(" ")
        LAST["authorization"] = f"{scheme} {len(token)}"
        self.send_response(204)
        self.end_headers()

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(LAST["authorization"].encode())


server = ThreadingHTTPServer(("127.0.0.1", 9096), Store)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/srv/tls/chain.pem", "/srv/tls/key.pem")
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
