# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which items of hardening are wanted, and what cannot work in the settings of the role."""

from __future__ import annotations

import datetime
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import yaml
from ansible_collections.fushuma.production.plugins.plugin_utils import specs
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import Problem, value_of

Item = Mapping[str, Any]
Settings = Mapping[str, Any]

LEVELS = ("baseline", "strict")
UMASK = re.compile(r"0?[0-7]{3}")
SYSCTL_KEY = re.compile(r"[a-z0-9_-]+(\.[A-Za-z0-9_/-]+)+")
SIZE = re.compile(r"[1-9]\d*[KMGT]?")  # journald.conf(5)
TIME_SPAN = re.compile(r"[1-9]\d*(s|m|min|h|d|day|days|week|weeks|month|months|year|years)?")  # systemd.time(7)
CLOCK = re.compile(r"([01]\d|2[0-3]):[0-5]\d|now")
PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
USER = re.compile(r"[a-z_][a-z0-9_-]*")
AUDIT_RULE = re.compile(r"-[wae] .+|-A .+")
SERVER = re.compile(r"[A-Za-z0-9.:-]+")


def chosen(items: Sequence[Item], level: str, switches: Mapping[str, bool]) -> list[dict[str, Any]]:
    """The items, each with ``on``: whether its level or its switch wants it."""
    return [{**item, "on": bool(switches.get(item["name"], _is_of(item, level)))} for item in items]


def _is_of(item: Item, level: str) -> bool:
    wanted = item.get("level", LEVELS[0])
    return wanted in LEVELS and LEVELS.index(wanted) <= LEVELS.index(level)


@lru_cache
def item_names() -> tuple[str, ...]:
    """The names of all items of the role."""
    groups = yaml.safe_load((specs.ROLES / "hardening" / "vars" / "main.yml").read_text("utf-8"))
    return tuple(item["name"] for group in groups.values() if isinstance(group, list) for item in group)


def problems(settings: Settings) -> list[Problem]:
    """Everything that cannot work; the settings have all defaults filled in."""
    return [*_items(settings), *_waivers(settings), *_sysctl(settings), *_forms(settings), *_ranges(settings)]


def _unknown_item(setting: str, name: str) -> Problem:
    near = difflib.get_close_matches(name, item_names(), n=1, cutoff=0.5)
    instead = f"{near[0]}, if that is meant" if near else "the name of an item in docs/roles/hardening.md"
    return Problem(setting, value_of(name), "no item has this name", instead)


def _items(settings: Settings) -> Iterator[Problem]:
    for name, wanted in settings["hardening_items"].items():
        if name not in item_names():
            yield _unknown_item("hardening_items", name)
        elif not isinstance(wanted, bool):
            yield Problem(f"hardening_items.{name}", value_of(wanted), "an item is on or off", "true or false")


def _waivers(settings: Settings) -> Iterator[Problem]:
    for number, waiver in enumerate(settings["hardening_waivers"]):
        setting = f"hardening_waivers[{number}]"
        if waiver["item"] not in item_names():
            yield _unknown_item(f"{setting}.item", waiver["item"])
        elif settings["hardening_items"].get(waiver["item"]) is True:
            why = "hardening_items has this item on"
            yield Problem(f"{setting}.item", value_of(waiver["item"]), why, "only one of the two")
        try:
            expired = datetime.date.fromisoformat(waiver["expires"]) < datetime.date.today()
        except ValueError:
            yield Problem(f"{setting}.expires", value_of(waiver["expires"]), "it is no day", 'for example "2027-06-30"')
        else:
            if expired:
                why, instead = "that day is over", "a later day, if its owner agrees, or take the waiver away"
                yield Problem(f"{setting}.expires", value_of(waiver["expires"]), why, instead)


def _sysctl(settings: Settings) -> Iterator[Problem]:
    for key, value in settings["hardening_sysctl"].items():
        setting = f"hardening_sysctl.{key}"
        if not SYSCTL_KEY.fullmatch(key):
            why = "no kernel parameter has such a name"
            yield Problem(setting, value_of(value), why, "for example net.core.somaxconn")
        elif isinstance(value, bool) or not isinstance(value, (int, str)) or "\n" in str(value):
            yield Problem(setting, value_of(value), "it is neither a number nor one line of text", "for example 1")


def _forms(settings: Settings) -> Iterator[Problem]:
    journal, upgrades = settings["hardening_journal"], settings["hardening_upgrades"]
    single = [
        ("hardening_umask", settings["hardening_umask"], UMASK, "it is no umask", '"027" or "077", in quotes'),
        ("hardening_journal.size", journal["size"], SIZE, "it is no size that journald knows", 'for example "1G"'),
        ("hardening_journal.keep_free", journal["keep_free"], SIZE, "it is no size that journald knows", '"2G"'),
        ("hardening_journal.retention", journal["retention"], TIME_SPAN, "systemd knows no such time", '"3month"'),
        ("hardening_upgrades.reboot_time", upgrades["reboot_time"], CLOCK, "it is no time of day", '"04:00"'),
    ]
    listed = [
        ("hardening_cron_users", settings["hardening_cron_users"], USER, "no user has such a name", "for example root"),
        ("hardening_upgrades.hold", upgrades["hold"], PACKAGE, "no package has such a name", "for example docker-ce"),
        ("hardening_time_servers", settings["hardening_time_servers"], SERVER, "it is no host", "pool.ntp.org"),
        ("hardening_audit_rules", settings["hardening_audit_rules"], AUDIT_RULE, "it is no rule", "-w /etc/app -p wa"),
    ]
    several = [
        (f"{setting}[{number}]", value, form, why, instead)
        for setting, values, form, why, instead in listed
        for number, value in enumerate(values)
    ]
    for setting, value, form, why, instead in [*single, *several]:
        if not form.fullmatch(str(value)):
            yield Problem(setting, value_of(value), why, instead)


def _ranges(settings: Settings) -> Iterator[Problem]:
    passwords = settings["hardening_passwords"]
    for setting, value, least, most in [
        ("hardening_passwords.length", passwords["length"], 8, 128),
        ("hardening_passwords.classes", passwords["classes"], 0, 4),
        ("hardening_passwords.attempts", passwords["attempts"], 1, 100),
        ("hardening_passwords.wait", passwords["wait"], 0, 604800),
        ("hardening_sudo.timeout", settings["hardening_sudo"]["timeout"], 0, 1440),
        ("hardening_shell_timeout", settings["hardening_shell_timeout"], 60, 86400),
    ]:
        if not least <= value <= most:
            yield Problem(setting, value_of(value), "it is out of range", f"a number from {least} to {most}")
