# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an incident needs to know of a host, gathered in bounds of time and size, and without secrets.

Whatever hangs, fails or is too long is said in the bundle and keeps nothing else from it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import selectors
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

from ansible_collections.fushuma.production.plugins.module_utils.engine import LABEL
from ansible_collections.fushuma.production.plugins.module_utils.journal import (
    STATE,
    Store,
    TransactionError,
    snapshot,
)
from ansible_collections.fushuma.production.plugins.module_utils.scrubbing import Scrubber, names_only, secrets_among

COMMAND_SECONDS = 10.0
ALL_SECONDS = 120.0
PIECE_BYTES = 1 << 20
ALL_BYTES = 24 << 20
LINES = "2000"
CONTAINER_LINES = "1000"
MOST_CONTAINERS = 30
LARGEST_FILE = 1 << 16  # bytes; configurations are smaller
WORLD_READABLE = 0o004
FULL = 90  # percent of a file system from which it stands out
SCARCE = 10  # percent of the memory below which it stands out
SHOWN = "/etc/"  # what is published elsewhere is content
# In memory, so that a full disk is no obstacle.
PLACE = "/run"


@dataclass(frozen=True)
class Answer:
    """What a program said, and what is to be noted of it: that it hung, failed or said too much."""

    text: str
    note: str = ""


def ask(argv: Sequence[str], seconds: float = COMMAND_SECONDS, most: int = PIECE_BYTES) -> Answer:
    """The last ``most`` bytes that a program says within ``seconds``. What it has started ends with it."""
    try:
        # AnsibleModule.run_command waits for ever and keeps everything that is said.
        process = subprocess.Popen(  # pylint: disable=ansible-bad-function
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "LC_ALL": "C", "SYSTEMD_COLORS": "0", "PAGER": "cat"},
        )
    except OSError as error:
        return Answer("", f"could not be started: {error.strerror}")
    said, cut = bytearray(), False
    deadline = time.monotonic() + seconds
    with cast(BinaryIO, process.stdout) as output, selectors.DefaultSelector() as waiting:
        waiting.register(output, selectors.EVENT_READ)
        while ended := bool(waiting.select(max(0.0, deadline - time.monotonic()))):
            chunk = os.read(output.fileno(), 1 << 16)
            if not chunk:
                break
            said += chunk
            if len(said) > 2 * most:
                del said[:-most]
                cut = True
    if ended:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.1, deadline - time.monotonic()))
    note = "" if process.returncode == 0 else f"ended with {process.returncode}"
    if process.returncode is None:
        note = f"did not end within {seconds:g} s"
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        # One that waits for a disk cannot even be killed.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
    return Answer(*_tail(bytes(said), most, note, cut))


def _tail(said: bytes, most: int, note: str, cut: bool) -> tuple[str, str]:
    """The end of what was said, in whole lines: of a line that is cut nobody could say what it hides."""
    if cut or len(said) > most:
        said = said[-most:].partition(b"\n")[2]
        note = "; ".join(filter(None, [note, f"only the last {len(said)} bytes are here"]))
    return said.decode("utf-8", "replace"), note


@dataclass(frozen=True)
class Question:
    """A program whose answer is wanted, and the file of the bundle where it stands."""

    file: str
    argv: Sequence[str]


QUESTIONS = (
    Question("state/uptime", ["uptime"]),
    Question("state/memory", ["cat", "/proc/meminfo"]),
    Question(
        "state/pressure", ["tail", "-v", "-n", "+1", *(f"/proc/pressure/{one}" for one in ("cpu", "io", "memory"))]
    ),
    Question("state/processes", ["top", "-b", "-n", "1", "-w", "200", "-o", "%MEM"]),
    Question(
        "state/disks",
        ["df", "--local", "-h", "--output=source,fstype,size,used,avail,pcent,itotal,iavail,ipcent,target"],
    ),
    Question("state/sockets", ["ss", "--listening", "--tcp", "--udp", "--numeric", "--processes"]),
    Question("state/connections", ["ss", "--summary"]),
    Question("state/addresses", ["ip", "address"]),
    Question("state/routes", ["ip", "route", "show", "table", "all"]),
    Question("state/time", ["timedatectl"]),
    Question("state/failed", ["systemctl", "list-units", "--state=failed", "--plain", "--no-legend", "--no-pager"]),
    Question("state/timers", ["systemctl", "list-timers", "--all", "--no-pager"]),
    Question("state/packages", ["tail", "-n", "200", "/var/log/apt/history.log"]),
    Question("state/sessions", ["loginctl", "list-sessions", "--no-pager"]),
)
CONTAINERS = Question("docker/containers", ["docker", "ps", "--all", "--no-trunc", "--format={{json .}}"])


def questions(units: Sequence[str], logs: Sequence[Mapping[str, Any]], since: str) -> Iterator[Question]:
    """What is asked of a host whose roles stand for these units and write these logs, ``{path}`` or ``{unit}``."""
    yield from QUESTIONS
    journal = ["journalctl", "--no-pager", "--output=short-iso", f"--lines={LINES}", f"--since={since}"]
    wanted = list(dict.fromkeys([*units, *(str(one["unit"]) for one in logs if one.get("unit"))]))
    if wanted:
        yield Question("state/units", ["systemctl", "status", "--full", "--no-pager", "--lines=20", "--", *wanted])
    yield Question("logs/kernel", [*journal, "--dmesg", "--priority=warning"])
    yield Question("logs/errors", [*journal, "--priority=err"])
    for unit in wanted:
        yield Question(f"logs/{_file_name(unit)}", [*journal, f"--unit={unit}"])
    for path in dict.fromkeys(str(one["path"]) for one in logs if one.get("path")):
        yield Question(f"logs/{_file_name(path)}", ["tail", "-n", LINES, "--", path])


def _file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.@-]+", "_", text.strip("/"))


# --- the bundle -------------------------------------------------------------------------------------------------------


@dataclass
class Bundle:
    """Texts by their names, and what is to be noted. All of it is within bounds."""

    seconds: float = ALL_SECONDS
    most: int = ALL_BYTES
    texts: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._deadline = time.monotonic() + self.seconds
        self._left = self.most

    def ask(self, question: Question, name: str = "") -> str:
        """Ask, and keep the answer; returns it."""
        said = " ".join(question.argv)
        left = min(COMMAND_SECONDS, self._deadline - time.monotonic())
        if left <= 0:
            self.notes.append(f"`{said}` was not asked: the {self.seconds:g} s for all of it were over")
            return ""
        answer = ask(question.argv, left)
        if answer.note:
            self.notes.append(f"`{said}` {answer.note}")
        self.keep(question.file, answer.text)
        return answer.text

    def keep(self, name: str, text: str) -> None:
        size = len(text.encode("utf-8", "replace"))
        if size > self._left:
            self.notes.append(f"{name} is left out: all of it would be more than {self.most} bytes")
            return
        self._left -= size
        self.texts[name] = text


def write(texts: Mapping[str, str], folder: str, place: str = PLACE) -> str:
    """A compressed archive with the texts below ``folder``, which root alone reads; returns its path."""
    descriptor, path = tempfile.mkstemp(prefix="diagnostics-", suffix=".tar.gz", dir=place)
    with os.fdopen(descriptor, "wb") as raw, tarfile.open(fileobj=raw, mode="w:gz") as archive:
        for name, text in texts.items():
            content = text.encode("utf-8", "replace")
            about = tarfile.TarInfo(f"{folder}/{name}.txt")
            about.size, about.mode, about.mtime = len(content), 0o600, int(time.time())
            archive.addfile(about, io.BytesIO(content))
    return path


# --- what is gathered -------------------------------------------------------------------------------------------------


def gather(
    units: Sequence[str],
    logs: Sequence[Mapping[str, Any]],
    since: str,
    secrets: Iterable[str],
    *,
    bundle: Bundle | None = None,
    state: Path | None = None,
) -> tuple[dict[str, str], list[str]]:
    """All texts without secrets, by their names in the bundle; and what stands out, each a clause."""
    found = bundle or Bundle()
    scrub = Scrubber(secrets)
    for question in questions(units, logs, since):
        found.ask(question)
    containers = _containers(found, scrub)
    differing = _configuration(found, scrub, state or STATE)
    outstanding = [*differing, *findings(found.texts, units), *_ill_containers(containers), *found.notes]
    summary = "\n".join(["What stands out:", *outstanding, ""]) if outstanding else "Nothing stands out.\n"
    texts = {"summary": summary, **found.texts}
    return {name: scrub(text) for name, text in texts.items()}, [scrub(one) for one in outstanding]


def _containers(found: Bundle, scrub: Scrubber) -> list[dict[str, Any]]:
    """Keep what Docker says of its containers, the values of their environments excepted; returns its rows."""
    if not any(os.access(os.path.join(folder, "docker"), os.X_OK) for folder in os.get_exec_path()):
        return []
    rows = [row for line in found.ask(CONTAINERS).splitlines() if (row := _json(line)) and isinstance(row, dict)]
    ids = [str(row["ID"]) for row in rows[:MOST_CONTAINERS]]
    if len(rows) > len(ids):
        found.notes.append(f"of {len(rows)} containers the first {len(ids)} are looked at")
    if ids:
        # Never kept as it is: the environment is in it.
        answer = ask(["docker", "container", "inspect", *ids])
        inspected = _json(answer.text)
        if not isinstance(inspected, list):
            found.notes.append(f"`docker container inspect` {answer.note or 'gives no JSON'}")
            inspected = []
        for settings in (one.get("Config") or {} for one in inspected):
            environment = list(settings.get("Env") or [])
            scrub.learn(secrets_among(environment))
            settings["Env"] = names_only(environment)
        found.keep("docker/inspect", json.dumps(inspected, indent=1))
    found.ask(Question("docker/disk", ["docker", "system", "df"]))
    for row in rows[:MOST_CONTAINERS]:
        if f"{LABEL}application=" in str(row.get("Labels", "")):
            argv = ["docker", "logs", "--timestamps", "--tail", CONTAINER_LINES, str(row["ID"])]
            found.ask(Question(f"docker/logs/{_file_name(str(row['Names']))}", argv))
    return rows


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _configuration(found: Bundle, scrub: Scrubber, state: Path) -> list[str]:
    """Keep the files that services were last activated with; returns how they differ from that.

    What others on the host may not read is secret, so it is named and not shown. Of environments the names are.
    """
    differing = []
    listed = []
    for record in sorted(state.glob("*.record")):
        for path, digest in sorted((Store(record.stem, state).activated() or {}).items()):
            try:
                entry = snapshot(path)
            except (OSError, TransactionError) as error:
                found.notes.append(f"{path} cannot be read: {error}")
                continue
            same = entry.digest == digest
            differing += [] if same else [f"{path} is not as {record.stem} was activated with"]
            how = "as activated" if same else "differs"
            listed.append(f"{record.stem}: {path} {entry.kind} {entry.mode:04o} {entry.uid}:{entry.gid} {how}")
            shown = entry.kind == "file" and len(entry.data) <= LARGEST_FILE and b"\0" not in entry.data
            if shown and path.startswith(SHOWN) and entry.mode & WORLD_READABLE:
                found.keep(f"configuration{path}", entry.data.decode("utf-8", "replace"))
    left = [f"{path.name} is a change under way, or one that was cut short" for path in sorted(state.glob("*.journal"))]
    found.keep("configuration/records", "\n".join([*listed, *left, ""]))
    for file in sorted(state.glob("applications/*/*.env")):
        with contextlib.suppress(OSError):
            lines = file.read_text("utf-8", "replace").splitlines()
            scrub.learn(secrets_among(lines))
            found.keep(f"configuration{file}", "\n".join([*names_only(lines), ""]))
    return differing + left


# --- what stands out --------------------------------------------------------------------------------------------------


def findings(texts: Mapping[str, str], units: Sequence[str] = ()) -> list[str]:
    """What stands out in the answers, each a clause."""
    failed = [line.split()[0] for line in texts.get("state/failed", "").splitlines() if line.strip()]
    return [
        *(f"{unit} has failed" for unit in failed),
        *(f"{unit} is not active" for unit in _inactive(texts.get("state/units", "")) if unit not in failed),
        *_full_disks(texts.get("state/disks", "")),
        *_busy(texts.get("state/uptime", ""), os.cpu_count() or 1),
        *_scarce_memory(texts.get("state/memory", "")),
        *_out_of_memory(texts.get("logs/kernel", "")),
        *_server_errors(texts),
        *(["the host asks to be booted again"] if os.path.exists("/run/reboot-required") else []),
    ]


def _inactive(status: str) -> list[str]:
    """Of what ``systemctl status`` shows, the units that do not run."""
    found = []
    for block in re.split(r"\n\n(?=\S)", status):
        name = re.match(r"\S+ (\S+\.\w+)", block)
        active = re.search(r"^ +Active: (\w+)", block, re.MULTILINE)
        if name and active and active[1] not in ("active", "activating", "reloading"):
            found.append(name[1])
    return found


def _full_disks(disks: str) -> Iterator[str]:
    for line in disks.splitlines()[1:]:
        fields = line.split(None, 9)
        if len(fields) == 10:
            for used, what in ((fields[5], "space"), (fields[8], "inodes")):
                if used.rstrip("%").isdigit() and int(used.rstrip("%")) >= FULL:
                    yield f"{fields[9]} has used {used} of its {what}"


def _busy(uptime: str, processors: int) -> Iterator[str]:
    load = re.search(r"load average: ([0-9.]+)", uptime)
    if load and float(load[1]) > 2 * processors:
        yield f"the load is {load[1]} on {processors} processors"


def _scarce_memory(meminfo: str) -> Iterator[str]:
    kilobytes = {name: int(value) for name, value in re.findall(r"^(\w+): +(\d+) kB", meminfo, re.MULTILINE)}
    total, free = kilobytes.get("MemTotal", 0), kilobytes.get("MemAvailable", 0)
    if total and 100 * free < SCARCE * total:
        yield f"of {total // 1024} MiB of memory {free // 1024} MiB are available"


def _out_of_memory(kernel: str) -> Iterator[str]:
    killed = re.findall(r"(?:Out of memory|Memory cgroup out of memory): Killed process \d+ \(([^)]*)\)", kernel)
    if killed:
        yield f"the kernel has killed for want of memory: {', '.join(sorted(set(killed)))} ({len(killed)} times)"


def _server_errors(texts: Mapping[str, str]) -> Iterator[str]:
    for name, text in texts.items():
        answers = re.findall(r'"status":(\d{3})', text) if name.startswith("logs/") else []
        wrong = sum(status.startswith("5") for status in answers)
        if wrong:
            yield f"{wrong} of the last {len(answers)} answers in {name} have a status from 500 on"


def _ill_containers(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for row in rows:
        ours = f"{LABEL}application=" in str(row.get("Labels", ""))
        state, status = str(row.get("State", "")), str(row.get("Status", ""))
        if state in ("restarting", "dead") or "unhealthy" in status or (ours and state != "running"):
            yield f"container {row.get('Names')}: {status}"
