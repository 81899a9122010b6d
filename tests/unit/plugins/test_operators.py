# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who may be let into the hosts, and shut out of them, by name."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.fushuma.production.plugins.filter.operators import operator_problems

from .keys import ed25519

KEY = f"{ed25519()} alice"


@pytest.mark.parametrize(
    ("settings", "given", "words"),
    [
        ({}, {}, []),
        ({"sshd_allow_users": ["bob", "alice@192.0.2.0/24"]}, {}, []),
        ({"sshd_allow_users": ["a*"]}, {}, []),
        ({"sshd_authorized_keys": [{"user": "bob", "keys": [KEY]}, {"user": "alice", "keys": []}]}, {}, []),
        ({}, {"operator": "a-l_1"}, []),
        ({}, {"sudo": "none", "keys": [KEY, f'from="192.0.2.1" {ed25519(2)}']}, []),
        ({}, {"operator": "Alice"}, ['operator is "Alice": it is no name for a user']),
        ({}, {"operator": "a.lice"}, ["it is no name"]),
        ({}, {"operator": "alice\n"}, ["it is no name"]),
        ({}, {"operator": ""}, ["it is no name"]),
        ({}, {"operator": "root"}, ["root is nobody's name"]),
        ({}, {"keys": []}, ["keys is []: nobody could log in with it"]),
        ({}, {"keys": [KEY, "ssh-ed25519 AAAA"]}, ["keys[1] is", "it is no public key (its base64 part is cut short"]),
        ({}, {"keys": [""]}, ["it names no kind of key"]),
        ({}, {"sudo": "some"}, ['sudo is "some"', "nopasswd or password or none"]),
        ({"sshd_allow_users": ["bob"]}, {}, ['sshd_allow_users is ["bob"]: sshd would keep alice out']),
        (
            {"sshd_authorized_keys": [{"user": "alice", "keys": [KEY]}]},
            {},
            ["sshd_authorized_keys[0].user", "it is the inventory that decides on the keys of alice"],
        ),
    ],
)
def test_letting_in(settings: dict[str, Any], given: dict[str, Any], words: list[str]) -> None:
    found = operator_problems(settings, **{"operator": "alice", "keys": [KEY], **given})
    assert len(found) == (1 if words else 0), found
    assert all(word in found[0] for word in words), found


def test_a_private_key_is_not_shown() -> None:
    secret = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA"
    (found,) = operator_problems({}, "alice", [secret])
    assert "it is a private key" in found
    assert "b3Blbn" not in found


@pytest.mark.parametrize(
    ("settings", "operator", "words"),
    [
        ({}, "alice", ""),
        ({"ansible_user": "deploy", "sshd_allow_users": ["bob"]}, "alice", ""),
        ({"sshd_authorized_keys": [{"user": "alice", "keys": []}]}, "alice", ""),
        ({"ansible_user": "alice"}, "alice", "Ansible connects to this host as that user"),
        ({"sshd_authorized_keys": [{"user": "alice", "keys": [KEY]}]}, "alice", "would let in alice"),
        ({}, "root", "root is nobody's name"),
    ],
)
def test_shutting_out(settings: dict[str, Any], operator: str, words: str) -> None:
    found = operator_problems(settings, operator, removing=True, host="web1")
    assert len(found) == (1 if words else 0), found
    assert not found or (found[0].startswith("web1: ") and words in found[0])


def test_settings_that_are_none() -> None:
    with pytest.raises(AnsibleFilterError, match="expects the host's settings as a dict, not list"):
        operator_problems([], "alice")
