# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the suites on throw-away hosts share: hosts, inventories, plays, and a client that never stops asking.

The fixture `boot` (tests/conftest.py) makes a `Host`; `write_inventory` and `play` run playbooks as an operator does.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import random
import re
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import docker  # type: ignore[import-untyped]
import yaml
from testhosts import cli, host, image
from testhosts.inventory import variables

Subject = TypeVar("Subject")
Result = TypeVar("Result")

ROOT = Path(__file__).resolve().parents[1]
ANSIBLE = str(Path(sys.executable).with_name("ansible-playbook"))
RELEASES = ("12", "13")
# Whoever runs the tests comes from one of these, wherever Docker takes the addresses of a network.
CONTROLLER = ["172.16.0.0/12", "192.168.0.0/16", "10.0.0.0/8"]
PATIENCE = 60.0  # seconds until a condition counts as never met; the machine may be busy
PLAY_SECONDS = 600
THOROUGH = os.environ.get("THOROUGH") == "1"  # whether to try more often what an ordinary run tries a few times
RECAP = re.compile(r"^(\S+)\s*: (ok=\d+.*)$", re.MULTILINE)


# --- hosts ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finished:
    """A program that has ended. ``output`` holds stdout and stderr as they came."""

    code: int
    output: str


@dataclass(frozen=True)
class Host:
    """A throw-away host. Commands run in it as root."""

    record: host.Record

    @property
    def name(self) -> str:
        return self.record.name

    def port(self, inside: int) -> int:
        """The port on 127.0.0.1 that leads to a published port of the host."""
        return self.record.published[str(inside)]

    def run(self, argv: Sequence[str], *, check: bool = True) -> Finished:
        """Run a program to its end; with ``check`` it has to succeed."""
        with closing(docker.from_env(timeout=PLAY_SECONDS)) as client:
            execution, chunks = host.started(client.api, self.record.container, argv)
            output = b"".join(chunk for _stream, chunk in chunks).decode(errors="replace")
            done = Finished(int(client.api.exec_inspect(execution)["ExitCode"]), output)
        assert not (check and done.code), f"{self.name}: `{shlex.join(argv)}` ended with {done.code}: {done.output}"
        return done

    def sh(self, script: str, *, check: bool = True) -> str:
        """The output of a shell script."""
        return self.run(["sh", "-c", script], check=check).output

    def python(self, program: str, *arguments: str) -> str:
        """The output of a Python program, run by the host's own interpreter."""
        return self.run(["python3", "-c", program, *arguments]).output

    def read(self, path: str) -> str:
        return self.run(["cat", path]).output

    def write(self, path: str, text: str) -> None:
        """Write a file of up to about 90 kB; its folder is made."""
        packed = base64.b64encode(text.encode()).decode()
        script = 'mkdir -p "$(dirname "$1")" && printf %s "$2" | base64 -d > "$1"'
        self.run(["sh", "-c", script, "sh", path, packed])

    def install(self, *packages: str) -> None:
        """Install Debian packages."""
        quiet = "DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends"
        self.sh(f"apt-get update -qq && {quiet} {shlex.join(packages)}")

    def kill(self) -> None:
        """Cut the power: every process ends at once, the file system stays."""
        with closing(docker.from_env()) as client:
            client.containers.get(self.record.container).kill("SIGKILL")

    def boot_again(self) -> Host:
        """Boot the host after `kill`; its ports may have changed."""
        return Host(host.boot_again(self.name))


def booted(name: str, release: str, publish: Mapping[int, int] | None = None, network: str = "") -> Host:
    """A host that has just booted for the first time. ``publish`` is ``{port on 127.0.0.1: port of the host}``."""
    removed(name)
    wanted = host.Wanted(name, release, tuple((publish or {}).items()), network)
    return Host(host.up(wanted, image.ensure(release)))


def removed(name: str) -> None:
    with closing(docker.from_env()) as client:
        host.down(client, [name])


def prepare(releases: Sequence[str]) -> None:
    """Start the engine and build the images where needed."""
    cli.main(["image", *releases])


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses now.

    Neither the kernel nor Docker gives one of these to somebody else before it is used (ip(7), ip_local_port_range).
    """
    while True:
        port = random.randrange(20000, 32768)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_for(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Ask until the condition holds; fails with ``what`` where it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.05)


# --- plays ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Played:
    """A playbook that has ended. ``hosts`` is ``{name: {"ok": n, "changed": n, "failed": n, ...}}``."""

    code: int
    output: str
    hosts: Mapping[str, Mapping[str, int]]
    seconds: float

    @property
    def changed(self) -> int:
        """The tasks that changed something, of all hosts."""
        return sum(counts["changed"] for counts in self.hosts.values())

    @property
    def failed(self) -> bool:
        return self.code != 0

    def ok(self) -> Played:
        """The same, where it has succeeded on at least one host."""
        assert self.code == 0, self.output
        assert self.hosts, f"no host was reached:\n{self.output}"
        return self


def write_inventory(
    path: Path, hosts: Collection[Host], settings: Mapping[str, Any], groups: Sequence[str] = ("edge",)
) -> Path:
    """An inventory with these hosts in each of the groups, and the settings of all."""
    known = {one.name: variables(one.record) for one in hosts}
    document = {"all": {"vars": dict(settings), "children": {group: {"hosts": known} for group in groups}}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(document, sort_keys=False, width=1000), "utf-8")
    return path


def role_play(path: Path, role: str = "nginx", group: str = "edge") -> Path:
    """A playbook that runs one role and nothing else."""
    document = [{"hosts": group, "gather_subset": ["min"], "roles": [f"fushuma.production.{role}"]}]
    path.write_text(yaml.safe_dump(document, sort_keys=False), "utf-8")
    return path


@dataclass
class Edge:
    """A host that serves sites, and the folder with its inventory and playbook.

    With another ``playbook``, and other ``groups`` in the inventory, it is what these make of it.
    """

    host: Host
    folder: Path
    playbook: Path | None = None
    groups: Sequence[str] = ("edge",)

    @property
    def port(self) -> int:
        """The port on 127.0.0.1 where its sites answer."""
        return self.host.port(443)

    def inventory(self, settings: Mapping[str, Any]) -> Path:
        return write_inventory(self.folder / f"{self.host.name}.yml", [self.host], settings, self.groups)

    def play(self, settings: Mapping[str, Any], **options: Any) -> Played:
        """Run the playbook with these settings to its end."""
        return play(self._playbook(), self.inventory(settings), **options)

    def start(self, settings: Mapping[str, Any]) -> Controller:
        """The same in the background."""
        log = self.folder / f"{self.host.name}.log"
        return Controller(self._playbook(), self.inventory(settings), log)

    def _playbook(self) -> Path:
        return self.playbook or role_play(self.folder / f"{self.host.name}-nginx.yml")


def times(often: int) -> int:
    """How often a test tries what hits upon a random moment: with THOROUGH=1 so often, otherwise two fifths of it."""
    return often if THOROUGH else max(1, often * 2 // 5)


def on_each(hosts: Collection[Subject], work: Callable[[Subject], Result]) -> list[Result]:
    """Do the work on all hosts at the same time, to its end; what failed first is raised then."""
    with ThreadPoolExecutor(len(hosts)) as pool:
        return list(pool.map(work, hosts))


def play_command(playbook: Path | str, inventory: Path, *options: str) -> list[str]:
    return [ANSIBLE, "-i", str(inventory), str(playbook), *options]


def play_environment() -> dict[str, str]:
    """No colours, and names of tasks only, so that the output can be read by a program."""
    return {**os.environ, "ANSIBLE_NOCOLOR": "1", "LC_ALL": "C.UTF-8", "ANSIBLE_FORCE_COLOR": "0"}


def play(
    playbook: Path | str,
    inventory: Path,
    extra_vars: Mapping[str, Any] | None = None,
    *,
    check: bool = False,
    diff: bool = False,
    options: Sequence[str] = (),
) -> Played:
    """Run a playbook to its end from the repository's root, as an operator does."""
    words = [*(["--check"] if check else []), *(["--diff"] if diff else []), *options]
    words += ["-e", json.dumps(dict(extra_vars))] if extra_vars else []
    began = time.monotonic()
    done = subprocess.run(
        play_command(playbook, inventory, *words),
        cwd=ROOT,
        env=play_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PLAY_SECONDS,
        check=False,
    )
    return Played(done.returncode, done.stdout, recap(done.stdout), time.monotonic() - began)


def recap(output: str) -> dict[str, dict[str, int]]:
    """The figures below PLAY RECAP."""
    _before, _title, end = output.rpartition("PLAY RECAP")
    return {
        name: {key: int(value) for key, value in (pair.split("=") for pair in figures.split())}
        for name, figures in RECAP.findall(end)
    }


class Controller:
    """ansible-playbook in the background, to be killed with all it has started."""

    def __init__(self, playbook: Path, inventory: Path, log: Path) -> None:
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                play_command(playbook, inventory),
                cwd=ROOT,
                env=play_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL for the process, its workers (which have sessions of their own) and their ssh clients."""
        for pid in [self._process.pid, *descendants(self._process.pid)]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait()


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and those they have started (proc(5): task/TID/children)."""
    found: list[int] = []
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in tasks.read_text().split()]
        except OSError:
            continue
        found += [one for child in children for one in (child, *descendants(child))]
    return found


# --- the client -------------------------------------------------------------------------------------------------------


@dataclass
class Client:
    """Asks a site over TLS, one new connection after the other, from entering the context to leaving it.

    ``accept(body)`` says whether an answer with the wanted status is a whole page. With a ``body`` it posts that.
    Certificates are not judged.
    """

    port: int
    name: str = "localhost"
    path: str = "/"
    accept: Callable[[str], bool] = lambda _body: True
    pause: float = 0.03  # seconds between two requests
    body: str | None = None
    status: int = 200
    requests: int = 0
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._tls = unjudged()

    def __enter__(self) -> Client:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask_on, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask_on(self) -> None:
        while not self._stop.wait(self.pause):
            self.requests += 1
            if wrong := self.ask():
                self.failures.append(f"{time.strftime('%H:%M:%S')}: {wrong}")

    def ask(self) -> str:
        """One request; returns what was wrong with the answer, "" where nothing was."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.connect()
            connection.sock = self._tls.wrap_socket(connection.sock, server_hostname=self.name)
            headers = {"Host": self.name, "Connection": "close", "Content-Type": "application/json"}
            connection.request("GET" if self.body is None else "POST", self.path, self.body, headers)
            answer = connection.getresponse()
            body = answer.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            return f"{type(error).__name__}: {error}"
        finally:
            connection.close()
        return "" if answer.status == self.status and self.accept(body) else f"{answer.status}: {body[:200]!r}"


def unjudged() -> ssl.SSLContext:
    """TLS without a look at the certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def certificate_of(port: int, name: str) -> bytes:
    """The certificate a server shows for a name, in DER form."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as plain,
        unjudged().wrap_socket(plain, server_hostname=name) as secured,
    ):
        return secured.getpeercert(binary_form=True) or b""


# --- what has to agree ------------------------------------------------------------------------------------------------

STATE = "/var/lib/fushuma-production"

# Run on the host, where the engine has left its journal module; prints one disagreement per line.
RECORDS = f"""
import sys
sys.path.insert(0, "{STATE}")
from journal import Store, snapshot
from pathlib import Path
for store in map(Store, sys.argv[1:]):
    record = store.activated()
    if not record:
        print(f"there is no record of {{store.name}}")
    for path, digest in (record or {{}}).items():
        if snapshot(path).digest != digest:
            print(f"the record of {{store.name}} is not of {{path}} as it stands")
for left in Path("{STATE}").glob("*.journal"):
    print(f"{{left}} was left")
"""
RUNNING = """
import re, urllib.request
from pathlib import Path
configured = re.search(r'location = /digest .* "([0-9a-f]{16})', Path("/etc/nginx/nginx.conf").read_text())[1]
running = urllib.request.urlopen("http://127.0.0.1:8081/digest", timeout=30).read().decode().strip()
if running != configured:
    print(f"nginx runs {running}, its file says {configured}")
"""


def unsettled(one: Host, services: Sequence[str]) -> list[str]:
    """How the files of services and their records differ; and what a killed change has left."""
    found = one.python(RECORDS, *services).splitlines()
    left = one.sh("find / -xdev -name '*.fushuma-new'").splitlines()
    return [*found, *(f"{path} was left" for path in left)]


def disagreements(one: Host) -> list[str]:
    """How the files of nginx, its running configuration and the record differ; and what a killed change has left."""
    return [*unsettled(one, ["nginx"]), *one.python(RUNNING).splitlines()]


def tree_of(one: Host, places: str = "/etc/nginx /var/www /usr/local/sbin") -> str:
    """All that is in these places, those of nginx unless others are named: with kind, mode, owner and content."""
    listed = one.sh(f"find {places} -not -name .filler -printf '%p %y %m %U %G %l\\n' | sort")
    return listed + one.sh(f"find {places} -type f -not -name .filler -exec sha256sum {{}} + | sort")


def running_digest(one: Host) -> str:
    """The digest of the configuration that nginx runs with."""
    return one.python(
        "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8081/digest').read().decode())"
    ).strip()


def lines_with(text: str, *words: str) -> Iterator[str]:
    """The lines in which all the words stand."""
    return (line for line in text.splitlines() if all(word in line for word in words))
