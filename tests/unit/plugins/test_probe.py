"""Probes against real sockets of this process."""

from __future__ import annotations

import http.server
import os
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.fushuma.production.plugins.module_utils import journal, probe
from ansible_collections.fushuma.production.plugins.module_utils.probe import Probe, complaint, wait_for


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(503 if self.path == "/down" else 200)
        self.end_headers()
        self.wfile.write(f"digest of {self.path}".encode())

    def address_string(self) -> str:
        return "client"

    def log_message(self, *_args: object) -> None:
        """Nobody reads it."""


class UnixServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


def serving(server: socketserver.BaseServer) -> Iterator[socketserver.BaseServer]:
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def port() -> Iterator[int]:
    for server in serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)):
        yield server.server_address[1]  # type: ignore[misc]


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    name = str(tmp_path / "s")
    for _server in serving(UnixServer(name, Answers)):
        yield name


def test_what_answers_as_it_should(port: int, path: str) -> None:
    assert complaint(Probe(tcp=f"127.0.0.1:{port}")) == ""
    assert complaint(Probe(http=f"http://127.0.0.1:{port}/x?y=1", body="digest of /x?y=1")) == ""
    assert complaint(Probe(http="http://localhost/", socket=path)) == ""
    assert complaint(Probe(exec=["true"])) == ""


def test_what_does_not(port: int) -> None:
    url = f"http://127.0.0.1:{port}/"
    assert complaint(Probe(http=f"{url}down")) == f"{url}down answers 503, not 200"
    assert complaint(Probe(http=url, body="another")) == f"{url} does not answer with 'another' but with 'digest of /'"
    assert complaint(Probe(exec=["echo", "rules of today"], body="today")) == ""
    assert "does not say 'tomorrow'" in complaint(Probe(exec=["echo", "rules of today"], body="tomorrow"))
    assert "ended with 3: no" in complaint(Probe(exec=["sh", "-c", "echo no; exit 3"]))
    assert "refused" in complaint(Probe(tcp="127.0.0.1:1"))
    assert "refused" in complaint(Probe(http="http://127.0.0.1:1/"))
    assert "https://127.0.0.1" in complaint(Probe(http=f"https://127.0.0.1:{port}/")), "that port speaks no TLS"
    assert "::1" in complaint(Probe(tcp="[::1]:1"))


def test_a_unit_listens_by_itself(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for pid, wrong in ((os.getpid(), ""), (0, f"web.service does not listen on port {port}")):
        monkeypatch.setattr(probe, "run", lambda argv, pid=pid: journal.Finished(argv, 0, str(pid)))
        assert complaint(Probe(unit="web.service", ports=[port])) == wrong
    monkeypatch.setattr(probe, "run", lambda argv: journal.Finished(argv, 0, str(os.getpid())))
    assert complaint(Probe(unit="web.service", ports=[3, port, 2])) == "web.service does not listen on port 2, 3"


def test_a_connection_is_no_listening(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connected:
        found = probe.listening(str(os.getpid()))
        assert port in found
        assert connected.getsockname()[1] not in found


def test_waiting_ends_when_it_holds_or_the_time_is_up(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    late = threading.Timer(0.2, flag.touch)
    late.start()
    assert wait_for([Probe(exec=["test", "-e", str(flag)])], 10) == []
    late.join()
    assert len(wait_for([Probe(exec=["false"]), Probe(exec=["true"])], 0.1)) == 1
    assert wait_for([], 0) == []
