# Managed by Ansible, role fushuma.production.sentry.
"""Sentry itself, of its own archive and by its own installer, one release after the other.

self_hosted.py check            whether this host can run it, and these releases can be gone through
self_hosted.py install          install the releases that are still to come
self_hosted.py installed        end with 0 where the last one is there
self_hosted.py declare          organisation, projects, keys and alerts
self_hosted.py copy             a copy of all data for backups, while everything is stopped
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CONFIG = Path("/etc/sentry")
FOLDER = Path("/opt/sentry")
TREE = FOLDER / "self-hosted"
COPY = Path("/var/lib/sentry-copy")
DOCKER = Path("/var/lib/docker")
# install/_min-requirements.sh of 26.8.0, in CPUs and MB.
LEAST = {"errors-only": (2, 7000), "feature-complete": (4, 14000)}
LEAST_COMPOSE = (2, 32, 2)
# Releases whose migrations the ones after them build upon: an upgrade goes through each of them.
HARD_STOPS = ("9.1.2", "21.5.0", "21.6.3", "23.6.2", "23.11.0", "24.8.0", "25.5.1")
VOLUMES = ("postgres", "data", "clickhouse", "kafka", "redis", "seaweedfs")


class Failure(Exception):
    """What an operator is told in a sentence."""


def main(words: Sequence[str]) -> int:
    try:
        return COMMANDS[words[0]]() or 0
    except (KeyError, IndexError):
        print(__doc__, file=sys.stderr)
        return 2
    except (Failure, OSError) as error:
        print(f"sentry: {error}", file=sys.stderr)
        return 1


def steps() -> dict[str, Any]:
    return dict(json.loads((CONFIG / "steps.json").read_text("utf-8")))


def there() -> str:
    """The release that is installed; "" where none is."""
    try:
        return (FOLDER / "installed").read_text("utf-8").strip()
    except OSError:
        return ""


def number(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", release))


def to_come() -> list[Mapping[str, Any]]:
    return [one for one in steps()["steps"] if number(one["release"]) > number(there() or "0")]


# --- whether it can work ----------------------------------------------------------------------------------------------


def check() -> None:
    wanted = steps()
    cpus, memory = LEAST[wanted["profile"]]
    found = [*host_problems(cpus, memory, wanted["disk"]), *compose_problems(), *walk_problems()]
    if found:
        raise Failure(f"this host cannot run Sentry ({wanted['profile']}): {'; '.join(found)}. Nothing was changed")
    if (TREE / "docker-compose.yml").exists() and not to_come():
        compose("config", "--quiet")


def host_problems(cpus: int, memory: int, disk: int) -> list[str]:
    found = []
    has = len(os.sched_getaffinity(0))
    if has < cpus:
        found.append(f"it has {has} CPUs, and {cpus} are needed")
    megabytes = memory_of_host() // 1000**2
    if megabytes < memory:
        found.append(f"it has {megabytes} MB of memory, and {memory} are needed")
    place = DOCKER if DOCKER.exists() else Path("/var/lib")
    free = shutil.disk_usage(place).free
    if free < disk and not there():
        found.append(f"{place} has {free // 1024**3} GB left, and {disk // 1024**3} are needed")
    about = Path("/proc/cpuinfo").read_text("utf-8")
    if os.uname().machine == "x86_64" and "sse4_2" not in about:
        found.append("its CPU lacks SSE 4.2, which ClickHouse needs")
    return found


def memory_of_host() -> int:
    """Bytes; a container may have less than its host."""
    told = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text("utf-8"))
    has = int(told[1]) * 1024 if told else 0
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text("utf-8").strip()
    except OSError:
        return has
    return min(has, int(limit)) if limit.isdigit() else has


def compose_problems() -> list[str]:
    try:
        asked = ["docker", "compose", "version", "--short"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
    except OSError:
        return ["it has no Docker"]
    version = number(done.stdout)[:3]
    wanted = ".".join(map(str, LEAST_COMPOSE))
    if done.returncode or not version:
        return [f"it has no `docker compose`, of which {wanted} is needed: have docker_repository"]
    if version < LEAST_COMPOSE:
        have = "have docker_repository, for Debian's is older"
        return [f"it has Docker Compose {done.stdout.strip()}, and {wanted} is needed: {have}"]
    return []


def walk_problems() -> list[str]:
    """A release that may not be left out on the way from what is there to what is wanted."""
    now, last = there(), steps()["steps"][-1]["release"]
    if now and number(last) < number(now):
        return [f"it has {now}, and no upgrade goes back to {last}"]
    named = {one["release"] for one in steps()["steps"]}
    missed = [stop for stop in HARD_STOPS if now and number(now) < number(stop) < number(last) and stop not in named]
    if missed:
        return [f"from {now} to {last} one has to go by way of {', '.join(missed)}: name them in releases"]
    return []


# --- the installation -------------------------------------------------------------------------------------------------


def compose(*words: str, text: str | None = None) -> str:
    files = ["--env-file", ".env", "--env-file", ".env.custom"]
    done = subprocess.run(
        ["docker", "compose", *files, *words],
        cwd=TREE,
        input=text,
        stdin=subprocess.DEVNULL if text is None else None,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        told = " | ".join(done.stdout.splitlines()[-5:])
        raise Failure(f"`docker compose {' '.join(words[:3])}` ended with {done.returncode}: {told}")
    return done.stdout


def install() -> None:
    for one in to_come():
        if there():
            copy()
        unpack(archive(one))
        run_installer()
        compose("up", "--detach", "--wait")
        (FOLDER / "installed").write_text(f"{one['release']}\n", "utf-8")
    declare()


def installed() -> int:
    return 0 if there() == steps()["steps"][-1]["release"] else 1


def archive(one: Mapping[str, Any]) -> Path:
    """The release's archive, with the checksum that is wanted."""
    path = Path(one["archive"])
    if "://" in one["archive"]:
        path = FOLDER / "archives" / f"{one['release']}.tar.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or digest_of(path) != one["checksum"]:
            new = path.with_suffix(".new")
            with urllib.request.urlopen(one["archive"], timeout=60) as answer, new.open("wb") as file:
                shutil.copyfileobj(answer, file)
            new.rename(path)
    if digest_of(path) != one["checksum"]:
        raise Failure(f"the archive of {one['release']} has the checksum {digest_of(path)}, not {one['checksum']}")
    return path


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unpack(path: Path) -> None:
    """Over what is there: configuration, credentials and certificates are in no archive."""
    # Debian 12's Python may lack it. What the archive holds is known by its checksum.
    sure: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    with tarfile.open(path) as whole:
        for member in whole:
            _first, _slash, member.name = member.name.partition("/")
            if member.name:
                whole.extract(member, TREE, **sure)


def run_installer() -> None:
    options = ["--skip-user-creation", "--no-report-self-hosted-issues", "--apply-automatic-config-updates"]
    log = FOLDER / "install.log"
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(
            ["./install.sh", *options, "--skip-commit-check"],
            cwd=TREE,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "SKIP_USER_CREATION": "1", "CI": "", "REPORT_SELF_HOSTED_ISSUES": "0"},
            check=False,
        )
    if done.returncode:
        raise Failure(f"install.sh ended with {done.returncode}; {log} has what it said")


def declare() -> None:
    """By Sentry's own `exec`; what is wanted goes by standard input, for there are passwords in it."""
    program = f"{CONFIG}/declare.py:/tmp/declare.py:ro"
    wanted = (CONFIG / "declared.json").read_text("utf-8")
    compose("run", "--rm", "-T", "--volume", program, "web", "exec", "/tmp/declare.py", text=wanted)


def copy() -> None:
    """All volumes as they are while nothing writes to them. Events of these minutes wait with the SDKs, or are lost."""
    COPY.mkdir(mode=0o700, exist_ok=True)
    compose("stop", "--timeout", "60")
    try:
        for name in VOLUMES:
            data = DOCKER / "volumes" / f"sentry-{name}" / "_data"
            if data.exists():
                with tarfile.open(COPY / f"{name}.tar.new", "w") as file:
                    file.add(data, name)
                (COPY / f"{name}.tar.new").rename(COPY / f"{name}.tar")
        with tarfile.open(COPY / "configuration.tar.new", "w") as file:
            for name in (".env.custom", "sentry", "relay", "symbolicator", "certificates"):
                if (TREE / name).exists():
                    file.add(TREE / name, name)
        (COPY / "configuration.tar.new").rename(COPY / "configuration.tar")
    finally:
        compose("up", "--detach", "--wait")


COMMANDS = {
    "check": check,
    "install": install,
    "installed": installed,
    "declare": declare,
    "copy": copy,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
