# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Would sshd, configured like this, let the one in who is connected now? Pure functions over what sshd -T says."""

from __future__ import annotations

import fnmatch
import ipaddress
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.fushuma.production.plugins.module_utils.sshd_keys import SIGNATURES, Key

# What sshd -T prints: each keyword in small letters with its values, a value for each line.
Effective = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Session:
    """The SSH connection over which this runs, as the host sees it (SSH_CONNECTION, ssh(1))."""

    user: str
    client: str
    address: str
    port: int


@dataclass(frozen=True)
class Account:
    """What the host knows about a user. ``keys`` are those sshd would read, all of them."""

    name: str
    groups: Sequence[str]
    has_password: bool
    keys: Sequence[Key] = ()


def reasons(session: Session, account: Account, config: Effective, now: float) -> list[str]:
    """Why the session could not be opened again under this configuration; empty when it could."""
    found = []
    if not listens(config, session.address, session.port):
        found.append(
            f"sshd would listen on {', '.join(config.get('listenaddress', []))} and not on {session.address} port "
            f"{session.port}, where this run is connected"
        )
    found += _barred(session, account, config)
    found += _root_barred(account, config)
    if not (found or _ways_in(session, account, config, now)):
        found.append(_no_way_in(session, account, config, now))
    for keyword, name in (("forcecommand", "ForceCommand"), ("chrootdirectory", "ChrootDirectory")):
        if first(config, keyword, "none") != "none":
            found.append(
                f"{name} {first(config, keyword)} leaves {account.name} no shell, without which nobody manages"
            )
    if first(config, "maxsessions", "10") == "0":
        found.append("MaxSessions 0 allows no session at all")
    return found


def first(config: Effective, keyword: str, default: str = "") -> str:
    """The only value of a keyword."""
    return next(iter(config.get(keyword, [])), default)


def listens(config: Effective, address: str, port: int) -> bool:
    """Whether sshd takes connections to this address and port."""
    wildcard = "::" if ":" in address else "0.0.0.0"
    places = [one.rpartition(":") for one in config.get("listenaddress", [])]
    return any(
        int(listened) == port and host.strip("[]").partition("%")[0] in (wildcard, address)
        for host, _colon, listened in places
    )


def _barred(session: Session, account: Account, config: Effective) -> list[str]:
    """AllowUsers and the like, in the order in which sshd asks (auth.c, allowed_user)."""
    found = []
    users = {key: words(config, key) for key in ("denyusers", "allowusers", "denygroups", "allowgroups")}
    if named := [one for one in users["denyusers"] if matches_user(session, one)]:
        found.append(f"DenyUsers names {account.name} ({named[0]})")
    if users["allowusers"] and not any(matches_user(session, one) for one in users["allowusers"]):
        found.append(f"AllowUsers {' '.join(users['allowusers'])} does not name {account.name} from {session.client}")
    if named := [one for one in users["denygroups"] if _in_group(account, one)]:
        found.append(f"DenyGroups names {named[0]}, of which {account.name} is a member")
    if users["allowgroups"] and not any(_in_group(account, one) for one in users["allowgroups"]):
        found.append(
            f"AllowGroups {' '.join(users['allowgroups'])} names no group of {account.name} "
            f"({', '.join(account.groups) or 'none'})"
        )
    return found


def words(config: Effective, keyword: str) -> list[str]:
    return [word for value in config.get(keyword, []) for word in value.split()]


def matches_user(session: Session, pattern: str) -> bool:
    """Whether a pattern of AllowUsers or DenyUsers, USER or USER@HOST, means the session."""
    user, _at, host = pattern.rpartition("@") if "@" in pattern else (pattern, "", "*")
    return matches_word(session.user, user) and matches_address(session.client, host)


def _in_group(account: Account, pattern: str) -> bool:
    return any(matches_word(group, pattern) for group in account.groups)


def matches_word(text: str, pattern: str) -> bool:
    """ssh_config(5), PATTERNS: ``*`` and ``?`` and nothing else."""
    return bool(re.fullmatch(fnmatch.translate(re.sub(r"\[", "[[]", pattern)), text))


def matches_address(address: str, patterns: str) -> bool:
    """A list between commas of patterns and networks; one with ``!`` that matches ends it. Names are not looked up."""
    matched = False
    for pattern in patterns.split(","):
        if _is_address(address, pattern.removeprefix("!")):
            if pattern.startswith("!"):
                return False
            matched = True
    return matched


def _is_address(address: str, pattern: str) -> bool:
    if "/" in pattern:
        try:
            return ipaddress.ip_address(address.partition("%")[0]) in ipaddress.ip_network(pattern, strict=False)
        except ValueError:
            return False
    return matches_word(address, pattern)


def _root_barred(account: Account, config: Effective) -> list[str]:
    rule = first(config, "permitrootlogin", "yes")
    if account.name == "root" and rule in ("no", "forced-commands-only"):
        return [f"PermitRootLogin {rule} keeps root out, as whom this run is connected"]
    return []


def _available(session: Session, account: Account, config: Effective, now: float) -> dict[str, int]:
    """How often each method of authentication can succeed; a certificate counts without a limit."""
    on = {key for key, values in config.items() if list(values) == ["yes"]}
    password = account.has_password and not (
        account.name == "root" and first(config, "permitrootlogin") == "without-password"
    )
    keys = len(usable_keys(session, account.keys, config, now))
    if any(first(config, key, "none") != "none" for key in ("trustedusercakeys", "authorizedkeyscommand")):
        keys += 1000
    return {
        "publickey": keys if "pubkeyauthentication" in on else 0,
        "password": int(password and "passwordauthentication" in on),
        "keyboard-interactive": int(password and "kbdinteractiveauthentication" in on),
        "gssapi-with-mic": int("gssapiauthentication" in on),
        "hostbased": int("hostbasedauthentication" in on),
    }


def _ways_in(session: Session, account: Account, config: Effective, now: float) -> bool:
    available = _available(session, account, config, now)
    for way in words(config, "authenticationmethods") or ["any"]:
        methods = [method.partition(":")[0] for method in way.split(",")]
        if way == "any" and any(available.values()):
            return True
        if way != "any" and all(available.get(one, 0) >= methods.count(one) for one in methods):
            return True
    return False


def _no_way_in(session: Session, account: Account, config: Effective, now: float) -> str:
    available = [method for method, count in _available(session, account, config, now).items() if count]
    files = " ".join(config.get("authorizedkeysfile", []))
    asked = " ".join(words(config, "authenticationmethods"))
    if asked not in ("", "any"):
        has = ", ".join(available) or "none"
        return f"AuthenticationMethods {asked} asks {account.name} for more than there is (what can succeed: {has})"
    return (
        f"{account.name} has no key in {files} that sshd would take, no certificate authority is trusted, "
        "and no password opens a session"
    )


def usable_keys(session: Session, keys: Iterable[Key], config: Effective, now: float) -> list[Key]:
    """The keys with which this session's user can open a shell from where the session comes from."""
    accepted = set(first(config, "pubkeyacceptedalgorithms").split(","))
    least = int(first(config, "requiredrsasize", "0"))
    return [
        key
        for key in keys
        if accepted & set(SIGNATURES[key.kind])
        and not 0 < key.bits < least
        and key.option("command") is None
        and key.option("cert-authority") is None
        and matches_address(session.client, key.option("from") or "*")
        and not _expired(key.option("expiry-time"), now)
    ]


def _expired(stamp: str | None, now: float) -> bool:
    """``expiry-time`` is YYYYMMDD[HHMM[SS]], in local time or, with a Z, in UTC (sshd(8))."""
    if not stamp:
        return False
    digits = stamp.upper().removesuffix("Z").ljust(14, "0")
    moment = time.gmtime(now) if stamp.upper().endswith("Z") else time.localtime(now)
    return time.strftime("%Y%m%d%H%M%S", moment) >= digits
