"""Both halves of service_config: the module as it runs on a host, and what the controller sends and answers."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure
from ansible_collections.fushuma.production.plugins.action import service_config as action
from ansible_collections.fushuma.production.plugins.action import sshd_config as sshd_action
from ansible_collections.fushuma.production.plugins.module_utils import journal
from ansible_collections.fushuma.production.plugins.modules import service_config as module
from ansible_collections.fushuma.production.plugins.plugin_utils.rendering import Rendered

from .conftest import Host
from .modules import run_module


def sent(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.fixture(autouse=True)
def state(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "STATE", host.store.state)


def test_the_module_writes_and_reports(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    file = {"dest": str(host.path("web.conf")), "content": sent("text\n"), "mode": "0600"}
    folder = {"path": str(host.path("d")), "mode": "0750"}
    check = run_module(module.main, capsys, check=True, name="web", files=[file], directories=[folder])
    result = run_module(module.main, capsys, name="web", files=[file], directories=[folder])
    again = run_module(module.main, capsys, name="web", files=[file], directories=[folder])
    assert {key: check[key] for key in ("changed", "paths", "commands", "healed", "pending")} == {
        key: result[key] for key in ("changed", "paths", "commands", "healed", "pending")
    }
    assert sorted(result["paths"]) == [str(host.path("d")), str(host.path("web.conf"))]
    assert host.path("web.conf").read_text() == "text\n"
    assert host.path("web.conf").stat().st_mode & 0o777 == 0o600
    assert host.path("d").stat().st_mode & 0o777 == 0o750
    assert "text" not in str(result["diff"]), "0600 is not for everybody's eyes"
    assert again["changed"] is False


def test_the_module_fails_with_the_checkers_words(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    check = host.program("check", "echo line 7 is wrong; exit 1")
    file = {"dest": str(host.path("web.conf")), "content": sent("x")}
    result = run_module(module.main, capsys, name="web", files=[file], validate=[check])
    assert result["failed"]
    assert "line 7 is wrong" in result["msg"]
    assert not host.path("web.conf").exists()


def test_absent_needs_no_content(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.write("old", "x")
    run_module(module.main, capsys, name="web", files=[{"dest": str(host.path("old")), "state": "absent"}])
    assert not host.path("old").exists()


@pytest.mark.parametrize("mode", ["rw", "0888", "77777"])
def test_a_mode_that_is_none(host: Host, capsys: pytest.CaptureFixture[str], mode: str) -> None:
    file = {"dest": str(host.path("x")), "content": sent("x"), "mode": mode}
    result = run_module(module.main, capsys, name="web", files=[file])
    assert result["failed"]
    assert "a mode is not an octal number" in result["msg"]


def test_confirming_what_is_not_there(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nothing to confirm" in run_module(module.main, capsys, name="web", state="confirmed")["msg"]
    assert not run_module(module.main, capsys, check=True, name="web", state="confirmed").get("failed")


def test_confirmed_over_the_module(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.program("systemd-run", "exit 0")
    file = {"dest": str(host.path("x")), "content": sent("x")}
    assert run_module(module.main, capsys, name="web", files=[file], confirm_within=9)["pending"]
    assert not run_module(module.main, capsys, name="web", state="confirmed")["changed"]
    assert not run_module(module.main, capsys, name="web", files=[file], confirm_within=9)["changed"]


@pytest.mark.parametrize("probe", [{}, {"tcp": "h:1", "http": "http://h/"}])
def test_a_probe_asks_one_question(host: Host, capsys: pytest.CaptureFixture[str], probe: dict[str, str]) -> None:
    assert run_module(module.main, capsys, name="web", probe=[probe])["failed"]


# --- the controller's half -------------------------------------------------------------------------------------------


class Connection:
    """A connection that counts its resets, and may not come back."""

    def __init__(self, *, lost: bool = False) -> None:
        self.resets = 0
        self.lost = lost

    def reset(self) -> None:
        self.resets += 1
        if self.lost:
            raise AnsibleConnectionFailure("no route")


class Asked(action.ActionModule):
    """The action with the host replaced by a list of its answers."""

    def __init__(self, args: dict[str, Any], answers: list[dict[str, Any]], connection: Connection) -> None:
        self._task = type("Task", (), {"args": args})()
        self._templar = None
        self._connection = connection
        self.answers = answers
        self.asked: list[dict[str, Any]] = []

    def _execute_module(self, **kwargs: Any) -> dict[str, Any]:
        self.asked.append(kwargs["module_args"])
        return self.answers.pop(0)


@pytest.fixture(autouse=True)
def no_base(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(action.ActionBase, "run", lambda *_args: {})


def test_contents_are_sent_encoded_and_the_digest_is_filled_in() -> None:
    files = [{"dest": "/a", "content": "id @config_digest@", "mode": "0640"}, {"dest": "/b", "state": "absent"}]
    probe = {"http": "http://h/", "body": "@config_digest@"}
    folders = [{"path": "/x/{name}", "each": [{"name": "one"}, {"name": "two"}]}]
    given = {"name": "web", "files": files, "probe": [probe], "directories": folders}
    task = Asked(given, [{"changed": True}], Connection())
    assert task.run() == {"changed": True}
    (args,) = task.asked
    digest = args["probe"][0]["body"]
    assert len(digest) == 16
    assert args["files"] == [
        {"dest": "/a", "content": sent(f"id {digest}"), "mode": "0640"},
        {"dest": "/b", "content": None, "state": "absent"},
    ]
    assert args["directories"] == [{"path": "/x/one"}, {"path": "/x/two"}]


def test_the_arguments_do_not_come_back() -> None:
    task = Asked({"name": "web"}, [{"changed": False, "invocation": {"module_args": "all of it"}}], Connection())
    assert task.run() == {"changed": False}


def test_a_pending_change_is_confirmed_over_a_new_connection() -> None:
    connection = Connection()
    task = Asked({"name": "web", "confirm_within": 9}, [{"changed": True, "pending": True}, {}], connection)
    assert task.run() == {"changed": True, "pending": False}
    assert connection.resets == 1
    assert task.asked[1] == {"name": "web", "state": "confirmed"}


@pytest.mark.parametrize(
    ("answers", "lost", "words"),
    [
        ([{"failed": True, "msg": "nothing to confirm"}], False, "nothing to confirm"),
        ([{"unreachable": True, "msg": "timed out"}], False, "timed out"),
        ([], True, "no new connection: no route"),
    ],
)
def test_a_change_that_cannot_be_confirmed(answers: list[dict[str, Any]], lost: bool, words: str) -> None:
    args = {"name": "sshd", "confirm_within": 9}
    result = Asked(args, [{"changed": True, "pending": True}, *answers], Connection(lost=lost)).run()
    assert result["failed"]
    assert "puts the former configuration back within 9 s" in result["msg"]
    assert words in result["msg"]


def test_bytes_survive(tmp_path: Path) -> None:
    assert base64.b64decode(action.shipped(Rendered("/a", b"\xff\x00", {}))["content"]) == b"\xff\x00"


def test_a_module_of_its_own_is_confirmed_in_the_same_way() -> None:
    class AskedOfSshd(sshd_action.ActionModule, Asked):
        """The action of sshd_config with the host replaced by a list of its answers."""

    asked: list[tuple[str, dict[str, Any]]] = []

    def answer(_self: Any, **kwargs: Any) -> dict[str, Any]:
        asked.append((kwargs["module_name"], kwargs["module_args"]))
        return {"changed": True, "pending": len(asked) == 1}

    AskedOfSshd._execute_module = answer  # type: ignore[method-assign]
    task = AskedOfSshd({"ports": [22], "confirm_within": 9}, [], Connection())
    assert task.run() == {"changed": True, "pending": False}
    assert [name for name, _args in asked] == ["fushuma.production.sshd_config", "fushuma.production.service_config"]
    assert asked[0][1] == {"ports": [22], "confirm_within": 9, "files": [], "directories": []}
    assert asked[1][1] == {"name": "sshd", "state": "confirmed"}
