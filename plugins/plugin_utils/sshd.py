# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What cannot work in the settings of the sshd role, as far as it shows without asking a host."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.fushuma.production.plugins.module_utils.sshd_keys import OPTION, SIGNATURES, Key, parsed
from ansible_collections.fushuma.production.plugins.module_utils.sshd_login import matches_word
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import Problem, value_of
from ansible_collections.fushuma.production.plugins.plugin_utils.sshd_algorithms import KNOWN, weakness

Settings = Mapping[str, Any]

LEAST_RSA = 3072  # bits
LEAST_CONFIRM = 10  # seconds a new connection may take
USER = re.compile(r"[a-z_][a-z0-9_.-]*\$?", re.IGNORECASE)
PATTERN = re.compile(r"[^\s\"#]+")
STARTUPS = re.compile(r"([1-9]\d*)(?::(\d{1,3}):([1-9]\d*))?")
DURATION = re.compile(r"-1|([1-9]\d*[smhdw]?)+")
KEYS_FILE = re.compile(r"[A-Za-z0-9/._%-]+")
METHODS = ("publickey", "password", "keyboard-interactive", "gssapi-with-mic", "hostbased")
# sshd_config(5), Match.
CRITERIA = ("User", "Group", "Host", "Address", "LocalAddress", "LocalPort")
MATCHABLE = (
    *("AcceptEnv", "AllowAgentForwarding", "AllowGroups", "AllowStreamLocalForwarding", "AllowTcpForwarding"),
    *("AllowUsers", "AuthenticationMethods", "AuthorizedKeysCommand", "AuthorizedKeysCommandUser"),
    *("AuthorizedKeysFile", "AuthorizedPrincipalsCommand", "AuthorizedPrincipalsCommandUser"),
    *("AuthorizedPrincipalsFile", "Banner", "CASignatureAlgorithms", "ChannelTimeout", "ChrootDirectory"),
    *("ClientAliveCountMax", "ClientAliveInterval", "DenyGroups", "DenyUsers", "DisableForwarding", "ExposeAuthInfo"),
    *("ForceCommand", "GatewayPorts", "GSSAPIAuthentication", "HostbasedAcceptedAlgorithms"),
    *("HostbasedAuthentication", "HostbasedUsesNameFromPacketOnly", "IgnoreRhosts", "IPQoS"),
    *("KbdInteractiveAuthentication", "KerberosAuthentication", "LogLevel", "MaxAuthTries", "MaxSessions"),
    *("PasswordAuthentication", "PermitEmptyPasswords", "PermitListen", "PermitOpen", "PermitRootLogin", "PermitTTY"),
    *("PermitTunnel", "PermitUserRC", "PubkeyAcceptedAlgorithms", "PubkeyAuthentication", "PubkeyAuthOptions"),
    *("RekeyLimit", "RevokedKeys", "SetEnv", "StreamLocalBindMask", "StreamLocalBindUnlink", "TrustedUserCAKeys"),
    *("UnusedConnectionTimeout", "X11DisplayOffset", "X11Forwarding", "X11UseLocalhost"),
)
RANGES: Mapping[str, tuple[int, int, str]] = {
    "sshd_max_auth_tries": (1, 100, "without an attempt nobody gets in"),
    "sshd_login_grace_time": (1, 3600, "0 would let connections wait for ever"),
    "sshd_max_sessions": (1, 1000, "without a session nobody gets in"),
    "sshd_client_alive_interval": (0, 86400, "it counts seconds"),
    "sshd_client_alive_count_max": (1, 1000, "0 would never end a dead connection (sshd_config(5))"),
    "sshd_moduli_bits": (2048, 8191, "smaller groups are broken, and larger ones are not made"),
    "sshd_fail2ban_max_retry": (1, 1000, "who has not failed yet cannot be banned"),
}


def problems(settings: Settings) -> list[Problem]:
    """Everything that cannot work. ``settings`` fit the role's argument_specs and hold all defaults."""
    found = list(_listen_problems(settings))
    for name, (least, most, why) in RANGES.items():
        if not least <= settings[name] <= most:
            found.append(Problem(name, value_of(settings[name]), why, f"a number from {least} to {most}"))
    found += _user_problems(settings)
    found += _connecting_problems(settings)
    found += _authentication_problems(settings)
    found += _startup_problems(settings["sshd_max_startups"])
    for name in KNOWN:
        found += _algorithm_problems(name, settings[name])
    for number, block in enumerate(settings["sshd_match"]):
        found += [problem.under(f"sshd_match[{number}]") for problem in _match_problems(block)]
    found += _authorized_problems(settings)
    found += _authority_problems(settings)
    found += _host_key_problems(settings)
    found += _confirm_problems(settings["sshd_confirm_within"])
    found += _fail2ban_problems(settings)
    return found


def _twice(setting: str, values: Sequence[object], what: str = "") -> Iterator[Problem]:
    for number, value in enumerate(values):
        if value in values[:number]:
            yield Problem(f"{setting}[{number}]{what}", value_of(value), "it stands there twice", "each of them once")


def _near(name: str, known: Iterable[str], otherwise: str) -> str:
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"{found[0]}, if that is meant" if found else otherwise


# --- where it listens ------------------------------------------------------------------------------------------------


def _listen_problems(settings: Settings) -> Iterator[Problem]:
    ports = settings["sshd_ports"]
    if not ports:
        yield Problem("sshd_ports", "[]", "nobody could connect", "[22]")
    for number, port in enumerate(ports):
        if not 1 <= port <= 65535:
            why = "ports go from 1 to 65535"
            yield Problem(f"sshd_ports[{number}]", value_of(port), why, "a port in that range")
    yield from _twice("sshd_ports", ports)
    yield from _twice("sshd_listen_addresses", settings["sshd_listen_addresses"])
    family = settings["sshd_address_family"]
    for number, address in enumerate(settings["sshd_listen_addresses"]):
        setting = f"sshd_listen_addresses[{number}]"
        try:
            version = ipaddress.ip_address(address).version
        except ValueError:
            why = "it is no address; a port stands in sshd_ports, and IPv6 without brackets"
            yield Problem(setting, value_of(address), why, 'for example "10.0.0.1" or "2001:db8::1"')
            continue
        if family == ("inet6" if version == 4 else "inet"):
            why = f"sshd_address_family {family} leaves it out"
            yield Problem(setting, value_of(address), why, "an address of that family, or sshd_address_family: any")


# --- who gets in -----------------------------------------------------------------------------------------------------


def _user_problems(settings: Settings) -> Iterator[Problem]:
    for name in ("sshd_allow_users", "sshd_deny_users", "sshd_allow_groups", "sshd_deny_groups"):
        for number, pattern in enumerate(settings[name]):
            if not PATTERN.fullmatch(pattern):
                why = "a pattern has no spaces, quotes and #"
                yield Problem(f"{name}[{number}]", value_of(pattern), why, "each pattern on a line of its own")
        yield from _twice(name, settings[name])
    for kind in ("users", "groups"):
        for number, pattern in enumerate(settings[f"sshd_allow_{kind}"]):
            if pattern in settings[f"sshd_deny_{kind}"]:
                why = f"sshd_deny_{kind} names it too, and that counts more"
                yield Problem(f"sshd_allow_{kind}[{number}]", value_of(pattern), why, "it in one of the two lists")
    if settings["sshd_root_login"] == "no":
        named = [f"sshd_allow_users[{n}]" for n, one in enumerate(settings["sshd_allow_users"]) if one == "root"]
        keys = settings["sshd_authorized_keys"]
        named += [f"sshd_authorized_keys[{n}].user" for n, one in enumerate(keys) if one["user"] == "root"]
        for setting in named:
            yield Problem(setting, '"root"', 'sshd_root_login is "no"', "another user, who may use sudo")


def _connecting_problems(settings: Settings) -> Iterator[Problem]:
    """Whether Ansible would shut itself out; the host is asked again, with all that only it knows."""
    user = settings["sshd_connecting_user"]
    if not user:
        return
    if not USER.fullmatch(user):
        yield Problem(
            "sshd_connecting_user", value_of(user), "it is no user name", "the name in ansible_user, or nothing"
        )
    rule = settings["sshd_root_login"]
    if user == "root" and rule in ("no", "forced-commands-only"):
        form = (
            "ansible_user: a user with sudo; where there is none yet, sshd_root_login: prohibit-password until there is"
        )
        yield Problem("sshd_root_login", value_of(rule), "Ansible connects as root, whom that keeps out", form)
        return
    # What stands behind @ depends on where the connection comes from, which only the host sees.
    allowed = [one.rpartition("@")[0] if "@" in one else one for one in settings["sshd_allow_users"]]
    if allowed and not any(matches_word(user, one) for one in allowed):
        why = f"it does not name {user}, as whom Ansible connects"
        yield Problem("sshd_allow_users", value_of(settings["sshd_allow_users"]), why, f"{user} in it too")
    for number, one in enumerate(settings["sshd_deny_users"]):
        if "@" not in one and matches_word(user, one):
            why = f"it keeps out {user}, as whom Ansible connects"
            yield Problem(f"sshd_deny_users[{number}]", value_of(one), why, "patterns that leave that user alone")


def _authentication_problems(settings: Settings) -> Iterator[Problem]:
    for number, way in enumerate(settings["sshd_authentication_methods"]):
        setting = f"sshd_authentication_methods[{number}]"
        for method in way.split(","):
            name = method.partition(":")[0]
            if name not in METHODS:
                yield Problem(setting, value_of(way), f"sshd has no method {name!r}", _near(name, METHODS, METHODS[0]))
            elif name == "password" and not settings["sshd_password_authentication"]:
                why = "it asks for a password, and sshd_password_authentication is false"
                yield Problem(setting, value_of(way), why, "publickey, or sshd_password_authentication: true")
            elif name in ("gssapi-with-mic", "hostbased"):
                why = f"the role turns {name} off"
                yield Problem(setting, value_of(way), why, "publickey, password or keyboard-interactive")
    yield from _twice("sshd_authentication_methods", settings["sshd_authentication_methods"])
    if settings["sshd_root_login"] == "yes" and settings["sshd_password_authentication"]:
        why = "with passwords on, anybody may guess root's"
        yield Problem("sshd_root_login", '"yes"', why, '"prohibit-password"')


def _startup_problems(value: str) -> Iterator[Problem]:
    found = STARTUPS.fullmatch(value)
    if not found or (found[2] and not (1 <= int(found[2]) <= 100 and int(found[1]) <= int(found[3]))):
        why = "it is not START:RATE:FULL with a rate from 1 to 100 and FULL not below START"
        yield Problem("sshd_max_startups", value_of(value), why, '"10:30:60"')


# --- algorithms ------------------------------------------------------------------------------------------------------


def _algorithm_problems(setting: str, names: Sequence[str]) -> Iterator[Problem]:
    if not names:
        yield Problem(setting, "[]", "sshd would fall back on its own list", "at least one algorithm")
    yield from _twice(setting, names)
    for number, name in enumerate(names):
        where, why = f"{setting}[{number}]", weakness(setting, name)
        if name not in KNOWN[setting]:
            otherwise = f"for example {KNOWN[setting][0]}"
            why = "OpenSSH knows no algorithm of this name here"
            yield Problem(where, value_of(name), why, _near(name, KNOWN[setting], otherwise))
        elif why:
            yield Problem(where, value_of(name), why, f"for example {KNOWN[setting][0]}")


# --- Match -----------------------------------------------------------------------------------------------------------


def _match_problems(block: Mapping[str, Any]) -> Iterator[Problem]:
    if not block["criteria"]:
        yield Problem("criteria", "{}", "it would be for all connections", "the role's own option of that keyword")
    for kind, known in (("criteria", CRITERIA), ("settings", MATCHABLE)):
        spelt = {name.lower(): name for name in known}
        for name, value in block[kind].items():
            where = f"{kind}.{name}"
            if name.lower() not in spelt:
                why = "Match knows no such criterion" if kind == "criteria" else "it cannot stand in a Match block"
                near = difflib.get_close_matches(name.lower(), list(spelt), n=1, cutoff=0.6)
                form = spelt[near[0]] if near else "one of sshd_config(5), Match"
                yield Problem(where, value_of(value), why, form)
            elif any(sign in str(value) for sign in "\n\r") or str(value) == "":
                yield Problem(where, value_of(value), "a keyword has a value of one line", "that line")
            elif kind == "criteria" and (isinstance(value, (list, Mapping)) or not PATTERN.fullmatch(str(value))):
                why = "a criterion is one pattern, or several between commas without spaces"
                yield Problem(where, value_of(value), why, 'for example "deploy,backup"')
    if not block["settings"]:
        yield Problem("settings", "{}", "it would change nothing", "at least one keyword, or no such block")


# --- keys ------------------------------------------------------------------------------------------------------------


def _key_problems(setting: str, line: str, accepted: Sequence[str] = ()) -> Iterator[Problem]:
    form = "a line that ssh-keygen -y or a file *.pub shows"
    shown = "a key" if "PRIVATE" in line else value_of(line)
    try:
        key = parsed(line)
    except ValueError as error:
        yield Problem(setting, shown, str(error), form)
        return
    if 0 < key.bits < LEAST_RSA:
        why = f"an RSA key of {key.bits} bits is too short, {LEAST_RSA} are needed"
        yield Problem(setting, shown, why, "an ed25519 key")
    elif accepted and not set(SIGNATURES[key.kind]) & set(accepted):
        why = f"sshd_pubkey_algorithms holds no signature of {key.kind}"
        yield Problem(setting, shown, why, f"an ed25519 key, or {SIGNATURES[key.kind][0]} in sshd_pubkey_algorithms")


def _authorized_problems(settings: Settings) -> Iterator[Problem]:
    entries = settings["sshd_authorized_keys"]
    yield from _twice("sshd_authorized_keys", [one["user"] for one in entries], ".user")
    for number, entry in enumerate(entries):
        here = f"sshd_authorized_keys[{number}]"
        if not USER.fullmatch(entry["user"]):
            yield Problem(f"{here}.user", value_of(entry["user"]), "it is no user name", "for example deploy")
        for at, line in enumerate(entry["keys"]):
            yield from _key_problems(f"{here}.keys[{at}]", line, settings["sshd_pubkey_algorithms"])
        yield from _twice(f"{here}.keys", [_blob(line) for line in entry["keys"]])
        for at, option in enumerate(entry["options"]):
            if not OPTION.fullmatch(option):
                why = "it is no option of sshd(8)"
                yield Problem(
                    f"{here}.options[{at}]", value_of(option), why, "for example restrict, or 'from=\"10.0.0.1\"'"
                )
        if not entry["keys"] and not entry["exclusive"]:
            yield Problem(f"{here}.keys", "[]", "it adds nothing", "a key, or exclusive: true to take all keys away")
    path = settings["sshd_authorized_keys_file"]
    if not KEYS_FILE.fullmatch(path) or (path.startswith("/") and not re.search("%[uh]", path)):
        why = "all users would share one file, or sshd cannot read the name"
        form = '".ssh/authorized_keys" or "/etc/ssh/authorized_keys/%u"'
        yield Problem("sshd_authorized_keys_file", value_of(path), why, form)


def _blob(line: str) -> str:
    """What two lines with the same key have in common."""
    try:
        return parsed(line).blob
    except ValueError:
        return line


def _authority_problems(settings: Settings) -> Iterator[Problem]:
    for name in ("sshd_trusted_user_ca_keys", "sshd_revoked_keys"):
        for number, line in enumerate(settings[name]):
            where = f"{name}[{number}]"
            # An old, short key is just what one would revoke.
            found = [p for p in _key_problems(where, line) if name == "sshd_trusted_user_ca_keys" or not _is_key(line)]
            if not found and (key := parsed(line)).options:
                found = [Problem(where, value_of(line), "a key stands here without options", f"{_bare(key)} alone")]
            yield from found
    principals = settings["sshd_authorized_principals"]
    yield from _twice("sshd_authorized_principals", [one["user"] for one in principals], ".user")
    if principals and not settings["sshd_trusted_user_ca_keys"]:
        why = "no certificate counts as long as sshd_trusted_user_ca_keys is empty"
        yield Problem("sshd_authorized_principals", "given", why, "the authority's public key there")
    for number, one in enumerate(principals):
        here = f"sshd_authorized_principals[{number}]"
        if not USER.fullmatch(one["user"]):
            yield Problem(f"{here}.user", value_of(one["user"]), "it is no user name", "for example deploy")
        for at, name in enumerate(one["principals"]):
            if not name.strip() or "\n" in name:
                yield Problem(f"{here}.principals[{at}]", value_of(name), "it is no name", "a name on one line")


def _is_key(line: str) -> bool:
    try:
        parsed(line)
    except ValueError:
        return False
    return True


def _bare(key: Key) -> str:
    return f"{key.kind} {key.blob[:16]}…"


def _host_key_problems(settings: Settings) -> Iterator[Problem]:
    kinds = settings["sshd_host_keys"]
    if not kinds:
        yield Problem("sshd_host_keys", "[]", "the host could not prove who it is", "[ed25519, rsa]")
    yield from _twice("sshd_host_keys", kinds)
    signing = {"ed25519": {"ssh-ed25519"}, "rsa": {"rsa-sha2-512", "rsa-sha2-256"}}
    algorithms = settings["sshd_host_key_algorithms"]
    if kinds and algorithms and not any(signing[kind] & set(algorithms) for kind in kinds):
        why = f"a host with {' and '.join(kinds)} keys can sign with none of them"
        yield Problem(
            "sshd_host_key_algorithms", value_of(algorithms), why, "ssh-ed25519 in it, and ed25519 in sshd_host_keys"
        )


# --- the rest --------------------------------------------------------------------------------------------------------


def _confirm_problems(seconds: int) -> Iterator[Problem]:
    if seconds != 0 and not LEAST_CONFIRM <= seconds <= 600:
        why = "a new connection needs some seconds, and a host that is out of reach should not be for long"
        yield Problem(
            "sshd_confirm_within", value_of(seconds), why, f"{LEAST_CONFIRM} to 600, or 0 for no confirmation"
        )


def _fail2ban_problems(settings: Settings) -> Iterator[Problem]:
    for name in ("sshd_fail2ban_find_time", "sshd_fail2ban_ban_time"):
        value = settings[name]
        if not DURATION.fullmatch(value) or (value == "-1" and name == "sshd_fail2ban_find_time"):
            yield Problem(
                name, value_of(value), "it is no time that fail2ban knows", 'for example "10m", in s, m, h, d and w'
            )
    for number, network in enumerate(settings["sshd_fail2ban_ignore"]):
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            why = f"it is no network ({error})"
            yield Problem(f"sshd_fail2ban_ignore[{number}]", value_of(network), why, 'for example "10.0.0.0/8"')
