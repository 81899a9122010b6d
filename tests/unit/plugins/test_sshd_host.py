# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a host adds to sshd's files, and what it says of them: a host in a folder, with an sshd of a few lines."""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.module_utils import journal, packages, sshd
from ansible_collections.fushuma.production.plugins.module_utils.journal import Entry, TransactionError
from ansible_collections.fushuma.production.plugins.module_utils.sshd import AuthorizedKeys, Judgement, Match, Wanted
from ansible_collections.fushuma.production.plugins.module_utils.sshd_login import Session
from ansible_collections.fushuma.production.plugins.module_utils.transaction import Service
from ansible_collections.fushuma.production.plugins.modules import sshd_config as module

from .conftest import Host
from .keys import ed25519, rsa
from .modules import run_module

ME = pwd.getpwuid(os.geteuid()).pw_name
SESSION = Session(ME, "10.1.2.3", "10.0.0.1", 22)

# As sshd -T -f FILE [-C user=...]: the first value of a keyword counts, Port and the like add up, and a block for the
# user overrides. Includes are of one folder only. `broken` is no keyword.
FAKE_SSHD = """\
import glob, sys
arguments = sys.argv[1:]
context = dict(one.split("=") for one in arguments[arguments.index("-C") + 1].split(",")) if "-C" in arguments else {}
general, special = {}, {}
def read(path):
    target = general
    for line in open(path):
        words = line.split()
        if not words or words[0].startswith("#"): continue
        keyword, value = words[0].lower(), " ".join(words[1:])
        if keyword == "broken": sys.exit(f"{path} line 1: Bad configuration option: broken")
        if keyword == "include":
            for one in sorted(glob.glob(value)): read(one)
        elif keyword == "match":
            target = special if context.get("user") == words[2] else {}
        elif keyword in ("port", "listenaddress", "hostkey", "allowusers") and target is general:
            target.setdefault(keyword, []).append(value)
        else:
            target.setdefault(keyword, [value])
read(arguments[arguments.index("-f") + 1])
found = {"pubkeyauthentication": ["yes"], "authorizedkeysfile": [".ssh/authorized_keys"], "strictmodes": ["yes"]}
found |= {"pubkeyacceptedalgorithms": ["ssh-ed25519"], "passwordauthentication": ["no"], "port": ["22"]}
found |= general | special
addresses = found.pop("listenaddress", ["0.0.0.0"])
found["listenaddress"] = [f"{one}:{port}" for one in addresses for port in found["port"]]
for keyword, values in found.items():
    for value in values: print(keyword, value)
"""
SSH = """\
case $2 in
  kex) echo sntrup761x25519-sha512@openssh.com; echo curve25519-sha256 ;;
  sig|key-sig) echo ssh-ed25519 ;;
  *) exit 1 ;;
esac
"""
# -y -P "" -f FILE shows what lies beside a key; -t KIND ... -f FILE makes both.
KEYGEN = """\
[ "$1" = -y ] && { cat "$5.pub" 2>/dev/null; exit; }
[ -e "$0.broken" ] && { echo no entropy; exit 1; }
kind=$3
while [ $# -gt 1 ]; do shift; done
echo "new $kind" > "$1"; cp "$0.$kind" "$1.pub"
"""


@pytest.fixture
def machine(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host with an sshd that Debian has set up."""
    program = tmp_path / "sshd.py"
    program.write_text(FAKE_SSHD, "utf-8")
    monkeypatch.setattr(sshd, "SSHD", host.program("sshd", f'exec {sys.executable} {program} "$@"')[0])
    monkeypatch.setattr(sshd, "ROOT", host.root)
    monkeypatch.setattr(journal, "STATE", host.store.state)
    host.program("ssh", SSH)
    host.program("ssh-keygen", KEYGEN)
    for kind, public in (("ed25519", ed25519(9)), ("rsa", rsa(4096, 9))):
        (host.bin / f"ssh-keygen.{kind}").write_text(public, "utf-8")
    host.write("etc/ssh/sshd_config", f"Include {sshd.FOLDER}/*.conf\nPasswordAuthentication yes\n")
    host.write("etc/ssh/moduli", "# Time Type\n1 2 6 100 2047 2 AA\n1 2 6 100 4095 2 BB\n")
    for kind, public in (("ed25519", ed25519(8)), ("rsa", rsa(3072, 8))):
        host.write(f"etc/ssh/ssh_host_{kind}_key", "private", 0o600)
        host.write(f"etc/ssh/ssh_host_{kind}_key.pub", public)
    host.path("etc/ssh/sshd_config.d").mkdir()
    host.path("run/sshd").mkdir(parents=True)
    return host


@pytest.fixture
def home(machine: Host, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home directory of whoever runs the tests, with a key."""
    found = pwd.getpwnam(ME)
    values = [*[*found][:5], "/home/me", found.pw_shell]
    monkeypatch.setattr(sshd.pwd, "getpwnam", lambda name: pwd.struct_passwd(values) if name == ME else raise_key())
    machine.write("home/me/.ssh/authorized_keys", f"{ed25519(1)} me\n", 0o600)
    return machine.path("home/me")


def raise_key() -> Any:
    raise KeyError


# --- the connection ---------------------------------------------------------------------------------------------------


def process(proc: Path, pid: int, parent: int, *environment: str) -> None:
    folder = proc / str(pid)
    folder.mkdir(parents=True)
    (folder / "environ").write_text("\0".join(environment), "utf-8")
    (folder / "status").write_text(f"Name:\tx\nPPid:\t{parent}\n", "utf-8")


def test_the_session_is_that_of_the_outermost_ancestor(tmp_path: Path) -> None:
    process(tmp_path, 9, 8, "PATH=/bin")
    process(tmp_path, 8, 7, "SSH_CONNECTION=1.1.1.1 1 2.2.2.2 2")
    process(tmp_path, 7, 6, "HOME=/", "SSH_CONNECTION=10.1.2.3 50000 10.0.0.1 2222")
    process(tmp_path, 6, 1, "PATH=/bin")
    assert sshd.session_of(9, tmp_path) == Session(ME, "10.1.2.3", "10.0.0.1", 2222)


def test_without_ssh_there_is_no_session(tmp_path: Path) -> None:
    process(tmp_path, 9, 8, "PATH=/bin", "SSH_CONNECTION=torn")
    assert sshd.session_of(9, tmp_path) is None
    process(tmp_path, 8, 0, "PATH=/bin")
    assert sshd.session_of(9, tmp_path) is None


def test_an_owner_without_a_name_is_a_number() -> None:
    assert sshd._user_name(4_000_000) == "4000000"


def test_the_port_of_this_connection_is_kept() -> None:
    assert sshd.kept_ports(SESSION, [2222]) == [22]
    assert sshd.kept_ports(SESSION, [22]) == []
    assert sshd.kept_ports(None, [2222]) == []


# --- the files --------------------------------------------------------------------------------------------------------


def test_algorithms_are_what_both_have_in_the_preferred_order(machine: Host) -> None:
    preferred = ["mlkem768x25519-sha256", "curve25519-sha256", "sntrup761x25519-sha512@openssh.com"]
    wanted = {"KexAlgorithms": preferred, "HostKeyAlgorithms": ["ssh-ed25519"], "CASignatureAlgorithms": []}
    found = sshd.offered({**wanted, "PubkeyAcceptedAlgorithms": ["rsa-sha2-512", "ssh-ed25519"]})
    assert found["KexAlgorithms"] == preferred[1:]
    assert found["PubkeyAcceptedAlgorithms"] == ["ssh-ed25519"]
    assert found["CASignatureAlgorithms"] == []
    assert sshd.offered({"Ciphers": ["aes256-ctr"]}) == {"Ciphers": ["aes256-ctr"]}, "ssh does not say"


def test_a_list_of_which_nothing_is_left_is_refused(machine: Host) -> None:
    with pytest.raises(TransactionError, match="this host's sshd offers none; it offers sntrup761x25519"):
        sshd.offered({"KexAlgorithms": ["mlkem768x25519-sha256"]})


def test_the_drop_in() -> None:
    wanted = Wanted(
        ports=[2222],
        directives={
            "ListenAddress": ["10.0.0.1", "::1"],
            "PermitRootLogin": "no",
            "X11Forwarding": False,
            "MaxSessions": 7,
            "AllowUsers": ["anna", "ben"],
            "AllowGroups": [],
            "Banner": "",
        },
        match=[Match({"User": "ben", "Address": "10.0.0.0/8"}, {"X11Forwarding": True})],
    )
    text = sshd.dropin(wanted, [2222, 22], ["/k"], {"Ciphers": ["a", "b"], "MACs": []})
    assert text.splitlines()[1:] == [
        "Port 2222",
        "Port 22",
        "HostKey /k",
        "ListenAddress 10.0.0.1",
        "ListenAddress ::1",
        "PermitRootLogin no",
        "X11Forwarding no",
        "MaxSessions 7",
        "AllowUsers anna ben",
        "Ciphers a,b",
        "",
        "Match User ben Address 10.0.0.0/8",
        "    X11Forwarding yes",
    ]


def test_keys_of_the_host_that_are_there_stay(machine: Host) -> None:
    keys, notes = sshd.host_keys(Wanted([22]))
    assert [(key.path, key.files) for key in keys] == [
        ("/etc/ssh/ssh_host_ed25519_key", ()),
        ("/etc/ssh/ssh_host_rsa_key", ()),
    ]
    assert notes == []


def test_a_missing_key_is_made(machine: Host) -> None:
    machine.path("etc/ssh/ssh_host_ed25519_key").unlink()
    (key,), _notes = sshd.host_keys(Wanted([22], host_keys=["ed25519"]))
    private, public = key.files
    assert (private.dest, private.content, private.mode, private.secret) == (key.path, b"new ed25519\n", 0o600, True)
    assert (public.dest, public.content, public.mode) == (f"{key.path}.pub", ed25519(9).encode(), 0o644)
    machine.program("ssh-keygen", "exit 1")
    assert sshd.host_keys(Wanted([22], host_keys=["ed25519"]))[0] == [sshd.HostKey(key.path)]


def test_a_short_rsa_key_is_left_out_or_replaced_where_that_is_asked_for(machine: Host) -> None:
    machine.write("etc/ssh/ssh_host_rsa_key.pub", rsa(2048))
    keys, notes = sshd.host_keys(Wanted([22]))
    assert [key.path for key in keys] == ["/etc/ssh/ssh_host_ed25519_key"]
    assert "has 2048 bits, fewer than 3072, and is no longer used" in notes[0]
    keys, notes = sshd.host_keys(Wanted([22], replace_short_host_keys=True))
    assert keys[1].files[0].content == b"new rsa\n"
    assert notes == []
    with pytest.raises(TransactionError, match="no host key is left"):
        sshd.host_keys(Wanted([22], host_keys=["rsa"]))


def test_small_groups_go(machine: Host) -> None:
    (file,) = sshd.moduli_file(3071)
    assert file.content == b"# Time Type\n1 2 6 100 4095 2 BB\n"
    with pytest.raises(TransactionError, match="without a group of 8191 bits"):
        sshd.moduli_file(8191)
    machine.path("etc/ssh/moduli").unlink()
    assert sshd.moduli_file(3071) == []


def test_authorized_keys_belong_to_the_user(home: Path) -> None:
    files, folders = sshd.authorized_files(
        Wanted([22], authorized_keys=[AuthorizedKeys(ME, [ed25519(2)], ["restrict"])])
    )
    assert files[0].content == f"{ed25519(1)} me\nrestrict {ed25519(2)}\n".encode()
    assert (files[0].dest, files[0].owner, files[0].mode) == ("/home/me/.ssh/authorized_keys", str(os.geteuid()), 0o600)
    assert (folders[0].path, folders[0].mode) == ("/home/me/.ssh", 0o700)


def test_authorized_keys_elsewhere_belong_to_root(home: Path) -> None:
    wanted = Wanted([22], authorized_keys=[AuthorizedKeys("later", [ed25519(2)])])
    files, folders = sshd.authorized_files(replace(wanted, authorized_keys_file="/etc/ssh/keys/%u"))
    assert (files[0].dest, files[0].owner, files[0].mode, folders) == ("/etc/ssh/keys/later", "root", 0o644, [])
    # A dry run may come before the user.
    files, folders = sshd.authorized_files(replace(wanted, authorized_keys_file="keys"))
    assert (files[0].dest, files[0].owner, folders) == ("/home/later/keys", "later", [])


# --- the judgement ----------------------------------------------------------------------------------------------------


def planned(directives: Mapping[str, Any], *ports: int, **more: Any) -> dict[str, Entry]:
    text = sshd.dropin(Wanted([22], directives, **more), ports or [22], [], {})
    return {sshd.DROPIN: Entry(sshd.DROPIN, "file", text.encode(), 0o600)}


def test_a_drop_in_that_counts_is_taken(machine: Host, home: Path) -> None:
    assert Judgement(SESSION)(planned({"PasswordAuthentication": False})) == ""
    assert Judgement(None)(planned({"PasswordAuthentication": False}, 2222)) == "", "nobody is connected"


def test_what_stands_there_is_judged_where_nothing_is_planned(machine: Host, home: Path) -> None:
    machine.write("etc/ssh/sshd_config.d/00-production.conf", "Port 22\nAllowUsers nobody\n")
    assert f"AllowUsers nobody does not name {ME}" in Judgement(SESSION)({})


def test_without_a_running_sshd_nobody_is_asked(machine: Host) -> None:
    machine.path("run/sshd").rmdir()
    assert Judgement(SESSION)(planned({"AllowUsers": ["nobody"]})) == ""
    sshd.make_runtime()
    assert "nobody" in Judgement(SESSION)(planned({"AllowUsers": ["nobody"]}))


@pytest.mark.parametrize(
    ("path", "text", "words"),
    [
        (
            "00-a.conf",
            "X11Forwarding yes\nx11forwarding yes\n",
            "00-a.conf:1 says `X11Forwarding yes`, and with it sshd",
        ),
        ("00-a.conf", "\n# x\nX11Forwarding=yes\n", None),
        ("99.conf", f"Match User {ME}\n  X11Forwarding yes\n", "99.conf:2 says `X11Forwarding yes`"),
        ("99.conf", "Match User root\n  X11Forwarding yes\n", "99.conf:2 says `X11Forwarding yes`"),
        ("99.conf", "Match User other\n  X11Forwarding yes\n", None),
        ("99.conf", "Port 2200\n", "99.conf:1 says `Port 2200`"),
        ("99.conf", "ListenAddress 10.0.0.9\n", "99.conf:1 says `ListenAddress 10.0.0.9`"),
        ("99.conf", "X11Forwarding yes\n", None),
    ],
)
def test_a_line_that_wins_is_named(machine: Host, home: Path, path: str, text: str, words: str | None) -> None:
    machine.write(f"etc/ssh/sshd_config.d/{path}", text)
    said = Judgement(SESSION)(planned({"X11Forwarding": False}))
    assert said.count(words) == 1 if words else said == "", said


def test_lines_of_the_main_file_and_of_what_it_includes(machine: Host) -> None:
    machine.write("etc/ssh/sshd_config", f"MaxSessions 3\nInclude more.conf {sshd.FOLDER}/*.conf\n")
    machine.write("etc/ssh/more.conf", "Include more.conf\nBanner /x\n")
    machine.write("etc/ssh/sshd_config.d/00-production.conf", "Banner none\n")
    lines = [(line.path, line.number, line.keyword) for line in sshd.foreign_lines({})]
    assert lines[0] == ("/etc/ssh/sshd_config", 1, "maxsessions")
    assert set(lines[1:]) == {("/etc/ssh/more.conf", 2, "banner")}


def test_a_main_file_that_includes_nothing_is_named(machine: Host) -> None:
    machine.write("etc/ssh/sshd_config", "X11Forwarding yes\n")
    machine.write("etc/ssh/sshd_config", "# nothing\n")
    assert "as its first line" in Judgement(None)(planned({"X11Forwarding": False}))


def test_what_sshd_refuses_is_said_in_its_words(machine: Host) -> None:
    with pytest.raises(TransactionError, match="Bad configuration option: broken"):
        Judgement(None)(planned({"Broken": "x"}))


def test_block_of_the_role_counts_too(machine: Host, home: Path) -> None:
    block = [Match({"User": ME}, {"ForceCommand": "internal-sftp"})]
    assert f"ForceCommand internal-sftp leaves {ME} no shell" in Judgement(SESSION)(planned({}, match=block))
    assert Judgement(SESSION)(planned({}, match=[Match({"User": "ben"}, {"ForceCommand": "x"})])) == ""


def test_keys_count_as_they_are_planned(machine: Host, home: Path) -> None:
    path = "/home/me/.ssh/authorized_keys"
    gone = {**planned({}), path: Entry(path, "file", b"")}
    assert "has no key" in Judgement(SESSION)(gone)
    (home / ".ssh/authorized_keys").unlink()
    assert "has no key" in Judgement(SESSION)(planned({}))
    come = {**planned({}), path: Entry(path, "file", ed25519(3).encode())}
    assert Judgement(SESSION)(come) == ""
    assert "has no key" in Judgement(SESSION)({**come, path: Entry(path)})


def test_revoked_keys_do_not_count(machine: Host, home: Path) -> None:
    revoked = {"/etc/ssh/revoked": Entry("/etc/ssh/revoked", "file", ed25519(1).encode())}
    assert "has no key" in Judgement(SESSION)({**planned({"RevokedKeys": "/etc/ssh/revoked"}), **revoked})


def test_keys_that_strict_modes_refuse_do_not_count(machine: Host, home: Path) -> None:
    (home / ".ssh").chmod(0o777)
    assert "has no key" in Judgement(SESSION)(planned({}))
    assert Judgement(SESSION)(planned({"StrictModes": False})) == ""


def test_a_password_is_found(machine: Host, home: Path) -> None:
    (home / ".ssh/authorized_keys").unlink()
    on = planned({"PasswordAuthentication": True, "PermitRootLogin": "yes"})
    machine.write("etc/shadow", f"{ME}:*:1\nother\n")
    assert "has no key" in Judgement(SESSION)(on)
    machine.write("etc/shadow", f"{ME}:$y$x:1\n")
    assert Judgement(SESSION)(on) == ""


def test_a_user_nobody_knows_has_nothing(machine: Host, home: Path) -> None:
    assert sshd.account("stranger", {}, {}) == sshd.Account("stranger", [], has_password=False)


def test_a_group_without_a_name_is_passed_over(machine: Host, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sshd.os, "getgrouplist", lambda _name, _gid: [0, 4_000_000])
    assert sshd.account(ME, {}, {}).groups == ["root"]


# --- all of it --------------------------------------------------------------------------------------------------------


def test_the_service_is_whole(machine: Host, home: Path) -> None:
    machine.path("etc/ssh/ssh_host_rsa_key").unlink()
    wanted = Wanted([2222], authorized_keys=[AuthorizedKeys(ME, [ed25519(2)])])
    service, notes = sshd.completed(Service("sshd"), wanted, SESSION)
    assert notes == []
    assert [file.dest for file in service.files] == [
        sshd.DROPIN,
        "/etc/ssh/ssh_host_rsa_key",
        "/etc/ssh/ssh_host_rsa_key.pub",
        "/etc/ssh/moduli",
        "/home/me/.ssh/authorized_keys",
    ]
    assert service.replaces == ["ssh.socket"]
    assert service.reads == ["/etc/ssh/ssh_host_ed25519_key"]
    assert b"Port 2222\nPort 22\n" in (service.files[0].content or b"")
    assert [(probe.unit, probe.ports) for probe in service.probes] == [("ssh.service", [2222, 22])]


@pytest.fixture
def installed(machine: Host, monkeypatch: pytest.MonkeyPatch) -> Host:
    """The module's host: what it writes goes into the folder too."""
    monkeypatch.setattr(packages, "missing", lambda _names: [])
    monkeypatch.setattr(sshd, "session_of", lambda _pid: SESSION)
    return machine


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the module has warned of."""
    found: list[str] = []
    monkeypatch.setattr(module.AnsibleModule, "warn", lambda _self, text: found.append(text))
    return found


def test_the_module_in_a_dry_run(
    installed: Host, home: Path, warnings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    installed.unit("ssh.service", active=True, enabled=True)
    result = run_module(module.main, capsys, check=True, ports=[2222], directives={"X11Forwarding": False})
    assert (result["changed"], result["ports"], result["kept_ports"]) == (True, [2222, 22], [22])
    assert sshd.DROPIN in result["paths"]
    assert "Port 2222" in str(result["diff"]), "the drop-in is closed to others and no secret"
    assert warnings == ["port 22 stays open until you connect over 2222: set ansible_port: 2222 and run again"]


def test_the_module_refuses(installed: Host, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for check in (True, False):
        result = run_module(module.main, capsys, check=check, ports=[22], directives={"AllowUsers": ["nobody"]})
        assert result["failed"]
        assert f"This would shut out {ME}, as whom this run is connected from 10.1.2.3: AllowUsers" in result["msg"]
        assert "Nothing was changed." in result["msg"]
        assert not Path(sshd.DROPIN).exists() or os.geteuid() == 0


def test_the_module_says_what_is_no_mode(installed: Host, capsys: pytest.CaptureFixture[str]) -> None:
    file = {"dest": "/x", "content": "", "mode": "rw"}
    assert "not an octal number" in run_module(module.main, capsys, ports=[22], files=[file])["msg"]


def test_the_module_warns_of_short_keys(
    installed: Host, home: Path, warnings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    installed.write("etc/ssh/ssh_host_rsa_key.pub", rsa(2048))
    run_module(module.main, capsys, check=True, ports=[22])
    assert ["2048 bits" in one for one in warnings] == [True]
