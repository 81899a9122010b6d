# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Names of algorithms that OpenSSH knows (ssh -Q, 8.4 to 10.2), and those that nobody should use."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_PLAIN = ("ssh-ed25519", "rsa-sha2-512", "rsa-sha2-256", "ssh-rsa", "ssh-dss")
_ECDSA = ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")
_TOKENS = ("sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com")
_WEB = ("webauthn-sk-ecdsa-sha2-nistp256@openssh.com",)
_CERTIFICATES = tuple(
    f"{name.removesuffix('@openssh.com')}-cert-v01@openssh.com" for name in (*_PLAIN, *_ECDSA, *_TOKENS)
)
_SIGNATURES = (*_PLAIN, *_ECDSA, *_TOKENS, *_WEB)

KNOWN: Mapping[str, Sequence[str]] = {
    "sshd_kex_algorithms": (
        "mlkem768x25519-sha256",
        "sntrup761x25519-sha512",
        "sntrup761x25519-sha512@openssh.com",
        "curve25519-sha256",
        "curve25519-sha256@libssh.org",
        "ecdh-sha2-nistp256",
        "ecdh-sha2-nistp384",
        "ecdh-sha2-nistp521",
        "diffie-hellman-group-exchange-sha256",
        "diffie-hellman-group16-sha512",
        "diffie-hellman-group18-sha512",
        "diffie-hellman-group14-sha256",
        "diffie-hellman-group14-sha1",
        "diffie-hellman-group-exchange-sha1",
        "diffie-hellman-group1-sha1",
    ),
    "sshd_ciphers": (
        "chacha20-poly1305@openssh.com",
        "aes256-gcm@openssh.com",
        "aes128-gcm@openssh.com",
        "aes256-ctr",
        "aes192-ctr",
        "aes128-ctr",
        "aes256-cbc",
        "aes192-cbc",
        "aes128-cbc",
        "3des-cbc",
    ),
    "sshd_macs": (
        "hmac-sha2-512-etm@openssh.com",
        "hmac-sha2-256-etm@openssh.com",
        "umac-128-etm@openssh.com",
        "umac-64-etm@openssh.com",
        "hmac-sha1-etm@openssh.com",
        "hmac-sha1-96-etm@openssh.com",
        "hmac-md5-etm@openssh.com",
        "hmac-md5-96-etm@openssh.com",
        "hmac-sha2-512",
        "hmac-sha2-256",
        "umac-128@openssh.com",
        "umac-64@openssh.com",
        "hmac-sha1",
        "hmac-sha1-96",
        "hmac-md5",
        "hmac-md5-96",
    ),
    "sshd_host_key_algorithms": (*_SIGNATURES, *_CERTIFICATES),
    "sshd_pubkey_algorithms": (*_SIGNATURES, *_CERTIFICATES),
    "sshd_ca_signature_algorithms": _SIGNATURES,
}

# Why nobody should use them; the first that fits. ECDSA is judged only where the host signs with it: there the random
# numbers of a machine decide whether the key leaks, and Ed25519 needs none.
_EVERYWHERE = (
    (r"^ssh-rsa|^ssh-dss|sha1|md5", "it rests on SHA-1, MD5 or DSA, which are broken (RFC 9142, RFC 8332)"),
    (r"-cbc$", "CBC in SSH lets plain text be guessed (CVE-2008-5161)"),
    (r"^umac-64", "a tag of 64 bits can be forged"),
    (r"^diffie-hellman-group14-", "its group of 2048 bits is too small for what is recorded today"),
    (r"^ecdh-sha2-nistp", "it does not withstand quantum computers, and its curves were chosen by nobody knows whom"),
)
WEAK: Mapping[str, Sequence[tuple[re.Pattern[str], str]]] = {
    name: [
        *((re.compile(pattern), why) for pattern, why in _EVERYWHERE),
        *(
            [(re.compile("ecdsa"), "one bad random number gives the host's key away, and Ed25519 needs none")]
            if name == "sshd_host_key_algorithms"
            else []
        ),
    ]
    for name in KNOWN
}


def weakness(setting: str, name: str) -> str:
    """Why an algorithm should not be used; "" for nothing."""
    return next((why for pattern, why in WEAK[setting] if pattern.search(name)), "")
