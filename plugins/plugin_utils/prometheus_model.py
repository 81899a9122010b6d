# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the prometheus role writes down, worked out of its settings."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import yaml
from ansible.utils.encrypt import do_encrypt
from ansible_collections.fushuma.production.plugins.plugin_utils import alert_rules
from ansible_collections.fushuma.production.plugins.plugin_utils.sizes import bytes_of

Settings = Mapping[str, Any]
Group = dict[str, Any]

FOLDER = "/etc/prometheus"
SECRETS = f"{FOLDER}/secrets"
DATA = "/var/lib/prometheus/metrics2"
MANAGED = "# Managed by Ansible, role fushuma.production.prometheus; changes by hand are undone by the next run.\n"
# No file has such a name. It stands in the configuration so that the running server tells which files it works with.
DIGEST = f"{FOLDER}/rules/none-@config_digest@*"
# Passwords are long enough for no cost to matter much, and each hash is worked out in each run.
BCRYPT_COST = 8
SALT_LENGTH = 22  # characters, of
SALT_BYTES = 16
BCRYPT_ALPHABET = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
BASE64_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
# The keys of a job for whose values Prometheus reads a file too, and how others look that hold secrets.
IN_FILES = ("bearer_token", "client_secret", "credentials", "password")
SECRET_KEY = re.compile(r"(password|secret|token|key|credential\w*)$")
GOES_SLOW = 0.9  # the part of its memory from which the server frees what it does not need

_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def model(settings: Settings, host: str) -> dict[str, Any]:
    """``settings`` fit the role's argument_specs and hold all defaults; ``host`` is the inventory's name.

    The result: ``files`` that everybody may read and ``private`` ones, each ``{path, content}`` below /etc/prometheus;
    ``flags`` of the server; ``memory`` in bytes, and ``busy``, the part of it from which it tidies up.
    """
    # What comes from variables carries Ansible's marks, which YAML does not know.
    settings, host = json.loads(json.dumps([settings, host]))
    secrets: dict[str, str] = {}
    config = _file("prometheus.yml", _yaml(_config(settings, host, secrets)))
    rules = [_file(f"rules/{name}", text) for name, text in sorted(alert_rules.rendered(settings).items())]
    private = [{"path": f"secrets/{name}", "content": text} for name, text in sorted(secrets.items())]
    # What a private file says, nobody is told, not even where it does not work.
    web = {"path": "web.yml", "content": _yaml(_web(settings, host))}
    is_open = {"prometheus.yml": not _has_secrets(settings["prometheus_scrape_configs"])}
    is_open["web.yml"] = not settings["prometheus_users"]
    own = (config, web)
    memory = bytes_of(settings["prometheus_memory"])
    return {
        "files": [*(one for one in own if is_open[one["path"]]), *rules],
        "private": [*(one for one in own if not is_open[one["path"]]), *private],
        "flags": _flags(settings),
        "memory": memory,
        "busy": int(memory * GOES_SLOW),
    }


def _file(path: str, text: str) -> dict[str, str]:
    return {"path": path, "content": MANAGED + text}


def _yaml(value: Any) -> str:
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True))


# --- prometheus.yml ---------------------------------------------------------------------------------------------------


def _config(settings: Settings, host: str, secrets: dict[str, str]) -> Group:
    """The configuration. Passwords go to ``secrets``, by the names of their files."""
    times = settings["prometheus_intervals"]
    config: Group = {
        "global": {
            "scrape_interval": times["scrape"],
            "scrape_timeout": times["timeout"],
            "evaluation_interval": times["evaluation"],
            **_if(external_labels=_texts(settings["prometheus_external_labels"])),
        },
        "rule_files": [f"{FOLDER}/rules/*.yml", DIGEST],
        "scrape_configs": [
            *_jobs(settings, host, secrets),
            *(
                _apart(job, f"own-{number}", secrets)
                for number, job in enumerate(settings["prometheus_scrape_configs"])
            ),
        ],
    }
    if settings["prometheus_alertmanagers"]:
        config["alerting"] = {"alertmanagers": list(_alertmanagers(settings, secrets))}
    if settings["prometheus_remote_write"]:
        config["remote_write"] = [_store(one, secrets) for one in settings["prometheus_remote_write"]]
    return config


def _jobs(settings: Settings, host: str, secrets: dict[str, str]) -> Iterator[Group]:
    """One job for all targets that are asked in the same way."""
    for (job, scheme, path, user, password, insecure), (name, targets) in _grouped(settings, host).items():
        if password:
            secrets[f"job-{name}"] = password
        yield {
            "job_name": name,
            **_if(scheme=scheme if scheme != "http" else "", metrics_path=path if path != "/metrics" else ""),
            **_login(user, f"job-{name}"),
            **_if(tls_config={"insecure_skip_verify": True} if insecure else {}),
            "static_configs": [
                {"targets": [one["address"]], "labels": labels_of(one) | ({"job": job} if job != name else {})}
                for one in targets
            ],
        }


def _apart(value: Any, name: str, secrets: dict[str, str]) -> Any:
    """A part of an operator's job, with its secrets in files wherever Prometheus reads them from one."""
    if isinstance(value, list):
        return [_apart(one, f"{name}-{number}", secrets) for number, one in enumerate(value)]
    if not isinstance(value, dict):
        return value
    found = {}
    for key, one in value.items():
        if key in IN_FILES and isinstance(one, str):
            secrets[f"{name}-{key}"] = one
            found[f"{key}_file"] = f"{SECRETS}/{name}-{key}"
        else:
            found[key] = _apart(one, name, secrets)
    return found


def _has_secrets(value: Any) -> bool:
    """Whether secrets stay in an operator's jobs, such as those of a service discovery."""
    if isinstance(value, list):
        return any(_has_secrets(one) for one in value)
    if not isinstance(value, dict):
        return False
    return any((SECRET_KEY.search(key) and key not in IN_FILES) or _has_secrets(one) for key, one in value.items())


def _grouped(settings: Settings, host: str) -> dict[tuple[Any, ...], tuple[str, list[Group]]]:
    found: dict[tuple[Any, ...], tuple[str, list[Group]]] = {}
    for one in targets_of(settings, host):
        key = (one["job"], one["scheme"], one["path"], one["user"], one["password"], one["insecure"])
        if key not in found:
            before = sum(other[0] == one["job"] for other in found)
            found[key] = (f"{one['job']}-{before + 1}" if before else one["job"], [])
        found[key][1].append(one)
    return found


def job_names(settings: Settings, host: str) -> list[str]:
    """The names of the jobs that follow from the settings."""
    return [name for name, _targets in _grouped(settings, host).values()]


def targets_of(settings: Settings, host: str) -> Iterator[Group]:
    """All that is scraped: the server itself, what it was told, and each probe through the blackbox exporter."""
    yield itself(settings, host)
    yield from settings["prometheus_targets"]
    for one in settings["prometheus_probes"]:
        yield _probe(one, settings["prometheus_blackbox"])


def itself(settings: Settings, host: str) -> Group:
    """The server as its own target. It knows its own certificate."""
    user = (settings["prometheus_users"] or [{"name": "", "password": ""}])[0]
    encrypted = settings["prometheus_tls"] is not None
    return {
        "job": "prometheus",
        "host": host,
        "address": own_address(settings),
        "scheme": "https" if encrypted else "http",
        "path": "/metrics",
        "params": {},
        "labels": {},
        "user": user["name"],
        "password": user["password"],
        "insecure": encrypted,
    }


def own_address(settings: Settings) -> str:
    """Where the host itself reaches the server, as ``host:port``."""
    address = ipaddress.ip_address(settings["prometheus_address"])
    if address.is_unspecified:
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    return f"{bracketed(str(address))}:{settings['prometheus_port']}"


def bracketed(address: str) -> str:
    """An address as it stands before a port."""
    return f"[{address}]" if ":" in address else address


def _probe(one: Mapping[str, Any], blackbox: str) -> Group:
    params = {"module": one["module"] + ("_insecure" if one["insecure"] else ""), "target": one["url"]}
    if one["address"] and "://" in one["url"]:
        parts = urlsplit(one["url"])
        there = one["address"]
        if parts.port and not _has_port(there):
            there = f"{bracketed(there.strip('[]'))}:{parts.port}"
        elif not _has_port(there):
            there = bracketed(there.strip("[]"))
        params |= {"target": parts._replace(netloc=there).geturl(), "hostname": parts.hostname or ""}
    return {
        "job": "probe",
        "host": one["host"],
        "address": blackbox,
        "scheme": "http",
        "path": "/probe",
        "params": params,
        "labels": {"instance": one["name"], "site": one["name"], "url": one["url"]},
        "user": "",
        "password": "",
        "insecure": False,
    }


def _has_port(address: str) -> bool:
    """Whether it is ``host:port`` rather than a name or an address of either family."""
    return address.count(":") == 1 or "]:" in address


def labels_of(target: Mapping[str, Any]) -> dict[str, str]:
    """The labels of a target's series, with the parameters of its URL, which Prometheus takes from labels too."""
    params = {f"__param_{name}": value for name, value in target["params"].items()}
    return {"host": target["host"], "instance": target["host"], **_texts(target["labels"]), **_texts(params)}


def _alertmanagers(settings: Settings, secrets: dict[str, str]) -> Iterator[Group]:
    for number, one in enumerate(settings["prometheus_alertmanagers"]):
        if one["password"]:
            secrets[f"alertmanager-{number}"] = one["password"]
        yield {
            **_if(scheme=one["scheme"] if one["scheme"] != "http" else ""),
            **_login(one["user"], f"alertmanager-{number}"),
            **_if(tls_config={"insecure_skip_verify": True} if one["insecure"] else {}),
            "static_configs": [{"targets": [one["address"]]}],
        }


def _store(one: Mapping[str, Any], secrets: dict[str, str]) -> Group:
    secret = f"remote-{one['name']}"
    if one["password"] or one["bearer"]:
        secrets[secret] = one["password"] or one["bearer"]
    tls = one["tls"] or {}
    return {
        "name": one["name"],
        "url": one["url"],
        "remote_timeout": one["timeout"],
        **_login(one["user"], secret),
        **_if(authorization={"credentials_file": f"{SECRETS}/{secret}"} if one["bearer"] else {}),
        **_if(
            tls_config=_if(
                ca_file=tls.get("authority"),
                cert_file=tls.get("certificate"),
                key_file=tls.get("key"),
                server_name=tls.get("server_name"),
                insecure_skip_verify=tls.get("insecure"),
            )
        ),
        **_if(queue_config=one["queue"], write_relabel_configs=one["relabel"]),
    }


def _login(user: str, secret: str) -> Group:
    return {"basic_auth": {"username": user, "password_file": f"{SECRETS}/{secret}"}} if user else {}


def _if(**given: Any) -> Group:
    """Those that are something."""
    return {name: value for name, value in given.items() if value}


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in values.items()}


# --- the server itself ------------------------------------------------------------------------------------------------


def _web(settings: Settings, host: str) -> Group:
    """web.yml, which is an empty group where everybody on the host may ask without TLS."""
    tls = settings["prometheus_tls"]
    return _if(
        tls_server_config={"cert_file": tls["certificate"], "key_file": tls["key"]} if tls else {},
        basic_auth_users={
            one["name"]: hashed(one["password"], f"{host} {one['name']}") for one in settings["prometheus_users"]
        },
    )


@lru_cache
def hashed(password: str, whose: str) -> str:
    """The bcrypt hash of a password, the same in each run.

    The salt follows from whose it is alone: one that followed from the password would let others guess it quickly.
    """
    seed = hashlib.sha256(f"prometheus {whose}".encode()).hexdigest()[:SALT_LENGTH]
    encoded = base64.b64encode(seed[:SALT_BYTES].encode()).decode().rstrip("=")
    salt = encoded.translate(str.maketrans(BASE64_ALPHABET, BCRYPT_ALPHABET))
    # ansible-core takes the salt itself, or in newer versions the bytes that are encoded in it.
    hashes = (str(do_encrypt(password, "bcrypt", salt=one, rounds=BCRYPT_COST)) for one in (salt, seed))
    return next(one for one in hashes if f"${salt}" in one)


def _flags(settings: Settings) -> list[str]:
    kept = settings["prometheus_retention"]
    listen = f"{bracketed(settings['prometheus_address'])}:{settings['prometheus_port']}"
    flags: dict[str, Any] = {
        "config.file": f"{FOLDER}/prometheus.yml",
        # How long a stop may wait for remote stores; they have to do without what they do not take.
        "storage.remote.flush-deadline": "10s",
        "storage.tsdb.path": DATA,
        "storage.tsdb.retention.time": kept["time"],
        "storage.tsdb.retention.size": kept["size"].upper(),
        "web.config.file": f"{FOLDER}/web.yml",
        "web.listen-address": listen,
        # Whoever reaches it by another path comes through a proxy that takes that path away.
        "web.route-prefix": "/",
        **_if(**{"web.external-url": settings["prometheus_url"]}),
        **settings["prometheus_flags"],
    }
    return [argument(name, value) for name, value in flags.items()]


def argument(name: str, value: Any) -> str:
    """A flag as it stands in a unit; a bool is a flag without a value."""
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"--{name}={text}"'
