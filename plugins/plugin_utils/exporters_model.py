# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the exporters role writes down and tells others, worked out of its settings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Settings = Mapping[str, Any]
Source = Mapping[str, Any]

NAMES = ("node", "nginx", "redis", "mysqld", "blackbox")
# Which kind of source is measured by which exporter.
MEASURED = {"nginx": "nginx", "redis": "redis", "mariadb": "mysqld"}
# How often each program writes its figures, and the capabilities it needs for that. All timers stay on the host, so
# that one that is not wanted can be switched off like any unit.
PROGRAMS: Mapping[str, Mapping[str, str]] = {
    "host": {"every": "1h", "capabilities": "CAP_DAC_READ_SEARCH"},
    "containers": {"every": "30s", "capabilities": ""},
}
FOLDER = "/etc/prometheus-exporters"
BLACKBOX = "/etc/prometheus/blackbox.yml"

# What an exporter needs besides TCP: everything else is taken away from all of them.
NEEDS: Mapping[str, Mapping[str, Any]] = {
    # It asks systemd and the kernel, and must see processes and mounts as they are.
    "node": {"families": ["AF_UNIX", "AF_NETLINK"], "looks_around": True, "calls": ["adjtimex", "clock_adjtime"]},
    "mysqld": {"families": ["AF_UNIX"]},
}


def model(settings: Settings, host: str) -> dict[str, Any]:
    """What the tasks and templates take. ``settings`` fit the role's argument_specs and hold all defaults."""
    sources = settings["exporters_sources"]
    wanted = _wanted(settings)
    timers = ["host", *(["containers"] if _of(sources, "containers") else [])]
    return {
        "packages": [*(_package(name) for name in wanted), "openssl", "python3"],
        "units": [*(f"{_package(name)}.service" for name in wanted), *map(_timer, timers)],
        "unwanted_units": [
            *(f"{_package(name)}.service" for name in NAMES if name not in wanted),
            *(_timer(name) for name in PROGRAMS if name not in timers),
            # Debian's own program for the same figures: they may come from one only.
            "prometheus-node-exporter-apt.timer",
        ],
        "files": list(_files(settings, wanted, timers)),
        "probes": list(_probes(settings, wanted)),
        **exports(settings, host),
    }


def exports(settings: Settings, host: str) -> dict[str, list[dict[str, Any]]]:
    """What others need to know; it needs no more of the settings than they have."""
    wanted = _wanted(settings)
    units = [f"{_package(name)}.service" for name in wanted]
    return {
        "scrapes": [*_scrapes(settings, host, wanted)],
        "listens": [
            {
                "port": settings["exporters_ports"][name],
                "address": settings["exporters_address"],
                "from": settings["exporters_from"],
                "setting": f"exporters_ports.{name}",
            }
            for name in wanted
        ],
        "health": [{"name": "exporters", "units": units}],
        "logs": [{"unit": unit, "job": "exporters"} for unit in units],
    }


def redis_url(source: Source) -> str:
    """Where the exporter finds an instance, as it is asked for it."""
    return f"{'rediss' if source['tls'] else 'redis'}://{_bracketed(source['host'])}:{source['port']}"


def redis_user(sources: Iterable[Source]) -> str:
    """The one user by whom all instances are asked; Debian 12's exporter takes no other one for each."""
    return next((str(one["user"]) for one in _of(sources, "redis")), "")


def _of(sources: Iterable[Source], job: str) -> list[Source]:
    """Those of a kind. What writes a file of figures itself needs no exporter."""
    return [one for one in sources if one["job"] == job and not one["textfile"]]


def _wanted(settings: Settings) -> list[str]:
    measured = {name for job, name in MEASURED.items() if _of(settings["exporters_sources"], job)}
    measured |= {"node", "blackbox"} if settings["exporters_blackbox"] else {"node"}
    return [name for name in NAMES if name in measured]


def _package(name: str) -> str:
    return f"prometheus-{name}-exporter"


def _timer(name: str) -> str:
    return f"production-figures-{name}.timer"


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _asked_at(settings: Settings, name: str) -> str:
    return f"{_bracketed(settings['exporters_address'])}:{settings['exporters_ports'][name]}"


def _json(value: object) -> str:
    return json.dumps(value, indent=2, sort_keys=True) + "\n"


def _files(settings: Settings, wanted: Iterable[str], timers: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The files that depend on settings, as service_config takes them."""
    modules, drop_in = _modules(settings), "/etc/systemd/system/{unit}.service.d/production.conf"
    exporters = [_exporter(settings, name, modules) for name in wanted]
    others = [{"unit": _package(name)} for name in NAMES if name not in wanted]
    yield {"src": "default.j2", "dest": "/etc/default/{unit}", "each": exporters}
    yield {"src": "unit.conf.j2", "dest": drop_in, "each": exporters}
    yield {"dest": drop_in, "state": "absent", "on_change": "nothing", "each": others}
    secrets = list(_secrets(settings["exporters_sources"]))
    yield {"src": "content.j2", "dest": f"{FOLDER}/{{name}}", "mode": "0600", "each": secrets}
    if "blackbox" in wanted:
        yield {"content": _json({"modules": modules}), "dest": BLACKBOX}
    figures = {
        "wanted": list(timers),
        "folder": settings["exporters_textfile_folder"],
        "docker": "/run/docker.sock",
        "certificates": settings["exporters_certificates"],
        "ignored": settings["exporters_drift_ignored"],
    }
    yield {"content": _json(figures), "dest": f"{FOLDER}/figures.json", "on_change": "nothing"}
    programs = [{"name": name, "folder": figures["folder"], **PROGRAMS[name]} for name in PROGRAMS]
    for kind, change in (("service", "nothing"), ("timer", "restart")):
        place = f"/etc/systemd/system/production-figures-{{name}}.{kind}"
        yield {"src": f"figures.{kind}.j2", "dest": place, "on_change": change, "each": programs}
    # What nobody writes any more would be shown for ever.
    gone = [{"name": f"production_{name}"} for name in PROGRAMS if name not in timers]
    place = f"{figures['folder']}/{{name}}.prom"
    yield {"dest": place, "state": "absent", "on_change": "nothing", "each": [*gone, {"name": "apt"}]}


# --- one exporter -----------------------------------------------------------------------------------------------------


def _exporter(settings: Settings, name: str, modules: Mapping[str, Any]) -> dict[str, Any]:
    needs = NEEDS.get(name, {})
    pings = name == "blackbox" and any(one.get("prober") == "icmp" for one in modules.values())
    given = [f"--web.listen-address={_asked_at(settings, name)}", *_arguments(settings, name)]
    credential = CREDENTIALS.get(name, "")
    return {
        "name": name,
        "unit": _package(name),
        "arguments": " ".join([*given, *settings["exporters_arguments"][name]]),
        "credential": f"{credential}:{FOLDER}/{credential}" if credential else "",
        "families": " ".join(["AF_INET", "AF_INET6", *needs.get("families", [])]),
        "looks_around": needs.get("looks_around", False),
        "calls": " ".join(needs.get("calls", [])),
        "capabilities": "CAP_NET_RAW" if pings else "",
    }


CREDENTIALS = {"redis": "redis.json", "mysqld": "mysqld.cnf"}


def _credential(name: str) -> str:
    return f"/run/credentials/{_package(name)}.service/{CREDENTIALS[name]}"


def _arguments(settings: Settings, name: str) -> list[str]:
    """Both releases understand all of these: what takes one dash takes two as well."""
    sources = settings["exporters_sources"]
    if name == "node":
        return [
            f"--collector.textfile.directory={settings['exporters_textfile_folder']}",
            "--collector.systemd",
            "--collector.systemd.enable-restarts-metrics",
            "--collector.systemd.enable-start-time-metrics",
            # Containers come and go, and each has one.
            "--collector.netdev.device-exclude=^veth",
            "--collector.netclass.ignored-devices=^veth",
        ]
    if name == "nginx":
        return [f"--nginx.scrape-uri={_of(sources, 'nginx')[0]['url']}"]
    if name == "redis":
        # Each instance is asked for by its address. The certificate of a server on the same host proves nothing more.
        verify = ["--skip-tls-verification"] if any(one["tls"] for one in _of(sources, "redis")) else []
        user = f"--redis.user={redis_user(sources)}"
        return ["--redis.addr=", "--config-command=-", user, f"--redis.password-file={_credential(name)}", *verify]
    if name == "mysqld":
        return [f"--config.my-cnf={_credential(name)}"]
    return [f"--config.file={BLACKBOX}"]


def _secrets(sources: Iterable[Source]) -> Iterator[dict[str, str]]:
    """Files with passwords, which systemd hands to the exporter alone."""
    found = _of(sources, "redis")
    if found:
        # Debian 12's exporter looks for the address without the user, Debian 13's with.
        known = {url: one["password"] for one in found for url in _both(one)}
        yield {"name": CREDENTIALS["redis"], "content": _json(known)}
    for one in _of(sources, "mariadb")[:1]:
        # Between backquotes nothing begins a comment, and only the last one ends the value.
        lines = ["[client]", f"user={one['user']}", f"password=`{one['password']}`", f"socket={one['socket']}"]
        yield {"name": CREDENTIALS["mysqld"], "content": "\n".join(lines) + "\n"}


def _both(source: Source) -> list[str]:
    plain = redis_url(source)
    return [plain, plain.replace("://", f"://{source['user']}@", 1)]


def _modules(settings: Settings) -> dict[str, Any]:
    """The ways in which others are asked from outside."""
    either = {"preferred_ip_protocol": "ip4"}

    def http(**more: Any) -> dict[str, Any]:
        return {"prober": "http", "timeout": "10s", "http": {**either, **more}}

    login = {"valid_status_codes": [401]}  # whoever has no password is turned away; a page would be a hole
    insecure = {"tls_config": {"insecure_skip_verify": True}}
    own = {
        "http": http(),
        "http_2xx": http(),
        "http_insecure": http(**insecure),
        "http_login": http(**login),
        "http_login_insecure": http(**login, **insecure),
        "tcp": {"prober": "tcp", "timeout": "5s", "tcp": either},
    }
    return {**own, **settings["exporters_extra"]["modules"]}


def _probes(settings: Settings, wanted: Iterable[str]) -> Iterator[dict[str, Any]]:
    """An exporter that answers but cannot ask what it measures is none."""
    proofs = {"node": "/", "nginx": "/metrics", "mysqld": "/metrics", "blackbox": "/"}
    bodies = {"nginx": "\nnginx_up 1", "mysqld": "\nmysql_up 1"}
    for name in wanted:
        address = f"http://{_asked_at(settings, name)}"
        if name in proofs:
            yield {"http": f"{address}{proofs[name]}", "body": bodies.get(name, "")}
        else:
            for one in _of(settings["exporters_sources"], "redis"):
                yield {"http": f"{address}/scrape?target={redis_url(one)}", "body": "\nredis_up 1"}


# --- what Prometheus can ask ------------------------------------------------------------------------------------------


def _scrapes(settings: Settings, host: str, wanted: Iterable[str]) -> Iterator[dict[str, Any]]:
    sources = settings["exporters_sources"]
    jobs = {"mysqld": "mariadb"}
    for name in wanted:
        common = {"host": host, "address": _asked_at(settings, name), "unit": f"{_package(name)}.service"}
        if name != "redis":
            yield {"job": jobs.get(name, name), **common, "labels": {"instance": host}}
            continue
        for one in _of(sources, "redis"):
            labels = {"instance": f"{host}/{one['name']}", "redis": one["name"]}
            yield {
                "job": "redis",
                **common,
                "path": "/scrape",
                "params": {"target": redis_url(one)},
                "labels": labels,
            }
    for one in _of(sources, "app"):
        for port in one["ports"]:
            labels = {
                "instance": f"{host}/{one['name']}/{one['process']}/{port}",
                "app": one["name"],
                "process": one["process"],
            }
            address = f"{_bracketed(one['address'])}:{port}"
            yield {"job": "app", "host": host, "address": address, "path": one["path"], "labels": labels}
    for one in settings["exporters_extra"]["scrapes"]:
        given = {key: value for key, value in one.items() if value not in (None, {}, "")}
        yield {**given, "host": host, "labels": {"instance": host, **one["labels"]}}
