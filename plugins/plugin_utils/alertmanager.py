# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What cannot work in the alertmanager role's settings."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.fushuma.production.plugins.plugin_utils import alertmanager_model as model
from ansible_collections.fushuma.production.plugins.plugin_utils import alertmanager_routes as routing
from ansible_collections.fushuma.production.plugins.plugin_utils import listening, specs
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import Problem, repeated, value_of

Settings = Mapping[str, Any]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MAIL = re.compile(r"[^@\s,<>]+@[^@\s,<>]+")
SERVER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][A-Za-z0-9.-]*):(\d{1,5})")
DURATION = re.compile(r"(?=\d)(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
SECONDS = (7 * 86400, 86400, 3600, 60, 1)
# Names under which nobody from elsewhere is found.
PRIVATE_NAME = re.compile(r"[^.]+|.*\.(internal|lan|local|localhost|home\.arpa)")
WAYS = ("mail", "webhooks", "slack", "settings")
# Options of receivers that hold a secret, and those that name a file with it. Both releases know them all.
IN_FILES = {
    "api_key": "api_key_file",
    "api_url": "api_url_file",
    "auth_password": "auth_password_file",
    "bearer_token": "bearer_token_file",
    "client_secret": "client_secret_file",
    "credentials": "credentials_file",
    "password": "password_file",
    "routing_key": "routing_key_file",
    "service_key": "service_key_file",
}
OF_KIND = re.compile(r"[a-z]+_configs")
CRITICAL = {"severity": "critical"}
SHORTEST_HEARTBEAT, LONGEST_HEARTBEAT = 5, 3600  # seconds
TIMES = ("group_wait", "group_interval", "repeat_interval")
RECEIVER = '{"name": "operators", "mail": ["operators@fushuma.com"]}'


def problems(settings: Settings) -> list[Problem]:
    """Everything that cannot work. ``settings`` fit the role's argument_specs and hold all defaults."""
    shapes = list(_shape_problems(settings["alertmanager_routes"], "alertmanager_routes"))
    found = [*shapes, *_place_problems(settings), *_receivers_problems(settings), *_mail_problems(settings)]
    found += [*_heartbeat_problems(settings), *_time_problems(settings), *_cluster_problems(settings)]
    found += _inhibition_problems(settings)
    if shapes:
        return found
    routes = routing.whole(settings["alertmanager_routes"])
    misread = list(_matcher_problems(routes))
    found += [*misread, *_route_problems(settings, routes)]
    # Where a route cannot be read, nobody knows who gets what.
    return found if misread else [*found, *_reaching_problems(settings, routes), *_test_problems(settings, routes)]


def seconds(text: str) -> int:
    """``1h30m`` as seconds; -1 for what is no such text."""
    found = DURATION.fullmatch(text)
    return sum(int(many or 0) * each for many, each in zip(found.groups(), SECONDS, strict=True)) if found else -1


# --- who is told ------------------------------------------------------------------------------------------------------


def _receivers_problems(settings: Settings) -> Iterator[Problem]:
    found = settings["alertmanager_receivers"]
    if not found:
        yield Problem("alertmanager_receivers", "[]", "nobody would be told of anything", f"[{RECEIVER}]")
    yield from repeated("alertmanager_receivers", found, "name")
    for number, one in enumerate(found):
        yield from (problem.under(f"alertmanager_receivers[{number}]") for problem in _receiver_problems(one))
    for name, value in settings["alertmanager_secrets"].items():
        if not NAME.fullmatch(name):
            form = "letters, digits and dashes, such as pagerduty"
            yield Problem("alertmanager_secrets", value_of(name), "a file is called by it", form)
        if not str(value).strip():
            yield Problem(f"alertmanager_secrets.{name}", '""', "it is empty", "the secret")


def _receiver_problems(one: Mapping[str, Any]) -> Iterator[Problem]:
    if one["name"] == model.HEARTBEAT:
        yield Problem("name", value_of(one["name"]), "the role has a receiver of that name itself", '"operators"')
    elif not NAME.fullmatch(one["name"]):
        form = "letters, digits, dots and dashes, such as operators"
        yield Problem("name", value_of(one["name"]), "files and tests call it by its name", form)
    for number, address in enumerate(one["mail"]):
        if not MAIL.fullmatch(address):
            yield Problem(f"mail[{number}]", value_of(address), "it is no address for mail", '"operators@fushuma.com"')
    for way in ("webhooks", "slack"):
        for number, hook in enumerate(one[way]):
            yield from _address_problems(f"{way}[{number}].url", hook["url"])
    for kind, configs in one["settings"].items():
        if not OF_KIND.fullmatch(kind) or not isinstance(configs, list):
            form = '{"pagerduty_configs": [{"routing_key_file": "/etc/prometheus/alertmanager/secrets/pagerduty"}]}'
            yield Problem(f"settings.{kind}", "given", "it is no list of a kind of receivers", form)
        else:
            yield from _secret_problems(f"settings.{kind}", configs)


def _secret_problems(setting: str, value: object) -> Iterator[Problem]:
    """Secrets that stand in the configuration although they could be in files of their own."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            if key in IN_FILES:
                form = f"{IN_FILES[key]}: {model.FOLDER}/secrets/NAME, with NAME in alertmanager_secrets"
                yield Problem(f"{setting}.{key}", value_of(one, secret=True), "a secret has a file of its own", form)
            else:
                yield from _secret_problems(f"{setting}.{key}", one)
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from _secret_problems(f"{setting}[{number}]", one)


def _address_problems(setting: str, url: str) -> Iterator[Problem]:
    """What cannot work in an address that is a secret."""
    shown = value_of(url, secret=True)
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname or "", parts.port
    except ValueError:
        host = ""
    if not host or parts.scheme not in ("http", "https") or re.search(r"\s", url):
        yield Problem(setting, shown, "it is no address of a server that speaks HTTP", '"https://…"')
    elif parts.scheme == "http" and not _is_private(host):
        why = "everybody on the way could read what is wrong with the hosts, and the address, which is a secret"
        yield Problem(setting, shown, why, "https://")


def _is_private(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return bool(PRIVATE_NAME.fullmatch(host))


def _mail_problems(settings: Settings) -> Iterator[Problem]:
    mail = settings["alertmanager_mail"]
    needed = any(one["mail"] for one in settings["alertmanager_receivers"])
    smarthost = SERVER.fullmatch(mail["smarthost"])
    if mail["smarthost"] and not (smarthost and 0 < int(smarthost[2]) < 65536):
        form = '"mail.fushuma.com:587"'
        yield Problem("alertmanager_mail.smarthost", value_of(mail["smarthost"]), "it is no server with a port", form)
    elif needed and not mail["smarthost"]:
        why = "a receiver has mail, and nobody takes it"
        yield Problem("alertmanager_mail.smarthost", '""', why, '"mail.fushuma.com:587"')
    if (needed or mail["from"]) and not MAIL.fullmatch(mail["from"]):
        why = "mail needs the address of a sender"
        yield Problem("alertmanager_mail.from", value_of(mail["from"]), why, '"alerts@fushuma.com"')
    if mail["password"] and not mail["user"]:
        yield Problem("alertmanager_mail.user", '""', "there is a password, and nobody whose it is", "the user's name")
    if mail["user"] and not mail["password"]:
        yield Problem("alertmanager_mail.password", '""', "there is a user without one", "the password, or no user")
    if mail["password"] and not mail["tls"] and smarthost and not _is_loopback(smarthost[1].strip("[]")):
        why = "everybody on the way could read the password"
        yield Problem("alertmanager_mail.tls", "false", why, "true")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _heartbeat_problems(settings: Settings) -> Iterator[Problem]:
    heartbeat = settings["alertmanager_heartbeat"]
    if heartbeat["url"]:
        yield from _address_problems("alertmanager_heartbeat.url", heartbeat["url"])
    if not SHORTEST_HEARTBEAT <= seconds(heartbeat["interval"]) <= LONGEST_HEARTBEAT:
        why = "whoever waits outside wants it from every five seconds to every hour"
        yield Problem("alertmanager_heartbeat.interval", value_of(heartbeat["interval"]), why, '"1m"')


# --- routes -----------------------------------------------------------------------------------------------------------


def _shape_problems(routes: Sequence[Mapping[str, Any]], setting: str) -> Iterator[Problem]:
    """What does not fit the options within routes within routes: argument_specs end with the outermost."""
    option = specs.role_options("alertmanager")["alertmanager_routes"]
    for number, one in enumerate(routes):
        below = f"{setting}[{number}].routes"
        found = [problem.under(below) for problem in _misfits(option, one["routes"])]
        yield from found
        if not found:
            yield from _shape_problems(specs.filled({"routes": option}, one)["routes"], below)


def _misfits(option: Mapping[str, Any], routes: object) -> Iterator[Problem]:
    yield from specs.problems({"": option}, {"": routes})


def _matcher_problems(routes: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    for place, path in routing.paths(routes):
        yield from _matchers(f"alertmanager_routes{place}.matchers", path[-1]["matchers"])


def _matchers(setting: str, texts: Sequence[str]) -> Iterator[Problem]:
    for number, text in enumerate(texts):
        try:
            routing.matcher(text)
        except ValueError as error:
            form = "'severity=\"critical\"' or 'host=~\"web.*\"'"
            yield Problem(f"{setting}[{number}]", value_of(text), str(error), form)


def _route_problems(settings: Settings, routes: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    root = settings["alertmanager_route"]
    places = [("alertmanager_route", [root])]
    places += [(f"alertmanager_routes{place}", [root, *path]) for place, path in routing.paths(routes)]
    for place, path in places:
        yield from (problem.under(place) for problem in _name_problems(path[-1], settings))
        yield from (problem.under(place) for problem in _interval_problems(path, settings))
    for number, one in enumerate(routes[:-1]):
        if not one["matchers"] and not one["continue"]:
            why = "it takes all alerts, and the routes behind it get none"
            form = "matchers, or put it at the end, or say continue: true"
            yield Problem(f"alertmanager_routes[{number}].matchers", "[]", why, form)


def _name_problems(one: Mapping[str, Any], settings: Settings) -> Iterator[Problem]:
    """Names in a route of what is not there."""
    receivers = [each["name"] for each in settings["alertmanager_receivers"]]
    times = [each["name"] for each in settings["alertmanager_time_intervals"]]
    if one["receiver"] and one["receiver"] not in receivers:
        yield _unknown("receiver", one["receiver"], receivers, "no receiver has that name")
    for number, label in enumerate(one["group_by"] or []):
        if label != "..." and not LABEL.fullmatch(label):
            yield Problem(f"group_by[{number}]", value_of(label), "it is no label", '"alertname", or "..." for all')
    for key in ("mute_time_intervals", "active_time_intervals"):
        for number, name in enumerate(one.get(key, [])):
            if name not in times:
                yield _unknown(f"{key}[{number}]", name, times, "alertmanager_time_intervals has none of that name")


def _unknown(setting: str, name: str, known: Sequence[str], why: str) -> Problem:
    return Problem(setting, value_of(name), why, "one of " + ", ".join(known) if known else "one that is there")


def _interval_problems(path: Sequence[Mapping[str, Any]], settings: Settings) -> Iterator[Problem]:
    """What a route says of times, and what those around it say where it does not."""
    own, holds = path[-1], {}
    for key in TIMES:
        said = [one[key] for one in path if one[key]]
        holds[key] = seconds(said[-1]) if said else -1
        if own[key] and seconds(own[key]) < (0 if key == "group_wait" else 1):
            yield Problem(key, value_of(own[key]), "it is no time", '"30s", "5m" or "1h30m"')
            return
    if not any(own[key] for key in TIMES[1:]) or min(holds.values()) < 0:
        return
    if holds["repeat_interval"] < holds["group_interval"]:
        why = "whether it is told again is asked once in each group_interval, which is longer"
        yield Problem("repeat_interval", value_of(_said(path, "repeat_interval")), why, "at least the group_interval")
    kept = seconds(settings["alertmanager_retention"])
    if holds["repeat_interval"] > kept > 0:
        why = "what was told is forgotten before, after alertmanager_retention"
        yield Problem("repeat_interval", value_of(_said(path, "repeat_interval")), why, "at most that, such as 4h")


def _said(path: Sequence[Mapping[str, Any]], key: str) -> str:
    return [str(one[key]) for one in path if one[key]][-1]


def _reaching_problems(settings: Settings, routes: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    """Critical alerts of which nobody would be told, or not at all times."""
    telling = {one["name"] for one in settings["alertmanager_receivers"] if any(one[way] for way in WAYS)}
    names = {one["name"] for one in settings["alertmanager_receivers"]}
    otherwise = model.default_receiver(settings)
    if otherwise in names - telling:
        why = "it has neither mail nor webhooks, slack or settings, so what no route takes would reach nobody"
        setting = "alertmanager_route.receiver"
        yield Problem(setting, value_of(otherwise), why, "a receiver that tells somebody")
    form = 'severity!="critical" among its matchers'
    for place, path in routing.paths(routes):
        one = path[-1]
        if one["continue"] or not routing.may_take(path, "severity", "critical"):
            continue
        receiver = next((each["receiver"] for each in reversed(path) if each["receiver"]), otherwise)
        # What is wrong with the default is said above.
        if one["receiver"] and receiver in names - telling:
            why = "it tells nobody, and critical alerts may come that way"
            yield Problem(f"alertmanager_routes{place}.receiver", value_of(receiver), why, f"another one, or {form}")
        for key in ("mute_time_intervals", "active_time_intervals"):
            if one[key]:
                why = "critical alerts may come that way, and nobody would be told of them at other times"
                yield Problem(
                    f"alertmanager_routes{place}.{key}", value_of(one[key]), why, f"{form}, or continue: true"
                )


def _test_problems(settings: Settings, routes: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    names = [one["name"] for one in settings["alertmanager_receivers"]]
    names += [model.HEARTBEAT] * bool(settings["alertmanager_heartbeat"]["url"])
    for number, one in enumerate(settings["alertmanager_route_tests"]):
        setting = f"alertmanager_route_tests[{number}]"
        unreadable = [name for name, value in one["labels"].items() if not LABEL.fullmatch(name) or '"' in str(value)]
        unknown = [name for name in one["receivers"] if name not in names]
        if unreadable or not one["labels"]:
            form = '{"severity": "critical", "alertname": "HostDown"}'
            yield Problem(f"{setting}.labels", value_of(one["labels"]), "these are no labels of an alert", form)
        elif unknown:
            yield _unknown(f"{setting}.receivers", unknown[0], names, "no receiver has that name")
        elif (found := told(settings, routes, one["labels"])) != one["receivers"]:
            why = f"an alert with {_shown(one['labels'])} goes to {', '.join(found)}"
            form = "other routes, or the receivers that are meant"
            yield Problem(f"{setting}.receivers", value_of(one["receivers"]), why, form)


def told(settings: Settings, routes: Sequence[Mapping[str, Any]], labels: Mapping[str, Any]) -> list[str]:
    """The receivers of an alert, as amtool names them."""
    if labels.get("alertname") == model.WATCHDOG:
        return [model.HEARTBEAT if settings["alertmanager_heartbeat"]["url"] else model.NOBODY]
    return routing.receivers(routes, labels, model.default_receiver(settings))


def _shown(labels: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in labels.items())


def _time_problems(settings: Settings) -> Iterator[Problem]:
    yield from repeated("alertmanager_time_intervals", settings["alertmanager_time_intervals"], "name")
    if seconds(settings["alertmanager_retention"]) < SECONDS[2]:
        shown = value_of(settings["alertmanager_retention"])
        why = "what was told would be forgotten, and told again"
        yield Problem("alertmanager_retention", shown, why, '"120h"')


def _inhibition_problems(settings: Settings) -> Iterator[Problem]:
    wanted = settings["alertmanager_inhibition"]
    for number, label in enumerate(wanted["labels"]):
        if not LABEL.fullmatch(label):
            yield Problem(f"alertmanager_inhibition.labels[{number}]", value_of(label), "it is no label", '"host"')
    for number, name in enumerate(wanted["host_down"]):
        if not LABEL.fullmatch(name):
            form = '"HostDown"'
            yield Problem(f"alertmanager_inhibition.host_down[{number}]", value_of(name), "it is no alert's name", form)
    for number, one in enumerate(settings["alertmanager_inhibit_rules"]):
        setting = f"alertmanager_inhibit_rules[{number}]"
        for key in ("source_matchers", "target_matchers"):
            yield from _matchers(f"{setting}.{key}", one[key])
            if not one[key]:
                why = "without a condition it would be every alert"
                yield Problem(f"{setting}.{key}", "[]", why, "'alertname=\"DatabaseDown\"'")


# --- where it listens -------------------------------------------------------------------------------------------------


def _place_problems(settings: Settings) -> Iterator[Problem]:
    yield from listening.problems(settings, "alertmanager_")
    port, url = settings["alertmanager_port"], settings["alertmanager_external_url"]
    if not 1 <= port <= 65535:
        yield Problem("alertmanager_port", value_of(port), "ports go from 1 to 65535", "9093")
    if url and not re.fullmatch(r"https?://[^\s\"'$\\]+", url):
        yield Problem("alertmanager_external_url", value_of(url), "it is no address", '"https://alerts.fushuma.com"')
    tls, users = settings["alertmanager_tls"], settings["alertmanager_users"]
    for one, other in (("certificate", "key"), ("key", "certificate"), ("certificate", "authority")):
        if tls[other] and not tls[one]:
            yield Problem(f"alertmanager_tls.{one}", '""', f"there is the {other} without it", "the path of a file")
    others = [one for one in settings["alertmanager_addresses"] if not _is_loopback(one)]
    if others and not (tls["certificate"] and users):
        why = "whoever reaches it could silence all alerts"
        form = "alertmanager_tls and alertmanager_users too, or the loopback address alone"
        yield Problem("alertmanager_addresses", value_of(others), why, form)
    yield from repeated("alertmanager_users", users, "name")
    for number, one in enumerate(users):
        if not NAME.fullmatch(one["name"]):
            form = "letters and digits, such as prometheus"
            yield Problem(f"alertmanager_users[{number}].name", value_of(one["name"]), "it is no name for a user", form)


def _cluster_problems(settings: Settings) -> Iterator[Problem]:
    cluster = settings["alertmanager_cluster"]
    for number, peer in enumerate(cluster["peers"]):
        if not _is_private_peer(peer):
            why = "it is no private address with a port, and what they say to each other is not encrypted"
            yield Problem(f"alertmanager_cluster.peers[{number}]", value_of(peer), why, '"10.0.1.6:9094"')
    if cluster["peers"] and not cluster["address"]:
        why = "there are peers, and they reach it nowhere"
        yield Problem("alertmanager_cluster.address", '""', why, "this host's private address, such as 10.0.1.5")
    if cluster["address"] and not _is_private_peer(f"[{cluster['address']}]:1"):
        why = "it is no private address, and what they say to each other is not encrypted"
        yield Problem("alertmanager_cluster.address", value_of(cluster["address"]), why, '"10.0.1.5"')
    if not 1 <= cluster["port"] <= 65535:
        yield Problem("alertmanager_cluster.port", value_of(cluster["port"]), "ports go from 1 to 65535", "9094")


def _is_private_peer(peer: str) -> bool:
    host, _colon, port = peer.rpartition(":")
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return address.is_private and not address.is_unspecified and port.isdigit() and 0 < int(port) < 65536
