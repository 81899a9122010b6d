# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import pytest
from ansible_collections.fushuma.production.plugins.module_utils.sshd_keys import (
    Key,
    keys_in,
    merged,
    parsed,
    wanted_keys,
)
from hypothesis import given
from hypothesis import strategies as st

from .keys import ecdsa, ed25519, rsa

BLOB = ed25519().split()[1]


@pytest.mark.parametrize(
    ("line", "key"),
    [
        (ed25519(), Key("ssh-ed25519", BLOB)),
        (f"  {ed25519()} anna at home ", Key("ssh-ed25519", BLOB, "", "anna at home")),
        (f"restrict {ed25519()}", Key("ssh-ed25519", BLOB, "restrict")),
        (
            f'from="10.0.0.0/8,!10.1.1.1",command="echo \\"a b\\"" {ed25519()} x',
            Key("ssh-ed25519", BLOB, 'from="10.0.0.0/8,!10.1.1.1",command="echo \\"a b\\""', "x"),
        ),
    ],
)
def test_lines_that_are_keys(line: str, key: Key) -> None:
    assert parsed(line) == key
    assert parsed(key.line) == key


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "names no kind of key"),
        ("ssh-ed25519", "cut short"),
        ("ssh-ed25519 AAAA", "cut short"),
        (ed25519()[:-8], "cut short"),
        (f"ssh-rsa {BLOB}", "belongs to another kind"),
        ("ssh-dss AAAAB3NzaC1kc3MAAACB", "names no kind of key"),
        (f"{ed25519(1)}\n{ed25519(2)}", "more than one line"),
        (f'from="x {ed25519()}', "names no kind of key"),
        (f",,= {ed25519()}", "options are not as sshd(8)"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA", "private key, which never leaves"),
        ("ssh-ed25519 ****", "cut short"),
    ],
)
def test_lines_that_are_none(line: str, why: str) -> None:
    with pytest.raises(ValueError, match=why.replace("(", r"\(").replace(")", r"\)")):
        parsed(line)


@given(st.text())
def test_whatever_else_stands_in_a_file_is_kept(text: str) -> None:
    added = merged(text, [parsed(ed25519(7))], exclusive=False)
    assert added.splitlines() == [*text.splitlines(), ed25519(7)]


def test_the_length_of_keys() -> None:
    assert [parsed(rsa(bits)).bits for bits in (2048, 3072, 4096)] == [2048, 3072, 4096]
    assert (parsed(ed25519()).bits, parsed(ecdsa()).bits) == (0, 0)


def test_options_are_found_by_name() -> None:
    key = parsed(f'restrict,FROM="10.0.0.1",expiry-time="20300101" {ed25519()}')
    assert [key.option(name) for name in ("restrict", "from", "expiry-time", "command")] == [
        "",
        "10.0.0.1",
        "20300101",
        None,
    ]


def test_what_sshd_passes_over_is_passed_over() -> None:
    text = f"# a comment\n\n{ed25519(1)} one\nrubbish\n{ed25519(2)}\n"
    assert [key.comment for key in keys_in(text)] == ["one", ""]


def test_options_of_all_keys_stand_before_their_own() -> None:
    first, second = wanted_keys([ed25519(1), f"no-pty {ed25519(2)}"], ["restrict"])
    assert (first.options, second.options) == ("restrict", "restrict,no-pty")


def test_keys_are_added_to_those_that_are_there() -> None:
    present = f"# of anna\n{ed25519(1)} anna\nrubbish\n"
    text = merged(present, [parsed(ed25519(2))], exclusive=False)
    assert text == f"{present}{ed25519(2)}\n"
    assert merged(text, [parsed(ed25519(2))], exclusive=False) == text, "twice is once"


def test_a_key_that_is_there_gets_the_wanted_options() -> None:
    present = f"{ed25519(1)} anna\n{ed25519(2)} ben\n"
    text = merged(present, [parsed(f"restrict {ed25519(1)} anna")], exclusive=False)
    assert text == f"{ed25519(2)} ben\nrestrict {ed25519(1)} anna\n"


def test_all_other_keys_can_be_taken_away() -> None:
    assert merged(f"{ed25519(1)}\n", [parsed(ed25519(2))], exclusive=True) == f"{ed25519(2)}\n"
    assert merged(f"{ed25519(1)}\n", [], exclusive=True) == ""
