# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Docker's command line: what each call says, and what is read out of its answers."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.module_utils import docker_api, engine
from ansible_collections.fushuma.production.plugins.module_utils.engine import Docker, condition_of, container_of
from ansible_collections.fushuma.production.plugins.module_utils.journal import Finished, TransactionError
from ansible_collections.fushuma.production.plugins.module_utils.releases import (
    Application,
    Condition,
    Container,
    Image,
    Process,
)

from .conftest import Api

CANARY = "canary-1f0e9d8c7b6a"
REFERENCE = "registry.fushuma.com/shop@sha256:" + "0123456789abcdef" * 4
IMAGE = Image("sha256:" + "0123456789abcdef" * 4, "registry", REFERENCE)
WEB = Process(
    "web",
    ("node", "web.js"),
    ("--read-only", "--cap-drop=ALL"),
    port=3000,
    stop_timeout=9,
    environment={"DATABASE_URL": CANARY},
)
SHOP = Application("shop", IMAGE, (WEB,), network="shop", address="10.0.1.21")
ID = "4f0c" * 16


@dataclass
class Program:
    """Docker's program: its answers by the beginning of what it is told, and what it was told."""

    answers: dict[str, tuple[int, str]] = field(default_factory=dict)
    told: list[list[str]] = field(default_factory=list)
    seconds: list[float | None] = field(default_factory=list)

    def __call__(self, argv: Sequence[str], timeout: float | None = None) -> Finished:
        self.told.append(list(argv))
        self.seconds.append(timeout)
        said = " ".join(argv)
        code, output = next((answer for begin, answer in self.answers.items() if said.startswith(begin)), (0, ""))
        return Finished(argv, code, output)

    @property
    def lines(self) -> list[str]:
        return [" ".join(argv) for argv in self.told]


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Program:
    found = Program()
    monkeypatch.setattr(engine, "run", found)
    monkeypatch.setattr(engine, "must", found)
    return found


def container(**more: Any) -> Container:
    told = {"port": 8100, "inside": 3000, **more}
    return Container("shop-web-1-a", "shop", "web", "5d1f0c7a9b3e", "a", 1, **told)


# --- containers ------------------------------------------------------------------------------------------------------


def row(container: Container, **more: Any) -> dict[str, Any]:
    """A container as the API of Docker 26 lists it."""
    ours = {f"production.{key}": value for key, value in engine.labels_of(container).items()}
    return {
        "Id": ID,
        "Names": [f"/{container.id}"],
        "Image": "production/shop:0123456789ab",
        "ImageID": "sha256:" + "0123456789abcdef" * 4,
        "Command": "node web.js",
        "Created": 1769860800,
        "Ports": [{"IP": "10.0.1.21", "PrivatePort": 3000, "PublicPort": 8100, "Type": "tcp"}],
        "Labels": {"maintainer": "a, b=c", **ours, "org.opencontainers.image.title": "shop"},
        "State": "running",
        "Status": "Up 2 minutes",
        **more,
    }


def told_of(one: Container, **more: Any) -> Container | None:
    return container_of(row(one, **more))


def test_labels_say_whose_a_container_is() -> None:
    for one in (container(), container(port=None, inside=None, single=True)):
        found = told_of(one)
        assert found is not None
        assert found == Container(**{**vars(one), "id": ID})
    stopped = told_of(container(), State="exited")
    assert stopped is not None
    assert not stopped.running
    assert container_of({"Id": ID, "Labels": None, "State": "running"}) is None
    assert container_of({"Id": ID, "Labels": {"production.application": "shop"}, "State": "running"}) is None


def test_containers_come_the_oldest_first(docker_daemon: type[Api]) -> None:
    other = {"Id": "b" * 64, "Labels": {"production.application": "shop"}, "State": "running"}
    docker_daemon.answers["/containers/json"] = [row(container(), Id="a" * 64), other, row(container(), Id="c" * 64)]
    assert [one.id for one in Docker().containers()] == ["c" * 64, "a" * 64]
    assert docker_daemon.asked == ['/containers/json?all=1&filters={"label": ["production.application"]}']


def test_a_host_without_docker(docker_daemon: type[Api], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TransactionError, match=r"^Docker answers /images/json with 404: /images/json not found$"):
        Docker().tags("shop")
    docker_daemon.answers["/images/json"] = b"no JSON"
    with pytest.raises(TransactionError, match=r"^Docker does not answer at .*/docker.sock: Expecting value"):
        Docker().tags("shop")
    monkeypatch.setattr(docker_api, "SOCKET", "/nowhere/docker.sock")
    assert Docker(absent_ok=True).containers() == []
    with pytest.raises(TransactionError, match=r"^Docker does not answer at /nowhere/docker.sock: .*No such file"):
        Docker().containers()


NOW = datetime.datetime(2026, 1, 31, 12, 0, 30, tzinfo=datetime.UTC)
STATE = {"Running": True, "Restarting": False, "Pid": 4711, "StartedAt": "2026-01-31T12:00:00.123456789Z"}


@pytest.mark.parametrize(
    ("state", "more", "found"),
    [
        ({}, {}, Condition(True, 30.0, 0, "", 4711)),
        ({}, {"RestartCount": 2}, Condition(True, 30.0, 2, "", 4711)),
        ({"Health": {"Status": "starting", "FailingStreak": 0}}, {}, Condition(True, 30.0, 0, "starting", 4711)),
        ({"Health": {"Status": "none"}}, {}, Condition(True, 30.0, 0, "", 4711)),
        ({"Health": None}, {}, Condition(True, 30.0, 0, "", 4711)),
        ({"Restarting": True}, {}, Condition(False, 30.0, 0, "", 4711)),
        ({"Running": False, "Pid": 0}, {}, Condition(False, 30.0, 0, "", 0)),
        # One that was created and never started.
        ({"StartedAt": "0001-01-01T00:00:00Z", "Running": False, "Pid": 0}, {}, Condition(False, 0, 0, "", 0)),
    ],
)
def test_how_a_container_does(program: Program, state: dict[str, Any], more: dict[str, Any], found: Condition) -> None:
    condition = condition_of({"State": {**STATE, **state}, **more}, NOW)
    assert (condition.running, condition.restarts, condition.health, condition.pid) == (
        found.running,
        found.restarts,
        found.health,
        found.pid,
    )
    assert condition.age == found.age or condition.age > 10**9


def test_a_container_is_asked(program: Program) -> None:
    program.answers["docker container inspect"] = (0, json.dumps([{"State": STATE}]))
    assert Docker().condition(ID).pid == 4711
    assert program.lines == [f"docker container inspect {ID}"]


def test_what_a_container_is_made_of(program: Program) -> None:
    program.answers["docker create"] = (0, f"WARNING: no swap limit\n{ID}")
    assert Docker().create(container(), SHOP, WEB, "/state/x.web.env") == ID
    assert program.told == [
        [
            "docker",
            "create",
            "--name=shop-web-1-a",
            "--restart=unless-stopped",
            "--stop-timeout=9",
            "--label=production.application=shop",
            "--label=production.process=web",
            "--label=production.release=5d1f0c7a9b3e",
            "--label=production.slot=a",
            "--label=production.replica=1",
            "--label=production.port=8100",
            "--label=production.inside=3000",
            "--publish=10.0.1.21:8100:3000",
            "--network=shop",
            "--env-file=/state/x.web.env",
            "--read-only",
            "--cap-drop=ALL",
            "production/shop:0123456789ab",
            "node",
            "web.js",
        ]
    ]


def test_one_without_a_port_publishes_nothing(program: Program) -> None:
    program.answers["docker create"] = (0, ID)
    docker = Docker()
    docker.create(container(port=None), SHOP, WEB, "/e")
    docker.create(container(), Application("shop", IMAGE, (WEB,), address="fd00::21"), WEB, "/e")
    assert "--publish" not in program.lines[0]
    assert "--publish=[fd00::21]:8100:3000 " in program.lines[1]
    assert "--network" not in program.lines[1]


def test_secrets_are_in_a_file_and_on_no_command_line(program: Program) -> None:
    program.answers["docker create"] = (0, ID)
    docker = Docker()
    docker.create(container(), SHOP, WEB, "/e")
    docker.run(SHOP, WEB, "/e")
    assert CANARY not in " ".join(program.lines)
    assert all("--env-file=/e" in line for line in program.lines if " rm " not in line)


def test_start_stop_remove_and_log(program: Program) -> None:
    program.answers["docker logs"] = (0, "")
    docker = Docker()
    docker.start(ID)
    docker.stop(ID, 9)
    docker.remove(ID)
    assert docker.log(ID) == "nothing"
    program.answers["docker logs"] = (0, "line 7")
    assert docker.log(ID) == "line 7"
    assert program.lines[:4] == [
        f"docker start {ID}",
        f"docker stop --time=9 {ID}",
        f"docker rm --force --volumes {ID}",
        f"docker logs --tail 20 {ID}",
    ]
    assert program.seconds[1] == 69, "it may take as long as the container has, and some more"


def test_what_docker_refuses(program: Program) -> None:
    program.answers["docker start"] = (125, "port is already allocated")
    with pytest.raises(TransactionError, match=r"^`docker start` failed \(125\): port is already allocated$"):
        Docker().start(ID)


def test_connections_are_seen_in_the_containers_own_network(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/proc/4711/net/tcp": "head\n 0: 0100007F:0BB8 0200007F:C000 01 0\n 1: 00000000:0BB8 00000000:0000 0A 0\n",
        "/proc/4711/net/tcp6": "head\n 0: 00000000000000000000000000000000:0BB8 0:C001 01 0\n",
    }

    def text(path: Path, _encoding: str) -> str:
        if str(path) not in files:
            raise FileNotFoundError(path)
        return files[str(path)]

    monkeypatch.setattr(Path, "read_text", text)
    assert Docker().connections(4711, 3000) == 2
    assert Docker().connections(4711, 3001) == 0
    assert Docker().connections(4712, 3000) == 0, "it has ended"


# --- migrations ------------------------------------------------------------------------------------------------------


def test_a_migration_runs_to_its_end(program: Program) -> None:
    migration = Process("migrate", ("npm", "run", "migrate"), kind="migration", timeout=77)
    name = f"shop-migrate-{SHOP.release}"
    Docker().run(SHOP, migration, "/e")
    assert program.lines == [
        f"docker rm --force {name}",
        f"docker run --rm --name={name} --network=shop --env-file=/e production/shop:0123456789ab npm run migrate",
    ]
    assert program.seconds[1] == 77


def test_a_migration_that_fails_says_why_and_leaves_nothing(program: Program) -> None:
    program.answers["docker run"] = (1, "x" * 5000 + "no such table")
    with pytest.raises(TransactionError, match=r"^migrate ended with 1: x{1987}no such table$"):
        Docker().run(SHOP, Process("migrate"), "/e")
    assert [line.split(" ")[1] for line in program.lines] == ["rm", "run", "rm"]


# --- images ----------------------------------------------------------------------------------------------------------

TAG = "production/shop:0123456789ab"


def test_an_image_of_a_registry(program: Program) -> None:
    Docker().bring(IMAGE, TAG, "")
    assert program.lines == [f"docker pull --quiet {REFERENCE}", f"docker tag {REFERENCE} {TAG}"]
    assert program.seconds[0] == 1800


@pytest.mark.parametrize(
    ("answer", "name", "removed"),
    [
        ("Loaded image: shop:1.2", "shop:1.2", True),
        ("Loaded image ID: sha256:0123", "sha256:0123", False),
        (f"Loaded image: {TAG}", TAG, False),
    ],
)
def test_an_image_of_an_archive_has_our_name_only(program: Program, answer: str, name: str, removed: bool) -> None:
    program.answers["docker load"] = (0, answer)
    Docker().bring(Image("sha256:0123", "archive", "/here/image.tar"), TAG, "/tmp/image.tar")
    expected = ["docker load --quiet --input=/tmp/image.tar", f"docker tag {name} {TAG}"]
    assert program.lines == [*expected, *([f"docker image rm --no-prune {name}"] if removed else [])]


def test_an_archive_without_an_image(program: Program) -> None:
    with pytest.raises(TransactionError, match=r"^/here/image.tar holds no image$"):
        Docker().bring(Image("sha256:0123", "archive", "/here/image.tar"), TAG, "/tmp/image.tar")


def test_an_image_that_the_host_builds(program: Program) -> None:
    Docker().bring(Image("build:0123", "build", "/here/context"), TAG, "/tmp/image.tar")
    unpack, build = program.lines
    assert unpack.startswith("tar --extract --file=/tmp/image.tar --directory=/")
    assert build.startswith(f"docker build --quiet --tag={TAG} /")
    assert not Path(program.told[1][-1]).exists()


def test_images_that_are_there_and_images_that_go(program: Program) -> None:
    program.answers["docker image inspect --format={{.Id}} none"] = (1, "no such image")
    docker = Docker()
    assert docker.has_image(TAG)
    assert not docker.has_image("none")
    program.told.clear()
    docker.forget("none")
    assert not [line for line in program.lines if line.startswith("docker image rm")]


@pytest.mark.parametrize(
    ("tags", "digests", "removed"),
    [
        ([TAG], [], [TAG]),
        ([TAG], [REFERENCE], [TAG, REFERENCE]),
        # What somebody else calls by another name stays whole.
        ([TAG, "mine:1"], [REFERENCE], [TAG]),
        (None, None, [TAG]),
    ],
)
def test_an_image_goes_by_all_names_it_has_from_a_release(
    program: Program, tags: list[str] | None, digests: list[str] | None, removed: list[str]
) -> None:
    program.answers[f"docker image inspect {TAG}"] = (0, json.dumps([{"RepoTags": tags, "RepoDigests": digests}]))
    Docker().forget(TAG)
    assert [line for line in program.lines if " rm " in line] == [f"docker image rm {name}" for name in removed]


def test_which_images_releases_have_brought(docker_daemon: type[Api]) -> None:
    named = [TAG, "production/shop:other", "production/shopping:other", "mine:1"]
    docker_daemon.answers["/images/json"] = [{"RepoTags": named}, {"RepoTags": None}]
    assert Docker().tags("shop") == [TAG, "production/shop:other"]
    assert docker_daemon.asked == ['/images/json?filters={"reference": ["production/shop"]}']


@pytest.mark.parametrize(
    ("config", "user"), [({"User": "10001:10001"}, "10001:10001"), ({"User": ""}, ""), ({}, ""), (None, "")]
)
def test_whom_an_image_runs_as(program: Program, config: dict[str, str] | None, user: str) -> None:
    program.answers[f"docker image inspect {TAG}"] = (0, json.dumps([{"Config": config}]))
    assert Docker().user_of(TAG) == user


# --- networks --------------------------------------------------------------------------------------------------------


def test_a_network_is_made_once(program: Program) -> None:
    Docker().ensure_network("shop", "")
    assert program.lines == ["docker network inspect shop"]


@pytest.mark.parametrize(("subnet", "told"), [("", ""), ("172.30.1.0/24", "--subnet=172.30.1.0/24 ")])
def test_a_network_of_ones_own(program: Program, subnet: str, told: str) -> None:
    program.answers["docker network inspect"] = (1, "no such network")
    Docker().ensure_network("shop", subnet)
    assert program.lines[1:] == [
        f"docker network create --opt=com.docker.network.bridge.name=br-shop --label=production.network=shop {told}shop"
    ]


def test_bridges_of_long_names_differ() -> None:
    assert engine.bridge_of("a" * 12) == "br-" + "a" * 12
    one, other = engine.bridge_of("fushuma-indexer-a"), engine.bridge_of("fushuma-indexer-b")
    assert one != other
    assert {len(one), len(other)} == {15}
    assert one.startswith("br-fushuma-")
