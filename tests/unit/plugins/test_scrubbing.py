# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Texts without secrets: what is taken away, and what stays so that the text still says something."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from ansible_collections.fushuma.production.plugins.module_utils.scrubbing import (
    Scrubber,
    names_only,
    secrets_among,
)
from hypothesis import given
from hypothesis import strategies as st

KEY = "-----BEGIN PRIVATE KEY-----\nMIIEcanary\ncanary\n-----END PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("password=canary", "password=***"),
        ("the password: canary, tried", "the password: ***, tried"),
        ("DB_PASSWORD=canary host=db", "DB_PASSWORD=*** host=db"),
        ('{"user":"u","db_password":"can\\"ary","n":1}', '{"user":"u","db_password":***,"n":1}'),
        ('"{\\"token\\": \\"canary\\", \\"n\\": 1}"', '"{\\"token\\": ***, \\"n\\": 1}"'),
        ('"{\\"token\\":\\"can\\\\\\"ary\\"}"', '"{\\"token\\":***}"'),
        ('password="canary can', "password=***"),
        ("secret = 'canary canary' next", "secret = *** next"),
        ("GET /?api_key=canary&page=2 HTTP/2", "GET /?api_key=***&page=2 HTTP/2"),
        ("Authorization: Basic canary canary", "Authorization: ***"),
        ('{"authorization":"Bearer canary","status":200}', '{"authorization":***,"status":200}'),
        ("set-cookie: id=canary; Path=/\nnext", "set-cookie: ***\nnext"),
        ("x-auth-token: canary", "x-auth-token: ***"),
        ("sent Bearer canary.canary", "sent Bearer ***"),
        ("run --password canary --user u", "run --password *** --user u"),
        ("run --token-file --user u", "run --token-file --user u"),
        ("mysqldump -u root -pcanary shop", "mysqldump -u root -p*** shop"),
        ("mysql -h db -p3306", "mysql -h db -p3306"),
        ("requirepass canary", "requirepass ***"),
        ("sentinel auth-pass main canary", "sentinel auth-pass main ***"),
        ("CREATE USER u IDENTIFIED BY 'canary'", "CREATE USER u IDENTIFIED BY ***"),
        ("identified via mysql_native_password using 'canary'", "identified via mysql_native_password using ***"),
        ("mysql://app:canary@db:3306/shop", "mysql://app:***@db:3306/shop"),
        ("redis://:canary@cache", "redis://:***@cache"),
        ("http://db:3306/a@b", "http://db:3306/a@b"),
        ("jwt eyJcanary.canary.canary here", "jwt *** here"),
        ("root:$6$canary$canary:19000", "root:***:19000"),
        ("with ghp_canarycanary1 and AKIACANARYCANARYCANA", "with *** and ***"),
        (f"a {KEY} b", "a -----BEGIN PRIVATE KEY-----***-----END PRIVATE KEY----- b"),
        (json.dumps({"key": KEY}), '{"key": "-----BEGIN PRIVATE KEY-----***-----END PRIVATE KEY-----"}'),
        ("x\n-----BEGIN RSA PRIVATE KEY-----\ncanary", "x\n-----BEGIN RSA PRIVATE KEY-----***"),
        ("canary\ncanary\n-----END PRIVATE KEY-----\nx", "***-----END PRIVATE KEY-----\nx"),
        ("-----BEGIN CERTIFICATE-----\nMIIC\n-----END CERTIFICATE-----", None),
        # What only sounds like it stays.
        ("sshd[1]: Failed password for root from 192.0.2.1 port 22", None),
        ("pam_unix(sshd:auth): authentication failure; logname= uid=0", None),
        ("server_tokens off; ssl_session_tickets on; proxy_pass http://a;", None),
        ("PasswordAuthentication no", None),
    ],
)
def test_what_looks_like_a_secret(text: str, left: str | None) -> None:
    assert Scrubber()(text) == (text if left is None else left)


def test_secrets_that_are_known() -> None:
    scrub = Scrubber(["canary/of one", KEY, "short"])
    assert scrub(f"a canary/of one {quote('canary/of one', safe='')} short") == "a *** *** short"
    scrub.learn(['canary"two"'])
    assert scrub('an escaped canary\\"two\\", a plain canary"two"') == "an escaped ***, a plain ***"


def test_the_lines_of_a_long_secret() -> None:
    assert Scrubber(["canary-canary-one\ncanary-canary-two"])("1: canary-canary-two") == "1: ***"


@given(st.text(min_size=8, max_size=40).filter(lambda one: len(one.strip()) >= 8), st.text(), st.text())
def test_no_known_secret_survives(secret: str, before: str, after: str) -> None:
    for form in (secret, json.dumps(secret)[1:-1], quote(secret, safe="")):
        # Were it made of stars alone, what stands in its place would be one.
        left = Scrubber([secret])(before + form + after)
        assert secret.strip() not in left or "*" in secret


@given(st.text())
def test_any_text_is_taken(text: str) -> None:
    assert isinstance(Scrubber()(text), str)


def test_it_takes_no_long_time_over_a_long_line() -> None:
    assert Scrubber()("a" * 1_000_000 + "=") == "a" * 1_000_000 + "="
    assert len(Scrubber()("pass" * 50_000)) == 200_000


def test_environments() -> None:
    environment = ["API_KEY=canary-one", "URL=mysql://u:canary-two@db/shop", "PLAIN=seen", "EMPTY", "A=b=c"]
    assert secrets_among(environment) == ["canary-one", "canary-two"]
    assert names_only(environment) == ["API_KEY=***", "URL=***", "PLAIN=***", "EMPTY=***", "A=***"]
