# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The Docker engine that carries the hosts: the one that answers, else one of our own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker  # type: ignore[import-untyped]

from .common import ENGINE, LACKING, Stop, locked, run, say, shown, tail, wait_until

DEFAULT_SOCKET = Path("/var/run/docker.sock")
PROGRAMS = {"dockerd": "docker.io", "containerd": "containerd", "runc": "runc", "iptables": "iptables"}
"""What an engine needs: program and the Debian package that brings it."""

LOG = ENGINE / "dockerd.log"
PID_FILE = ENGINE / "dockerd.pid"
CONTAINERD_PID_FILE = Path("/run/docker/containerd/containerd.pid")
SYSTEM_CONTAINERD = Path("/run/containerd/containerd.sock")
UNIT_STARTED = ENGINE / "started-docker.service"
START_SECONDS = 60.0
STOP_SECONDS = 60.0

OWN_CGROUPS = 'umount -R /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec "$@"'
"""Run in a mount namespace of its own: the engine sees pure cgroup v2, the machine keeps what it has mounted."""


@dataclass(frozen=True)
class Facts:
    """What decides how an engine is found or started."""

    answers: bool
    named_by_user: str = ""  # DOCKER_HOST
    socket_refused: bool = False  # there is a socket, and this user may not open it
    root: bool = False
    apt: bool = False
    systemd: bool = False  # as PID 1
    cgroup_v1: bool = False  # at least one v1 controller is mounted
    missing: tuple[str, ...] = ()  # Debian packages whose program is not there


@dataclass(frozen=True)
class Plan:
    """What to do. ``way`` is ``use``, ``systemctl`` or ``dockerd``; a ``refusal`` says why nothing can be done."""

    way: str = ""
    install: tuple[str, ...] = ()
    own_cgroups: bool = False
    refusal: str = ""


def plan_for(facts: Facts) -> Plan:
    """Choose how the machine gets its engine."""
    if facts.answers:
        return Plan(way="use")
    if facts.named_by_user:
        return Plan(refusal=f"DOCKER_HOST is {facts.named_by_user}, and no engine answers there: start it or unset it.")
    if facts.socket_refused:
        return Plan(
            refusal=f"This user may not use the Docker engine at {DEFAULT_SOCKET}: "
            "run `sudo usermod -aG docker $USER`, log in again and repeat."
        )
    if not facts.root:
        return Plan(
            refusal="No Docker engine answers and only root can start one: "
            "start Docker, set DOCKER_HOST, or run this as root."
        )
    if facts.missing and not facts.apt:
        return Plan(
            refusal=f"No Docker engine answers and {', '.join(facts.missing)} cannot be installed without apt: "
            "install Docker and start it."
        )
    if facts.systemd:
        return Plan(way="systemctl", install=facts.missing)
    return Plan(way="dockerd", install=facts.missing, own_cgroups=facts.cgroup_v1)


def nothing_runs(facts: Facts) -> bool:
    """Whether no engine is up at all, as opposed to one that this user does not reach."""
    return not (facts.answers or facts.named_by_user or facts.socket_refused)


def mounts_cgroup_v1(mountinfo: str) -> bool:
    """Whether a v1 controller stands in the text of /proc/self/mountinfo (proc(5): type after " - ")."""
    return any(line.partition(" - ")[2].split(" ", 1)[0] == "cgroup" for line in mountinfo.splitlines())


def missing_packages() -> tuple[str, ...]:
    """Debian packages whose program this machine does not have."""
    return tuple(package for program, package in PROGRAMS.items() if shutil.which(program) is None)


def facts_of_this_machine() -> Facts:
    """Look at the machine."""
    mountinfo = Path("/proc/self/mountinfo")
    return Facts(
        answers=answers(),
        named_by_user=os.environ.get("DOCKER_HOST", ""),
        socket_refused=DEFAULT_SOCKET.exists() and not os.access(DEFAULT_SOCKET, os.R_OK | os.W_OK),
        root=os.geteuid() == 0,
        apt=shutil.which("apt-get") is not None,
        systemd=Path("/run/systemd/system").is_dir(),
        cgroup_v1=mounts_cgroup_v1(mountinfo.read_text()) if mountinfo.exists() else False,
        missing=missing_packages(),
    )


def connect(seconds: float = 60) -> Any:
    """A client of the engine; ``seconds`` limits each single answer. Raises DockerException when none answers."""
    found = docker.from_env(timeout=seconds)
    try:
        found.ping()
    except BaseException:
        found.close()
        raise
    return found


def answers() -> bool:
    """Whether an engine answers now."""
    if not os.environ.get("DOCKER_HOST") and not listens(DEFAULT_SOCKET):
        return False  # docker's client leaves a socket open where nobody listens
    try:
        connect(seconds=5).close()
    except docker.errors.DockerException:
        return False
    return True


def client() -> Any:
    """A client of the engine that answers; where none does, the user reads how to start one."""
    try:
        return connect()
    except docker.errors.DockerException as error:
        raise Stop("No Docker engine answers: `engine start` starts one.", LACKING) from error


def start() -> str:
    """Leave the machine with an engine that answers, or stop with what is missing. Returns the way it was done."""
    with locked("engine"):
        if running(PID_FILE, "dockerd") is not None:
            wait_until(answers, START_SECONDS)  # a busy engine answers late: a second one would be none
        plan = plan_for(facts_of_this_machine())
        if plan.refusal:
            raise Stop(plan.refusal, LACKING)
        if plan.way == "use":
            return plan.way
        if plan.install:
            install(plan.install)
        began = time.monotonic()
        if plan.way == "systemctl":
            start_unit()
        else:
            start_dockerd(plan.own_cgroups)
        say(f"engine: started in {time.monotonic() - began:.1f} s")
        return plan.way


def install(packages: Sequence[str]) -> None:
    """Install Debian packages on this machine."""
    say(f"apt: installing {' '.join(packages)}")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    # A third party's source that is down does not matter; what Debian's lists lack shows when installing.
    subprocess.run(
        ["apt-get", "update", "-qq"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages], ENGINE / "apt.log", quiet)


def start_unit() -> None:
    """Start docker.service, which reports when it is ready."""
    run(["systemctl", "start", "docker"], ENGINE / "systemctl.log")
    if not answers():
        raise Stop("docker.service was started and no engine answers: see `journalctl -u docker`.")
    UNIT_STARTED.touch()


def dockerd_command(own_cgroups: bool) -> list[str]:
    """The argv that becomes dockerd, under the process id it is started with."""
    dockerd = ["dockerd", f"--pidfile={PID_FILE}"]
    if not own_cgroups:
        return dockerd
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", OWN_CGROUPS, "sh", *dockerd]


def start_dockerd(own_cgroups: bool) -> None:
    """Start dockerd in the background, in a session of its own, and wait until it answers."""
    ENGINE.mkdir(parents=True, exist_ok=True)
    forget_killed_engine()
    command = dockerd_command(own_cgroups)
    output = (os.POSIX_SPAWN_OPEN, 1, str(LOG), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    files = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), output, (os.POSIX_SPAWN_DUP2, 1, 2)]
    # It outlives this process; a Popen would have to be waited for.
    pid = os.posix_spawnp(command[0], command, os.environ, file_actions=files, setsid=True)
    wait_until(lambda: ended(pid) or answers(), START_SECONDS)
    if not ended(pid):
        if answers():
            return
        os.kill(pid, signal.SIGTERM)
    raise Stop(f"dockerd did not come up ({shown(LOG)}):\n{tail(LOG.read_text(errors='replace'))}")


def ended(pid: int) -> bool:
    """Whether a process this one has started is over."""
    try:
        return os.waitpid(pid, os.WNOHANG) != (0, 0)
    except ChildProcessError:  # it has been asked before
        return True


def running(pid_file: Path, program: str) -> int | None:
    """The process id in a pid file, if that process still is the program."""
    try:
        pid = int(pid_file.read_text())
        status = Path(f"/proc/{pid}/status").read_text()
    except (OSError, ValueError):
        return None
    return pid if is_alive(status, program) else None


def is_alive(status: str, program: str) -> bool:
    """Whether the text of a /proc/PID/status (proc(5)) is that of the living program.

    An id may have been given again since the machine restarted, and a killed process stays a zombie where PID 1 does
    not collect it.
    """
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    return fields.get("Name") == program and not fields.get("State", "Z").startswith(("Z", "X"))


def forget_killed_engine() -> None:
    """Remove what an engine that was killed left behind and what would keep a new one from starting."""
    for pid_file, program in ((PID_FILE, "dockerd"), (CONTAINERD_PID_FILE, "containerd")):
        if running(pid_file, program) is None:
            pid_file.unlink(missing_ok=True)
    # dockerd uses a system containerd wherever this socket exists, whether or not someone listens.
    if SYSTEM_CONTAINERD.exists() and not listens(SYSTEM_CONTAINERD):
        SYSTEM_CONTAINERD.unlink()


def listens(path: Path) -> bool:
    """Whether a process accepts connections at a unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def stop() -> None:
    """Stop the engine if this tool started it."""
    with locked("engine"):
        pid = running(PID_FILE, "dockerd")
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            if not wait_until(lambda: running(PID_FILE, "dockerd") is None, STOP_SECONDS):
                raise Stop(f"dockerd (process {pid}) did not stop within {STOP_SECONDS:.0f} s.")
            say("engine: stopped")
        elif UNIT_STARTED.exists():
            run(["systemctl", "stop", "docker.socket", "docker.service"], ENGINE / "systemctl.log")
            UNIT_STARTED.unlink()
            say("engine: docker.service stopped")
        else:
            say("engine: none was started from here")
