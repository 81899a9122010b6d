# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""HTTP/1.1 as bytes on a socket, so that nothing between the server and a test merges, repairs or hides a header."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from hosts_support import PATIENCE, unjudged

END = b"\r\n\r\n"
STATUS_LINE = re.compile(r"HTTP/1\.1 (\d{3}) ")


@dataclass(frozen=True)
class Answer:
    """What a server has sent. ``headers`` are (name in lower case, value), as often and in the order they came."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def all(self, name: str) -> list[str]:
        """All values of a header."""
        return [value for other, value in self.headers if other == name.lower()]

    def one(self, name: str) -> str:
        """The value of a header that is there once."""
        (value,) = self.all(name)
        return value


def request(
    name: str, path: str = "/", method: str = "GET", headers: Mapping[str, str] | None = None, body: bytes = b""
) -> bytes:
    """A request after whose answer the connection ends."""
    fields = {"Host": name, "Connection": "close", **(headers or {})}
    if body:
        fields["Content-Length"] = str(len(body))
    lines = [f"{method} {path} HTTP/1.1", *(f"{key}: {value}" for key, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode() + body


def ask(port: int, message: bytes, name: str | None) -> Answer | None:
    """What a port of 127.0.0.1 answers, over TLS to ``name`` or, without one, in the clear; None where it says nothing.

    Raises ssl.SSLError where the server refuses the handshake.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as plain:
        if name is None:
            return parsed(exchange(plain, message))
        with unjudged().wrap_socket(plain, server_hostname=name) as secured:
            return parsed(exchange(secured, message))


def exchange(connection: socket.socket, message: bytes) -> bytes:
    """Send a message and read until the server ends the connection, or, after a switch of protocols, its first head."""
    received = b""
    try:
        connection.sendall(message)
        while chunk := connection.recv(65536):
            received += chunk
            if received.startswith(b"HTTP/1.1 101 ") and END in received:
                break
    except ConnectionResetError:
        # A server that refuses a body ends the connection while it is still being sent.
        pass
    return received


def parsed(received: bytes) -> Answer | None:
    """An answer out of its bytes."""
    if not received:
        return None
    head, _end, body = received.partition(END)
    first, *lines = head.decode("latin-1").split("\r\n")
    status = STATUS_LINE.match(first)
    assert status, f"no answer of HTTP/1.1: {first!r}"
    pairs = tuple((name.lower(), value.strip()) for name, _colon, value in (line.partition(":") for line in lines))
    return Answer(int(status[1]), pairs, body)
