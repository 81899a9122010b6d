# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Public keys as they stand in authorized_keys (sshd(8), AUTHORIZED_KEYS FILE FORMAT). Pure functions."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

# What each kind of key signs with (RFC 8332 for RSA).
SIGNATURES = {
    "ssh-ed25519": ("ssh-ed25519",),
    "ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"),
    "ecdsa-sha2-nistp256": ("ecdsa-sha2-nistp256",),
    "ecdsa-sha2-nistp384": ("ecdsa-sha2-nistp384",),
    "ecdsa-sha2-nistp521": ("ecdsa-sha2-nistp521",),
    "sk-ssh-ed25519@openssh.com": ("sk-ssh-ed25519@openssh.com",),
    "sk-ecdsa-sha2-nistp256@openssh.com": (
        "sk-ecdsa-sha2-nistp256@openssh.com",
        "webauthn-sk-ecdsa-sha2-nistp256@openssh.com",
    ),
}
# A text between spaces, in which spaces count between quotes.
OPTIONS = re.compile(r'((?:[^\s"]|"(?:\\.|[^"\\])*")+)\s+(.*)')
OPTION = re.compile(r'([^,="]+)(?:="((?:\\.|[^"\\])*)")?(?:,|$)')


@dataclass(frozen=True)
class Key:
    """One public key. ``options`` are those of authorized_keys, "" for none; ``blob`` is the key itself in base64."""

    kind: str
    blob: str
    options: str = ""
    comment: str = ""

    @property
    def line(self) -> str:
        return " ".join(part for part in (self.options, self.kind, self.blob, self.comment) if part)

    @property
    def bits(self) -> int:
        """The length of an RSA key's modulus (RFC 4253 §6.6); 0 for other kinds, whose length is fixed."""
        return int.from_bytes(_strings(self.blob)[2], "big").bit_length() if self.kind == "ssh-rsa" else 0

    def option(self, name: str) -> str | None:
        """An option's value, "" for one without; None where the key does not have it."""
        found = {key.lower(): value or "" for key, value in OPTION.findall(self.options)}
        return found.get(name)


def parsed(line: str) -> Key:
    """A line of authorized_keys. Raises ValueError, with a clause that says why, for what is no public key."""
    text = line.strip()
    if "PRIVATE KEY" in text:
        raise ValueError("it is a private key, which never leaves its owner")
    if len(text.splitlines()) > 1:
        raise ValueError("it is more than one line, and a key is one")
    options = ""
    if text.split(maxsplit=1)[:1] and text.split(maxsplit=1)[0] not in SIGNATURES:
        found = OPTIONS.fullmatch(text)
        options, text = (found[1], found[2]) if found else ("", text)
    kind, blob, comment = (*text.split(maxsplit=2), "", "", "")[:3]
    if kind not in SIGNATURES:
        raise ValueError(f"it names no kind of key that OpenSSH takes ({', '.join(SIGNATURES)})")
    if options and OPTION.sub("", options):
        raise ValueError("its options are not as sshd(8) has them")
    try:
        strings = _strings(blob)
        complete = strings[0] == kind.encode() and len(strings) == (2 if kind == "ssh-ed25519" else len(strings))
        if not complete or len(strings) < 2:
            raise ValueError(blob)
    except (ValueError, IndexError, binascii.Error) as error:
        raise ValueError("its base64 part is cut short or belongs to another kind of key") from error
    return Key(kind, blob, options, comment)


def _strings(blob: str) -> list[bytes]:
    """The length-prefixed strings of a key (RFC 4251 §5)."""
    data, found = base64.b64decode(blob, validate=True), []
    while data:
        size = int.from_bytes(data[:4], "big")
        if len(data) < 4 + size:
            raise ValueError("cut short")
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    return found


def keys_in(text: str) -> list[Key]:
    """The keys of an authorized_keys file; sshd passes over what it cannot read, and so does this."""
    found = []
    for line in text.splitlines():
        try:
            found.append(parsed(line))
        except ValueError:
            continue
    return found


def wanted_keys(lines: Iterable[str], options: Sequence[str]) -> list[Key]:
    """The keys with the options of all of them before their own."""
    keys = map(parsed, lines)
    return [replace(key, options=",".join([*options, *([key.options] if key.options else [])])) for key in keys]


def merged(present: str, keys: Sequence[Key], *, exclusive: bool) -> str:
    """The file's text with these keys in it: only these, or besides what stands there.

    A key that stands there already is replaced, so that its options are the wanted ones.
    """
    blobs = {key.blob for key in keys}
    kept = [] if exclusive else [line for line in present.splitlines() if not _holds(line, blobs)]
    return "".join(f"{line}\n" for line in [*kept, *(key.line for key in keys)])


def _holds(line: str, blobs: set[str]) -> bool:
    return any(key.blob in blobs for key in keys_in(line))
