# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Docker as releases need it: told by its command line. What is whose is written in the containers' labels."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.fushuma.production.plugins.module_utils import docker_api
from ansible_collections.fushuma.production.plugins.module_utils.journal import TransactionError, must, run
from ansible_collections.fushuma.production.plugins.module_utils.releases import (
    Application,
    Condition,
    Container,
    Image,
    Process,
    tcp_connections,
)

LABEL = "production."
LONGEST_INTERFACE = 15  # characters (IFNAMSIZ)
SLOW = 1800  # seconds for what depends on a network or a build
LOG_LINES = "20"
LOADED = re.compile(r"Loaded image(?: ID)?: (\S+)")


class Docker:
    """The engine of this host. ``absent_ok``: a host without Docker is one without containers (in check mode)."""

    def __init__(self, *, absent_ok: bool = False) -> None:
        self.absent_ok = absent_ok

    def containers(self) -> list[Container]:
        """All containers of applications, the oldest first."""
        try:
            told = docker_api.asked("/containers/json?all=1", {"label": [f"{LABEL}application"]})
        except docker_api.Unanswered:
            if self.absent_ok:
                return []
            raise
        return [found for one in reversed(told) if (found := container_of(one))]

    def condition(self, container: str) -> Condition:
        return condition_of(self._inspect("container", container), datetime.datetime.now(datetime.UTC))

    def has_image(self, tag: str) -> bool:
        return not run(["docker", "image", "inspect", "--format={{.Id}}", tag]).code

    def user_of(self, tag: str) -> str:
        return str((self._inspect("image", tag).get("Config") or {}).get("User") or "")

    def bring(self, image: Image, tag: str, file: str) -> None:
        """Have the image on this host. ``file`` is the archive or the build's context that the controller has sent."""
        if image.source == "registry":
            self._must(["pull", "--quiet", image.reference], SLOW)
            self._must(["tag", image.reference, tag])
        elif image.source == "archive":
            name = LOADED.search(self._must(["load", "--quiet", f"--input={file}"], SLOW))
            if name is None:
                raise TransactionError(f"{image.reference} holds no image")
            self._must(["tag", name[1], tag])
            if name[1] != tag and not name[1].startswith("sha256:"):
                run(["docker", "image", "rm", "--no-prune", name[1]])
        else:
            with tempfile.TemporaryDirectory() as folder:
                must(["tar", "--extract", f"--file={file}", f"--directory={folder}"])
                self._must(["build", "--quiet", f"--tag={tag}", folder], SLOW)

    def tags(self, name: str) -> list[str]:
        """The images that releases of an application have brought."""
        repository = f"production/{name}"
        told = docker_api.asked("/images/json", {"reference": [repository]})
        # An image is told with all its names.
        return [tag for one in told for tag in one["RepoTags"] or [] if tag.startswith(f"{repository}:")]

    def forget(self, tag: str) -> None:
        """Remove an image that no release needs; one that something else uses stays."""
        if not self.has_image(tag):
            return
        found = self._inspect("image", tag)
        others = [name for name in found.get("RepoTags") or [] if name != tag]
        for name in [tag, *([] if others else found.get("RepoDigests") or [])]:
            run(["docker", "image", "rm", name])

    def ensure_network(self, name: str, subnet: str) -> None:
        if run(["docker", "network", "inspect", name]).code:
            bridge = f"--opt=com.docker.network.bridge.name={bridge_of(name)}"
            told = [f"--subnet={subnet}"] if subnet else []
            self._must(["network", "create", bridge, f"--label={LABEL}network={name}", *told, name])

    def create(self, container: Container, application: Application, process: Process, environment: str) -> str:
        argv = ["create", f"--name={container.id}", "--restart=unless-stopped"]
        argv.append(f"--stop-timeout={process.stop_timeout}")
        argv += [f"--label={LABEL}{key}={value}" for key, value in labels_of(container).items()]
        if container.port:
            host = f"[{application.address}]" if ":" in application.address else application.address
            argv.append(f"--publish={host}:{container.port}:{process.port}")
        return self._must([*argv, *_common(application, process, environment)]).splitlines()[-1]

    def start(self, container: str) -> None:
        self._must(["start", container])

    def run(self, application: Application, process: Process, environment: str) -> None:
        name = f"{application.name}-{process.name}-{application.release}"
        run(["docker", "rm", "--force", name])  # one that a killed run has left
        argv = ["docker", "run", "--rm", f"--name={name}", *_common(application, process, environment)]
        done = run(argv, process.timeout)
        if done.code:
            run(["docker", "rm", "--force", name])
            raise TransactionError(f"{process.name} ended with {done.code}: {done.output[-2000:]}")

    def stop(self, container: str, seconds: int) -> None:
        self._must(["stop", f"--time={seconds}", container], seconds + 60)

    def remove(self, container: str) -> None:
        self._must(["rm", "--force", "--volumes", container])

    def log(self, container: str) -> str:
        return run(["docker", "logs", "--tail", LOG_LINES, container]).output or "nothing"

    def connections(self, pid: int, port: int) -> int:
        """Established connections of a container to its own port; it sees its own network by its process's files."""
        try:
            tables = [Path(f"/proc/{pid}/net/{name}").read_text("ascii") for name in ("tcp", "tcp6")]
        except OSError:
            return 0
        return tcp_connections(tables, port)

    def _inspect(self, kind: str, name: str) -> Mapping[str, Any]:
        found = json.loads(self._must([kind, "inspect", name]))
        return dict(found[0])

    def _must(self, argv: Sequence[str], seconds: float | None = None) -> str:
        done = run(["docker", *argv], seconds)
        if done.code:
            raise TransactionError(f"`docker {argv[0]}` failed ({done.code}): {done.output[-2000:]}")
        return done.output


def bridge_of(network: str) -> str:
    """What a network's bridge is called, so that rules and people know it; a long name ends with what makes it one."""
    name = f"br-{network}"
    if len(name) <= LONGEST_INTERFACE:
        return name
    return f"{name[: LONGEST_INTERFACE - 5]}-{hashlib.sha256(network.encode()).hexdigest()[:4]}"


def _common(application: Application, process: Process, environment: str) -> list[str]:
    network = [f"--network={application.network}"] if application.network else []
    return [*network, f"--env-file={environment}", *process.options, application.tag, *process.command]


def labels_of(container: Container) -> dict[str, str]:
    """What a container's labels say of it; `container_of` reads it."""
    told = {
        "application": container.application,
        "process": container.process,
        "release": container.release,
        "slot": container.slot,
        "replica": container.replica,
        "port": container.port,
        "inside": container.inside,
        "single": "yes" if container.single else None,
    }
    return {key: str(value) for key, value in told.items() if value is not None}


def container_of(row: Mapping[str, Any]) -> Container | None:
    """A container as Docker's API lists it; None for one that no release brings."""
    labels = row["Labels"] or {}
    told = {key[len(LABEL) :]: value for key, value in labels.items() if key.startswith(LABEL)}
    if "replica" not in told:
        return None
    return Container(
        str(row["Id"]),
        told["application"],
        told["process"],
        told["release"],
        told["slot"],
        int(told["replica"]),
        running=row["State"] == "running",
        port=int(told["port"]) if "port" in told else None,
        inside=int(told["inside"]) if "inside" in told else None,
        single="single" in told,
    )


def condition_of(found: Mapping[str, Any], now: datetime.datetime) -> Condition:
    """What ``docker inspect`` says of a container."""
    state = found["State"]
    # Docker writes nanoseconds, which datetime cannot read.
    began = datetime.datetime.strptime(state["StartedAt"][:19], "%Y-%m-%dT%H:%M:%S")
    age = (now - began.replace(tzinfo=datetime.UTC)).total_seconds()
    health = (state.get("Health") or {}).get("Status", "")
    return Condition(
        bool(state["Running"]) and not state.get("Restarting"),
        age,
        int(found.get("RestartCount", 0)),
        "" if health == "none" else health,
        int(state.get("Pid", 0)),
    )
