"""The transaction on a host made of a folder: every path through it, and what is left behind after each failure."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.fushuma.production.plugins.module_utils import journal, packages, transaction
from ansible_collections.fushuma.production.plugins.module_utils.journal import Entry, TransactionError, main
from ansible_collections.fushuma.production.plugins.module_utils.probe import Probe
from ansible_collections.fushuma.production.plugins.module_utils.transaction import (
    Directory,
    File,
    Service,
    confirm,
    converge,
    diffs,
    scrub,
)

from .conftest import Host, ServiceMaker

UNIT = "web.service"


def running(host: Host, service: ServiceMaker, text: str = "old") -> None:
    """A host on which the service runs with one file, by a transaction of its own."""
    host.unit(UNIT, active=True, enabled=True)
    converge(service({"web.conf": text}, units=[UNIT]), host.store)
    host.commands()


# --- the good case ---------------------------------------------------------------------------------------------------


def test_first_run_writes_activates_and_records(host: Host, service: ServiceMaker) -> None:
    host.unit(UNIT)
    outcome = converge(service({"a/web.conf": "text"}, units=[UNIT]), host.store)
    assert outcome.changed
    assert host.path("a/web.conf").read_text() == "text"
    assert host.path("a/web.conf").stat().st_mode & 0o777 == 0o644
    assert host.commands() == [f"enable {UNIT}", f"start {UNIT}"]
    assert host.store.activated() is not None
    assert host.store.pending() is None


def test_second_run_does_nothing(host: Host, service: ServiceMaker) -> None:
    running(host, service)
    outcome = converge(service({"web.conf": "old"}, units=[UNIT]), host.store)
    assert not outcome.changed
    assert host.commands() == []


def test_changed_file_reloads(host: Host, service: ServiceMaker) -> None:
    running(host, service)
    converge(service({"web.conf": "new"}, units=[UNIT]), host.store)
    assert host.path("web.conf").read_text() == "new"
    assert host.commands() == [f"reload-or-restart {UNIT}"]


def test_a_file_may_ask_for_a_restart(host: Host, service: ServiceMaker) -> None:
    running(host, service)
    me, us = str(os.geteuid()), str(os.getegid())
    conf = File(str(host.path("web.conf")), b"old", me, us)
    limits = File(str(host.path("limits.conf")), b"1", me, us, on_change="restart")
    converge(service(raw=[conf, limits], units=[UNIT]), host.store)
    assert host.commands() == [f"restart {UNIT}"]
    converge(service(raw=[File(conf.dest, b"new", me, us), limits], units=[UNIT]), host.store)
    assert host.commands() == [f"reload-or-restart {UNIT}"]


@pytest.fixture
def accounts(host: Host) -> File:
    """A file that a program brings into force, and another one says whether it is."""
    me, us = str(os.geteuid()), str(os.getegid())
    load = host.program("load", f"cp {host.path('accounts')} {host.bin}/loaded; echo load >>{host.bin}/log")
    asked = host.program("asked", f"cmp -s {host.path('accounts')} {host.bin}/loaded")
    return File(str(host.path("accounts")), b"one", me, us, apply=[load], in_force=asked)


def test_what_is_not_in_force_any_more_is_applied_and_units_are_left_alone(
    host: Host, service: ServiceMaker, accounts: File
) -> None:
    host.unit(UNIT, active=True, enabled=True)
    converge(service(raw=[accounts], units=[UNIT]), host.store)
    assert not converge(service(raw=[accounts], units=[UNIT]), host.store).changed
    host.commands()
    (host.bin / "loaded").write_text("by hand", "utf-8")
    planned = converge(service(raw=[accounts], units=[UNIT]), host.store, check=True)
    assert (planned.changed, planned.commands, host.commands()) == (True, [*accounts.apply], [])
    assert converge(service(raw=[accounts], units=[UNIT]), host.store).changed
    assert host.commands() == ["load"]
    assert not converge(service(raw=[accounts], units=[UNIT]), host.store).changed


def test_a_file_that_does_not_come_into_force_is_put_back(host: Host, service: ServiceMaker, accounts: File) -> None:
    converge(service(raw=[accounts]), host.store)
    never = replace(accounts, content=b"two", apply=[["true"]])
    with pytest.raises(TransactionError, match="asked` ended with 1"):
        converge(replace(service(raw=[never]), probe_timeout=0.1), host.store)
    assert host.path("accounts").read_text() == "one"
    gone = replace(accounts, content=None)
    assert converge(service(raw=[gone]), host.store).changed, "what shall not be there is not asked"


@pytest.mark.parametrize("check", [True, False])
def test_a_unit_that_would_undo_the_change_is_refused_before_anything_happens(
    host: Host, service: ServiceMaker, check: bool
) -> None:
    host.unit(UNIT)
    host.unit("rival.service", active=True)
    wanted = service({"web.conf": "new"}, units=[UNIT], conflicts=["absent.service", "rival.service"])
    before = host.tree()
    with pytest.raises(TransactionError, match=r"^web: rival.service runs on this host .* Nothing was changed"):
        converge(wanted, host.store, check=check)
    assert (host.tree(), host.commands()) == (before, [])
    host.unit("rival.service")
    assert converge(wanted, host.store, check=check).changed


def test_wrong_mode_is_a_change(host: Host, service: ServiceMaker) -> None:
    running(host, service)
    host.path("web.conf").chmod(0o600)
    assert converge(service({"web.conf": "old"}, units=[UNIT]), host.store).changed
    assert host.path("web.conf").stat().st_mode & 0o777 == 0o644
    assert host.commands() == [f"reload-or-restart {UNIT}"]


def test_stopped_service_is_started(host: Host, service: ServiceMaker) -> None:
    running(host, service)
    host.unit(UNIT, enabled=True)
    assert converge(service({"web.conf": "old"}, units=[UNIT]), host.store).changed
    assert host.commands() == [f"start {UNIT}"]


def test_unwanted_service_is_stopped_and_disabled(host: Host, service: ServiceMaker) -> None:
    running(host, service)
    converge(service({"web.conf": "old"}, units=[UNIT], running=False, enabled=False), host.store)
    assert host.commands() == [f"stop {UNIT}", f"disable {UNIT}"]


def test_what_several_files_have_in_common_runs_once(host: Host, service: ServiceMaker, accounts: File) -> None:
    secret = replace(accounts, dest=str(host.path("secret")), in_force=[])
    converge(service(raw=[accounts, secret]), host.store)
    assert host.commands() == ["load"]
    back = host.program("back", f"echo back >>{host.bin}/log")
    never = [replace(one, content=b"two", undo=[back], in_force=["false"]) for one in (accounts, secret)]
    with pytest.raises(TransactionError, match="`false` ended with 1"):
        converge(service(raw=never, probe_timeout=0), host.store)
    assert host.commands() == ["load", "back"]


def test_stale_unit_is_read_again(host: Host, service: ServiceMaker) -> None:
    running(host, service)
    (host.bin / "stale").touch()
    assert converge(service({"web.conf": "old"}, units=[UNIT]), host.store).changed
    assert host.commands() == ["daemon-reload"]


def test_apply_runs_when_files_changed_and_only_then(host: Host, service: ServiceMaker) -> None:
    load = host.program("load", f"cat {host.path('rules')} >> {host.bin}/loaded")
    converge(service({"rules": "one\n"}, apply=[load]), host.store)
    converge(service({"rules": "one\n"}, apply=[load]), host.store)
    converge(service({"rules": "two\n"}, apply=[load]), host.store)
    assert (host.bin / "loaded").read_text() == "one\ntwo\n"


def test_absent_and_pruned_files_go(host: Host, service: ServiceMaker) -> None:
    host.write("sites/old.conf", "x")
    host.write("sites/sub/older.conf", "x")
    host.write("default", "x")
    host.path("sites/link").symlink_to("/nowhere")
    converge(service({"sites/new.conf": "y", "default": None}, prune=["sites"]), host.store)
    assert sorted(host.tree()) == ["sites", "sites/new.conf"]


def test_link_in_the_way_is_replaced_not_followed(host: Host, service: ServiceMaker) -> None:
    target = host.write("elsewhere", "untouched")
    host.path("web.conf").symlink_to(target)
    converge(service({"web.conf": "new"}), host.store)
    assert not host.path("web.conf").is_symlink()
    assert target.read_text() == "untouched"


def test_missing_packages_come_first_and_do_not_start_the_unit(
    host: Host, service: ServiceMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = tmp_path / "policy-rc.d"
    monkeypatch.setattr(packages, "POLICY", policy)
    host.program("dpkg-query", f"[ ! -e {host.bin}/units/{UNIT} ] || echo web installed")
    install = f"touch {host.bin}/units/{UNIT}; {policy} web start || echo held >> {host.bin}/log"
    host.program("apt-get", f'case "$*" in *install*) {install} ;; esac')
    wanted = service({"web.conf": "text"}, units=[UNIT], packages=["web"])
    would = converge(wanted, host.store, check=True)
    assert (would.packages, would.changed, host.commands()) == (["web"], True, [])
    assert diffs(would)[0]["after"] == "web\n"
    assert converge(wanted, host.store).packages == ["web"]
    assert host.commands() == ["held", f"enable {UNIT}", f"start {UNIT}"]
    assert not converge(wanted, host.store).changed


def test_nothing_is_changed_where_a_package_is_not_to_be_had(host: Host, service: ServiceMaker) -> None:
    running(host, service)
    before = host.tree()
    host.program("dpkg-query", "true")
    host.program("apt-get", "echo no such package; exit 100")
    with pytest.raises(TransactionError, match="no such package"):
        converge(service({"web.conf": "new"}, units=[UNIT], packages=["wrkk"]), host.store)
    assert host.tree() == before
    assert host.store.pending() is None


# --- state decides ---------------------------------------------------------------------------------------------------


def test_files_right_but_never_activated(host: Host, service: ServiceMaker) -> None:
    host.unit(UNIT, active=True, enabled=True)
    host.write("web.conf", "old")
    assert converge(service({"web.conf": "old"}, units=[UNIT]), host.store).changed
    assert host.commands() == [f"reload-or-restart {UNIT}"]


def test_a_service_that_does_not_answer_takes_up_its_files_again(host: Host, service: ServiceMaker) -> None:
    running(host, service)
    answers = host.bin / "answers"
    probe = Probe(exec=["test", "-e", str(answers)])
    wanted = service({"web.conf": "old"}, units=[UNIT], probes=[probe], probe_timeout=0.1)
    answers.touch()
    assert not converge(wanted, host.store).changed
    assert host.commands() == []
    answers.unlink()
    assert converge(wanted, host.store, check=True).commands == [["systemctl", "reload-or-restart", UNIT]]
    assert host.commands() == []
    with pytest.raises(TransactionError, match="does not answer"):
        converge(wanted, host.store)
    assert f"reload-or-restart {UNIT}" in host.commands()


def test_hand_edit_is_undone_and_taken_up(host: Host, service: ServiceMaker) -> None:
    running(host, service)
    host.write("web.conf", "edited by hand and reloaded")
    converge(service({"web.conf": "old"}, units=[UNIT]), host.store)
    assert host.commands() == [f"reload-or-restart {UNIT}"]


@pytest.mark.parametrize("content", ["", "{}", "not json", '{"files": 3}'])
def test_unreadable_record_means_unknown(host: Host, service: ServiceMaker, content: str) -> None:
    running(host, service)
    host.store.record_path.write_text(content)
    converge(service({"web.conf": "old"}, units=[UNIT]), host.store)
    assert host.commands() == [f"reload-or-restart {UNIT}"]


# --- failures --------------------------------------------------------------------------------------------------------


def test_refused_by_the_checker(host: Host, service: ServiceMaker) -> None:
    running(host, service)
    before = host.tree()
    check = host.program("check", f"grep -q bad {host.path('web.conf')} && echo line 1 is bad && exit 1 || exit 0")
    bad = service({"web.conf": "bad", "more/x.conf": "x"}, units=[UNIT], validate=[check])
    with pytest.raises(TransactionError) as caught:
        converge(bad, host.store)
    assert "line 1 is bad" in str(caught.value)
    assert "The former configuration is back and in force." in str(caught.value)
    assert host.tree() == before
    assert host.commands() == [], "the service never saw the bad files"
    assert not converge(service({"web.conf": "old"}, units=[UNIT]), host.store).changed


def test_fails_its_probe(host: Host, service: ServiceMaker) -> None:
    running(host, service)
    before = host.tree()
    probe = Probe(exec=host.program("probe", f"grep -q old {host.path('web.conf')} || {{ echo no; exit 1; }}"))
    with pytest.raises(TransactionError, match="does not answer as it should"):
        converge(service({"web.conf": "new"}, units=[UNIT], probes=[probe], probe_timeout=0.2), host.store)
    assert host.tree() == before
    assert host.commands() == [f"reload-or-restart {UNIT}", "daemon-reload", f"reload-or-restart {UNIT}"]
    assert not converge(service({"web.conf": "old"}, units=[UNIT], probes=[probe]), host.store).changed


def test_unit_that_does_not_take_it(host: Host, service: ServiceMaker) -> None:
    running(host, service)
    before = host.tree()
    refuse = f"if grep -q new {host.path('web.conf')}; then rm -f {host.bin}/units/{UNIT}.active; exit 1; fi"
    with pytest.raises(TransactionError, match="failed"):
        converge(service({"web.conf": "new"}, units=[UNIT], apply=[host.program("load", refuse)]), host.store)
    assert host.tree() == before
    assert host.is_("active", UNIT), "it was running before, so it runs again"
    assert f"restart {UNIT}" in host.commands()


def test_unit_that_stops_by_itself_afterwards(host: Host, service: ServiceMaker) -> None:
    running(host, service)
    die = Probe(exec=host.program("die", f"rm -f {host.bin}/units/{UNIT}.active"))
    with pytest.raises(TransactionError, match=r"web\.service is not running"):
        converge(service({"web.conf": "new"}, units=[UNIT], probes=[die]), host.store)
    assert host.is_("active", UNIT)


def test_a_unit_that_was_started_too_often_comes_back(host: Host, service: ServiceMaker) -> None:
    running(host, service)
    probe = host.program(
        "probe", f'rm -f "{host.bin}/units/{UNIT}.active"; touch "{host.bin}/units/{UNIT}.limited"; exit 1'
    )
    with pytest.raises(TransactionError, match="The former configuration is back and in force"):
        converge(service({"web.conf": "new"}, units=[UNIT], probes=[Probe(exec=probe)], probe_timeout=0), host.store)
    assert host.is_("active", UNIT)


def test_failed_first_install_leaves_nothing(host: Host, service: ServiceMaker) -> None:
    unit_file = host.bin / "units" / UNIT
    me, us = str(os.geteuid()), str(os.getegid())
    files = [File(str(unit_file), b"[Service]", me, us), File(str(host.path("deep/web.conf")), b"x", me, us)]
    probe = Probe(exec=host.program("probe", "exit 1"))
    with pytest.raises(TransactionError):
        converge(service(raw=files, units=[UNIT], probes=[probe], probe_timeout=0), host.store)
    assert host.tree() == {}
    assert not unit_file.exists()
    assert not host.is_("active", UNIT)
    assert not host.is_("enabled", UNIT)


def test_unit_that_was_stopped_and_disabled_is_so_again(host: Host, service: ServiceMaker) -> None:
    host.unit(UNIT)
    probe = Probe(exec=host.program("probe", "exit 1"))
    with pytest.raises(TransactionError):
        converge(service({"web.conf": "x"}, units=[UNIT], probes=[probe], probe_timeout=0), host.store)
    assert not host.is_("active", UNIT)
    assert not host.is_("enabled", UNIT)


def test_what_could_not_be_undone_is_said(host: Host, service: ServiceMaker) -> None:
    running(host, service)
    host.fail(f"reload-or-restart {UNIT}")
    with pytest.raises(TransactionError, match="not all of the service: `systemctl reload-or-restart"):
        converge(service({"web.conf": "new"}, units=[UNIT]), host.store)
    assert host.path("web.conf").read_text() == "old"
    host.fail()
    host.commands()
    converge(service({"web.conf": "old"}, units=[UNIT]), host.store)
    assert host.commands() == [f"reload-or-restart {UNIT}"], "nobody knows what it runs with, so it is told again"


@pytest.mark.parametrize("room_for", [0, 1])
def test_full_disk_touches_nothing(
    host: Host, service: ServiceMaker, monkeypatch: pytest.MonkeyPatch, room_for: int
) -> None:
    """With room for the journal and some of the new files; there is none for writing the old ones again either."""
    running(host, service)
    before = host.tree()
    stage, room = journal._stage, iter(range(room_for))

    def full(entry: journal.Entry) -> None:
        if str(host.root) in entry.path and next(room, None) is None:
            raise OSError(28, "No space left on device")
        stage(entry)

    monkeypatch.setattr(journal, "_stage", full)
    with pytest.raises(TransactionError, match=r"No space left.*former configuration is back"):
        converge(service({"web.conf": "new", "second.conf": "x"}, units=[UNIT]), host.store)
    assert host.tree() == before


@pytest.mark.parametrize("full", ["web.journal", "journal.py"])
def test_no_room_for_the_journal(host: Host, service: ServiceMaker, monkeypatch: pytest.MonkeyPatch, full: str) -> None:
    before = host.tree()
    stage = journal._stage

    def failing(entry: journal.Entry) -> None:
        if entry.path.endswith(full):
            raise OSError(28, "No space left on device")
        stage(entry)

    monkeypatch.setattr(journal, "_stage", failing)
    with pytest.raises(TransactionError, match=r"No space left on device\. Nothing was changed"):
        converge(service({"web.conf": "new"}), host.store)
    assert host.tree() == before
    assert host.store.pending() is None


def test_no_room_for_the_record(host: Host, service: ServiceMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service runs with the new files already, and still nothing half done stays."""
    running(host, service)
    before = host.tree()

    def full(_store: journal.Store, _files: dict[str, str]) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(journal.Store, "record", full)
        with pytest.raises(TransactionError, match=r"No space left.*former configuration is back"):
            converge(service({"web.conf": "new"}, units=[UNIT]), host.store)
    assert host.tree() == before
    assert host.store.pending() is None
    assert host.commands() == [f"reload-or-restart {UNIT}", "daemon-reload", f"reload-or-restart {UNIT}"]
    converge(service({"web.conf": "old"}, units=[UNIT]), host.store)
    assert host.store.pending() is None


def test_unknown_owner_is_refused_before_anything_is_touched(host: Host, service: ServiceMaker) -> None:
    file = File(str(host.path("x")), b"x", "no-such-user", "no-such-group")
    assert converge(service(raw=[file]), host.store, check=True).changed
    with pytest.raises(TransactionError, match=r"does not know the owner or group wanted for .*/x"):
        converge(service(raw=[file]), host.store)
    assert host.tree() == {}


@pytest.mark.parametrize("wanted", ["file", "directory"])
def test_a_directory_is_never_swapped_for_a_file(host: Host, service: ServiceMaker, wanted: str) -> None:
    if wanted == "file":
        host.write("x/inside", "kept")
        bad = service({"x": "text"})
    else:
        host.write("x", "kept")
        bad = service(prune=["x"])
    before = host.tree()
    with pytest.raises(TransactionError, match="move it away first"):
        converge(bad, host.store)
    assert host.tree() == before


def test_a_socket_in_the_way_is_left_alone(host: Host, service: ServiceMaker) -> None:
    os.mkfifo(host.path("web.conf"))
    with pytest.raises(TransactionError, match="left alone"):
        converge(service({"web.conf": "x"}), host.store)


def test_silent_systemd_is_an_error_before_anything_is_touched(host: Host, service: ServiceMaker) -> None:
    (host.bin / "mute").touch()
    with pytest.raises(TransactionError, match="systemd does not answer"):
        converge(service({"web.conf": "x"}, units=[UNIT]), host.store)
    assert host.tree() == {}


# --- killed runs -----------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for SIGKILL: no handler of the engine may catch it."""


STEPS = ["make_so", "run", "must", "wait_for"]


def killed_in_its_probe(wanted: transaction.Service, store: journal.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a transaction that is killed when everything is active and nothing is committed."""

    def killed(*_args: object) -> list[str]:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(transaction, "wait_for", killed)
        with pytest.raises(Killed):
            converge(wanted, store)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_any_step_is_healed_by_the_next_run(
    host: Host, service: ServiceMaker, monkeypatch: pytest.MonkeyPatch, step: str, when: str
) -> None:
    running(host, service)
    check = host.program("check", "exit 0")
    wanted = service({"web.conf": "new", "b.conf": "x"}, units=[UNIT], validate=[check])
    real = getattr(transaction, step)

    def killed(*args: object) -> object:
        if step == "make_so" and not host.store.journal_path.exists():
            return real(*args)  # the healer's own files
        if when == "after":
            real(*args)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(transaction, step, killed)
        with pytest.raises(Killed):
            converge(wanted, host.store)
    assert host.store.pending() is not None
    host.commands()
    assert converge(wanted, host.store, check=True).healed
    outcome = converge(wanted, host.store)
    assert outcome.healed
    assert host.path("web.conf").read_text() == "new"
    assert f"reload-or-restart {UNIT}" in host.commands()
    assert host.store.pending() is None
    assert not converge(wanted, host.store).changed


def test_killed_then_the_settings_are_taken_back(
    host: Host, service: ServiceMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    running(host, service)
    before = host.tree()
    killed_in_its_probe(service({"web.conf": "new", "b.conf": "x"}, units=[UNIT]), host.store, monkeypatch)
    host.commands()
    converge(service({"web.conf": "old"}, units=[UNIT]), host.store)
    assert host.tree() == before
    assert f"reload-or-restart {UNIT}" in host.commands(), "the killed run had activated the other files"


def test_killed_between_the_record_and_the_end_of_the_journal(
    host: Host, service: ServiceMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record is there, and yet it is the change's own: the service runs with the files that are taken back."""
    running(host, service)
    before = host.tree()

    def killed(_store: journal.Store) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(journal.Store, "close", killed)
        with pytest.raises(Killed):
            converge(service({"web.conf": "new"}, units=[UNIT]), host.store)
    host.commands()
    assert main(["restore", "web", "--state", str(host.store.state)]) == 0
    assert host.tree() == before
    assert f"reload-or-restart {UNIT}" in host.commands()


def test_what_was_changed_by_hand_and_is_refused_does_not_reach_the_service(host: Host, service: ServiceMaker) -> None:
    """The record is that of the wanted files, for they were in force once, but this change has activated nothing."""
    running(host, service)
    host.write("web.conf", "changed by hand")
    before = host.tree()
    with pytest.raises(TransactionError, match="refuses the new configuration"):
        converge(service({"web.conf": "old"}, units=[UNIT], validate=[["false"]]), host.store)
    assert host.tree() == before
    assert host.commands() == []


def test_what_a_kill_left_half_staged_goes(host: Host, service: ServiceMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    running(host, service)
    before = host.tree()

    def killed(entry: journal.Entry) -> None:
        Path(journal.staged_name(entry.path)).write_text("half")
        raise Killed

    wanted = service({"web.conf": "new"}, units=[UNIT])
    with monkeypatch.context() as patched:
        patched.setattr(journal, "_stage", killed)
        patched.setattr(journal, "discard_staged", lambda _paths: None)
        patched.setattr(transaction, "install_healer", lambda _state: None)
        patched.setattr(journal.Store, "open", opened_without_staging)
        with pytest.raises(Killed):
            converge(wanted, host.store)
    assert host.path(".web.conf.fushuma-new").exists()
    assert main(["restore", "web", "--state", str(host.store.state)]) == 0
    assert host.tree() == before


def opened_without_staging(store: journal.Store, before: journal.Before) -> None:
    """`Store.open` as it is, but by a plain write, for the test above has taken `_stage` away."""
    entries = [{**vars(entry), "data": ""} for entry in before.entries]
    entries[0]["data"] = "b2xk"  # "old"
    store.journal_path.write_text(json.dumps({**vars(before), "entries": entries, "units": []}))


def test_a_heal_that_stumbles_does_not_stop_the_run(
    host: Host, service: ServiceMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    running(host, service)
    wanted = service({"web.conf": "new"}, units=[UNIT])
    killed_in_its_probe(wanted, host.store, monkeypatch)
    host.fail("daemon-reload")
    assert converge(wanted, host.store).healed
    assert host.path("web.conf").read_text() == "new"
    assert host.store.activated() is not None


# --- restored by the host itself -------------------------------------------------------------------------------------


def test_boot_puts_files_back_and_leaves_the_units_alone(
    host: Host, service: ServiceMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    running(host, service)
    before = host.tree()
    killed_in_its_probe(service({"web.conf": "new"}, units=[UNIT]), host.store, monkeypatch)
    host.commands()
    assert main(["restore", "--boot", "--state", str(host.store.state)]) == 0
    assert host.tree() == before
    assert host.commands() == []
    assert host.store.pending() is None
    assert host.store.activated() is None


def test_restore_without_a_journal_does_nothing(host: Host, service: ServiceMaker) -> None:
    running(host, service)
    before = host.tree()
    assert main(["restore", "web", "--state", str(host.store.state)]) == 0
    assert host.tree() == before
    assert host.commands() == []


def test_the_healer_is_whole_and_works_by_itself(host: Host, service: ServiceMaker) -> None:
    running(host, service)
    script = host.store.state / "journal.py"
    done = journal.run(["python3", "-I", str(script), "restore", "web", "--state", str(host.store.state)])
    assert (done.code, done.output) == (0, "")
    wants = transaction.SYSTEMD / "sysinit.target.wants" / "fushuma-production-heal.service"
    assert f"{host.store.state}/journal.py restore --boot" in wants.resolve().read_text()


# --- commit confirmed ------------------------------------------------------------------------------------------------


def armed(host: Host) -> str:
    log = host.bin / "armed"
    return log.read_text() if log.exists() else ""


@pytest.fixture
def timer(host: Host) -> None:
    host.program("systemd-run", f'echo "$@" > {host.bin}/armed')


@pytest.mark.usefixtures("timer")
def test_change_waits_for_its_confirmation(host: Host, service: ServiceMaker) -> None:
    running(host, service)
    outcome = converge(service({"web.conf": "new"}, units=[UNIT], confirm_within=30), host.store)
    assert outcome.pending
    assert "--on-active=30" in armed(host)
    assert f"{host.store.state}/journal.py restore web" in armed(host)
    host.commands()
    confirm(host.store)
    assert host.commands() == ["stop fushuma-production-revert-web.timer fushuma-production-revert-web.service"]
    assert not converge(service({"web.conf": "new"}, units=[UNIT], confirm_within=30), host.store).changed


@pytest.mark.usefixtures("timer")
def test_unconfirmed_change_goes_back(host: Host, service: ServiceMaker) -> None:
    running(host, service)
    before = host.tree()
    converge(service({"web.conf": "new"}, units=[UNIT], confirm_within=30), host.store)
    assert main(["restore", "web", "--state", str(host.store.state)]) == 0
    assert host.tree() == before
    with pytest.raises(TransactionError, match="nothing to confirm"):
        confirm(host.store)
    host.commands()
    assert not converge(service({"web.conf": "old"}, units=[UNIT]), host.store).changed


@pytest.mark.usefixtures("timer")
def test_next_run_does_not_wait_for_the_timer(host: Host, service: ServiceMaker) -> None:
    running(host, service)
    converge(service({"web.conf": "new"}, units=[UNIT], confirm_within=30), host.store)
    host.commands()
    outcome = converge(service({"web.conf": "old"}, units=[UNIT], confirm_within=30), host.store)
    assert outcome.healed
    assert "stop fushuma-production-revert-web.timer fushuma-production-revert-web.service" in host.commands()


def test_a_timer_that_was_left_is_not_in_the_way(host: Host, service: ServiceMaker) -> None:
    """A run that was killed between putting back and stopping the timer leaves it, and systemd takes no second one."""
    running(host, service)
    timer = "fushuma-production-revert-web.timer"
    host.unit(timer, active=True)
    host.program("systemd-run", f"if [ -e {host.bin}/units/{timer}.active ]; then echo already loaded; exit 1; fi")
    assert converge(service({"web.conf": "new"}, units=[UNIT], confirm_within=30), host.store).pending


def test_without_a_timer_nothing_is_activated(host: Host, service: ServiceMaker) -> None:
    running(host, service)
    before = host.tree()
    host.program("systemd-run", "echo no manager; exit 1")
    with pytest.raises(TransactionError, match="no manager"):
        converge(service({"web.conf": "new"}, units=[UNIT], confirm_within=30), host.store)
    assert host.tree() == before
    assert f"reload-or-restart {UNIT}" not in host.commands()[:1]


# --- check mode, diffs, secrets --------------------------------------------------------------------------------------


def test_check_mode_on_a_virgin_host(host: Host, service: ServiceMaker) -> None:
    outcome = converge(service({"etc/web/web.conf": "x"}, units=[UNIT], prune=["etc/web/d"]), host.store, check=True)
    assert outcome.changed
    assert outcome.commands == [["systemctl", "enable", UNIT], ["systemctl", "start", UNIT]]
    assert host.tree() == {}
    assert not host.store.state.exists()
    assert host.commands() == []


def test_check_mode_agrees_with_the_run(host: Host, service: ServiceMaker) -> None:
    running(host, service)
    wanted = service({"web.conf": "new", "x/y.conf": "1"}, units=[UNIT])
    foreseen = converge(wanted, host.store, check=True)
    assert converge(wanted, host.store) == foreseen
    assert not converge(wanted, host.store, check=True).changed


def test_diff_shows_text_modes_and_commands(host: Host, service: ServiceMaker) -> None:
    running(host, service)
    shown = diffs(converge(service({"web.conf": "new"}, units=[UNIT]), host.store, check=True))
    me, us = os.geteuid(), os.getegid()
    assert shown == [
        {
            "before_header": f"{host.path('web.conf')} (file, {me}:{us}, 0644)",
            "after_header": f"{host.path('web.conf')} (file, {me}:{us}, 0644)",
            "before": "old",
            "after": "new",
        },
        {"prepared": f"systemctl reload-or-restart {UNIT}\n"},
    ]


def test_diff_hides_secrets_and_what_others_may_not_read(host: Host, service: ServiceMaker) -> None:
    me, us = str(os.geteuid()), str(os.getegid())
    host.write("users.acl", "old-secret-word", 0o640)
    host.write("pruned/key.pem", "private-key", 0o600)
    host.write("blob", "").write_bytes(b"\xff\xfe")
    files = [
        File(str(host.path("env")), b"declared-secret", me, us, sensitive=True),
        File(str(host.path("users.acl")), b"new-secret-word", me, us, 0o640),
        File(str(host.path("blob")), b"\xff\xff\xff", me, us),
    ]
    wanted = transaction.Service("web", files, [Directory(str(host.path("pruned")), me, us, prune=True)])
    shown = json.dumps(diffs(converge(wanted, host.store, check=True)))
    assert "secret-word" not in shown
    assert "declared" not in shown
    assert "private-key" not in shown
    assert "(secret, another one than before)" in shown
    assert "(binary, 3 bytes)" in shown


def test_diff_names_the_undoing(host: Host, service: ServiceMaker) -> None:
    outcome = transaction.Outcome(healed=True)
    assert outcome.changed
    assert diffs(outcome) == [{"prepared": "a change that was cut short is undone first\n"}]


def test_a_checker_that_quotes_a_secret_is_not_repeated(host: Host, service: ServiceMaker) -> None:
    secret = File(str(host.path("acl")), b"user app on >hunter2-hunter2 ~*", "0", "0", 0o600)
    public = File(str(host.path("conf")), b"unknown_directive", "0", "0")
    text = 'line 1: bad ">hunter2-hunter2" near unknown_directive'
    assert scrub(text, [secret, public, File("/gone")]) == 'line 1: bad ">********" near unknown_directive'


# --- programs --------------------------------------------------------------------------------------------------------


def test_program_that_is_missing_or_stuck(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    assert journal.run(["/no/such/program"]).code == 127
    monkeypatch.setattr(journal, "COMMAND_TIMEOUT", 0.1)
    stuck = journal.run(["sleep", "5"])
    assert (stuck.code, stuck.output) == (124, "sleep did not end within 0.1 s")


def test_owners_by_number_and_name() -> None:
    assert journal.user_id("root") == journal.user_id("0") == 0
    assert journal.group_id("root") == journal.group_id("0") == 0
    assert journal.user_id("no-such-user") is journal.group_id("no-such-group") is None


# --- judges, what is added on the host, and units that make way -------------------------------------------------------


def test_judges_see_what_is_planned_and_can_refuse_it(host: Host, service: ServiceMaker) -> None:
    seen: list[dict[str, bytes]] = []

    def judge(planned: Mapping[str, Entry]) -> str:
        seen.append({path: entry.data for path, entry in planned.items()})
        return "It would shut you out." if planned else ""

    for check in (True, False):
        with pytest.raises(TransactionError, match=r"web: It would shut you out\. Nothing was changed\."):
            converge(service({"web.conf": "new"}, judges=[judge]), host.store, check=check)
    assert seen == [{str(host.path("web.conf")): b"new"}] * 2
    assert host.tree() == {}
    host.write("web.conf", "new")
    converge(service({"web.conf": "new"}, judges=[judge]), host.store)
    assert seen[2:] == [{}], "it is asked where nothing is planned too"


def test_judges_are_not_asked_in_a_dry_run_where_the_package_is_missing(
    host: Host, service: ServiceMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "missing", lambda names: list(names))
    outcome = converge(service({"a": "b"}, packages=["web"], judges=[lambda _planned: "no"]), host.store, check=True)
    assert outcome.packages == ["web"]


def test_what_only_the_host_knows_is_added_when_it_is_healed(host: Host, service: ServiceMaker) -> None:
    running(host, service)
    with host.store.locked():
        host.store.open(journal.Before([journal.snapshot(str(host.path("web.conf")))]))
    host.write("web.conf", "half done")

    def complete(wanted: Service) -> Service:
        assert host.path("web.conf").read_text() == "old"
        return replace(wanted, files=[*wanted.files, replace(wanted.files[0], dest=str(host.path("more")))])

    converge(service({"web.conf": "old"}, units=[UNIT]), host.store, complete=complete)
    assert host.path("more").read_text() == "old"
    assert converge(service({}), host.store, check=True, complete=lambda one: replace(one, files=())).changes == []


SOCKET = "web.socket"


def test_a_unit_makes_way(host: Host, service: ServiceMaker) -> None:
    host.unit(UNIT, active=True)
    host.unit(SOCKET, active=True, enabled=True)
    wanted = service({"web.conf": "text"}, units=[UNIT], replaces=[SOCKET])
    converge(wanted, host.store)
    # Stopped before it is enabled: that gives it its other names.
    made = [f"stop {SOCKET}", f"stop {UNIT}", f"enable {UNIT}", f"disable {SOCKET}", f"start {UNIT}"]
    assert host.commands() == made
    assert not converge(wanted, host.store).changed
    # It came back, and the service runs on files it has taken up.
    host.unit(SOCKET, active=True)
    converge(wanted, host.store)
    assert host.commands() == [f"stop {SOCKET}", f"restart {UNIT}"]


def test_a_unit_that_made_way_comes_back_where_the_change_fails(host: Host, service: ServiceMaker) -> None:
    host.unit(UNIT, active=True)
    host.unit(SOCKET, active=True, enabled=True)
    wrong = service(
        {"web.conf": "text"}, units=[UNIT], replaces=[SOCKET], probes=[Probe(exec=["false"])], probe_timeout=0
    )
    with pytest.raises(TransactionError, match="The former configuration is back and in force"):
        converge(wrong, host.store)
    undone = host.commands()[5:]
    assert undone == [
        "daemon-reload",
        f"stop {UNIT}",
        f"enable {SOCKET}",
        f"disable {UNIT}",
        f"start {SOCKET}",
        f"restart {UNIT}",
    ]
    assert host.is_("active", SOCKET)
    assert host.is_("enabled", SOCKET)
    assert not host.is_("enabled", UNIT)


def test_a_unit_that_has_not_made_way_yet_is_left_alone(host: Host, service: ServiceMaker) -> None:
    host.unit(UNIT, active=True)
    host.unit(SOCKET, active=True, enabled=True)
    host.fail(f"stop {SOCKET}")
    with pytest.raises(TransactionError, match="refused"):
        converge(service({"web.conf": "text"}, units=[UNIT], replaces=[SOCKET]), host.store)
    assert f"stop {UNIT}" not in host.commands()
    assert host.is_("active", SOCKET)


def test_a_journal_of_a_former_release_is_read(host: Host) -> None:
    with host.store.locked():
        host.store.open(journal.Before([]))
        document = json.loads(host.store.journal_path.read_text())
        del document["replaced"]
        host.store.journal_path.write_text(json.dumps(document))
    pending = host.store.pending()
    assert pending is not None
    assert pending.replaced == []


def test_what_is_closed_to_others_and_public_is_shown(host: Host, service: ServiceMaker) -> None:
    me, us = str(os.geteuid()), str(os.getegid())
    file = File(str(host.path("a")), b"for everybody", me, us, 0o600, public=True)
    assert "for everybody" in str(diffs(converge(service(raw=[file]), host.store)))
    assert scrub("for everybody", [file]) == "for everybody"
    hidden = replace(file, content=b"hidden now", sensitive=True)
    assert "hidden" not in str(diffs(converge(service(raw=[hidden]), host.store)))
