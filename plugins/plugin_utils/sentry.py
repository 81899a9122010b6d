# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What cannot work in the sentry role's settings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.fushuma.production.plugins.plugin_utils import listening, secret, sentry_model
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import Problem, repeated, value_of
from ansible_collections.fushuma.production.plugins.plugin_utils.sizes import bytes_of

Settings = Mapping[str, Any]

NAME = re.compile(r"[a-z][a-z0-9-]{0,49}")
KEY = re.compile(r"[0-9a-f]{32}")
TOKEN = re.compile(r"[0-9a-f]{40}")
CHECKSUM = re.compile(r"[0-9a-f]{64}")
RELEASE = re.compile(r"[0-9]{2}\.[0-9]{1,2}\.[0-9]{1,2}")
MAIL = re.compile(r"[^@\s]+@[^@\s]+")
SETTING = re.compile(r"[A-Z][A-Z0-9_]*")
WORD = re.compile(r"[A-Za-z0-9_.-]+")
LEAST_MEMORY = 256 * 1024**2  # bytes; Bugsink begins with a little less
# What the other settings decide on.
OWN_SETTINGS = {
    "BASE_URL": "sentry_url",
    "ALERTS_WEBHOOK_DENY_NON_GLOBAL": "sentry_private_webhooks",
    "MAX_EVENTS_PER_5_MINUTES": "sentry_limits.per_5_minutes",
    "MAX_EVENTS_PER_PROJECT_PER_5_MINUTES": "sentry_limits.per_5_minutes",
    "MAX_EVENTS_PER_HOUR": "sentry_limits.per_hour",
    "MAX_EVENTS_PER_PROJECT_PER_HOUR": "sentry_limits.per_hour",
    "MAX_EVENTS_PER_MONTH": "sentry_limits.per_month",
    "MAX_EVENTS_PER_PROJECT_PER_MONTH": "sentry_limits.per_month",
    "MAX_EMAILS_PER_HOUR": "sentry_limits.mails_per_hour",
    "MAX_EVENT_AGE_DAYS": "sentry_limits.days",
    "MAX_STORED_FILE_BYTES": "sentry_limits.files",
}
FIXED_SETTINGS = {
    "PHONEHOME": "nothing is told to others",
    "INGEST_STORE_BASE_DIR": "the units may write below /var/lib/bugsink only",
}


def problems(settings: Settings) -> list[Problem]:
    """Everything that cannot work. ``settings`` fit the role's argument_specs and hold all defaults."""
    mode = settings["sentry_mode"]
    if not mode:
        return []
    found = [*repeated("sentry_projects", settings["sentry_projects"], "name")]
    for number, project in enumerate(settings["sentry_projects"]):
        of_project = [*_project_problems(project, settings)]
        found += [one.under(f"sentry_projects[{number}]") for one in of_project]
    if mode == "external":
        return found
    found += [*repeated("sentry_projects", [one for one in settings["sentry_projects"] if one["number"]], "number")]
    found += [*_server_problems(settings), *listening.problems(settings, "sentry_")]
    found += _bugsink_problems(settings) if mode == "bugsink" else _self_hosted_problems(settings)
    return found


def _server_problems(settings: Settings) -> Iterator[Problem]:
    try:
        url = urlsplit(settings["sentry_url"])
        sound = url.scheme == "https" and bool(url.hostname) and not (url.query or url.fragment or url.username)
    except ValueError:
        sound = False
    if not sound:
        why = "applications and people reach the server there, over TLS"
        yield Problem("sentry_url", value_of(settings["sentry_url"]), why, '"https://errors.example.com"')
    if not 1 <= settings["sentry_port"] <= 65535:
        yield Problem("sentry_port", value_of(settings["sentry_port"]), "ports go from 1 to 65535", "8010")
    if not settings["sentry_secret_key"]:
        yield Problem(
            "sentry_secret_key", "missing", "sessions are signed with it, and keys follow from it", secret.FORM
        )
    if not MAIL.fullmatch(settings["sentry_admin"]["email"]):
        why = "somebody has to be the admin"
        shown = value_of(settings["sentry_admin"]["email"])
        yield Problem("sentry_admin.email", shown, why, '"operator@example.com"')
    if not settings["sentry_admin"]["password"]:
        yield Problem("sentry_admin.password", "missing", "nobody may be the admin without one", secret.FORM)
    if not settings["sentry_organisation"].strip():
        yield Problem("sentry_organisation", '""', "projects belong to one", '"production"')
    mail = settings["sentry_mail"]
    if mail["host"] and not MAIL.fullmatch(mail["from"] or "errors@host"):
        yield Problem("sentry_mail.from", value_of(mail["from"]), "it is no address", '"errors@example.com"')
    if bool(mail["user"]) != bool(mail["password"]):
        what = "password" if mail["user"] else "user"
        yield Problem(f"sentry_mail.{what}", "missing", "who logs in has a name and a password", "both, or neither")


def _project_problems(one: Mapping[str, Any], settings: Settings) -> Iterator[Problem]:
    if not NAME.fullmatch(one["name"]):
        form = "lower-case letters, digits and dashes, such as shop"
        yield Problem("name", value_of(one["name"]), "it is a part of addresses", form)
    if settings["sentry_mode"] == "external":
        yield from _dsn_problems(one["dsn"])
        if one["alerts"]:
            yield Problem("alerts", value_of(len(one["alerts"])), "the other server decides on them", "no alerts")
        return
    if one["dsn"]:
        why = "it follows from sentry_url, the key and the number"
        yield Problem("dsn", value_of(one["dsn"]), why, 'nothing for it, or sentry_mode: "external"')
    if one["number"] < 1:
        yield Problem("number", value_of(one["number"]), "it is a part of the DSN", "2 or more")
    elif one["number"] == settings["sentry_proof"]["number"] or one["name"] == sentry_model.PROOF:
        why = "the project of the test event has that number and the name proof"
        yield Problem("number", value_of(one["number"]), why, "another number and name, or another sentry_proof.number")
    if one["events"] < 1:
        yield Problem("events", value_of(one["events"]), "nothing would be kept", "10000")
    yield from _key_problems(one, settings)
    for number, alert in enumerate(one["alerts"]):
        yield from (problem.under(f"alerts[{number}]") for problem in _alert_problems(alert, settings))


def _key_problems(one: Mapping[str, Any], settings: Settings) -> Iterator[Problem]:
    for name in ("key", "former_key"):
        if one[name] and not KEY.fullmatch(one[name]):
            why = "a key has 32 hexadecimal digits, in lower case"
            yield Problem(name, value_of(one[name], secret=True), why, "the output of `openssl rand -hex 16`")
    if not one["former_key"]:
        return
    shown = value_of(one["former_key"], secret=True)
    if settings["sentry_mode"] != "bugsink":
        why = "Sentry itself takes several keys, so the one before counts until it is revoked in its pages"
        yield Problem("former_key", shown, why, "nothing for it")
    elif one["former_key"] == sentry_model.key_of(settings, one):
        yield Problem("former_key", shown, "it is the present one", "the one before, or none")


def _dsn_problems(dsn: str) -> Iterator[Problem]:
    try:
        parts = urlsplit(dsn)
        sound = parts.scheme in ("http", "https") and bool(parts.username and parts.hostname)
        sound = sound and parts.path.rpartition("/")[2].isdigit()
    except ValueError:
        sound = False
    if not sound:
        form = '"https://KEY@errors.example.com/2", as the other server shows it'
        yield Problem("dsn", value_of(dsn, secret=True) if dsn else "missing", "it is no DSN", form)


def _alert_problems(alert: Mapping[str, Any], settings: Settings) -> Iterator[Problem]:
    if alert["kind"] == "mail":
        if not MAIL.fullmatch(alert["to"]):
            yield Problem("to", value_of(alert["to"]), "it is no address", '"team@example.com"')
        elif not settings["sentry_mail"]["host"]:
            yield Problem("kind", '"mail"', "there is no server that would send it", "sentry_mail.host as well")
        return
    if settings["sentry_mode"] == "self_hosted":
        why = "Sentry itself reaches others by integrations, which ask somebody for consent in its pages"
        yield Problem("kind", value_of(alert["kind"]), why, '"mail"')
    try:
        sound = urlsplit(alert["url"]).scheme in ("http", "https") and bool(urlsplit(alert["url"]).hostname)
    except ValueError:
        sound = False
    if not sound:
        shown = value_of(alert["url"], secret=True) if alert["url"] else "missing"
        yield Problem("url", shown, "nothing can be sent there", "the address of the webhook")


def _bugsink_problems(settings: Settings) -> Iterator[Problem]:
    yield from _number_problems(settings)
    if bytes_of(settings["sentry_memory"]) < LEAST_MEMORY:
        why = "it is no size, or less than Bugsink begins with"
        yield Problem("sentry_memory", value_of(settings["sentry_memory"]), why, '"512mb"')
    if not bytes_of(settings["sentry_limits"]["files"]):
        yield Problem("sentry_limits.files", value_of(settings["sentry_limits"]["files"]), "it is no size", '"1gb"')
    if settings["sentry_database"]["kind"] == "mariadb":
        yield from (one.under("sentry_database") for one in _database_problems(settings["sentry_database"]))
    if settings["sentry_upload_token"] and not TOKEN.fullmatch(settings["sentry_upload_token"]):
        shown = value_of(settings["sentry_upload_token"], secret=True)
        why = "Bugsink takes 40 hexadecimal digits, in lower case"
        yield Problem("sentry_upload_token", shown, why, "the output of `openssl rand -hex 20`")
    if path := settings["sentry_requirements"]:
        try:
            about = Path(path).stat()
            sentry_model.requirements(path, about.st_mtime_ns, about.st_size)
        except (OSError, ValueError) as error:
            why = f"it is not what pip takes with --require-hashes ({error})"
            yield Problem("sentry_requirements", value_of(path), why, "a copy of roles/sentry/files/bugsink.txt, newer")
    for name, value in settings["sentry_settings"].items():
        why, form = _setting_problem(name)
        if why:
            yield Problem(f"sentry_settings.{name}", value_of(value), why, form)


def _database_problems(database: Mapping[str, Any]) -> Iterator[Problem]:
    for name in ("name", "user"):
        if not WORD.fullmatch(database[name]):
            yield Problem(name, value_of(database[name]), "it is no plain name", '"bugsink"')
    if not database["password"]:
        yield Problem("password", "missing", "nobody is let in without one", secret.FORM)
    elif re.search(r"[\"\\\n]", database["password"]):
        shown = value_of(database["password"], secret=True)
        yield Problem("password", shown, "quotation marks and the like would end it too early", secret.FORM)


def _setting_problem(name: str) -> tuple[str, str]:
    """Why a setting of Bugsink cannot be given here, and what can be done; two empty texts where it can."""
    if name in OWN_SETTINGS:
        return "another setting decides on it", OWN_SETTINGS[name]
    if name in FIXED_SETTINGS:
        return FIXED_SETTINGS[name], "nothing for it"
    return ("", "") if SETTING.fullmatch(name) else ("Bugsink's are upper-case", '"SITE_TITLE"')


def _number_problems(settings: Settings) -> Iterator[Problem]:
    limits, proof = settings["sentry_limits"], settings["sentry_proof"]
    numbers = {
        "sentry_workers": settings["sentry_workers"],
        **{f"sentry_proof.{name}": proof[name] for name in ("number", "minutes", "patience")},
        **{f"sentry_limits.{name}": limits[name] for name in limits if name != "files"},
    }
    for name, value in numbers.items():
        if value < 1:
            yield Problem(name, value_of(value), "with less than one nothing would arrive or be kept", "1 or more")


def _self_hosted_problems(settings: Settings) -> Iterator[Problem]:
    wanted = settings["sentry_self_hosted"]
    if not wanted["releases"]:
        why = "there is nothing to install"
        yield Problem("sentry_self_hosted.releases", "[]", why, "the release that is wanted, with its checksum")
    if not wanted["rpc_secret"]:
        why = "everybody knows the one that Sentry comes with"
        yield Problem("sentry_self_hosted.rpc_secret", "missing", why, secret.FORM)
    if not bytes_of(wanted["disk"]):
        yield Problem("sentry_self_hosted.disk", value_of(wanted["disk"]), "it is no size", '"20gb"')
    before: tuple[int, ...] = ()
    for number, one in enumerate(wanted["releases"]):
        where = f"sentry_self_hosted.releases[{number}]"
        if not RELEASE.fullmatch(one["release"]):
            form = '"26.8.0"; a nightly one is another every day'
            yield Problem(f"{where}.release", value_of(one["release"]), "it is no release", form)
            continue
        release = tuple(int(part) for part in one["release"].split("."))
        if release <= before:
            why = "an older one cannot follow a newer one"
            yield Problem(f"{where}.release", value_of(one["release"]), why, "the oldest first")
        before = release
        if not CHECKSUM.fullmatch(one["checksum"]):
            why = "it is no SHA-256"
            yield Problem(f"{where}.checksum", value_of(one["checksum"]), why, "what `sha256sum` says of the archive")
        if one["archive"] and "://" not in one["archive"] and not Path(one["archive"]).is_file():
            why = "there is no such file on the controller"
            yield Problem(f"{where}.archive", value_of(one["archive"]), why, "a file, or a URL")
