# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Releases of a container application on one host: the next one beside the present one, and what is left afterwards.

A host has two slots for each application, ``a`` and ``b``, with ports of their own. A release is in one of them, the
next one in the other, so nginx knows the addresses of both beforehand and is only told which one counts.

Steps, each a call of its own, for visitors are switched between them on other hosts: `plan` (what would be done),
`prepare` (the release is ready in the free slot), `commit` (what it replaces is drained and goes), `withdraw` (the
release goes, what it was to replace stays), `settle` (a deployment that was cut short is taken back).

What runs is asked of the engine each time, and containers that may have visitors go only after a switch in the same
run. So a step that was killed is done again by the next run.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from ansible_collections.fushuma.production.plugins.module_utils.journal import STATE, Entry, TransactionError, make_so
from ansible_collections.fushuma.production.plugins.module_utils.probe import Probe, complaint

SETTLED = 2.0  # seconds after which a process that tells nothing of itself counts as running
SHORTEST_SECRET = 8  # characters
PAUSE = 0.1  # seconds between two looks
# Stands in a variable for the first digits of the image's digest.
IMAGE_MARK = "@image@"
ID_LENGTH = 12
SLOTS = ("a", "b")
NGINX = "/etc/nginx/applications"  # where the nginx role's sites look for who answers
NGINX_GROUP = "www-data"
ADDRESSES = ".servers"  # how the files end that nginx reads when it starts


@dataclass(frozen=True)
class Image:
    """What is run. ``identity`` makes it this image and no other: ``sha256:…`` or ``build:…``.

    source: ``registry`` (``reference`` is ``NAME@sha256:…``), ``archive`` or ``build`` (a file that the controller
    brings).
    """

    identity: str
    source: str = "registry"
    reference: str = ""

    @property
    def short(self) -> str:
        return self.identity.partition(":")[2][:ID_LENGTH]


@dataclass(frozen=True)
class Process:
    """One of an application's processes.

    options: arguments of ``docker create``, without what differs from release to release.
    port:    the port inside the container; each replica answers on one of the host's own.
    ready:   ``{path, status, body}``, how a replica says that it can work.
    single:  the former release's replica ends before this one's begins.
    kind:    ``service`` runs all the time, ``scheduled`` when a timer says so, ``migration`` once before a release.
    environment: all variables that it has.
    """

    name: str
    command: Sequence[str] = ()
    options: Sequence[str] = ()
    replicas: int = 1
    port: int | None = None
    ready: Mapping[str, Any] | None = None
    single: bool = False
    stop_timeout: int = 30
    kind: str = "service"
    timeout: int = 600
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Application:
    """All that makes one application on this host. ``ports`` are the first and the last that its replicas may take.

    ``variant`` is part of what makes a release: another one starts everything anew. ``scale`` is how many replicas
    somebody asked for by hand: ``{process: {"replicas": n, "instead_of": what the settings said then}}``.
    """

    name: str
    image: Image
    processes: Sequence[Process] = ()
    network: str = ""
    subnet: str = ""
    address: str = "127.0.0.1"
    ports: tuple[int, int] = (8100, 8119)
    keep: int = 3
    ready_timeout: float = 60
    drain_timeout: float = 30
    variant: str = ""
    scale: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def release(self) -> str:
        """A name for exactly this image with exactly these settings."""
        told = {**asdict(self), "image": self.image.identity}
        for key in ("keep", "ready_timeout", "drain_timeout", "ports", "scale"):
            del told[key]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:ID_LENGTH]

    def port(self, slot: str, process: str, replica: int) -> int | None:
        """The host's port of a replica: each slot has one half of the ports, in the order of the processes."""
        first, last = self.ports
        port = first + SLOTS.index(slot) * ((last - first + 1) // 2) + replica - 1
        for one in self.services:
            if one.name == process:
                return port if one.port else None
            port += one.replicas if one.port else 0
        return None

    @property
    def addresses(self) -> dict[str, dict[str, list[str]]]:
        """Where each process with a port answers, in each slot: ``{process: {slot: [address:port, ...]}}``."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return {
            one.name: {
                slot: [f"{host}:{self.port(slot, one.name, number + 1)}" for number in range(one.replicas)]
                for slot in SLOTS
            }
            for one in self.services
            if one.port
        }

    @property
    def tag(self) -> str:
        """What the image is called on the host, wherever it came from."""
        return f"production/{self.name}:{self.image.short}"

    @property
    def services(self) -> list[Process]:
        return [process for process in self.processes if process.kind == "service"]

    @property
    def migration(self) -> Process | None:
        return next((process for process in self.processes if process.kind == "migration"), None)


@dataclass(frozen=True)
class Container:
    """A container of an application, as the engine sees it. ``port`` is the one of the host."""

    id: str
    application: str
    process: str
    release: str
    slot: str = "a"
    replica: int = 1
    running: bool = True
    port: int | None = None
    inside: int | None = None
    single: bool = False


@dataclass(frozen=True)
class Condition:
    """How a container does: seconds since its start, restarts since its creation, what its own check says."""

    running: bool
    age: float = 0.0
    restarts: int = 0
    health: str = ""
    pid: int = 0


class Engine(Protocol):
    """What is asked of Docker (module_utils/engine.py)."""

    def containers(self) -> list[Container]: ...
    def condition(self, container: str) -> Condition: ...
    def has_image(self, tag: str) -> bool: ...
    def bring(self, image: Image, tag: str, file: str) -> None: ...
    def tags(self, name: str) -> list[str]: ...
    def forget(self, tag: str) -> None: ...
    def user_of(self, tag: str) -> str: ...
    def ensure_network(self, name: str, subnet: str) -> None: ...
    def create(self, container: Container, application: Application, process: Process, environment: str) -> str: ...
    def start(self, container: str) -> None: ...
    def run(self, application: Application, process: Process, environment: str) -> None: ...
    def stop(self, container: str, seconds: int) -> None: ...
    def remove(self, container: str) -> None: ...
    def log(self, container: str) -> str: ...
    def connections(self, pid: int, port: int) -> int: ...


# --- what is remembered -----------------------------------------------------------------------------------------------


class Memory:
    """What a host knows of an application's releases. Below STATE/applications/NAME:

    state.json   ``{current: {...}, releases: [{...}, ...], migrated: [identity, ...], held: identity}``, the last first
    RELEASE.PROCESS.env   the environment of a process, for root only
    """

    def __init__(self, name: str, state: Path | None = None) -> None:
        self.folder = (state or STATE) / "applications" / name
        try:
            self.state: dict[str, Any] = json.loads((self.folder / "state.json").read_text("utf-8"))
        except (OSError, ValueError):
            self.state = {}

    @property
    def current(self) -> dict[str, Any]:
        """The release that answers, ``{}`` before the first one."""
        return dict(self.state.get("current") or {})

    @property
    def slot(self) -> str:
        """The slot of the release that answers, "" before the first one."""
        return str(self.current.get("slot", ""))

    @property
    def releases(self) -> list[dict[str, Any]]:
        return list(self.state.get("releases") or [])

    @property
    def migrated(self) -> list[str]:
        """The images whose migrations have been done."""
        return list(self.state.get("migrated") or [])

    def write(self, **changes: Any) -> None:
        self.state = {**self.state, **changes}
        self._file("state.json", json.dumps(self.state, indent=1))

    def noted(self, application: Application, outcome: str, why: str = "") -> list[dict[str, Any]]:
        """The releases with how this one ended, in the place of what was known of it."""
        noted = {
            "release": application.release,
            "image": asdict(application.image),
            "outcome": outcome,
            "why": why,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        return [noted, *(one for one in self.releases if one["release"] != application.release)]

    def environment_file(self, release: str, process: str) -> Path:
        return self.folder / f"{release}.{process}.env"

    def write_environment(self, application: Application) -> None:
        for process in application.processes:
            text = "".join(f"{name}={value}\n" for name, value in sorted(known_to(process, application).items()))
            self._file(self.environment_file(application.release, process.name).name, text)

    def environment(self, release: str, process: str) -> dict[str, str]:
        """The environment of a release's process, as far as it is still known."""
        try:
            text = self.environment_file(release, process).read_text("utf-8")
        except OSError:
            return {}
        # Not splitlines(): a value may hold other characters that Python takes for the end of a line.
        return dict(line.split("=", 1) for line in text.split("\n") if line)

    def _file(self, name: str, text: str) -> str:
        path = str(self.folder / name)
        owner = os.geteuid(), os.getegid()
        make_so(
            [
                *(Entry(str(one), "directory", b"", 0o700, *owner) for one in (self.folder.parent, self.folder)),
                Entry(path, "file", text.encode(), 0o600, *owner),
            ]
        )
        return path


# --- plan -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What stands between a host and what is wanted of it.

    application: what is wanted, with the image that really is meant.
    slot:        where the release is, or is to be.
    steps:       what would be done, each a clause; empty where all is as it should be.
    replicas:    the running replicas of the wanted release, one for each place.
    surplus:     all other containers of the application.
    unsettled:   a deployment was cut short, and nobody here knows which release has visitors.
    """

    application: Application
    slot: str
    steps: Sequence[str] = ()
    replicas: Mapping[tuple[str, int], Container] = field(default_factory=dict)
    surplus: Sequence[Container] = ()
    lacks_image: bool = False
    migrates: bool = False
    unsettled: bool = False


def known_to(process: Process, application: Application) -> dict[str, str]:
    """The variables of a process. Which image it is, only the host knows: it may be the one before."""
    image = application.image.identity.rpartition(":")[2][:ID_LENGTH]
    return {name: value.replace(IMAGE_MARK, image) for name, value in process.environment.items()}


def wanted(
    application: Application,
    memory: Memory,
    *,
    force: bool = False,
    back: bool = False,
    variant: str = "",
    scale: Mapping[str, int] | None = None,
) -> Application:
    """The application as it is meant: with what was decided on this host besides its settings.

    back:    the image of the release before the present one. Raises TransactionError where there is none.
    force:   also an image that was taken back.
    variant: another one than before starts everything anew.
    scale:   how many replicas of a process there are to be, until the settings say another number than now.
    """
    application = _scaled(application, memory.current.get("scale") or {}, scale or {})
    application = replace(application, variant=variant or memory.current.get("variant", ""))
    current = memory.current.get("image")
    if back:
        former = (one["image"] for one in memory.releases if one["outcome"] == "served")
        image = next((one for one in former if current and one["identity"] != current["identity"]), None)
        if image is None:
            raise TransactionError(f"{application.name}: this host remembers no release before the present one")
        return replace(application, image=Image(**image))
    if current and not force and memory.state.get("held") == application.image.identity:
        return replace(application, image=Image(**current))
    return application


def _scaled(application: Application, known: Mapping[str, Mapping[str, int]], asked: Mapping[str, int]) -> Application:
    declared = {one.name: one.replicas for one in application.services}
    if unknown := sorted(set(asked) - set(declared)):
        raise TransactionError(f"{application.name} has no process {', '.join(unknown)} that runs all the time")
    scale = {name: one for name, one in known.items() if declared.get(name) == one["instead_of"]}
    scale |= {name: {"replicas": count, "instead_of": declared[name]} for name, count in asked.items()}
    scale = {name: one for name, one in scale.items() if one["replicas"] != one["instead_of"]}
    processes = tuple(
        replace(one, replicas=scale[one.name]["replicas"]) if one.name in scale else one
        for one in application.processes
    )
    found = replace(application, processes=processes, scale=scale)
    first, last = found.ports
    needed = sum(one.replicas for one in found.services if one.port)
    if 2 * needed > last - first + 1:
        raise TransactionError(
            f"{application.name}: two releases of {needed} replicas need more ports than {first}-{last}"
        )
    return found


def addresses(application: Application, memory: Memory, slot: str) -> dict[str, dict[str, list[str]]]:
    """What nginx is told while a release is in ``slot``: its addresses there, and in the other one those of before."""
    told: Mapping[str, Mapping[str, list[str]]] = memory.current.get("addresses") or {}
    if memory.current.get("release") == application.release and told.keys() == application.addresses.keys():
        return {name: {key: list(servers) for key, servers in slots.items()} for name, slots in told.items()}
    return {name: {**slots, **told.get(name, {}), slot: slots[slot]} for name, slots in application.addresses.items()}


def nginx_files(
    application: str, host: str, addresses: Mapping[str, Mapping[str, Sequence[str]]], slot: str
) -> dict[str, dict[str, str | None]]:
    """What nginx is told of an application on a host: ``{folder: {file: content}}``, None for what may not be there.

    addresses: ``{process: {slot: [address:port, ...]}}``. slot: the one that visitors are sent to.
    """
    found: dict[str, dict[str, str | None]] = {}
    for process, slots in addresses.items():
        files: dict[str, str | None] = {}
        for name, servers in slots.items():
            # To leave out the only one that can answer would help nobody.
            always = " max_fails=0" if len(servers) == 1 else ""
            files[f"{name}{ADDRESSES}"] = "".join(f"server {address}{always};\n" for address in servers)
        # nginx looks for it with each request, so it needs no reload, which would close connections.
        files["b.on"] = "" if slot == "b" else None
        found[f"{NGINX}/{application}.{process}.{host}"] = files
    return found


def plan(application: Application, memory: Memory, engine: Engine, *, migrates: bool = True) -> Plan:
    """What would be done to have exactly this application run. Changes nothing."""
    current = memory.current
    fresh = current.get("release") != application.release
    containers = [one for one in engine.containers() if one.application == application.name]
    slot = _slot(application, memory, containers)
    replicas, surplus = _sorted_out(application, slot, containers, engine)
    missing = _missing(application, replicas)
    lacks_image = (fresh or bool(missing)) and not engine.has_image(application.tag)
    due = bool(fresh and application.migration and migrates and application.image.identity not in memory.migrated)
    steps = []
    if lacks_image:
        verb = {"registry": "pull", "archive": "load", "build": "build"}[application.image.source]
        steps.append(f"{verb} the image {application.image.reference or application.image.identity}")
    if due:
        steps.append("migrate the database")
    steps += [f"start {name} {number}" for name, number in missing]
    if fresh:
        steps.append(f"send visitors to release {application.release}")
    steps += [f"stop {one.process} {one.replica} of release {one.release}" for one in surplus]
    if not fresh:
        steps += [f"remove the image {tag}" for tag in _unwanted_images(application, memory, engine)[1]]
    unsettled = bool(current) and any(one.slot != current.get("slot") for one in containers)
    return Plan(application, slot, steps, replicas, surplus, lacks_image, due, unsettled)


def _slot(application: Application, memory: Memory, containers: Sequence[Container]) -> str:
    """Where the release is, or else the slot that has no visitors."""
    if memory.slot:
        same = memory.current.get("release") == application.release
        return memory.slot if same else SLOTS[1 - SLOTS.index(memory.slot)]
    return next((one.slot for one in containers if one.release == application.release), SLOTS[0])


def _missing(application: Application, replicas: Mapping[tuple[str, int], Container]) -> list[tuple[str, int]]:
    places = [(process.name, number + 1) for process in application.services for number in range(process.replicas)]
    return [place for place in places if place not in replicas]


def _sorted_out(
    application: Application, slot: str, containers: Iterable[Container], engine: Engine
) -> tuple[dict[tuple[str, int], Container], list[Container]]:
    """The containers that fill the wanted release's places, and all others of the application."""
    places = {process.name: process for process in application.services}
    filled: dict[tuple[str, int], Container] = {}
    surplus = []
    for one in containers:
        process = places.get(one.process)
        at_home = one.release == application.release and one.slot == slot
        fits = process is not None and at_home and 1 <= one.replica <= process.replicas
        if process and fits and (one.process, one.replica) not in filled and _well(application, process, one, engine):
            filled[(one.process, one.replica)] = one
        else:
            surplus.append(one)
    return filled, surplus


def _well(application: Application, process: Process, one: Container, engine: Engine) -> bool:
    """Whether a container that is there already can stay."""
    if not one.running:
        return False
    if process.ready and one.port:
        return not complaint(_probe(application, process, one.port))
    return engine.condition(one.id).health != "unhealthy" if process.single else True


def _probe(application: Application, process: Process, port: int) -> Probe:
    host = f"[{application.address}]" if ":" in application.address else application.address
    ready = process.ready or {}
    return Probe(
        http=f"http://{host}:{port}{ready['path']}", status=ready.get("status", 200), body=ready.get("body", "")
    )


# --- prepare ----------------------------------------------------------------------------------------------------------


def prepare(
    application: Application,
    memory: Memory,
    engine: Engine,
    *,
    migrates: bool = True,
    image_file: str = "",
) -> Plan:
    """Have all replicas of the release there and ready, beside what runs. Raises TransactionError with only the former
    release left."""
    planned = plan(application, memory, engine, migrates=migrates)
    started: list[Container] = []
    try:
        _prepare(planned, memory, engine, image_file, started)
    except (TransactionError, OSError) as error:
        why = scrubbed(str(error), [value for one in application.processes for value in one.environment.values()])
        for one in started:
            engine.remove(one.id)
        withdraw(application, memory, engine, why)
        raise TransactionError(
            f"{application.name}: release {application.release} does not come into service, and what ran before it "
            f"still does. {why}"
        ) from error
    return plan(application, memory, engine, migrates=False)


def _prepare(planned: Plan, memory: Memory, engine: Engine, image_file: str, started: list[Container]) -> None:
    """Notes in ``started`` what it has begun, as it begins."""
    application = planned.application
    if not engine.has_image(application.tag):
        engine.bring(application.image, application.tag, image_file)
    _refuse_root(application, engine)
    if application.network:
        engine.ensure_network(application.network, application.subnet)
    memory.write_environment(application)
    if planned.migrates and application.migration:
        migration = application.migration
        engine.run(application, migration, str(memory.environment_file(application.release, migration.name)))
        memory.write(migrated=[application.image.identity, *memory.migrated])
    missing = _missing(application, planned.replicas)
    # What a killed run has left here, or has died, has no visitors and takes the ports.
    for one in planned.surplus:
        if one.slot == planned.slot:
            engine.remove(one.id)
    by_name = {process.name: process for process in application.services}
    for single in (False, True):
        batch = [(by_name[name], number) for name, number in missing if by_name[name].single == single]
        if single and batch:
            # Before their turn comes, everything else of the release has to work.
            _stop_singles(planned, {process.name for process, _number in batch}, engine)
        begun = []
        for process, number in batch:
            environment = str(memory.environment_file(application.release, process.name))
            container = _created(process, number, planned, engine, environment)
            started.append(container)
            engine.start(container.id)
            begun.append((process, container))
        _wait(application, begun, engine)


def _refuse_root(application: Application, engine: Engine) -> None:
    """An image that says nothing of its user runs as root (CIS Docker Benchmark 4.1)."""
    told = [process for process in application.processes if not any(o.startswith("--user=") for o in process.options)]
    if told and engine.user_of(application.tag).partition(":")[0] in ("", "0", "root"):
        raise TransactionError(
            f"Its image runs as root. Give it a USER, or set `user` of {', '.join(one.name for one in told)} to the "
            "number of a user that is not root."
        )


def _stop_singles(planned: Plan, names: set[str], engine: Engine) -> None:
    seconds = {process.name: process.stop_timeout for process in planned.application.services}
    for one in planned.surplus:
        if one.single and one.process in names and one.running and one.slot != planned.slot:
            engine.stop(one.id, seconds[one.process])


def _created(process: Process, number: int, planned: Plan, engine: Engine, environment: str) -> Container:
    application, slot = planned.application, planned.slot
    blank = Container(
        f"{application.name}-{process.name}-{number}-{slot}",
        application.name,
        process.name,
        application.release,
        slot,
        number,
        port=application.port(slot, process.name, number),
        inside=process.port,
        single=process.single,
    )
    return replace(blank, id=engine.create(blank, application, process, environment))


def _wait(application: Application, started: Sequence[tuple[Process, Container]], engine: Engine) -> None:
    """Until all are ready; raises TransactionError as soon as one has ended, or none is left to wait for in time."""
    deadline = time.monotonic() + application.ready_timeout
    waiting = list(started)
    while waiting:
        doubts = []
        for process, one in waiting:
            condition = engine.condition(one.id)
            if condition.restarts or not condition.running:
                raise TransactionError(f"{process.name} {one.replica} ended by itself. It said: {engine.log(one.id)}")
            doubt = _doubt(application, process, one, condition)
            if doubt:
                doubts.append((process, one, doubt))
        waiting = [(process, one) for process, one, _doubt in doubts]
        if waiting and time.monotonic() >= deadline:
            process, one, doubt = doubts[0]
            raise TransactionError(
                f"{process.name} {one.replica} was not ready within {application.ready_timeout:g} s: {doubt}. "
                f"It said: {engine.log(one.id)}"
            )
        if waiting:
            time.sleep(PAUSE)


def _doubt(application: Application, process: Process, one: Container, condition: Condition) -> str:
    """Why a container that runs is not ready, "" where it is."""
    if process.ready and one.port:
        return complaint(_probe(application, process, one.port))
    if condition.health not in ("", "healthy"):
        return f"its own check says {condition.health}"
    return "" if condition.health or condition.age >= SETTLED else "it has just begun"


# --- commit and withdraw ----------------------------------------------------------------------------------------------


def commit(application: Application, memory: Memory, engine: Engine, *, back: bool = False) -> list[str]:
    """Visitors are with the release: drain and remove all others, and forget what is beyond those to keep.

    back: the release replaces one that is not to come back by itself.
    Returns what was removed.
    """
    planned = plan(application, memory, engine, migrates=False)
    former = memory.current
    replaced = (former.get("image") or {}).get("identity")
    changes: dict[str, Any] = {"current": _current(application, planned, memory)}
    if replaced != application.image.identity:
        changes["held"] = replaced if back else None
    if former.get("release") != application.release:
        changes["releases"] = memory.noted(application, "served")
    memory.write(**changes)
    removed = _drained(planned, engine)
    return removed + _forgotten(application, memory, engine)


def _current(application: Application, planned: Plan, memory: Memory) -> dict[str, Any]:
    """What the timers of scheduled processes and the next run need to know; no secret."""
    return {
        "release": application.release,
        "slot": planned.slot,
        "image": asdict(application.image),
        "tag": application.tag,
        "network": application.network,
        "addresses": addresses(application, memory, planned.slot),
        "variant": application.variant,
        "scale": {name: dict(one) for name, one in application.scale.items()},
        "scheduled": {
            process.name: {"options": list(process.options), "command": list(process.command)}
            for process in application.processes
            if process.kind == "scheduled"
        },
        "described": described(application, memory),
    }


def _drained(planned: Plan, engine: Engine) -> list[str]:
    """Remove all surplus containers, once nobody is connected to them any more or the time for that is up."""
    deadline = time.monotonic() + planned.application.drain_timeout
    busy = {one.id: (engine.condition(one.id).pid, one.inside) for one in planned.surplus if one.running and one.inside}
    while busy and time.monotonic() < deadline:
        busy = {name: (pid, port) for name, (pid, port) in busy.items() if port and engine.connections(pid, port)}
        if busy:
            time.sleep(PAUSE)
    seconds = {process.name: process.stop_timeout for process in planned.application.services}
    for one in planned.surplus:
        if one.running:
            engine.stop(one.id, seconds.get(one.process, 30))
        engine.remove(one.id)
    return [f"{one.process} {one.replica} of release {one.release}" for one in planned.surplus]


def _unwanted_images(application: Application, memory: Memory, engine: Engine) -> tuple[set[str], list[str]]:
    """The identities of the images to keep, and the tags of all others that releases have brought.

    An image that a killed deployment has brought is remembered nowhere.
    """
    served = [one["image"]["identity"] for one in memory.releases if one["outcome"] == "served"]
    present = memory.current.get("image", {}).get("identity", application.image.identity)
    kept = set(list(dict.fromkeys([application.image.identity, present, *served]))[: application.keep])
    images = [Image(**one["image"]) for one in memory.releases if one["image"]["identity"] in kept]
    tags = {replace(application, image=image).tag for image in images} | {application.tag}
    return kept, [tag for tag in engine.tags(application.name) if tag not in tags]


def _forgotten(application: Application, memory: Memory, engine: Engine) -> list[str]:
    """Forget the oldest releases and the images that no kept one has."""
    kept, gone = _unwanted_images(application, memory, engine)
    for tag in gone:
        engine.forget(tag)
    remembered = [one for one in memory.releases if one["image"]["identity"] in kept]
    if remembered != memory.releases:
        memory.write(releases=remembered)
    for path in memory.folder.glob("*.env"):
        if path.name.partition(".")[0] != application.release:
            path.unlink()
    return [f"image {tag}" for tag in gone]


def settle(memory: Memory, engine: Engine, name: str) -> list[str]:
    """Visitors are with the current release for sure: what a deployment has left that was cut short goes."""
    current = memory.current
    removed = []
    for one in engine.containers():
        if one.application == name and current and one.slot != current.get("slot"):
            engine.stop(one.id, 5)
            engine.remove(one.id)
            removed.append(f"{one.process} {one.replica} of release {one.release}")
    _start_again(memory, engine, name)
    return removed


def _start_again(memory: Memory, engine: Engine, name: str) -> None:
    """Those of the current release that had to end before others began."""
    for one in engine.containers():
        if one.application == name and one.single and not one.running and one.slot == memory.slot:
            engine.start(one.id)


def withdraw(application: Application, memory: Memory, engine: Engine, why: str) -> list[str]:
    """The release goes, and what it was to replace is as before. Returns what was removed."""
    current = memory.current
    if current.get("release") == application.release:
        return []
    removed = []
    for one in engine.containers():
        if one.application == application.name and one.release == application.release:
            engine.stop(one.id, 5)
            engine.remove(one.id)
            removed.append(f"{one.process} {one.replica} of release {one.release}")
    _start_again(memory, engine, application.name)
    memory.write(releases=memory.noted(application, "failed", why))
    for path in memory.folder.glob(f"{application.release}.*.env"):
        path.unlink()
    known = {one["image"]["identity"] for one in memory.releases if one["outcome"] == "served"}
    if application.image.identity not in known:
        engine.forget(application.tag)
    return removed


# --- words ------------------------------------------------------------------------------------------------------------


def scrubbed(text: str, values: Iterable[str]) -> str:
    """A text without these values, any of which may be a secret; those too short to be one stay."""
    for value in sorted({value for value in values if len(value) >= SHORTEST_SECRET}, key=len, reverse=True):
        text = text.replace(value, "***")
    return text


def described(application: Application, memory: Memory) -> str:
    """What is wanted, as text for a diff; of the environment the names, and which have other values than before."""
    lines = [f"image: {application.image.reference or application.image.identity}"]
    for process in application.processes:
        command = " ".join(process.command) or "as its image says"
        lines.append(f"{process.kind} {process.name}: {process.replicas} x {command}")
        lines += [f"  {option}" for option in process.options]
        before = memory.environment(memory.current.get("release", ""), process.name)
        for name, value in sorted(known_to(process, application).items()):
            lines.append(f"  {name}{' (another value)' if before.get(name, value) != value else ''}")
    return "".join(f"{line}\n" for line in lines)


def tcp_connections(tables: Iterable[str], port: int) -> int:
    """Established connections to a port, by /proc/net/tcp and tcp6 (proc_net_tcp: state 01)."""
    rows = (line.split() for table in tables for line in table.splitlines()[1:])
    return sum(1 for row in rows if row[3] == "01" and int(row[1].rpartition(":")[2], 16) == port)
