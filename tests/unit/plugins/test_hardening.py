"""Items of hardening: what a host can take, as one transaction; and what cannot work in the role's settings."""

from __future__ import annotations

import base64
import datetime
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.module_utils import hardening, packages
from ansible_collections.fushuma.production.plugins.module_utils.hardening import (
    has_capability,
    hindrance,
    service_of,
    settable_keys,
    with_values,
    without_values,
)
from ansible_collections.fushuma.production.plugins.module_utils.journal import TransactionError
from ansible_collections.fushuma.production.plugins.module_utils.transaction import converge
from ansible_collections.fushuma.production.plugins.modules import harden
from ansible_collections.fushuma.production.plugins.plugin_utils import hardening as judge
from ansible_collections.fushuma.production.plugins.plugin_utils import specs
from hypothesis import given
from hypothesis import strategies as st

from .conftest import Host
from .modules import run_module

ME, US = str(os.geteuid()), str(os.getegid())


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kernel in a folder, with the parameters that it has."""
    root = tmp_path / "proc" / "sys"
    monkeypatch.setattr(hardening, "PROC_SYS", root)
    monkeypatch.setattr(hardening, "SYSCTL_FILE", str(tmp_path / "sysctl.conf"))
    return root


def parameter(kernel: Path, key: str, value: str) -> Path:
    path = kernel / key.replace(".", "/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{value}\n")
    return path


@pytest.fixture
def closed(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes a parameter one that this host may not set, for root may write whatever has a file mode."""
    refused: set[str] = set()
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) not in refused and real(path, mode))
    return lambda key: refused.add(str(kernel / key.replace(".", "/")))


# --- can the host take it? -------------------------------------------------------------------------------------------


def test_what_an_item_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, gone = str(tmp_path), str(tmp_path / "gone")
    assert hindrance({}) == ""
    assert hindrance({"paths": [here], "none_of": [gone]}) == ""
    assert hindrance({"paths": [gone], "why": "no AppArmor"}) == f"no AppArmor ({gone} is not there)"
    assert hindrance({"none_of": [here], "why": "Docker needs it"}) == f"Docker needs it ({here} is there)"
    assert hindrance({"not_for": []}) == ""
    assert hindrance({"not_for": ["docker"]}) == "the host uses it (docker is to run here)"
    assert hindrance({"mount": "/"}) == ""
    assert hindrance({"mount": "/etc"}) == "/etc is no file system of its own"
    monkeypatch.setattr(hardening, "has_capability", lambda name: name == "sys_time")
    assert hindrance({"capability": "sys_time"}) == ""
    assert "no CAP_AUDIT_CONTROL" in hindrance({"capability": "audit_control"})


def test_the_kernel_says_which_capabilities_there_are(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text(f"Name:\tpython3\nCapEff:\t{1 << 25:016x}\n")
    assert has_capability("sys_time", status)
    assert not has_capability("audit_control", status)
    status.write_text("Name:\tpython3\n")
    assert not has_capability("sys_time", status)


def test_which_parameters_can_be_set(kernel: Path, closed: Callable[[str], None]) -> None:
    for key, value in {"net.a": "0", "kernel.right": "1", "kernel.other": "0"}.items():
        parameter(kernel, key, value)
    closed("kernel.right")
    closed("kernel.other")
    settable, reasons = settable_keys({"net.a": 1, "kernel.right": 1, "kernel.other": 1, "kernel.none": 1})
    assert settable == {"net.a": "1"}
    assert reasons == [
        "kernel.other: the kernel does not let this host set it",
        "kernel.none: this kernel does not have it",
    ]


def states(*items: dict[str, Any]) -> dict[str, tuple[str, int]]:
    """What is said of each item, and how many reasons there are."""
    _service, reports = service_of([{"on": True, **item} for item in items])
    return {one.name: (one.state, len(one.reasons)) for one in reports}


def test_what_is_said_of_items(kernel: Path) -> None:
    parameter(kernel, "net.a", "0")
    assert states(
        {"name": "off", "on": False},
        {"name": "whole", "sysctl": {"net.a": 1}},
        {"name": "partly", "sysctl": {"net.a": 1, "net.b": 1}},
        {"name": "not at all", "sysctl": {"net.b": 1}},
        {"name": "its files only", "sysctl": {"net.b": 1}, "packages": ["x"]},
        {"name": "needs more", "packages": ["y"], "needs": {"paths": ["/nowhere"]}},
    ) == {
        "off": ("off", 0),
        "whole": ("in force", 0),
        "partly": ("in force", 1),
        "not at all": ("not applicable", 1),
        "its files only": ("in force", 1),
        "needs more": ("not applicable", 1),
    }


# --- as one transaction -----------------------------------------------------------------------------------------------


def item(host: Host, name: str = "one", *, on: bool = True, **parts: Any) -> dict[str, Any]:
    """An item whose files are owned by whoever runs the tests."""
    files = [{"owner": ME, "group": US, **each} for each in parts.pop("files", [])]
    return {"name": name, "on": on, "files": files, **parts}


def test_parameters_are_set_and_set_back(kernel: Path, host: Host, tmp_path: Path) -> None:
    forwarding = parameter(kernel, "net.ipv4.conf.all.forwarding", "1")
    redirects = parameter(kernel, "net.ipv4.conf.all.accept_redirects", "1")
    host.program("sysctl", f'echo "$@" >> {host.bin}/log; case "$1 $2" in "-q -p") echo 0 > {forwarding} ;; esac')
    wanted = [
        item(host, sysctl={"net.ipv4.conf.all.accept_redirects": 0, "net.ipv4.conf.all.forwarding": 0}),
    ]
    with pytest.raises(TransactionError, match="accept_redirects is 1, not 0"):
        converge(service_of(wanted)[0], host.store)
    load, back = host.commands()
    assert load == f"-q -p {hardening.SYSCTL_FILE}"
    # Forwarding first: the kernel resets others with it.
    assert back == "-q -w net.ipv4.conf.all.forwarding=1 net.ipv4.conf.all.accept_redirects=1"
    assert not Path(hardening.SYSCTL_FILE).exists()
    redirects.write_text("0\n")
    forwarding.write_text("0\n")
    assert converge(service_of(wanted)[0], host.store).changed
    host.commands()
    assert not converge(service_of(wanted)[0], host.store).changed
    redirects.write_text("1\n")
    assert converge(service_of(wanted)[0], host.store, check=True).changed, "somebody has set it otherwise since"


def test_a_later_item_has_the_last_word(kernel: Path) -> None:
    parameter(kernel, "net.a", "0")
    service, _reports = service_of([{"name": str(value), "on": True, "sysctl": {"net.a": value}} for value in (2, 1)])
    (file,) = service.files
    assert (file.content or b"").endswith(b"\nnet.a = 1\n")


def test_an_item_that_is_off_takes_its_files_along(kernel: Path, host: Host) -> None:
    ours, theirs = host.path("ours.conf"), host.write("theirs.conf", "of the operator\n")
    apply = host.program("apply", f'echo "apply $@" >> {host.bin}/log')
    files = [
        {"dest": str(ours), "content": hardening.MARK + b"\n", "apply": [[*apply, "it"]], "undo": [[*apply, "back"]]},
        {"dest": str(theirs), "content": None},
    ]
    on = item(host, files=files[:1])
    assert converge(service_of([on])[0], host.store).changed
    assert host.commands() == ["apply it"]
    off = item(host, on=False, files=files)
    assert converge(service_of([off])[0], host.store).changed
    assert host.commands() == ["apply back"]
    assert not ours.exists()
    assert theirs.read_text() == "of the operator\n"
    assert not converge(service_of([off])[0], host.store).changed


def test_what_reads_a_file_is_told_before_it_goes(kernel: Path, host: Host) -> None:
    """As pam-auth-update, which removes a profile's lines while it can still read the profile."""
    profile = host.path("profile")
    note = f'[ -e {profile} ] && there=yes || there=no; echo "$1 $there" >> {host.bin}/log'
    tool = host.program("tool", note)
    enable, remove = [[*tool, "enable"]], [[*tool, "remove"]]
    file = {"dest": str(profile), "apply": enable, "retire": remove, "undo": remove}
    on = item(host, files=[{**file, "content": hardening.MARK}])
    converge(service_of([on])[0], host.store)
    assert host.commands() == ["enable yes"]
    converge(service_of([item(host, on=False, files=[{**file, "content": None}])])[0], host.store)
    assert host.commands() == ["remove yes", "remove no"]
    broken = item(host, "two", files=[{"dest": str(host.path("z")), "content": b"", "apply": [["false"]]}])
    with pytest.raises(TransactionError):
        converge(service_of([on, broken])[0], host.store)
    assert host.commands()[:2] == ["enable yes", "remove yes"]
    assert not profile.exists()


def test_an_item_that_was_taken_back_is_in_force_again_where_something_is_refused(kernel: Path, host: Host) -> None:
    """As pam-auth-update again, for which a profile that is there says nothing yet."""
    tool = host.program("tool", f'echo "tool $1" >> {host.bin}/log')
    profile = {"dest": str(host.path("profile")), "apply": [[*tool, "enable"]], "undo": [[*tool, "remove"]]}
    converge(service_of([item(host, files=[{**profile, "content": hardening.MARK}])])[0], host.store)
    host.commands()
    host.unit("broken.service")
    host.fail("start broken.service")
    off = item(host, on=False, files=[{**profile, "content": None}])
    with pytest.raises(TransactionError):
        converge(service_of([off, item(host, "two", units=["broken.service"])])[0], host.store)
    assert [line for line in host.commands() if line.startswith("tool")] == ["tool remove", "tool enable"]
    assert host.path("profile").exists()


def test_edits_are_made_and_taken_back(kernel: Path, host: Host) -> None:
    path = host.write("login.defs", "# shadow\nUMASK\t\t022\nOTHER 1\n", 0o640)
    edits = [{"path": str(path), "separator": "\t", "values": {"UMASK": "027", "HOME_MODE": "0750"}}]
    converge(service_of([item(host, edits=edits)])[0], host.store)
    assert (
        path.read_text()
        == "# shadow\n#~ UMASK\t\t022\nUMASK\t027\nOTHER 1\n#~ HOME_MODE was not set\nHOME_MODE\t0750\n"
    )
    assert path.stat().st_mode & 0o777 == 0o640
    assert not converge(service_of([item(host, edits=edits)])[0], host.store).changed
    converge(service_of([item(host, on=False, edits=edits)])[0], host.store)
    assert path.read_text() == "# shadow\nUMASK\t\t022\nOTHER 1\n"


def test_edits_of_two_items_in_one_file(kernel: Path, host: Host) -> None:
    path = host.write("login.defs", "A 1\n")
    one, two = ([{"path": str(path), "values": {key: 2}}] for key in "AB")
    converge(service_of([item(host, "one", edits=one), item(host, "two", edits=two)])[0], host.store)
    assert "A 2\n" in path.read_text()
    assert "B 2\n" in path.read_text()
    converge(service_of([item(host, "one", edits=one), item(host, "two", on=False, edits=two)])[0], host.store)
    assert "A 2\n" in path.read_text()
    assert "B" not in path.read_text()


def test_a_file_that_is_not_there_is_not_edited(kernel: Path, host: Host) -> None:
    edits = [{"path": str(host.path("none")), "values": {"A": 1}}]
    converge(service_of([item(host, edits=edits)])[0], host.store)
    assert not host.path("none").exists()


def test_owners_modes_and_borrowed_rights(kernel: Path, host: Host) -> None:
    open_file, program = host.write("shadow", "x", 0o644), host.write("chfn", "x", 0o4755)
    link = host.path("gcc")
    link.symlink_to(host.write("gcc-14", "x", 0o755))
    attributes = [
        {"path": str(path), "owner": ME, "group": US, "mode": "0600"} for path in (open_file, link, host.path("none"))
    ]
    without = [str(program), str(host.path("none")), str(host.root)]
    wanted = [item(host, attributes=attributes, without_suid=without)]
    would = converge(service_of(wanted)[0], host.store, check=True)
    assert {change.after.path for change in would.changes} == {str(open_file), str(host.path("gcc-14")), str(program)}
    converge(service_of(wanted)[0], host.store)
    modes = {path.name: path.stat().st_mode & 0o7777 for path in (open_file, program, host.path("gcc-14"))}
    assert modes == {"shadow": 0o600, "chfn": 0o755, "gcc-14": 0o600}
    assert host.path("shadow").read_text() == "x"
    assert not converge(service_of(wanted)[0], host.store).changed


def test_modes_are_put_back_where_something_is_refused(kernel: Path, host: Host) -> None:
    program = host.write("chfn", "x", 0o4755)
    refused = [item(host, without_suid=[str(program)], validate=[["false"]])]
    with pytest.raises(TransactionError):
        converge(service_of(refused)[0], host.store)
    assert program.stat().st_mode & 0o7777 == 0o4755


def test_folders_of_people_are_closed(kernel: Path, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    home = host.path("home")
    home.mkdir(mode=0o755)
    people = [
        SimpleNamespace(pw_uid=1000, pw_dir=f"/home/../{home}"),
        SimpleNamespace(pw_uid=1001, pw_dir="/home/nobody-made-it"),
        SimpleNamespace(pw_uid=999, pw_dir="/home/of-a-service"),
        SimpleNamespace(pw_uid=65534, pw_dir="/nonexistent"),
    ]
    monkeypatch.setattr(hardening.pwd, "getpwall", lambda: people)
    service, _reports = service_of([item(host, homes=True)])
    assert [(one.path, one.mode) for one in service.attributes] == [(people[0].pw_dir, 0o750)]


def test_services_and_packages_that_are_not_wanted(kernel: Path, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"telnet"}
    removed: list[str] = []
    monkeypatch.setattr(packages, "missing", lambda names: [name for name in names if name not in there])
    monkeypatch.setattr(packages, "remove", removed.extend)
    host.unit("avahi.service", active=True, enabled=True)
    wanted = [item(host, unwanted=["telnet", "talk"], idle=["avahi.service", "never-heard-of.service"])]
    outcome = converge(service_of(wanted)[0], host.store)
    assert (outcome.removed, removed) == (["telnet"], ["telnet"])
    assert host.commands() == ["stop avahi.service", "disable avahi.service"]
    there.clear()
    assert not converge(service_of(wanted)[0], host.store).changed


def test_an_idle_service_runs_again_where_something_is_refused(kernel: Path, host: Host) -> None:
    host.unit("avahi.service", active=True, enabled=True)
    file = {"dest": str(host.path("x.conf")), "content": b"x"}
    host.fail("stop avahi.service")
    wanted = [item(host, files=[file], idle=["avahi.service"])]
    with pytest.raises(TransactionError):
        converge(service_of(wanted)[0], host.store)
    assert host.is_("active", "avahi.service")
    assert not host.path("x.conf").exists()


def test_what_ran_before_runs_on_where_something_is_refused(kernel: Path, host: Host) -> None:
    host.unit("audit.service", active=True, enabled=True)
    file = {"dest": str(host.path("x.conf")), "content": b"x", "apply": [["false"]]}
    with pytest.raises(TransactionError):
        converge(service_of([item(host, files=[file], units=["audit.service"])])[0], host.store)
    assert host.is_("active", "audit.service")
    assert not [command for command in host.commands() if "audit" in command]


lines = st.lists(st.sampled_from(["# comment", "A 1", "B\t2", "AB 3", "", "  A  4", "X=5"]), max_size=6)
values = st.dictionaries(st.sampled_from(["A", "B", "AB", "NEW"]), st.sampled_from(["1", "yes"]), max_size=4)


@given(lines=lines, values=values, separator=st.sampled_from([" ", "\t", " = "]))
def test_an_edit_is_taken_back_to_the_letter(lines: list[str], values: dict[str, str], separator: str) -> None:
    text = "".join(f"{line}\n" for line in lines)
    edited = with_values(text, values, separator)
    assert with_values(edited, values, separator) == edited
    assert without_values(edited, values, separator) == text
    for key, value in values.items():
        assert f"{key}{separator}{value}" in edited.splitlines()


# --- the module -------------------------------------------------------------------------------------------------------


def test_the_module(
    kernel: Path, host: Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harden, "Store", lambda _name: host.store)
    path = host.path("banner")
    content = base64.b64encode(b"hello\n").decode()
    wanted = item(host, files=[{"dest": str(path), "content": content, "mode": "0640"}])
    result = run_module(harden.main, capsys, items=[wanted])
    assert (result["changed"], result["paths"]) == (True, [str(path)])
    assert result["report"] == [{"name": "one", "state": "in force", "reasons": []}]
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("hello\n", 0o640)
    assert not run_module(harden.main, capsys, items=[wanted])["changed"]
    path.chmod(0o600)
    (shown,) = run_module(harden.main, capsys, check=True, items=[wanted])["diff"]
    assert shown["before"] != shown["after"], "a change of the mode alone is shown too"
    broken = run_module(harden.main, capsys, items=[{**wanted, "validate": [["false"]]}])
    assert broken["failed"]


def test_files_that_come_with_a_package_are_seen_in_the_same_run(
    kernel: Path, host: Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harden, "Store", lambda _name: host.store)
    conf, program = host.path("auditd.conf"), host.path("newgrp")

    def install(_names: object, _units: object) -> None:
        host.write("auditd.conf", "num_logs = 5\n")
        host.write("newgrp", "x", 0o4755)

    monkeypatch.setattr(packages, "missing", lambda names: [] if conf.exists() else list(names))
    monkeypatch.setattr(packages, "install", install)
    edits = [{"path": str(conf), "separator": " = ", "values": {"num_logs": 10}}]
    wanted = item(host, packages=["auditd"], edits=edits, without_suid=[str(program)])
    assert run_module(harden.main, capsys, items=[wanted])["changed"]
    assert "num_logs = 10\n" in conf.read_text()
    assert program.stat().st_mode & 0o7777 == 0o755
    assert not run_module(harden.main, capsys, items=[wanted])["changed"]


# --- which items are wanted ------------------------------------------------------------------------------------------


def test_levels_and_switches() -> None:
    items = [{"name": name, "level": name} for name in ("baseline", "strict", "named")] + [{"name": "always"}]

    def on(level: str, **switches: bool) -> list[str]:
        return [one["name"] for one in judge.chosen(items, level, switches) if one["on"]]

    assert on("baseline") == ["baseline", "always"]
    assert on("strict") == ["baseline", "strict", "always"]
    assert on("baseline", named=True, baseline=False) == ["named", "always"]


# --- the judge --------------------------------------------------------------------------------------------------------

TOMORROW = (datetime.date.today() + datetime.timedelta(days=1)).isoformat()
WAIVER = {"item": "usb_storage", "reason": "the backup disk", "owner": "ops", "expires": TOMORROW}


def judged(**settings: Any) -> list[str]:
    filled = specs.filled(specs.role_options("hardening"), settings)
    return [problem.sentence() for problem in judge.problems(filled)]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"hardening_items": {"usb_storage": True, "audit": False}},
        {"hardening_waivers": [WAIVER]},
        {"hardening_sysctl": {"net.core.somaxconn": 4096, "net.ipv4.tcp_rmem": "4096 87380 6291456"}},
        {"hardening_umask": "077", "hardening_journal": {"size": "500M", "retention": "2week"}},
        {"hardening_upgrades": {"reboot": True, "reboot_time": "now", "hold": []}},
        {"hardening_time_servers": ["ntp.fushuma.com", "2001:db8::1"]},
        {"hardening_audit_rules": ["-w /etc/app -p wa -k app"]},
    ],
)
def test_what_works(settings: dict[str, Any]) -> None:
    assert judged(**settings) == []


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"hardening_items": {"usb_storrage": True}}, "usb_storage, if that is meant"),
        ({"hardening_items": {"qqqqqqqqqq": True}}, "the name of an item in docs/roles/hardening.md"),
        ({"hardening_items": {"audit": "no idea"}}, "true or false"),
        ({"hardening_waivers": [{**WAIVER, "item": "usb"}]}, "hardening_waivers[0].item"),
        ({"hardening_waivers": [{**WAIVER, "expires": "2020-01-01"}]}, "that day is over"),
        ({"hardening_waivers": [{**WAIVER, "expires": "soon"}]}, "it is no day"),
        ({"hardening_waivers": [WAIVER], "hardening_items": {"usb_storage": True}}, "only one of the two"),
        ({"hardening_sysctl": {"somaxconn": 1}}, "no kernel parameter has such a name"),
        ({"hardening_sysctl": {"net.core.somaxconn": True}}, "neither a number"),
        ({"hardening_sysctl": {"net.core.somaxconn": "1\n2"}}, "neither a number"),
        ({"hardening_umask": "999"}, "it is no umask"),
        ({"hardening_journal": {"size": "big"}}, "hardening_journal.size"),
        ({"hardening_journal": {"keep_free": "-1"}}, "hardening_journal.keep_free"),
        ({"hardening_journal": {"retention": "a while"}}, "hardening_journal.retention"),
        ({"hardening_upgrades": {"reboot_time": "25:00"}}, "it is no time of day"),
        ({"hardening_upgrades": {"hold": ["Docker CE"]}}, "hardening_upgrades.hold[0]"),
        ({"hardening_cron_users": ["root;"]}, "hardening_cron_users[0]"),
        ({"hardening_time_servers": ["not a host"]}, "hardening_time_servers[0]"),
        ({"hardening_audit_rules": ["watch it"]}, "hardening_audit_rules[0]"),
        ({"hardening_passwords": {"length": 4}}, "a number from 8 to 128"),
        ({"hardening_passwords": {"classes": 5}}, "a number from 0 to 4"),
        ({"hardening_sudo": {"timeout": -1}}, "hardening_sudo.timeout"),
        ({"hardening_shell_timeout": 1}, "hardening_shell_timeout"),
    ],
)
def test_what_cannot_work(settings: dict[str, Any], sentence: str) -> None:
    (problem,) = judged(**settings)
    assert sentence in problem


def test_every_item_says_what_it_is_and_comes_once() -> None:
    names = judge.item_names()
    assert len(names) == len(set(names)) > 30
