# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The hosts themselves: boot, find again, run something in them, remove."""

from __future__ import annotations

import hashlib
import io
import json
import re
import socket
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import docker  # type: ignore[import-untyped]
from docker.utils.socket import STDOUT, frames_iter  # type: ignore[import-untyped]

from .common import HOSTS, ROOT, Stop, locked, run, say, shown, tail, wait_until
from .image import SUITES

KEY = HOSTS / "id_ed25519"
KNOWN_HOSTS = HOSTS / "known_hosts.d"

CHECKOUT = hashlib.sha256(str(ROOT).encode()).hexdigest()[:6]
"""Tells the hosts of this checkout from those of another one on the same engine."""

LABEL = "fushuma.testhost"
LABEL_CHECKOUT = f"{LABEL}.checkout"
LABEL_WANTED = f"{LABEL}.wanted"

NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
BOOT_SECONDS = 90.0
STOPPED_BOOTING = ("running", "degraded")

WAIT_FOR_LINE = ("sh", "-c", 'read -r _; exec "$@" < /dev/null', "sh")
"""Before a command: starts it when a line has been sent."""

OPERATOR_IDS = (1000, 37)
"""uid (recipe/setup) and gid (Debian's base-passwd) of the user operator."""

TMPFS = {
    "/run": "rw,nosuid,nodev,noexec,mode=755",
    "/run/lock": "rw,nosuid,nodev,noexec,mode=1777",
    # Programs run from /tmp on a Debian host: debconf does it whenever apt configures a package.
    "/tmp": "rw,nosuid,nodev,exec,mode=1777",
}


@dataclass(frozen=True)
class Wanted:
    """A host as it is asked for."""

    name: str
    release: str  # "12" or "13"
    publish: tuple[tuple[int, int], ...] = ()  # (port on 127.0.0.1, port of the host)
    network: str = ""  # without one: Docker's own bridge, where hosts do not find each other by name


@dataclass(frozen=True)
class Record:
    """A host that has booted: what its file under .cache/testhosts says."""

    name: str
    release: str
    container: str
    address: str
    ssh_port: int
    published: dict[str, int]  # port of the host, as text: port on 127.0.0.1
    network: str = ""
    address6: str = ""  # only hosts on a network have one


def wanted(text: str, release: str, publish: Sequence[str], network: str) -> Wanted:
    """A host from the words of the command line: ``web12:12``, or ``web`` with a release for all."""
    name, _colon, own_release = text.partition(":")
    chosen = own_release or release
    if not NAME.fullmatch(name):
        raise Stop(f"{name!r} cannot be a host's name: write lower-case letters, digits and dashes, like web12.")
    if chosen not in SUITES:
        raise Stop(f"{text} names no Debian release: write {name}:12 or {name}:13, or add --release.")
    return Wanted(name, chosen, tuple(port_pair(pair) for pair in publish), network)


def port_pair(text: str) -> tuple[int, int]:
    """``8443:443`` as (8443, 443)."""
    found = re.fullmatch(r"(\d{1,5}):(\d{1,5})", text)
    pair = (int(found[1]), int(found[2])) if found else (0, 0)
    if not all(0 < port < 65536 for port in pair):
        raise Stop(f"{text!r} publishes nothing: write the port on this machine and the host's own, like 8443:443.")
    return pair


def container_of(name: str) -> str:
    """The name of a host's container."""
    return f"testhost-{CHECKOUT}-{name}"


def network_of(name: str) -> str:
    """The engine's name of a network."""
    return f"testhost-{CHECKOUT}-net-{name}"


def record_file(name: str) -> Path:
    """Where the record of a host lies."""
    return HOSTS / f"{name}.json"


def read_record(name: str) -> Record | None:
    """The record of a host that has booted."""
    try:
        return Record(**json.loads(record_file(name).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def record_of(name: str) -> Record:
    """The same, where there has to be one."""
    record = read_record(name)
    if record is None:
        raise Stop(f"There is no test host {name}: `up {name}:13` boots one.")
    return record


def container_options(host: Wanted, image: str) -> dict[str, Any]:
    """What Docker is asked for: a container in which systemd boots as on a machine of its own."""
    return {
        "image": image,
        "name": container_of(host.name),
        "hostname": host.name,
        # Named one by one: an engine that lacks a capability itself cannot give --privileged.
        "cap_add": ["SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE", "DAC_READ_SEARCH"],
        "security_opt": ["seccomp=unconfined", "apparmor=unconfined"],
        "cgroupns": "private",
        "tmpfs": TMPFS,
        # An engine inside the host needs a file system below it that is not an overlay.
        "volumes": ["/var/lib/docker", "/var/lib/containerd"],
        "stop_signal": "SIGRTMIN+3",
        "ports": {"22/tcp": ("127.0.0.1",)}
        | {f"{inside}/tcp": ("127.0.0.1", outside) for outside, inside in host.publish},
    }


def digest(host: Wanted, image: str) -> str:
    """Twelve hex digits that change with all that would make a running host the wrong one."""
    text = json.dumps([asdict(host), container_options(host, image)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def up(host: Wanted, image: str) -> Record:
    """The host, running: booted now, or found as it is wanted."""
    with locked(f"host-{host.name}"):
        client = docker.from_env()
        record = running_record(client, host, image)
        if record is not None:
            say(f"{host.name}: runs already (ssh port {record.ssh_port})")
            return record
        began = time.monotonic()
        remove(client, host.name)
        KNOWN_HOSTS.mkdir(parents=True, exist_ok=True)
        container = create(client, host, image)
        try:
            container.start()
            wait_for_boot(container, host.name)
        except docker.errors.APIError as error:
            container.remove(force=True, v=True)
            raise Stop(f"{host.name}: Docker could not start it: {error.explanation}") from error
        record = describe(container, host)
        record_file(host.name).write_text(json.dumps(asdict(record), indent=2) + "\n")
        seconds = time.monotonic() - began
        say(f"{host.name}: Debian {host.release} booted in {seconds:.1f} s (ssh port {record.ssh_port})")
        return record


def boot_again(name: str) -> Record:
    """A host whose processes were killed, running again on its old file system."""
    with locked(f"host-{name}"):
        record = record_of(name)
        client = docker.from_env()
        container = client.containers.get(record.container)
        container.start()
        wait_for_boot(container, name)
        record = replace(record, address=address_of(container), address6=address6_of(container))
        record = replace(record, ssh_port=ssh_port(container))
        record_file(name).write_text(json.dumps(asdict(record), indent=2) + "\n")
        client.close()
        return record


def running_record(client: Any, host: Wanted, image: str) -> Record | None:
    """The record of the host if it has booted and still is what is wanted."""
    record = read_record(host.name)
    if record is None:
        return None
    try:
        container = client.containers.get(record.container)
    except docker.errors.NotFound:
        return None
    same = container.labels.get(LABEL_WANTED) == digest(host, image)
    return record if same and container.status == "running" else None


def create(client: Any, host: Wanted, image: str) -> Any:
    """A container that has the operator's key and has not started."""
    labels = {LABEL: host.name, LABEL_CHECKOUT: CHECKOUT, LABEL_WANTED: digest(host, image)}
    options = {**container_options(host, image), "labels": labels}
    if host.network:
        name = ensure_network(client, host.network)
        options["network"] = name
        options["networking_config"] = {name: client.api.create_endpoint_config(aliases=[host.name])}
    container = client.containers.create(**options)
    container.put_archive("/home/operator/.ssh", archive("authorized_keys", public_key().encode()))
    return container


def ensure_network(client: Any, name: str) -> str:
    """The engine's name of a network on which hosts find each other by name; made if it is missing."""
    full = network_of(name)
    with locked("network"):
        if not client.networks.list(names=[f"^{full}$"]):
            labels = {LABEL: name, LABEL_CHECKOUT: CHECKOUT}
            ipam = docker.types.IPAMConfig(pool_configs=[docker.types.IPAMPool(subnet=subnet6(full))])
            client.networks.create(full, driver="bridge", labels=labels, enable_ipv6=True, ipam=ipam)
    return full


def subnet6(network: str) -> str:
    """The IPv6 addresses of a network, unique on the machine (RFC 4193); older engines choose none themselves."""
    unique = hashlib.sha256(network.encode()).hexdigest()[:10]
    return f"fd{unique[:2]}:{unique[2:6]}:{unique[6:10]}::/64"


def public_key() -> str:
    """The tool's public key; the pair is made once."""
    with locked("key"):
        public = KEY.with_suffix(".pub")
        if not public.exists():
            KEY.unlink(missing_ok=True)
            options = ["-q", "-t", "ed25519", "-N", "", "-C", "test hosts"]
            run(["ssh-keygen", *options, "-f", str(KEY)], HOSTS / "ssh-keygen.log")
    return public.read_text()


def archive(name: str, content: bytes) -> bytes:
    """A tar archive of one file that belongs to the operator."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o600
    entry.uid, entry.gid = OPERATOR_IDS
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def wait_for_boot(container: Any, name: str) -> None:
    """Wait until systemd has finished booting and sshd answers at the published port."""
    state = ""

    def booted() -> bool:
        nonlocal state
        container.reload()
        if container.status != "running":
            raise Stop(f"{name}: stopped while booting:\n{tail(container.logs().decode(errors='replace'))}")
        state = container.exec_run(["systemctl", "is-system-running"]).output.decode(errors="replace").strip()
        return state in STOPPED_BOOTING and greets(ssh_port(container))

    if not wait_until(booted, BOOT_SECONDS):
        jobs = container.exec_run(["systemctl", "list-jobs", "--no-pager"]).output.decode(errors="replace")
        raise Stop(f"{name}: not booted after {BOOT_SECONDS:.0f} s, systemd says {state!r}:\n{tail(jobs)}")
    if state == "degraded":
        failed = container.exec_run(["systemctl", "--failed", "--plain", "--no-legend"]).output.decode(errors="replace")
        say(f"{name}: booted, but these units failed:\n{tail(failed)}")


def greets(port: int) -> bool:
    """Whether an SSH server answers; Docker's proxy accepts connections before it does."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def ssh_port(container: Any) -> int:
    """The port on 127.0.0.1 that leads to the host's sshd; 0 while there is none."""
    bindings = container.ports.get("22/tcp") or [{"HostPort": "0"}]
    return int(bindings[0]["HostPort"])


def address_of(container: Any) -> str:
    """The host's address on its network."""
    return str(_attached(container)["IPAddress"])


def address6_of(container: Any) -> str:
    """The host's IPv6 address; "" where its network has none."""
    return str(_attached(container).get("GlobalIPv6Address") or "")


def _attached(container: Any) -> Any:
    (network,) = container.attrs["NetworkSettings"]["Networks"].values()
    return network


def describe(container: Any, host: Wanted) -> Record:
    """What others need to know about a host that has booted."""
    container.reload()
    return Record(
        name=host.name,
        release=host.release,
        container=container.name,
        address=address_of(container),
        ssh_port=ssh_port(container),
        published={str(inside): outside for outside, inside in host.publish},
        network=host.network,
        address6=address6_of(container),
    )


def execute(client: Any, name: str, argv: Sequence[str]) -> int:
    """Run a command as root in a host; its output goes where this program's does. Returns its exit code."""
    execution, chunks = started(client.api, record_of(name).container, argv)
    for number, chunk in chunks:
        stream = sys.stdout if number == STDOUT else sys.stderr
        stream.buffer.write(chunk)
        stream.flush()
    return int(client.api.exec_inspect(execution)["ExitCode"])


def started(api: Any, container: str, argv: Sequence[str]) -> tuple[str, Iterator[tuple[int, bytes]]]:
    """Run a command as root; returns its id and what it writes, as (STDOUT or STDERR, bytes) until it has ended.

    The command waits for a line before it starts: what arrives together with the head of the engine's response is lost
    in docker's HTTP client (`_get_raw_response_socket` reads beside the buffer that has it).
    """
    execution = api.exec_create(container, [*WAIT_FOR_LINE, *argv], stdin=True)["Id"]
    stream = api.exec_start(execution, socket=True)

    def chunks() -> Iterator[tuple[int, bytes]]:
        with closing(stream._response):
            getattr(stream, "_sock", stream).sendall(b"\n")
            yield from frames_iter(stream, tty=False)

    return execution, chunks()


def ours(client: Any) -> list[Any]:
    """The containers of this checkout's hosts, running or not."""
    return list(client.containers.list(all=True, filters={"label": f"{LABEL_CHECKOUT}={CHECKOUT}"}))


def recorded() -> list[str]:
    """The names of all hosts that have a record."""
    return sorted(file.stem for file in HOSTS.glob("*.json"))


def forget(names: Sequence[str]) -> None:
    """Remove the records of hosts and the keys they are known by."""
    for name in names:
        record_file(name).unlink(missing_ok=True)
        (KNOWN_HOSTS / name).unlink(missing_ok=True)


def remove(client: Any, name: str) -> bool:
    """Remove a host with its volumes, its record and its known keys. Returns whether there was one."""
    forget([name])
    try:
        client.containers.get(container_of(name)).remove(force=True, v=True)
    except docker.errors.NotFound:
        return False
    return True


def down(client: Any, names: Sequence[str]) -> None:
    """Remove these hosts."""
    for name in names:
        with locked(f"host-{name}"):
            say(f"{name}: {'removed' if remove(client, name) else 'there was none'}")


def down_all(client: Any) -> None:
    """Remove every host of this checkout, every record, and the networks made for them."""
    down(client, sorted({container.labels[LABEL] for container in ours(client)}))
    forget(recorded())
    for network in client.networks.list(filters={"label": f"{LABEL_CHECKOUT}={CHECKOUT}"}):
        network.remove()


def table(client: Any) -> list[str]:
    """One line for each host of this checkout: name, release, state, address, SSH port, published ports."""
    lines = []
    for container in sorted(ours(client), key=lambda one: str(one.labels[LABEL])):
        record = read_record(container.labels[LABEL])
        if record is None:
            lines.append(f"{container.labels[LABEL]:<20} {container.status:<8} (not booted)")
            continue
        ports = {"22": record.ssh_port, **record.published}
        reached = " ".join(f"127.0.0.1:{outside}->{inside}" for inside, outside in ports.items())
        state = f"{container.status:<8} Debian {record.release}"
        lines.append(f"{record.name:<20} {state}  {record.address:<15} {reached}")
    return lines or [f"no hosts (records would lie in {shown(HOSTS)})"]
