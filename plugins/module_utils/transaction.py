# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One service, one transaction: write all its files, have them judged, activate, probe; commit or put everything back.

Packages that are missing are installed before, and stay whatever happens.

`converge` is the whole of it, in order. What it must be able to undo, and the undoing itself, live in `journal`.
"""

from __future__ import annotations

import inspect
import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ansible_collections.fushuma.production.plugins.module_utils import journal, merging, packages
from ansible_collections.fushuma.production.plugins.module_utils.journal import (
    VERBS,
    Before,
    Entry,
    Store,
    TransactionError,
    Unit,
    attributes_of,
    group_id,
    make_so,
    must,
    run,
    snapshot,
    units,
    user_id,
)
from ansible_collections.fushuma.production.plugins.module_utils.probe import Probe, wait_for

UNKNOWN_ID = -1
WORLD_READABLE = 0o004
SYSTEMD = Path("/etc/systemd/system")

HEAL_UNIT = """\
[Unit]
Description=Put back configuration changes that were cut short
Documentation=https://github.com/fushuma/fushuma.production
DefaultDependencies=no
RequiresMountsFor={state}
ConditionPathExistsGlob={state}/*.journal
After=local-fs.target
Before=sysinit.target

[Service]
Type=oneshot
ExecStart=/usr/bin/python3 {state}/journal.py restore --boot

[Install]
WantedBy=sysinit.target
"""


@dataclass(frozen=True)
class File:
    """A file as it shall be; ``content`` None means it shall not exist.

    A file with an ``apply`` (commands, each an argv) comes into force by that and leaves the units alone; one whose
    ``on_change`` is ``nothing`` is read by itself whenever it is needed. ``undo`` takes back what ``apply`` did, where
    running ``apply`` on the former file would not. ``retire`` runs before the file goes, while it can still be read.
    ``in_force`` (an argv) ends with 0 where the file's words hold; where they do not any more, ``apply`` runs again.
    What others on the host may not read is secret, unless it is said to be ``public``; ``sensitive`` always is.

    With ``merge_json`` the content is a JSON object whose keys are merged into the file that the host has, so deep
    (see `merging`); keys that were brought before and are not now go again, all of them where ``content`` is None. What
    differs only in ``reload_keys`` from what was activated needs no more than a reload.
    """

    dest: str
    content: bytes | None = None
    owner: str = "root"
    group: str = "root"
    mode: int = 0o644
    on_change: str | None = None
    sensitive: bool = False
    public: bool = False
    apply: Sequence[Sequence[str]] = ()
    undo: Sequence[Sequence[str]] = ()
    retire: Sequence[Sequence[str]] = ()
    merge_json: int = 0
    reload_keys: Sequence[str] = ()
    in_force: Sequence[str] = ()

    @property
    def secret(self) -> bool:
        return self.sensitive or not (self.public or self.mode & WORLD_READABLE)


@dataclass(frozen=True)
class Attributes:
    """Owner and mode of a path that others bring; one that is not there is passed over."""

    path: str
    owner: str = "root"
    group: str = "root"
    mode: int = 0o644


@dataclass(frozen=True)
class Directory:
    """A directory as it shall be; with ``prune``, whatever the transaction does not bring is removed from it."""

    path: str
    owner: str = "root"
    group: str = "root"
    mode: int = 0o755
    prune: bool = False


# Says what would go wrong with the service, "" for nothing. The entries are what does not stand on the disk yet.
Judge = Callable[[Mapping[str, Entry]], str]


@dataclass(frozen=True)
class Service:
    """All that makes one service: its packages and files, who judges them, and what it is to do.

    ``units`` take up its files; those of ``idle`` shall neither run nor start, where the host has them. ``replaces``
    names units that do the same work in another way: they are stopped and disabled before the service's own ones start.
    ``judges`` are asked before anything is written; ``validate`` is run when the files are in place. ``unwanted``
    packages shall not be there.
    """

    name: str
    files: Sequence[File] = ()
    directories: Sequence[Directory] = ()
    packages: Sequence[str] = ()
    unwanted: Sequence[str] = ()
    attributes: Sequence[Attributes] = ()
    units: Sequence[str] = ()
    idle: Sequence[str] = ()
    replaces: Sequence[str] = ()
    conflicts: Sequence[str] = ()
    reads: Sequence[str] = ()
    judges: Sequence[Judge] = ()
    validate: Sequence[Sequence[str]] = ()
    apply: Sequence[Sequence[str]] = ()
    on_change: str = "reload"
    enabled: bool = True
    running: bool = True
    probes: Sequence[Probe] = ()
    probe_timeout: float = 10
    confirm_within: int = 0


@dataclass(frozen=True)
class Change:
    """A path that does not stand as it shall."""

    before: Entry
    after: Entry
    secret: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a transaction did, or in check mode would do."""

    packages: Sequence[str] = ()
    removed: Sequence[str] = ()
    changes: Sequence[Change] = ()
    commands: Sequence[Sequence[str]] = ()
    healed: bool = False
    pending: bool = False

    @property
    def changed(self) -> bool:
        return bool(self.packages or self.removed or self.changes or self.commands or self.healed)


def _as_it_is(service: Service) -> Service:
    return service


def converge(
    service: Service, store: Store, *, check: bool = False, complete: Callable[[Service], Service] = _as_it_is
) -> Outcome:
    """Bring the service to what is wanted, or raise TransactionError with everything as it was before.

    ``complete`` adds what follows from the host itself. It is called when nothing half done and, except in check mode,
    no package is missing there any more.
    """
    _refuse_conflicts(service)
    missing = packages.missing(service.packages)
    gone = packages.missing(service.unwanted)
    unwanted = [name for name in service.unwanted if name not in gone]
    if check:
        service = _with_merges(complete(service), store)
        outcome = _plan(service, store, missing, unwanted, healed=store.pending() is not None)
        if not missing:
            _ask_judges(service, outcome)
        return outcome
    with store.locked():
        healed = _heal(store)
        _with_merges(service, store)  # what cannot be merged is refused before a package comes
        if missing:
            packages.install(missing, [*service.units, *service.replaces])
        if unwanted:
            packages.remove(unwanted)
        service = _with_merges(complete(service), store)
        outcome = _plan(service, store, missing, unwanted, healed=healed)
        _ask_judges(service, outcome)
        if not (outcome.changes or outcome.commands):
            return outcome
        _refuse_unknown_owners(outcome.changes)
        digests = _digests(service)
        _open(service, store, outcome, digests)
        try:
            _carry_out(service, store, outcome)
            if not service.confirm_within:
                store.record(digests)
        except (TransactionError, OSError) as error:
            raise _undone(service, store, str(error)) from error
        if service.confirm_within:
            return replace(outcome, pending=True)
        store.close()
        return outcome


def confirm(store: Store) -> None:
    """Keep a change that waits for its confirmation."""
    with store.locked():
        before = store.pending()
        if before is None:
            raise TransactionError(
                f"{store.name}: there is nothing to confirm; the host has put the former configuration back by itself"
            )
        _disarm(store.name)
        store.record(before.wanted)
        store.close()


# --- what is wanted, against what stands there -----------------------------------------------------------------------


def wanted_entries(service: Service) -> list[Entry]:
    """Every path the service owns, as it shall stand. An owner the host does not know has the id UNKNOWN_ID."""
    entries = [Entry(d.path, "directory", b"", d.mode, *_ids(d)) for d in service.directories]
    for file in service.files:
        if file.content is None:
            entries.append(Entry(file.dest))
        else:
            entries.append(Entry(file.dest, "file", file.content, file.mode, *_ids(file)))
    return entries


def _wanted_attributes(wanted: Attributes) -> Entry:
    return Entry(wanted.path, "attributes", b"", wanted.mode, *_ids(wanted))


def _ids(owned: File | Directory | Attributes) -> tuple[int, int]:
    uid, gid = user_id(owned.owner), group_id(owned.group)
    return (UNKNOWN_ID if uid is None else uid, UNKNOWN_ID if gid is None else gid)


def compare(service: Service) -> list[Change]:
    """The paths that do not stand as they shall, parents and pruned ones included."""
    own = {file.dest: file for file in service.files}
    changes = [
        Change(before, after)
        for before, after in ((attributes_of(one.path), _wanted_attributes(one)) for one in service.attributes)
        if before.kind == "attributes" and before != after
    ]
    for path, after in _all_paths(service).items():
        before = snapshot(path)
        if before == after:
            continue
        if _conflict(before, after) or (path in own and before.kind == "directory"):
            raise TransactionError(f"{path} is a {before.kind} where {_demand(after)} is wanted; move it away first")
        file = own.get(path, File(path))
        secret = file.sensitive or (not file.public and (_hidden(before) or _hidden(after)))
        changes.append(Change(before, after, secret))
    return changes


def _with_merges(service: Service, store: Store) -> Service:
    """The service with whole files in the place of those that are merged into the host's own.

    Which keys were brought stands in a file of the same transaction, so it is put back with all others.
    """
    if not any(file.merge_json for file in service.files):
        return service
    notes = store.state / f"{store.name}.keys"
    brought = json.loads(notes.read_text("utf-8")) if notes.exists() else {}
    activated, files = store.activated() or {}, []
    for file in service.files:
        if file.merge_json:
            wanted = _object_in(file.dest, file.content or b"", "wanted")
            files.append(_merged(file, wanted, brought.get(file.dest, []), activated.get(file.dest, "")))
            brought[file.dest] = sorted(merging.keys_of(wanted, file.merge_json))
        else:
            files.append(file)
    known = {path: keys for path, keys in sorted(brought.items()) if keys}
    noted = File(
        str(notes),
        json.dumps(known).encode() + b"\n" if known else None,
        owner=str(os.geteuid()),
        group=str(os.getegid()),
        mode=0o600,
        on_change="nothing",
        public=True,
    )
    return replace(service, files=[*files, noted])


def _merged(file: File, wanted: merging.Object, former: Sequence[Sequence[str]], activated: str) -> File:
    """The file with its whole content: the host's own bytes where they say all of it already."""
    there = snapshot(file.dest)
    if there.kind not in ("absent", "file"):
        raise TransactionError(f"{file.dest} is a {there.kind} where a file is wanted; move it away first")
    before = _object_in(file.dest, there.data, "present")
    whole = merging.merged(before, wanted, former, file.merge_json)
    if merging.same(before, whole):
        content = there.data if there.kind == "file" else None
    else:
        content = merging.written(whole) if whole else None
    reload = there.digest == activated and merging.differing(before, whole) <= set(file.reload_keys)
    return replace(file, content=content, merge_json=0, on_change="reload" if reload else file.on_change)


def _object_in(path: str, data: bytes, which: str) -> merging.Object:
    try:
        found = merging.parsed(data)
        merging.written(found)
    except ValueError as error:
        raise TransactionError(
            f"the {which} content of {path} is no JSON object, so nothing can be merged into it: {error}. "
            "Nothing was changed. Repair the file, or move it away."
        ) from error
    return found


def _all_paths(service: Service) -> dict[str, Entry]:
    """What the service owns, with the parents that are missing, and as absent whatever a pruned directory must lose."""
    wanted = {entry.path: entry for entry in wanted_entries(service)}
    kept = {parent for entry in wanted.values() if entry.kind != "absent" for parent in _parents(entry.path)}
    pruned = [path for directory in service.directories if directory.prune for path in _below(directory.path)]
    return {
        **{path: Entry(path) for path in pruned if path not in kept},
        **{path: Entry(path, "directory", b"", 0o755, 0, 0) for path in kept if not os.path.isdir(path)},
        **wanted,
    }


def _conflict(before: Entry, after: Entry) -> bool:
    kinds = {before.kind, after.kind}
    return len(kinds) == 2 and "directory" in kinds and "absent" not in kinds


def _demand(after: Entry) -> str:
    return "nothing" if after.kind == "absent" else f"a {after.kind}"


def _hidden(entry: Entry) -> bool:
    """What other users of the host may not read is not shown in a diff either."""
    return entry.kind == "file" and not entry.mode & WORLD_READABLE


def _parents(path: str) -> list[str]:
    return [str(parent) for parent in Path(path).parents if parent != Path("/")]


def _below(folder: str) -> Iterable[str]:
    for here, folders, files in os.walk(folder):
        yield from (os.path.join(here, name) for name in folders + files)


# --- the plan --------------------------------------------------------------------------------------------------------


def _ask_judges(service: Service, outcome: Outcome) -> None:
    planned = {change.after.path: change.after for change in outcome.changes}
    wrong = [text for text in (judge(planned) for judge in service.judges) if text]
    if wrong:
        raise TransactionError(f"{service.name}: {' '.join(wrong)} Nothing was changed.")


def _plan(service: Service, store: Store, missing: Sequence[str], unwanted: Sequence[str], *, healed: bool) -> Outcome:
    changes, found = compare(service), units([*service.units, *service.idle, *service.replaces])
    commands = _commands(service, store.activated() or {}, changes, found)
    if not (missing or changes or commands) and service.running and wait_for(service.probes, service.probe_timeout):
        # The files are right and were taken up, and yet it does not answer: whatever happened, it takes them up again.
        commands = _commands(service, {}, changes, found)
    return Outcome(missing, unwanted, changes, commands, healed)


def _commands(
    service: Service, activated: dict[str, str], changes: Sequence[Change], found: Sequence[Unit]
) -> list[Sequence[str]]:
    """What has to run so that the service works with the files: it follows from the state and the record."""
    digests = _digests(service)
    changed = {change.after.path for change in changes if change.after.kind != "attributes"}
    outdated = changed | {path for path, digest in digests.items() if activated.get(path) != digest}
    # Somebody may have changed by hand what the file once brought into force.
    outdated |= {file.dest for file in _asked(service) if file.dest not in outdated and run(file.in_force).code}
    for_units = outdated - {file.dest for file in service.files if file.apply or file.on_change == "nothing"}
    # Parents that had to be made are nothing that a unit takes up.
    for_units -= {change.after.path for change in changes if change.after.kind == "directory"} - digests.keys()
    commands: list[Sequence[str]] = []
    if any(unit.stale for unit in found) or any(path.startswith(f"{SYSTEMD}/") for path in changed):
        commands.append(["systemctl", "daemon-reload"])
    for argv in (argv for file in service.files if file.dest in outdated for argv in file.apply):
        if argv not in commands:
            commands.append(argv)
    if not for_units:
        return commands + _unit_commands(service, found, set())
    demands = {file.on_change or service.on_change for file in service.files if file.dest in for_units}
    return [*commands, *service.apply, *_unit_commands(service, found, {service.on_change, *demands})]


def _asked(service: Service) -> list[File]:
    """The files that can be asked whether they are in force."""
    return [file for file in service.files if file.in_force and file.content is not None]


def _unit_commands(service: Service, found: Sequence[Unit], demands: Collection[str]) -> list[Sequence[str]]:
    """What the units have to do. ``demands`` are how what has changed wants to be taken up; empty where nothing has."""
    own, others = found[: len(service.units)], found[len(service.units) :]
    taken_over = any(unit.active and unit.name in service.replaces for unit in others)
    commands: list[Sequence[str]] = [["systemctl", "stop", unit.name] for unit in others if unit.active]
    # To be enabled gives a unit its other names (Alias=), and systemd 257 loses sight of one that runs meanwhile.
    stopped = [unit for unit in own if taken_over and unit.active and not unit.enabled]
    commands += [["systemctl", "stop", unit.name] for unit in stopped]
    if service.enabled:
        # Before others are disabled, so that a host which loses its power here boots with one of the two.
        commands += [["systemctl", "enable", unit.name] for unit in own if not unit.enabled]
    commands += [["systemctl", "disable", unit.name] for unit in others if unit.loaded and unit.enabled]
    verb = VERBS["restart" if taken_over or "restart" in demands else "reload"]
    for unit in own:
        if service.running and (not unit.active or unit in stopped):
            commands.append(["systemctl", "start", unit.name])
        elif service.running and (demands or taken_over):
            commands.append(["systemctl", verb, unit.name])
        elif not service.running and unit.active:
            commands.append(["systemctl", "stop", unit.name])
        if not service.enabled and unit.enabled and unit.loaded:
            commands.append(["systemctl", "disable", unit.name])
    return commands


def _digests(service: Service) -> dict[str, str]:
    """What the service works with once it is activated: its own files and those it only reads."""
    return {entry.path: entry.digest for entry in (*wanted_entries(service), *map(snapshot, service.reads))}


# --- carrying it out, and back ---------------------------------------------------------------------------------------


def _refuse_conflicts(service: Service) -> None:
    running = [unit.name for unit in units(service.conflicts) if unit.active]
    if running:
        raise TransactionError(
            f"{service.name}: {' and '.join(running)} runs on this host and would undo what {service.name} does. "
            f"Nothing was changed. If it can go, run `systemctl disable --now {' '.join(running)}` and repeat."
        )


def _refuse_unknown_owners(changes: Sequence[Change]) -> None:
    unknown = [change.after.path for change in changes if UNKNOWN_ID in (change.after.uid, change.after.gid)]
    if unknown:
        raise TransactionError(f"this host does not know the owner or group wanted for {', '.join(unknown)}")


def _open(service: Service, store: Store, outcome: Outcome, digests: dict[str, str]) -> None:
    """Write the journal, and leave on the host what reads it when nobody else does."""
    verbs = {argv[1] for argv in outcome.commands if argv[0] == "systemctl" and argv[-1] in service.units}
    before = Before(
        entries=[change.before for change in outcome.changes],
        units=[unit for unit in units([*service.units, *service.idle]) if unit.loaded or unit.name in service.units],
        retire=[list(argv) for argv in _retirement(service, outcome, comes=True)],
        apply=[list(argv) for argv in _reversal(service, outcome)],
        on_change=next((name for name in ("restart", "reload") if VERBS[name] in verbs), ""),
        activated=store.activated(),
        wanted=digests,
        armed=bool(service.confirm_within),
        replaced=units(service.replaces),
    )
    try:
        install_healer(store.state)
        store.open(before)
    except OSError as error:
        raise TransactionError(f"{service.name}: {error}. Nothing was changed.") from error


def _reversal(service: Service, outcome: Outcome) -> Iterable[Sequence[str]]:
    """What brings the former files into force again, besides the units; each once, however many files have it."""
    wanted = [file.undo or file.apply for file in service.files if any(one in outcome.commands for one in file.apply)]
    if any(argv in outcome.commands for argv in service.apply):
        wanted.append(service.apply)
    yield from {tuple(argv): argv for argvs in wanted for argv in argvs}.values()


def _retirement(service: Service, outcome: Outcome, *, comes: bool) -> Iterable[Sequence[str]]:
    """What has to run before files go: those that the change takes away or, where it is undone, those it brings."""
    kinds = {change.after.path: (change.before.kind, change.after.kind) for change in outcome.changes}
    wanted = ("absent", "file") if comes else ("file", "absent")
    for file in service.files:
        if kinds.get(file.dest) == wanted:
            yield from file.retire


def _carry_out(service: Service, store: Store, outcome: Outcome) -> None:
    for argv in _retirement(service, outcome, comes=False):
        store.forget()
        must(argv)
    make_so(change.after for change in outcome.changes)
    for argv in service.validate:
        judged = run(argv)
        if judged.code:
            raise TransactionError(f"`{' '.join(argv)}` refuses the new configuration: {judged.output}")
    store.forget()
    if service.confirm_within:
        _arm(store, service.confirm_within)
    for argv in outcome.commands:
        must(argv)
    asked = [Probe(exec=file.in_force) for file in _asked(service)]
    wrong = wait_for([*service.probes, *asked], service.probe_timeout)
    if service.running:
        wrong += [f"{unit.name} is not running" for unit in units(service.units) if not unit.active]
    if wrong:
        raise TransactionError("the service does not answer as it should: " + "; ".join(wrong))


def _undone(service: Service, store: Store, reason: str) -> TransactionError:
    complaints = store.restore()
    if service.confirm_within:
        _disarm(store.name)
    words = f"{service.name}: {reason}. "
    if complaints:
        words += "The former files are back, but not all of the service: " + "; ".join(complaints)
    else:
        words += "The former configuration is back and in force."
    return TransactionError(scrub(words, service.files))


def _heal(store: Store) -> bool:
    """Put back what a killed run left half done.

    A unit that does not come back by that is no reason to stop: the record is gone, so this run activates anyway.
    """
    before = store.pending()
    if before is None:
        return False
    store.restore()
    if before.armed:
        _disarm(store.name)
    return True


def _revert_unit(name: str) -> str:
    return f"fushuma-production-revert-{name}"


def _arm(store: Store, seconds: int) -> None:
    # A run that was killed at the end of an undoing has left its timer, and systemd takes no second one of that name.
    _disarm(store.name)
    must(
        [
            "systemd-run",
            f"--unit={_revert_unit(store.name)}",
            f"--on-active={seconds}",
            "--timer-property=AccuracySec=1s",
            "--collect",
            "/usr/bin/python3",
            f"{store.state}/journal.py",
            "restore",
            store.name,
        ]
    )


def _disarm(name: str) -> None:
    run(["systemctl", "stop", f"{_revert_unit(name)}.timer", f"{_revert_unit(name)}.service"])


def install_healer(state: Path, systemd: Path | None = None) -> None:
    """Leave on the host what restores a change after a lost connection or a power loss."""
    folder = systemd or SYSTEMD
    unit = "fushuma-production-heal.service"
    link = folder / "sysinit.target.wants" / unit
    wanted = [
        Entry(f"{state}/journal.py", "file", inspect.getsource(journal).encode(), 0o600, os.geteuid(), os.getegid()),
        Entry(f"{folder}/{unit}", "file", HEAL_UNIT.format(state=state).encode(), 0o644, os.geteuid(), os.getegid()),
        Entry(str(link), "link", f"{folder}/{unit}".encode()),
    ]
    link.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    make_so(entry for entry in wanted if snapshot(entry.path) != entry)


# --- what the operator sees ------------------------------------------------------------------------------------------


def scrub(text: str, files: Sequence[File]) -> str:
    """The text without the words of secret files: a checker may quote the line it stumbles over."""
    for file in files:
        if file.content is not None and file.secret:
            for word in re.findall(r"[^\s\"'=;,:<>{}()]{8,}", file.content.decode("utf-8", "replace")):
                text = text.replace(word, "********")
    return text


def diffs(outcome: Outcome) -> list[dict[str, str]]:
    """The changes in the form Ansible shows with ``--diff``; contents of secret files stay hidden."""
    shown = [
        {
            "before_header": _described(change.before),
            "after_header": _described(change.after),
            "before": _content(change.before, change.secret),
            "after": _content(change.after, change.secret),
        }
        for change in outcome.changes
    ]
    for one, change in zip(shown, outcome.changes, strict=True):
        if change.secret and change.before.data != change.after.data:
            one["after"] = one["after"] and "(secret, another one than before)\n"
        elif one["before"] == one["after"]:
            # Ansible shows headers only above lines that differ.
            one["before"], one["after"] = f"{one['before_header']}\n", f"{one['after_header']}\n"
    if outcome.packages or outcome.removed:
        gone, come = ("".join(f"{name}\n" for name in names) for names in (outcome.removed, outcome.packages))
        shown.insert(0, {"before_header": "packages", "after_header": "packages", "before": gone, "after": come})
    if outcome.healed:
        shown.insert(0, {"prepared": "a change that was cut short is undone first\n"})
    return shown + [{"prepared": " ".join(argv) + "\n"} for argv in outcome.commands]


def _described(entry: Entry) -> str:
    if entry.kind in ("file", "directory", "attributes"):
        return f"{entry.path} ({entry.kind}, {entry.uid}:{entry.gid}, {entry.mode:04o})"
    return f"{entry.path} ({entry.kind})"


def _content(entry: Entry, secret: bool) -> str:
    if entry.kind != "file":
        return os.fsdecode(entry.data) + "\n" if entry.data else ""
    if secret:
        return "(secret)\n"
    try:
        return entry.data.decode("utf-8")
    except UnicodeDecodeError:
        return f"(binary, {len(entry.data)} bytes)\n"
