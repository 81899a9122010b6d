# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Secrets: which are refused, where they are found, and that none is ever repeated."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.plugin_utils import secret
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import sentences
from ansible_collections.fushuma.production.plugins.plugin_utils.specs import Options

WRITE = "Write the output of `openssl rand -hex 24`, kept in a vault file."
GOOD = "Zk7vQ2mXb9Lr4TnY"

OPTIONS: Options = {
    "web_name": {"type": "str"},
    "web_password": {"type": "str", "no_log": True},
    "web_tls": {"type": "dict", "options": {"key": {"type": "str", "no_log": True}, "on": {"type": "bool"}}},
    "web_sites": {
        "type": "list",
        "elements": "dict",
        "options": {"users": {"type": "dict", "no_log": True}, "name": {"type": "str"}},
    },
    "web_free": {"type": "dict"},
}


@pytest.mark.parametrize(
    "value",
    [
        GOOD,
        "a" * 11 + "bcde",
        "-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----",
        "f3a9c07be1d2846650bfa7719ce84d0e2b6a98f1d7c3504e",
        # A number of somebody's service, in whose middle such digits are chance.
        "https://o45.ingest.sentry.io/api/450612345678/cron/web1/5f0c2b7d9e/",
    ],
)
def test_what_protects(value: str) -> None:
    assert secret.weak("x", value) == []


@pytest.mark.parametrize(
    "value",
    [
        "changeme",
        "change_me_please_now",
        "ReplaceMe-0123456789abc",
        "my-password-is-very-long",
        "pass word of many letters",
        "PASSWD-kfjdhgkfjdhg",
        "the-secret-of-our-company",
        "example-kfjdhgkfjdhg",
        "dummy-kfjdhgkfjdhgkfj",
        "sample-kfjdhgkfjdhgk",
        "placeholder-kfjdhgkf",
        "default-kfjdhgkfjdhg",
        "TODO: ask the operator",
        "fixme-kfjdhgkfjdhgkf",
        "administrator-kfjdhg",
        "your-key-goes-here-ok",
        "letmein-kfjdhgkfjdhg",
        "qwertyuiopasdfghjkl",
        "0123456789abcdefghi",
        "<generate a key here>",
        "xxxxxxxxxxxxxxxxxxxxx",
        "********************",
        "and so on and on .....",
        "abcdabcdabcdabcdabcd",
        "aaaa",
    ],
)
def test_placeholders(value: str) -> None:
    (problem,) = secret.weak("web_password", value)
    assert problem.sentence() == (
        f"web_password is a secret of {len(value)} characters: "
        f"it is a placeholder that anybody would try first. {WRITE}"
    )


def test_short_ones_can_be_guessed() -> None:
    (problem,) = secret.weak("web_password", GOOD[:14])
    assert (
        problem.sentence()
        == f"web_password is a secret of 14 characters: less than 15 characters can be guessed. {WRITE}"
    )
    assert secret.weak("web_password", GOOD[:15]) == []


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({}, []),
        ({"web_password": None, "web_tls": None, "web_sites": []}, []),
        ({"web_password": "", "web_name": "short", "web_free": {"password": "short"}}, []),
        ({"web_password": GOOD, "web_tls": {"key": GOOD}, "web_sites": [{"users": {"me": GOOD}}]}, []),
        ({"web_password": "short"}, ["web_password"]),
        ({"web_password": 12}, ["web_password"]),
        ({"web_tls": {"key": "short", "on": True}}, ["web_tls.key"]),
        (
            {"web_sites": [{"name": "short"}, {"users": {"me": GOOD, "you": "short", "they": None}}]},
            ["web_sites[1].users.they", "web_sites[1].users.you"],
        ),
    ],
)
def test_they_are_found_at_any_depth(settings: dict[str, Any], where: list[str]) -> None:
    assert sorted(problem.setting for problem in secret.problems(OPTIONS, settings)) == where


def test_none_is_repeated() -> None:
    settings = {"web_password": "hunter2", "web_sites": [{"users": {"me": "changeme-canary"}}]}
    said = sentences(secret.problems(OPTIONS, settings))
    assert len(said) == 2
    assert not any(value in text for value in ("changeme-canary", "hunter2") for text in said)


def test_former_secrets_are_left_out_at_any_depth() -> None:
    settings = [{"name": "shop", "password": GOOD, "former_password": "old", "users": ({"former_password": "old"},)}, 7]
    kept = [{"name": "shop", "password": GOOD, "users": [{}]}, 7]
    assert secret.without_former(settings) == kept
    assert settings[0]["former_password"] == "old"  # type: ignore[index]
