# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Items of hardening, on the host: which of them it can take, and all of them as one transaction.

An item is a dict with a ``name``, ``on`` (whether it is wanted) and any of: ``packages``, ``unwanted`` (packages that
shall go), ``sysctl`` ({key: value}), ``files`` (as service_config takes them, with ``apply``, ``undo`` and ``retire``),
``edits`` ([{path, values, separator}]), ``attributes`` ([{path, owner, group, mode}]), ``without_suid`` (paths),
``homes`` (true), ``units``, ``idle``, ``validate`` (argv lists) and ``needs`` (see `hindrance`).

What a kernel or a container cannot take is found out by asking it, and reported with the reason.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.fushuma.production.plugins.module_utils.journal import snapshot
from ansible_collections.fushuma.production.plugins.module_utils.probe import Probe
from ansible_collections.fushuma.production.plugins.module_utils.transaction import Attributes, File, Service

Item = Mapping[str, Any]

SYSCTL_FILE = "/etc/sysctl.d/99-zz-hardening.conf"  # behind 99-sysctl.conf, the last of Debian's own
PROC_SYS = Path("/proc/sys")
# include/uapi/linux/capability.h
CAPABILITIES = {"sys_module": 16, "sys_pacct": 20, "sys_time": 25, "audit_control": 30}
FIRST_PERSON = 1000  # uid; Debian policy 9.2.2
PARTS = ("packages", "unwanted", "files", "edits", "attributes", "without_suid", "homes", "units", "idle")
MARK = b"role fushuma.production.hardening"  # stands in each file that goes with its item
REMEMBERED = "#~ "  # stands before the line that an edit has replaced


@dataclass(frozen=True)
class Report:
    """What became of one item: ``state`` is in force, not applicable or off, with what stood in the way."""

    name: str
    state: str
    reasons: list[str] = field(default_factory=list)


def service_of(items: Sequence[Item]) -> tuple[Service, list[Report]]:
    """All items as one transaction, and what can be said of each before it runs."""
    reports, taken = [], []
    values: dict[str, str] = {}
    for item in items:
        if not item["on"]:
            reports.append(Report(item["name"], "off"))
            continue
        why = hindrance(item.get("needs") or {})
        settable, reasons = ({}, [why]) if why else settable_keys(item.get("sysctl") or {})
        if why or (reasons and not settable and not any(item.get(part) for part in PARTS)):
            reports.append(Report(item["name"], "not applicable", reasons))
            continue
        reports.append(Report(item["name"], "in force", reasons))
        values |= settable
        taken.append(item)
    off = [item for item in items if item not in taken]
    service = Service(
        "hardening",
        files=[*_files(taken, off), *_edited(taken, off), *_sysctl_file(values)],
        packages=_all(taken, "packages"),
        unwanted=_all(taken, "unwanted"),
        attributes=[*_attributes(taken), *_without_suid(taken)],
        units=_all(taken, "units"),
        idle=_all(taken, "idle"),
        validate=_all(taken, "validate"),
        probes=_sysctl_probes(values),
        probe_timeout=0,
    )
    return service, reports


def as_result(reports: Iterable[Report]) -> list[dict[str, Any]]:
    return [asdict(report) for report in reports]


def _all(items: Sequence[Item], part: str) -> list[Any]:
    """One part of all items, each element once."""
    found: list[Any] = []
    for one in (one for item in items for one in item.get(part) or []):
        if one not in found:
            found.append(one)
    return found


# --- can the host take it? -------------------------------------------------------------------------------------------


def hindrance(needs: Mapping[str, Any]) -> str:
    """Why the host cannot take what has these needs; "" where it can.

    needs: ``paths`` that have to be there, ``none_of`` paths that must not, ``not_for`` what the host is to run and is
    hindered by it, ``mount`` a folder on which something is mounted, ``capability`` a name of CAPABILITIES; and
    ``why``, the reason in words.
    """
    lacking = [path for path in needs.get("paths") or [] if not os.path.exists(path)]
    if lacking:
        return f"{needs.get('why') or 'the host does not have it'} ({', '.join(lacking)} is not there)"
    there = [path for path in needs.get("none_of") or [] if os.path.exists(path)]
    if there:
        return f"{needs.get('why') or 'the host uses it'} ({', '.join(there)} is there)"
    if needs.get("not_for"):
        return f"{needs.get('why') or 'the host uses it'} ({', '.join(needs['not_for'])} is to run here)"
    mount = needs.get("mount")
    if mount and not os.path.ismount(mount):
        return f"{mount} is no file system of its own"
    capability = needs.get("capability")
    if capability and not has_capability(capability):
        return f"the kernel does not let this host do it (no CAP_{capability.upper()})"
    return ""


def has_capability(name: str, status: Path = Path("/proc/self/status")) -> bool:
    """Whether this process, run as root, may use a capability: the kernel says so in proc(5)."""
    effective = re.search(r"^CapEff:\s*([0-9a-f]+)", status.read_text("ascii"), re.MULTILINE)
    return bool(effective and int(effective[1], 16) >> CAPABILITIES[name] & 1)


def settable_keys(wanted: Mapping[str, Any], root: Path | None = None) -> tuple[dict[str, str], list[str]]:
    """The sysctl keys that this kernel has and lets this host set, and for the others the reason: ``key: reason``."""
    settable, reasons = {}, []
    for key, value in wanted.items():
        path = _kept_in(key, root)
        if not path.exists():
            reasons.append(f"{key}: this kernel does not have it")
        elif os.access(path, os.W_OK):
            settable[key] = str(value)
        elif path.read_text("utf-8").split() != str(value).split():
            reasons.append(f"{key}: the kernel does not let this host set it")
    return settable, reasons


# --- items into parts of the transaction ------------------------------------------------------------------------------


def _sysctl_file(values: Mapping[str, str]) -> list[File]:
    """The kernel parameters as one file, and how to set them back to what they are now."""
    if not values:
        return [File(SYSCTL_FILE, on_change="nothing")]
    lines = [f"{key} = {values[key]}" for key in _in_order(values)]
    before = {key: " ".join(_kept_in(key).read_text("utf-8").split()) for key in _in_order(values)}
    return [
        File(
            SYSCTL_FILE,
            "\n".join(["# Managed by Ansible, role fushuma.production.hardening.", *lines, ""]).encode(),
            apply=[["sysctl", "-q", "-p", SYSCTL_FILE]],
            undo=[["sysctl", "-q", "-w", *(f"{key}={value}" for key, value in before.items())]],
        )
    ]


def _in_order(values: Iterable[str]) -> list[str]:
    """A change of forwarding resets others (Linux, ip-sysctl.rst), so it comes before them."""
    return sorted(values, key=lambda key: (not key.endswith("forward") and not key.endswith("forwarding"), key))


def _kept_in(key: str, root: Path | None = None) -> Path:
    return (root or PROC_SYS) / key.replace(".", "/")


def _sysctl_probes(values: Mapping[str, str]) -> list[Probe]:
    """Somebody may have set another value since, or a file that is read later than ours does."""
    return [Probe(file=str(_kept_in(key)), body=value) for key, value in values.items()]


def _files(taken: Sequence[Item], off: Sequence[Item]) -> list[File]:
    files = [_file(one) for item in taken for one in item.get("files") or []]
    wanted = {file.dest for file in files}
    # What brings such a file into force is what undoes that it goes.
    gone = [
        _file({**one, "content": None, "apply": one.get("undo") or one.get("apply"), "undo": one.get("apply")})
        for item in off
        for one in item.get("files") or []
    ]
    # A file of an item that is off goes where it has come from us.
    return files + [file for file in gone if file.dest not in wanted and MARK in snapshot(file.dest).data]


def _file(one: Mapping[str, Any]) -> File:
    return File(
        one["dest"],
        one["content"],
        one.get("owner") or "root",
        one.get("group") or "root",
        int(one.get("mode") or "0644", 8),
        one.get("on_change") or "nothing",
        apply=one.get("apply") or (),
        undo=one.get("undo") or (),
        retire=one.get("retire") or (),
    )


def _edited(taken: Sequence[Item], off: Sequence[Item]) -> list[File]:
    """Files of others in which single settings are changed; what stood there before stays in the file as a comment."""
    texts: dict[str, str] = {}
    for items, change in ((off, without_values), (taken, with_values)):
        for edit in (edit for item in items for edit in item.get("edits") or []):
            found = snapshot(edit["path"])
            if found.kind == "file":
                before = texts.get(edit["path"], found.data.decode("utf-8"))
                texts[edit["path"]] = change(before, edit["values"], edit.get("separator") or " ")
    files = []
    for path, text in texts.items():
        found = snapshot(path)
        files.append(File(path, text.encode(), str(found.uid), str(found.gid), found.mode, on_change="nothing"))
    return files


def with_values(text: str, values: Mapping[str, Any], separator: str = " ") -> str:
    """A file of ``KEY value`` lines with these values in it; the lines they replace stay above them as comments."""
    text = without_values(text, values, separator)
    for key, value in values.items():
        line = f"{key}{separator}{value}"
        active = re.search(rf"^[ \t]*{re.escape(key)}[ \t=].*$", text, re.MULTILINE)
        if active:
            text = f"{text[: active.start()]}{REMEMBERED}{active[0]}\n{line}{text[active.end() :]}"
        else:
            end = "" if not text or text.endswith("\n") else "\n"
            text = f"{text}{end}{REMEMBERED}{key} was not set\n{line}\n"
    return text


def without_values(text: str, values: Mapping[str, Any], separator: str = " ") -> str:
    """The same file as it was before `with_values`, whatever the values were then."""
    for key in values:
        name = re.escape(key)
        own = rf"\n{name}{re.escape(separator)}.*"
        text = re.sub(rf"^{REMEMBERED}{name} was not set{own}\n", "", text, flags=re.MULTILINE)
        text = re.sub(rf"^{REMEMBERED}([ \t]*{name}[ \t=].*){own}$", r"\1", text, flags=re.MULTILINE)
    return text


def _attributes(taken: Sequence[Item]) -> list[Attributes]:
    found = [one for item in taken for one in item.get("attributes") or []]
    wanted = [
        Attributes(os.path.realpath(one["path"]), one["owner"], one["group"], int(one["mode"], 8)) for one in found
    ]
    return wanted + (_homes() if any(item.get("homes") for item in taken) else [])


def _homes() -> list[Attributes]:
    """The folders of people, closed to others."""
    people = [user for user in pwd.getpwall() if user.pw_uid >= FIRST_PERSON and user.pw_dir.startswith("/home/")]
    found = []
    for user in people:
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(user.pw_dir)
            mode = stat.S_IMODE(status.st_mode) & 0o750
            found.append(Attributes(user.pw_dir, str(status.st_uid), str(status.st_gid), mode))
    return found


def _without_suid(taken: Sequence[Item]) -> list[Attributes]:
    """The same owner and mode without the bits that lend the owner's rights to whoever runs it."""
    found = []
    for path in _all(taken, "without_suid"):
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            continue
        if stat.S_ISREG(status.st_mode):
            mode = stat.S_IMODE(status.st_mode) & ~(stat.S_ISUID | stat.S_ISGID)
            found.append(Attributes(path, str(status.st_uid), str(status.st_gid), mode))
    return found
