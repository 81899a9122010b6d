"""Settings that cannot work are refused before a host is touched: all at once, each with its host and its value."""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from plays import Played, all_hosts, inventory, run_playbook
from testinfra.host import Host

Settings = dict[str, Any]

PLAYBOOKS = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"], "playbooks")
NOWHERE = "192.0.2.1"  # RFC 5737: an address that nobody has
PLACES = "/etc /home /opt /root /srv /usr /var/lib /var/spool /var/www"
SENTENCE = re.compile(r"(?s)(?P<host>\S+): (?P<setting>.+?) is (?P<value>.+?): (?P<why>.+)\. Write (?P<instead>.+)\.")

KEYS = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]


def pem_of(key: ec.EllipticCurvePrivateKey) -> str:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


def chain(name: str, days: tuple[int, int]) -> str:
    """A certificate for the first key, valid between these days from now."""
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder(subject, subject, KEYS[0].public_key(), x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=days[0]))
        .not_valid_after(now + datetime.timedelta(days=days[1]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(KEYS[0], hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def site(**options: Any) -> Settings:
    """The settings of a host with one site in order but for these options."""
    return {"nginx_sites": [{"name": "a.test", "certificate": {"source": "selfsigned"}, "root": "/srv/a", **options}]}


def files(days: tuple[int, int] = (-1, 30), key: int = 0, name: str = "a.test") -> Settings:
    return {"source": "files", "chain": chain(name, days), "key": pem_of(KEYS[key])}


def guarded(password: str) -> Settings:
    return site(locations=[{"path": "/inner/", "users": {"operator": password}}])


def policy(**directives: list[str]) -> Settings:
    return site(csp={"policy": {name.replace("_", "-"): sources for name, sources in directives.items()}})


# For each way to be wrong: the settings of a host, and what is said of them: setting, value, and a word of the reason.
CASES: Mapping[str, tuple[Settings, list[tuple[str, str, str]]]] = {
    "misspelt-role-setting": (
        {"nginx_sits": []},
        [("nginx_sits", "given", "nothing reads a setting of this name")],
    ),
    "misspelt-in-a-site": (
        site(alias=["b.test"]),
        [("nginx_sites[0].alias", "given", "nothing reads a setting of this name")],
    ),
    "misspelt-deep-in-a-site": (
        site(root=None, upstream={"servers": ["127.0.0.1:1"], "web_socket": True}),
        [("nginx_sites[0].upstream.web_socket", "true", "nothing reads a setting of this name")],
    ),
    "misspelt-in-a-group": (
        {"nginx_hsts": {"maxage": 1}},
        [("nginx_hsts.maxage", "1", "nothing reads a setting of this name")],
    ),
    "wrong-shape": (
        {"nginx_sites": "a.test"},
        [("nginx_sites", '"a.test"', "a list is needed")],
    ),
    "wrong-type": (
        {"nginx_https_port": "https"},
        [("nginx_https_port", '"https"', "a whole number is needed")],
    ),
    "not-a-choice": (
        {"nginx_tls_profile": "old"},
        [("nginx_tls_profile", '"old"', "it is none of the choices")],
    ),
    "nothing-to-serve": (
        site(root=None),
        [("nginx_sites[0]", "a site with no source", "one thing")],
    ),
    "csp-unsafe-inline": (
        policy(script_src=["'self'", "'unsafe-inline'"]),
        [("nginx_sites[0].csp.policy.script-src[1]", "\"'unsafe-inline'\"", "every script an attacker can inject")],
    ),
    "csp-any-host": (
        policy(script_src=["*"]),
        [("nginx_sites[0].csp.policy.script-src[0]", '"*"', "it allows every host there is")],
    ),
    "csp-unknown-directive": (
        policy(scripts_src=["'self'"]),
        [("nginx_sites[0].csp.policy.scripts-src", "[\"'self'\"]", "no such directive")],
    ),
    "csp-for-all-sites": (
        {"nginx_csp": {"default-src": ["'none'"], "base-uri": ["'none'"], "form-action": ["'self'"]}, **site()},
        [("nginx_sites[0].csp.policy.frame-ancestors", "missing", "every site may frame this one")],
    ),
    "two-sites-with-one-name": (
        {"nginx_sites": site()["nginx_sites"] * 2},
        [("nginx_sites[1].name", '"a.test"', "nginx_sites[0].name has the same name")],
    ),
    "an-alias-that-is-a-site": (
        {"nginx_sites": [*site(aliases=["b.test"])["nginx_sites"], *site(name="b.test")["nginx_sites"]]},
        [("nginx_sites[1].name", '"b.test"', "nginx_sites[0].aliases[0] has the same name")],
    ),
    "key-of-another-certificate": (
        site(certificate=files(key=1)),
        [("nginx_sites[0].certificate.key", "a secret of", "it does not belong to the certificate")],
    ),
    "certificate-that-has-expired": (
        site(certificate=files(days=(-30, -1))),
        [("nginx_sites[0].certificate.chain", '"CN=a.test"', "it has expired on")],
    ),
    "certificate-of-another-name": (
        site(certificate=files(name="b.test")),
        [("nginx_sites[0].certificate.chain", '"CN=b.test"', "not for a.test")],
    ),
    "name-that-no-authority-certifies": (
        site(certificate={"source": "acme"}),
        [("nginx_sites[0].certificate.source", '"acme"', "no public authority certifies a.test")],
    ),
    "ports-that-collide": (
        {"nginx_https_port": 8081, **site()},
        [("nginx_status_port", "8081", "nginx_https_port listens there too")],
    ),
    "port-that-is-none": (
        {"nginx_http_port": 80800},
        [("nginx_http_port", "80800", "ports go from 1 to 65535")],
    ),
    "size-that-means-nothing": (
        site(body_size="10 MB"),
        [("nginx_sites[0].body_size", '"10 MB"', "it is no size that nginx knows")],
    ),
    "duration-that-means-nothing": (
        {"nginx_client_timeout": "half a minute"},
        [("nginx_client_timeout", '"half a minute"', "nginx knows no such time to wait")],
    ),
    "rate-that-means-nothing": (
        site(rate="10 per second"),
        [("nginx_sites[0].rate", '"10 per second"', "it is no rate that nginx knows")],
    ),
    "secret-that-is-a-placeholder": (
        guarded("change-me-please-canary"),
        [("nginx_sites[0].locations[0].users.operator", "a secret of 23 characters", "it is a placeholder")],
    ),
    "secret-that-is-too-short": (
        guarded("canary-q8Z"),
        [("nginx_sites[0].locations[0].users.operator", "a secret of 10 characters", "can be guessed")],
    ),
    "template-that-does-not-render": (
        site(root="/srv/{{ no_such_variable }}"),
        [("nginx_sites", "a template", "no_such_variable")],
    ),
    "lookup-of-a-file-that-is-missing": (
        site(certificate={"source": "files", "chain": "{{ lookup('ansible.builtin.file', '/no/such/file') }}"}),
        [("nginx_sites", "a template", "/no/such/file")],
    ),
    "several-at-once": (
        {"nginx_http_port": 0, "nginx_keepalive_timeout": "soon", "nginx_sits": [], **site(body_size="large")},
        [
            ("nginx_http_port", "0", "ports go from 1 to 65535"),
            ("nginx_keepalive_timeout", '"soon"', "it is no duration that nginx knows"),
            ("nginx_sits", "given", "nothing reads a setting of this name"),
            ("nginx_sites[0].body_size", '"large"', "it is no size that nginx knows"),
        ],
    ),
    "in-order": (site(certificate=files()), []),
}


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """preflight over an inventory with a host for each case, none of which can be reached."""
    folder = tmp_path_factory.mktemp("inventory")
    return run_playbook("fushuma.production.preflight", "--inventory", unreachable(folder, CASES))


def unreachable(folder: Path, cases: Mapping[str, tuple[Settings, object]]) -> str:
    """The path of an inventory whose hosts nobody has; whoever tries to connect all the same leaves a file."""
    (folder / "ssh").write_text(f"#!/bin/sh\ntouch {folder}/connected\nexit 255\n")
    (folder / "ssh").chmod(0o755)
    hosts = {name: {"ansible_host": NOWHERE, **settings} for name, (settings, _problems) in cases.items()}
    document = {"edge": {"hosts": hosts, "vars": {"ansible_ssh_executable": f"{folder}/ssh"}}}
    (folder / "hosts.yml").write_text(yaml.safe_dump(document))
    return str(folder / "hosts.yml")


def sentences(played: Played) -> list[str]:
    """All that the tasks that have judged found wrong."""
    return [one for results in played.results.values() for result in results for one in result.get("problems", [])]


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_work_is_named_with_its_host_and_value(judged: Played, case: str) -> None:
    said = [SENTENCE.fullmatch(one) for one in sentences(judged)]
    assert all(said), sentences(judged)
    mine = sorted((one["setting"], one["value"], one["why"]) for one in said if one and one["host"] == case)
    wanted = sorted(CASES[case][1])
    assert len(mine) == len(wanted), mine
    for (setting, value, why), (wanted_setting, wanted_value, reason) in zip(mine, wanted, strict=True):
        assert setting == wanted_setting
        assert value.startswith(wanted_value)
        assert reason in why


def test_all_of_it_is_in_one_message(judged: Played) -> None:
    assert judged.code != 0
    ((result,),) = judged.results.values()
    count = len(sentences(judged))
    assert result["msg"].splitlines() == [
        f"{count} settings cannot work; nothing was touched.",
        *"\n".join(sentences(judged)).splitlines(),
    ]
    assert "unreachable=1" not in judged.output


def test_nobody_is_contacted(tmp_path: Path) -> None:
    """Neither where something is wrong nor where all is in order; site.yml shows that a contact would be seen."""
    for cases, code in (({"a": CASES["several-at-once"]}, 2), ({"b": CASES["in-order"]}, 0)):
        played = run_playbook("fushuma.production.preflight", "--inventory", unreachable(tmp_path, cases))
        assert played.code == code, played.output
        assert not (tmp_path / "connected").exists()
    run_playbook(PLAYBOOKS / "site.yml", "--inventory", unreachable(tmp_path, {"b": CASES["in-order"]}))
    assert (tmp_path / "connected").exists()


def test_a_group_whose_name_is_misspelt_is_refused(tmp_path: Path) -> None:
    """Its hosts would be hardened, and serve nothing."""
    hosts = {"all": {"children": {"egde": {"hosts": {"lonely": {"ansible_host": NOWHERE}}}}}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(hosts))
    played = run_playbook(PLAYBOOKS / "preflight.yml", "--inventory", str(tmp_path / "hosts.yml"))
    assert played.code != 0
    assert "a group egde that no play is for, and no host in edge. Write edge." in " ".join(played.output.split())


def state(host: Host) -> str:
    """Every file of a host that a role could touch, with size, owner, mode and times; its packages and its units."""
    listed = host.check_output(
        f"find {PLACES} -xdev -not -path '*/systemd/*' -printf '%p %s %u %m %T@ %C@\\n' 2>/dev/null; true"
    )
    packages = host.check_output("dpkg-query --show")
    units = host.check_output("systemctl list-units --plain --no-legend --type=service,socket,timer | cut -d' ' -f1")
    return "\n".join([*sorted(listed.splitlines()), packages, *sorted(units.splitlines())])


HOW = {
    "site": "site.yml",
    "role": [{"hosts": "edge", "become": True, "roles": ["fushuma.production.nginx"]}],
}


@pytest.mark.parametrize("how", HOW)
def test_hosts_that_can_be_reached_are_not_touched(tmp_path: Path, how: str) -> None:
    """By site.yml, which judges first, and by the role alone, which refuses its own settings."""
    hosts = all_hosts()
    wrong = [CASES["csp-unsafe-inline"], CASES["misspelt-role-setting"]]
    groups = {"edge": {"hosts": {name: settings for name, (settings, _said) in zip(hosts, wrong, strict=True)}}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(groups))
    playbook = PLAYBOOKS / "site.yml"
    if how == "role":
        playbook = tmp_path / "role.yml"
        playbook.write_text(yaml.safe_dump(HOW[how]))
    before = {name: state(host) for name, host in hosts.items()}
    played = run_playbook(playbook, "--inventory", inventory(), "--inventory", str(tmp_path / "hosts.yml"))
    assert played.code != 0
    for name, (_settings, ((setting, value, _why),)) in zip(hosts, wrong, strict=True):
        assert [one for one in sentences(played) if one.startswith(f"{name}: {setting} is {value}: ")]
    assert {name: state(host) for name, host in hosts.items()} == before


def test_a_touch_would_have_been_seen(host: Host) -> None:
    before = state(host)
    host.check_output("touch /etc/touched")
    assert state(host) != before
    host.check_output("rm /etc/touched")
    assert not host.package("nginx").is_installed
