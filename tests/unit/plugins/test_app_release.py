# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Both halves of app_release: the module on a host whose engine is in memory, and what the controller sends."""

from __future__ import annotations

import base64
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.action import app_release as action
from ansible_collections.fushuma.production.plugins.module_utils import journal, releases, transaction
from ansible_collections.fushuma.production.plugins.module_utils.arguments import FILE_SPEC
from ansible_collections.fushuma.production.plugins.modules import app_release as module
from ansible_collections.fushuma.production.plugins.plugin_utils import app_model, specs
from ansible_collections.fushuma.production.plugins.plugin_utils.rendering import Rendered

from .conftest import Host
from .modules import run_module
from .test_releases import Engine

CANARY = "canary-1f0e9d8c7b6a"
ANOTHER = "canary-90817263aabb"
DEFAULTS = {name: option.get("default") for name, option in FILE_SPEC.items()}
REFERENCES = {name: f"registry.fushuma.com/shop@sha256:{name * 64}" for name in "ab"}


def told(image: str = "a", **settings: Any) -> dict[str, Any]:
    """What the controller sends of one application: without the variables of its processes, and those."""
    one = {
        "name": "shop",
        "image": {"reference": REFERENCES[image]},
        "processes": [{"name": "worker", "user": "10001", "replicas": 2}, {"name": "mail", "single": True}],
        "env": [{"name": "DATABASE_URL", "secret": True}],
        "secrets": {"DATABASE_URL": CANARY},
        **settings,
    }
    filled = specs.filled(specs.role_options("app"), {"app_applications": [one]})
    applications, environments = action.apart(app_model.model(filled))
    return {"applications": applications, "environments": environments}


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    found = Engine()
    monkeypatch.setattr(module, "Docker", lambda **_options: found)
    for where in (journal, releases):
        monkeypatch.setattr(where, "STATE", tmp_path / "state")
    return found


Capsys = pytest.CaptureFixture[str]


def deployed(capsys: Capsys, image: str = "a", **planned: Any) -> dict[str, Any]:
    """A deployment as playbooks do it, without nginx; what the last step says."""
    given = told(image)
    plan = run_module(module.main, capsys, state="planned", **given, **planned)["plans"][0]
    run_module(module.main, capsys, state="prepared", meant=plan["meant"], **given)
    back = planned.get("back", False)
    return run_module(module.main, capsys, state="committed", meant=plan["meant"], back=back, **given)


def running(engine: Engine) -> list[str]:
    return sorted(one.id.partition("#")[0] for one in engine.there.values() if one.running)


# --- the module ------------------------------------------------------------------------------------------------------


def test_a_plan_says_what_would_be_done_and_does_nothing(engine: Engine, capsys: Capsys) -> None:
    result = run_module(module.main, capsys, state="planned", **told())
    (plan,) = result["plans"]
    assert result["changed"] is False, "to plan is to change nothing"
    assert plan["changed"] is True
    assert plan["steps"][0] == f"pull the image {REFERENCES['a']}"
    assert plan["steps"][1:4] == ["start worker 1", "start worker 2", "start mail 1"]
    assert (plan["slot"], plan["current"], plan["held"], plan["unsettled"]) == ("a", "", False, False)
    assert plan["meant"]["image"] == {
        "identity": f"sha256:{'a' * 64}",
        "source": "registry",
        "reference": REFERENCES["a"],
    }
    assert engine.calls == []
    assert CANARY not in str(result)
    assert "DATABASE_URL" in str(result["diff"])
    assert "would: " not in str(result["diff"])


def test_a_plan_says_whether_the_nginx_beside_it_has_to_be_told(
    engine: Engine, capsys: Capsys, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(releases, "NGINX", str(host.path("nginx")))
    monkeypatch.setattr(transaction, "user_id", lambda _name: os.geteuid())
    monkeypatch.setattr(transaction, "group_id", lambda _name: os.getegid())
    host.unit("nginx.service", active=True, enabled=True)

    def plan(edge: str = "web1") -> dict[str, Any]:
        web = {"name": "web", "user": "10001", "port": 3000, "ready": {"path": "/"}}
        found: dict[str, Any] = run_module(
            module.main, capsys, state="planned", edge=edge, **told(processes=[web], ports="8100-8109")
        )["plans"][0]
        return found

    assert plan()["told"] is False
    assert not host.path("nginx").exists()
    service = module.nginx("shop", "web1", plan())
    transaction.converge(service, journal.Store(service.name))
    assert plan()["told"] is True
    assert plan(edge="")["told"] is False, "the nginx of another host knows what it knows"
    journal.Store(service.name).record({})
    assert plan()["told"] is False, "a run was killed before nginx took the files up"
    transaction.converge(service, journal.Store(service.name))
    assert plan()["told"] is True
    flag = host.path("nginx/shop.web.web1/b.on")
    flag.touch()
    assert plan()["told"] is False
    flag.rename(flag.with_name("a.0123"))
    assert plan()["told"] is False


def test_a_plan_says_whether_timers_have_to_be_brought(engine: Engine, capsys: Capsys, host: Host) -> None:
    file = {
        "dest": str(host.path("report.timer")),
        "content": base64.b64encode(b"[Timer]\n").decode(),
        "owner": str(os.geteuid()),
        "group": str(os.getegid()),
    }
    timers = {"timers": ["report.timer"], "files": [file]}

    def differ(given: dict[str, Any]) -> bool:
        return bool(run_module(module.main, capsys, state="planned", **given, **told())["timers_differ"])

    assert differ(timers)
    assert not differ({})
    host.write("report.timer", "[Timer]\n")
    host.unit("report.timer", active=True, enabled=True)
    assert differ(timers), "nothing says that it was taken up"
    service = module.scheduled({**timers, "files": [{**DEFAULTS, **file}], "directories": []})
    transaction.converge(service, journal.Store(service.name))
    assert not differ(timers)


def test_a_dry_run_answers_for_the_later_steps(engine: Engine, capsys: Capsys) -> None:
    for state in ("planned", "prepared", "committed", "withdrawn", "settled"):
        result = run_module(module.main, capsys, check=True, state=state, **told())
        assert result["changed"] is True
        assert "would: start worker 1\n" in result["diff"][0]["after"]
    assert engine.calls == []


def test_a_release_comes_into_service(engine: Engine, capsys: Capsys) -> None:
    plan = run_module(module.main, capsys, state="planned", **told())["plans"][0]
    prepared = run_module(module.main, capsys, state="prepared", meant=plan["meant"], image_file="/f", **told())
    assert prepared["changed"] is True
    assert len(prepared["token"]) == 32
    assert engine.calls[0] == "bring production/shop:aaaaaaaaaaaa /f"
    assert running(engine) == ["shop-mail-1-a", "shop-worker-1-a", "shop-worker-2-a"]
    committed = run_module(module.main, capsys, state="committed", meant=plan["meant"], **told())
    assert committed["plans"][0]["changed"] is False
    assert committed["plans"][0]["current"] == "a"
    assert (committed["changed"], committed["removed"]) == (False, [])
    again = run_module(module.main, capsys, check=True, state="planned", **told())
    assert (again["changed"], again["diff"]) == (False, [])


def test_the_next_one_replaces_it(engine: Engine, capsys: Capsys) -> None:
    deployed(capsys)
    committed = deployed(capsys, "b")
    assert committed["changed"] is True
    assert [one.split(" of ")[0] for one in committed["removed"]] == ["worker 1", "worker 2", "mail 1"]
    assert running(engine) == ["shop-mail-1-b", "shop-worker-1-b", "shop-worker-2-b"]


def test_what_was_rolled_back_is_held(engine: Engine, capsys: Capsys) -> None:
    deployed(capsys)
    deployed(capsys, "b")
    deployed(capsys, "b", back=True)
    result = run_module(module.main, capsys, state="planned", **told("b"))
    assert result["plans"][0]["held"] is True
    assert result["plans"][0]["changed"] is False
    forced = run_module(module.main, capsys, state="planned", force=True, **told("b"))
    assert (forced["plans"][0]["held"], forced["plans"][0]["changed"]) == (False, True)


def test_back_needs_a_release_before(engine: Engine, capsys: Capsys) -> None:
    deployed(capsys)
    result = run_module(module.main, capsys, state="planned", back=True, **told())
    assert result["failed"]
    assert result["msg"] == "shop: this host remembers no release before the present one"


def test_a_release_is_started_anew(engine: Engine, capsys: Capsys) -> None:
    deployed(capsys)
    another = run_module(module.main, capsys, state="planned", restart="another", **told())
    assert another["plans"][0]["changed"] is False
    every = run_module(module.main, capsys, state="planned", restart="*", **told())
    assert every["plans"][0]["changed"]
    plan = run_module(module.main, capsys, state="planned", restart="shop", **told())["plans"][0]
    assert (plan["slot"], plan["changed"]) == ("b", True)
    deployed(capsys, restart="shop")
    assert running(engine) == ["shop-mail-1-b", "shop-worker-1-b", "shop-worker-2-b"]
    assert run_module(module.main, capsys, state="planned", **told())["plans"][0]["changed"] is False


def test_another_number_of_replicas(engine: Engine, capsys: Capsys) -> None:
    deployed(capsys)
    deployed(capsys, scale={"shop": {"worker": "3"}})
    assert sum(name.startswith("shop-worker") for name in running(engine)) == 3
    result = run_module(module.main, capsys, state="planned", scale={"shop": {"web": 3}}, **told())
    assert result["msg"] == "shop has no process web that runs all the time"


def test_what_a_cut_short_deployment_has_left_is_removed(engine: Engine, capsys: Capsys) -> None:
    deployed(capsys)
    given = told("b")
    run_module(module.main, capsys, state="prepared", **given)
    assert run_module(module.main, capsys, state="planned", **told())["plans"][0]["unsettled"] is True
    settled = run_module(module.main, capsys, state="settled", **told())
    assert settled["changed"] is True
    assert len(settled["removed"]) == 3
    assert running(engine) == ["shop-mail-1-a", "shop-worker-1-a", "shop-worker-2-a"]


def test_a_release_is_withdrawn_and_the_task_fails(engine: Engine, capsys: Capsys) -> None:
    deployed(capsys)
    run_module(module.main, capsys, state="prepared", **told("b"))
    result = run_module(module.main, capsys, state="withdrawn", why="It answered 500.", **told("b"))
    assert result["failed"]
    assert result["msg"] == "shop was not deployed, and visitors have what they had before. It answered 500."
    assert running(engine) == ["shop-mail-1-a", "shop-worker-1-a", "shop-worker-2-a"]


def test_a_release_that_fails_tells_no_secret(engine: Engine, capsys: Capsys) -> None:
    migrate = {"command": ["fails"], "secrets": {"DATABASE_URL": ANOTHER}}
    result = run_module(module.main, capsys, state="prepared", **told(migrate=migrate))
    assert result["failed"]
    assert "migrate ended with 1: {'DATABASE_URL': '***'}" in result["msg"]
    assert "canary" not in json.dumps({**result, "invocation": None})
    without = told(migrate=migrate)
    assert not run_module(module.main, capsys, state="prepared", migrates=False, **without).get("failed")


def test_what_the_module_is_called_with_is_logged_without_variables(engine: Engine, capsys: Capsys) -> None:
    result = run_module(module.main, capsys, state="planned", **told())
    assert result["invocation"]["module_args"]["environments"] == "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"
    assert CANARY not in json.dumps(result)


@pytest.mark.parametrize(
    "given",
    [
        {"applications": [{"name": "shop"}]},
        {"applications": [{**told()["applications"][0], "more": 1}]},
        {"applications": [{"image": {}}]},
        {"applications": told()["applications"], "environments": "x"},
        {"applications": []},
    ],
)
def test_what_is_no_application(engine: Engine, capsys: Capsys, given: dict[str, Any]) -> None:
    result = run_module(module.main, capsys, state="prepared", **given)
    assert result["failed"]
    assert result["msg"].startswith("an application is not as app_model gives it: ")


# --- the controller's half -------------------------------------------------------------------------------------------


class Shell:
    def join_path(self, *parts: str) -> str:
        return "/".join(parts)


class Asked(action.ActionModule):
    """The action with the host replaced by a list of what it is told and sent."""

    def __init__(self, *, check: bool = False, **args: Any) -> None:
        self._task = type("Task", (), {"args": args, "check_mode": check})()
        self._connection = type("Connection", (), {"_shell": Shell()})()
        self.asked: list[dict[str, Any]] = []
        self.sent: list[tuple[str, str]] = []
        self.names: list[str] = []
        self.removed: list[str] = []

    def _execute_module(self, **kwargs: Any) -> dict[str, Any]:
        assert kwargs["module_name"] == "fushuma.production.app_release"
        self.asked.append(kwargs["module_args"])
        return {"changed": True, "invocation": {"module_args": CANARY}}

    def _make_tmp_path(self, remote_user: str | None = None) -> str:
        return "/remote"

    def _remove_tmp_path(self, tmp_path: str, force: bool = False) -> None:
        self.removed.append(tmp_path)

    def _transfer_file(self, local_path: str, remote_path: str) -> str:
        self.sent.append((local_path, remote_path))
        if tarfile.is_tarfile(local_path):
            with tarfile.open(local_path) as archive:
                self.names = archive.getnames()
        return remote_path

    def _fixup_perms2(self, remote_paths: Any, remote_user: str | None = None, execute: bool = True) -> None:
        assert remote_paths == ("/remote", "/remote/image.tar")


@pytest.fixture(autouse=True)
def no_base(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(action.ActionBase, "run", lambda *_args: {})


def application(source: str, reference: str) -> dict[str, Any]:
    image = {"identity": "sha256:0123", "source": source, "reference": reference}
    return {"name": "shop", "image": image, "processes": [{"name": "web", "environment": {"A": CANARY}}]}


def test_variables_go_apart_from_what_is_logged() -> None:
    given = [application("registry", "x"), {"name": "bare", "processes": [{"name": "worker"}]}]
    bare, environments = action.apart(given)
    assert CANARY not in str(bare)
    assert bare[0]["processes"] == [{"name": "web"}]
    assert json.loads(base64.b64decode(environments)) == {"shop": {"web": {"A": CANARY}}, "bare": {"worker": {}}}
    assert given[0]["processes"][0]["environment"] == {"A": CANARY}, "what was given is as it was"


def test_an_image_of_a_registry_is_not_sent() -> None:
    task = Asked(state="prepared", applications=[application("registry", "x")])
    assert task.run() == {"changed": True}, "what it was called with does not come back"
    (args,) = task.asked
    assert "image_file" not in args
    assert (task.sent, task.removed) == ([], [])
    assert json.loads(base64.b64decode(args["environments"])) == {"shop": {"web": {"A": CANARY}}}


def test_what_runs_at_its_time_is_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    rendered = [Rendered(dest="/a", content=b"x", attributes={"mode": "0644"})]
    monkeypatch.setattr(action.Renderer, "render", lambda _self, _files: (rendered, "digest"))
    task = Asked(state="planned", applications=[], timers=["a.timer"], files=[{"dest": "/a"}])
    task._templar = None
    task.run()
    (file,) = task.asked[0]["files"]
    assert (file["dest"], base64.b64decode(file["content"])) == ("/a", b"x")
    assert task.asked[0]["timers"] == ["a.timer"]


def test_an_archive_is_sent_and_removed() -> None:
    task = Asked(state="prepared", applications=[application("archive", "/here/image.tar")])
    task._transfer_file = lambda local, remote: task.sent.append((local, remote))  # type: ignore[method-assign]
    task.run()
    assert task.sent == [("/here/image.tar", "/remote/image.tar")]
    assert task.asked[0]["image_file"] == "/remote/image.tar"
    assert task.removed == ["/remote"]


def test_what_is_built_is_sent_as_an_archive(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n", "utf-8")
    meant = {
        "image": {"identity": "build:0", "source": "build", "reference": str(tmp_path)},
        "variant": "",
        "scale": {},
    }
    task = Asked(state="prepared", applications=[application("registry", "x")], meant=meant)
    task.run()
    assert task.names == ["Dockerfile"]
    assert not Path(task.sent[0][0]).exists()
    assert task.asked[0]["image_file"] == "/remote/image.tar"


@pytest.mark.parametrize(
    "more", [{"state": "planned"}, {"state": "prepared", "send": False}, {"state": "prepared", "check": True}]
)
def test_nothing_is_sent_that_is_not_needed(more: dict[str, Any]) -> None:
    task = Asked(applications=[application("archive", "/here/image.tar")], **more)
    task.run()
    assert (task.sent, task.removed) == ([], [])
