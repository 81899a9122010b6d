# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the app role's settings mean: containers and their rights, environments, images, exports, and what nginx is
told."""

from __future__ import annotations

import datetime
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible.template import trust_as_template
from ansible_collections.fushuma.production.plugins.filter import app as plugin
from ansible_collections.fushuma.production.plugins.module_utils import releases
from ansible_collections.fushuma.production.plugins.modules.app_release import application_from
from ansible_collections.fushuma.production.plugins.modules.service_config import PROBE_SPEC
from ansible_collections.fushuma.production.plugins.plugin_utils import app_model as model
from ansible_collections.fushuma.production.plugins.plugin_utils import specs

from ..roles.render import Role, templar

OPTIONS = specs.role_options("app")
DIGEST = "sha256:" + "0123456789abcdef" * 4
REFERENCE = f"registry.fushuma.com/shop@{DIGEST}"
CANARY = "canary-1f0e9d8c7b6a"
WEB = {"name": "web", "port": 3000, "ready": {"path": "/ready"}}
WORKER = {"name": "worker", "command": ["node", "worker.js"]}
REPORT = {"name": "report", "schedule": "*-*-* 03:30"}


def shop(**settings: Any) -> dict[str, Any]:
    return {"name": "shop", "image": {"reference": REFERENCE}, "processes": [WEB], **settings}


def filled(*apps: dict[str, Any]) -> dict[str, Any]:
    return specs.filled(OPTIONS, {"app_applications": list(apps)})


def app(**settings: Any) -> dict[str, Any]:
    """One application with all defaults."""
    found: dict[str, Any] = filled(shop(**settings))["app_applications"][0]
    return found


def options(**settings: Any) -> list[str]:
    """The arguments of a container of one process."""
    one = app(processes=[{"name": "web", **settings}])
    return model.options_of(one, one["processes"][0])


# --- containers ------------------------------------------------------------------------------------------------------


def test_a_container_has_no_more_rights_than_it_needs() -> None:
    assert options() == [
        "--read-only",
        "--tmpfs=/tmp:rw,noexec,nosuid,nodev,size=64m",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        "--pids-limit=256",
        "--memory=512m",
        "--memory-swap=512m",
    ]


@pytest.mark.parametrize(
    ("settings", "there", "gone"),
    [
        ({"user": "10001:10001"}, ["--user=10001:10001"], []),
        ({"read_only": False}, [], ["--read-only"]),
        ({"tmpfs": []}, [], ["--tmpfs=/tmp:rw,noexec,nosuid,nodev,size=64m"]),
        ({"capabilities": ["CHOWN", "SETUID"]}, ["--cap-drop=ALL", "--cap-add=CHOWN", "--cap-add=SETUID"], []),
        ({"pids": 9}, ["--pids-limit=9"], []),
        ({"memory": "2g"}, ["--memory=2g", "--memory-swap=2g"], []),
        ({"cpus": 1.5}, ["--cpus=1.5"], []),
        ({"cpus": 2}, ["--cpus=2"], []),
        (
            {"volumes": [{"source": "up", "target": "/u"}, {"source": "/s", "target": "/t", "read_only": True}]},
            ["--volume=up:/u", "--volume=/s:/t:ro"],
            [],
        ),
    ],
)
def test_rights_and_limits(settings: dict[str, Any], there: list[str], gone: list[str]) -> None:
    found = options(**settings)
    assert [one for one in found if one in there] == there
    assert not set(found) & set(gone)


def test_names_that_containers_know() -> None:
    one = app(hosts={"redis": "172.30.1.1", "db": "10.0.1.31"})
    assert model.options_of(one, one["processes"][0])[-2:] == ["--add-host=db:10.0.1.31", "--add-host=redis:172.30.1.1"]


def test_an_application_is_what_releases_take() -> None:
    settings = filled(
        shop(
            processes=[WEB, {**WORKER, "single": True, "stop_timeout": 5}, {**REPORT, "values": {"MODE": "report"}}],
            env=[{"name": "MODE", "default": "usual"}, {"name": "DATABASE_URL", "secret": True}],
            secrets={"DATABASE_URL": CANARY},
            migrate={"command": ["migrate"], "timeout": 9, "secrets": {"DATABASE_URL": f"{CANARY}-owner"}},
            address="[fd00::21]",
            ports="8100-8103",
            keep=2,
        )
    )
    (told,) = model.model(settings)
    found = application_from(told, {one["name"]: one.pop("environment") for one in told["processes"]})
    assert found.image == releases.Image(DIGEST, "registry", REFERENCE)
    assert [(one.name, one.kind, one.replicas, one.single) for one in found.processes] == [
        ("web", "service", 1, False),
        ("worker", "service", 1, True),
        ("report", "scheduled", 0, False),
        ("migrate", "migration", 1, False),
    ]
    assert found.processes[0].ready == {"path": "/ready", "status": 200, "body": ""}
    assert (found.processes[1].command, found.processes[1].stop_timeout) == (["node", "worker.js"], 5)
    assert found.processes[2].environment == {"MODE": "report", "DATABASE_URL": CANARY}
    assert found.migration is not None
    assert found.migration.environment == {"MODE": "usual", "DATABASE_URL": f"{CANARY}-owner"}
    assert found.migration.options == found.processes[0].options
    assert (found.migration.command, found.migration.timeout) == (["migrate"], 9)
    assert found.addresses == {"web": {"a": ["[fd00::21]:8100"], "b": ["[fd00::21]:8102"]}}
    assert (found.network, found.subnet, found.keep) == ("shop", "", 2)


def test_what_there_may_be_one_of_runs_on_the_first_host() -> None:
    single = {**WORKER, "single": True}
    settings = filled(shop(processes=[single, WEB, {**REPORT, "single": True}], migrate={"command": ["migrate"]}))
    assert [one["name"] for one in model.model(settings)[0]["processes"]] == ["worker", "web", "report", "migrate"]
    assert [one["name"] for one in model.model(settings, first=False)[0]["processes"]] == ["web", "migrate"]
    assert model.scheduled(settings, first=False) == []
    assert [one["what"] for one in model.exports(settings, "app2", first=False)["memory"]] == ["2 x 512m of shop web"]


def test_a_host_without_any_process_migrates_nothing() -> None:
    settings = filled(shop(processes=[{**WORKER, "single": True}], migrate={"command": ["migrate"]}))
    assert model.model(settings, first=False)[0]["processes"] == []


# --- the environment -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("str", "a b", "a b"),
        ("str", 5, "5"),
        ("int", 5, "5"),
        ("float", 0.5, "0.5"),
        ("bool", True, "true"),
        ("bool", "false", "false"),
        ("list", ["a", 1], "a,1"),
        ("list", ("a",), "a"),
        ("list", "a,b", "a,b"),
        ("json", {"b": 1, "a": [True]}, '{"a": [true], "b": 1}'),
        ("json", '{"b": 1}', '{"b": 1}'),
        ("json", False, "false"),
        ("json", {"day": datetime.date(2026, 1, 31)}, '{"day": "2026-01-31"}'),
    ],
)
def test_values_as_a_program_reads_them(kind: str, value: Any, text: str) -> None:
    assert model.text_of(kind, value) == text


def test_whose_value_counts() -> None:
    one = app(
        env=[{"name": name, "default": "default"} for name in "ABCDE"] + [{"name": "F", "required": False}],
        values={"B": "all", "C": "all", "D": "all", "E": None},
        secrets={"C": "hidden", "D": "hidden"},
    )
    assert model.environment_of(one, {"D": "own"}, {}) == {
        "A": "default",
        "B": "all",
        "C": "hidden",
        "D": "own",
        "E": "default",
    }
    assert model.environment_of(one, {"D": "own"}, {"D": "owner's"})["D"] == "owner's"


def test_nothing_but_declared_variables_reaches_a_container() -> None:
    assert model.environment_of(app(values={"B": "x"}), {"C": "y"}, {}) == {}


EXAMPLE = """\
# Where the data is, url, required, secret
DATABASE_URL=

# Seconds to wait, and no more, int, optional
WAIT=30

# str, optional, as [a-z]+
NAME=

# bool, optional
DEBUG=false
"""


def test_containers_are_told_where_errors_go() -> None:
    dsns = [
        {"application": "other", "dsn": "https://a@errors.fushuma.com/3"},
        {"application": "shop", "dsn": "https://b@errors.fushuma.com/2", "environment": "stage"},
    ]
    own = {"env": [{"name": "SENTRY_ENVIRONMENT"}, {"name": "SENTRY_DSN"}], "values": {"SENTRY_ENVIRONMENT": "own"}}
    settings = {"app_applications": [shop(**own, processes=[WEB, WORKER])], "app_dsns": dsns}
    (one,) = plugin.app_model(settings)
    assert [process["environment"] for process in one["processes"]] == [
        {
            "SENTRY_DSN": "https://b@errors.fushuma.com/2",
            "SENTRY_ENVIRONMENT": "own",
            "SENTRY_RELEASE": "shop@@image@",
        }
    ] * 2
    application = application_from(one, {process["name"]: process.pop("environment") for process in one["processes"]})
    told = releases.known_to(application.processes[0], application)
    assert told["SENTRY_RELEASE"] == "shop@0123456789ab"
    assert "SENTRY_RELEASE" not in plugin.app_model({"app_applications": [shop()]})[0]["processes"][0]["environment"]


def test_an_example_of_the_environment_has_no_secret() -> None:
    one = app(
        env=[
            {"name": "DATABASE_URL", "type": "url", "secret": True, "description": "Where the data is."},
            {"name": "WAIT", "type": "int", "default": 30, "description": "Seconds to wait,\n  and no more\n"},
            {"name": "NAME", "required": False, "pattern": "[a-z]+"},
            {"name": "DEBUG", "type": "bool", "default": False},
        ],
        secrets={"DATABASE_URL": CANARY},
        values={"WAIT": 60},
    )
    assert model.example(one) == EXAMPLE


# --- images ----------------------------------------------------------------------------------------------------------


def archive(path: Path, manifest: object, name: str = "manifest.json", mode: str = "w") -> dict[str, Any]:
    """An image's setting with an archive that has this manifest; bytes stand as they are."""
    content = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    with tarfile.open(path, mode) as file:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        file.addfile(info, io.BytesIO(content))
    return {"reference": None, "archive": str(path), "build": None}


@pytest.mark.parametrize("config", ["0123abc.json", "blobs/sha256/0123abc"])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_an_archive_says_which_image_it_holds(tmp_path: Path, config: str, mode: str) -> None:
    image = archive(tmp_path / "image.tar", [{"Config": config, "RepoTags": ["shop:1"]}], mode=mode)
    assert model.image_of(image) == {
        "identity": "sha256:0123abc",
        "source": "archive",
        "reference": str(tmp_path / "image.tar"),
    }


def test_an_archive_that_has_changed_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    before = model.image_of(archive(path, [{"Config": "one.json"}]))
    os.utime(path, (1, 1))
    assert model.image_of(archive(path, [{"Config": "two.json"}]))["identity"] != before["identity"]


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ([], "holds 0 images, not one"),
        ([{"Config": "a.json"}, {"Config": "b.json"}], "holds 2 images, not one"),
        (b"{", "is no archive as `docker save` makes it"),
        (b"\xff\xfe\xff", "is no archive as `docker save` makes it"),
        ([{}], "is no archive as `docker save` makes it"),
        ([5], "is no archive as `docker save` makes it"),
        (5, "is no archive as `docker save` makes it"),
    ],
)
def test_archives_of_something_else(tmp_path: Path, manifest: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        model.image_of(archive(tmp_path / "image.tar", manifest))


def test_files_that_are_no_archive(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        model.image_of({"reference": None, "archive": str(tmp_path / "none.tar")})
    with pytest.raises(ValueError, match=r"is no archive as `docker save` makes it"):
        model.image_of(archive(tmp_path / "other.tar", [{"Config": "a.json"}], name="repositories"))
    with tarfile.open(tmp_path / "folder.tar", "w") as file:
        info = tarfile.TarInfo("manifest.json")
        info.type = tarfile.DIRTYPE
        file.addfile(info)
    with pytest.raises(ValueError, match="holds 0 images"):
        model.image_of({"reference": None, "archive": str(tmp_path / "folder.tar")})


def test_an_archive_that_is_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "image.tar.gz"
    image = archive(path, [{"Config": "a.json", "RepoTags": [os.urandom(20000).hex()]}], mode="w:gz")
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"is no archive as `docker save` makes it"):
        model.image_of(image)


def test_a_reference_needs_a_digest() -> None:
    assert model.image_of({"reference": REFERENCE}) == {
        "identity": DIGEST,
        "source": "registry",
        "reference": REFERENCE,
    }
    with pytest.raises(ValueError, match="has no digest"):
        model.image_of({"reference": "registry.fushuma.com/shop:1"})


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """What an image is built of."""
    folder = tmp_path / "context"
    for name, text in (("Dockerfile", "FROM scratch\n"), ("src/a.js", "a"), (".git/HEAD", "x"), ("src/.svn/y", "y")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    (folder / "src" / "b.js").symlink_to("a.js")
    return folder


def test_a_build_is_known_by_what_it_is_built_of(context: Path) -> None:
    image = model.image_of({"reference": None, "archive": None, "build": str(context)})
    assert image == {"identity": f"build:{model.digest_of(context)}", "source": "build", "reference": str(context)}


Change = Callable[[Path], object]


@pytest.mark.parametrize(
    ("change", "another"),
    [
        (lambda folder: (folder / ".git" / "HEAD").write_text("z"), False),
        (lambda folder: (folder / "empty").mkdir(), False),
        (lambda folder: os.utime(folder / "src" / "a.js", (1, 1)), False),
        (lambda folder: (folder / "src" / "a.js").write_text("z"), True),
        (lambda folder: (folder / "src" / "a.js").chmod(0o755), True),
        (lambda folder: (folder / "src" / "a.js").rename(folder / "src" / "c.js"), True),
        (lambda folder: (folder / "new").touch(), True),
        (lambda folder: ((folder / "src" / "b.js").unlink(), (folder / "src" / "b.js").symlink_to("x")), True),
        (lambda folder: ((folder / "src" / "b.js").unlink(), (folder / "src" / "b.js").write_text("a.js")), True),
    ],
)
def test_what_makes_another_build(context: Path, change: Change, another: bool) -> None:
    before = model.digest_of(context)
    change(context)
    assert (model.digest_of(context) != before) is another


def test_what_is_sent_to_be_built(context: Path, tmp_path: Path) -> None:
    model.write_context(context, tmp_path / "context.tar")
    with tarfile.open(tmp_path / "context.tar") as file:
        assert sorted(file.getnames()) == ["Dockerfile", "src/a.js", "src/b.js"]
        assert file.getmember("src/b.js").linkname == "a.js"


# --- what others need to know ----------------------------------------------------------------------------------------


def test_exports() -> None:
    pool = {"host": "db1", "processes": 2, "pools": 3, "limit": 10}
    uploads = [{"source": "uploads", "target": "/u"}, {"source": "/srv/read", "target": "/r", "read_only": True}]
    settings = filled(
        shop(
            processes=[
                {**WEB, "replicas": 2, "connections": [pool], "volumes": uploads},
                {**WORKER, "single": True, "memory": "1g", "volumes": [{"source": "/srv/w", "target": "/w"}]},
                {**REPORT, "memory": "64k", "connections": [{"host": "db1", "limit": 1}]},
            ],
            address="10.0.1.21",
            **{"from": ["10.0.1.0/24"]},
        ),
        {**shop(processes=[WORKER]), "name": "other"},
    )
    found = model.exports(settings, "app1")
    place = "app_applications[0]"
    assert found["listens"] == [
        {
            "port": "8100-8119",
            "address": "10.0.1.21",
            "from": ["10.0.1.0/24"],
            "published": True,
            "setting": f"{place}.ports",
        }
    ]
    assert found["connections"] == [
        {**pool, "who": "shop web on app1, two releases", "replicas": 4},
        {"host": "db1", "processes": 1, "pools": 1, "limit": 1, "who": "shop report on app1", "replicas": 1},
    ]
    assert found["health"][1] == {"name": "application other", "units": ["docker.service"]}
    assert [one["job"] for one in found["logs"]] == ["shop", "other"]
    assert found["backup"] == [{"kind": "path", "path": "/srv/w"}, {"kind": "volume", "volume": "uploads"}]
    assert [(one["setting"], one["bytes"], one["what"]) for one in found["memory"]] == [
        (f"{place}.processes[0].memory", 4 * 512 * 1024**2, "4 x 512m of shop web"),
        (f"{place}.processes[1].memory", 1024**3, "1 x 1g of shop worker"),
        (f"{place}.processes[2].memory", 64 * 1024, "1 x 64k of shop report"),
        ("app_applications[1].processes[0].memory", 2 * 512 * 1024**2, "2 x 512m of other worker"),
    ]


def test_where_processes_tell_their_own_figures() -> None:
    settings = filled(
        shop(
            processes=[
                {**WEB, "replicas": 2, "metrics": "/metrics"},
                {**WORKER, "port": 4000, "ready": {"path": "/ready"}, "metrics": "/figures"},
                {**WORKER, "name": "quiet"},
                REPORT,
            ],
            address="[fd00::1]",
        ),
    )
    web, worker = model.exports(settings, "app1")["metrics"]
    assert web == {
        "job": "app",
        "name": "shop",
        "process": "web",
        "address": "fd00::1",
        "ports": [8100, 8101, 8110, 8111],
        "path": "/metrics",
    }
    assert (worker["process"], worker["ports"], worker["path"]) == ("worker", [8102, 8112], "/figures")


def test_the_role_exports_it() -> None:
    role = Role("app", {"app_applications": [shop(processes=[WEB, REPORT])], "groups": {"app": ["web1"]}})
    assert role.exports == model.exports(filled(shop(processes=[WEB, REPORT])), "web1")


def test_timers_of_the_role() -> None:
    files = Role("app", {"app_applications": [shop(processes=[WEB, REPORT])], "groups": {}}).files
    assert "OnCalendar=*-*-* 03:30\n" in files["/etc/systemd/system/app-shop-report.timer"]
    assert (
        "ExecStart=/usr/bin/python3 /usr/local/lib/app-run.py shop report\n"
        in files["/etc/systemd/system/app-shop-report.service"]
    )
    compile(files["/usr/local/lib/app-run.py"], "app-run", "exec")
    assert Role("app", {"app_applications": [shop()], "groups": {}}).files == {}


def test_what_runs_at_its_time() -> None:
    assert model.scheduled(filled(shop(processes=[WEB, REPORT]))) == [
        {"unit": "shop-report", "application": "shop", "process": "report", "schedule": "*-*-* 03:30"}
    ]


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("8100-8119", (8100, 8119)),
        ("8100", (8100, 8100)),
        ("8100-", (0, -1)),
        ("-8100", (0, -1)),
        ("", (0, -1)),
        ("²-9", (0, -1)),
        ("1-2-3", (0, -1)),
    ],
)
def test_ports(text: str, ports: tuple[int, int]) -> None:
    assert model.ports_of(text) == ports


@pytest.mark.parametrize(("text", "size"), [("1k", 1024), ("512m", 512 * 1024**2), ("2g", 2 * 1024**3), ("0m", 0)])
def test_sizes(text: str, size: int) -> None:
    assert model.bytes_of(text) == size


# --- visitors --------------------------------------------------------------------------------------------------------

FOLDER = "/etc/nginx/applications/shop.web.app1"
ADDRESSES = {"web": {"a": ["127.0.0.1:8100"], "b": ["127.0.0.1:8110", "127.0.0.1:8111"]}}
TOKEN = "0123456789abcdef" * 2


def flags(**told: Any) -> dict[str, bool]:
    """The files that nginx looks for with each request, and whether they are there."""
    found = model.switch(app(), "app1", ADDRESSES, **told)["files"]
    assert all(one["on_change"] == "nothing" for one in found if not one["dest"].endswith(".servers"))
    return {
        one["dest"].removeprefix(f"{FOLDER}/"): one.get("state") != "absent"
        for one in found
        if not one["dest"].endswith(".servers")
    }


def test_nginx_knows_the_addresses_of_both_slots() -> None:
    found = model.switch(app(), "app1", ADDRESSES, "a", patience=45)
    assert found["directories"] == [{"path": FOLDER, "group": "www-data", "mode": "0750", "prune": True}]
    assert found["files"][:2] == [
        {"dest": f"{FOLDER}/a.servers", "content": "server 127.0.0.1:8100 max_fails=0;\n"},
        {"dest": f"{FOLDER}/b.servers", "content": "server 127.0.0.1:8110;\nserver 127.0.0.1:8111;\n"},
    ]
    assert found["probe"] == [
        {"unit": "nginx.service", "newer": [f"{FOLDER}/{slot}.servers" for slot in "ab"], "timeout": 45}
    ]


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ({"slot": ""}, {"b.on": False}),
        ({"slot": "a"}, {"b.on": False}),
        ({"slot": "b"}, {"b.on": True}),
        ({"slot": "a", "tried": "b", "token": TOKEN}, {"b.on": False, f"b.{TOKEN}": True}),
        ({"slot": "b", "tried": "a", "token": TOKEN}, {"b.on": True, f"a.{TOKEN}": True}),
        ({"slot": "b", "token": TOKEN}, {"b.on": True, f"b.{TOKEN}": False}),
    ],
)
def test_which_slot_answers(told: dict[str, Any], found: dict[str, bool]) -> None:
    assert flags(**told) == found


def test_what_a_release_has_to_answer_through_nginx() -> None:
    smoke = [
        {"url": "https://www.fushuma.com/", "headers": {"Content-Security-Policy": "script-src"}, "body": "Shop"},
        {"url": "https://www.fushuma.com:8443/a", "status": 302, "trusted": False},
        {"url": "https://www.fushuma.com/b", "address": "10.0.1.11:443"},
    ]
    one = app(smoke=smoke)
    first, other, third = model.switch(one, "app1", ADDRESSES, "a", tried="b", token=TOKEN, asks=True)["probe"][1:]
    assert first == {
        "http": "https://www.fushuma.com/",
        "address": "127.0.0.1:443",
        "headers": {"X-Production-Candidate": TOKEN},
        "expects": {"Content-Security-Policy": "script-src"},
        "status": 200,
        "body": "Shop",
        "trusted": True,
    }
    assert (other["address"], other["status"], other["trusted"]) == ("127.0.0.1:8443", 302, False)
    assert third["address"] == "10.0.1.11:443"
    # Visitors have no token.
    asked = model.switch(one, "app1", ADDRESSES, "b", token=TOKEN, asks=True)["probe"][1:]
    assert [probe["headers"] for probe in asked] == [{}, {}, {}]
    assert len(model.switch(one, "app1", ADDRESSES, "b")["probe"]) == 1


def test_service_config_takes_what_nginx_is_asked() -> None:
    probes = model.switch(app(smoke=[{"url": "https://a/"}]), "app1", ADDRESSES, "a", asks=True)["probe"]
    assert {key for probe in probes for key in probe} <= set(PROBE_SPEC)


# --- the filters -----------------------------------------------------------------------------------------------------

FILTERS = plugin.FilterModule().filters()
SETTINGS = {"app_applications": [shop(processes=[WEB, REPORT], env=[{"name": "A", "default": "x"}])]}
MORE: dict[str, tuple[Any, ...]] = {
    "app_exports": ("app1",),
    "app_switch": ("shop", "app1", ADDRESSES, "a"),
    "app_env_example": ("shop",),
}


def test_filters_fill_in_defaults() -> None:
    full = specs.filled(OPTIONS, SETTINGS)
    assert FILTERS["app_model"](SETTINGS) == model.model(full)
    assert FILTERS["app_exports"](SETTINGS, "app1") == model.exports(full, "app1")
    assert FILTERS["app_scheduled"](SETTINGS) == model.scheduled(full)
    assert FILTERS["app_env_example"](SETTINGS, "shop") == "# str, optional\nA=x\n"
    told = FILTERS["app_switch"](SETTINGS, "shop", "app1", ADDRESSES, "a", patience=9)
    assert told == model.switch(full["app_applications"][0], "app1", ADDRESSES, "a", patience=9)


def test_a_filter_is_called_by_its_full_name() -> None:
    found = templar({"settings": SETTINGS}).evaluate_expression(
        trust_as_template("(settings | fushuma.production.app_model(first=false))[0].name")
    )
    assert found == "shop"


@pytest.mark.parametrize("name", sorted(FILTERS))
def test_settings_that_are_none(name: str) -> None:
    with pytest.raises(AnsibleFilterError, match=f"^{name}: expects the role's settings as a dict, not list$"):
        FILTERS[name]([], *MORE.get(name, ()))
    if name == "app_exports":
        return
    with pytest.raises(AnsibleFilterError, match=rf"^{name}: app_applications\[0\].image is missing: "):
        FILTERS[name]({"app_applications": [{"name": "shop", "processes": []}]}, *MORE.get(name, ()))


def test_what_is_right_counts_for_others_where_something_else_is_wrong() -> None:
    (app,) = SETTINGS["app_applications"]
    wrong = {"app_applications": [{**app, "unknown": 1}]}
    assert FILTERS["app_exports"](wrong, "app1") == FILTERS["app_exports"](SETTINGS, "app1")
    with pytest.raises(AnsibleFilterError, match=r"^app_exports: "):
        FILTERS["app_exports"]({"app_applications": [{**app, "ports": 5, "processes": [{"replicas": "many"}]}]}, "app1")


@pytest.mark.parametrize("name", ["app_switch", "app_env_example"])
def test_an_application_that_nobody_knows(name: str) -> None:
    with pytest.raises(AnsibleFilterError, match=f"^{name}: there is no application other$"):
        FILTERS[name](SETTINGS, "other", *MORE[name][1:])


def test_an_image_that_cannot_be_read() -> None:
    with pytest.raises(AnsibleFilterError, match=r"^app_model: .*/no/such.tar"):
        FILTERS["app_model"]({"app_applications": [shop(image={"archive": "/no/such.tar"})]})
    with pytest.raises(AnsibleFilterError, match=r"^app_model: shop:1 has no digest$"):
        FILTERS["app_model"]({"app_applications": [shop(image={"reference": "shop:1"})]})


@pytest.mark.parametrize("name", ["app_exports", "app_scheduled"])
def test_pages_name_what_filters_give(name: str) -> None:
    page = yaml.safe_load(Path(plugin.__file__).with_name(f"{name}.yml").read_text("utf-8"))
    found = FILTERS[name](SETTINGS, *MORE.get(name, ()))
    keys = set(found if isinstance(found, dict) else found[0])
    described = page["RETURN"]["_value"]["description"]
    assert "C({" + ", ".join(found if isinstance(found, dict) else found[0]) + "})" in described, keys
