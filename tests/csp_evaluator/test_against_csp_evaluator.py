# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The judge of this collection finds at least what Google's CSP Evaluator finds.

Every finding of the evaluator is compared, of every severity from HIGH to NONE and from all of its checks: for each,
the judge has one of its own about the same directive and, if it names one, the same source. Policies are those of
policies.yml, and a thousand made up at random. The evaluator is an npm package; it is installed into .cache/npm on
first use.
"""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.fushuma.production.plugins.plugin_utils import csp
from ansible_collections.fushuma.production.plugins.plugin_utils.csp_policy import effective
from programs_support import npm_installed

HERE = Path(__file__).resolve().parent
POLICIES = {entry["name"]: entry["policy"] for entry in yaml.safe_load((HERE / "policies.yml").read_text())}

# The evaluator's types, and the rules of this project that say the same. EXPERIMENTAL, NONCE_HASH, SRC_NO_PROTOCOL,
# STATIC_NONCE, STYLE_UNSAFE_INLINE, WILDCARD_URL and X_FRAME_OPTIONS_OBSOLETED are names no check of 1.1.8 uses.
SAME = {
    "ALLOWLIST_FALLBACK": {"no-host-fallback"},
    "DEPRECATED_DIRECTIVE": {"deprecated-directive"},
    "IGNORED": {"ignored-source"},
    "INVALID_KEYWORD": {"unquoted-keyword", "unknown-keyword", "bad-hash", "bad-nonce"},
    "IP_SOURCE": {"ip-source"},
    "MISSING_DIRECTIVES": {"missing-directive", "empty-directive"},
    "MISSING_SEMICOLON": {"missing-semicolon"},
    "NONCE_CHARSET": {"bad-nonce"},
    "NONCE_LENGTH": {"short-nonce"},
    "OBJECT_ALLOWLIST_BYPASS": {"object-source", "default-open"},
    "PLAIN_URL_SCHEMES": {"plain-scheme"},
    "PLAIN_WILDCARD": {"wildcard", "bad-source"},  # //* is no source, says the grammar
    "REPORTING_DESTINATION_MISSING": {"no-reporting"},
    "REPORT_TO_ONLY": {"report-to-only"},
    "REQUIRE_TRUSTED_TYPES_FOR_SCRIPTS": {"no-trusted-types"},
    "SCRIPT_ALLOWLIST_BYPASS": {"bypass-host", "script-host", "script-self"},
    "SCRIPT_UNSAFE_EVAL": {"unsafe-eval"},
    "SCRIPT_UNSAFE_HASHES": {"unsafe-hashes"},
    "SCRIPT_UNSAFE_INLINE": {"unsafe-inline-script"},
    "SRC_HTTP": {"insecure-source"},
    "STRICT_DYNAMIC": {"no-strict-dynamic"},
    "STRICT_DYNAMIC_NOT_STANDALONE": {"strict-dynamic-alone"},
    "UNKNOWN_DIRECTIVE": {"unknown-directive"},
    "UNSAFE_INLINE_FALLBACK": {"no-inline-fallback"},
}

_NONCE = "'nonce-5f2d8c0b7a914e63b1c8d7e6f5a40392'"
_HASH = "'sha256-xnlpMIZlFSzRApf+Kx0xOuYbKEqqYDhXxXSVpdyrjL4='"
_BASE = (
    "default-src 'none'; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'; object-src 'none'; report-uri /csp-report; script-src "
)
RECOMMENDED = {
    "the site's own files": f"{_BASE}'self'",
    "own files and hashes": f"{_BASE}'self' {_HASH}",
    "hashes alone": f"{_BASE}{_HASH} 'strict-dynamic'",
    "nonce": f"{_BASE}{_NONCE} 'strict-dynamic'",
    "nonce and Trusted Types": f"{_BASE}{_NONCE} 'strict-dynamic'; require-trusted-types-for 'script'",
}

Evaluate = Callable[[list[str]], dict[str, Any]]


@pytest.fixture(scope="session")
def evaluate() -> Evaluate:
    """Runs the evaluator over policies; installs it first if that was not done for this package-lock.json."""
    installed = npm_installed(HERE)

    def run(policies: list[str]) -> dict[str, Any]:
        node = ["node", str(HERE / "evaluate.mjs"), str(installed)]
        running = subprocess.run(
            node, input=json.dumps(policies), capture_output=True, text=True, timeout=120, check=False
        )
        assert running.returncode == 0, running.stderr
        result: dict[str, Any] = json.loads(running.stdout)
        return result

    return run


@pytest.fixture(scope="session")
def evaluated(evaluate: Evaluate) -> dict[str, list[dict[str, str]]]:
    return dict(zip(POLICIES, evaluate(list(POLICIES.values()))["findings"], strict=True))


def unmatched(text: str, theirs: list[dict[str, str]]) -> list[dict[str, str]]:
    """The evaluator's findings that the judge does not have."""
    ours = {(finding.rule, finding.directive, finding.source.lower()) for finding in csp.findings(text)}
    missing = []
    for finding in theirs:
        directives = {finding["directive"]}
        if finding["type"] == "MISSING_DIRECTIVES":
            # An empty default-src blocks plugins; the evaluator asks for object-src, the judge for a plain 'none'.
            directives.add(effective(csp.parse(text), finding["directive"]) or "")
        value = finding["value"].lower()
        if not any(
            rule in SAME[finding["type"]] and directive in directives and (source == value or not value)
            for rule, directive, source in ours
        ):
            missing.append(finding)
    return missing


def test_there_are_enough_policies() -> None:
    assert len(POLICIES) >= 60


@pytest.mark.parametrize("name", POLICIES)
def test_finds_what_the_evaluator_finds(name: str, evaluated: dict[str, list[dict[str, str]]]) -> None:
    assert unmatched(POLICIES[name], evaluated[name]) == []


def test_every_type_of_finding_was_compared(evaluated: dict[str, list[dict[str, str]]]) -> None:
    assert {finding["type"] for found in evaluated.values() for finding in found} == set(SAME)


_NAMES = """
    default-src script-src script-src-elem script-src-attr style-src img-src connect-src object-src child-src worker-src
    frame-src font-src media-src manifest-src base-uri form-action frame-ancestors report-uri report-to
    referrer prefetch-src scirpt-src img-src:
"""
_SOURCES = f"""
    'self' 'none' 'unsafe-inline' 'unsafe-eval' 'strict-dynamic' 'unsafe-hashes' 'report-sample' 'slef'
    * http: https: data: blob: self none unsafe-inline https://* http://* //* *.com object-src
    example.com https://cdn.example.com/a/ http://example.com *.example.com localhost 10.0.0.1 127.0.0.1
    https://cdn.jsdelivr.net *.googleapis.com https://www.googletagmanager.com vk.com *.github.io
    https://maps.googleapis.com/maps/api/js/ https://yastatic.net/angularjs/ [::1] https://[2a00::1]/x
    {_NONCE} {_HASH} 'nonce-short' 'nonce-a*b' nonce-abcdefgh sha256-abc 'sha256-abc' 'sha256-a*'
"""


def _random_policy(chance: random.Random) -> str:
    names = chance.sample(_NAMES.split(), chance.randint(1, 8))
    return "; ".join(" ".join([name, *chance.choices(_SOURCES.split(), k=chance.randint(0, 5))]) for name in names)


def test_finds_it_in_random_policies(evaluate: Evaluate) -> None:
    chance = random.Random(20240223)  # the same policies in every run
    policies = [_random_policy(chance) for _ in range(1000)]
    wrong = {
        policy: missing
        for policy, theirs in zip(policies, evaluate(policies)["findings"], strict=True)
        if (missing := unmatched(policy, theirs))
    }
    assert wrong == {}


def test_refuses_every_host_the_evaluator_knows(evaluate: Evaluate) -> None:
    for url in evaluate([])["hosts"]:
        host = url.removeprefix("//").removeprefix("https://").partition("/")[0]
        for source in (host, f"https://{host}", f"*.{host.partition('.')[2]}", f"https://{url.removeprefix('//')}"):
            found = {finding.rule for finding in csp.findings(f"script-src 'unsafe-eval' {source}")}
            assert "bypass-host" in found, source


@pytest.mark.parametrize("name", RECOMMENDED)
def test_the_evaluator_has_nothing_against_what_is_recommended(name: str, evaluate: Evaluate) -> None:
    (theirs,) = evaluate([RECOMMENDED[name]])["findings"]
    # Fallbacks for browsers that know no nonces and hashes: the strict checks ask for 'unsafe-inline' and https:.
    fallbacks = {"UNSAFE_INLINE_FALLBACK", "ALLOWLIST_FALLBACK"}
    above = [finding for finding in theirs if finding["severity"] not in ("MEDIUM_MAYBE", "INFO", "NONE")]
    assert [finding for finding in above if finding["type"] not in fallbacks] == []
    refused = [finding.rule for finding in csp.findings(RECOMMENDED[name]) if finding.severity == "refused"]
    assert refused == []
