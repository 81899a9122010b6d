# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who gets in, by what sshd -T prints."""

from __future__ import annotations

import calendar
import time

import pytest
from ansible_collections.fushuma.production.plugins.module_utils import sshd_login as login
from ansible_collections.fushuma.production.plugins.module_utils.sshd_keys import parsed
from ansible_collections.fushuma.production.plugins.module_utils.sshd_login import Account, Session, reasons

from .keys import ecdsa, ed25519, rsa

NOW = calendar.timegm((2026, 6, 1, 12, 0, 0))
ANNA = Session("anna", "10.1.2.3", "10.0.0.1", 22)
ROOT = Session("root", "10.1.2.3", "10.0.0.1", 22)
BASE = {
    "listenaddress": ["0.0.0.0:22", "[::]:22"],
    "permitrootlogin": ["no"],
    "pubkeyauthentication": ["yes"],
    "passwordauthentication": ["no"],
    "kbdinteractiveauthentication": ["no"],
    "pubkeyacceptedalgorithms": ["ssh-ed25519,rsa-sha2-512"],
    "requiredrsasize": ["3072"],
    "authorizedkeysfile": [".ssh/authorized_keys"],
    "trustedusercakeys": ["none"],
    "authorizedkeyscommand": ["none"],
    "authenticationmethods": ["any"],
    "forcecommand": ["none"],
    "chrootdirectory": ["none"],
    "maxsessions": ["10"],
}


def who(session: Session = ANNA, *keys: str, password: bool = False) -> Account:
    return Account(session.user, ["anna", "sudo"], password, [parsed(key) for key in keys or (ed25519(),)])


def why(session: Session = ANNA, account: Account | None = None, **config: list[str]) -> str:
    return "; ".join(reasons(session, account or who(session), {**BASE, **config}, NOW))


def test_the_default_lets_in() -> None:
    assert why() == ""
    assert why(Session("anna", "2001:db8::9", "2001:db8::1", 22)) == ""


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"listenaddress": ["0.0.0.0:2222"]}, "listen on 0.0.0.0:2222 and not on 10.0.0.1 port 22"),
        ({"listenaddress": ["10.0.0.2:22", "[::]:22"]}, "and not on 10.0.0.1 port 22"),
        ({"listenaddress": []}, "and not on 10.0.0.1"),
        ({"denyusers": ["ben", "a*"]}, "DenyUsers names anna (a*)"),
        ({"denyusers": ["anna@10.1.0.0/16"]}, "DenyUsers names anna (anna@10.1.0.0/16)"),
        ({"allowusers": ["ben", "root"]}, "AllowUsers ben root does not name anna from 10.1.2.3"),
        ({"allowusers": ["anna@10.2.0.0/16"]}, "does not name anna from 10.1.2.3"),
        ({"allowusers": ["anna@host.example"]}, "does not name anna"),
        ({"allowusers": ["anna@10.1.0.0/99"]}, "does not name anna"),
        ({"allowusers": ["[a]nna"]}, "does not name anna"),
        ({"denygroups": ["su?o"]}, "DenyGroups names su?o, of which anna is a member"),
        ({"allowgroups": ["wheel admin"]}, "AllowGroups wheel admin names no group of anna (anna, sudo)"),
        ({"pubkeyauthentication": ["no"]}, "anna has no key in .ssh/authorized_keys"),
        ({"pubkeyacceptedalgorithms": ["rsa-sha2-512"]}, "anna has no key"),
        (
            {"authenticationmethods": ["publickey,password"]},
            "asks anna for more than there is (what can succeed: publickey)",
        ),
        ({"authenticationmethods": ["password"], "pubkeyauthentication": ["no"]}, "(what can succeed: none)"),
        ({"authenticationmethods": ["publickey,publickey"]}, "more than there is"),
        ({"authenticationmethods": ["hostbased gssapi-with-mic"]}, "more than there is"),
        ({"authenticationmethods": ["no-such-method"]}, "more than there is"),
        ({"forcecommand": ["internal-sftp"]}, "ForceCommand internal-sftp leaves anna no shell"),
        ({"chrootdirectory": ["/srv"]}, "ChrootDirectory /srv leaves anna no shell"),
        ({"maxsessions": ["0"]}, "MaxSessions 0 allows no session"),
    ],
)
def test_what_shuts_out(config: dict[str, list[str]], words: str) -> None:
    assert words in why(**config)


@pytest.mark.parametrize(
    "config",
    [
        {"listenaddress": ["10.0.0.1:22"]},
        {"denyusers": ["ben", "anna@10.2.0.0/16", "anna@10.1.0.0/16,!10.1.2.3"]},
        {"allowusers": ["ben", "anna@10.1.*"]},
        {"allowusers": ["anna@10.9.0.1,10.1.0.0/16"]},
        {"allowgroups": ["s*"]},
        {"denygroups": ["wheel"]},
        {"authenticationmethods": ["publickey,password publickey"]},
        {"authenticationmethods": ["publickey"]},
        {"trustedusercakeys": ["/etc/ssh/ca"], "authenticationmethods": ["publickey,publickey"]},
        {"gssapiauthentication": ["yes"], "pubkeyauthentication": ["no"]},
    ],
)
def test_what_does_not(config: dict[str, list[str]]) -> None:
    assert why(**config) == ""


def test_a_password_counts_where_it_opens_a_session() -> None:
    account = who(ANNA, ecdsa(), password=True)
    assert "has no key" in why(account=account)
    assert why(account=account, passwordauthentication=["yes"]) == ""
    assert why(account=account, kbdinteractiveauthentication=["yes"]) == ""
    both = {"authenticationmethods": ["keyboard-interactive:pam"], "kbdinteractiveauthentication": ["yes"]}
    assert why(account=account, **both) == ""
    assert "has no key" in why(account=who(ANNA, ecdsa()), passwordauthentication=["yes"])


def test_root() -> None:
    for rule in ("no", "forced-commands-only"):
        assert f"PermitRootLogin {rule} keeps root out" in why(ROOT, permitrootlogin=[rule])
    for rule in ("yes", "without-password"):
        assert why(ROOT, permitrootlogin=[rule]) == ""
    guessed = who(ROOT, ecdsa(), password=True)
    on = {"passwordauthentication": ["yes"]}
    assert "root has no key" in why(ROOT, guessed, permitrootlogin=["without-password"], **on)
    assert why(ROOT, guessed, permitrootlogin=["yes"], **on) == ""


@pytest.mark.parametrize(
    ("key", "counts"),
    [
        (ed25519(), True),
        (ecdsa(), False),
        (rsa(2048), False),
        (rsa(3072), True),
        (f'command="backup" {ed25519()}', False),
        (f"cert-authority {ed25519()}", False),
        (f"restrict {ed25519()}", True),
        (f'from="10.1.0.0/16" {ed25519()}', True),
        (f'from="!10.1.2.3,*" {ed25519()}', False),
        (f'expiry-time="20260601Z" {ed25519()}', False),
        (f'expiry-time="20260601120001Z" {ed25519()}', True),
        (f'expiry-time="20260601120000Z" {ed25519()}', False),
    ],
)
def test_keys_that_count(key: str, counts: bool) -> None:
    assert bool(login.usable_keys(ANNA, [parsed(key)], BASE, NOW)) == counts


def test_expiry_is_in_local_time_without_a_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        key = parsed(f'expiry-time="202606012059" {ed25519()}')
        assert not login.usable_keys(ANNA, [key], BASE, NOW)
        assert login.usable_keys(ANNA, [key], BASE, NOW - 120)
    finally:
        monkeypatch.undo()
        time.tzset()
