"""Releases on a host whose engine is a list in memory: every path, and a kill at every call of the engine."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from ansible_collections.fushuma.production.plugins.module_utils import releases
from ansible_collections.fushuma.production.plugins.module_utils.journal import TransactionError
from ansible_collections.fushuma.production.plugins.module_utils.releases import (
    Application,
    Condition,
    Container,
    Image,
    Memory,
    Process,
    commit,
    described,
    plan,
    prepare,
    scrubbed,
    settle,
    tcp_connections,
    wanted,
    withdraw,
)
from hypothesis import given, settings
from hypothesis import strategies as st


class Killed(BaseException):
    """The run ended here, as by SIGKILL: nothing of it goes on."""


@dataclass
class Engine:
    """Docker in memory. ``ill`` images never become ready, those of ``broken`` end by themselves."""

    there: dict[str, Container] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    networks: dict[str, str] = field(default_factory=dict)
    users: dict[str, str] = field(default_factory=dict)
    ill: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    busy: int = 0  # how often a container still has connections when asked
    calls: list[str] = field(default_factory=list)
    lives: int | None = None  # calls that change something until the run is killed
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def _changes(self, what: str) -> None:
        if self.lives is not None:
            if self.lives == 0:
                raise Killed
            self.lives -= 1
        self.calls.append(what)

    def containers(self) -> list[Container]:
        return list(self.there.values())

    def condition(self, container: str) -> Condition:
        one = self.there[container]
        ended = one.release in self.broken
        return Condition(one.running and not ended, 10.0, int(ended), "starting" if one.release in self.ill else "", 1)

    def has_image(self, tag: str) -> bool:
        return tag in self.images

    def bring(self, image: Image, tag: str, file: str) -> None:
        self._changes(f"bring {tag} {file}".strip())
        if image.reference == "nowhere":
            raise TransactionError("there is no such image")
        self.images[tag] = image.identity

    def tags(self, name: str) -> list[str]:
        return [tag for tag in self.images if tag.startswith(f"production/{name}:")]

    def forget(self, tag: str) -> None:
        self._changes(f"forget {tag}")
        self.images.pop(tag, None)

    def user_of(self, tag: str) -> str:
        return self.users.get(tag, "10001")

    def ensure_network(self, name: str, subnet: str) -> None:
        self._changes(f"network {name}")
        self.networks[name] = subnet

    def create(self, container: Container, application: Application, process: Process, environment: str) -> str:
        self._changes(f"create {container.id}")
        assert Path(environment).read_text().count("\n") == len(process.environment)
        assert container.port not in [one.port for one in self.there.values() if one.port], "the port is taken"
        found = replace(container, id=f"{container.id}#{next(self.numbers)}", running=False)
        self.there[found.id] = found
        return found.id

    def start(self, container: str) -> None:
        self._changes(f"start {container.partition('#')[0]}")
        self.there[container] = replace(self.there[container], running=True)

    def run(self, application: Application, process: Process, environment: str) -> None:
        self._changes(f"run {process.name}")
        if "fails" in process.command:
            raise TransactionError(f"{process.name} ended with 1: {process.environment}")

    def stop(self, container: str, seconds: int) -> None:
        self._changes(f"stop {container.partition('#')[0]}")
        self.there[container] = replace(self.there[container], running=False)

    def remove(self, container: str) -> None:
        self._changes(f"remove {container.partition('#')[0]}")
        self.there.pop(container, None)

    def log(self, container: str) -> str:
        return "my canary-value-1 is wrong"

    def connections(self, pid: int, port: int) -> int:
        self.busy = max(0, self.busy - 1)
        return self.busy


WEB = Process("web", replicas=2, port=3000, environment={"KEY": "canary-value-1"})
WORKER = Process("worker", environment={"KEY": "canary-value-1"})
SINGLE = Process("single", single=True)
MIGRATE = Process("migrate", ("up",), kind="migration")
REPORT = Process("report", ("now",), ("--read-only",), kind="scheduled", replicas=0, environment={"KEY": "k"})


def image(name: str, source: str = "registry") -> Image:
    return Image(f"sha256:{name * 12}", source, f"registry.test/shop@sha256:{name * 12}")


def shop(name: str = "1", processes: Sequence[Process] = (WEB, WORKER), **more: object) -> Application:
    processes = tuple(processes)
    told = {"network": "shop", "ports": (8100, 8109), "ready_timeout": 0.0, "drain_timeout": 0.3, **more}
    return Application("shop", image(name), processes, **told)  # type: ignore[arg-type]


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory("shop", tmp_path)


def deploy(application: Application, memory: Memory, engine: Engine, **more: bool) -> None:
    """Both steps of a deployment; visitors are switched between them."""
    prepare(application, memory, engine, migrates=more.pop("migrates", True))
    commit(application, memory, engine, **more)


def running(engine: Engine) -> list[str]:
    return sorted(f"{one.process} {one.replica} {one.release}" for one in engine.there.values() if one.running)


# --- the good case ----------------------------------------------------------------------------------------------------


def test_the_first_release(memory: Memory, engine: Engine) -> None:
    one = shop()
    before = plan(one, memory, engine)
    assert before.steps[0] == f"pull the image {one.image.reference}"
    assert before.steps[1:] == [
        "start web 1",
        "start web 2",
        "start worker 1",
        f"send visitors to release {one.release}",
    ]
    assert (before.slot, before.lacks_image, before.unsettled) == ("a", True, False)
    assert engine.calls == []
    deploy(one, memory, engine)
    assert running(engine) == [f"web 1 {one.release}", f"web 2 {one.release}", f"worker 1 {one.release}"]
    assert {one.port for one in engine.there.values()} == {8100, 8101, None}
    after = plan(one, memory, engine)
    assert (after.steps, after.slot) == ([], "a")
    assert memory.current["slot"] == "a"
    assert memory.current["addresses"]["web"]["b"] == ["127.0.0.1:8105", "127.0.0.1:8106"]
    assert [known["outcome"] for known in memory.releases] == ["served"]


def test_the_next_release_is_in_the_other_slot(memory: Memory, engine: Engine) -> None:
    deploy(shop("1"), memory, engine)
    prepare(shop("2"), memory, engine)
    assert len(running(engine)) == 6
    assert {one.port for one in engine.there.values() if one.slot == "b"} == {8105, 8106, None}
    removed = commit(shop("2"), memory, engine)
    assert sorted(removed) == sorted(
        f"{what} of release {shop('1').release}" for what in ("web 1", "web 2", "worker 1")
    )
    assert running(engine) == [f"{what} {shop('2').release}" for what in ("web 1", "web 2", "worker 1")]
    assert memory.slot == "b"
    deploy(shop("3"), memory, engine)
    assert memory.slot == "a"


def test_what_runs_already_is_not_touched(memory: Memory, engine: Engine) -> None:
    deploy(shop(), memory, engine)
    engine.calls.clear()
    prepare(shop(), memory, engine)
    assert [call for call in engine.calls if not call.startswith("network")] == []


def test_other_settings_are_another_release() -> None:
    one = shop()
    others = [
        shop("2"),
        shop(variant="again"),
        shop(address="10.0.0.1"),
        shop(processes=[replace(WEB, environment={"KEY": "canary-value-2"}), WORKER]),
        shop(processes=[replace(WEB, replicas=3), WORKER]),
    ]
    assert len({one.release for one in (one, *others)}) == 6
    assert shop(keep=9, drain_timeout=1.0, ready_timeout=9.0).release == one.release


def test_a_replica_that_is_gone_comes_back_in_its_place(memory: Memory, engine: Engine) -> None:
    deploy(shop(), memory, engine)
    gone, other = (one for one in engine.there.values() if one.process == "web")
    engine.there[gone.id] = replace(gone, running=False)
    planned = plan(shop(), memory, engine)
    assert planned.steps == ["start web 1", f"stop web 1 of release {shop().release}"]
    deploy(shop(), memory, engine)
    assert plan(shop(), memory, engine).steps == []
    assert other.id in engine.there
    assert {one.port for one in engine.there.values()} == {8100, 8101, None}


def test_visitors_are_waited_for_until_they_are_gone_or_time_is_up(memory: Memory, engine: Engine) -> None:
    deploy(shop("1"), memory, engine)
    engine.busy = 3
    deploy(shop("2"), memory, engine)
    assert engine.busy == 0
    engine.busy = 10**6
    deploy(shop("3"), memory, engine)
    assert len(running(engine)) == 3


# --- migrations, images, memory ---------------------------------------------------------------------------------------


def test_each_image_migrates_once_and_on_one_host(memory: Memory, engine: Engine) -> None:
    def with_migration(name: str, variant: str = "") -> Application:
        return shop(name, [WEB, MIGRATE], variant=variant)

    assert plan(with_migration("1"), memory, engine).migrates
    assert not plan(with_migration("1"), memory, engine, migrates=False).migrates
    deploy(with_migration("1"), memory, engine)
    deploy(with_migration("1", "again"), memory, engine)
    deploy(with_migration("2"), memory, engine, migrates=False)
    assert engine.calls.count("run migrate") == 1
    deploy(with_migration("3"), memory, engine)
    deploy(with_migration("1"), memory, engine)
    assert engine.calls.count("run migrate") == 2


def test_a_migration_that_fails_ends_the_deployment_before_anything_starts(memory: Memory, engine: Engine) -> None:
    deploy(shop("1"), memory, engine)
    before = running(engine)
    failing = replace(MIGRATE, command=("fails",), environment={"KEY": "canary-value-1"})
    with pytest.raises(TransactionError, match="migrate ended with 1") as caught:
        prepare(shop("2", [WEB, failing]), memory, engine)
    assert "canary-value-1" not in str(caught.value)
    assert running(engine) == before
    assert engine.images == {shop("1").tag: image("1").identity}
    assert memory.releases[0]["outcome"] == "failed"
    assert "canary" not in json.dumps(memory.state)


def test_images_beyond_those_to_keep_go(memory: Memory, engine: Engine) -> None:
    for name in "12345":
        deploy(shop(name, keep=2), memory, engine)
    assert engine.images == {shop(name).tag: image(name).identity for name in "45"}
    assert [known["image"]["identity"] for known in memory.releases] == [image("5").identity, image("4").identity]
    assert len(list(memory.folder.glob("*.env"))) == 2


def test_an_image_that_runs_as_root_is_refused(memory: Memory, engine: Engine) -> None:
    engine.users = {shop().tag: ""}
    with pytest.raises(TransactionError, match="runs as root") as caught:
        prepare(shop(), memory, engine)
    assert "web, worker" in str(caught.value)
    assert engine.there == {}
    told = [replace(process, options=("--user=7:7",)) for process in (WEB, WORKER)]
    deploy(shop(processes=told), memory, engine)


def test_a_file_of_the_controller_is_loaded(memory: Memory, engine: Engine) -> None:
    one = replace(shop(), image=image("1", "archive"))
    assert plan(one, memory, engine).steps[0].startswith("load the image")
    prepare(one, memory, engine, image_file="/tmp/image.tar")
    assert f"bring {one.tag} /tmp/image.tar" in engine.calls


def test_what_a_timer_needs_is_remembered_without_secrets(memory: Memory, engine: Engine) -> None:
    deploy(shop(processes=[WEB, REPORT]), memory, engine)
    assert memory.current["scheduled"] == {"report": {"options": ["--read-only"], "command": ["now"]}}
    assert "canary" not in json.dumps(memory.state)
    folder = memory.folder
    assert (folder.stat().st_mode & 0o777, folder.parent.stat().st_mode & 0o777) == (0o700, 0o700)
    (file,) = folder.glob("*.report.env")
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("KEY=k\n", 0o600)


def test_a_broken_memory_is_none(tmp_path: Path) -> None:
    (tmp_path / "applications" / "shop").mkdir(parents=True)
    (tmp_path / "applications" / "shop" / "state.json").write_text("{")
    assert Memory("shop", tmp_path).current == {}


# --- back -------------------------------------------------------------------------------------------------------------


def test_back_is_the_release_before_and_stays_until_another_image_is_named(memory: Memory, engine: Engine) -> None:
    with pytest.raises(TransactionError, match="no release before"):
        wanted(shop("1"), memory, back=True)
    deploy(shop("1"), memory, engine)
    deploy(shop("2"), memory, engine)
    back = wanted(shop("2"), memory, back=True)
    assert back == shop("1")
    deploy(back, memory, engine, migrates=False, back=True)
    assert wanted(shop("2"), memory) == shop("1"), "no run deploys again what was taken back"
    # Other settings are brought to the present image, and the other one is still held.
    changed = wanted(shop("2", address="10.0.0.1"), memory)
    assert changed.image == image("1")
    deploy(changed, memory, engine)
    assert wanted(shop("2"), memory).image == image("1")
    assert wanted(shop("2"), memory, force=True) == shop("2")
    assert wanted(shop("3"), memory) == shop("3")
    deploy(shop("3"), memory, engine)
    assert wanted(shop("2"), memory) == shop("2")


def test_back_twice_goes_between_the_last_two(memory: Memory, engine: Engine) -> None:
    for name in "12":
        deploy(shop(name), memory, engine)
    deploy(wanted(shop("2"), memory, back=True), memory, engine, back=True)
    assert wanted(shop("2"), memory, back=True) == shop("2")


def test_a_release_that_failed_is_none_to_go_back_to(memory: Memory, engine: Engine) -> None:
    deploy(shop("1"), memory, engine)
    engine.ill = {shop("2").release}
    with pytest.raises(TransactionError):
        prepare(shop("2"), memory, engine)
    deploy(shop("3"), memory, engine)
    assert wanted(shop("3"), memory, back=True) == shop("1")


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_a_restart_is_another_release_once(memory: Memory, engine: Engine) -> None:
    deploy(shop(), memory, engine)
    anew = wanted(shop(), memory, variant="now")
    assert anew.release != shop().release
    deploy(anew, memory, engine)
    assert plan(wanted(shop(), memory), memory, engine).steps == []


def test_a_number_of_replicas_asked_for_holds_until_the_settings_say_another(memory: Memory, engine: Engine) -> None:
    deploy(shop(), memory, engine)
    more = wanted(shop(), memory, scale={"web": 4})
    deploy(more, memory, engine)
    assert len(running(engine)) == 5
    assert plan(wanted(shop(), memory), memory, engine).steps == []
    fewer = shop(processes=[replace(WEB, replicas=3), WORKER])
    assert wanted(fewer, memory) == fewer
    assert wanted(shop(), memory, scale={"web": 2}) == shop()
    with pytest.raises(TransactionError, match="need more ports than 8100-8109"):
        wanted(shop(), memory, scale={"web": 6})
    with pytest.raises(TransactionError, match="no process job"):
        wanted(shop(), memory, scale={"job": 6})


def test_nginx_keeps_the_addresses_of_the_release_that_answers(memory: Memory, engine: Engine) -> None:
    api = Process("api", port=4000)
    deploy(shop(processes=[WEB, api]), memory, engine)
    wider = shop(processes=[replace(WEB, replicas=3), api])
    prepare(wider, memory, engine)
    told = releases.addresses(wider, memory, "b")
    assert told["api"] == {"a": ["127.0.0.1:8102"], "b": ["127.0.0.1:8108"]}
    commit(wider, memory, engine)
    assert releases.addresses(wider, memory, "b") == told, "what runs is told the same again"


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trouble", "said"),
    [("ill", "not ready within 0 s: its own check says starting"), ("broken", "ended by itself")],
)
def test_what_does_not_come_into_service_leaves_what_ran(
    memory: Memory, engine: Engine, trouble: str, said: str
) -> None:
    deploy(shop("1"), memory, engine)
    before = running(engine)
    setattr(engine, trouble, {shop("2").release})
    with pytest.raises(TransactionError, match=said) as caught:
        prepare(shop("2"), memory, engine)
    assert "what ran before it still does" in str(caught.value)
    assert "It said: my *** is wrong" in str(caught.value)
    assert running(engine) == before
    assert len(engine.there) == 3
    assert engine.images == {shop("1").tag: image("1").identity}
    assert plan(shop("1"), memory, engine).steps == []


def test_an_image_that_cannot_be_had(memory: Memory, engine: Engine) -> None:
    with pytest.raises(TransactionError, match="no such image"):
        prepare(replace(shop(), image=replace(image("1"), reference="nowhere")), memory, engine)
    assert engine.there == {}


def test_a_release_that_visitors_do_not_get_is_withdrawn(memory: Memory, engine: Engine) -> None:
    deploy(shop("1"), memory, engine)
    prepare(shop("2"), memory, engine)
    removed = withdraw(shop("2"), memory, engine, "the page is empty")
    assert len(removed) == 3
    assert plan(shop("1"), memory, engine).steps == []
    assert (memory.releases[0]["outcome"], memory.releases[0]["why"]) == ("failed", "the page is empty")
    assert not list(memory.folder.glob(f"{shop('2').release}*"))
    assert withdraw(shop("1"), memory, engine, "never") == [], "what answers visitors is not taken away"
    assert len(running(engine)) == 3


def test_where_there_may_be_one_only_the_former_ends_first_and_comes_back(memory: Memory, engine: Engine) -> None:
    def one(name: str) -> Application:
        return shop(name, [WEB, SINGLE])

    deploy(one("1"), memory, engine)
    engine.calls.clear()
    prepare(one("2"), memory, engine)
    order = [call for call in engine.calls if call.split()[0] in ("start", "stop")]
    assert order == ["start shop-web-1-b", "start shop-web-2-b", "stop shop-single-1-a", "start shop-single-1-b"]
    withdraw(one("2"), memory, engine, "")
    assert running(engine) == [f"{what} {one('1').release}" for what in ("single 1", "web 1", "web 2")]
    assert plan(one("1"), memory, engine).steps == []


# --- killed -----------------------------------------------------------------------------------------------------------


def serves(engine: Engine, release: str) -> bool:
    """Whether all that visitors need of a release runs."""
    return {f"web {n} {release}" for n in (1, 2)} <= set(running(engine))


class Deployments:
    """Deployments as the playbook makes them, with nginx as a variable: the slot that visitors are sent to."""

    def __init__(self, folder: Path) -> None:
        self.engine, self.folder, self.visitors = Engine(), folder, ""

    def memory(self) -> Memory:
        """A memory with which a run can be killed too."""
        engine = self.engine

        class Mortal(Memory):
            def _file(self, name: str, text: str) -> str:
                engine._changes(f"write {name}")
                return super()._file(name, text)

        return Mortal("shop", self.folder)

    def run(self, application: Application) -> None:
        memory = self.memory()
        planned = plan(application, memory, self.engine)
        if planned.unsettled:
            self.switch(memory.slot)
            settle(memory, self.engine, "shop")
        if planned.steps:
            self.switch(prepare(application, memory, self.engine).slot)
            commit(application, memory, self.engine)

    def switch(self, slot: str) -> None:
        self.engine._changes(f"switch {slot}")
        self.visitors = slot

    def answered(self) -> bool:
        """Whether visitors have somebody: all replicas of one release in the slot they are sent to."""
        found = [one for one in self.engine.there.values() if one.slot == self.visitors and one.process == "web"]
        return any(serves(self.engine, one.release) for one in found)


TEAM = [WEB, WORKER, SINGLE]


def killed(world: Deployments, name: str, lives: int) -> bool:
    """A deployment that is killed after so many changes; whether it was."""
    world.engine.lives = lives
    try:
        world.run(shop(name, TEAM))
    except Killed:
        return True
    finally:
        world.engine.lives = None
    return False


def converges(world: Deployments, name: str) -> None:
    """A run that is not killed ends with this release and nothing else."""
    last = shop(name, TEAM)
    world.run(last)
    assert plan(last, Memory("shop", world.folder), world.engine).steps == []
    assert running(world.engine) == [f"{what} {last.release}" for what in ("single 1", "web 1", "web 2", "worker 1")]
    assert len(world.engine.there) == 4
    remembered = {one["image"]["identity"] for one in Memory("shop", world.folder).releases}
    assert set(world.engine.images.values()) <= remembered
    assert world.answered()


@pytest.mark.parametrize("next_one", ["1", "2", "3"])
def test_killed_at_any_call_visitors_have_somebody_and_the_next_run_converges(tmp_path: Path, next_one: str) -> None:
    for lives in itertools.count():
        world = Deployments(tmp_path / str(lives))
        world.run(shop("1", TEAM))
        watched = watching(world)
        if not killed(world, "2", lives):
            assert lives > 20, "the run has fewer steps than it takes"
            break
        converges(world, next_one)
        assert watched() == [], f"killed after {lives} changes"


@given(
    names=st.lists(st.sampled_from("123"), min_size=2, max_size=5),
    lives=st.lists(st.integers(0, 30), min_size=5, max_size=5),
)
@settings(max_examples=100, deadline=None)
def test_killed_again_and_again(tmp_path_factory: pytest.TempPathFactory, names: list[str], lives: list[int]) -> None:
    world = Deployments(tmp_path_factory.mktemp("killed"))
    world.run(shop(names[0], TEAM))
    watched = watching(world)
    for name, left in zip(names[1:], lives, strict=False):
        killed(world, name, left)
    converges(world, names[-1])
    assert watched() == []


def watching(world: Deployments) -> Callable[[], list[str]]:
    """Look before each call that changes something whether visitors have somebody; returns where they had nobody."""
    nobody: list[str] = []
    changes = world.engine._changes

    def looked(what: str) -> None:
        if not world.answered():
            nobody.append(what)
        changes(what)

    world.engine._changes = looked  # type: ignore[method-assign]
    return lambda: nobody + ([] if world.answered() else ["at the end"])


# --- words ------------------------------------------------------------------------------------------------------------


def test_values_that_may_be_secrets_do_not_appear() -> None:
    assert (
        scrubbed("a canary-value-12 b canary-value-1 c", ["canary-value-1", "canary-value-12", "a"]) == "a *** b *** c"
    )


def test_a_diff_names_variables_and_which_have_other_values(memory: Memory, engine: Engine) -> None:
    deploy(shop(), memory, engine)
    after = shop(processes=[replace(WEB, options=("--read-only",), environment={"KEY": "canary-value-2", "NEW": "x"})])
    assert described(after, memory) == (
        f"image: {image('1').reference}\n"
        "service web: 2 x as its image says\n  --read-only\n  KEY (another value)\n  NEW\n"
    )


def test_connections_of_a_container_to_its_port() -> None:
    table = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000 10001        0 1 1 0 100 0 0 10 0
   1: 020011AC:0BB8 010011AC:D431 01 00000000:00000000 00:00000000 00000000 10001        0 2 1 0 100 0 0 10 0
   2: 020011AC:D431 010011AC:0BB8 01 00000000:00000000 00:00000000 00000000 10001        0 3 1 0 100 0 0 10 0
"""
    assert tcp_connections([table, "header\n"], 3000) == 1


def test_ipv6_addresses_stand_in_brackets() -> None:
    assert shop(address="fd00::1").addresses["web"]["a"] == ["[fd00::1]:8100", "[fd00::1]:8101"]
    assert shop().port("a", "nobody", 1) is None


def test_a_process_with_a_port_is_asked(memory: Memory, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def complaint(probe: releases.Probe) -> str:
        asked.append(str(probe.http))
        return "" if len(asked) > 2 else "it answers 503, not 200"

    monkeypatch.setattr(releases, "complaint", complaint)
    ready = replace(WEB, replicas=1, ready={"path": "/ready", "body": "ok"})
    deploy(shop(processes=[ready], ready_timeout=5.0, address="fd00::1"), memory, engine)
    assert asked[:2] == ["http://[fd00::1]:8100/ready"] * 2
