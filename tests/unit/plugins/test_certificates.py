# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Placeholders made by the real openssl, and certificates fetched by a certbot that only plays its part."""

from __future__ import annotations

import datetime
import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.module_utils import packages
from ansible_collections.fushuma.production.plugins.modules import acme_certificates, self_signed_certificates
from cryptography import x509

from .certificates import Pair, made
from .conftest import Host
from .modules import run_module

Run = Callable[..., dict[str, Any]]
NAME = "www.fushuma.com"
DIRECTORY = "https://authority.example/directory"


@pytest.fixture(autouse=True)
def same_umask() -> Any:
    """The module has a process of its own on a host; here its umask must not stay."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def put(folder: Path, pair: Pair) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "chain.pem").write_text(pair.chain, "utf-8")
    (folder / "key.pem").write_text(pair.key, "utf-8")


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- self-signed ------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "certificates" / NAME


@pytest.fixture
def placeholder(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the module for one certificate; keywords are its options, and the module's ``days`` and ``check``."""

    def run(check: bool = False, days: int = 365, **options: Any) -> dict[str, Any]:
        wanted = {"name": NAME, "names": [NAME, "fushuma.com"], "folder": str(folder), **options}
        return run_module(self_signed_certificates.main, capsys, check=check, certificates=[wanted], days=days)

    return run


def test_a_certificate_is_made_once(placeholder: Run, folder: Path) -> None:
    first = placeholder()
    assert (first["changed"], first["made"]) == (True, [NAME])
    assert first["diff"] == [
        {"before": "", "after": f"{NAME}, fushuma.com\n", "after_header": str(folder / "chain.pem")}
    ]
    before = tree(folder)
    again = placeholder()
    assert (again["changed"], again["made"], again["diff"]) == (False, [], [])
    assert tree(folder) == before
    assert sorted(before) == ["chain.pem", "key.pem"], "nothing else is left in the folder"


def test_the_folders_are_open_to_the_server_whatever_the_umask(placeholder: Run, folder: Path) -> None:
    """The server's package has yet to come, and leaves folders as it finds them."""
    os.umask(0o077)
    placeholder()
    for made_for_it in (folder, folder.parent):
        assert made_for_it.stat().st_mode & 0o777 == 0o755
    assert (folder / "key.pem").stat().st_mode & 0o777 == 0o600


def test_openssl_is_installed_where_it_is_missing(
    placeholder: Run, folder: Path, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed: list[str] = []
    monkeypatch.setattr(packages, "missing", list)
    monkeypatch.setattr(packages, "install", installed.extend)
    placeholder(check=True)
    assert installed == []
    placeholder()
    placeholder()
    assert installed == ["openssl"], "it is not looked for where nothing has to be made"


def test_what_is_made_is_what_a_server_needs(placeholder: Run, folder: Path) -> None:
    placeholder(days=30)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(folder / "chain.pem", folder / "key.pem")
    certificate = x509.load_pem_x509_certificate((folder / "chain.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [NAME, "fushuma.com"]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc == datetime.timedelta(days=30)
    assert [(folder / name).stat().st_mode & 0o777 for name in ("key.pem", "chain.pem")] == [0o600, 0o644]


def test_check_mode_makes_nothing(placeholder: Run, folder: Path) -> None:
    assert placeholder(check=True)["made"] == [NAME]
    assert not folder.exists()


def test_a_name_too_long_for_a_subject_is_served_all_the_same(placeholder: Run, folder: Path) -> None:
    name = f"{'a' * 63}.fushuma.com"
    placeholder(name=name, names=[name])
    assert not placeholder(name=name, names=[name])["changed"]


@pytest.mark.parametrize("lost", ["chain.pem", "key.pem"])
def test_a_pair_of_which_one_is_lost_is_made_anew(placeholder: Run, folder: Path, lost: str) -> None:
    placeholder()
    (folder / lost).unlink()
    assert placeholder()["changed"]
    assert not placeholder()["changed"]


def test_a_pair_that_does_not_belong_together_is_made_anew(placeholder: Run, folder: Path) -> None:
    """As a hook of certbot leaves it that is killed between the two; the placeholder keeps nginx going."""
    put(folder, made([NAME]))
    (folder / "key.pem").write_text(made([NAME]).key, "utf-8")
    assert placeholder(acme=True)["changed"]
    assert not placeholder(acme=True)["changed"]


def test_other_names_make_a_new_one(placeholder: Run) -> None:
    placeholder()
    assert placeholder(names=[NAME])["made"] == [NAME]
    assert not placeholder(names=[NAME])["changed"]


def test_a_third_of_the_lifetime_is_left_when_it_is_renewed(placeholder: Run) -> None:
    placeholder(days=30)
    assert not placeholder(days=80)["changed"]
    assert placeholder(days=100)["changed"]


def test_a_certificate_of_others_stays_only_where_an_authority_is_to_certify(placeholder: Run, folder: Path) -> None:
    put(folder, made(["other.example"]))
    before = tree(folder)
    assert not placeholder(acme=True)["changed"]
    assert tree(folder) == before
    assert placeholder(acme=False)["changed"]
    assert not placeholder(acme=False)["changed"]


def test_what_openssl_refuses_is_said(placeholder: Run, folder: Path, host: Host) -> None:
    host.program("openssl", "echo no entropy today; exit 1")
    result = placeholder()
    assert result["failed"]
    assert "no entropy today" in result["msg"]
    assert not (folder / "chain.pem").exists()


# --- ACME -------------------------------------------------------------------------------------------------------------

# Plays certbot: keeps what lies in `ready`, and runs the hook; like certbot, it does not fail where the hook does.
CERTBOT = """
echo "$@" >> {log}
echo "${{REQUESTS_CA_BUNDLE:-}}" > {bundle}
[ -e {ready} ] || {{ echo "The server could not be reached"; exit 1; }}
while [ $# -gt 0 ]; do
    case $1 in --cert-name) name=$2 ;; --server) server=$2 ;; --config-dir) config=$2 ;; --deploy-hook) hook=$2 ;; esac
    shift
done
mkdir -p $config/live/$name $config/renewal
cp {ready}/chain.pem $config/live/$name/fullchain.pem
cp {ready}/chain.pem $config/live/$name/cert.pem
cp {ready}/key.pem $config/live/$name/privkey.pem
printf '[renewalparams]\\nserver = %s\\n' $server > $config/renewal/$name.conf
RENEWED_LINEAGE=$config/live/$name $hook || true
"""
HOOK = """
[ ! -e {broken} ] || {{ echo nginx does not take it; exit 1; }}
mkdir -p {served}/${{RENEWED_LINEAGE##*/}}
cp $RENEWED_LINEAGE/fullchain.pem {served}/${{RENEWED_LINEAGE##*/}}/chain.pem
cp $RENEWED_LINEAGE/privkey.pem {served}/${{RENEWED_LINEAGE##*/}}/key.pem
echo "deployed ${{RENEWED_LINEAGE##*/}}" >> {log}
"""


class Authority:
    """A certbot and a hook that play their parts, and the module that has them work."""

    def __init__(self, host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.config, self.ready, self.served = (tmp_path / name for name in ("letsencrypt", "ready", "served"))
        self.bundle, self.broken, self._log = (tmp_path / name for name in ("bundle", "broken", "certbot.log"))
        self._capsys = capsys
        places = {"ready": self.ready, "served": self.served, "log": self._log}
        host.program("certbot", CERTBOT.format(bundle=self.bundle, **places))
        (self.hook,) = host.program("hook", HOOK.format(broken=self.broken, **places))

    def certifies(self, *names: str) -> None:
        put(self.ready, made(names))

    def run(self, *wanted: dict[str, Any], check: bool = False, **options: Any) -> dict[str, Any]:
        certificates = wanted or (self.wanted(NAME),)
        arguments = {"directory": DIRECTORY, "webroot": "/var/www/acme", "config": str(self.config), **options}
        return run_module(
            acme_certificates.main,
            self._capsys,
            check=check,
            certificates=list(certificates),
            deploy_hook=self.hook,
            **arguments,
        )

    def wanted(self, name: str, *aliases: str) -> dict[str, Any]:
        return {"name": name, "names": [name, *aliases], "folder": str(self.served / name)}

    def said(self) -> list[str]:
        """What certbot was asked for and what was deployed, since the last question."""
        lines = self._log.read_text("utf-8").splitlines() if self._log.exists() else []
        self._log.unlink(missing_ok=True)
        return lines


@pytest.fixture
def authority(
    host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Authority:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "")
    found = Authority(host, tmp_path, capsys)
    found.certifies(NAME)
    return found


def test_a_certificate_is_fetched_once(authority: Authority) -> None:
    first = authority.run()
    assert (first["changed"], first["fetched"], first["deployed"]) == (True, [NAME], [])
    assert first["diff"] == [{"before": "", "after": f"{NAME}\n", "after_header": NAME}]
    request, deployed = authority.said()
    assert deployed == f"deployed {NAME}"
    for words in (
        "certonly --non-interactive --agree-tos",
        "--webroot --webroot-path /var/www/acme",
        f"--server {DIRECTORY}",
        f"--cert-name {NAME}",
        "--register-unsafely-without-email",
        f"--domain {NAME}",
    ):
        assert words in request
    again = authority.run()
    assert (again["changed"], again["fetched"], again["deployed"], again["diff"]) == (False, [], [], [])
    assert authority.said() == []


def test_the_address_and_the_bundle_reach_certbot(authority: Authority) -> None:
    authority.run(email="ops@fushuma.com", ca_bundle="/etc/authority.pem")
    assert "--email ops@fushuma.com" in authority.said()[0]
    assert authority.bundle.read_text() == "/etc/authority.pem\n"


def test_nobody_is_asked_in_check_mode(authority: Authority) -> None:
    result = authority.run(check=True)
    assert (result["changed"], result["fetched"]) == (True, [NAME])
    assert authority.said() == []


def test_other_names_and_another_authority_mean_another_certificate(authority: Authority) -> None:
    authority.run()
    more = authority.wanted(NAME, "fushuma.com")
    authority.certifies(NAME, "fushuma.com")
    assert authority.run(more)["fetched"] == [NAME]
    assert authority.run(more)["fetched"] == []
    assert authority.run(more, directory="https://other.example/")["fetched"] == [NAME]


def test_settings_of_certbot_without_an_authority_count_as_no_certificate(authority: Authority) -> None:
    authority.run()
    (authority.config / "renewal" / f"{NAME}.conf").write_text("[renewalparams]\n", "utf-8")
    assert authority.run()["fetched"] == [NAME]


def test_certbots_words_are_passed_on_and_the_others_are_fetched(authority: Authority) -> None:
    """The first certificate is there, so only the second has to be fetched."""
    authority.run()
    before = tree(authority.served)
    authority.ready.rename(authority.ready.with_name("away"))
    result = authority.run(authority.wanted(NAME), authority.wanted("second.example"))
    assert result["failed"]
    assert "second.example: The server could not be reached" in result["msg"]
    assert (result["fetched"], result["changed"]) == ([], False)
    assert tree(authority.served) == before


def test_what_certbot_keeps_and_nobody_serves_is_brought_into_force(authority: Authority) -> None:
    authority.run()
    authority.said()
    (authority.served / NAME / "key.pem").unlink()
    planned = authority.run(check=True)
    assert (planned["changed"], planned["deployed"], authority.said()) == (True, [NAME], [])
    result = authority.run()
    assert (result["changed"], result["fetched"], result["deployed"]) == (True, [], [NAME])
    assert result["diff"] == [{"prepared": f"{NAME}: brought into force\n"}]
    assert authority.said() == [f"deployed {NAME}"], "the authority is left alone"
    assert not authority.run()["changed"]


def test_a_hook_that_fails_fails_the_run_and_is_run_again_by_the_next(authority: Authority) -> None:
    authority.broken.touch()
    result = authority.run()
    assert result["failed"]
    assert "nginx does not take it" in result["msg"]
    authority.broken.unlink()
    authority.said()
    assert authority.run()["deployed"] == [NAME]
    assert authority.said() == [f"deployed {NAME}"]


def test_a_lost_lineage_is_no_certificate_in_force(authority: Authority) -> None:
    authority.run()
    (authority.config / "live" / NAME / "privkey.pem").unlink()
    assert authority.run(check=True)["deployed"] == [NAME]
