"""Requests as a client makes them, from the host itself: no port has to be published, and clients can differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from testinfra.host import Host

FILES = Path(__file__).parent / "files"
ASK = (FILES / "ask.py").read_text("utf-8")
HTTP2 = (FILES / "http2.py").read_text("utf-8")

LOG_SECONDS = 5  # nginx keeps lines of its log for a second


@dataclass(frozen=True)
class Request:
    """One request to 127.0.0.1.

    site:   the name asked for (SNI and Host).
    body:   one byte a character, so none above 255; ``filler`` more bytes follow.
    source: the client's address, any of 127.0.0.0/8.
    """

    site: str
    path: str = "/"
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    filler: int = 0
    port: int = 443
    tls: bool = True
    source: str = "127.0.0.1"


@dataclass(frozen=True)
class Answer:
    """An answer, its size in bytes. Status 0 stands for none; ``reason`` then says how the connection ended."""

    status: int
    reason: str
    headers: Sequence[tuple[str, str]]
    body: str
    size: int

    def all(self, name: str) -> list[str]:
        """All values of a header, in the order they were sent."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def one(self, name: str) -> str:
        """The header's only value; "" where it is missing."""
        values = self.all(name)
        assert len(values) < 2, f"{name} was sent {len(values)} times: {values}"
        return values[0] if values else ""


def ask(host: Host, *requests: Request) -> list[Answer]:
    """The answers, in the order of the requests; one round trip to the host."""
    asked = json.dumps([asdict(request) for request in requests])
    done = host.run("python3 -c %s %s", ASK, asked)
    assert done.rc == 0, done.stderr
    return [Answer(**answer) for answer in json.loads(done.stdout)]


def logged(host: Host, log: str, mark: str) -> list[dict[str, Any]]:
    """The lines of one of nginx's logs that hold the mark; they may be still on their way to the disk."""
    wait = 'until grep --fixed-strings --regexp="$0" "$1"; do sleep 0.1; done'
    lines = host.check_output("timeout %s sh -c %s %s %s", str(LOG_SECONDS), wait, mark, log)
    return [json.loads(line) for line in lines.splitlines()]


def handshake(host: Host, site: str, *options: str, port: int = 443) -> str:
    """What openssl says of a handshake with 127.0.0.1, whether it came about or not."""
    asked = f"openssl s_client -connect 127.0.0.1:{port} -servername {site} {' '.join(options)}"
    return str(host.run(f"timeout 10 {asked} </dev/null 2>&1").stdout)
