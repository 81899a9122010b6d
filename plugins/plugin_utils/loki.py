# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What cannot work in the loki role's settings. What Loki's own check misses is looked for here."""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.fushuma.production.plugins.plugin_utils import apt_repository, listening, secret
from ansible_collections.fushuma.production.plugins.plugin_utils.apt_repository import Repository
from ansible_collections.fushuma.production.plugins.plugin_utils.loki_model import has_rules, seconds, uses
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import Problem, repeated, value_of
from ansible_collections.fushuma.production.plugins.plugin_utils.sizes import bytes_of

Settings = Mapping[str, Any]

REPOSITORY = Repository(
    setting="loki_repository",
    maker="Grafana",
    url="https://apt.grafana.com",
    key_url="https://apt.grafana.com/gpg.key",
    key_file="grafana.asc",
)
VERSION = re.compile(r"\d+\.\d+\.\d+([-+~.][A-Za-z0-9.+~-]+)?")
DIGEST = re.compile(r"[0-9a-fA-F]{64}")
DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
# Characters that neither YAML nor an environment file nor Loki's expansion takes for anything else.
KEY = re.compile(r"[A-Za-z0-9/+=_.:@!%&*,?;~^-]+")
SELECTOR = re.compile(r'\{\s*[A-Za-z_]\w*\s*(=|!=|=~|!~)\s*(".*"|`.*`)\s*\}', re.DOTALL)
GROUP = re.compile(r"[A-Za-z0-9][A-Za-z0-9_. -]*")
ALERT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
ADDRESS = re.compile(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):\d{1,5}")
DAY = 86400
LEAST_MEMORY = 256 * 1024**2  # it takes 122 MB idle
LEAST_RETENTION = DAY  # Loki's own documentation; with less it runs, and removes what it still works on
QUICKEST_RULE = 10  # seconds
PAIRS = {"(": ")", "[": "]", "{": "}"}


def problems(settings: Settings) -> list[Problem]:
    """Everything that cannot work. ``settings`` fit the role's argument_specs and hold all defaults."""
    if not settings["loki_enabled"]:
        return []
    return [
        *_program(settings),
        *_place(settings),
        *_cluster(settings),
        *_schema(settings),
        *_storage(settings),
        *_retention(settings),
        *_limits(settings),
        *_rules(settings),
        *_alertmanagers(settings),
    ]


# --- the program -----------------------------------------------------------------------------------------------------


def _program(settings: Settings) -> Iterator[Problem]:
    version = settings["loki_version"]
    if not VERSION.fullmatch(version):
        yield Problem("loki_version", value_of(version), "no release is called so", '"3.7.6"')
    if settings["loki_source"] == "repository":
        yield from apt_repository.problems(settings, REPOSITORY)
    elif settings["loki_archive"] is None:
        why = "loki_source is archive, and nobody knows which one"
        form = '{source: "https://…/loki-linux-amd64.zip", sha256: …}, or the path of a file on the controller'
        yield Problem("loki_archive", "missing", why, form)
    else:
        yield from _archive(settings["loki_archive"])


def _archive(given: Settings) -> Iterator[Problem]:
    source, setting = given["source"], "loki_archive.source"
    if "://" in source:
        parts = urlsplit(source)
        if parts.scheme != "https" or not parts.hostname or parts.username:
            form = '"https://github.com/grafana/loki/releases/download/v3.7.6/loki-linux-amd64.zip"'
            yield Problem(setting, value_of(source), "it is fetched over TLS, from a place without a login in it", form)
    elif not os.path.isabs(source) or not os.path.isfile(source):
        form = 'its whole path, such as "{{ inventory_dir }}/files/loki-linux-amd64.zip", or a URL'
        yield Problem(setting, value_of(source), "the controller has no such file", form)
    if not DIGEST.fullmatch(given["sha256"]):
        form = "the 64 digits that the release's SHA256SUMS has for this file"
        yield Problem("loki_archive.sha256", value_of(given["sha256"]), "it is no SHA-256", form)


# --- where it listens, and with whom it works ------------------------------------------------------------------------


def is_private(text: str) -> bool | None:
    """Whether only one's own network reaches an address; None where it is none."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return not (address.is_global or address.is_unspecified or address.is_multicast)


def _place(settings: Settings) -> Iterator[Problem]:
    address = settings["loki_address"]
    private = is_private(address)
    if private is None:
        yield Problem("loki_address", value_of(address), "it is no address", '"127.0.0.1" or "10.0.1.41"')
    elif not private:
        why = "Loki asks nobody who he is, so whoever reaches it reads all logs"
        yield Problem("loki_address", value_of(address), why, 'a private address of this host, such as "10.0.1.41"')
    else:
        loopback = ipaddress.ip_address(address).is_loopback
        yield from listening.sources(settings["loki_from"], "loki_from", loopback=loopback)
    ports = {"loki_port": settings["loki_port"], "loki_grpc_port": settings["loki_grpc_port"]}
    for name, port in ports.items():
        if not 1024 <= port <= 65535:
            yield Problem(name, value_of(port), "it runs without rights, so its ports go from 1024 to 65535", "3100")
    if settings["loki_port"] == settings["loki_grpc_port"]:
        yield Problem("loki_grpc_port", value_of(settings["loki_grpc_port"]), "loki_port is the same", "9095")
    if settings["loki_gateway"] and urlsplit(settings["loki_gateway"]).scheme not in ("http", "https"):
        yield Problem("loki_gateway", value_of(settings["loki_gateway"]), "it is no URL", '"http://10.0.1.40:3100"')
    if not 10 <= settings["loki_ready_within"] <= 600:
        why = "Loki takes ten seconds always, and nobody waits longer than ten minutes for it"
        yield Problem("loki_ready_within", value_of(settings["loki_ready_within"]), why, "60")
    if bytes_of(settings["loki_memory"]) < LEAST_MEMORY:
        why = "it is no size, or less than Loki needs with a few queries"
        yield Problem("loki_memory", value_of(settings["loki_memory"]), why, '"1gb"')


def _cluster(settings: Settings) -> Iterator[Problem]:
    cluster, target = settings["loki_cluster"], settings["loki_target"]
    if cluster is not None:
        yield from _members(settings, cluster)
        yield from _work(settings, cluster)
    elif target != "all":
        why = "a part of Loki needs the others, and there is no loki_cluster"
        yield Problem("loki_target", value_of(target), why, '"all", or the members in loki_cluster')


def _members(settings: Settings, cluster: Settings) -> Iterator[Problem]:
    peers, address = cluster["peers"], settings["loki_address"]
    for number, one in enumerate(peers):
        where = f"loki_cluster.peers[{number}]"
        if is_private(one) is not True or ipaddress.ip_address(one).is_loopback:
            form = 'a private address that the others reach, such as "10.0.1.41"'
            yield Problem(where, value_of(one), "no member can have this address", form)
        if one in peers[:number]:
            yield Problem(where, value_of(one), "it stands in the list already", "it once")
    if address not in peers:
        why = "loki_address of this host is not among them, so the others would not find it"
        yield Problem("loki_cluster.peers", value_of(peers), why, f"all members, {address} among them")
    if settings["loki_schema"] and settings["loki_schema"][-1]["storage"] != "s3":
        where = f"loki_schema[{len(settings['loki_schema']) - 1}].storage"
        why = "the members of a cluster would not see each other's data"
        yield Problem(where, '"filesystem"', why, '"s3" in a new period, and wait for it to begin before members join')


def _work(settings: Settings, cluster: Settings) -> Iterator[Problem]:
    """Who does what in a cluster."""
    under, peers, compactor, replicas = "loki_cluster", cluster["peers"], cluster["compactor"], cluster["replicas"]
    if compactor not in peers:
        yield Problem(f"{under}.compactor", value_of(compactor), "it is no member", "one of peers")
    if settings["loki_target"] in ("read", "write") and compactor == settings["loki_address"]:
        why = f"this host runs {settings['loki_target']}, which has no compactor, so nothing would be removed"
        yield Problem(f"{under}.compactor", value_of(compactor), why, "a member that runs all or backend")
    if not 1 <= replicas <= max(1, len(peers)):
        why = f"there are {len(peers)} members to hold a line"
        yield Problem(f"{under}.replicas", value_of(replicas), why, f"1 to {len(peers)}")
    elif replicas == 2:
        why = "both have to answer, so nothing is taken as soon as one of them is restarted"
        yield Problem(f"{under}.replicas", "2", why, "3, or 1 where it may stand still for a restart")
    if not 1024 <= cluster["port"] <= 65535 or cluster["port"] in (settings["loki_port"], settings["loki_grpc_port"]):
        yield Problem(f"{under}.port", value_of(cluster["port"]), "it is out of range, or Loki's other port", "7946")


# --- data ------------------------------------------------------------------------------------------------------------


def _schema(settings: Settings) -> Iterator[Problem]:
    periods = settings["loki_schema"]
    if not periods:
        yield Problem("loki_schema", "[]", "Loki would not know how to keep anything", '[{from: "2024-01-01"}]')
    for number, one in enumerate(periods):
        where = f"loki_schema[{number}]"
        if not _is_date(one["from"]):
            yield Problem(f"{where}.from", value_of(one["from"]), "it is no day", '"2024-01-01"')
            return
        if number and one["from"] <= periods[number - 1]["from"]:
            why = f"loki_schema[{number - 1}] begins on {periods[number - 1]['from']}, and periods follow each other"
            yield Problem(f"{where}.from", value_of(one["from"]), why, "a later day, and the period at the end")
        if one["store"] == "tsdb" and one["version"] == "v11":
            yield Problem(f"{where}.version", '"v11"', "an index in this form has at least v12", '"v13"')
        last = number == len(periods) - 1
        if last and (one["store"], one["version"]) != ("tsdb", "v13"):
            name = "store" if one["store"] != "tsdb" else "version"
            why = "nothing new is written in a form that Loki gives up"
            yield Problem(f"{where}.{name}", value_of(one[name]), why, "a further period with tsdb and v13")
    if periods and periods[0]["from"] > _tomorrow():
        why = "what comes before that day could not be kept"
        yield Problem("loki_schema[0].from", value_of(periods[0]["from"]), why, 'a day that is over, "2024-01-01"')


def _is_date(text: str) -> bool:
    try:
        return bool(DATE.fullmatch(text) and datetime.date.fromisoformat(text))
    except ValueError:
        return False


def _tomorrow() -> str:
    """The last day on which anywhere in the world it may be today."""
    return (datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=14)).date().isoformat()


def _storage(settings: Settings) -> Iterator[Problem]:
    given = settings["loki_s3"]
    if not uses(settings, "s3"):
        return
    if given is None:
        why = "a period of loki_schema has its data there, and nobody knows where that is"
        yield Problem("loki_s3", "missing", why, "{url, bucket, access_key, secret_key}")
        return
    parts = urlsplit(given["url"])
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host or parts.username or parts.path.strip("/") or parts.query:
        form = '"https://s3.eu-central-1.amazonaws.com", and the bucket in loki_s3.bucket'
        yield Problem("loki_s3.url", value_of(given["url"]), "it is not the URL of a service alone", form)
    elif parts.scheme == "http" and not is_private(host):
        why = "logs would cross a network that is not yours, readable for anybody"
        yield Problem("loki_s3.url", value_of(given["url"]), why, "a URL that starts with https://")
    if not BUCKET.fullmatch(given["bucket"]):
        yield Problem("loki_s3.bucket", value_of(given["bucket"]), "no bucket can be called so", '"fushuma-logs"')
    for name in ("access_key", "secret_key"):
        if not KEY.fullmatch(given[name]):
            form = "the key as the service shows it"
            yield Problem(f"loki_s3.{name}", value_of(given[name], secret=True), "it has characters no key has", form)
    if given["ca_file"] and not os.path.isabs(given["ca_file"]):
        yield Problem("loki_s3.ca_file", value_of(given["ca_file"]), "it is no whole path", '"/etc/ssl/s3.pem"')


def _retention(settings: Settings) -> Iterator[Problem]:
    keeps = settings["loki_retention"]
    yield from _kept(keeps["period"], "loki_retention.period")
    for number, one in enumerate(keeps["streams"]):
        where = f"loki_retention.streams[{number}]"
        yield from _kept(one["period"], f"{where}.period")
        if not SELECTOR.fullmatch(_first_matcher(one["selector"])) or "$" in one["selector"]:
            form = """'{job="nginx_access"}'"""
            yield Problem(f"{where}.selector", value_of(one["selector"]), "it selects no streams", form)


def _first_matcher(selector: str) -> str:
    """A selector of several matchers as one of its first; commas in quotes end none, and quotes are pairs then."""
    parts = re.split(r""",(?=(?:[^"]*"[^"]*")*[^"]*$)""", selector.strip())
    return parts[0] if len(parts) == 1 else parts[0] + "}"


def _kept(text: str, setting: str) -> Iterator[Problem]:
    if not seconds(text):
        yield Problem(setting, value_of(text), "it is no time in hours or days", '"744h" or "31d"')
    elif seconds(text) < LEAST_RETENTION:
        why = "Loki removes by whole days of its index, and takes less without a word"
        yield Problem(setting, value_of(text), why, '"24h" or more')


def _limits(settings: Settings) -> Iterator[Problem]:
    under, given = "loki_limits", settings["loki_limits"]
    for names, is_right, why, form in LIMITS:
        for name in names:
            if not is_right(given[name]):
                yield Problem(f"{under}.{name}", value_of(given[name]), why, form)
    pairs = (
        ("ingestion_rate_mb", "ingestion_burst_size_mb", float),
        ("per_stream_rate_limit", "per_stream_rate_limit_burst", bytes_of),
    )
    for rate, burst, number in pairs:
        if number(given[burst]) < number(given[rate]):
            why = f"less is taken at once than {rate} says for a second"
            yield Problem(f"{under}.{burst}", value_of(given[burst]), why, f"{value_of(given[rate])} or more")
    keeps, oldest = settings["loki_retention"]["period"], given["reject_old_samples_max_age"]
    if seconds(keeps) and seconds(oldest) > seconds(keeps):
        why = f"lines older than {keeps} are removed as soon as they have come"
        yield Problem(f"{under}.reject_old_samples_max_age", value_of(oldest), why, value_of(keeps))


def _is_above_none(value: float) -> bool:
    return value > 0


LIMITS: Sequence[tuple[Sequence[str], Callable[[Any], object], str, str]] = (
    (("reject_old_samples_max_age", "max_query_length", "query_timeout"), seconds, "it is no time", '"168h"'),
    (("per_stream_rate_limit", "per_stream_rate_limit_burst", "max_line_size"), bytes_of, "it is no size", '"256kb"'),
    (
        (
            "ingestion_rate_mb",
            "ingestion_burst_size_mb",
            "max_entries_limit_per_query",
            "max_global_streams_per_user",
            "max_label_names_per_series",
            "max_query_parallelism",
            "max_query_series",
        ),
        _is_above_none,
        "nothing would be taken, or Loki takes it for no limit at all",
        "a number above 0",
    ),
)


# --- rules -----------------------------------------------------------------------------------------------------------


def _rules(settings: Settings) -> Iterator[Problem]:
    groups = settings["loki_rules"]
    yield from repeated("loki_rules", groups, "name")
    if groups and has_rules(settings) and not settings["loki_alertmanagers"]:
        why = "there is nobody to tell of an alert"
        yield Problem("loki_alertmanagers", "[]", why, '[{address: "127.0.0.1:9093"}], or no loki_rules')
    for number, group in enumerate(groups):
        where = f"loki_rules[{number}]"
        if not GROUP.fullmatch(group["name"]):
            form = "letters, digits, dots, dashes and blanks"
            yield Problem(f"{where}.name", value_of(group["name"]), "it is no name for a group", form)
        if seconds(group["interval"]) < QUICKEST_RULE:
            why = f"it is no time, or less than {QUICKEST_RULE} seconds, in which Loki would do nothing else"
            yield Problem(f"{where}.interval", value_of(group["interval"]), why, '"1m"')
        if not group["rules"]:
            yield Problem(f"{where}.rules", "[]", "a group without rules says nothing", "a rule, or no group")
        for place, rule in enumerate(group["rules"]):
            yield from (problem.under(f"{where}.rules[{place}]") for problem in _rule(rule))


def _rule(rule: Settings) -> Iterator[Problem]:
    if not ALERT.fullmatch(rule["alert"]):
        yield Problem("alert", value_of(rule["alert"]), "it is no name for an alert", '"TooManyErrors"')
    if why := _flaw(rule["expr"]):
        form = """'sum(count_over_time({job="app"} |= "error" [5m])) > 10'"""
        yield Problem("expr", value_of(rule["expr"]), why, form)
    if rule["for"] != "0m" and not seconds(rule["for"]):
        yield Problem("for", value_of(rule["for"]), "it is no time", '"5m"')
    for kind in ("labels", "annotations"):
        for name, value in rule[kind].items():
            if not LABEL.fullmatch(name):
                yield Problem(f"{kind}.{name}", value_of(value), "no label can be called so", "letters and _")
            elif isinstance(value, (dict, list)) or value is None:
                yield Problem(f"{kind}.{name}", value_of(value), "it is no text", "a text")


def _flaw(query: str) -> str:
    """Why a query cannot be one of LogQL whose result could be an alert; "" where nothing is seen at once."""
    bare = re.sub(r'"(\\.|[^"\\])*"|`[^`]*`', "", query)
    if '"' in bare or "`" in bare:
        return "a text in it has no end"
    still_open: list[str] = []
    for character in bare:
        if character in PAIRS:
            still_open.append(PAIRS[character])
        elif character in PAIRS.values() and (not still_open or still_open.pop() != character):
            return f"a {character} in it closes nothing"
    if still_open:
        return f"a {still_open[-1]} is missing in it"
    if "{" not in bare:
        return "it selects no streams"
    return "" if "[" in bare else "it returns lines and no numbers, so it is never an alert"


def _alertmanagers(settings: Settings) -> Iterator[Problem]:
    known = [one["user"] for one in settings["loki_alertmanagers"] if one["user"]]
    for number, one in enumerate(settings["loki_alertmanagers"]):
        where = f"loki_alertmanagers[{number}]"
        if not ADDRESS.fullmatch(one["address"]):
            yield Problem(
                f"{where}.address", value_of(one["address"]), "it is no address with a port", '"127.0.0.1:9093"'
            )
        if known and one["user"] != known[0]:
            why = f"Loki has one name for all of them, and another one asks for {known[0]}"
            yield Problem(f"{where}.user", value_of(one["user"]), why, "the same user for all of them")
        if one["user"] and not KEY.fullmatch(one["password"]):
            shown = value_of(one["password"], secret=True)
            why = "it is none, or has quotes, blanks or others that a file of environments takes for something else"
            yield Problem(f"{where}.password", shown, why, secret.FORM)
