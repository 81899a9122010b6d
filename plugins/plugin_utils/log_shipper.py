# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What cannot work in the log_shipper role's settings."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.fushuma.production.plugins.plugin_utils import log_shipper_model as model
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import Problem, repeated, value_of
from ansible_collections.fushuma.production.plugins.plugin_utils.sizes import UNITS, bytes_of

Settings = Mapping[str, Any]
Group = Mapping[str, Any]

URL = re.compile(r"https?://(?:[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9a-fA-F:.]+\])(?::\d{1,5})?(?:/[\w./~-]*)?")
PUSH = re.compile(r"/[\w./~-]*")
JOB = re.compile(r"[A-Za-z_][\w.-]{0,62}")
UNIT = re.compile(r"[\w.@:\\-]+\.[a-z]+")
NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
TENANT = {"loki": re.compile(r"[\w.!*'()-]{1,150}"), "victorialogs": re.compile(r"\d{1,9}(?::\d{1,9})?")}
LEAST_BUFFER = 32 * UNITS["mb"]  # bytes; half of it is in memory first
LEAST_MEMORY = 64 * UNITS["mb"]
LEAST_INTERVAL = 10  # seconds
OWN_JOB = "journal"


def problems(settings: Settings) -> list[Problem]:
    """Everything that cannot work. ``settings`` fit the role's argument_specs and hold all defaults."""
    found = []
    for group, judge in (
        ("log_shipper_stores", _store_problems),
        ("log_shipper_logs", _log_problems),
        ("log_shipper_scrub", _scrub_problems),
        ("log_shipper_rate", _rate_problems),
    ):
        for number, one in enumerate(settings[group]):
            found += [problem.under(f"{group}[{number}]") for problem in judge(one)]
    found += _repeated_stores(settings["log_shipper_stores"])
    found += _contradictions(settings["log_shipper_logs"])
    found += repeated("log_shipper_scrub", settings["log_shipper_scrub"], "name")
    found += repeated("log_shipper_rate", settings["log_shipper_rate"], "unit")
    found += _host_problems(settings)
    return found


# --- stores -----------------------------------------------------------------------------------------------------------


def _store_problems(one: Group) -> Iterator[Problem]:
    if not URL.fullmatch(one["url"]):
        why = "it is no address of a server, which has neither a login nor a question in it"
        yield Problem("url", value_of(one["url"]), why, '"http://10.0.1.50:3100"')
        return
    if one["push"] and not PUSH.fullmatch(one["push"]):
        yield Problem("push", value_of(one["push"]), "it is no path", f'"{model.PUSH[one["kind"]]}"')
    yield from _login_problems(one)
    yield from _authority_problems(one)
    if one["tenant"] and not TENANT[one["kind"]].fullmatch(one["tenant"]):
        form = {"loki": '"fushuma"', "victorialogs": '"12:0"'}[one["kind"]]
        yield Problem("tenant", value_of(one["tenant"]), f"it is no tenant of {one['kind']}", form)


def _login_problems(one: Group) -> Iterator[Problem]:
    if bool(one["user"]) != bool(one["password"]):
        name = "password" if one["user"] else "user"
        yield Problem(name, '""', "a login has both, a user and a password", "the other one too, or neither")
    for name in ("user", "password"):
        if signs := list(model.unwritable(one[name])):
            shown = value_of(one[name], secret=name == "password")
            why = f"syslog-ng cannot read {value_of(signs[0])} in it"
            yield Problem(name, shown, why, "letters, digits and other signs")
    if ":" in one["user"]:
        yield Problem("user", value_of(one["user"]), "a colon ends the name in a login of HTTP", "a name without one")
    if one["url"].startswith("http:") and one["password"] and not _is_own(one["url"]):
        why = "everybody on the way would read the password"
        yield Problem("url", value_of(one["url"]), why, f'"https{one["url"][4:]}"')


def _authority_problems(one: Group) -> Iterator[Problem]:
    if one["ca"] and one["url"].startswith("http:"):
        yield Problem("ca", "a certificate", "no certificate is shown without TLS", "nothing, or a url with https")
    if one["ca"] and "-----BEGIN CERTIFICATE-----" not in one["ca"]:
        yield Problem("ca", value_of(one["ca"]), "it is no certificate in PEM form", "what is in its .pem file")


def _is_own(url: str) -> bool:
    """Whether what is sent there stays on the host."""
    name = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _repeated_stores(stores: Any) -> Iterator[Problem]:
    places = [{"url": model.address_of(one)} for one in stores]
    yield from repeated("log_shipper_stores", places, "url")


# --- logs -------------------------------------------------------------------------------------------------------------


def _log_problems(one: Group) -> Iterator[Problem]:
    given = [name for name in ("unit", "path", "application") if one[name]]
    if len(given) != 1:
        why = "it has exactly one of unit, path and application"
        yield Problem("", value_of({name: one[name] for name in given}), why, "{unit: worker.service, job: worker}")
        return
    if not JOB.fullmatch(one["job"]):
        yield Problem("job", value_of(one["job"]), "a label is found by it", "letters, digits and dashes, such as app")
    elif one["job"] == OWN_JOB:
        yield Problem("job", value_of(one["job"]), "it is the job of all lines that nobody declares", "another one")
    for name in given:
        if list(model.unwritable(one[name])):
            yield Problem(name, value_of(one[name]), "syslog-ng cannot read it", "a name without such signs")
    if one["path"]:
        yield from _path_problems(one)
    if one["starts"]:
        yield from _starts_problems(one)


def _path_problems(one: Group) -> Iterator[Problem]:
    path = one["path"]
    if not os.path.isabs(path) or path.endswith("/") or path != os.path.normpath(path):
        yield Problem("path", value_of(path), "it is no whole path of a file", '"/var/log/app/app.log"')
    elif "*" in path:
        yield Problem("path", value_of(path), "it is a pattern, and each file is read by its name", "an entry for each")


def _starts_problems(one: Group) -> Iterator[Problem]:
    shown = value_of(one["starts"])
    if not one["path"]:
        yield Problem("starts", shown, "entries of the journal are whole already", "it only where there is a path")
    elif one["format"] == "json":
        yield Problem("starts", shown, "an entry of JSON is one line", "format: text, or nothing")
    else:
        yield from _pattern_problems("starts", one["starts"], r'"^\d{4}-\d\d-\d\d "')


def _contradictions(logs: Any) -> Iterator[Problem]:
    """What is read twice in two ways; the same entry of two roles is none."""
    seen: dict[tuple[str, str], tuple[int, Group]] = {}
    for number, one in enumerate(logs):
        for name in ("unit", "path", "application"):
            first, other = seen.setdefault((name, one[name]), (number, one))
            if one[name] and one != other:
                why = f"log_shipper_logs[{first}] reads it in another way"
                yield Problem(f"log_shipper_logs[{number}].{name}", value_of(one[name]), why, "one of the two")


# --- scrubbing --------------------------------------------------------------------------------------------------------


def _scrub_problems(one: Group) -> Iterator[Problem]:
    if not NAME.fullmatch(one["name"]):
        form = "lower-case letters, digits and dashes, such as customer-number"
        yield Problem("name", value_of(one["name"]), "a rule is told from others by it", form)
    if not one["pattern"]:
        if one["name"] not in {usual["name"] for usual in model.USUAL}:
            why = "no usual rule has the name, so there is nothing to switch off"
            yield Problem("pattern", '""', why, "a pattern, or the name of a usual rule")
        return
    found = list(_pattern_problems("pattern", one["pattern"], r'"customer=\d+"'))
    yield from found
    if list(model.unwritable(one["replacement"])):
        yield Problem("replacement", value_of(one["replacement"]), "syslog-ng cannot read it", '"***"')
    elif not found:
        groups = re.compile(one["pattern"]).groups
        for number in re.findall(r"\$(\d+)", one["replacement"]):
            if not 1 <= int(number) <= groups:
                why = f"the pattern has {groups} groups"
                yield Problem("replacement", value_of(one["replacement"]), why, '"***", or a group that is there')


def _pattern_problems(setting: str, pattern: str, form: str) -> Iterator[Problem]:
    if list(model.unwritable(pattern)):
        why = r"syslog-ng cannot read a backtick or a sign of control; \x60 is a backtick"
        yield Problem(setting, value_of(pattern), why, form)
        return
    try:
        empty = re.compile(pattern).search("")
    except re.error as error:
        yield Problem(setting, value_of(pattern), f"it is no regular expression ({error})", form)
        return
    if empty:
        yield Problem(setting, value_of(pattern), "it fits where nothing is", form)


# --- the host ---------------------------------------------------------------------------------------------------------


def _rate_problems(one: Group) -> Iterator[Problem]:
    if not UNIT.fullmatch(one["unit"]):
        yield Problem("unit", value_of(one["unit"]), "it is no name of a unit", '"worker.service"')
    if not model.SECONDS.fullmatch(one["interval"]):
        yield Problem("interval", value_of(one["interval"]), "it is no time", '"30s"')
    if one["burst"] < 1:
        yield Problem("burst", value_of(one["burst"]), "the unit could not log at all", "100000")


def _host_problems(settings: Settings) -> Iterator[Problem]:
    for name, least in (("log_shipper_buffer", LEAST_BUFFER), ("log_shipper_memory", LEAST_MEMORY)):
        if bytes_of(settings[name]) < least:
            why = f"it is no size, or less than {least // UNITS['mb']} MB"
            yield Problem(name, value_of(settings[name]), why, '"256mb"')
    folder = settings["log_shipper_textfile_folder"]
    if folder and (not os.path.isabs(folder) or re.search(r"\s", folder)):
        form = '"/var/lib/prometheus/node-exporter"'
        yield Problem("log_shipper_textfile_folder", value_of(folder), "it is no whole path without blanks", form)
    proof = settings["log_shipper_proof"]
    if proof["interval"] < LEAST_INTERVAL:
        why = "each line is looked for in the stores, which takes a while"
        yield Problem("log_shipper_proof.interval", value_of(proof["interval"]), why, f"{LEAST_INTERVAL} or more")
    elif not 1 <= proof["within"] < proof["interval"]:
        why = "a line is looked for before the next one is written"
        yield Problem("log_shipper_proof.within", value_of(proof["within"]), why, "less than the interval")
