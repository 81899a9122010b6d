# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The program that proves that lines of logs arrive, with stores that are none."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from ansible_collections.fushuma.production.plugins.module_utils import log_proof

# As 3.38 and 4.8 write them.
FOUND = "production_logs_canary_timestamp_seconds"
STATS = """SourceName;SourceId;SourceInstance;State;Type;Number
dst.http;d_1#0;http,http://127.0.0.1:3100/push;a;dropped;3
dst.http;d_1#0;http,http://127.0.0.1:3100/push;a;queued;0
dst.http;d_2#0;http,http://b/push,http,http://b/push;a;dropped;1
dst.http;d_2#0;http,http://b/push,http,http://b/push;a;written;1
global;internal_source;;a;dropped;7
"""


class Stub(ThreadingHTTPServer):
    """A store that has every line after ``misses`` questions, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.misses, self.status, self.asked = 0, 200, []  # type: int, int, list[tuple[str, dict[str, str], str]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answering(BaseHTTPRequestHandler):
    server: Stub

    def do_GET(self) -> None:
        where = urlsplit(self.path)
        question = {key: values[0] for key, values in parse_qs(where.query).items()}
        self.server.asked.append((where.path, question, self.headers.get("Authorization", "")))
        self.server.misses -= 1
        has = self.server.misses < 0
        if where.path == "/select/logsql/query":
            body = question["query"] if has else ""
        else:
            body = json.dumps({"data": {"result": [1] if has else []}})
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    monkeypatch.setattr(log_proof, "PAUSE", 0.01)
    with Stub() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def stats(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("queues")
    known = ['systemd-journal = { "value": "00 01" }']
    for store, number in (("a1", 40), ("gone", 7)):
        path = folder / f"{number}.rqf"
        path.write_text(f"state loaded; filename='x', number_of_messages='{number}'\n", "utf-8")
        packed = len(str(path)).to_bytes(4, "big") + str(path).encode() + b"\0"
        known.append(f'http.{store} = {{ "value": "{packed.hex(" ").upper()} " }}')
    monkeypatch.setattr(log_proof, "STATS", ["printf", "%s", STATS])
    (folder / "state").write_text("\n\n".join(known), "utf-8")
    monkeypatch.setattr(log_proof, "STATE", str(folder / "state"))
    monkeypatch.setattr(log_proof, "QUEUES", ["cat"])
    monkeypatch.setattr(log_proof, "QUEUED", ["cat"])


def store(stub: Stub, **settings: Any) -> dict[str, Any]:
    return {
        "id": "a1",
        "url": stub.url,
        "kind": "loki",
        "user": "",
        "password": "",
        "headers": {},
        "authorities": "",
        **settings,
    }


def ran(tmp_path: Path, within: float, *stores: dict[str, Any], textfile: bool = True) -> dict[str, float]:
    """The figures after a run."""
    figures = tmp_path / "production_logs.prom"
    config = tmp_path / "config.json"
    config.write_text(
        json.dumps(
            {"stores": stores, "within": within, "found_as": FOUND, "textfile": str(figures) if textfile else ""}
        ),
        "utf-8",
    )
    assert log_proof.main([str(config)]) == 0
    if not figures.exists():
        return {}
    lines = [line.split() for line in figures.read_text("utf-8").splitlines() if not line.startswith("#")]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["config.json", "production_logs.prom"]
    return {name: float(value) for name, value in lines}


def test_a_line_that_is_found(stub: Stub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stub.misses = 2
    figures = ran(tmp_path, 30, store(stub, user="shipper", password="canary-1f0e9d8c7b6a"))
    assert figures[FOUND] > 1e9
    assert figures["production_logs_dropped_total"] == 4
    assert figures["production_logs_queued"] == 40
    said = capsys.readouterr().out
    assert said.startswith("<6>log pipeline proof ")
    number = said.split()[-1]
    path, question, login = stub.asked[-1]
    assert (path, login) == ("/loki/api/v1/query_range", "Basic c2hpcHBlcjpjYW5hcnktMWYwZTlkOGM3YjZh")
    assert question["query"] == f'{{job=~".+"}} |= "{number}"'
    assert len(stub.asked) == 3


def test_all_stores_have_to_have_it(stub: Stub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = store(stub, kind="victorialogs"), store(stub, url="http://127.0.0.1:1", kind="victorialogs")
    assert ran(tmp_path, 0, *both)[FOUND] == 0
    said = capsys.readouterr().out
    assert "<4>the line was not found within 0 s at http://127.0.0.1:1: ConnectionRefusedError" in said
    assert stub.url not in said
    assert stub.asked[0][0] == "/select/logsql/query"


def test_a_store_that_has_it_is_not_asked_again(stub: Stub, tmp_path: Path) -> None:
    stub.misses = 1
    late = store(stub, url=stub.url.replace("127.0.0.1", "localhost"))
    assert ran(tmp_path, 30, late, store(stub))[FOUND] > 1e9
    assert len(stub.asked) == 3


def test_the_time_of_the_last_one_stays(stub: Stub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = ran(tmp_path, 0, store(stub))[FOUND]
    stub.misses = 100
    assert ran(tmp_path, 0, store(stub))[FOUND] == first
    assert "it has no such line" in capsys.readouterr().out
    stub.status = 503
    assert ran(tmp_path, 0, store(stub))[FOUND] == first
    assert "it answers 503" in capsys.readouterr().out


def test_without_figures_it_still_asks(stub: Stub, tmp_path: Path) -> None:
    assert ran(tmp_path, 0, store(stub), textfile=False) == {}
    assert len(stub.asked) == 1


def test_nothing_waits_where_there_is_no_queue(stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_proof, "QUEUES", ["true"])
    assert ran(tmp_path, 0, store(stub))["production_logs_queued"] == 0


@pytest.mark.parametrize("argv", [["false"], ["/nonexistent"]])
def test_a_shipper_that_does_not_run(
    argv: list[str], stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(log_proof, "STATS", argv)
    assert list(ran(tmp_path, 0, store(stub))) == [FOUND]
    assert "syslog-ng does not say what it counted" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", f"{FOUND} many\n", f"{FOUND} \n"])
def test_a_file_of_figures_that_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "figures").write_text(text, "utf-8")
    assert log_proof.former(str(tmp_path / "figures"), FOUND) == 0


def test_over_tls_the_certificate_has_to_be_right(tmp_path: Path) -> None:
    certificate, key = tmp_path / "tls.pem", tmp_path / "tls.key"
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "1",
            ),
            *("-keyout", str(key), "-out", str(certificate), "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost"),
        ],
        check=True,
        capture_output=True,
    )
    with Stub() as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        one = store(server, url=f"https://localhost:{server.server_address[1]}")
        try:
            assert log_proof.looked_for([one | {"authorities": str(certificate)}], "1", 0) == {}
            (why,) = log_proof.looked_for(
                [one | {"authorities": "/etc/ssl/certs/ca-certificates.crt"}], "1", 0
            ).values()
        finally:
            server.shutdown()
            thread.join()
    assert "SSLCertVerificationError" in why
