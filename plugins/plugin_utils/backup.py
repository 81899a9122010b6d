# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What cannot work in the backup role's settings."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.fushuma.production.plugins.module_utils import sshd_keys
from ansible_collections.fushuma.production.plugins.plugin_utils import backup_model as model
from ansible_collections.fushuma.production.plugins.plugin_utils import cron, secret
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import Problem, repeated, value_of

with contextlib.suppress(ImportError):  # only ansible-test imports this where ansible-core's own requirement is missing
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

Settings = Mapping[str, Any]

NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|[0-9a-fA-F:.]+")
USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")
PLACE = re.compile(r"[A-Za-z0-9._/@+=-]+")
VOLUME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]+")
DATABASE = re.compile(r"[A-Za-z_][A-Za-z0-9_$-]{0,63}")
MAIL = re.compile(r"[^@\s,]+@[^@\s,]+")

# What each kind of repository is told beside its name and password: what it cannot do without, and what it may be.
NEEDED = {
    "local": ("path",),
    "sftp": ("path", "host", "user", "private_key", "host_keys"),
    "s3": ("path", "url", "access_key", "secret_key"),
    "rest": ("url",),
}
ALLOWED = {"local": (), "sftp": ("port",), "s3": ("region", "ca"), "rest": ("path", "user", "user_password", "ca")}
FORMS = {
    "path": "the folder, or the bucket and a path in it",
    "host": "the host's name or address",
    "port": "no port",
    "user": "who logs in",
    "private_key": "the key in a vault file, as ssh-keygen -t ed25519 -N '' makes it",
    "host_keys": "what ssh-keyscan says of it, compared with the host's own /etc/ssh/ssh_host_ed25519_key.pub",
    "url": '"https://backups.fushuma.com"',
    "region": "no region",
    "access_key": "the name of the key",
    "secret_key": "the secret of the key, in a vault file",
    "user_password": "the user's password, in a vault file",
    "ca": "no authorities",
}
SECRETS = ("private_key", "secret_key", "user_password", "password")

# Folders that hold nothing to keep.
UNREAL = ("/proc", "/sys", "/dev", "/run")
# Folders whose files change while they are read, and what has them right.
LIVE = {
    "/var/lib/mysql": ("mariadb", "mariadb_databases, which are dumped"),
    "/var/lib/postgresql": ("postgresql", "backup_postgresql, whose databases are dumped"),
    "/var/lib/redis": ("redis", "redis_instances, which write a fresh copy"),
    "/var/lib/valkey": ("valkey", "redis_instances, which write a fresh copy"),
    "/var/lib/docker": ("", "volumes of app_applications, each by its name"),
}
OWN = (model.FOLDER, model.DATA, model.CACHE, model.SCRATCH)

HOUR, DAY = 3600, 86400
# How far apart at least is what each rule of retention keeps, in seconds; `last` depends on the schedule.
APART = {"hourly": HOUR, "daily": DAY, "weekly": 7 * DAY, "monthly": 30 * DAY, "yearly": 365 * DAY}
COUNTS = ("last", *APART)
SPANS = ("within", "within_hourly", "within_daily", "within_weekly", "within_monthly", "within_yearly")


def problems(settings: Settings) -> list[Problem]:
    """Everything that cannot work. ``settings`` fit the role's argument_specs and hold all defaults."""
    return [
        *_repositories_problems(settings),
        *_source_problems(settings),
        *_exclude_problems(settings),
        *_schedule_problems(settings),
        *_retentions_problems(settings),
        *_hook_problems(settings["backup_hooks"]),
        *_limit_problems(settings),
        *_query_problems(settings),
        *_signal_problems(settings["backup_signals"]),
    ]


# --- repositories -----------------------------------------------------------------------------------------------------


def _repositories_problems(settings: Settings) -> Iterator[Problem]:
    repositories = settings["backup_repositories"]
    yield from repeated("backup_repositories", repositories, "name")
    for number, one in enumerate(repositories):
        yield from (found.under(f"backup_repositories[{number}]") for found in _repository_problems(one))
    places: dict[str, int] = {}
    passwords: dict[str, int] = {}
    for number, one in enumerate(repositories):
        where = f"backup_repositories[{number}]"
        before = places.setdefault(model.location(one).rstrip("/"), number)
        if before != number:
            why = f"backup_repositories[{before}] is at the same place, and one of two copies is none"
            form = "another place, or one entry with all purposes"
            yield Problem(f"{where}.path", value_of(one["path"]), why, form)
        before = passwords.setdefault(one["password"], number)
        if one["password"] and before != number:
            why = f"backup_repositories[{before}] has the same, and who learns one of them could read both"
            yield Problem(f"{where}.password", value_of(one["password"], secret=True), why, "a password of its own")


def _repository_problems(one: Mapping[str, Any]) -> Iterator[Problem]:
    if not NAME.fullmatch(one["name"]):
        form = "lower-case letters, digits and dashes, such as offsite"
        yield Problem("name", value_of(one["name"]), "files and commands are called by it", form)
    if not one["password"]:
        yield Problem("password", '""', "everybody could read what is in the repository", secret.FORM)
    elif one["former_password"] == one["password"]:
        shown = value_of(one["former_password"], secret=True)
        yield Problem("former_password", shown, "it is the present one", "the one before, or none")
    yield from _field_problems(one)
    yield from _place_problems(one)
    yield from _sftp_problems(one)
    yield from _url_problems("url", one["url"], ("s3", "rest"), one["kind"])
    yield from _authority_problems(one)
    if one["user_password"] and not one["user"]:
        yield Problem("user", '""', "user_password is the password of nobody", "the user whose password it is")
    if one["kind"] == "rest" and one["user"] and not one["user_password"]:
        yield Problem("user_password", "missing", "the server lets no user in without one", FORMS["user_password"])
    for name in ("secret_key", "user_password"):
        if one["password"] and one["password"] == one[name]:
            why = f"it is {name} too, which the server knows, so who runs the server could read all of it"
            yield Problem("password", value_of(one["password"], secret=True), why, "another secret")
    yield from _purpose_problems(one)


def _field_problems(one: Mapping[str, Any]) -> Iterator[Problem]:
    """What a kind lacks, and what it does not read."""
    kind, needed = one["kind"], NEEDED[one["kind"]]
    for name, form in FORMS.items():
        given = one[name] != 22 if name == "port" else bool(one[name])
        if name in needed and not given:
            shown = "missing" if name in SECRETS else value_of(one[name])
            yield Problem(name, shown, f"a repository of the kind {kind} cannot be reached without it", form)
        elif given and name not in needed and name not in ALLOWED[kind]:
            shown = value_of(one[name], secret=name in SECRETS)
            yield Problem(
                name, shown, f"a repository of the kind {kind} does not read it", f"none, or another kind than {kind}"
            )


def _place_problems(one: Mapping[str, Any]) -> Iterator[Problem]:
    path, shown = one["path"], value_of(one["path"])
    if not path:
        return
    if not PLACE.fullmatch(path) or ".." in path.split("/"):
        yield Problem("path", shown, "it is no plain path", "letters, digits and . _ - between slashes")
    elif one["kind"] == "local":
        whole = model.location(one)
        if not path.startswith("/") or whole == "/":
            yield Problem("path", shown, "it is no folder of this host", '"/srv/backups"')
        elif any(whole == own or model.is_within(whole, own) for own in OWN):
            why = "the role has that folder for itself"
            yield Problem("path", shown, why, '"/srv/backups", best on a disk of its own')


def _sftp_problems(one: Mapping[str, Any]) -> Iterator[Problem]:
    if one["kind"] != "sftp":
        return
    if one["host"] and not HOST.fullmatch(one["host"]):
        yield Problem("host", value_of(one["host"]), "it is no name or address of a host", '"backups.fushuma.com"')
    if one["user"] and not USER.fullmatch(one["user"]):
        yield Problem("user", value_of(one["user"]), "it is no name of a user", '"backup"')
    if not 1 <= one["port"] <= 65535:
        yield Problem("port", value_of(one["port"]), "ports go from 1 to 65535", "22")
    yield from _key_problems(one)


def _key_problems(one: Mapping[str, Any]) -> Iterator[Problem]:
    """The keys by which host and user know each other."""
    for number, line in enumerate(one["host_keys"]):
        try:
            if sshd_keys.parsed(line).options:
                raise ValueError("something stands before the kind of key, such as the host's name")
        except ValueError as error:
            form = '"ssh-ed25519 AAAA…", without the name of the host'
            yield Problem(f"host_keys[{number}]", value_of(line), str(error), form)
    if not one["private_key"]:
        return
    key = one["private_key"].strip().encode() + b"\n"
    load = serialization.load_ssh_private_key if b"BEGIN OPENSSH" in key else serialization.load_pem_private_key
    try:
        load(key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        shown = value_of(one["private_key"], secret=True)
        why = f"ssh cannot use it while nobody is there to type a passphrase ({type(error).__name__})"
        yield Problem("private_key", shown, why, FORMS["private_key"])


def _url_problems(setting: str, url: str, kinds: tuple[str, ...] = ("",), kind: str = "") -> Iterator[Problem]:
    """What cannot work in an address, which is shown for repositories only: the others are secrets."""
    if not url or kind not in kinds:
        return
    shown = value_of(url, secret=not kind)
    try:
        parts = urlsplit(url)
        host, name, _port = parts.hostname or "", parts.username, parts.port
    except ValueError:
        yield Problem(setting, shown, "it is no address", FORMS["url"])
        return
    if name is not None:
        shown = value_of(url, secret=True)
        yield Problem(setting, shown, "a name or password in it would be seen", "the address alone; user has a setting")
    elif parts.scheme not in ("http", "https") or not host or re.search(r"\s", url):
        yield Problem(setting, shown, "it is no address of a server that speaks HTTP", FORMS["url"])
    elif kind and (parts.query or parts.fragment):
        yield Problem(setting, shown, "a place has no question in it", "the address up to the question mark")
    elif parts.scheme == "http" and not _is_loopback(host):
        why = "everybody on the way could read what it is told, such as the user's password, and change it"
        yield Problem(
            setting, shown, why, "https://, with ca where the certificate is your own" if kind else "https://"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _authority_problems(one: Mapping[str, Any]) -> Iterator[Problem]:
    if not one["ca"]:
        return
    try:
        x509.load_pem_x509_certificates(one["ca"].encode())
    except ValueError:
        yield Problem("ca", "a text", "it is no certificate in PEM form", "lookup('ansible.builtin.file', 'ca.pem')")
    if one["url"].startswith("http://"):
        yield Problem("ca", "a text", "url is without TLS, so no certificate is asked for", "https:// in url, or no ca")


def _purpose_problems(one: Mapping[str, Any]) -> Iterator[Problem]:
    wanted = model.purposes(one)
    if not wanted:
        yield Problem("purposes", "[]", "nothing would be done with it", "what it is for, or no purposes for all")
    elif len(set(wanted)) < len(wanted):
        yield Problem("purposes", value_of(wanted), "one of them stands there twice", "each once")
    if not one["append_only"]:
        return
    if one["kind"] == "local":
        why = "who is root on this host can remove what is in a folder of it"
        yield Problem("append_only", "true", why, "false, or a server that keeps what it has")
    elif {"backup", "prune"} <= set(wanted):
        why = "a server that lets this host only add lets it take nothing away, and one that does is not append-only"
        form = '["backup", "check", "drill"], and ["prune"] with other credentials on another host'
        yield Problem("purposes", value_of(wanted), why, form)


# --- what is backed up ------------------------------------------------------------------------------------------------


def _source_problems(settings: Settings) -> Iterator[Problem]:
    declared, paths = settings["backup_sources"], settings["backup_paths"]
    if _is_for("backup", settings) and not (declared or paths or settings["backup_postgresql"]):
        why = "there is nothing to back up"
        yield Problem("backup_paths", "[]", why, '["/etc"], or no backup_repositories')
    for number, one in enumerate(declared):
        yield from (found.under(f"backup_sources[{number}]") for found in _declared_problems(one))
    kinds = {one["server"] if one["kind"] == "redis" else one["kind"] for one in declared}
    kinds |= {"postgresql"} if settings["backup_postgresql"] else set()
    named = [(f"backup_sources[{n}].path", one["path"]) for n, one in enumerate(declared) if one["kind"] == "path"]
    named += [(f"backup_paths[{number}]", path) for number, path in enumerate(paths)]
    local = model.local_places(settings)
    for setting, path in named:
        yield from _path_problems(setting, path, kinds, local, settings["backup_exclude"])
    for number, name in enumerate(settings["backup_postgresql"]):
        if not DATABASE.fullmatch(name):
            yield Problem(f"backup_postgresql[{number}]", value_of(name), "it is no plain name", '"shop"')


def _declared_problems(one: Mapping[str, Any]) -> Iterator[Problem]:
    """What a source of another role lacks, without which nobody can back it up."""
    needed = {"path": ("path",), "volume": ("volume",), "redis": ("instance", "rdb", "unit", "cli")}
    for name in needed.get(one["kind"], ()):
        if not one[name]:
            why = f"nobody can back up a source of the kind {one['kind']} without it"
            yield Problem(name, value_of(one[name]), why, f"the {name} of it")
    if one["volume"] and not VOLUME.fullmatch(one["volume"]):
        yield Problem("volume", value_of(one["volume"]), "it is no name of a volume", '"shop-uploads"')
    for number, name in enumerate(one["databases"]):
        if not DATABASE.fullmatch(name):
            yield Problem(f"databases[{number}]", value_of(name), "it is no plain name", '"shop"')
    for name in ("rdb", "folder"):
        if one[name] and not os.path.isabs(one[name]):
            yield Problem(name, value_of(one[name]), "it is no whole path", '"/var/lib/redis/cache"')


def _path_problems(setting: str, path: str, kinds: set[str], local: list[str], exclude: list[str]) -> Iterator[Problem]:
    whole = model.whole(path)
    if not path.startswith("/"):
        if path:
            yield Problem(setting, value_of(path), "it is no whole path", '"/srv/files"')
        return
    for why, form in _folder_problems(whole, kinds, local, exclude):
        yield Problem(setting, value_of(path), why, form)


def _folder_problems(whole: str, kinds: set[str], local: list[str], exclude: list[str]) -> Iterator[tuple[str, str]]:
    """Why a folder cannot be backed up, each with a form that would work."""
    yours = "the folders that hold something of yours"
    if whole == "/":
        yield "there is much in it that nobody can back up, such as /proc and the files of running databases", yours
        return
    if _is_in(whole, UNREAL):
        yield "the kernel and running programs make what is there, so it is of no use afterwards", yours
    if _is_in(whole, local):
        yield "the backups themselves lie there", "another path"
    if _is_in(whole, OWN):
        yield "the role has that folder for itself", "another path"
    for folder, (kind, form) in LIVE.items():
        if _is_in(whole, [folder]):
            yield "its files change while they are read, so a copy of them is of no moment at all", form
        elif model.is_within(folder, whole) and kind in kinds and folder not in exclude:
            why = f"{folder} is in it, whose files change while they are read"
            yield why, f"it with {folder} in backup_exclude; its data is dumped anyway"


def _is_in(path: str, folders: Iterable[str]) -> bool:
    return any(path == one or model.is_within(path, one) for one in folders)


def _exclude_problems(settings: Settings) -> Iterator[Problem]:
    paths = [one["path"] for one in model.sources(settings) if "path" in one]
    for number, pattern in enumerate(settings["backup_exclude"]):
        setting, shown = f"backup_exclude[{number}]", value_of(pattern)
        if not pattern.strip() or "\n" in pattern:
            yield Problem(setting, shown, "it is no pattern", '"*.tmp"')
        elif pattern.startswith("!"):
            yield Problem(setting, shown, "it takes back what another pattern leaves out", "less in that one")
        elif gone := [path for path in paths if pattern.rstrip("/*") in ("", path) or model.is_within(path, pattern)]:
            why = f"nothing of {gone[0]}, which is to be backed up, would be left"
            yield Problem(setting, shown, why, "something within it, or take the path away")


# --- when -------------------------------------------------------------------------------------------------------------


def _schedule_problems(settings: Settings) -> Iterator[Problem]:
    times = settings["backup_schedule"]
    for name in ("backup_rpo", "backup_rto"):
        if model.seconds(settings[name]) <= 0:
            yield Problem(name, value_of(settings[name]), "it is no length of time", '"26h", in s, m, h or d')
    if model.seconds(times["random_delay"]) < 0:
        shown = value_of(times["random_delay"])
        yield Problem("backup_schedule.random_delay", shown, "it is no length of time", '"15m", in s, m, h or d')
    for verb in model.VERBS:
        try:
            _gaps(times[verb])
        except ValueError as error:
            setting, form = f"backup_schedule.{verb}", '"17 2 * * *", which is each day at 02:17'
            yield Problem(setting, value_of(times[verb]), str(error), form)
        else:
            if verb == "run" and _is_for("backup", settings):
                yield from _run_problems(settings)


def _run_problems(settings: Settings) -> Iterator[Problem]:
    """Whether backups are close enough to each other."""
    times, delay = settings["backup_schedule"], model.seconds(settings["backup_schedule"]["random_delay"])
    if not times["run"]:
        why = "backup_repositories wait for backups, and nothing would make one"
        yield Problem("backup_schedule.run", '""', why, '"17 2 * * *"')
        return
    shortest, longest = _gaps(times["run"])
    if 0 < model.seconds(settings["backup_rpo"]) < longest + max(delay, 0):
        most = f"{_told(longest)} and {times['random_delay']} of random_delay" if delay > 0 else _told(longest)
        why = f"backups are up to {most} apart, and backup_rpo wants none older than {settings['backup_rpo']}"
        yield Problem("backup_schedule.run", value_of(times["run"]), why, "more of them, or a longer backup_rpo")
    if delay >= shortest:
        why = f"the next backup is due {_told(shortest)} later already"
        yield Problem("backup_schedule.random_delay", value_of(times["random_delay"]), why, "less than that")


def _gaps(expression: str) -> tuple[int, int]:
    """The seconds between two runs, the fewest and the most; 0 where there are none. Raises ValueError."""
    return cron.parsed(expression).gaps() if expression else (0, 0)


def _is_for(purpose: str, settings: Settings) -> bool:
    """Whether any repository of the host is for that."""
    return any(purpose in model.purposes(one) for one in settings["backup_repositories"])


def _told(seconds: int) -> str:
    """Seconds as people say them: 26h, 7d, 90m."""
    for unit, size in (("d", DAY), ("h", HOUR)):
        if seconds % size == 0 and (seconds >= 2 * size or size == HOUR):
            return f"{seconds // size}{unit}"
    return f"{seconds // 60}m"


# --- what is kept -----------------------------------------------------------------------------------------------------


def _retentions_problems(settings: Settings) -> Iterator[Problem]:
    pruned = [one for one in settings["backup_repositories"] if "prune" in model.purposes(one)]
    if any(not one["retention"] for one in pruned):
        yield from _retention_problems("backup_retention", settings["backup_retention"], settings)
    for number, one in enumerate(settings["backup_repositories"]):
        setting = f"backup_repositories[{number}].retention"
        if one["retention"]:
            yield from _retention_problems(setting, one["retention"], settings)
        counts = [name for name in COUNTS if model.retention(one, settings)[name]]
        if one["append_only"] and counts and (one["retention"] or one in pruned):
            why = (
                "who takes a host over could add snapshots until none of yours is among the newest, "
                "and what is counted would go"
            )
            form = "lengths of time, such as {within_daily: 30d, within_monthly: 1y}"
            shown = value_of({name: model.retention(one, settings)[name] for name in counts})
            yield Problem(setting if one["retention"] else "backup_retention", shown, why, form)


def _retention_problems(setting: str, kept: Mapping[str, Any], settings: Settings) -> Iterator[Problem]:
    found = []
    for name in COUNTS:
        if kept[name] < 0:
            found.append(
                Problem(f"{setting}.{name}", value_of(kept[name]), "less than none cannot be kept", "0 or more")
            )
    for name in SPANS:
        if kept[name] and model.span(kept[name]) <= 0:
            form = '"30d", in h, d, m (months) or y'
            found.append(Problem(f"{setting}.{name}", value_of(kept[name]), "it is no length of time", form))
    if not any(kept.values()):
        why = "nothing is to be kept, so all snapshots would go"
        found.append(Problem(setting, value_of({}), why, "for example {daily: 7, weekly: 5, monthly: 12}"))
    yield from found
    if not found:
        yield from _reach_problems(setting, kept, settings)


def _reach_problems(setting: str, kept: Mapping[str, Any], settings: Settings) -> Iterator[Problem]:
    """Retention against what is wanted: points that are close enough to each other, and far enough back."""
    times, rpo = settings["backup_schedule"], model.seconds(settings["backup_rpo"])
    shown = value_of({name: value for name, value in kept.items() if value})
    every = [1] * bool(kept["last"] or kept["within"])
    closest = min(every + [size for name, size in APART.items() if kept[name] or kept[f"within_{name}"]])
    if closest > max(rpo, HOUR) and rpo > 0:
        why = (
            f"what it keeps is {_told(closest)} apart or more, and backup_rpo wants no more than "
            f"{settings['backup_rpo']}, so the points between them go with the next prune"
        )
        yield Problem(setting, shown, why, "hourly: 48 besides" if closest == DAY else "daily: 7 besides")
    try:
        shortest, drilled = _gaps(times["run"])[0] or DAY, _gaps(times["drill"])[1]
    except ValueError:
        return
    reaches = [kept["last"] * shortest, *(kept[name] * size for name, size in APART.items())]
    reach = max(reaches + [model.span(kept[name]) for name in SPANS if kept[name]])
    if reach < drilled and _is_for("drill", settings):
        why = (
            f"it reaches back {_told(int(reach))}, and drills are up to {_told(drilled)} apart, so what one of them "
            "finds broken could be broken in all snapshots"
        )
        yield Problem(setting, shown, why, "more of them, or drills more often")


# --- the rest ---------------------------------------------------------------------------------------------------------


def _hook_problems(hooks: Mapping[str, Any]) -> Iterator[Problem]:
    for when in ("before", "after"):
        for number, argv in enumerate(hooks[when]):
            setting, form = f"backup_hooks.{when}[{number}]", '["/usr/local/sbin/quiesce", "--all"]'
            if not argv or not all(isinstance(word, str) for word in argv):
                yield Problem(setting, value_of(argv), "it is no argv, which is a list of texts", form)
            elif not os.path.isabs(argv[0]):
                why = "its program is no whole path, and no shell looks for it"
                yield Problem(setting, value_of(argv), why, form)


def _limit_problems(settings: Settings) -> Iterator[Problem]:
    limits, parts = settings["backup_limits"], settings["backup_check_parts"]
    if not 1 <= parts <= 1000:
        why = "data is checked in one part, or in up to 1000"
        yield Problem("backup_check_parts", value_of(parts), why, "8")
    if not 60 <= limits["seconds"] <= 7 * DAY:
        why = "a call of restic needs a minute, and after a week it hangs"
        yield Problem("backup_limits.seconds", value_of(limits["seconds"]), why, "43200")
    if not 1 <= limits["attempts"] <= 20:
        yield Problem(
            "backup_limits.attempts", value_of(limits["attempts"]), "one attempt is needed at least", "1 to 20"
        )
    for name in ("upload_kib", "download_kib"):
        if limits[name] < 0:
            yield Problem(f"backup_limits.{name}", value_of(limits[name]), "less than none is no limit", "0 for none")


def _query_problems(settings: Settings) -> Iterator[Problem]:
    servers = [one for one in model.sources(settings) if one["kind"] in ("mariadb", "postgresql")]
    known = {name for one in servers for name in one.get("databases", [])}
    everything = any(not one.get("databases") for one in servers)
    for number, one in enumerate(settings["backup_drill"]["queries"]):
        setting = f"backup_drill.queries[{number}]"
        if one["database"] not in known and not everything:
            why = "no database of that name is backed up"
            form = f"one of {', '.join(sorted(known))}" if known else "a database that is declared"
            yield Problem(f"{setting}.database", value_of(one["database"]), why, form)
        if not re.match(r"\s*(select|with)\b", one["query"], re.IGNORECASE) or ";" in one["query"].rstrip("; \n"):
            why = "it is not one query whose answer could be compared"
            yield Problem(f"{setting}.query", value_of(one["query"]), why, '"SELECT COUNT(*) FROM products"')


def _signal_problems(signals: Mapping[str, Any]) -> Iterator[Problem]:
    folder = signals["textfile_folder"]
    if folder and not os.path.isabs(folder):
        why = "it is no whole path"
        yield Problem("backup_signals.textfile_folder", value_of(folder), why, '"/var/lib/prometheus/node-exporter"')
    for name in ("ping_url", "sentry_url", "webhook_url"):
        yield from _url_problems(f"backup_signals.{name}", signals[name])
    if signals["mail_to"] and not MAIL.fullmatch(signals["mail_to"]):
        why = "it is no address of mail"
        yield Problem("backup_signals.mail_to", value_of(signals["mail_to"]), why, '"ops@fushuma.com"')
