# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the alertmanager role writes down, worked out of its settings."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from ansible_collections.fushuma.production.plugins.plugin_utils.alertmanager_routes import Matcher, matcher, whole

Settings = Mapping[str, Any]

FOLDER = "/etc/prometheus/alertmanager"
CONFIG = "/etc/prometheus/alertmanager.yml"
MESSAGES = "/etc/prometheus/alertmanager_templates/production.tmpl"
PORT_OF_SMTPS = "465"
WATCHDOG = "Watchdog"
HEARTBEAT = "heartbeat"
# A receiver that tells nobody. Its name has a digest of all files in it, so that the API shows with which Alertmanager
# runs; the engine fills it in.
NOBODY = "nobody @config_digest@"
NOT_AUTHORIZED = 401


def model(settings: Settings, host: str, address: str) -> dict[str, Any]:
    """``settings`` have passed the judge and hold all defaults; others find the host at the ``address``.

    The result: ``files`` as service_config takes them, none of which others may read; ``arguments`` of Alertmanager;
    ``url``, where the host itself reaches it; ``validate`` and ``probes`` as service_config takes them;
    ``cluster``, the addresses of its peers; ``reach``, how other hosts reach it, ``{address, scheme}`` and ``user`` and
    ``password`` of the first user; ``messages``, for each receiver how many of them one alert makes.
    """
    return {
        "files": list(_files(settings, host)),
        "arguments": list(_arguments(settings)),
        "url": own_url(settings),
        "validate": list(_checks(settings)),
        "probes": list(_probes(settings)),
        "cluster": [_address_of(one) for one in settings["alertmanager_cluster"]["peers"]],
        "reach": _reach(settings, address),
        "messages": {one["name"]: sum(map(len, _ways(one).values())) for one in settings["alertmanager_receivers"]},
    }


# --- the configuration ------------------------------------------------------------------------------------------------


def config(settings: Settings) -> dict[str, Any]:
    """Alertmanager's configuration."""
    receivers = [_receiver(one) for one in settings["alertmanager_receivers"]]
    heartbeat = settings["alertmanager_heartbeat"]
    if heartbeat["url"]:
        webhook = {"url": heartbeat["url"], "send_resolved": False}
        receivers.append({"name": HEARTBEAT, "webhook_configs": [webhook]})
    return {
        "global": _global(settings["alertmanager_mail"]),
        "templates": [MESSAGES],
        "route": {
            **_known(settings["alertmanager_route"]),
            "receiver": default_receiver(settings),
            "routes": [_watchdog(heartbeat), *map(_route, whole(settings["alertmanager_routes"]))],
        },
        "inhibit_rules": list(_inhibitions(settings)),
        "receivers": [*receivers, {"name": NOBODY}],
        "time_intervals": settings["alertmanager_time_intervals"],
    }


def default_receiver(settings: Settings) -> str:
    """Who gets what no route takes."""
    named = str(settings["alertmanager_route"]["receiver"])
    return named or next((str(one["name"]) for one in settings["alertmanager_receivers"]), "")


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is not said."""
    return {key: value for key, value in values.items() if value not in (None, "", [], {}, False)}


def _global(mail: Mapping[str, Any]) -> dict[str, Any]:
    if not mail["smarthost"]:
        return {}
    said = {
        "smtp_smarthost": mail["smarthost"],
        "smtp_from": mail["from"],
        "smtp_hello": mail["hello"],
        "smtp_auth_username": mail["user"],
        "smtp_auth_password_file": f"{FOLDER}/mail" if mail["password"] else "",
    }
    # Where TLS is spoken from the beginning, the server offers no STARTTLS, which this asks for.
    starts_tls = mail["tls"] and mail["smarthost"].rpartition(":")[2] != PORT_OF_SMTPS
    return {**_known(said), "smtp_require_tls": starts_tls}


def _receiver(one: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": one["name"], **_known(_ways(one))}


def _ways(one: Mapping[str, Any]) -> dict[str, Any]:
    """How a receiver is told, by kinds."""
    told = {"send_resolved": one["resolved"]}
    subject = {"Subject": '{{ template "production.title" . }}'}
    text = '{{ template "production.text" . }}'
    ways = {
        "email_configs": [{"to": to, **told, "headers": subject, "html": "", "text": text} for to in one["mail"]],
        "webhook_configs": [
            {"url": hook["url"], **told, **_authorization(f"{one['name']}.webhook{number}", hook["token"])}
            for number, hook in enumerate(one["webhooks"])
        ],
        "slack_configs": [
            {
                "api_url_file": f"{FOLDER}/{one['name']}.slack{number}",
                **told,
                **_known({"channel": slack["channel"], "username": slack["username"]}),
                "title": '{{ template "production.title" . }}',
                "title_link": '{{ template "production.link" . }}',
                "text": text,
                "fallback": '{{ template "production.title" . }}',
                "color": '{{ template "production.color" . }}',
            }
            for number, slack in enumerate(one["slack"])
        ],
    }
    for kind, configs in one["settings"].items():
        ways[kind] = [*ways.get(kind, []), *({**told, **each} for each in configs)]
    return ways


def _authorization(name: str, token: str) -> dict[str, Any]:
    return {"http_config": {"authorization": {"credentials_file": f"{FOLDER}/{name}"}}} if token else {}


def _watchdog(heartbeat: Mapping[str, Any]) -> dict[str, Any]:
    route = {"matchers": [str(Matcher("alertname", "=", WATCHDOG))]}
    if not heartbeat["url"]:
        return {"receiver": NOBODY, **route}
    interval = heartbeat["interval"]
    # Whether it is told again is asked once in each interval, and what was told a moment less than an interval ago
    # would wait for the next one.
    return {
        "receiver": HEARTBEAT,
        **route,
        "group_by": ["alertname"],
        "group_wait": "0s",
        "group_interval": interval,
        "repeat_interval": "1s",
    }


def _route(one: Mapping[str, Any]) -> dict[str, Any]:
    matchers = [str(matcher(text)) for text in one["matchers"]]
    return _known({**one, "matchers": matchers, "routes": [_route(inner) for inner in one["routes"]]})


def _inhibitions(settings: Settings) -> Iterator[dict[str, Any]]:
    wanted = settings["alertmanager_inhibition"]
    if wanted["labels"]:
        for label in ("alertname", "subject"):
            named = str(Matcher(label, "!=", ""))
            yield {
                "source_matchers": ['severity="critical"', named],
                "target_matchers": ['severity=~"warning|info"', named],
                "equal": [label, *wanted["labels"]],
            }
    if wanted["host_down"]:
        down = "|".join(wanted["host_down"])
        yield {
            "source_matchers": [str(Matcher("alertname", "=~", down)), 'host!=""'],
            "target_matchers": [str(Matcher("alertname", "!~", f"{down}|{WATCHDOG}")), 'host!=""'],
            "equal": ["host"],
        }
    for one in settings["alertmanager_inhibit_rules"]:
        yield {
            "source_matchers": [str(matcher(text)) for text in one["source_matchers"]],
            "target_matchers": [str(matcher(text)) for text in one["target_matchers"]],
            "equal": one["equal"],
        }


# --- its files --------------------------------------------------------------------------------------------------------


def _files(settings: Settings, host: str) -> Iterator[dict[str, str]]:
    yield _file(CONFIG, _as_yaml(config(settings)))
    # Without a line's end: Alertmanager 0.25 takes it for a part of the mail's password.
    yield from (_file(f"{FOLDER}/{name}", content) for name, content in _secrets(settings))
    if has_web_file(settings):
        yield _file(f"{FOLDER}/client.yml", _as_yaml(_client(settings, host)))


def _file(path: str, content: str) -> dict[str, str]:
    return {"dest": path, "content": content, "group": "prometheus", "mode": "0640"}


def _secrets(settings: Settings) -> Iterator[tuple[str, str]]:
    if settings["alertmanager_mail"]["password"]:
        yield "mail", settings["alertmanager_mail"]["password"]
    for one in settings["alertmanager_receivers"]:
        for number, hook in enumerate(one["webhooks"]):
            if hook["token"]:
                yield f"{one['name']}.webhook{number}", hook["token"]
        for number, slack in enumerate(one["slack"]):
            yield f"{one['name']}.slack{number}", slack["url"]
    for name, value in settings["alertmanager_secrets"].items():
        yield f"secrets/{name}", str(value)
    for one in settings["alertmanager_users"][:1]:
        yield "client.password", one["password"]


def tls_of(settings: Settings) -> Mapping[str, Any]:
    """How TLS is spoken; empty where it is not."""
    tls: Mapping[str, Any] = settings["alertmanager_tls"]
    return tls if tls["certificate"] else {}


def has_web_file(settings: Settings) -> bool:
    return bool(tls_of(settings) or settings["alertmanager_users"])


def _client(settings: Settings, host: str) -> dict[str, Any]:
    """How amtool on the host speaks to it."""
    tls, users = tls_of(settings), settings["alertmanager_users"]
    said: dict[str, Any] = {}
    if users:
        said["basic_auth"] = {"username": users[0]["name"], "password_file": f"{FOLDER}/client.password"}
    if tls:
        said["tls_config"] = _known({"ca_file": tls["authority"], "server_name": tls["name"] or host})
    return said


def _as_yaml(value: Any) -> str:
    # Through JSON: texts of an inventory are of classes of Ansible's own, which YAML does not know.
    plain = json.loads(json.dumps(value, default=str))
    return yaml.safe_dump(plain, sort_keys=False, width=1000, allow_unicode=True)


# --- how it runs, and is asked ----------------------------------------------------------------------------------------


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _address_of(peer: str) -> str:
    return peer.rpartition(":")[0].strip("[]")


def _listening(settings: Settings) -> list[str]:
    port = settings["alertmanager_port"]
    return [f"{_bracketed(address)}:{port}" for address in settings["alertmanager_addresses"]]


def _arguments(settings: Settings) -> Iterator[str]:
    yield from (f"--web.listen-address={one}" for one in _listening(settings))
    if has_web_file(settings):
        yield f"--web.config.file={FOLDER}/web.yml"
    if settings["alertmanager_external_url"]:
        # Whoever brings people to it takes the path away.
        yield f"--web.external-url={settings['alertmanager_external_url']}"
    yield "--web.route-prefix=/"
    yield f"--data.retention={settings['alertmanager_retention']}"
    cluster = settings["alertmanager_cluster"]
    if not cluster["address"]:
        yield "--cluster.listen-address="
        return
    yield f"--cluster.listen-address={_bracketed(cluster['address'])}:{cluster['port']}"
    yield from (f"--cluster.peer={one}" for one in cluster["peers"])


def own_url(settings: Settings) -> str:
    """Where the host itself reaches it."""
    scheme = "https" if tls_of(settings) else "http"
    local = [one for one in _ip_addresses(settings) if one.is_loopback or one.is_unspecified]
    address = str((local or _ip_addresses(settings))[0])
    own = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
    return f"{scheme}://{_bracketed(own)}:{settings['alertmanager_port']}"


def _ip_addresses(settings: Settings) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    return [ipaddress.ip_address(one) for one in settings["alertmanager_addresses"]]


def _reach(settings: Settings, address: str) -> dict[str, str]:
    """How others reach it: under the name in its certificate, or where it listens for others, if it does."""
    tls, users = tls_of(settings), settings["alertmanager_users"]
    found = _ip_addresses(settings)
    best = next((one for one in found if not one.is_loopback), found[0])
    place = (tls["name"] if tls else "") or (address if best.is_unspecified else str(best))
    reach = {
        "address": f"{_bracketed(place)}:{settings['alertmanager_port']}",
        "scheme": "https" if tls else "http",
    }
    return {**reach, "user": users[0]["name"], "password": users[0]["password"]} if users else reach


def _checks(settings: Settings) -> Iterator[list[str]]:
    yield ["/usr/bin/amtool", "check-config", CONFIG]
    for one in settings["alertmanager_route_tests"]:
        labels = [f"{name}={value}" for name, value in one["labels"].items()]
        wanted = f"--verify.receivers={','.join(one['receivers'])}"
        yield ["/usr/bin/amtool", "config", "routes", "test", f"--config.file={CONFIG}", wanted, *labels]


def _probes(settings: Settings) -> Iterator[dict[str, Any]]:
    url, runs = own_url(settings), NOBODY
    if settings["alertmanager_users"]:
        yield {"http": f"{url}/-/ready", "status": NOT_AUTHORIZED}
        yield {"exec": ["/usr/bin/amtool", "config", "show"], "body": runs}
        return
    yield {"http": f"{url}/-/ready"}
    yield {"http": f"{url}/api/v2/receivers", "body": runs}
