# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Settings of the sshd role that cannot work, each with the sentence that an operator reads."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.plugin_utils import specs
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import sentences
from ansible_collections.fushuma.production.plugins.plugin_utils.sshd import problems
from ansible_collections.fushuma.production.plugins.plugin_utils.sshd_algorithms import KNOWN, weakness

from .keys import ecdsa, ed25519, rsa

KEYS = "sshd_authorized_keys"
OPTIONS = specs.role_options("sshd")


def said(**settings: Any) -> list[str]:
    settings.setdefault("sshd_connecting_user", "")
    assert not specs.problems(OPTIONS, settings), "the shape is wrong already"
    return sentences(problems(specs.filled(OPTIONS, settings)))


def keys(*lines: str, user: str = "anna", **more: Any) -> dict[str, Any]:
    return {KEYS: [{"user": user, "keys": list(lines), **more}]}


def match(criteria: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return {"sshd_match": [{"criteria": criteria, "settings": settings or {"X11Forwarding": True}}]}


def test_the_defaults_work() -> None:
    assert said() == []


@pytest.mark.parametrize(
    "settings",
    [
        {"sshd_ports": [22, 2222], "sshd_listen_addresses": ["10.0.0.1", "2001:db8::1"]},
        {"sshd_listen_addresses": ["::1"], "sshd_address_family": "inet6"},
        {"sshd_allow_users": ["anna", "b*@10.0.0.0/8"], "sshd_connecting_user": "ben"},
        {"sshd_deny_users": ["anna@10.0.0.0/8", "carl"], "sshd_connecting_user": "anna"},
        {"sshd_root_login": "prohibit-password", "sshd_connecting_user": "root", **keys(ed25519(), user="root")},
        {"sshd_authentication_methods": ["publickey,keyboard-interactive:pam", "publickey,password"]}
        | {"sshd_password_authentication": True},
        {"sshd_max_startups": "10"},
        {"sshd_kex_algorithms": ["curve25519-sha256", "diffie-hellman-group16-sha512"]},
        {"sshd_pubkey_algorithms": ["ecdsa-sha2-nistp256"], **keys(ecdsa())},
        keys(rsa(3072), f"restrict {ed25519()} anna", options=['from="10.0.0.0/8"', "no-pty"]),
        keys(exclusive=True),
        {"sshd_authorized_keys_file": "/etc/ssh/authorized_keys/%u"},
        {
            "sshd_trusted_user_ca_keys": [ed25519()],
            "sshd_authorized_principals": [{"user": "anna", "principals": ["a b"]}],
        },
        {"sshd_revoked_keys": [rsa(1024), ed25519()]},
        match({"user": "deploy,backup", "Address": "10.0.0.0/8"}, forcecommand="/usr/bin/backup --all"),
        {"sshd_confirm_within": 0},
        {
            "sshd_fail2ban_ban_time": "-1",
            "sshd_fail2ban_find_time": "1h30m",
            "sshd_fail2ban_ignore": ["10.0.0.0/8", "::1"],
        },
    ],
)
def test_what_works(settings: dict[str, Any]) -> None:
    assert said(**settings) == []


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"sshd_ports": []}, "sshd_ports is []: nobody could connect. Write [22]."),
        ({"sshd_ports": [22, 65536]}, "sshd_ports[1] is 65536: ports go from 1 to 65535. Write a port in that range."),
        ({"sshd_ports": [22, 22]}, "sshd_ports[1] is 22: it stands there twice. Write each of them once."),
        ({"sshd_listen_addresses": ["10.0.0.1:22"]}, 'sshd_listen_addresses[0] is "10.0.0.1:22": it is no address'),
        ({"sshd_listen_addresses": ["[::1]"]}, "IPv6 without brackets"),
        ({"sshd_listen_addresses": ["::1", "::1"]}, "sshd_listen_addresses[1]"),
        ({"sshd_listen_addresses": ["::1"], "sshd_address_family": "inet"}, "sshd_address_family inet leaves it out"),
        (
            {"sshd_listen_addresses": ["127.0.0.1"], "sshd_address_family": "inet6"},
            "sshd_address_family inet6 leaves it out",
        ),
        ({"sshd_allow_users": ["a b"]}, 'sshd_allow_users[0] is "a b": a pattern has no spaces'),
        ({"sshd_deny_groups": ["a", "a"]}, "sshd_deny_groups[1]"),
        (
            {"sshd_allow_users": ["ben"], "sshd_deny_users": ["ben"]},
            "sshd_deny_users names it too, and that counts more",
        ),
        ({"sshd_allow_groups": ["x"], "sshd_deny_groups": ["x"]}, "sshd_deny_groups names it too"),
        ({"sshd_allow_users": ["root"]}, 'sshd_allow_users[0] is "root": sshd_root_login is "no"'),
        (keys(ed25519(), user="root"), 'sshd_authorized_keys[0].user is "root": sshd_root_login is "no"'),
        (
            {"sshd_connecting_user": "root"},
            'sshd_root_login is "no": Ansible connects as root, whom that keeps out. Write ansible_user: a user',
        ),
        (
            {"sshd_connecting_user": "root", "sshd_root_login": "forced-commands-only"},
            "Ansible connects as root, whom that keeps out",
        ),
        ({"sshd_connecting_user": "a b"}, 'sshd_connecting_user is "a b": it is no user name'),
        (
            {"sshd_connecting_user": "anna", "sshd_allow_users": ["ben"]},
            "it does not name anna, as whom Ansible connects",
        ),
        ({"sshd_connecting_user": "anna", "sshd_deny_users": ["a*"]}, "it keeps out anna, as whom Ansible connects"),
        (
            {"sshd_authentication_methods": ["pubkey"]},
            "sshd has no method 'pubkey'. Write publickey, if that is meant.",
        ),
        ({"sshd_authentication_methods": ["publickey,password"]}, "sshd_password_authentication is false"),
        ({"sshd_authentication_methods": ["hostbased"]}, "the role turns hostbased off"),
        ({"sshd_authentication_methods": ["publickey"] * 2}, "it stands there twice"),
        ({"sshd_root_login": "yes", "sshd_password_authentication": True}, "anybody may guess root's"),
        ({"sshd_max_auth_tries": 0}, "sshd_max_auth_tries is 0: without an attempt nobody gets in"),
        ({"sshd_login_grace_time": 0}, "0 would let connections wait for ever"),
        ({"sshd_max_sessions": 0}, "sshd_max_sessions is 0"),
        ({"sshd_client_alive_interval": -1}, "it counts seconds"),
        ({"sshd_client_alive_count_max": 0}, "0 would never end a dead connection"),
        ({"sshd_moduli_bits": 1024}, "smaller groups are broken"),
        *(
            ({"sshd_max_startups": value}, "it is not START:RATE:FULL")
            for value in ("", "10:30", "10:0:60", "10:101:60", "20:30:10", "x")
        ),
        (
            {"sshd_ciphers": []},
            "sshd_ciphers is []: sshd would fall back on its own list. Write at least one algorithm.",
        ),
        ({"sshd_ciphers": ["aes256-ctr", "aes256-ctr"]}, "it stands there twice"),
        (
            {"sshd_ciphers": ["aes256-crt"]},
            "OpenSSH knows no algorithm of this name here. Write aes256-ctr, if that is meant.",
        ),
        ({"sshd_ciphers": ["?"]}, "Write for example chacha20-poly1305@openssh.com."),
        ({"sshd_kex_algorithms": ["aes256-ctr"]}, "no algorithm of this name here"),
        ({"sshd_kex_algorithms": ["diffie-hellman-group14-sha256"]}, "its group of 2048 bits is too small"),
        ({"sshd_kex_algorithms": ["diffie-hellman-group1-sha1"]}, "SHA-1"),
        ({"sshd_kex_algorithms": ["ecdh-sha2-nistp256"]}, "its curves were chosen by nobody knows whom"),
        ({"sshd_ciphers": ["3des-cbc"]}, "CVE-2008-5161"),
        ({"sshd_macs": ["hmac-md5"]}, "MD5"),
        ({"sshd_macs": ["umac-64-etm@openssh.com"]}, "a tag of 64 bits can be forged"),
        ({"sshd_host_key_algorithms": ["ssh-rsa", "ssh-ed25519"]}, "SHA-1"),
        ({"sshd_host_key_algorithms": ["ecdsa-sha2-nistp256", "ssh-ed25519"]}, "one bad random number"),
        ({"sshd_ca_signature_algorithms": ["ssh-ed25519-cert-v01@openssh.com"]}, "no algorithm of this name here"),
        ({"sshd_host_keys": []}, "the host could not prove who it is"),
        ({"sshd_host_keys": ["rsa", "rsa"]}, "it stands there twice"),
        (
            {"sshd_host_keys": ["rsa"], "sshd_host_key_algorithms": ["ssh-ed25519"]},
            "a host with rsa keys can sign with none",
        ),
        (match({}), "sshd_match[0].criteria is {}: it would be for all connections"),
        (match({"Usr": "anna"}), "Match knows no such criterion. Write User."),
        (match({"Colour": "red"}), "Write one of sshd_config(5), Match."),
        (match({"User": "anna ben"}), "a criterion is one pattern"),
        (match({"User": ["anna"]}), "a criterion is one pattern"),
        (match({"User": "anna"}, Port=22), "sshd_match[0].settings.Port is 22: it cannot stand in a Match block"),
        (match({"User": "anna"}, Banner="a\nb"), "a keyword has a value of one line"),
        (match({"User": "anna"}, Banner=""), "a keyword has a value of one line"),
        ({"sshd_match": [{"criteria": {"User": "x"}, "settings": {}}]}, "it would change nothing"),
        (
            {KEYS: [{"user": "anna", "keys": [ed25519()]}] * 2},
            'sshd_authorized_keys[1].user is "anna": it stands there twice',
        ),
        (keys(ed25519(), user="a/b"), "it is no user name"),
        (keys("no key"), 'sshd_authorized_keys[0].keys[0] is "no key": it names no kind of key'),
        (
            keys("-----BEGIN RSA PRIVATE KEY-----"),
            "keys[0] is a key: it is a private key, which never leaves its owner",
        ),
        (keys(rsa(2048)), "an RSA key of 2048 bits is too short, 3072 are needed"),
        (keys(ecdsa()), "sshd_pubkey_algorithms holds no signature of ecdsa-sha2-nistp256"),
        (keys(ed25519(), f"restrict {ed25519()} twice"), "it stands there twice"),
        (keys(ed25519(), options=['from="x']), "it is no option of sshd(8)"),
        (keys(), "it adds nothing"),
        *(
            ({"sshd_authorized_keys_file": path}, "all users would share one file")
            for path in ("/etc/ssh/keys", "a b", "")
        ),
        ({"sshd_trusted_user_ca_keys": ["no key"]}, "sshd_trusted_user_ca_keys[0]"),
        ({"sshd_trusted_user_ca_keys": [rsa(2048)]}, "too short"),
        ({"sshd_trusted_user_ca_keys": [f"restrict {ed25519()}"]}, "a key stands here without options"),
        ({"sshd_revoked_keys": ["no key"]}, "sshd_revoked_keys[0]"),
        ({"sshd_revoked_keys": [f"restrict {ed25519()}"]}, "a key stands here without options"),
        ({"sshd_authorized_principals": [{"user": "anna", "principals": ["x"]}]}, "no certificate counts as long as"),
        *(
            ({"sshd_trusted_user_ca_keys": [ed25519()], "sshd_authorized_principals": list(given)}, words)
            for given, words in (
                ([{"user": "anna", "principals": [" "]}], "it is no name"),
                ([{"user": "../x", "principals": ["x"]}], "it is no user name"),
                ([{"user": "anna", "principals": ["x"]}] * 2, "it stands there twice"),
            )
        ),
        *(({"sshd_confirm_within": seconds}, "a new connection needs some seconds") for seconds in (5, 601, -1)),
        ({"sshd_fail2ban_max_retry": 0}, "who has not failed yet cannot be banned"),
        ({"sshd_fail2ban_find_time": "-1"}, "it is no time that fail2ban knows"),
        ({"sshd_fail2ban_ban_time": "1 day"}, "it is no time that fail2ban knows"),
        ({"sshd_fail2ban_ignore": ["10.0.0.1/8"]}, "it is no network"),
    ],
)
def test_what_cannot_work(settings: dict[str, Any], sentence: str) -> None:
    found = said(**settings)
    assert any(sentence in one for one in found), found


def test_everything_is_said_at_once() -> None:
    assert len(said(sshd_ports=[0], sshd_ciphers=["aes256-cbc"], sshd_host_keys=[])) == 3


def test_no_default_is_weak() -> None:
    for name in KNOWN:
        assert not [one for one in OPTIONS[name]["default"] if weakness(name, one) or one not in KNOWN[name]]
