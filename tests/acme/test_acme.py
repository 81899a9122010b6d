# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Certificates really issued: Debian's pebble (an ACME test server) -> certbot -> nginx, which is never down."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from hosts_support import RELEASES, Client, Edge, certificate_of, disagreements, free_port, on_each, wait_for

SHOP, BLOG = "shop.example", "blog.example"
AUTHORITY = "/etc/pebble"
DIRECTORY = "https://authority.example:14000/dir"
PEBBLE = {
    "pebble": {
        "listenAddress": "127.0.0.1:14000",
        "managementListenAddress": "127.0.0.1:15000",
        "certificate": f"{AUTHORITY}/server.pem",
        "privateKey": f"{AUTHORITY}/server.key",
        "httpPort": 80,
        "tlsPort": 443,
        "ocspResponderURL": "",
        "externalAccountBindingRequired": False,
        "retryAfter": {"authz": 1, "order": 1},
        "certificateValidityPeriod": 90 * 86400,
    }
}
# Half of a certificate's life: not what certbot would do by itself (30 days, or a third, before the end).
RENEW_AT = 0.5
HOURS = (90 * 86400 - 1) // 2 // 3600  # a certificate's last second is part of its life (RFC 5280 §4.1.2.5)

# The authority's own server has a certificate of a private authority, which certbot has to be told of.
PREPARE = f"""
set -eu
mkdir -p {AUTHORITY} && cd {AUTHORITY}
new() {{ openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 "$@" 2>/dev/null; }}
new -keyout ca.key -out ca.pem -subj "/CN=Private authority" -addext keyUsage=critical,keyCertSign
new -CA ca.pem -CAkey ca.key -keyout server.key -out server.pem -subj /CN=authority.example \
    -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:authority.example
echo "127.0.0.1 authority.example {SHOP} www.{SHOP} {BLOG}" >> /etc/hosts
"""
# It rejects some good nonces unless told not to, to try how clients take it; certbot gives up when it meets two.
START = f"""
systemd-run --quiet --unit=pebble --setenv=PEBBLE_VA_NOSLEEP=1 --setenv=PEBBLE_WFE_NONCEREJECT=0 \
    /usr/bin/pebble -config {AUTHORITY}/pebble.json
"""
# What the timer of certbot starts, on another day.
ON_DAY = """
set -eu
mkdir -p /run/systemd/system/certbot.service.d
cat > /run/systemd/system/certbot.service.d/another-day.conf <<END
[Service]
Environment=LD_PRELOAD=$(ls /usr/lib/*/faketime/libfaketime.so.1) FAKETIME=+{days}d
END
systemctl daemon-reload
systemctl start certbot.service || {{ tail -n 50 /var/log/letsencrypt/letsencrypt.log; exit 1; }}
"""


def settings(*sites: dict[str, Any]) -> dict[str, Any]:
    acme = {"directory": DIRECTORY, "ca_bundle": f"{AUTHORITY}/ca.pem", "renew_at": RENEW_AT}
    return {"nginx_sites": list(sites), "nginx_acme": acme}


def site(name: str, content: Path, *aliases: str) -> dict[str, Any]:
    return {"name": name, "aliases": list(aliases), "content": str(content)}


class Served:
    """The certificate with which a site answers."""

    def __init__(self, edge: Edge, name: str) -> None:
        self.certificate = x509.load_der_x509_certificate(certificate_of(edge.port, name))

    @property
    def issuer(self) -> str:
        return self.certificate.issuer.rfc4514_string()

    @property
    def serial(self) -> int:
        return self.certificate.serial_number

    @property
    def names(self) -> Sequence[str]:
        extension = self.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        return sorted(extension.value.get_values_for_type(x509.DNSName))


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("content")
    (folder / "index.html").write_text("<!doctype html><title>ACME</title>", "utf-8")
    return folder


@pytest.fixture(scope="module")
def edges(boot: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> list[Edge]:
    """Bare hosts, each with an authority that has not started yet."""
    folder = tmp_path_factory.mktemp("acme")
    return [Edge(boot(f"acme{release}", release, publish={free_port(): 443}), folder) for release in RELEASES]


def prepare(edge: Edge) -> None:
    edge.host.install("pebble", "libfaketime", "openssl")
    edge.host.sh(PREPARE)
    edge.host.write(f"{AUTHORITY}/pebble.json", json.dumps(PEBBLE))


def served_instead_of(serial: int, edge: Edge, name: str) -> int:
    """The serial of the certificate that follows; nginx reloads a moment after it was told to."""
    wait_for(lambda: Served(edge, name).serial != serial, f"another certificate for {name}")
    return Served(edge, name).serial


def unchanged(edge: Edge, wanted: dict[str, Any], *, check: bool = False) -> None:
    again = edge.play(wanted, check=check, diff=True).ok()
    assert again.changed == 0, again.output


def life_of_a_certificate(edge: Edge, content: Path) -> str:
    """Everything that happens to a host's certificates, in order; returns what the client that asked meanwhile saw."""
    prepare(edge)
    shop = settings(site(SHOP, content))

    # The authority is down when the host is set up: the run says so in certbot's words, and the site is served.
    failed = edge.play(shop)
    assert failed.failed
    assert "its site goes on with the one it has" in failed.output
    assert "Connection refused" in failed.output
    assert "placeholder" in Served(edge, SHOP).issuer

    with Client(edge.port, SHOP, accept=lambda body: "<title>ACME</title>" in body) as client:
        edge.host.sh(START)
        wait_for(
            lambda: edge.host.run(["sh", "-c", "ss -Hltn sport = 14000 | grep -q ."], check=False).code == 0, "pebble"
        )

        # The next run fetches what is missing.
        assert edge.play(shop).ok().changed == 1
        first = Served(edge, SHOP)
        assert "Pebble" in first.issuer
        assert first.names == [SHOP]
        unchanged(edge, shop)
        unchanged(edge, shop, check=True)

        # A new site gets its certificate in the run that brings it; a new name of an old site makes a new certificate.
        both = settings(site(SHOP, content, f"www.{SHOP}"), site(BLOG, content))
        edge.play(both).ok()
        assert (Served(edge, SHOP).names, Served(edge, BLOG).names) == ([SHOP, f"www.{SHOP}"], [BLOG])
        assert "Pebble" in Served(edge, BLOG).issuer
        unchanged(edge, both)

        # Renewed by hand.
        before = Served(edge, SHOP).serial
        edge.host.sh(f"REQUESTS_CA_BUNDLE={AUTHORITY}/ca.pem certbot renew --force-renewal --no-random-sleep-on-renew")
        by_hand = served_instead_of(before, edge, SHOP)
        unchanged(edge, both)

        # Renewed by certbot's own timer when the part of the lifetime has passed, and not before.
        assert edge.host.sh("systemctl is-enabled certbot.timer").strip() == "enabled"
        for name in (SHOP, BLOG):
            assert f"renew_before_expiry = {HOURS} hours\n" in edge.host.read(f"/etc/letsencrypt/renewal/{name}.conf")
        edge.host.sh(ON_DAY.format(days=44))
        assert Served(edge, SHOP).serial == by_hand
        edge.host.sh(ON_DAY.format(days=46))
        by_timer = served_instead_of(by_hand, edge, SHOP)
        unchanged(edge, both)

        # Renewed while somebody has broken the configuration: the former certificate stays in force, the next run
        # mends the configuration and brings the one that waits into force.
        edge.host.write("/etc/nginx/sites/broken.conf", "no such directive;\n")
        edge.host.sh(
            f"REQUESTS_CA_BUNDLE={AUTHORITY}/ca.pem certbot renew --force-renewal --no-random-sleep-on-renew",
            check=False,
        )
        assert Served(edge, SHOP).serial == by_timer
        edge.play(both).ok()
        waited = served_instead_of(by_timer, edge, SHOP)
        unchanged(edge, both)

        # Killed between key and certificate, which no nginx could start with.
        edge.host.sh(f"cp /etc/nginx/certificates/{BLOG}/key.pem /etc/nginx/certificates/{SHOP}/key.pem")
        assert edge.host.run(["nginx", "-t", "-q"], check=False).code != 0
        edge.play(both).ok()
        edge.host.run(["nginx", "-t", "-q"])
        assert Served(edge, SHOP).serial == waited
        unchanged(edge, both)

    assert client.failures == []
    assert disagreements(edge.host) == []
    return f"{edge.host.name}: {client.requests} requests, 0 failed"


def test_a_certificate_from_bootstrap_to_renewal(
    edges: list[Edge], content: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = on_each(edges, lambda edge: life_of_a_certificate(edge, content))
    with capsys.disabled():
        print("", *report, sep="\n")
