# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the log_shipper role writes down, worked out of its settings."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.fushuma.production.plugins.plugin_utils.sizes import bytes_of

Settings = Mapping[str, Any]
Group = Mapping[str, Any]

AUTHORITIES = "/etc/syslog-ng/authorities"
# Where lines are pushed to, unless a store says so itself.
PUSH = {"loki": "/loki/api/v1/push", "victorialogs": "/insert/loki/api/v1/push"}
# Declared whatever else is, for the line that proves the path is one of theirs.
OWN_UNITS = {"syslog-ng.service": "log_shipper", "production-logs.service": "log_shipper"}
SECONDS = re.compile(r"(\d{1,6})(ms|s|min|h)")

# How much a line matters, as syslog(3) names it, and the words that programs have for it.
LEVELS = {
    "debug": "trace|debug",
    "info": "info|information",
    "notice": "notice",
    "warning": "warn|warning",
    "err": "err|error",
    "crit": "crit|critical",
    "alert": "alert",
    "emerg": "emerg|emergency|fatal|panic",
}
# And the numbers of libraries for Node.
NUMBERS = {"debug": "[12]0", "info": "30", "warning": "40", "err": "50", "emerg": "60"}

SECRET = r"(?:pass(?:word|wd|phrase)|secret|token|credential|(?:api|access|private|signing|encryption)[_-]?key)"
QUOTES = r"[\\\"']{0,3}"  # those of JSON within JSON too
# Rather too much is taken away than too little; names stay, and JSON stays JSON. Each has to be read alike by Python
# and by both versions of PCRE, for one of them is at work on each release. What their first group finds stays.
KEPT, WHOLE = "$1***", "***"
USUAL: Sequence[Mapping[str, str]] = [
    {"name": name, "pattern": pattern, "replacement": replacement}
    for name, replacement, pattern in (
        ("private-key", KEPT, r"(-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----)[\s\S]*?(?=-----END|$)"),
        (
            "authorization",
            KEPT,
            rf"(?i)(\b(?:proxy-)?authorization{QUOTES}\s*[:=]\s*{QUOTES}(?:[a-z]{{1,16}}\s+)?)[^\s\"'\\,;]+",
        ),
        ("bearer", KEPT, r"(?i)(\b(?:bearer|basic)\s+)[\w.~+/=-]{8,}"),
        ("cookie", KEPT, rf"(?i)(\b(?:set-)?cookie{QUOTES}\s*[:=]\s*{QUOTES})[^\"'\\]+"),
        ("url-password", "$1***@", r"(://[^\s/@:\"'\\]{0,128}:)[^\s/@\"'\\]{1,256}@"),
        ("json", KEPT, rf"(?i)(\"[\w.-]{{0,64}}{SECRET}[\w.-]{{0,64}}\"\s*:\s*\")(?:[^\"\\]|\\.)+"),
        (
            "json-in-json",
            KEPT,
            rf"(?i)(\\\"[\w.-]{{0,64}}{SECRET}[\w.-]{{0,64}}\\\"\s*:\s*\\\")[^\"\\]+",
        ),
        ("assignment", KEPT, rf"(?i)({SECRET}[\w-]{{0,32}}\s*[:=]\s*['\"]?)[^\s\"'\\,;&)\]}}]+"),
        ("argument", KEPT, rf"(?i)(\s--?[\w-]{{0,32}}{SECRET}[\w-]{{0,32}}\s+)(?!-)[^\s\"'\\]+"),
        (
            "identified-by",
            KEPT,
            r"(?i)(\bidentified\s+(?:(?:with|via)\s+\S+\s+)?(?:by|as|using)\s+(?:password\s+)?\(?['\"])[^'\"\\]+",
        ),
        ("web-token", WHOLE, r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"),
        (
            "service-key",
            WHOLE,
            r"\b(?:gh[opsur]_|github_pat_|glpat-|[sr]k_(?:live|test)_|xox[abeprs]-|npm_|dckr_pat_|hvs\.)[\w-]{10,}",
        ),
        ("access-key", WHOLE, r"\bA(?:KIA|SIA)[0-9A-Z]{16}\b"),
        (
            "card",
            WHOLE,
            r"(?<![\w.-])(?:4\d{3}|5[1-5]\d\d|2[2-7]\d\d|6(?:011|5\d\d))([ -]?)\d{4}\1\d{4}\1\d{4}(?![\w-])",
        ),
        ("card-of-15", WHOLE, r"(?<![\w.-])3[47]\d\d([ -]?)\d{6}\1\d{5}(?![\w-])"),
    )
]


def model(settings: Settings, host: str) -> list[dict[str, Any]]:
    """The files that follow from what is read and where it goes, each ``{dest, template, ...}``.

    ``settings`` fit the role's argument_specs and hold all defaults.
    """
    stores = settings["log_shipper_stores"]
    return [
        {
            "dest": "/etc/syslog-ng/syslog-ng.conf",
            "template": "syslog-ng.conf.j2",
            "host": quoted(literal(host)),
            "everything": settings["log_shipper_everything"],
            **_read(settings["log_shipper_logs"]),
            "levels": LEVELS,
            "numbers": NUMBERS,
            "scrub": [_rule(one) for one in rules(settings["log_shipper_scrub"])],
            "stores": [_store(one) for one in stores],
            "buffer": bytes_of(settings["log_shipper_buffer"]),
        },
        {
            "dest": "/etc/production-logs.json",
            "template": "proof.json.j2",
            "config": _proof(settings, host),
        },
        *[
            {"dest": authority_of(one), "template": "authority.pem.j2", "content": one["ca"].strip()}
            for one in stores
            if one["ca"]
        ],
    ]


# --- what is read -----------------------------------------------------------------------------------------------------


def _read(logs: Sequence[Group]) -> dict[str, Any]:
    """Units, applications and files; the later of two with the same name counts."""
    units = OWN_UNITS | {one["unit"]: one["job"] for one in logs if one["unit"]}
    applications = {one["application"]: one["job"] for one in logs if one["application"]}
    files = {one["path"]: one for one in logs if one["path"]}
    return {
        "units": [{"unit": quoted(unit), "job": quoted(literal(job))} for unit, job in sorted(units.items())],
        # The longest name decides where one begins with another one; of rules that fit, the last one counts.
        "applications": [
            {"begins": quoted(f"^{re.escape(name)}-"), "job": quoted(literal(job))}
            for name, job in sorted(applications.items(), key=lambda one: (len(one[0]), one[0]))
        ],
        "files": [_file(one) for _path, one in sorted(files.items())],
        "names": [f"file_{number}" for number in range(1, len(files) + 1)],
    }


def _file(one: Group) -> dict[str, Any]:
    return {
        "path": quoted(one["path"]),
        "unit": quoted(literal(one["path"])),
        "job": quoted(literal(one["job"])),
        "format": one["format"],
        "starts": quoted(one["starts"]) if one["starts"] else "",
    }


# --- what never leaves the host ---------------------------------------------------------------------------------------


def rules(own: Sequence[Group]) -> list[Group]:
    """The usual rules and those of the operator, who may take the place of usual ones; without those that are off."""
    found: dict[str, Group] = {one["name"]: one for one in [*USUAL, *own]}
    return [one for one in found.values() if one["pattern"]]


def _rule(one: Group) -> dict[str, str]:
    return {
        "name": one["name"],
        "pattern": quoted(one["pattern"]),
        # A dollar sign that is no group's is a text.
        "replacement": quoted(re.sub(r"\$(?![0-9])", "$$", one["replacement"])),
    }


# --- where it goes ----------------------------------------------------------------------------------------------------


def _store(one: Group) -> dict[str, Any]:
    return {
        "id": id_of(one),
        "url": quoted(literal(address_of(one))),
        "user": quoted(one["user"]) if one["user"] else "",
        "password": quoted(one["password"]),
        "headers": [quoted(f"{name}: {value}") for name, value in tenant_of(one).items()],
        "authorities": quoted(trusted_by(one)) if one["url"].startswith("https:") else "",
    }


def address_of(one: Group) -> str:
    """Where lines are pushed to."""
    push: str = one["push"] or PUSH[one["kind"]]
    return str(one["url"]).rstrip("/") + push


def id_of(one: Group) -> str:
    """A store's name, which its buffer on the disk has too, so it stays whatever else is added or taken away."""
    return hashlib.sha256(address_of(one).encode()).hexdigest()[:12]


def authority_of(one: Group) -> str:
    """The file of a store's own authorities."""
    return f"{AUTHORITIES}/{id_of(one)}.pem"


def trusted_by(one: Group) -> str:
    """The file of the authorities that count for a store."""
    return authority_of(one) if one["ca"] else "/etc/ssl/certs/ca-certificates.crt"


def tenant_of(one: Group) -> dict[str, str]:
    """The headers that say whose lines they are."""
    if not one["tenant"]:
        return {}
    if one["kind"] == "loki":
        return {"X-Scope-OrgID": one["tenant"]}
    account, _colon, project = one["tenant"].partition(":")
    return {"AccountID": account, "ProjectID": project or "0"}


def _proof(settings: Settings, host: str) -> dict[str, Any]:
    folder = settings["log_shipper_textfile_folder"]
    return {
        "host": host,
        # What Prometheus knows it by. The program itself is shown to operators, as every file without secrets is.
        "found_as": "production_logs_canary_timestamp_seconds",
        "within": settings["log_shipper_proof"]["within"],
        "textfile": f"{folder}/production_logs.prom" if folder else "",
        "stores": [_asked(one) for one in settings["log_shipper_stores"]],
    }


def _asked(one: Group) -> dict[str, Any]:
    return {
        "id": id_of(one),
        "url": one["url"].rstrip("/"),
        "kind": one["kind"],
        "user": one["user"],
        "password": one["password"],
        "headers": tenant_of(one),
        "authorities": trusted_by(one),
    }


# --- how syslog-ng reads texts ----------------------------------------------------------------------------------------


def quoted(text: str) -> str:
    """A text as syslog-ng reads it in double quotes."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def literal(text: str) -> str:
    """A text in the place of a template, in which dollar signs would begin macros."""
    return text.replace("$", "$$")


def unwritable(text: str) -> Iterator[str]:
    """The signs of a text that no quotes help against: a backtick begins a variable even within them."""
    yield from sorted({one for one in text if one == "`" or ord(one) < 32})
