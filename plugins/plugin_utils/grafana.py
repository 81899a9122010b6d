# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What cannot work in the grafana role's settings."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.fushuma.production.plugins.plugin_utils import apt_repository, dashboards, listening, secret
from ansible_collections.fushuma.production.plugins.plugin_utils import grafana_model as model
from ansible_collections.fushuma.production.plugins.plugin_utils.apt_repository import Repository
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import Problem, value_of
from ansible_collections.fushuma.production.plugins.plugin_utils.sizes import bytes_of
from ansible_collections.fushuma.production.plugins.plugin_utils.specs import ROLES

Settings = Mapping[str, Any]

REPOSITORY = Repository(
    setting="grafana_repository",
    maker="Grafana",
    url="https://apt.grafana.com",
    key_url="https://apt.grafana.com/gpg.key",
    key_file="grafana.asc",
    version="12.3.*",
)
SOURCE = re.compile(r"https?://[A-Za-z0-9.:-]+/[A-Za-z0-9._~%/-]+\.tar\.gz|/[^\s'\"]+\.tar\.gz")
ROOT = re.compile(r"https?://[a-z0-9.-]+(:\d+)?/")
URL = re.compile(r"https?://[A-Za-z0-9.-]+(:\d+)?(/\S*)?|https?://\[[0-9a-f:]+\](:\d+)?(/\S*)?")
SHA256 = re.compile(r"[0-9a-f]{64}", re.IGNORECASE)
UID = re.compile(r"[A-Za-z0-9_-]{1,40}")
SECTION = re.compile(r"[a-z][a-z0-9_.-]*")
KEY = re.compile(r"[a-z][a-z0-9_.]*")
LEAST_MEMORY = 256 * 1024**2  # bytes; it takes about half of it when nobody looks
CONTENT_LIMIT = 8 * 1024**2  # bytes; they travel with every run

# What another option decides on; all other keys that the role writes are as they have to be.
OPTION_OF = {
    "server": "grafana_address, grafana_port or grafana_root_url",
    "database": "grafana_database",
    "admin_password": "grafana_admin_password",
    "secret_key": "grafana_secret_key",
}


def problems(settings: Settings) -> list[Problem]:
    """Everything that cannot work. ``settings`` fit the role's argument_specs and hold all defaults."""
    if not settings["grafana_enabled"]:
        return []
    archive = settings["grafana_archive"]
    return [
        *(_archive(archive) if archive["source"] else apt_repository.problems(settings, REPOSITORY)),
        *_place(settings),
        *_secrets(settings),
        *_database(settings["grafana_database"]),
        *_datasources(settings["grafana_datasources"]),
        *_settings(settings),
        *(_folder(settings["grafana_dashboards_folder"]) if settings["grafana_dashboards_folder"] else []),
    ]


def _archive(given: Settings) -> Iterator[Problem]:
    source = given["source"]
    if not SOURCE.fullmatch(source):
        form = "the https URL of a .tar.gz, or the whole path of one on the controller"
        yield Problem("grafana_archive.source", value_of(source), "it is no archive that can be had", form)
    elif source.startswith("/") and not Path(source).is_file():
        yield Problem("grafana_archive.source", value_of(source), "the controller has no such file", "its whole path")
    if not SHA256.fullmatch(given["sha256"]):
        why = "what is run as a service has to be known to the bit"
        yield Problem("grafana_archive.sha256", value_of(given["sha256"]), why, "what `sha256sum` says of the archive")


def _place(settings: Settings) -> Iterator[Problem]:
    address, port, root = settings["grafana_address"], settings["grafana_port"], settings["grafana_root_url"]
    try:
        found = ipaddress.ip_address(address)
        loopback = found.is_loopback
        if found.is_unspecified:
            why = "others are told where to ask, and it is no place"
            yield Problem("grafana_address", value_of(address), why, '"127.0.0.1" or "10.0.1.31"')
    except ValueError:
        yield Problem("grafana_address", value_of(address), "it is no address", '"127.0.0.1" or "10.0.1.31"')
        loopback = False
    if not 1024 <= port <= 65535:
        yield Problem("grafana_port", value_of(port), "a service without rights takes ports from 1024 to 65535", "3030")
    yield from listening.sources(settings["grafana_from"], "grafana_from", loopback=loopback)
    if not ROOT.fullmatch(root):
        form = '"https://grafana.example.org/"'
        yield Problem("grafana_root_url", value_of(root), "it is not where people reach Grafana", form)
    elif not root.startswith("https://"):
        why = "browsers send the cookie of a login over TLS only, so nobody could log in"
        yield Problem("grafana_root_url", value_of(root), why, value_of(root.replace("http://", "https://", 1)))
    if bytes_of(settings["grafana_memory"]) < LEAST_MEMORY:
        why = "it is no size, or less than Grafana takes"
        yield Problem("grafana_memory", value_of(settings["grafana_memory"]), why, '"512mb"')


def _secrets(settings: Settings) -> Iterator[Problem]:
    for name, why in (
        ("grafana_admin_password", "Grafana would have a password that everybody knows"),
        ("grafana_secret_key", "Grafana would encrypt with a key that everybody knows"),
    ):
        if not settings[name]:
            yield Problem(name, '""', why, secret.FORM)
    yield from _writable("grafana_secret_key", settings["grafana_secret_key"])
    if re.search(r"[\r\n]|^\s|\s$", settings["grafana_admin_password"]):
        shown = value_of(settings["grafana_admin_password"], secret=True)
        yield Problem("grafana_admin_password", shown, "it has to be one line without spaces around it", secret.FORM)
    if settings["grafana_admin_password"] and settings["grafana_admin_password"] == settings["grafana_secret_key"]:
        shown = value_of(settings["grafana_secret_key"], secret=True)
        yield Problem("grafana_secret_key", shown, "it is the password of the admin", secret.FORM)


def _writable(setting: str, text: str) -> Iterator[Problem]:
    if model.UNWRITABLE.search(text):
        why = "grafana.ini cannot hold it, for it has lines, quotes at its end, or what Grafana puts something else for"
        yield Problem(setting, value_of(text, secret=True), why, secret.FORM)


def _database(given: Settings) -> Iterator[Problem]:
    if given["type"] == "sqlite3":
        for key in ("host", "password", "ssl_mode", "ca_file"):
            if given[key]:
                shown = value_of(given[key], secret=key == "password")
                yield Problem(f"grafana_database.{key}", shown, "a file has none", "type mysql or postgres with it")
        return
    for key in ("host", "name", "user"):
        if not given[key] or re.search(r"\s", given[key]):
            why = "the database cannot be reached without it"
            yield Problem(
                f"grafana_database.{key}",
                value_of(given[key]),
                why,
                '"127.0.0.1:3306"' * (key == "host") or '"grafana"',
            )
    if not given["password"]:
        yield Problem("grafana_database.password", '""', "nobody is let in without one", secret.FORM)
    else:
        yield from _writable("grafana_database.password", given["password"])


def _datasources(given: list[Settings]) -> Iterator[Problem]:
    for number, one in enumerate(given):
        under = f"grafana_datasources[{number}]"
        if not UID.fullmatch(one["uid"]):
            form = "letters, digits, - and _, such as prometheus"
            yield Problem(f"{under}.uid", value_of(one["uid"]), "it is no uid", form)
        if not URL.fullmatch(one["url"]):
            yield Problem(f"{under}.url", value_of(one["url"]), "it is no URL", '"http://127.0.0.1:9090"')
        if bool(one["user"]) != bool(one["password"]):
            shown = value_of(one["password"], secret=True) if one["password"] else '""'
            yield Problem(f"{under}.password", shown, "a login is a user with a password", "both of them, or none")


def _settings(settings: Settings) -> Iterator[Problem]:
    own = model.own(settings)
    for section, values in settings["grafana_settings"].items():
        under = f"grafana_settings.{section}"
        if not SECTION.fullmatch(section):
            yield Problem(under, "given", "no section of grafana.ini is called so", "its name, such as smtp")
            continue
        if not isinstance(values, Mapping):
            yield Problem(under, "given", "a section holds keys with values", "them, such as {enabled: true}")
            continue
        for key, value in values.items():
            where = f"{under}.{key}"
            if not KEY.fullmatch(str(key)):
                yield Problem(where, "given", "no key of grafana.ini is called so", "its name, such as enabled")
            elif isinstance(value, (Mapping, list)) or re.search(r'[\r\n]|"""', str(value)):
                yield Problem(where, "given", "a key of grafana.ini has one line", "one text, number, true or false")
            elif key in own.get(section, {}) and (section, key) not in model.YIELDING:
                instead = OPTION_OF.get(key) or OPTION_OF.get(section) or "no such key, for the role needs it as it is"
                yield Problem(where, "given", "the role decides on it", instead)


def _folder(path: str) -> Iterator[Problem]:
    setting, folder = "grafana_dashboards_folder", Path(path)
    if not folder.is_absolute() or not folder.is_dir():
        form = 'its whole path, such as "{{ inventory_dir }}/dashboards"'
        yield Problem(setting, value_of(path), "the controller has no such folder", form)
        return
    files = [one for one in sorted(folder.rglob("*")) if one.is_file()]
    if sum(one.stat().st_size for one in files) > CONTENT_LIMIT:
        why = f"it holds more than {CONTENT_LIMIT // 1024**2} MB, which would travel with every run"
        yield Problem(setting, value_of(path), why, "a folder of dashboards alone")
        return
    seen = {one["uid"]: "one of this collection" for one in dashboards.load(ROLES / "grafana" / "dashboards")}
    for file in files:
        name = str(file.relative_to(folder))
        try:
            found = json.loads(file.read_text("utf-8"))
        except ValueError as error:
            yield Problem(
                setting, value_of(name), f"this file in it is no JSON ({error})", "a dashboard as Grafana exports it"
            )
            continue
        uid = found.get("uid") if isinstance(found, Mapping) else None
        if not isinstance(uid, str) or not UID.fullmatch(uid) or not found.get("title"):
            why = "this file in it has no uid and title, so it is no dashboard that keeps its address"
            yield Problem(setting, value_of(name), why, "a dashboard as Grafana exports it, with a uid of its own")
        elif uid in seen:
            yield Problem(setting, value_of(name), f"{seen[uid]} has its uid {uid}", "another uid in it")
        else:
            seen[uid] = name
