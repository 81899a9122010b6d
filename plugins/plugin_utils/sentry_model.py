# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the sentry role writes down, worked out of its settings."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.fushuma.production.plugins.plugin_utils import specs
from ansible_collections.fushuma.production.plugins.plugin_utils.sizes import bytes_of

Settings = Mapping[str, Any]
Project = Mapping[str, Any]

REQUIREMENTS = specs.ROLES / "sentry" / "files" / "bugsink.txt"
PINNED = re.compile(r"^bugsink==([0-9][0-9a-z.]*)", re.MULTILINE)
ARCHIVE = "https://github.com/getsentry/self-hosted/archive/refs/tags/{release}.tar.gz"
PROOF = "proof"
PROOF_EVENTS = 100
# What a token for the proof may do, and one that uploads.
PROOF_RIGHTS = ("projects_read", "issues_read", "events_read")
UPLOAD_RIGHTS = ("debug_files_upload", "releases_create", "releases_read", "projects_read")


def model(settings: Settings) -> dict[str, Any]:
    """What is written for the chosen server. ``settings`` have passed the judge and hold all defaults."""
    if settings["sentry_mode"] == "bugsink":
        return bugsink(settings)
    if settings["sentry_mode"] == "self_hosted":
        return self_hosted(settings)
    return {"proof": external_proof(settings)} if settings["sentry_mode"] == "external" else {}


# --- the test event ---------------------------------------------------------------------------------------------------


def proof(settings: Settings, *, unit: str, token: str) -> dict[str, str]:
    """How the test event is sent on the host itself, in a public part and a secret one."""
    told = {
        **_proof_times(settings),
        "tls": False,
        "address": settings["sentry_addresses"][0],
        "port": settings["sentry_port"],
        "host": urlsplit(settings["sentry_url"]).hostname,
        "folder": "",
        "number": settings["sentry_proof"]["number"],
        "unit": unit,
    }
    return _proof_files(told, derived(settings, "proof key", 32), token)


def external_proof(settings: Settings) -> dict[str, str]:
    """The same for a server of somebody else: the first project takes it, and nobody looks for it there."""
    if not settings["sentry_projects"]:
        return {}
    parts = urlsplit(settings["sentry_projects"][0]["dsn"])
    folder, _slash, number = parts.path.rpartition("/")
    tls = parts.scheme == "https"
    told = {
        **_proof_times(settings),
        "tls": tls,
        "address": parts.hostname,
        "port": parts.port or (443 if tls else 80),
        "host": parts.netloc.rpartition("@")[2],
        "folder": folder,
        "number": int(number),
        "unit": "",
    }
    return _proof_files(told, parts.username or "", "")


def _proof_times(settings: Settings) -> dict[str, Any]:
    times = {key: settings["sentry_proof"][key] for key in ("minutes", "patience")}
    return {**times, "metrics": settings["sentry_metrics_folder"]}


def _proof_files(told: Mapping[str, Any], key: str, token: str) -> dict[str, str]:
    return {"public": json.dumps(told, indent=2), "secret": json.dumps({"key": key, "token": token})}


# --- the DSNs ---------------------------------------------------------------------------------------------------------


def dsns(settings: Settings) -> list[dict[str, str]]:
    """What applications and nginx have to know of each project."""
    found = []
    for project in settings["sentry_projects"] if settings["sentry_mode"] else []:
        dsn = project["dsn"] or dsn_of(settings, project)
        found.append(
            {
                "project": project["name"],
                "application": project["application"],
                "dsn": dsn,
                "security": security_of(dsn),
                "environment": settings["sentry_environment"],
            }
        )
    return found


def dsn_of(settings: Settings, project: Project) -> str:
    scheme, _colon, place = settings["sentry_url"].rstrip("/").partition("://")
    return f"{scheme}://{key_of(settings, project)}@{place}/{project['number']}"


def security_of(dsn: str) -> str:
    """Where browsers report what a Content-Security-Policy blocked."""
    parts = urlsplit(dsn)
    folder, _slash, number = parts.path.rpartition("/")
    place = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{place}{folder}/api/{number}/security/?sentry_key={parts.username or ''}"


def key_of(settings: Settings, project: Project) -> str:
    """The key that is given, or one that follows from the secret and the name."""
    return str(project["key"]) or derived(settings, f"project {project['name']}", 32)


def derived(settings: Settings, use: str, length: int) -> str:
    return hmac.new(settings["sentry_secret_key"].encode(), use.encode(), hashlib.sha256).hexdigest()[:length]


# --- Bugsink ----------------------------------------------------------------------------------------------------------


def bugsink(settings: Settings) -> dict[str, Any]:
    path = settings["sentry_requirements"] or str(REQUIREMENTS)
    about = Path(path).stat()
    text, programs = requirements(path, about.st_mtime_ns, about.st_size)
    database = {key: settings["sentry_database"][key] for key in ("kind", "name", "user", "host", "port")}
    mariadb = database["kind"] == "mariadb"
    host = urlsplit(settings["sentry_url"]).hostname or ""
    production = {
        "url": settings["sentry_url"],
        "organisation": settings["sentry_organisation"],
        "hosts": [
            host,
            "localhost",
            "127.0.0.1",
            *(f"[{one}]" if ":" in one else one for one in settings["sentry_addresses"]),
        ],
        "database": database,
        "mail": mail(settings),
        "bugsink": bugsink_settings(settings),
        "former_keys": {
            str(one["number"]): {"former": one["former_key"], "key": key_of(settings, one)}
            for one in settings["sentry_projects"]
            if one["former_key"]
        },
    }
    wanted = {
        "programs": programs,
        "system_packages": mariadb,
        "database": {key: database[key] if mariadb or key == "kind" else "" for key in database},
    }
    return {
        "requirements": text,
        "programs": f"/opt/bugsink/{programs}",
        "packages": ["python3-venv", *(["python3-mysqldb", "mariadb-client"] if mariadb else [])],
        "memory": bytes_of(settings["sentry_memory"]),
        "binds": [f"[{one}]" if ":" in one else one for one in settings["sentry_addresses"]],
        "public": [{"name": "production.json", "content": json.dumps(production, indent=2)}],
        "programs_file": json.dumps(wanted, indent=2),
        "secrets": json.dumps(
            {
                "key": settings["sentry_secret_key"],
                "db": settings["sentry_database"]["password"],
                "mail": settings["sentry_mail"]["password"],
            }
        ),
        "declared": json.dumps(declared(settings), indent=2),
        "proof": proof(settings, unit="bugsink.service", token=derived(settings, "proof token", 40)),
    }


@lru_cache(maxsize=8)
def requirements(path: str, _changed: int, _size: int) -> tuple[str, str]:
    """The text, and a name for what is made of it: another text has another one. Raises ValueError for what is none."""
    text = Path(path).read_text("utf-8")
    found = PINNED.search(text)
    if found is None or "--hash=sha256:" not in text:
        raise ValueError(f"{path} does not pin Bugsink by version and hash")
    return text, f"{found[1]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def mail(settings: Settings) -> dict[str, Any]:
    given = {key: settings["sentry_mail"][key] for key in ("host", "port", "tls", "user", "from")}
    return {**given, "from": given["from"] or f"errors@{urlsplit(settings['sentry_url']).hostname}"}


def bugsink_settings(settings: Settings) -> dict[str, Any]:
    limits = settings["sentry_limits"]
    return {
        **settings["sentry_settings"],
        "BASE_URL": settings["sentry_url"].rstrip("/"),
        "INGEST_STORE_BASE_DIR": "/var/lib/bugsink/ingestion",
        "PHONEHOME": False,
        "ALERTS_WEBHOOK_DENY_NON_GLOBAL": not settings["sentry_private_webhooks"],
        "MAX_EVENTS_PER_5_MINUTES": limits["per_5_minutes"],
        "MAX_EVENTS_PER_PROJECT_PER_5_MINUTES": limits["per_5_minutes"],
        "MAX_EVENTS_PER_HOUR": limits["per_hour"],
        "MAX_EVENTS_PER_PROJECT_PER_HOUR": limits["per_hour"],
        "MAX_EVENTS_PER_MONTH": limits["per_month"],
        "MAX_EVENTS_PER_PROJECT_PER_MONTH": limits["per_month"],
        "MAX_EMAILS_PER_HOUR": limits["mails_per_hour"],
        "MAX_EVENT_AGE_DAYS": limits["days"],
        "MAX_STORED_FILE_BYTES": bytes_of(limits["files"]),
        # People are invited by those who are there.
        "USER_REGISTRATION": settings["sentry_settings"].get("USER_REGISTRATION", "CB_ADMINS"),
    }


def declared(settings: Settings) -> dict[str, Any]:
    """Projects, users, alerts and tokens as they shall be."""
    tokens = [{"name": PROOF, "token": derived(settings, "proof token", 40), "rights": PROOF_RIGHTS}]
    if settings["sentry_upload_token"]:
        tokens.append({"name": "upload", "token": settings["sentry_upload_token"], "rights": UPLOAD_RIGHTS})
    own = {
        "number": settings["sentry_proof"]["number"],
        "name": PROOF,
        "key": derived(settings, "proof key", 32),
        "events": PROOF_EVENTS,
        "alerts": False,
        "services": [],
        "mails": [],
    }
    return {
        "admin": dict(settings["sentry_admin"]),
        "projects": [own, *_projects(settings)],
        "tokens": tokens,
    }


def _projects(settings: Settings) -> Iterator[dict[str, Any]]:
    for one in settings["sentry_projects"]:
        yield {
            "number": one["number"],
            "name": one["name"],
            "key": key_of(settings, one),
            "events": one["events"],
            "alerts": True,
            "services": [
                {"kind": "custom" if alert["kind"] == "webhook" else alert["kind"], "url": alert["url"]}
                for alert in one["alerts"]
                if alert["kind"] != "mail"
            ],
            "mails": [alert["to"] for alert in one["alerts"] if alert["kind"] == "mail"],
        }


# --- Sentry itself ----------------------------------------------------------------------------------------------------


def self_hosted(settings: Settings) -> dict[str, Any]:
    wanted = settings["sentry_self_hosted"]
    steps = []
    for one in wanted["releases"]:
        archive = one["archive"] or ARCHIVE.format(release=one["release"])
        place = archive if "://" in archive else f"/opt/sentry/archives/{one['release']}.tar.gz"
        steps.append({"release": one["release"], "archive": place, "checksum": one["checksum"]})
    environment = {
        "COMPOSE_PROFILES": wanted["profile"],
        "SENTRY_BIND": f"{settings['sentry_addresses'][0]}:{settings['sentry_port']}",
        "SENTRY_EVENT_RETENTION_DAYS": settings["sentry_limits"]["days"],
        "LAUNCHPAD_RPC_SHARED_SECRET": wanted["rpc_secret"],
    }
    return {
        "steps": json.dumps(
            {
                "steps": steps,
                "profile": wanted["profile"],
                "disk": bytes_of(wanted["disk"]),
            },
            indent=2,
        ),
        "archives": [
            {"release": one["release"], "source": one["archive"]}
            for one in wanted["releases"]
            if one["archive"] and "://" not in one["archive"]
        ],
        "environment": "".join(f"{name}={value}\n" for name, value in environment.items()),
        "mail": mail(settings),
        "mail_password": settings["sentry_mail"]["password"],
        "declared": json.dumps(
            {"organisation": settings["sentry_organisation"], **declared(settings), "tokens": []}, indent=2
        ),
        "proof": proof(settings, unit="sentry.service", token=""),
    }
