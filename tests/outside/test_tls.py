# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What TLS offers, judged by testssl.sh and asked of OpenSSL. Both run in the host of Debian 13, whose OpenSSL and
testssl.sh know the newest key exchange, against the hosts of both releases."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import pytest
from hosts_support import Host

SCAN_SECONDS = 480
SCANS = 3
HARMLESS = ("OK", "INFO", "LOW", "DEBUG")

# What a certificate brings that no authority has signed; one of an authority brings none of it.
OF_SELF_SIGNED = {
    "cert_chain_of_trust": "nobody vouches for it",
    "cert_revocation": "nobody could revoke it, so it names neither CRL nor OCSP",
    "overall_grade": "T, for trust, whatever else was found: see grade_cap_reason_1, which the test reads",
}
# What testssl.sh says of the machine it runs on.
OF_SCANNER = {"engine_problem": "the scanner's OpenSSL has no GOST engine"}

Findings = list[dict[str, str]]


@pytest.fixture(scope="module")
def scanner(hosts: Mapping[str, Host]) -> Host:
    """The host that scans itself and the other one."""
    one = hosts["13"]
    one.install("testssl.sh", "openssl")
    return one


@pytest.fixture(scope="module")
def findings(hosts: Mapping[str, Host], scanner: Host) -> Mapping[str, Findings]:
    """All that testssl.sh finds, by release; both scans at the same time."""
    alone = Lock()

    def scan(release: str) -> Findings:
        """Again, and with less beside it, where the machine was too busy for one of its tests, which WARN means."""
        found = one_scan(release)
        for _time in range(SCANS - 1):
            if any(unsure(one) for one in found):
                with alone:
                    found = one_scan(release)
        return found

    def one_scan(release: str) -> Findings:
        file = f"/root/testssl-{release}.json"
        command = ["timeout", str(SCAN_SECONDS), "testssl", "--quiet", "--color", "0", "--warnings", "batch"]
        command += ["--nodns", "none", "--overwrite", "--jsonfile", file, "--ip", hosts[release].record.address]
        # Its exit code counts findings; whether it came to its end is seen in what it wrote (see below).
        done = scanner.run([*command, "https://localhost/"], check=False)
        found: Findings = json.loads(scanner.read(file))
        assert any(one["id"] == "scanTime" for one in found), f"the scan did not end:\n{done.output}"
        return found

    with ThreadPoolExecutor() as pool:
        return dict(zip(hosts, pool.map(scan, hosts), strict=True))


def unsure(finding: Mapping[str, str]) -> bool:
    """Whether testssl.sh could not tell."""
    return finding["severity"] == "WARN" and finding["id"] not in OF_SCANNER


@pytest.mark.parametrize("release", ["12", "13"])
def test_testssl_has_nothing_above_low_but_what_a_self_signed_chain_brings(
    release: str, findings: Mapping[str, Findings]
) -> None:
    above = [one for one in findings[release] if one["severity"] not in HARMLESS]
    left = [one for one in above if one["id"] not in {**OF_SELF_SIGNED, **OF_SCANNER}]
    assert left == []
    # The grade is capped by the chain alone.
    reasons = [one["finding"] for one in findings[release] if one["id"].startswith("grade_cap_reason")]
    assert reasons == ["Grade capped to T. Issues with the chain of trust (self signed)"]


@pytest.mark.parametrize("release", ["12", "13"])
def test_testssl_has_looked_at_what_counts(release: str, findings: Mapping[str, Findings]) -> None:
    found = {one["id"]: one["finding"] for one in findings[release]}
    assert {name: found[name].split(" (")[0] for name in ("SSLv2", "SSLv3", "TLS1", "TLS1_1")} == dict.fromkeys(
        ("SSLv2", "SSLv3", "TLS1", "TLS1_1"), "not offered"
    )
    assert {found[name] for name in ("TLS1_2", "TLS1_3")} <= {"offered", "offered with final"}
    assert {"heartbleed", "ROBOT", "BREACH", "LOGJAM", "HSTS_time", "FS"} <= set(found)


def s_client(scanner: Host, target: Host, *options: str, name: str = "localhost") -> str:
    """What OpenSSL says of a connection."""
    words = ["openssl", "s_client", "-connect", f"{target.record.address}:443", *options]
    words += ["-servername", name] if name else ["-noservername"]
    return scanner.sh(f"timeout 20 {shlex.join(words)} </dev/null 2>&1", check=False)


def connected(said: str) -> bool:
    """Whether a handshake came to its end."""
    return "New, TLSv1." in said


def test_a_key_exchange_that_quantum_computers_do_not_break(host: Host, scanner: Host) -> None:
    said = s_client(scanner, host)
    wanted = {"12": "Peer Temp Key: X25519", "13": "Negotiated TLS1.3 group: X25519MLKEM768"}
    assert wanted[host.record.release] in said
    assert "New, TLSv1.3" in said


def test_http2_is_agreed_on(host: Host, scanner: Host) -> None:
    assert "ALPN protocol: h2\n" in s_client(scanner, host, "-alpn", "h2,http/1.1")
    assert "ALPN protocol: http/1.1\n" in s_client(scanner, host, "-alpn", "http/1.1")


@pytest.mark.parametrize(
    ("version", "accepted"), {"tls1": False, "tls1_1": False, "tls1_2": True, "tls1_3": True}.items()
)
def test_versions(version: str, accepted: bool, host: Host, scanner: Host) -> None:
    # At its usual security level the client itself would refuse the old ones.
    said = s_client(scanner, host, f"-{version}", *(() if accepted else ("-cipher", "ALL:@SECLEVEL=0")))
    assert connected(said) is accepted, said
    assert accepted or "alert protocol version" in said


@pytest.mark.parametrize("name", ["unknown.test", ""], ids=["unknown", "none"])
def test_a_name_that_no_site_has_gets_no_handshake(name: str, host: Host, scanner: Host) -> None:
    said = s_client(scanner, host, name=name)
    assert not connected(said)
    assert "unrecognized name" in said
    assert "BEGIN CERTIFICATE" not in said


def test_each_site_has_a_certificate_of_its_own(host: Host, scanner: Host) -> None:
    for name, names in {"files.test": {"files.test", "www.files.test"}, "localhost": {"localhost"}}.items():
        said = s_client(scanner, host, name=name)
        certificate = said[said.index("-----BEGIN") : said.index("-----END")] + "-----END CERTIFICATE-----"
        shown = scanner.sh(f"echo {shlex.quote(certificate)} | openssl x509 -noout -ext subjectAltName")
        assert {entry.strip().removeprefix("DNS:") for entry in shown.splitlines()[1].split(",")} == names
