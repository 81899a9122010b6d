# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Is Grafana's admin let in? Asked of a server that counts how often it is."""

from __future__ import annotations

import base64
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from ansible_collections.fushuma.production.plugins.module_utils import grafana

PASSWORD = "canary-12ab34cd56ef"


class Server(ThreadingHTTPServer):
    status = 0
    asked = 0


class Answering(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked += 1
        wanted = "Basic " + base64.b64encode(f"admin:{PASSWORD}".encode()).decode()
        right = (self.path, self.headers["Authorization"]) == ("/api/user", wanted)
        self.send_response(self.server.status or (200 if right else 401))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_words: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    found.shutdown()
    thread.join()
    found.server_close()


@pytest.fixture(autouse=True)
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "refused"
    monkeypatch.setattr(grafana, "REFUSED", path)
    return path


def asked(server: Server, tmp_path: Path, password: str) -> int:
    file = tmp_path / "password"
    file.write_text(f"{password}\n")
    return grafana.main([f"http://127.0.0.1:{server.server_port}", str(file)])


def test_the_right_password(server: Server, tmp_path: Path) -> None:
    assert asked(server, tmp_path, PASSWORD) == 0


def test_a_refusal_is_kept_for_a_while(
    server: Server, tmp_path: Path, refused: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert asked(server, tmp_path, "canary-wrong-1234567") == 1
    assert asked(server, tmp_path, PASSWORD) == 1
    assert server.asked == 1
    assert capsys.readouterr().err == (
        "Grafana answers its admin with 401\nGrafana has just refused the password of its admin\n"
    )
    os.utime(refused, times=(0, time.time() - 2 * grafana.KEPT))
    assert asked(server, tmp_path, PASSWORD) == 0
    assert not refused.exists()


def test_another_answer_is_no_refusal(server: Server, tmp_path: Path, refused: Path) -> None:
    server.status = 503
    assert asked(server, tmp_path, PASSWORD) == 1
    assert not refused.exists()


def test_nobody_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "password").write_text(PASSWORD)
    assert grafana.main(["http://127.0.0.1:1", str(tmp_path / "password")]) == 1
    assert "does not answer" in capsys.readouterr().err
