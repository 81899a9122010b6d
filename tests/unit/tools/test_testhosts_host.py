# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hosts as they are asked for on the command line, given to Docker, recorded and shown to Ansible."""

from __future__ import annotations

import json
import shlex
import socket
import tarfile
import threading
from dataclasses import asdict, replace
from io import BytesIO
from pathlib import Path

import pytest
import yaml
from testhosts import cli, host, inventory
from testhosts.common import Stop
from testhosts.host import Record, Wanted

WEB = Wanted("web", "13", ((8443, 443),), "lan")
RECORD = Record("web", "13", "testhost-abc-web", "172.17.0.2", 32768, {"443": 8443}, "lan")


def hosts_of(line: str) -> list[Wanted]:
    """What ``up`` makes of a command line."""
    return cli.wanted_hosts(cli.parser().parse_args(["up", *line.split()]))


def test_hosts_are_read_from_the_command_line() -> None:
    assert hosts_of("web12:12 web13:13") == [Wanted("web12", "12"), Wanted("web13", "13")]
    assert hosts_of("a b:12 --release 13 --network lan") == [
        Wanted("a", "13", network="lan"),
        Wanted("b", "12", network="lan"),
    ]
    assert hosts_of("web:13 --publish 8443:443 --publish 8080:80") == [Wanted("web", "13", ((8443, 443), (8080, 80)))]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("web", "names no Debian release"),
        ("web:11", "names no Debian release"),
        ("Web:13", "cannot be a host's name"),
        ("1a:13", "cannot be a host's name"),
        ("web.lan:13", "cannot be a host's name"),
        ("../web:13", "cannot be a host's name"),
        ("web:13 --publish 443", "publishes nothing"),
        ("web:13 --publish 0:443", "publishes nothing"),
        ("web:13 --publish 8443:65536", "publishes nothing"),
        ("web:13 --publish a:b", "publishes nothing"),
        ("a:12 b:13 --publish 8443:443", "goes with one NAME"),
        ("a:12 a:13", "named twice"),
    ],
)
def test_what_cannot_be_booted_is_refused(line: str, reason: str) -> None:
    with pytest.raises(Stop, match=reason):
        hosts_of(line)


@pytest.mark.parametrize(
    ("argv", "words", "command"),
    [
        ("exec web -- sh -c x -- y", "exec web", "sh -c x -- y"),
        ("exec web", "exec web", ""),
        ("down -- web", "down -- web", ""),
        ("list", "list", ""),
        ("", "", ""),
    ],
)
def test_split_leaves_the_command_alone(argv: str, words: str, command: str) -> None:
    assert cli.split(argv.split()) == (words.split(), command.split())


def test_in_parallel_keeps_order_and_reports_every_failure() -> None:
    def double(number: int) -> int:
        if number > 10:
            raise Stop(f"{number} is too much", code=number)
        return 2 * number

    assert cli.in_parallel(double, [3, 1, 2]) == [6, 2, 4]
    assert cli.in_parallel(double, []) == []
    with pytest.raises(Stop, match=r"\A11 is too much\n12 is too much\Z") as stop:
        cli.in_parallel(double, [11, 1, 12])
    assert stop.value.code == 12


def test_in_parallel_is_parallel() -> None:
    both = threading.Barrier(2, timeout=10)
    assert sorted(cli.in_parallel(lambda _: both.wait(), "ab")) == [0, 1]


def test_stop_becomes_one_line_and_an_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["up", "web"]) == 1
    assert capsys.readouterr().err == "web names no Debian release: write web:12 or web:13, or add --release.\n"


def test_ports_are_published_on_loopback_only() -> None:
    ports = host.container_options(WEB, "image")["ports"]
    assert ports == {"22/tcp": ("127.0.0.1",), "443/tcp": ("127.0.0.1", 8443)}


def test_host_is_not_privileged() -> None:
    options = host.container_options(WEB, "image")
    assert "privileged" not in options
    assert options["cap_add"] == ["SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE", "DAC_READ_SEARCH"]
    assert options["cgroupns"] == "private"


def test_programs_run_from_tmp() -> None:
    assert "exec" in host.TMPFS["/tmp"].split(",")


@pytest.mark.parametrize(
    ("changed", "image"),
    [
        (WEB, "newer image"),
        (replace(WEB, name="other"), "image"),
        (replace(WEB, release="12"), "image"),
        (replace(WEB, publish=((8444, 443),)), "image"),
        (replace(WEB, network=""), "image"),
    ],
)
def test_digest_tells_a_running_host_that_is_the_wrong_one(changed: Wanted, image: str) -> None:
    assert host.digest(changed, image) != host.digest(WEB, "image")


def test_digest_notices_other_container_options(monkeypatch: pytest.MonkeyPatch) -> None:
    before = host.digest(WEB, "image")
    assert host.digest(replace(WEB), "image") == before
    monkeypatch.setattr(host, "TMPFS", {})
    assert host.digest(WEB, "image") != before


def test_names_tell_checkouts_apart() -> None:
    assert host.container_of("web") == f"testhost-{host.CHECKOUT}-web"
    assert host.network_of("web") not in host.container_of("web")


def test_key_is_packed_for_the_operator() -> None:
    with tarfile.open(fileobj=BytesIO(host.archive("authorized_keys", b"ssh-ed25519 AAAA"))) as tar:
        (entry,) = tar.getmembers()
    assert (entry.name, entry.mode, entry.uid, entry.gid, entry.size) == ("authorized_keys", 0o600, 1000, 37, 16)


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"name": "web"}', json.dumps({**asdict(RECORD), "new": 1})])
def test_a_record_that_cannot_be_read_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    monkeypatch.setattr(host, "HOSTS", tmp_path)
    if text is not None:
        (tmp_path / "web.json").write_text(text)
    assert host.read_record("web") is None
    with pytest.raises(Stop, match="no test host web"):
        host.record_of("web")


def test_records_are_read_back_and_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "HOSTS", tmp_path)
    monkeypatch.setattr(host, "KNOWN_HOSTS", tmp_path)
    (tmp_path / "web.json").write_text(json.dumps(asdict(RECORD)))
    (tmp_path / "web").write_text("a host key")
    assert host.recorded() == ["web"]
    assert host.record_of("web") == RECORD
    host.forget(["web", "never-was"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("banner", "greets"), [(b"SSH-2.0-OpenSSH_9.2\r\n", True), (b"HTTP", False), (b"", False)])
def test_greets_waits_for_the_banner(banner: bytes, greets: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _address = server.accept()
            with connection:
                connection.sendall(banner)

        thread = threading.Thread(target=serve)
        thread.start()
        assert host.greets(server.getsockname()[1]) is greets
        thread.join()


def test_greets_without_a_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert host.greets(port) is False


def test_inventory() -> None:
    text = inventory.render([RECORD, replace(RECORD, name="other", ssh_port=32769)])
    hosts = yaml.safe_load(text)["all"]["hosts"]
    assert list(hosts) == ["web", "other"]
    assert hosts["other"]["ansible_port"] == 32769
    common = hosts["web"].pop("ansible_ssh_common_args")
    assert hosts["web"] == {
        "ansible_host": "127.0.0.1",
        "ansible_port": 32768,
        "ansible_user": "operator",
        "ansible_become": True,
        "ansible_python_interpreter": "/usr/bin/python3",
        "ansible_ssh_private_key_file": str(host.KEY),
    }
    assert "StrictHostKeyChecking=accept-new" in common
    assert "ControlPath" not in common


def test_a_path_with_a_space_stays_one_option() -> None:
    common = inventory.variables(RECORD, known_hosts=Path("/my hosts"))["ansible_ssh_common_args"]
    assert shlex.split(str(common))[-2:] == ["-o", 'UserKnownHostsFile="/my hosts/web"']
