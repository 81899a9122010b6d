"""Runs on the host: asks 127.0.0.1:443 over HTTP/2 for a site's first page; prints the protocol and the status.

Just enough of RFC 9113 and RFC 7541 for one request, so that the host needs no client program.
"""

from __future__ import annotations

import socket
import ssl
import sys

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, SETTINGS = 1, 4
END_OF_STREAM_AND_HEADERS = 0x1 | 0x4
GET, ROOT, HTTPS = 0x82, 0x84, 0x87  # entries of the static table, RFC 7541 appendix A
AUTHORITY = 0x01  # a literal value for that entry, not indexed, RFC 7541 §6.2.2
TABLE_SIZE = 0x20
STATUSES = {0x88: 200, 0x8D: 404}


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def exactly(connection: ssl.SSLSocket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise SystemExit("the connection ended before its time")
        data += part
    return data


def main(site: bytes) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    plain = socket.create_connection(("127.0.0.1", 443), 10)
    with context.wrap_socket(plain, server_hostname=site.decode()) as connection:
        block = bytes([GET, ROOT, HTTPS, AUTHORITY, len(site)]) + site
        asked = frame(SETTINGS, 0, 0, b"") + frame(HEADERS, END_OF_STREAM_AND_HEADERS, 1, block)
        connection.sendall(PREFACE + asked)
        kind, payload = SETTINGS, b""
        while kind != HEADERS:
            head = exactly(connection, 9)
            kind, payload = head[3], exactly(connection, int.from_bytes(head[:3], "big"))
        first = payload[1] if payload[0] == TABLE_SIZE else payload[0]
        print(connection.selected_alpn_protocol(), STATUSES.get(first, f"another first field, {first:#x}"), end="")


main(sys.argv[1].encode())
