# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""sshd's files worked out on the host itself, and judged by sshd before anything is written.

Where settings only say what is preferred, the host decides: which algorithms its sshd offers, which keys it has, over
which port this run is connected. `completed` makes one transaction out of that, `Judgement` says why it must not be.
"""

from __future__ import annotations

import glob
import grp
import os
import pwd
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from ansible_collections.fushuma.production.plugins.module_utils import sshd_login
from ansible_collections.fushuma.production.plugins.module_utils.journal import Entry, TransactionError, run
from ansible_collections.fushuma.production.plugins.module_utils.probe import Probe
from ansible_collections.fushuma.production.plugins.module_utils.sshd_keys import Key, keys_in, merged, wanted_keys
from ansible_collections.fushuma.production.plugins.module_utils.sshd_login import Account, Effective, Session
from ansible_collections.fushuma.production.plugins.module_utils.transaction import Directory, File, Service

SSHD = "/usr/sbin/sshd"
ROOT = Path("/")
MAIN = "/etc/ssh/sshd_config"
FOLDER = "/etc/ssh/sshd_config.d"
DROPIN = f"{FOLDER}/00-production.conf"
MODULI = "/etc/ssh/moduli"
DEEPEST = 16  # servconf.h, SERVCONF_MAX_DEPTH
RUNTIME = "/run/sshd"  # sshd takes no step without it, not even -t; its unit makes it
HEADER = "# Of fushuma.production, role sshd. Changes by hand are undone by the next run.\n"

PACKAGES = ("openssh-server",)
UNIT, SOCKET = "ssh.service", "ssh.socket"

LEAST_RSA = 3072  # bits; NIST SP 800-57 part 1, table 2, for 128 bits of security
NEW_RSA = 4096

# Which `ssh -Q` tells what a keyword can hold.
OFFERS = {
    "KexAlgorithms": "kex",
    "Ciphers": "cipher",
    "MACs": "mac",
    "HostKeyAlgorithms": "key-sig",
    "PubkeyAcceptedAlgorithms": "key-sig",
    "CASignatureAlgorithms": "sig",
}
# Keywords of which each line counts, not only the first.
REPEATED = ("acceptenv", "allowgroups", "allowusers", "denygroups", "denyusers", "hostkey", "listenaddress", "port")
ALIASES = {
    "challengeresponseauthentication": "kbdinteractiveauthentication",
    "pubkeyacceptedkeytypes": "pubkeyacceptedalgorithms",
}

Value: TypeAlias = "bool | int | str | Sequence[str]"


@dataclass(frozen=True)
class AuthorizedKeys:
    """The keys with which a user gets in: besides those that are there, or only these."""

    user: str
    keys: Sequence[str]
    options: Sequence[str] = ()
    exclusive: bool = False


@dataclass(frozen=True)
class Match:
    """A block for some connections: ``{"User": "deploy"}`` and what holds for them."""

    criteria: Mapping[str, str]
    settings: Mapping[str, Value]


@dataclass(frozen=True)
class Wanted:
    """What the settings say; the host adds what only it knows."""

    ports: Sequence[int]
    directives: Mapping[str, Value] = field(default_factory=dict)
    algorithms: Mapping[str, Sequence[str]] = field(default_factory=dict)
    match: Sequence[Match] = ()
    authorized_keys: Sequence[AuthorizedKeys] = ()
    authorized_keys_file: str = ".ssh/authorized_keys"
    host_keys: Sequence[str] = ("ed25519", "rsa")
    replace_short_host_keys: bool = False
    moduli_bits: int = 3071


# --- the connection over which this runs -----------------------------------------------------------------------------


def session_of(pid: int, proc: Path | None = None) -> Session | None:
    """The SSH connection that a process descends from; None where there is none.

    sudo takes SSH_CONNECTION from its child's environment, so the ancestors are asked. The outermost that has it is the
    user's own shell: its owner is who has logged in.
    """
    folder, found = proc or Path("/proc"), None
    while pid > 1:
        try:
            environment = (folder / str(pid) / "environ").read_bytes().split(b"\0")
            status = (folder / str(pid) / "status").read_text("utf-8", "replace")
            owner = (folder / str(pid)).stat().st_uid
        except OSError:
            break
        parts = next((one[15:].split() for one in environment if one.startswith(b"SSH_CONNECTION=")), [])
        if len(parts) == 4:
            client, _client_port, address, port = (part.decode("ascii", "replace") for part in parts)
            found = Session(_user_name(owner), client, address, int(port))
        pid = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("PPid:")), 0)
    return found


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def kept_ports(session: Session | None, ports: Sequence[int]) -> list[int]:
    """The port that stays open besides the wanted ones: that over which this run is connected."""
    return [session.port] if session and session.port not in ports else []


# --- the files -------------------------------------------------------------------------------------------------------


def completed(service: Service, wanted: Wanted, session: Session | None) -> tuple[Service, list[str]]:
    """The service with all of its files, and what the operator should hear. Raises TransactionError."""
    keys, notes = host_keys(wanted)
    ports = [*wanted.ports, *kept_ports(session, wanted.ports)]
    text = dropin(wanted, ports, [key.path for key in keys], offered(wanted.algorithms))
    owned, folders = authorized_files(wanted)
    files = [
        File(DROPIN, text.encode(), mode=0o600, public=True),
        *(file for key in keys for file in key.files),
        *moduli_file(wanted.moduli_bits),
        *owned,
    ]
    reads = [key.path for key in keys if not key.files]
    users = [one.user for one in wanted.authorized_keys]
    return replace(
        service,
        files=[*service.files, *files],
        directories=[*service.directories, *folders],
        replaces=[SOCKET],
        reads=reads,
        judges=[Judgement(session, users)],
        validate=[[SSHD, "-t"]],
        # It asks the kernel: since OpenSSH 9.8 sshd counts it against clients who connect and do not log in.
        probes=[Probe(unit=UNIT, ports=ports)],
    ), notes


def offered(algorithms: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Of each list what this host's sshd offers, in the order of preference; all of it where there is no ssh to ask."""
    found = {}
    known: dict[str, list[str]] = {}
    for keyword, preferred in algorithms.items():
        query = OFFERS[keyword]
        if query not in known:
            asked = run(["ssh", "-Q", query])
            known[query] = asked.output.split() if asked.code == 0 else []
        here = known[query]
        found[keyword] = [name for name in preferred if name in here] if here else list(preferred)
        if preferred and not found[keyword]:
            raise TransactionError(
                f"sshd: of {keyword} {', '.join(preferred)} this host's sshd offers none; it offers {', '.join(here)}. "
                "Nothing was changed."
            )
    return found


def dropin(wanted: Wanted, ports: Sequence[int], keys: Sequence[str], algorithms: Mapping[str, Sequence[str]]) -> str:
    """The text of the drop-in."""
    lines = [f"Port {port}" for port in ports]
    lines += [f"HostKey {path}" for path in keys]
    lines += _directives(wanted.directives)
    lines += [f"{keyword} {','.join(names)}" for keyword, names in algorithms.items() if names]
    for block in wanted.match:
        lines += ["", "Match " + " ".join(f"{name} {value}" for name, value in block.criteria.items())]
        lines += [f"    {line}" for line in _directives(block.settings)]
    return HEADER + "".join(f"{line}\n" for line in lines)


def _directives(settings: Mapping[str, Value]) -> Iterator[str]:
    """The lines of these keywords; one without a value is left to sshd."""
    for keyword, value in settings.items():
        if isinstance(value, bool):
            yield f"{keyword} {'yes' if value else 'no'}"
        elif keyword == "ListenAddress" and isinstance(value, Sequence) and not isinstance(value, str):
            yield from (f"{keyword} {one}" for one in value)
        elif isinstance(value, (str, int)) and value != "":
            yield f"{keyword} {value}"
        elif value:
            yield f"{keyword} {' '.join(map(str, value))}"


@dataclass(frozen=True)
class HostKey:
    """A key of the host; ``files`` are those of one that was just made."""

    path: str
    files: Sequence[File] = ()


def host_keys(wanted: Wanted) -> tuple[list[HostKey], list[str]]:
    """The keys by which the host is known, made where one is missing, and what the operator should hear of them."""
    found, notes = [], []
    for kind in wanted.host_keys:
        path = f"/etc/ssh/ssh_host_{kind}_key"
        public = _public(path)
        short = bool(public) and 0 < keys_in(public)[0].bits < LEAST_RSA
        if short and not wanted.replace_short_host_keys:
            notes.append(
                f"{path} has {keys_in(public)[0].bits} bits, fewer than {LEAST_RSA}, and is no longer used; "
                "sshd_replace_short_host_keys: true has the host make another one"
            )
        elif public and not short:
            found.append(HostKey(path))
        else:
            found.append(_new_host_key(kind, path))
    if not found:
        raise TransactionError("sshd: " + "; ".join(notes) + ". Without it no host key is left. Nothing was changed.")
    return found, notes


def _public(path: str) -> str:
    """The public half of a key of this host; "" where there is none that can be read."""
    if not _at(path).exists():
        return ""
    asked = run(["ssh-keygen", "-y", "-P", "", "-f", str(_at(path))])
    return asked.output if asked.code == 0 and keys_in(asked.output) else ""


def _new_host_key(kind: str, path: str) -> HostKey:
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "key")
        size = ["-b", str(NEW_RSA)] if kind == "rsa" else []
        done = run(
            ["ssh-keygen", "-q", "-t", kind, *size, "-N", "", "-C", f"root@{os.uname().nodename}", "-f", str(made)]
        )
        if done.code:
            # Only a dry run gets here: where the package is missing so is ssh-keygen, and the package brings the keys.
            return HostKey(path)
        public = made.with_suffix(".pub").read_bytes()
        files = [File(path, made.read_bytes(), mode=0o600, sensitive=True), File(f"{path}.pub", public)]
    return HostKey(path, files)


def moduli_file(least: int) -> list[File]:
    """The host's groups for Diffie-Hellman with those that are too small taken away (moduli(5): the fifth field)."""
    try:
        present = _at(MODULI).read_text("utf-8", "replace")
    except OSError:
        return []
    lines = present.splitlines(keepends=True)
    kept = [line for line in lines if line.startswith("#") or len(parts := line.split()) < 5 or int(parts[4]) >= least]
    if not any(not line.startswith("#") for line in kept):
        raise TransactionError(f"sshd: {MODULI} would be left without a group of {least} bits. Nothing was changed.")
    return [File(MODULI, "".join(kept).encode())]


def authorized_files(wanted: Wanted) -> tuple[list[File], list[Directory]]:
    """Each user's keys. Below the home directory they belong to the user, elsewhere to root."""
    files, folders = [], []
    for one in wanted.authorized_keys:
        home, owner, group = _home(one.user)
        path = expanded(wanted.authorized_keys_file, one.user, home)
        at_home = path.startswith(f"{home}/")
        text = merged(_text(path), wanted_keys(one.keys, one.options), exclusive=one.exclusive)
        owner, group, mode = (owner, group, 0o600) if at_home else ("root", "root", 0o644)
        files.append(File(path, text.encode(), owner, group, mode, public=True))
        if at_home and (folder := os.path.dirname(path)) != home:
            folders.append(Directory(folder, owner, group, 0o700))
    return files, folders


def _home(user: str) -> tuple[str, str, str]:
    """A user's home directory, and the owner and group of what is in it. A dry run may ask before the user exists."""
    try:
        found = pwd.getpwnam(user)
    except KeyError:
        return f"/home/{user}", user, user
    return found.pw_dir.rstrip("/"), str(found.pw_uid), str(found.pw_gid)


def expanded(pattern: str, user: str, home: str) -> str:
    """A file of AuthorizedKeysFile (sshd_config(5), TOKENS)."""
    path = pattern.replace("%h", home).replace("%u", user).replace("%%", "%")
    return path if path.startswith("/") else f"{home}/{path}"


# --- the judgement ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """A line of sshd's configuration. ``matched`` says that it stands in a Match block."""

    path: str
    number: int
    keyword: str
    text: str
    matched: bool


@dataclass(frozen=True)
class Judgement:
    """Asks sshd what it would make of the files as they are planned, and refuses what would not be what was wanted.

    ``users`` are those whose Match blocks count besides the one who is connected.
    """

    session: Session | None
    users: Sequence[str] = ()

    def __call__(self, planned: Mapping[str, Entry]) -> str:
        """What is wrong, as sentences; "" for nothing."""
        if not _at(RUNTIME).exists():
            return ""  # a dry run where sshd has never run: there is nobody to ask
        own = _planned_text(planned, DROPIN)
        with candidate(planned, own) as (whole, alone):
            found = []
            for context in self._contexts():
                actual, intended = effective(whole, context), effective(alone, context)
                found += conflicts(own, actual, intended, foreign_lines(planned))
            if self.session and not found:
                found += self._locked_out(effective(whole, self.session), planned)
        return " ".join(dict.fromkeys(found))

    def _contexts(self) -> Iterator[Session | None]:
        yield None
        here = self.session or Session("root", "127.0.0.1", "127.0.0.1", 22)
        for user in dict.fromkeys([here.user, "root", *self.users]):
            yield replace(here, user=user)

    def _locked_out(self, config: Effective, planned: Mapping[str, Entry]) -> list[str]:
        if self.session is None:
            return []
        who = account(self.session.user, config, planned)
        return [
            f"This would shut out {self.session.user}, as whom this run is connected from {self.session.client}: {why}."
            for why in sshd_login.reasons(self.session, who, config, time.time())
        ]


@contextmanager
def candidate(planned: Mapping[str, Entry], own: str) -> Iterator[tuple[str, str]]:
    """sshd's configuration as it would be, and the drop-in alone, both as files that sshd can be asked about."""
    with tempfile.TemporaryDirectory() as folder:
        place, alone = Path(folder, "sshd_config.d"), Path(folder, "alone")
        place.mkdir()
        for path in sorted(_at(FOLDER).glob("*.conf")):
            (place / path.name).write_bytes(path.read_bytes())
        (place / Path(DROPIN).name).write_text(own, "utf-8")
        alone.write_text(own, "utf-8")
        whole = Path(folder, "sshd_config")
        whole.write_text(_planned_text(planned, MAIN).replace(f"{FOLDER}/", f"{place}/"), "utf-8")
        yield str(whole), str(alone)


def effective(path: str, context: Session | None) -> dict[str, list[str]]:
    """What sshd makes of a configuration: in general, or for one connection with all Match blocks that count then."""
    asked = [SSHD, "-T", "-f", path]
    if context:
        words = {
            "user": context.user,
            "host": context.client,
            "addr": context.client,
            "laddr": context.address,
            "lport": context.port,
        }
        asked += ["-C", ",".join(f"{key}={value}" for key, value in words.items())]
    done = run(asked)
    if done.code:
        said = done.output.replace(os.path.dirname(path), "/etc/ssh")
        raise TransactionError(f"sshd: it refuses the new configuration: {said}. Nothing was changed.")
    found: dict[str, list[str]] = {}
    for line in done.output.splitlines():
        keyword, _space, value = line.partition(" ")
        found.setdefault(keyword, []).append(value)
    return found


def conflicts(own: str, actual: Effective, intended: Effective, lines: Iterable[Line]) -> list[str]:
    """Where sshd would do something else than the drop-in says, and which line has that effect."""
    mine = {line.split()[0].lower() for line in own.splitlines() if line.strip() and not line.startswith("#")}
    candidates = list(lines)
    differ = [
        keyword
        for keyword in sorted((mine - {"match"}) | {"listenaddress"})
        if list(actual.get(keyword, [])) != list(intended.get(keyword, []))
    ]
    if "port" in differ:
        # sshd derives the places where it listens from the ports and the addresses.
        differ.remove("listenaddress")
    return [text for keyword in differ for text in _explained(keyword, actual, intended, candidates)]


def _explained(keyword: str, actual: Effective, intended: Effective, lines: Sequence[Line]) -> list[str]:
    names = {"listenaddress", "addressfamily"} if keyword == "listenaddress" else {keyword}
    guilty = [line for line in lines if ALIASES.get(line.keyword, line.keyword) in names]
    if keyword not in REPEATED:
        guilty = [line for line in guilty if line.matched] or guilty[:1]
    wanted, does = ", ".join(intended.get(keyword, [])), ", ".join(actual.get(keyword, []))
    if not guilty:
        return [
            f"sshd would not take up {keyword} {wanted} but keep {does}: {MAIN} does not read {FOLDER}. "
            f"Write `Include {FOLDER}/*.conf` as its first line."
        ]
    return [
        f"{line.path}:{line.number} says `{line.text}`, and with it sshd would do {keyword} {does or 'nothing'} "
        f"instead of {wanted}. Take that line out."
        for line in guilty
    ]


def foreign_lines(planned: Mapping[str, Entry]) -> Iterator[Line]:
    """The lines of sshd's configuration in the order in which sshd reads them, without those of the drop-in."""
    yield from _lines(MAIN, planned, 0)


def _lines(path: str, planned: Mapping[str, Entry], depth: int) -> Iterator[Line]:
    matched = False
    for number, raw in enumerate(_planned_text(planned, path).splitlines(), 1):
        text = raw.strip()
        if not text or text.startswith("#"):
            continue
        keyword, *rest = text.replace("=", " ", 1).split()
        matched = matched or keyword.lower() == "match"
        if keyword.lower() == "include":
            for pattern in rest:
                absolute = pattern if pattern.startswith("/") else f"/etc/ssh/{pattern}"
                for one in sorted(glob.glob(str(_at(absolute)))):
                    inner = "/" + str(Path(one).relative_to(ROOT))
                    if inner != DROPIN and depth < DEEPEST:
                        yield from _lines(inner, planned, depth + 1)
        else:
            yield Line(path, number, keyword.lower(), text, matched)


def account(name: str, config: Effective, planned: Mapping[str, Entry]) -> Account:
    """What the host knows, or will know, about a user."""
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        return Account(name, [], has_password=False)
    groups = []
    for gid in os.getgrouplist(name, found.pw_gid):
        try:
            groups.append(grp.getgrgid(gid).gr_name)
        except KeyError:
            continue
    home = found.pw_dir.rstrip("/")
    revoked = _planned_text(planned, sshd_login.first(config, "revokedkeys", "none"))
    keys: list[Key] = []
    for path in sshd_login.words(config, "authorizedkeysfile"):
        file = expanded(path, name, home)
        if file in planned or sshd_login.first(config, "strictmodes") != "yes" or _safe(file, home, found.pw_uid):
            keys += [key for key in keys_in(_planned_text(planned, file)) if key.blob not in revoked]
    return Account(name, groups, _has_password(name), keys)


def _has_password(name: str) -> bool:
    """Whether /etc/shadow holds a hash for the user (shadow(5)); Python 3.13 has no module for it any more."""
    lines = (line.split(":") for line in _text("/etc/shadow").splitlines())
    return any(len(parts) > 1 and parts[0] == name and parts[1].startswith("$") for parts in lines)


def _safe(path: str, home: str, uid: int) -> bool:
    """StrictModes: neither the file nor a folder up to the home directory may belong to, or be open to, others."""
    place = _at(path)
    while True:
        try:
            found = place.stat()
        except OSError:
            return False
        if found.st_uid not in (0, uid) or found.st_mode & 0o022:
            return False
        if place in (_at(home), place.parent, ROOT):
            return True
        place = place.parent


def _planned_text(planned: Mapping[str, Entry], path: str) -> str:
    """What will stand in a file; "" where there will be none."""
    if path in planned:
        return planned[path].data.decode("utf-8", "replace") if planned[path].kind == "file" else ""
    return _text(path)


def _text(path: str) -> str:
    try:
        return _at(path).read_text("utf-8", "replace")
    except OSError:
        return ""


def _at(path: str) -> Path:
    """A path of the host; the tests have a host in a folder."""
    return ROOT / path.lstrip("/")


def make_runtime() -> None:
    """Have the folder without which sshd answers no question; a package that may not start its unit leaves none."""
    _at(RUNTIME).mkdir(mode=0o755, parents=True, exist_ok=True)
