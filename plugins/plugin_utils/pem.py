# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Certificates and keys in PEM form, judged before they reach a host. Uses cryptography, which ansible-core needs."""

from __future__ import annotations

import contextlib
import datetime
import itertools
from collections.abc import Iterator, Sequence

from ansible_collections.fushuma.production.plugins.plugin_utils.problem import Problem, value_of

with contextlib.suppress(ImportError):  # only ansible-test imports this where ansible-core's own requirement is missing
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

SHORTEST_RSA = 2048  # bits; CA/Browser Forum Baseline Requirements §6.1.5


def pair_problems(chain: str, key: str, names: Sequence[str], now: datetime.datetime) -> Iterator[Problem]:
    """Why a server with this chain and key would not be trusted under these names."""
    try:
        certificates = x509.load_pem_x509_certificates(chain.encode())
    except ValueError as error:
        why = f"it is no certificate in PEM form ({error})"
        yield Problem("certificate.chain", "a text", why, "the whole PEM file")
        return
    certificate = certificates[0]
    yield from _key_problems(certificate, key)
    for one in certificates:
        why = _why_not_valid(one, now)
        if why:
            yield Problem("certificate.chain", _named(one), why, "a certificate that is valid")
    covered = _covered(certificate)
    for name in names:
        if name not in covered and f"*.{name.partition('.')[2]}" not in covered:
            why = f"it is for {', '.join(covered) or 'no name'} and not for {name}"
            yield Problem("certificate.chain", _named(certificate), why, "a certificate for all names of the site")
    for below, above in itertools.pairwise(certificates):
        if below.issuer != above.subject:
            why = f"{_named(above)} follows, and has not issued it"
            form = "the server's certificate first, each followed by its issuer"
            yield Problem("certificate.chain", _named(below), why, form)


def _key_problems(certificate: x509.Certificate, key: str) -> Iterator[Problem]:
    shown = value_of(key, secret=True)
    try:
        private = serialization.load_pem_private_key(key.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        why = f"it is no private key that nginx can read without a passphrase ({type(error).__name__})"
        yield Problem("certificate.key", shown, why, "an unencrypted PEM key from a vault file")
        return
    encoded = [
        public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        for public in (private.public_key(), certificate.public_key())
    ]
    if encoded[0] != encoded[1]:
        why = f"it does not belong to the certificate {_named(certificate)}"
        yield Problem("certificate.key", shown, why, "the key with which this certificate was requested")
    if isinstance(private, rsa.RSAPrivateKey) and private.key_size < SHORTEST_RSA:
        why = f"{private.key_size} bits can be broken"
        yield Problem("certificate.key", shown, why, f"an RSA key of {SHORTEST_RSA} bits or more, or an ECDSA key")


def _covered(certificate: x509.Certificate) -> list[str]:
    """The names a certificate is for, in lower case; the common name is not looked at (RFC 9525 §2)."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [name.lower() for name in names.get_values_for_type(x509.DNSName)]


def _named(certificate: x509.Certificate) -> str:
    return value_of(certificate.subject.rfc4514_string())


def _why_not_valid(certificate: x509.Certificate, now: datetime.datetime) -> str:
    """Why nobody trusts it now; "" if its time is right."""
    if certificate.not_valid_after_utc <= now:
        return f"it has expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
    if certificate.not_valid_before_utc > now:
        return f"it is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}"
    return ""
