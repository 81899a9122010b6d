# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Certificates and keys: which pairs a server can be given, and what is said of each that it cannot."""

from __future__ import annotations

import datetime
from collections.abc import Callable

import pytest
from ansible_collections.fushuma.production.plugins.plugin_utils import pem
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import sentences
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption

from .certificates import DAY, Pair, made

NOW = datetime.datetime(2030, 6, 1, tzinfo=datetime.UTC)
SITE = ["www.fushuma.com", "fushuma.com"]


def pair(*names: str, start: int = -10, days: int = 90, **options: object) -> Pair:
    """A pair that is valid from ``start`` days after NOW, for ``days`` days."""
    return made(names or SITE, start=NOW + start * DAY, days=days, **options)  # type: ignore[arg-type]


ROOT = pair(common="Root")
BELOW = pair(common="Intermediate", issuer=ROOT)
LEAF = pair(issuer=BELOW)
GOOD = pair()
OTHER = pair()
EXPIRED = pair(start=-90)
FUTURE = pair(start=1)
SHORT = pair(private=rsa.generate_private_key(65537, 1024))


def problems(chain: str, key: str, names: list[str] | None = None) -> list[str]:
    return sentences(pem.pair_problems(chain, key, SITE if names is None else names, NOW))


@pytest.mark.parametrize(
    ("chain", "key", "names"),
    [
        pytest.param(GOOD.chain, GOOD.key, SITE, id="all names"),
        pytest.param(GOOD.chain, GOOD.key, SITE[:1], id="one of its names"),
        pytest.param((new := pair(start=0)).chain, new.key, SITE, id="from this second"),
        pytest.param(LEAF.chain + BELOW.chain, LEAF.key, SITE, id="chain"),
        pytest.param(LEAF.chain + BELOW.chain + ROOT.chain, LEAF.key, SITE, id="chain with its root"),
        pytest.param((made_up := pair("WWW.Fushuma.com")).chain, made_up.key, SITE[:1], id="capital letters"),
        pytest.param((wild := pair("*.fushuma.com")).chain, wild.key, ["a.fushuma.com"], id="wildcard"),
        pytest.param((long := pair(private=rsa.generate_private_key(65537, 2048))).chain, long.key, SITE, id="RSA"),
        pytest.param(
            (large := pair(private=ec.generate_private_key(ec.SECP384R1()))).chain, large.key, SITE, id="P-384"
        ),
    ],
)
def test_what_a_server_can_be_given(chain: str, key: str, names: list[str]) -> None:
    assert problems(chain, key, names) == []


@pytest.mark.parametrize(
    ("chain", "key", "names", "said"),
    [
        pytest.param(
            GOOD.chain,
            OTHER.key,
            SITE,
            [
                f"certificate.key is a secret of {len(OTHER.key)} characters: it does not belong to the certificate "
                '"CN=www.fushuma.com". Write the key with which this certificate was requested.'
            ],
            id="another key",
        ),
        pytest.param(
            EXPIRED.chain,
            EXPIRED.key,
            SITE,
            [
                'certificate.chain is "CN=www.fushuma.com": it has expired on 2030-06-01. '
                "Write a certificate that is valid."
            ],
            id="expired this second",
        ),
        pytest.param(
            FUTURE.chain,
            FUTURE.key,
            SITE,
            [
                'certificate.chain is "CN=www.fushuma.com": it is not valid before 2030-06-02. '
                "Write a certificate that is valid."
            ],
            id="not valid yet",
        ),
        pytest.param(
            GOOD.chain,
            GOOD.key,
            ["shop.fushuma.com"],
            [
                'certificate.chain is "CN=www.fushuma.com": it is for www.fushuma.com, fushuma.com '
                "and not for shop.fushuma.com. Write a certificate for all names of the site."
            ],
            id="another name",
        ),
        pytest.param(
            (wild := pair("*.fushuma.com")).chain,
            wild.key,
            ["fushuma.com", "a.b.fushuma.com"],
            [
                'certificate.chain is "CN=*.fushuma.com": it is for *.fushuma.com and not for a.b.fushuma.com. '
                "Write a certificate for all names of the site.",
                'certificate.chain is "CN=*.fushuma.com": it is for *.fushuma.com and not for fushuma.com. '
                "Write a certificate for all names of the site.",
            ],
            id="a wildcard stands for one label",
        ),
        pytest.param(
            (bare := made([], common="fushuma.com", start=NOW - DAY)).chain,
            bare.key,
            ["fushuma.com"],
            [
                'certificate.chain is "CN=fushuma.com": it is for no name and not for fushuma.com. '
                "Write a certificate for all names of the site."
            ],
            id="the common name does not count",
        ),
        pytest.param(
            LEAF.chain + ROOT.chain + BELOW.chain,
            LEAF.key,
            SITE,
            [
                'certificate.chain is "CN=Root": "CN=Intermediate" follows, and has not issued it. '
                "Write the server's certificate first, each followed by its issuer.",
                'certificate.chain is "CN=www.fushuma.com": "CN=Root" follows, and has not issued it. '
                "Write the server's certificate first, each followed by its issuer.",
            ],
            id="order",
        ),
        pytest.param(
            (child := pair(issuer=EXPIRED)).chain + EXPIRED.chain,
            child.key,
            SITE,
            [
                'certificate.chain is "CN=www.fushuma.com": it has expired on 2030-06-01. '
                "Write a certificate that is valid."
            ],
            id="expired issuer",
        ),
        pytest.param(
            GOOD.chain,
            (locked := GOOD.key_with(BestAvailableEncryption(b"passphrase"))),
            SITE,
            [
                f"certificate.key is a secret of {len(locked)} characters: it is no private key that nginx can read "
                "without a passphrase (TypeError). Write an unencrypted PEM key from a vault file."
            ],
            id="encrypted key",
        ),
        pytest.param(
            GOOD.chain,
            "not a key",
            SITE,
            [
                "certificate.key is a secret of 9 characters: it is no private key that nginx can read "
                "without a passphrase (ValueError). Write an unencrypted PEM key from a vault file."
            ],
            id="no key",
        ),
        pytest.param(
            SHORT.chain,
            SHORT.key,
            SITE,
            [
                f"certificate.key is a secret of {len(SHORT.key)} characters: 1024 bits can be broken. "
                "Write an RSA key of 2048 bits or more, or an ECDSA key."
            ],
            id="short RSA",
        ),
    ],
)
def test_what_it_cannot_be_given(chain: str, key: str, names: list[str], said: list[str]) -> None:
    assert problems(chain, key, names) == said


@pytest.mark.parametrize("chain", ["", "a text", "-----BEGIN CERTIFICATE-----\nbm9uZQ==\n-----END CERTIFICATE-----\n"])
def test_a_text_that_is_no_certificate(chain: str) -> None:
    (said,) = problems(chain, GOOD.key)
    assert said.startswith("certificate.chain is a text: it is no certificate in PEM form (")
    assert said.endswith("). Write the whole PEM file.")


def test_all_faults_are_named_at_once() -> None:
    said = problems(EXPIRED.chain, SHORT.key, ["shop.fushuma.com"])
    assert len(said) == 4
    assert GOOD.key not in " ".join(said)


def test_a_kind_of_key_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_options: object) -> Callable[..., object]:
        raise UnsupportedAlgorithm("unknown curve")

    monkeypatch.setattr(pem.serialization, "load_pem_private_key", refuse)
    assert "(UnsupportedAlgorithm)" in problems(GOOD.chain, GOOD.key)[0]
