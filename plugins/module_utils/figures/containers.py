# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What containers take of the host, as Docker and the kernel say. What neither says is left away."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .text import Family

SOCKET = "/run/docker.sock"
PATIENCE = 20.0  # seconds
STATES = ("starting", "healthy", "unhealthy")

# The body of Docker's answer to a path; raises OSError where there is none.
Ask = Callable[[str], str]


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=PATIENCE)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def asked(path: str, at: str = SOCKET) -> str:
    """Docker's answer; raises OSError for any but a good one."""
    connection = _Connection(at)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read().decode()
    except (http.client.HTTPException, UnicodeDecodeError) as error:
        raise OSError(f"Docker's answer is none: {error}") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise OSError(f"Docker answers {path} with {answer.status}")
    return body


def inspected(ask: Ask) -> list[Mapping[str, Any]]:
    """All containers of the host, as `docker inspect` has them."""
    found = []
    for row in json.loads(ask("/containers/json?all=1")):
        try:
            found.append(json.loads(ask(f"/containers/{row['Id']}/json")))
        except OSError:
            continue  # it has gone meanwhile
    return sorted(found, key=lambda one: str(one["Name"]))


def kills(ask: Ask, before: Mapping[str, Any], now: int) -> dict[str, Any]:
    """How often the kernel has killed a process of each container for its memory, since the first call of all.

    Docker says what happened between two moments, and forgets what is long ago: ``before`` and the result are
    ``{since: seconds, kills: {container: number}}``.
    """
    found = {str(name): int(number) for name, number in before.get("kills", {}).items()}
    if "since" in before:
        filters = quote(json.dumps({"type": ["container"], "event": ["oom"]}))
        said = ask(f"/events?since={before['since']}&until={now}&filters={filters}")
        for line in said.splitlines():
            event = json.loads(line)
            # Docker counts the second of ``until`` too, and so it would come twice.
            if before["since"] <= event["time"] < now:
                name = event["Actor"]["Attributes"]["name"]
                found[name] = found.get(name, 0) + 1
    return {"since": now, "kills": found}


def group_of(proc: Path, pid: int) -> str:
    """The control group of a process, "" where the host has other ones than cgroup2."""
    try:
        lines = (proc / str(pid) / "cgroup").read_text("utf-8").splitlines()
    except OSError:
        return ""
    return next((line[3:].lstrip("/") for line in lines if line.startswith("0::/")), "")


def number(path: Path, key: str = "") -> int | None:
    """The number in a file, or in its line that begins with the key; None where there is none."""
    try:
        words = path.read_text("utf-8").split()
        return int(words[words.index(key) + 1] if key else words[0])
    except (OSError, ValueError, IndexError):
        return None


def families(
    containers: Iterable[Mapping[str, Any]], killed: Mapping[str, int] | None, proc: Path, groups: Path
) -> list[Family]:
    """The figures of all containers. killed: None where Docker did not say."""
    named = {
        "up": Family("production_container_up", "gauge", "Whether the container runs."),
        "memory": Family("production_container_memory_bytes", "gauge", "Memory without what may go at any time."),
        "limit": Family("production_container_memory_limit_bytes", "gauge", "The most memory it may take."),
        "cpu": Family("production_container_cpu_seconds_total", "counter", "Time of processors that it took."),
        "restarts": Family("production_container_restarts_total", "counter", "How often Docker started it again."),
        "kills": Family("production_container_oom_kills_total", "counter", "Processes killed for their memory."),
        "health": Family("production_container_health", "gauge", "What its own check of health says."),
    }
    for one in containers:
        told = one["Config"].get("Labels") or {}
        name = str(one["Name"]).lstrip("/")
        labels = {
            "container": name,
            "app": told.get("production.application", ""),
            "process": told.get("production.process", ""),
            "image": str(one["Config"].get("Image", "")),
        }
        state = one["State"]
        named["up"].add(int(bool(state["Running"]) and not state.get("Restarting")), **labels)
        named["restarts"].add(int(one.get("RestartCount", 0)), **labels)
        if one["HostConfig"].get("Memory"):
            named["limit"].add(int(one["HostConfig"]["Memory"]), **labels)
        if killed is not None:
            named["kills"].add(killed.get(name, 0), **labels)
        if state.get("Health") and state["Health"].get("Status") in STATES:
            for status in STATES:
                named["health"].add(int(state["Health"]["Status"] == status), **labels, status=status)
        group = group_of(proc, int(state.get("Pid") or 0))
        if state["Running"] and group:
            used = number(groups / group / "cpu.stat", "usage_usec")
            if used is not None:
                named["cpu"].add(used / 1e6, **labels)
            taken = number(groups / group / "memory.current")
            if taken is not None:
                idle = number(groups / group / "memory.stat", "inactive_file") or 0
                named["memory"].add(max(taken - idle, 0), **labels)
    return list(named.values())


def remembered(path: Path) -> dict[str, Any]:
    """What was noted last; nothing where nothing was, or it was cut short."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read(ask: Ask, memory: Path, proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> list[Family]:
    """The figures of this moment; raises OSError or ValueError where Docker does not answer."""
    containers = inspected(ask)
    noted = kills(ask, remembered(memory), int(time.time()))
    names = {str(one["Name"]).lstrip("/") for one in containers}
    noted["kills"] = {name: count for name, count in noted["kills"].items() if name in names}
    memory.write_text(json.dumps(noted), "utf-8")
    return families(containers, noted["kills"], proc, groups)
