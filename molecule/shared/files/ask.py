"""Runs on the host: asks what is described as JSON in the first argument and prints the answers as JSON.

Each request has a connection of its own. Nothing is followed, decoded or corrected: what the server sent is seen.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import sys
from typing import Any

TIMEOUT = 10.0  # seconds


def connect(request: dict[str, Any]) -> socket.socket:
    plain = socket.create_connection(("127.0.0.1", request["port"]), TIMEOUT, (request["source"], 0))
    if not request["tls"]:
        return plain
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(plain, server_hostname=request["site"] or None)


def send(connection: socket.socket, request: dict[str, Any]) -> None:
    body = request["body"].encode("latin-1") + b"." * request["filler"]
    headers = {"Host": request["site"], **request["headers"]}
    if request["method"] != "GET":
        headers["Content-Length"] = str(len(body))
    lines = [
        f"{request['method']} {request['path']} HTTP/1.1",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)


def ask(request: dict[str, Any]) -> dict[str, Any]:
    """Status 0 stands for a connection that ended without an answer; ``reason`` then says how."""
    try:
        with connect(request) as connection:
            send(connection, request)
            answer = http.client.HTTPResponse(connection, method=request["method"])
            answer.begin()
            # Behind an upgrade (RFC 9110 §15.2.2) follows no body but what both sides agree on.
            body = connection.recv(4096) if answer.status == 101 else answer.read()
    except (OSError, http.client.HTTPException) as error:
        return {"status": 0, "reason": f"{type(error).__name__}: {error}", "headers": [], "body": "", "size": 0}
    return {
        "status": answer.status,
        "reason": answer.reason,
        "headers": answer.getheaders(),
        "body": body.decode("utf-8", "replace"),
        "size": len(body),
    }


print(json.dumps([ask(request) for request in json.loads(sys.argv[1])]))
