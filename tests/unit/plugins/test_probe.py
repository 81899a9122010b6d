"""Probes against real sockets of this process."""

from __future__ import annotations

import http.server
import os
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.fushuma.production.plugins.module_utils import journal, probe
from ansible_collections.fushuma.production.plugins.module_utils.probe import Probe, complaint, wait_for

from .certificates import made


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(503 if self.path == "/down" else 200)
        for name in self.headers.get("X-Ask", "").split():
            self.send_header("X-Told", f"{name} at {self.headers['Host']}")
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


def test_another_address_headers_and_what_is_expected_of_them(port: int) -> None:
    told = {"http": "http://www.fushuma.com/a", "address": f"127.0.0.1:{port}", "headers": {"X-Ask": "one two"}}
    assert complaint(Probe(**told, body="digest of /a", expects={"x-told": "one at www.fushuma.com, two"})) == ""
    assert complaint(Probe(**told, expects={"X-Told": "three"})) == (
        "http://www.fushuma.com/a answers with X-Told: one at www.fushuma.com, two at www.fushuma.com, not 'three'"
    )
    assert complaint(Probe(**told, expects={"X-Other": "x"})).endswith("answers with X-Other: nothing, not 'x'")
    assert "refused" in complaint(Probe(http="http://www.fushuma.com/", address="[::1]:1"))


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server over TLS whose certificate this process trusts, as that of www.fushuma.com."""
    pair = made(["www.fushuma.com"])
    (tmp_path / "chain.pem").write_text(pair.chain, "utf-8")
    (tmp_path / "key.pem").write_text(pair.key, "utf-8")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "chain.pem", tmp_path / "key.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "chain.pem"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    for _server in serving(server):
        yield f"127.0.0.1:{server.server_address[1]}"


def test_a_certificate_counts_where_it_has_to_be_trusted(tls: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Probe(http="https://www.fushuma.com/", address=tls, trusted=True)
    other = Probe(http="https://other.fushuma.com/", address=tls)
    assert complaint(mine) == ""
    assert "Hostname mismatch" in complaint(replace(other, trusted=True))
    monkeypatch.delenv("SSL_CERT_FILE")
    assert "CERTIFICATE_VERIFY_FAILED" in complaint(mine)
    assert complaint(other) == "", "be it with a placeholder"


def test_processes_that_are_older_than_a_file(tmp_path: Path) -> None:
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    ticks = os.sysconf("SC_CLK_TCK")
    children = tmp_path / "7" / "task" / "7" / "children"
    children.parent.mkdir(parents=True)
    children.write_text("8 9 10 ", "ascii")
    for child, began in (("8", 100), ("9", 200)):
        (tmp_path / child).mkdir()
        stat = f"{child} (nginx: (worker) x) S 7 {'0 ' * 17}{began * ticks} 0 0\n"
        (tmp_path / child / "stat").write_text(stat, "utf-8")
    assert probe.older_children("7", boot + 150, tmp_path) == ["8"], "the third one has ended meanwhile"
    assert probe.older_children("7", boot + 50, tmp_path) == []
    assert probe.older_children("7", boot + 250, tmp_path) == ["8", "9"]
    assert probe.older_children("6", boot + 250, tmp_path) == []


def test_a_unit_whose_processes_have_to_be_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "run", lambda argv: journal.Finished(argv, 0, "7"))
    monkeypatch.setattr(probe, "older_children", lambda pid, moment: ["8"] if (pid, moment) == ("7", 50) else [])
    old, path = tmp_path / "a.servers", tmp_path / "b.servers"
    asked = Probe(unit="nginx.service", newer=[str(old), str(path)])
    old.touch()
    os.utime(old, (10, 10))
    assert complaint(asked) == f"{path}: No such file or directory"
    path.touch()
    assert complaint(asked) == ""
    os.utime(path, (50, 50))
    assert complaint(asked) == f"nginx.service has processes that began before {path} was written: 8"


def test_one_with_a_time_of_its_own_is_waited_for_first(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    patient = Probe(exec=["test", "-e", str(flag)], timeout=10)
    began = time.monotonic()
    assert "ended with 1" in wait_for([replace(patient, timeout=0), Probe(exec=["true"])], 10)[0]
    assert time.monotonic() - began < 5, "what it waits for in vain ends it"
    late = threading.Timer(0.2, flag.touch)
    late.start()
    assert wait_for([patient, Probe(exec=["test", "-e", str(flag)])], 0) == []
    late.join()


def test_an_error_without_words_is_told_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_arguments: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(probe.socket, "create_connection", silent)
    assert complaint(Probe(tcp="127.0.0.1:1")) == "127.0.0.1:1: TimeoutError"
