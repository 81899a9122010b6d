# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Does the service answer as its new configuration says? Asked on the host, from the outside of the service."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from ansible_collections.fushuma.production.plugins.module_utils.journal import run

ATTEMPT_TIMEOUT = 5.0  # seconds one attempt may take
PAUSE = 0.05  # seconds between two attempts
LISTEN = "0A"  # a socket's state in /proc/net/tcp (proc_net_tcp, include/net/tcp_states.h)


@dataclass(frozen=True)
class Probe:
    """One question: exactly one of ``tcp`` (``host:port``), ``http`` (a URL), ``file`` (a path), ``unit`` and ``exec``.

    An http probe may go through a Unix ``socket``, or to another ``address`` (``host:port``) than the URL's; it wants
    ``status`` and, where given, ``body`` somewhere in the answer and each text of ``expects`` somewhere in the header
    of that name. It sends ``headers``. Certificates are verified only with ``trusted``: else the probe asks whether the
    service runs, be it with a placeholder. An exec probe (an argv) wants the end 0 and, where given, ``body`` somewhere
    in the output. A file holds just the words of ``body``. A ``unit``'s main process has to listen on all ``ports``,
    which is seen without a connection: some services hold it against clients who connect only to ask. With ``newer``
    (paths) all the processes it has begun are younger than those files, so none works with what was there before. One
    with a ``timeout`` of its own (seconds) is waited for before the others are asked.
    """

    tcp: str | None = None
    http: str | None = None
    file: str | None = None
    exec: Sequence[str] = field(default_factory=list)
    socket: str | None = None
    address: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    trusted: bool = False
    status: int = 200
    body: str = ""
    expects: Mapping[str, str] = field(default_factory=dict)
    unit: str | None = None
    ports: Sequence[int] = ()
    newer: Sequence[str] = ()
    timeout: float | None = None


def complaint(probe: Probe) -> str:
    """Why the answer is not the wanted one; empty when it is."""
    try:
        if probe.tcp:
            host, port = probe.tcp.rsplit(":", 1)
            socket.create_connection((host.strip("[]"), int(port)), ATTEMPT_TIMEOUT).close()
            return ""
        if probe.http:
            return _http_complaint(probe, probe.http)
        if probe.file:
            words = Path(probe.file).read_text("utf-8").split()
            return "" if words == probe.body.split() else f"{probe.file} is {' '.join(words)}, not {probe.body}"
    except (OSError, http.client.HTTPException) as error:
        return f"{probe.tcp or probe.http or probe.file}: {str(error) or type(error).__name__}"
    if probe.unit:
        return _unit_complaint(probe, probe.unit)
    done = run(probe.exec)
    if done.code:
        return f"`{' '.join(probe.exec)}` ended with {done.code}: {done.output}"
    return "" if probe.body in done.output else f"`{' '.join(probe.exec)}` does not say {probe.body!r}"


def _unit_complaint(probe: Probe, unit: str) -> str:
    pid = run(["systemctl", "show", "--value", "--property=MainPID", "--", unit]).output
    if missing := set(probe.ports) - listening(pid):
        return f"{unit} does not listen on port {', '.join(map(str, sorted(missing)))}"
    if probe.newer:
        try:
            moment, last = max((os.stat(path).st_mtime, path) for path in probe.newer)
        except OSError as error:
            return f"{error.filename}: {error.strerror}"
        if old := older_children(pid, moment):
            return f"{unit} has processes that began before {last} was written: {', '.join(old)}"
    return ""


def older_children(pid: str, moment: float, proc: Path = Path("/proc")) -> list[str]:
    """The processes that a process began before a moment (seconds since 1970; proc_pid_stat(5), starttime)."""
    tick = 1 / os.sysconf("SC_CLK_TCK")
    since_boot = moment + time.clock_gettime(time.CLOCK_BOOTTIME) - time.time()
    try:
        children = (proc / pid / "task" / pid / "children").read_text("ascii").split()
    except OSError:
        return []
    found = []
    for child in children:
        with contextlib.suppress(OSError):  # it has ended meanwhile
            # The program's name stands between brackets and may hold anything.
            fields = (proc / child / "stat").read_text("utf-8").rpartition(")")[2].split()
            if (int(fields[19]) + 1) * tick < since_boot:
                found.append(child)
    return found


def listening(pid: str, proc: Path = Path("/proc")) -> set[int]:
    """The TCP ports on which a process listens."""
    sockets = set()
    try:
        for descriptor in (proc / pid / "fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                sockets.add(os.readlink(descriptor))
        tables = [(proc / pid / "net" / name).read_text("ascii") for name in ("tcp", "tcp6")]
    except OSError:
        return set()
    rows = [line.split() for table in tables for line in table.splitlines()[1:]]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == LISTEN and f"socket:[{row[9]}]" in sockets}


@dataclass(frozen=True)
class Answer:
    """What came back for an http request."""

    status: int
    headers: http.client.HTTPMessage
    body: str


def answer(probe: Probe, url: str, seconds: float = ATTEMPT_TIMEOUT) -> Answer:
    """Ask as the probe says. Raises OSError or HTTPException where nothing answers, TimeoutError after ``seconds``."""
    parts = urlsplit(url)
    connection = _connect(probe, parts, seconds)
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", path, headers={**probe.headers, "Connection": "close"})
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read().decode("utf-8", "replace"))
    finally:
        connection.close()


def _http_complaint(probe: Probe, url: str) -> str:
    found = answer(probe, url)
    if found.status != probe.status:
        return f"{url} answers {found.status}, not {probe.status}"
    for name, text in probe.expects.items():
        values = found.headers.get_all(name)
        if values is None or text not in ", ".join(values):
            return f"{url} answers with {name}: {', '.join(values or ['nothing'])}, not {text!r}"
    if probe.body not in found.body:
        return f"{url} does not answer with {probe.body!r} but with {found.body[:80]!r}"
    return ""


def _connect(probe: Probe, parts: SplitResult, seconds: float) -> http.client.HTTPConnection:
    """A connection that takes itself for one to the URL's own host, wherever it leads."""
    host, port = parts.hostname or "localhost", parts.port
    if parts.scheme == "https":
        context = ssl.create_default_context()
        if not probe.trusted:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, port, timeout=seconds, context=context
        )
    else:
        context = None
        connection = http.client.HTTPConnection(host, port, timeout=seconds)
    if probe.socket:
        connection.sock = _unix_socket(probe.socket, seconds)
    elif probe.address:
        name, _colon, number = probe.address.rpartition(":")
        plain = socket.create_connection((name.strip("[]"), int(number)), seconds)
        connection.sock = context.wrap_socket(plain, server_hostname=host) if context else plain
    return connection


def _unix_socket(path: str, seconds: float) -> socket.socket:
    found = socket.socket(socket.AF_UNIX)
    try:
        found.settimeout(seconds)
        found.connect(path)
    except OSError:
        found.close()
        raise
    return found


def wait_for(probes: Sequence[Probe], timeout: float) -> list[str]:
    """Ask until all answers are right or ``timeout`` seconds have passed; returns what was wrong last."""
    for probe in probes:
        if probe.timeout is not None and (wrong := wait_for([replace(probe, timeout=None)], probe.timeout)):
            return wrong
    deadline = time.monotonic() + timeout
    while True:
        complaints = [text for text in map(complaint, probes) if text]
        if not complaints or time.monotonic() >= deadline:
            return complaints
        time.sleep(PAUSE)
