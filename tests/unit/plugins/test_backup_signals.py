# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who is told of what: the state, metrics that are always whole, and addresses that are secrets."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.module_utils.backup import signals
from ansible_collections.fushuma.production.plugins.module_utils.backup.programs import Failure
from ansible_collections.fushuma.production.plugins.module_utils.backup.settings import Repository, Settings, Signals
from hypothesis import given, settings
from hypothesis import strategies as st

NEAR = Repository("near", "/near")
FAR = Repository("far", "/far", offsite=True, purposes=("backup", "drill"))


@pytest.fixture
def host(tmp_path: Path) -> Settings:
    (tmp_path / "text").mkdir()
    return Settings("web1", (NEAR, FAR), data=tmp_path / "data", textfile=str(tmp_path / "text"))


def values(host: Settings) -> dict[str, float]:
    text = (Path(host.textfile) / signals.METRICS_FILE).read_text()
    rows = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in rows}


# --- state and metrics ------------------------------------------------------------------------------------------------


def test_a_state_that_is_not_there_or_broken(host: Settings) -> None:
    empty: dict[str, Any] = {"verbs": {}, "repositories": {}, "drills": {}}
    assert signals.state(host) == empty
    host.data.mkdir()
    for text in ("{", "[]"):
        host.state.write_text(text)
        assert signals.state(host) == empty
    signals.record(host, "verbs", "run", {"ended": 1})
    assert signals.state(host)["verbs"] == {"run": {"ended": 1}}


NAMES = st.sampled_from(["near", "far"])
VALUES = st.dictionaries(
    st.sampled_from(["last_success", "exit_code", "bytes_added"]), st.integers(0, 2**40), max_size=3
)


@settings(max_examples=30)
@given(st.lists(st.tuples(NAMES, VALUES), min_size=1, max_size=6))
def test_what_is_recorded_is_what_is_known(records: list[tuple[str, dict[str, int]]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        host = Settings("web1", (NEAR, FAR), data=Path(name) / "data", textfile=name)
        known: dict[str, dict[str, int]] = {}
        for repository, one in records:
            signals.record(host, "repositories", repository, one)
            known.setdefault(repository, {}).update(one)
        assert signals.state(host)["repositories"] == known
        shown = values(host)
        for repository, one in known.items():
            if "exit_code" in one:
                assert shown[f'production_backup_last_exit_code{{repository="{repository}"}}'] == one["exit_code"]


def test_a_repository_that_was_never_backed_up_has_metrics(host: Settings) -> None:
    signals.record(host, "verbs", "init", {})
    shown = values(host)
    for name in ("near", "far"):
        assert shown[f'production_backup_last_success_timestamp_seconds{{repository="{name}"}}'] == 0
        assert shown[f'production_backup_rpo_target_seconds{{repository="{name}"}}'] == 93600
    assert 'production_backup_last_exit_code{repository="near"}' not in shown, "there is none"
    assert 'production_backup_prune_last_success_timestamp_seconds{repository="far"}' not in shown, "not its purpose"
    assert (Path(host.textfile) / signals.METRICS_FILE).stat().st_mode & 0o777 == 0o644
    assert host.state.stat().st_mode & 0o777 == 0o600


def test_metrics_of_a_drill(host: Settings) -> None:
    drill = {"last_attempt": 5.5, "success": True, "rto_seconds": 81.25}
    signals.record_all(host, "drills", {"far": drill, "gone": drill})
    text = (Path(host.textfile) / signals.METRICS_FILE).read_text()
    assert 'production_restore_drill_success{repository="far"} 1\n' in text
    assert 'production_restore_drill_rto_seconds{repository="far"} 81.25\n' in text
    assert 'production_restore_drill_rto_target_seconds{repository="far"} 3600\n' in text
    assert "gone" not in text, "what is not configured any more raises no alarm"
    metrics = [line.split("{")[0] for line in text.splitlines() if not line.startswith("#")]
    helps = [line.split()[2] for line in text.splitlines() if line.startswith("# HELP")]
    assert sorted(helps) == sorted(set(metrics))


def test_no_repositories_no_metrics(tmp_path: Path) -> None:
    host = Settings("web1", data=tmp_path)
    signals.record(host, "verbs", "run", {})
    assert signals.metrics(host, signals.state(host)) == ""


def test_a_disk_that_is_full_leaves_the_former_file(host: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    signals.record(host, "verbs", "run", {"ended": 1})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device", "state.json")

    monkeypatch.setattr(signals.os, "fsync", full)
    with pytest.raises(Failure, match=r"state\.json cannot be written: No space left on device"):
        signals.record(host, "verbs", "run", {"ended": 2})
    assert signals.state(host)["verbs"]["run"] == {"ended": 1}
    assert sorted(one.name for one in host.data.iterdir()) == ["state.json", "state.lock"]


# --- telling others ---------------------------------------------------------------------------------------------------


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    """What a web server hears: paths and bodies. It refuses what is below /refused."""
    found: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.append((self.path, body.decode()))
            self.send_response(503 if self.path.startswith("/refused") else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    found.append(("", f"http://127.0.0.1:{server.server_port}"))
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_run_that_went_well(host: Settings, heard: list[tuple[str, str]]) -> None:
    base = heard.pop()[1]
    told = with_signals(host, Signals(f"{base}/ping?x=1", f"{base}/cron/a/key/?environment=web", f"{base}/hook"))
    assert signals.tell(told, "run", "") == []
    assert heard == [
        ("/ping?x=1", "web1: production-backup run: went well"),
        ("/cron/a/key/?environment=web&status=ok", ""),
    ]
    heard.clear()
    assert signals.tell(told, "check", "") == []
    assert heard == [], "these stand for the schedule of backups"


def test_a_run_that_failed(host: Settings, heard: list[tuple[str, str]]) -> None:
    base = heard.pop()[1]
    told = with_signals(host, Signals(f"{base}/ping/", f"{base}/cron", f"{base}/hook"))
    assert signals.tell(told, "run", "no disk") == []
    assert [path for path, _ in heard] == ["/ping/fail", "/cron?status=error", "/hook"]
    assert json.loads(heard[-1][1]) == {
        "host": "web1",
        "verb": "run",
        "problem": "no disk",
        "text": "web1: production-backup run: no disk",
    }
    heard.clear()
    signals.tell(told, "prune", "no disk")
    assert [path for path, _ in heard] == ["/hook"]


def with_signals(host: Settings, told: Signals, mail_to: str = "") -> Settings:
    from dataclasses import replace

    return replace(host, signals=told, mail_to=mail_to)


def test_what_could_not_be_told(host: Settings, heard: list[tuple[str, str]]) -> None:
    base = heard.pop()[1]
    told = with_signals(host, Signals(f"{base}/refused/secret", "http://127.0.0.1:9/secret", "nonsense://secret"))
    untold = signals.tell(told, "run", "no disk")
    assert untold == [
        "backup_signals.ping_url could not be told: the answer is 503",
        "backup_signals.sentry_url could not be told: [Errno 111] Connection refused",
        "backup_signals.webhook_url could not be told: URLError",
    ]
    assert len(heard) == signals.TRIES
    assert "secret" not in " ".join(untold)


def test_mail(host: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "sendmail"
    script.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/mail\ncat >> {tmp_path}/mail\n')
    script.chmod(0o755)
    monkeypatch.setattr(signals, "SENDMAIL", str(script))
    told = with_signals(host, Signals(), "root")
    assert signals.tell(told, "check", "damaged") == []
    mail = (tmp_path / "mail").read_text()
    assert mail.startswith("-oi -t\nTo: root\nSubject: web1: production-backup check failed\n")
    assert "web1: production-backup check: damaged" in mail
    (tmp_path / "mail").unlink()
    assert signals.tell(told, "check", "") == []
    assert not (tmp_path / "mail").exists()
    script.write_text("#!/bin/sh\necho no relay >&2; exit 75\n")
    assert signals.tell(told, "check", "damaged") == [
        f"backup_signals.mail_to could not be told: {script} says: no relay"
    ]
