# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What MDN's HTTP Observatory and Google's CSP Evaluator say of the demo site as it is served.

The Observatory that npm has (1.4.8) scores by algorithm 4. The one behind MDN's site (1.6.3, algorithm 6) has two tests
more, of Cross-Origin-Opener-Policy and Cross-Origin-Embedder-Policy, with 10 points each; it is on GitHub alone, wants
Node.js 22 and takes no name without a dot. Its two tests are therefore stated here.
"""

from __future__ import annotations

import json
import os
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hosts_support import Host, certificate_of
from outside.wire import ask, request
from programs_support import npm_installed

HERE = Path(__file__).resolve().parent
EVALUATOR = HERE.parent / "csp_evaluator"
SITE = "localhost"
LEAST = 140

# The best a site can have that sets no cookie and is in no browser's list of HSTS hosts: 5 points more for each.
BEST = {
    "content-security-policy": 10,
    "cookies": 0,
    "cross-origin-resource-policy": 10,
    "cross-origin-resource-sharing": 0,
    "redirection": 0,
    "referrer-policy": 5,
    "strict-transport-security": 0,
    "subresource-integrity": 5,
    "x-content-type-options": 0,
    "x-frame-options": 5,
}
# Of algorithm 6: what gives 10 points (src/grader/charts.js of 1.6.3).
LATER = {
    "cross-origin-opener-policy": {"same-origin", "same-origin-allow-popups", "noopener-allow-popups"},
    "cross-origin-embedder-policy": {"require-corp", "credentialless"},
}
MODIFIER = 10


@pytest.fixture(scope="module")
def observatory() -> Path:
    """Where the scanner is installed."""
    scanner = npm_installed(HERE / "observatory") / "node_modules" / "@mdn" / "mdn-http-observatory"
    # Its installer would download the list of HSTS hosts that browsers are built with; no host here is in it.
    (scanner / "conf" / "hsts-preload.json").write_text("{}\n", "utf-8")
    return scanner


def scanned(observatory: Path, host: Host, folder: Path) -> dict[str, Any]:
    """What observatory/scan.mjs prints of the demo site; the host's own certificate counts as an authority's."""
    trusted = folder / "trusted.pem"
    trusted.write_text(ssl.DER_cert_to_PEM_cert(certificate_of(host.port(443), SITE)), "utf-8")
    places = ",".join(f"{port}=127.0.0.1:{host.port(port)}" for port in (80, 443))
    done = subprocess.run(
        ["node", str(HERE / "observatory" / "scan.mjs"), str(observatory), SITE, places],
        env={**os.environ, "NODE_EXTRA_CA_CERTS": str(trusted)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_the_observatory_gives_the_demo_all_it_can(host: Host, observatory: Path, tmp_path: Path) -> None:
    result = scanned(observatory, host, tmp_path)
    assert (result["version"], result["algorithm"], result["grade"]) == ("1.4.8", 4, "A+")
    assert {name: test["modifier"] for name, test in result["tests"].items()} == BEST
    assert all(test["pass"] for test in result["tests"].values())
    assert result["score"] == 100 + sum(BEST.values())

    answer = ask(host.port(443), request(SITE), SITE)
    assert answer is not None
    later = sum(MODIFIER for name, good in LATER.items() if answer.one(name) in good)
    assert result["score"] + later >= LEAST


def test_csp_evaluator_finds_nothing_that_matters_in_what_the_demo_sends(host: Host) -> None:
    answer = ask(host.port(443), request(SITE), SITE)
    assert answer is not None
    done = subprocess.run(
        ["node", str(EVALUATOR / "evaluate.mjs"), str(npm_installed(EVALUATOR))],
        input=json.dumps([answer.one("Content-Security-Policy")]),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["findings"]
    # Where hashes are, the checks for strict policies want 'unsafe-inline' too, for browsers that know no hashes.
    fallback = {"type": "UNSAFE_INLINE_FALLBACK", "severity": "STRICT_CSP", "directive": "script-src", "value": ""}
    above = [one for one in found if one["severity"] not in ("MEDIUM_MAYBE", "INFO", "NONE")]
    assert [one for one in above if one != fallback] == []
