# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The runbooks on hosts that site.yml has brought up: each does what its page says, twice, and is undone."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import docker
import pytest
from fleet_support import Fleet, refused
from hosts_support import STATE, Host, Played, wait_for

# --- block_address ----------------------------------------------------------------------------------------------------

KNOCK = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 22), timeout=2).close()
    print("open")
except OSError:
    print("closed")
"""
LISTS = "/etc/production-firewall/lists.d"


def knocks(one: Host, address: str) -> str:
    return one.python(KNOCK, address).strip()


@pytest.mark.parametrize("family", ["address", "address6"])
def test_an_address_is_blocked_and_let_in_again(fleet: Fleet, family: str) -> None:
    host, stranger = fleet.hosts
    here, there = getattr(host.record, family), getattr(stranger.record, family)
    assert knocks(stranger, here) == "open"
    assert fleet.runbook("block_address", address=there, check=True).ok().changed == 2
    assert knocks(stranger, here) == "open"

    assert fleet.runbook("block_address", address=there, reason="guesses passwords").ok().changed == 2
    assert knocks(stranger, here) == "closed"
    assert "# guesses passwords" in host.sh(f"cat {LISTS}/*.nft")
    assert fleet.runbook("block_address", address=there, reason="guesses passwords").ok().changed == 0
    # It outlives what the role does, and a restart of the firewall.
    assert fleet.site().changed == 0
    host.sh("systemctl restart production-firewall.service")
    assert knocks(stranger, here) == "closed"

    assert fleet.runbook("block_address", address=there, state="absent").ok().changed == 2
    assert knocks(stranger, here) == "open"
    assert host.sh(f"ls {LISTS}") == ""
    assert fleet.runbook("block_address", address=there, state="absent").ok().changed == 0


# Opens a connection, and when /tmp/go is there says something to which sshd has an answer.
TALK = """
import os, socket, sys, time
connection = socket.create_connection((sys.argv[1], 22), timeout=3)
connection.recv(100)
open("/tmp/connected", "w").close()
while not os.path.exists("/tmp/go"):
    time.sleep(0.05)
connection.sendall(b"nonsense" * 100 + b"\\r\\n")
try:
    print("answered", connection.recv(100))
except OSError as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize(("blocked", "said"), [(False, "answered"), (True, "TimeoutError")])
def test_an_open_connection_is_blocked_too(fleet: Fleet, blocked: bool, said: str) -> None:
    host, stranger = fleet.hosts
    stranger.sh("rm -f /tmp/go /tmp/connected")
    with ThreadPoolExecutor(1) as pool:
        talk = pool.submit(stranger.python, TALK, host.record.address)
        wait_for(lambda: stranger.run(["test", "-e", "/tmp/connected"], check=False).code == 0, "it is connected")
        if blocked:
            fleet.runbook("block_address", address=stranger.record.address).ok()
        stranger.sh("touch /tmp/go")
        assert said in talk.result()
    fleet.runbook("block_address", address=stranger.record.address, state="absent").ok()


def test_blocks_that_cannot_be_meant_are_refused(fleet: Fleet) -> None:
    refused(fleet.runbook("block_address", address="192.0.2.300"), "it is no network")
    refused(fleet.runbook("block_address", address="0.0.0.0/0"), "it is every address there is")
    allowed = {"firewall_allow": ["192.0.2.0/24"]}
    refused(fleet.runbook("block_address", allowed, address="192.0.2.1"), "lets it through all the same")


def test_the_host_takes_back_a_block_of_the_controller(fleet: Fleet) -> None:
    host, _stranger = fleet.hosts
    controller = host.sh("ip route show default").split()[2]
    blocked = fleet.runbook("block_address", address=controller)
    assert blocked.failed
    for one in fleet.hosts:
        wait_for(lambda one=one: knocks_from_here(one), f"{one.name} is reached again")  # type: ignore[misc]
        wait_for(
            lambda one=one: one.sh(f"ls {LISTS}; ls {STATE}/*.journal", check=False).count("block-") == 0, "undone"
        )  # type: ignore[misc]
        assert controller not in one.sh("nft list set inet production blocked4")


def knocks_from_here(one: Host) -> bool:
    try:
        socket.create_connection((one.record.address, 22), timeout=2).close()
    except OSError:
        return False
    return True


# --- operators --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("alice") / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "alice", "-f", str(path)], check=True)
    return path


def public(key: Path) -> str:
    return key.with_suffix(".pub").read_text("utf-8").strip()


def ssh(one: Host, key: Path, *command: str) -> list[str]:
    """A connection of its own, as alice."""
    options = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "ControlPath=none"]
    words = [word for option in (*options, "ConnectTimeout=5", "IdentitiesOnly=yes") for word in ("-o", option)]
    return ["ssh", "-F", "none", *words, "-i", str(key), f"alice@{one.record.address}", *command]


def says(one: Host, key: Path, *command: str) -> str:
    done = subprocess.run(
        ssh(one, key, *command), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


@contextmanager
def session(one: Host, key: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A session that stays open until somebody ends it."""
    with subprocess.Popen(ssh(one, key, "sleep", "600"), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as opened:
        wait_for(lambda: one.run(["pgrep", "-u", "alice", "sleep"], check=False).code == 0, "the session is open")
        try:
            yield opened
        finally:
            opened.kill()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"sshd_authorized_keys_file": "/etc/ssh/authorized_keys/%u", "sshd_allow_groups": ["operator"]},
    ],
    ids=["at-home", "in-a-folder-of-the-host"],
)
def test_an_operator_comes_and_goes(fleet: Fleet, key: Path, settings: dict[str, Any]) -> None:
    if settings:
        move_keys_of_the_connection(fleet)
    fleet.site(**settings)
    said = {"operator": "alice", "key": public(key)}
    assert says(fleet.hosts[0], key, "id") == ""
    assert fleet.runbook("add_operator", settings, check=True, **said).ok().changed == 4
    assert fleet.runbook("add_operator", settings, **said).ok().changed == 4
    assert fleet.runbook("add_operator", settings, **said).ok().changed == 0
    for one in fleet.hosts:
        assert says(one, key, "sudo", "-n", "id", "-u") == "0"
    # Less is done by the same command.
    assert fleet.runbook("add_operator", settings, **said, sudo="none").ok().changed == 2
    for one in fleet.hosts:
        assert (says(one, key, "id", "-un"), says(one, key, "sudo", "-n", "id", "-u")) == ("alice", "")
    fleet.runbook("add_operator", settings, **said).ok()
    assert fleet.site(**settings).changed == 0

    with session(fleet.hosts[0], key) as opened:
        assert fleet.runbook("remove_operator", settings, check=True, operator="alice").ok().changed == 4
        assert opened.poll() is None
        assert fleet.runbook("remove_operator", settings, operator="alice").ok().changed == 5
        assert opened.wait(timeout=5) != 0
    for one in fleet.hosts:
        assert says(one, key, "id") == ""
        one.sh("! ls /etc/sudoers.d/operator-alice /home/alice/.ssh/authorized_keys /etc/ssh/authorized_keys/alice")
        assert one.sh("test -d /home/alice && pgrep -u alice", check=False) == ""
        # Not by a key that somebody puts back, either.
        put_back = f"mkdir -p /home/alice/.ssh /etc/ssh/authorized_keys && echo '{public(key)}' | tee {{}}"
        files = "/home/alice/.ssh/authorized_keys /etc/ssh/authorized_keys/alice"
        one.sh(put_back.format(files) + " && chown -R alice: /home/alice/.ssh")
        assert says(one, key, "id") == ""
        one.sh(f"rm {files}")
    assert fleet.runbook("remove_operator", settings, operator="alice").ok().changed == 0

    # And back.
    assert fleet.runbook("add_operator", settings, **said).ok().changed == 4
    assert says(fleet.hosts[1], key, "sudo", "-n", "id", "-u") == "0"
    fleet.runbook("remove_operator", settings, operator="alice").ok()
    for one in fleet.hosts:
        one.sh("userdel --remove alice 2>/dev/null")


def move_keys_of_the_connection(fleet: Fleet) -> None:
    """As an operator does before keys are looked for elsewhere."""
    for one in fleet.hosts:
        here, there = "/home/operator/.ssh/authorized_keys", "/etc/ssh/authorized_keys"
        one.sh(f"mkdir -p {there} && install -m 0644 {here} {there}/operator")


def test_operators_who_cannot_be_meant_are_refused(fleet: Fleet, key: Path) -> None:
    wrong = fleet.runbook("add_operator", operator="Alice", key="ssh-ed25519 AAAA", sudo="maybe")
    refused(wrong, 'operator is "Alice"', "it is no public key", 'sudo is "maybe"', "Nothing was touched.")
    known = {"sshd_authorized_keys": [{"user": "alice", "keys": [public(key)]}]}
    refused(fleet.runbook("add_operator", known, operator="alice", key=public(key)), "it is the inventory that decides")
    refused(fleet.runbook("remove_operator", known, operator="alice"), "the next run of site.yml would let in alice")
    refused(fleet.runbook("remove_operator", operator="operator"), "Ansible connects to this host as that user")


def test_somebody_nobody_knows_is_removed_in_peace(fleet: Fleet) -> None:
    fleet.runbook("remove_operator", operator="nobody-knows").ok()
    assert fleet.runbook("remove_operator", operator="nobody-knows").ok().changed == 0


# --- patch_hosts ------------------------------------------------------------------------------------------------------

# A package that the release's security archive has newer than the release itself, so that there is something to do.
OLDER = """
import apt
cache = apt.Cache()
for package in sorted(cache, key=lambda one: one.candidate.installed_size if one.candidate else 0):
    versions = {origin.label: version for version in package.versions for origin in version.origins if origin.label}
    new, old = versions.get("Debian-Security"), versions.get("Debian")
    if package.is_installed or not (new and old and new > old):
        continue
    package.candidate = old
    package.mark_install(auto_inst=False, auto_fix=False)
    if not cache.broken_count:
        print(package.name, old.version, new.version)
        break
    cache.clear()
"""


def outdated(one: Host) -> tuple[str, str]:
    """Install a package in a version that has a security update; returns its name and the newer version."""
    one.sh("apt-get update -qq")
    name, old, new = one.python(OLDER).split()
    quiet = "DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends --allow-downgrades"
    one.sh(f"{quiet} {name}={old}")
    return name, new


def version(one: Host, package: str) -> str:
    return one.sh(f"dpkg-query --show --showformat '${{Version}}' {package}")


def boots(one: Host) -> str:
    return one.sh("stat --format %Z /proc/1").strip()


@contextmanager
def power(hosts: list[Host]) -> Iterator[None]:
    """Hosts that power down are switched on again, as a machine's firmware does at a restart."""
    ended = threading.Event()

    def watch() -> None:
        with closing(docker.from_env()) as client:
            while not ended.wait(0.2):
                for one in hosts:
                    if client.containers.get(one.record.container).status == "exited":
                        one.boot_again()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def test_updates_come_one_host_at_a_time_with_a_restart_where_it_is_asked_for(fleet: Fleet) -> None:
    first, second = fleet.hosts
    packages = {one.name: outdated(one) for one in fleet.hosts}
    second.sh("touch /run/reboot-required")
    before = [boots(one) for one in fleet.hosts]
    dry = fleet.runbook("patch_hosts", check=True).ok()
    assert dry.hosts[first.name]["changed"] == 1
    with power(fleet.hosts):
        played = fleet.runbook("patch_hosts").ok()
    assert [version(one, packages[one.name][0]) for one in fleet.hosts] == [
        packages[one.name][1] for one in fleet.hosts
    ]
    assert [boots(one) == was for one, was in zip(fleet.hosts, before, strict=True)] == [True, False]
    assert played.output.index(f"changed: [{first.name}]") < played.output.index(f"ok: [{second.name}]")
    assert [played.hosts[one.name]["changed"] for one in fleet.hosts] == [1, 2]
    # Nothing is left to do.
    assert fleet.runbook("patch_hosts").ok().changed == 0


BREAKS = 'DPkg::Post-Invoke {"systemctl stop fail2ban.service";};\n'


def test_the_next_batch_waits_for_a_host_that_is_not_well(fleet: Fleet) -> None:
    first, second = fleet.hosts
    packages = {one.name: outdated(one) for one in fleet.hosts}
    first.write("/etc/apt/apt.conf.d/99breaks", BREAKS)
    broken = fleet.runbook("patch_hosts", patience=2)
    assert broken.failed
    assert "sshd: fail2ban.service is not active; fail2ban.service ran before and does not now" in broken.output
    assert version(first, packages[first.name][0]) == packages[first.name][1]
    assert version(second, packages[second.name][0]) != packages[second.name][1]
    assert second.name not in broken.hosts
    # Such a host is not patched once more, either, until somebody has looked at it.
    refused(fleet.runbook("patch_hosts"), "The host is not well: sshd: fail2ban.service is not active.")
    first.sh("rm /etc/apt/apt.conf.d/99breaks; systemctl start fail2ban.service")
    fleet.runbook("patch_hosts").ok()
    assert version(second, packages[second.name][0]) == packages[second.name][1]


def test_words_that_mean_nothing_are_refused(fleet: Fleet) -> None:
    refused(fleet.runbook("patch_hosts", scope="some"), 'scope is "some"')


# --- upgrade_docker ---------------------------------------------------------------------------------------------------

# Debian has one version of its engine, so a newer one is made out of it, in an archive of the host's own.
NEWER = """
set -eu
mkdir -p /srv/newer && cd /srv/newer
[ -d tree ] || { apt-get -qq download docker.io && dpkg-deb --raw-extract docker.io_*.deb tree && rm docker.io_*.deb; }
sed -i 's/^Version: .*/&+newer/' tree/DEBIAN/control
dpkg-deb -Znone --root-owner-group --build tree docker.io.deb >/dev/null
{ cat tree/DEBIAN/control; echo "Filename: ./docker.io.deb"; echo "Size: $(stat --format %s docker.io.deb)"
  echo "SHA256: $(sha256sum docker.io.deb | cut -d ' ' -f 1)"; } >Packages
echo 'deb [trusted=yes] file:/srv/newer ./' >/etc/apt/sources.list.d/newer.list
"""
CONTAINER = """
mkdir -p /srv/image && cp /usr/bin/busybox /srv/image
tar --create --directory=/srv/image . | docker import - small
docker run --detach --name runs small /busybox sleep 100000
"""


@pytest.fixture(scope="module")
def engines(fleet: Fleet) -> Iterator[Fleet]:
    """The same hosts with Docker, a container, and a newer engine in sight."""
    fleet.groups = ("app",)
    fleet.site(docker_compose=False)
    for one in fleet.hosts:
        one.install("busybox-static")
        one.sh(CONTAINER)
        one.sh(NEWER)
    yield fleet
    fleet.groups = ()


def process(one: Host) -> str:
    return one.sh("docker inspect --format '{{.State.Pid}}' runs").strip()


def upgrade(engines: Fleet, **said: Any) -> Played:
    return engines.runbook("upgrade_docker", {"docker_compose": False}, **said)


def test_the_engine_is_upgraded_and_containers_go_on(engines: Fleet) -> None:
    before = [(process(one), version(one, "docker.io")) for one in engines.hosts]
    dry = upgrade(engines, check=True).ok()
    assert [dry.hosts[one.name]["changed"] for one in engines.hosts] == [2, 2]
    assert [(process(one), version(one, "docker.io")) for one in engines.hosts] == before
    daemons = [one.sh("systemctl show --value --property MainPID docker.service") for one in engines.hosts]
    played = upgrade(engines).ok()
    assert [(process(one), version(one, "docker.io")) for one in engines.hosts] == [
        (pid, f"{former}+newer") for pid, former in before
    ]
    # One host after the other, and each daemon is another one.
    first, second = engines.hosts
    assert played.output.rindex(f"[{first.name}]", 0, played.output.index("RECAP")) < played.output.index(
        f"[{second.name}]"
    )
    for one, was in zip(engines.hosts, daemons, strict=True):
        assert one.sh("systemctl show --value --property MainPID docker.service") != was
    assert upgrade(engines).ok().changed == 0


def test_the_next_host_waits_for_one_whose_containers_did_not_go_on(engines: Fleet) -> None:
    first, second = engines.hosts
    for one in engines.hosts:
        one.sh(NEWER)
    first.write("/etc/apt/apt.conf.d/99breaks", 'DPkg::Post-Invoke {"docker restart --time 0 runs";};\n')
    was = version(second, "docker.io")
    try:
        broken = upgrade(engines, patience=5)
    finally:
        first.sh("rm /etc/apt/apt.conf.d/99breaks")
    assert broken.failed
    assert "these containers (name, id, process) did not go on" in " ".join(broken.output.split())
    assert (version(second, "docker.io"), second.name in broken.hosts) == (was, False)


def test_a_daemon_that_takes_its_containers_along_is_left_alone(engines: Fleet) -> None:
    off = {"docker_compose": False, "docker_hardening": {"live_restore": False}}
    engines.site(**off)
    refused(engines.runbook("upgrade_docker", off), "an upgrade would stop its containers")
