# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What cannot work in the prometheus role's settings."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import SplitResult, urlsplit

from ansible_collections.fushuma.production.plugins.plugin_utils import alert_rules, listening
from ansible_collections.fushuma.production.plugins.plugin_utils import prometheus_model as model
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import Problem, repeated, value_of
from ansible_collections.fushuma.production.plugins.plugin_utils.sizes import bytes_of

Settings = Mapping[str, Any]

NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
USER = re.compile(r"[^\s:]{1,64}")
JOB = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
FLAG = re.compile(r"[a-z][a-z0-9-]*(\.[a-z0-9-]+)*")
# config.file's durations (prometheus/common/model.ParseDuration)
DURATION = re.compile(r"(\d+y)?(\d+w)?(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?")
PART = re.compile(r"(\d+)(ms|[ywdhms])")
SECONDS = {"y": 31536000, "w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1, "ms": 0.001}
LONGEST_INTERVAL = 60  # seconds; rules look at five minutes, in which several figures have to be
SHORTEST_RETENTION = 3 * 86400  # seconds; as far as rules look back
LEAST_SIZE = 256 * 1024**2  # bytes; what is written of the last two hours is not counted, and a block has to fit
LEAST_MEMORY = 128 * 1024**2  # bytes; an empty server takes 80 MB
LONGEST_PASSWORD = 72  # bytes; bcrypt ignores those behind
# What the other settings decide on.
OWN_FLAGS = {
    "config.file": "prometheus_scrape_configs",
    "storage.tsdb.path": "prometheus_retention",
    "storage.tsdb.retention": "prometheus_retention",
    "storage.tsdb.retention.size": "prometheus_retention.size",
    "storage.tsdb.retention.time": "prometheus_retention.time",
    "web.config.file": "prometheus_users or prometheus_tls",
    "web.enable-admin-api": "no such flag: it lets others delete all data",
    "web.enable-lifecycle": "no such flag: it lets others stop the server",
    "web.external-url": "prometheus_url",
    "web.listen-address": "prometheus_address and prometheus_port",
    "web.route-prefix": "prometheus_url",
}


def problems(settings: Settings) -> list[Problem]:
    """Everything that cannot work. ``settings`` fit the role's argument_specs and hold all defaults."""
    found = [
        *_listening_problems(settings),
        *_keeping_problems(settings),
        *_interval_problems(settings["prometheus_intervals"]),
        *_label_problems("prometheus_external_labels", settings["prometheus_external_labels"]),
        *_list_problems(settings, "prometheus_targets", _target_problems),
        *_list_problems(settings, "prometheus_probes", _probe_problems),
        *_address_problems("prometheus_blackbox", settings["prometheus_blackbox"]),
        *_list_problems(settings, "prometheus_alertmanagers", _alertmanager_problems),
        *repeated("prometheus_remote_write", settings["prometheus_remote_write"], "name"),
        *_list_problems(settings, "prometheus_remote_write", _store_problems),
        *_flag_problems(settings["prometheus_flags"]),
        *alert_rules.problems(settings),
    ]
    # What is asked, and by which names, follows from all of it.
    return found or [*_twin_problems(settings), *_job_problems(settings)]


def seconds_of(text: object) -> float:
    """``1m30s`` as seconds; 0 for what is no time."""
    given = str(text)
    if not given or not DURATION.fullmatch(given):
        return 0
    return sum(int(number) * SECONDS[unit] for number, unit in PART.findall(given))


def _list_problems(settings: Settings, name: str, judge: Any) -> Iterator[Problem]:
    for number, one in enumerate(settings[name]):
        yield from (problem.under(f"{name}[{number}]") for problem in judge(one))


# --- the server -------------------------------------------------------------------------------------------------------


def _listening_problems(settings: Settings) -> Iterator[Problem]:
    address, port, url = settings["prometheus_address"], settings["prometheus_port"], settings["prometheus_url"]
    try:
        loopback = ipaddress.ip_address(address).is_loopback
    except ValueError:
        yield Problem("prometheus_address", value_of(address), "it is no address", '"127.0.0.1" or "10.0.1.31"')
        loopback = True
    if not loopback and not settings["prometheus_users"]:
        why = "whoever reaches it could read all figures, for prometheus_users has nobody"
        yield Problem("prometheus_address", value_of(address), why, '"127.0.0.1", or prometheus_users with passwords')
    yield from listening.sources(settings["prometheus_from"], "prometheus_from", loopback=loopback)
    if not 1 <= port <= 65535:
        yield Problem("prometheus_port", value_of(port), "ports go from 1 to 65535", "9090")
    if url and not _is_url(url):
        yield Problem("prometheus_url", value_of(url), "it is no URL", '"https://prometheus.example.com"')
    yield from repeated("prometheus_users", settings["prometheus_users"], "name")
    for number, one in enumerate(settings["prometheus_users"]):
        if not USER.fullmatch(one["name"]):
            where = f"prometheus_users[{number}].name"
            yield Problem(
                where, value_of(one["name"]), "it is no name for a user", "letters and digits, such as grafana"
            )
        if len(one["password"].encode()) > LONGEST_PASSWORD:
            shown = value_of(one["password"], secret=True)
            why = f"bcrypt takes no more than {LONGEST_PASSWORD} bytes"
            yield Problem(f"prometheus_users[{number}].password", shown, why, "a shorter one")


def _keeping_problems(settings: Settings) -> Iterator[Problem]:
    kept, memory = settings["prometheus_retention"], settings["prometheus_memory"]
    if not seconds_of(kept["time"]):
        yield Problem("prometheus_retention.time", value_of(kept["time"]), "it is no time", '"30d"')
    elif seconds_of(kept["time"]) < SHORTEST_RETENTION:
        why = "rules look back three days"
        yield Problem("prometheus_retention.time", value_of(kept["time"]), why, '"3d" or more')
    if bytes_of(kept["size"]) < LEAST_SIZE:
        why = "it is no size, or less than the last hours take"
        yield Problem("prometheus_retention.size", value_of(kept["size"]), why, '"5gb"')
    if bytes_of(memory) < LEAST_MEMORY:
        why = "it is no size, or less than an idle server needs"
        yield Problem("prometheus_memory", value_of(memory), why, '"512mb"')


def _interval_problems(times: Mapping[str, str]) -> Iterator[Problem]:
    wrong = [name for name in times if not seconds_of(times[name])]
    for name in wrong:
        yield Problem(f"prometheus_intervals.{name}", value_of(times[name]), "it is no time", '"15s"')
    for name in ("scrape", "evaluation"):
        if name not in wrong and seconds_of(times[name]) > LONGEST_INTERVAL:
            why = "rules look at five minutes, in which several figures have to be"
            yield Problem(f"prometheus_intervals.{name}", value_of(times[name]), why, '"1m" or less')
    if not wrong and seconds_of(times["timeout"]) > seconds_of(times["scrape"]):
        why = f"a scrape begins every {times['scrape']}"
        yield Problem("prometheus_intervals.timeout", value_of(times["timeout"]), why, f'"{times["scrape"]}" or less')


def _flag_problems(flags: Mapping[str, Any]) -> Iterator[Problem]:
    for name, value in flags.items():
        where = f"prometheus_flags.{name}"
        if name in OWN_FLAGS:
            yield Problem(where, value_of(value), "something else decides on it", OWN_FLAGS[name])
        elif not FLAG.fullmatch(name):
            yield Problem(where, value_of(value), "it is no name of a flag", "it without dashes before it")
        elif isinstance(value, (dict, list)) or "\n" in str(value):
            yield Problem(where, value_of(value), "a flag has one value", "one number, text or bool")


# --- what is asked ----------------------------------------------------------------------------------------------------


def _target_problems(one: Mapping[str, Any]) -> Iterator[Problem]:
    if not JOB.fullmatch(one["job"]):
        yield Problem("job", value_of(one["job"]), "it is no name for a job", "letters and digits, such as node")
    if not one["path"].startswith("/"):
        yield Problem("path", value_of(one["path"]), "it does not begin with /", '"/metrics"')
    for name, value in one["params"].items():
        if not isinstance(value, (str, int, float)):
            yield Problem(f"params.{name}", value_of(value), "a parameter has one value", "one text")
        elif not LABEL.fullmatch(name):
            yield Problem(f"params.{name}", value_of(value), "Prometheus cannot send it", "letters, digits and _")
    yield from _address_problems("address", one["address"])
    yield from _label_problems("labels", one["labels"])
    yield from _login_problems(one)


def _probe_problems(one: Mapping[str, Any]) -> Iterator[Problem]:
    if one["module"].startswith("http") and not _is_url(one["url"]):
        yield Problem("url", value_of(one["url"]), "it is no URL", '"https://example.com/"')
    if not one["url"]:
        yield Problem("url", '""', "nothing would be asked", '"https://example.com/"')
    if not LABEL.fullmatch(one["module"]):
        yield Problem("module", value_of(one["module"]), "it is no name of a module", '"http"')


def _alertmanager_problems(one: Mapping[str, Any]) -> Iterator[Problem]:
    yield from _address_problems("address", one["address"])
    yield from _login_problems(one)


def _login_problems(one: Mapping[str, Any]) -> Iterator[Problem]:
    if one["user"] and not one["password"]:
        yield Problem("password", '""', "a user has a password", "that user's")
    if one["password"] and not one["user"]:
        yield Problem("user", '""', "there is a password, and nobody whose it is", "the user's name")


def _store_problems(one: Mapping[str, Any]) -> Iterator[Problem]:
    if not NAME.fullmatch(one["name"]):
        form = "lower-case letters, digits and dashes, such as longterm"
        yield Problem("name", value_of(one["name"]), "a file is called by it", form)
    if not seconds_of(one["timeout"]):
        yield Problem("timeout", value_of(one["timeout"]), "it is no time", '"30s"')
    secret = one["password"] or one["bearer"]
    if not _is_url(one["url"]):
        why = "it is no URL of HTTP, or holds a user"
        yield Problem("url", "given", why, '"https://metrics.example.com/api/v1/write"')
    elif secret and one["url"].startswith("http:") and not _is_near(urlsplit(one["url"])):
        why = "the secret would go over the internet for all to read"
        yield Problem("url", value_of(one["url"]), why, "an https URL")
    yield from _login_problems(one)
    if one["bearer"] and one["user"]:
        shown = value_of(one["bearer"], secret=True)
        yield Problem("bearer", shown, "there is a user too", "either of them")
    tls = one["tls"] or {}
    if bool(tls.get("certificate")) != bool(tls.get("key")):
        yield Problem("tls", "half given", "a certificate is shown with its key", "both certificate and key, or none")
    if tls.get("insecure") and tls.get("authority"):
        yield Problem("tls.insecure", "true", "the authority would not be asked", "false")


def _twin_problems(settings: Settings) -> Iterator[Problem]:
    """Targets and probes whose series could not be told apart."""
    seen: dict[tuple[Any, ...], str] = {}
    own = ("the server itself", model.itself(settings, "this host"))
    targets = [(f"prometheus_targets[{n}]", one) for n, one in enumerate(settings["prometheus_targets"])]
    for where, one in [own, *targets]:
        labels = {k: v for k, v in model.labels_of(one).items() if not k.startswith("__")}
        key = (one["job"], *sorted(labels.items()))
        if key in seen:
            why = f"its series would have the same labels as those of {seen[key]}"
            yield Problem(where, value_of({"job": one["job"], **labels}), why, "another label, such as instance")
        seen.setdefault(key, where)
    yield from _twin_probes(settings["prometheus_probes"])


def _twin_probes(probes: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    seen: dict[tuple[Any, ...], int] = {}
    for number, one in enumerate(probes):
        key = (one["name"], one["host"], one["url"])
        if key in seen:
            why = f"prometheus_probes[{seen[key]}] asks the same for it"
            yield Problem(f"prometheus_probes[{number}]", value_of(one["url"]), why, "another name")
        seen.setdefault(key, number)


def _job_problems(settings: Settings) -> Iterator[Problem]:
    """What cannot work in the operator's own jobs."""
    taken = dict.fromkeys(model.job_names(settings, "this host"), "a target's")
    times = settings["prometheus_intervals"]
    for number, job in enumerate(settings["prometheus_scrape_configs"]):
        where = f"prometheus_scrape_configs[{number}]"
        name = job.get("job_name")
        if not isinstance(name, str) or not name:
            yield Problem(f"{where}.job_name", value_of(name), "each job has a name", '"mine"')
        elif name in taken:
            why = f"a job of this name is {taken[name]} already"
            yield Problem(f"{where}.job_name", value_of(name), why, "another name")
        taken.setdefault(str(name), where)
        given = {key: job[key] for key in ("scrape_interval", "scrape_timeout") if key in job}
        wrong = [key for key in given if not seconds_of(given[key])]
        for key in wrong:
            yield Problem(f"{where}.{key}", value_of(given[key]), "it is no time", '"30s"')
        interval = given.get("scrape_interval", times["scrape"])
        timeout = given.get("scrape_timeout", "0s")
        if not wrong and seconds_of(timeout) > seconds_of(interval):
            why = f"a scrape of it begins every {interval}"
            yield Problem(f"{where}.scrape_timeout", value_of(timeout), why, f'"{interval}" or less')
        for place, group in enumerate(job.get("static_configs") or []):
            labels = group.get("labels") if isinstance(group, Mapping) else None
            yield from _label_problems(f"{where}.static_configs[{place}].labels", labels or {}, own=False)


def _label_problems(setting: str, labels: Mapping[str, Any], *, own: bool = True) -> Iterator[Problem]:
    """own: labels that begin with two underscores are Prometheus's own."""
    for name, value in labels.items():
        if not LABEL.fullmatch(name) or (own and name.startswith("__")):
            form = "letters, digits and single _, such as team"
            yield Problem(f"{setting}.{name}", value_of(value), "it is no name for a label", form)
        elif isinstance(value, (Mapping, list)):
            yield Problem(f"{setting}.{name}", value_of(value), "a label has one value", "one text")


def _address_problems(setting: str, address: str) -> Iterator[Problem]:
    host, _colon, port = address.rpartition(":")
    if not host or not port.isdigit() or not 1 <= int(port) <= 65535 or re.search(r"[/\s]", host):
        yield Problem(setting, value_of(address), "it is no host with a port", '"10.0.1.31:9100"')


def _is_url(text: str) -> bool:
    """Whether it is a URL of HTTP with a host, and without a user."""
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018  # raises for a port that is none
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc


def _is_near(parts: SplitResult) -> bool:
    """Whether a URL leads to this host or a network of one's own, as far as it can be seen."""
    name = parts.hostname or ""
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return "." not in name
    return address.is_private
