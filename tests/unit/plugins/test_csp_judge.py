# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every rule finds what it is for and says it in a sentence; strict policies pass; waivers cover what they name."""

from __future__ import annotations

import datetime
import re
from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.plugin_utils import csp
from ansible_collections.fushuma.production.plugins.plugin_utils.csp_hosts import BYPASSES, NEED_EVAL, bypass_of
from ansible_collections.fushuma.production.plugins.plugin_utils.csp_rules import DIRECTIVES, KEYWORDS, RULES
from ansible_collections.fushuma.production.plugins.plugin_utils.csp_waivers import WAIVER_PARTS
from hypothesis import example, given
from hypothesis import strategies as st

TODAY = datetime.date(2026, 11, 24)
HASH = "'sha256-xnlpMIZlFSzRApf+Kx0xOuYbKEqqYDhXxXSVpdyrjL4='"
NONCE = "'nonce-5f2d8c0b7a914e63b1c8d7e6f5a40392'"

# Breaks no rule but a hint or two. Below, each row changes it and says what is found besides.
STRICT: dict[str, Any] = {
    "default-src": ["'none'"],
    "script-src": ["'nonce'", "'strict-dynamic'"],
    "style-src": ["'self'", HASH],
    "img-src": ["'self'", "data:", "blob:", "https://images.example.com"],
    "font-src": ["'self'", "data:"],
    "connect-src": ["'self'", "https://api.example.com:8443/v1/", "wss://api.example.com"],
    "worker-src": ["'self'", "blob:"],
    "frame-src": ["https://*.example.com"],
    "object-src": ["'none'"],
    "base-uri": ["'none'"],
    "form-action": ["'self'"],
    "frame-ancestors": ["'none'"],
    "upgrade-insecure-requests": [],
    "require-trusted-types-for": ["'script'"],
    "trusted-types": ["default", "'allow-duplicates'"],
    "sandbox": ["allow-scripts", "allow-forms"],
    "webrtc": ["'block'"],
    "report-uri": ["/csp-report", "https://reports.example.com/csp?project=1"],
    "report-to": ["csp"],
}
ABSENT = object()
NUMBERED: dict[Any, Any] = {**STRICT, 5: []}  # as YAML can have it


def changed(**changes: Any) -> dict[str, Any]:
    policy = {**STRICT, **{name.replace("_", "-"): value for name, value in changes.items()}}
    return {name: value for name, value in policy.items() if value is not ABSENT}


def found(policy: Any, **options: Any) -> list[str]:
    """The findings that are no hints, as ``rule directive source``."""
    return [
        " ".join(filter(None, (one.rule, one.directive, one.source)))
        for one in csp.findings(policy, **options)
        if one.severity == "refused"
    ]


def said(policy: Any, **options: Any) -> list[str]:
    return [one.sentence() for one in csp.problems(policy, setting="csp.policy", today=TODAY, **options)]


def test_a_strict_policy_has_no_problem() -> None:
    assert said(STRICT) == []
    assert [one.rule for one in csp.findings(STRICT)] == [
        "wildcard-subdomains",
        "no-inline-fallback",
        "no-host-fallback",
    ]


@pytest.mark.parametrize(
    "script_src",
    [
        ["'self'"],
        ["'self'", HASH],
        [HASH, "'strict-dynamic'"],
        ["'none'"],
        ["'self'", "'wasm-unsafe-eval'", "'report-sample'"],
        ["'self'", "https://js.example.com"],
        ["'self'", "https://cdn.jsdelivr.net/npm/alpinejs@3.14.1/dist/cdn.min.js"],
        ["'self'", "https://maps.googleapis.com/maps/api/js"],
        ["'self'", "https://www.google.com/recaptcha/", "https://www.gstatic.com/recaptcha/"],
        ["'SELF'", "'Nonce'"],
        ["'self'", "'inline-speculation-rules'"],
        ["'self'", "https://www.googletagmanager.com"],  # harmful only where eval is allowed
    ],
)
def test_script_sources_that_pass(script_src: list[str]) -> None:
    assert found(changed(script_src=script_src)) == []


# rule -> a policy that breaks it, what is found, and the sentence
BROKEN: dict[str, tuple[Any, str, str]] = {
    "shape": (
        changed(script_src="'self' https://a.example"),
        "shape script-src",
        "csp.policy.script-src is \"'self' https://a.example\": a directive takes a list of sources, each a string. "
        'Write ["\'self\'", "https://a.example"].',
    ),
    "character": (
        changed(img_src=["'self';"]),
        "character img-src 'self';",
        "csp.policy.img-src[0] is \"'self';\": a character of it would end the header, the directive or nginx's quoted "
        "string. Write it percent-encoded (RFC 3986), each source as an item of its own.",
    ),
    "not-ascii": (
        csp.header(STRICT, nonce=NONCE[7:-1]).replace("wss://api.example.com", "wss://bücher.example"),
        "not-ascii connect-src",
        "csp.policy.connect-src is \"connect-src 'self' https://api.example.com:8443/v1/ wss://bücher.example\": "
        "browsers drop a directive that is not ASCII. Write names of hosts in punycode, paths percent-encoded.",
    ),
    "unknown-directive": (
        changed(scirpt_src=["'self'"]),
        "unknown-directive scirpt-src",
        "csp.policy.scirpt-src is [\"'self'\"]: CSP Level 3 has no such directive, and browsers ignore it. "
        "Write script-src.",
    ),
    "deprecated-directive": (
        changed(block_all_mixed_content=[]),
        "deprecated-directive block-all-mixed-content",
        "csp.policy.block-all-mixed-content is []: browsers block or upgrade mixed content by themselves. "
        "Write upgrade-insecure-requests.",
    ),
    "duplicate-directive": (
        f"{csp.header(STRICT, nonce=NONCE[7:-1])}; font-src 'none'",
        "duplicate-directive font-src",
        'csp.policy.font-src is ["\'self\'", "data:"]: only the first font-src of a policy counts. '
        "Write all its sources in one font-src.",
    ),
    "missing-semicolon": (
        changed(img_src=["'self'", "font-src", "https://a.example"]),
        "missing-semicolon img-src font-src",
        'csp.policy.img-src[1] is "font-src": it is the name of a directive, here read as a host. '
        "Write font-src as a directive of its own.",
    ),
    "unquoted-keyword": (
        changed(img_src=["self"]),
        "unquoted-keyword img-src self",
        "csp.policy.img-src[0] is \"self\": without single quotes it is read as the name of a host. Write 'self'.",
    ),
    "unknown-keyword": (
        changed(img_src=["'slef'"]),
        "unknown-keyword img-src 'slef'",
        "csp.policy.img-src[0] is \"'slef'\": there is no such keyword, and browsers ignore it. Write 'self'.",
    ),
    "misplaced-keyword": (
        changed(img_src=["'unsafe-inline'"]),
        "misplaced-keyword img-src 'unsafe-inline'",
        "csp.policy.img-src[0] is \"'unsafe-inline'\": it has no meaning in img-src. Write nothing here: remove it.",
    ),
    "bad-hash": (
        changed(style_src=["'sha256-abc='"]),
        "bad-hash style-src 'sha256-abc='",
        "csp.policy.style-src[0] is \"'sha256-abc='\": a sha256 value has 43 characters of base64 before its padding. "
        "Write 'sha256-' and the base64 of the 32 bytes, as csp_hashes returns it.",
    ),
    "bad-nonce": (
        "default-src 'none'; script-src 'nonce-aaaaaaaaaaaaaaaaaaaaaaaaaa***'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'",
        "bad-nonce script-src 'nonce-aaaaaaaaaaaaaaaaaaaaaaaaaa***'",
        "csp.policy.script-src[0] is \"'nonce-aaaaaaaaaaaaaaaaaaaaaaaaaa***'\": a nonce holds base64 characters only. "
        "Write 'nonce', which becomes a new value in every response.",
    ),
    "none-with-company": (
        changed(img_src=["'self'", "'none'"]),
        "none-with-company img-src 'none'",
        "csp.policy.img-src[1] is \"'none'\": 'none' is ignored beside other sources. "
        "Write either 'none' alone or the other sources alone.",
    ),
    "duplicate-source": (
        changed(img_src=["'self'", "https://a.example", "'SELF'"]),
        "duplicate-source img-src 'self'",
        "csp.policy.img-src[2] is \"'self'\": it stands there twice. Write it once.",
    ),
    "empty-directive": (
        changed(img_src=[]),
        "empty-directive img-src",
        "csp.policy.img-src is []: without a source it blocks everything, which 'none' says plainly. "
        "Write [\"'none'\"].",
    ),
    "unexpected-value": (
        changed(upgrade_insecure_requests=["true"]),
        "unexpected-value upgrade-insecure-requests",
        'csp.policy.upgrade-insecure-requests is ["true"]: upgrade-insecure-requests takes no value. Write [].',
    ),
    "bad-source": (
        changed(img_src=["https://a.example/?q=1"]),
        "bad-source img-src https://a.example/?q=1",
        'csp.policy.img-src[0] is "https://a.example/?q=1": it is no source expression of CSP Level 3 (it cannot '
        "hold a query or a fragment). Write https://a.example/.",
    ),
    "missing-directive": (
        changed(form_action=ABSENT),
        "missing-directive form-action",
        "csp.policy.form-action is missing: it has no fallback, and an injected form sends what users type elsewhere. "
        "Write [\"'self'\"].",
    ),
    "default-open": (
        changed(default_src=["'self'"]),
        "default-open default-src 'self'",
        "csp.policy.default-src[0] is \"'self'\": default-src decides for kinds of files nobody has thought of yet. "
        "Write default-src 'none' and one directive for each kind the page loads.",
    ),
    "unsafe-inline-script": (
        changed(script_src=["'self'", "'unsafe-inline'"]),
        "unsafe-inline-script script-src 'unsafe-inline'",
        "csp.policy.script-src[1] is \"'unsafe-inline'\": it runs every script an attacker can inject into the page. "
        "Write the hash of each inline block (csp_hashes finds them), or 'nonce'.",
    ),
    "unsafe-inline-style": (
        changed(style_src_attr=["'unsafe-inline'"]),
        "unsafe-inline-style style-src-attr 'unsafe-inline'",
        "csp.policy.style-src-attr[0] is \"'unsafe-inline'\": it applies every style an attacker can inject into the "
        "page. Write the hash of each inline block (csp_hashes finds them), or 'nonce'.",
    ),
    "unsafe-eval": (
        changed(script_src=["'self'", "'unsafe-eval'"]),
        "unsafe-eval script-src 'unsafe-eval'",
        "csp.policy.script-src[1] is \"'unsafe-eval'\": it turns strings into code. "
        "Write code without eval; 'wasm-unsafe-eval' is enough for WebAssembly.",
    ),
    "unsafe-hashes": (
        changed(script_src_attr=["'unsafe-hashes'", HASH]),
        "unsafe-hashes script-src-attr 'unsafe-hashes'",
        "csp.policy.script-src-attr[0] is \"'unsafe-hashes'\": an attacker can put the blessed code on any element. "
        "Write event listeners in a script, styles in a class.",
    ),
    "plain-scheme": (
        changed(connect_src=["https:"]),
        "plain-scheme connect-src https:",
        'csp.policy.connect-src[0] is "https:": it allows every host there is. Write the hosts that are needed.',
    ),
    "wildcard": (
        changed(frame_ancestors=["*"]),
        "wildcard frame-ancestors *",
        'csp.policy.frame-ancestors[0] is "*": it allows every host there is. Write the hosts that are needed.',
    ),
    "wildcard-host": (
        changed(worker_src=["*.example.com"]),
        "wildcard-host worker-src *.example.com",
        'csp.policy.worker-src[0] is "*.example.com": one forgotten subdomain is enough to run code in this page. '
        "Write the hosts that are needed.",
    ),
    "bypass-host": (
        changed(script_src=["'self'", "https://cdn.jsdelivr.net"]),
        "bypass-host script-src https://cdn.jsdelivr.net",
        'csp.policy.script-src[1] is "https://cdn.jsdelivr.net": cdn.jsdelivr.net/angularjs/ is known to run what an '
        "injected tag tells it (JSONP, AngularJS). "
        "Write a copy on the site itself, or the exact file as https://host/path.",
    ),
    "object-source": (
        changed(object_src=["'self'"]),
        "object-source object-src 'self'",
        "csp.policy.object-src[0] is \"'self'\": plugins are a way around script-src. Write 'none'.",
    ),
    "ip-source": (
        changed(img_src=["https://192.0.2.1:8443"]),
        "ip-source img-src https://192.0.2.1:8443",
        'csp.policy.img-src[0] is "https://192.0.2.1:8443": addresses match no source, but for 127.0.0.1: the '
        "visitor's own machine. Write the name of a host.",
    ),
    "insecure-source": (
        changed(img_src=["http://a.example"]),
        "insecure-source img-src http://a.example",
        'csp.policy.img-src[0] is "http://a.example": without TLS anyone on the way can change or read it. '
        "Write https:// (wss:// for WebSockets).",
    ),
    "static-nonce": (
        changed(script_src=[NONCE, "'strict-dynamic'"]),
        f"static-nonce script-src {NONCE}",
        f'csp.policy.script-src[0] is "{NONCE}": a nonce that stays is a password on every page. '
        "Write 'nonce', which is new in every response.",
    ),
    "short-nonce": (
        changed(script_src=["'nonce-abcdef'"]),
        "short-nonce script-src 'nonce-abcdef'",
        "csp.policy.script-src[0] is \"'nonce-abcdef'\": it can be guessed. "
        "Write at least 22 base64 characters (128 bits), new in every response.",
    ),
    "ignored-source": (
        changed(script_src=["'nonce'", "'strict-dynamic'", "'self'"]),
        "ignored-source script-src 'self'",
        "csp.policy.script-src[2] is \"'self'\": 'strict-dynamic' makes browsers ignore it. "
        "Write nothing here: remove it.",
    ),
    "strict-dynamic-alone": (
        changed(script_src=["'strict-dynamic'"]),
        "strict-dynamic-alone script-src 'strict-dynamic'",
        "csp.policy.script-src[0] is \"'strict-dynamic'\": without a nonce or a hash beside it no script runs. "
        "Write the hash of each inline block (csp_hashes finds them), or 'nonce'.",
    ),
}
HINTS: dict[str, tuple[Any, str]] = {
    "script-self": (changed(script_src=["'self'"]), "script-src 'self'"),
    "script-host": (changed(script_src=["js.example.com"]), "script-src js.example.com"),
    "no-strict-dynamic": (changed(script_src=["js.example.com"]), "script-src "),
    "shown-from-anywhere": (changed(img_src=["https:"]), "img-src https:"),
    "wildcard-subdomains": (changed(connect_src=["*.example.com"], frame_src=ABSENT), "connect-src *.example.com"),
    "no-inline-fallback": (STRICT, "script-src "),
    "no-host-fallback": (STRICT, "script-src "),
    "no-trusted-types": (changed(require_trusted_types_for=ABSENT), "require-trusted-types-for "),
    "no-reporting": (changed(report_uri=ABSENT, report_to=ABSENT), "report-uri "),
    "report-to-only": (changed(report_uri=ABSENT), "report-to "),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_each_rule_finds_and_says_what_is_wrong(rule: str) -> None:
    policy, finding, sentence = BROKEN[rule]
    assert found(policy) == [finding]
    assert said(policy) == [sentence]


@pytest.mark.parametrize("rule", HINTS)
def test_hints_are_findings_and_no_problems(rule: str) -> None:
    policy, where = HINTS[rule]
    assert where in [f"{one.directive} {one.source}" for one in csp.findings(policy) if one.rule == rule]
    assert said(policy) == []


@pytest.mark.parametrize(
    ("rule", "script_src"),
    [
        ("no-strict-dynamic", ["'self'", HASH]),
        ("no-strict-dynamic", [HASH, "'strict-dynamic'", "https:"]),
        ("no-host-fallback", ["'self'"]),
        ("no-host-fallback", [HASH, "'strict-dynamic'", "https:"]),
        ("no-host-fallback", [HASH, "'strict-dynamic'", "*"]),
        ("no-host-fallback", [HASH, "'strict-dynamic'", "a.example"]),
        ("no-inline-fallback", ["'self'"]),
        ("no-inline-fallback", [HASH, "'unsafe-inline'"]),
    ],
)
def test_hints_that_do_not_apply(rule: str, script_src: list[str]) -> None:
    assert rule not in {one.rule for one in csp.findings(changed(script_src=script_src))}


def test_hosts_in_script_src_attr_mean_nothing() -> None:
    attributes = csp.findings(changed(script_src_attr=["'self'", "https://unpkg.com"]))
    assert [one for one in attributes if one.directive == "script-src-attr"] == []


@pytest.mark.parametrize(
    ("changes", "instead"),
    [
        ({"img_src": ["data"]}, "data:"),
        ({"img_src": ["//a.example/x"]}, "https://a.example/x"),
        ({"img_src": ["https://a.example/#x"]}, "https://a.example/"),
        ({"img_src": ["a.*"]}, "the host as https://name"),
        ({"img_src": ["'xyzzy'"]}, "a keyword of CSP Level 3"),
        ({"xyzzy": []}, "a directive of CSP Level 3"),
        ({"img_src": None}, "[] or a list"),
        ({"img_src": [None]}, "a string"),
        ({"webrtc": []}, "[\"'block'\"]"),
        ({"require_trusted_types_for": []}, "[\"'script'\"]"),
        ({"sandbox": ["x"]}, "flags such as allow-scripts, or []"),
    ],
)
def test_what_to_write_instead(changes: dict[str, Any], instead: str) -> None:
    (sentence,) = said(changed(**changes))
    assert sentence.endswith(f". Write {instead}.")


def test_every_rule_is_tested_here() -> None:
    report_only = {"unreported", "ignored-in-report-only"}
    assert BROKEN.keys() | HINTS.keys() | report_only == RULES.keys()


@pytest.mark.parametrize(
    ("policy", "findings"),
    [
        # Shape: everything else is judged all the same.
        (
            changed(img_src=None, font_src=[1, "'slef'"]),
            ["shape img-src", "shape font-src", "unknown-keyword font-src 'slef'"],
        ),
        (NUMBERED, ["unknown-directive 5"]),
        # Names.
        (changed(**{"Img-Src": ["'self'"]}), ["unknown-directive Img-Src"]),
        (changed(**{"img-src:": ["'self'"]}), ["unknown-directive img-src:"]),
        (changed(plugin_types=["application/pdf"]), ["deprecated-directive plugin-types"]),
        # Keywords, nonces, hashes.
        (changed(img_src=["nonce-abc"]), ["unquoted-keyword img-src nonce-abc"]),
        (changed(img_src=["SHA256-abc"]), ["unquoted-keyword img-src SHA256-abc"]),
        (changed(style_src=["wasm-eval"]), ["unquoted-keyword style-src wasm-eval"]),
        (changed(style_src=["unsafe-hashed-attributes"]), ["unquoted-keyword style-src unsafe-hashed-attributes"]),
        (changed(img_src=["'nonce'"]), ["misplaced-keyword img-src 'nonce'"]),
        (changed(img_src=[HASH]), [f"misplaced-keyword img-src {HASH}"]),
        (changed(img_src=[NONCE]), [f"static-nonce img-src {NONCE}", f"misplaced-keyword img-src {NONCE}"]),
        (
            changed(style_src=["'strict-dynamic'"]),
            [
                "misplaced-keyword style-src 'strict-dynamic'",
                "strict-dynamic-alone style-src 'strict-dynamic'",
            ],
        ),
        (changed(frame_ancestors=["'unsafe-inline'"]), ["misplaced-keyword frame-ancestors 'unsafe-inline'"]),
        (
            changed(style_src=["'sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk='"]),
            ["bad-hash style-src 'sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk='"],
        ),
        (changed(style_src=["'sha256-***'"]), ["bad-hash style-src 'sha256-***'"]),
        (changed(style_src=["'md5-abc'"]), ["bad-hash style-src 'md5-abc'"]),
        (changed(script_src=["'nonce-*'"]), ["bad-nonce script-src 'nonce-*'", "short-nonce script-src 'nonce-*'"]),
        (changed(script_src=["'self'", "'trusted-types-eval'"]), ["unsafe-eval script-src 'trusted-types-eval'"]),
        (
            changed(script_src=["'self'", "'unsafe-eval'", "https://www.googletagmanager.com"]),
            [
                "unsafe-eval script-src 'unsafe-eval'",
                "bypass-host script-src https://www.googletagmanager.com",
            ],
        ),
        (
            changed(script_src=["'nonce-aaaaaaaaaaaaaaaaaaaaa'"]),
            ["short-nonce script-src 'nonce-aaaaaaaaaaaaaaaaaaaaa'"],
        ),
        (
            changed(script_src=["'nonce-aaaaaaaaaaaaaaaaaaaaaa'"]),
            ["static-nonce script-src 'nonce-aaaaaaaaaaaaaaaaaaaaaa'"],
        ),
        (changed(trusted_types=[], sandbox=[]), []),
        (changed(require_trusted_types_for=[]), ["unexpected-value require-trusted-types-for"]),
        # Hosts and schemes that are none.
        (changed(img_src=["data"]), ["bad-source img-src data"]),
        (changed(img_src=["//a.example"]), ["bad-source img-src //a.example"]),
        (changed(img_src=["https://"]), ["bad-source img-src https://"]),
        (changed(img_src=["a.*.example"]), ["bad-source img-src a.*.example"]),
        (changed(img_src=["*.*.example"]), ["bad-source img-src *.*.example"]),
        (changed(img_src=["https://a.example:x"]), ["bad-source img-src https://a.example:x"]),
        # Directives that take something else than sources.
        (changed(report_to=["a", "b"]), ["unexpected-value report-to"]),
        (changed(report_to=[]), ["unexpected-value report-to"]),
        (changed(report_uri=["csp-report"]), ["unexpected-value report-uri csp-report"]),
        (changed(sandbox=["allow-everything"]), ["unexpected-value sandbox allow-everything"]),
        (
            changed(trusted_types=["a policy"]),
            ["unexpected-value trusted-types a policy", "character trusted-types a policy"],
        ),
        (changed(trusted_types=["'none'", "default"]), ["none-with-company trusted-types 'none'"]),
        (
            changed(require_trusted_types_for=["script"]),
            [
                "unexpected-value require-trusted-types-for script",
                "unquoted-keyword require-trusted-types-for script",
            ],
        ),
        (changed(webrtc=["'self'"]), ["unexpected-value webrtc 'self'", "misplaced-keyword webrtc 'self'"]),
        # Schemes and wildcards, by what the directive is for.
        (changed(script_src=["'self'", "data:"]), ["plain-scheme script-src data:"]),
        (changed(script_src=["'self'", "blob:"]), ["plain-scheme script-src blob:"]),
        (changed(script_src=["'self'", "capacitor:"]), ["plain-scheme script-src capacitor:"]),
        (changed(frame_src=["capacitor:"]), []),
        (changed(frame_src=["blob:"]), []),
        (changed(frame_src=["data:"]), ["plain-scheme frame-src data:"]),
        (changed(img_src=["filesystem:"]), ["plain-scheme img-src filesystem:"]),
        (changed(img_src=["http:"]), ["insecure-source img-src http:"]),
        (changed(media_src=["*"]), []),
        (changed(connect_src=["ws:"]), ["plain-scheme connect-src ws:"]),
        (changed(connect_src=["ws://a.example"]), ["insecure-source connect-src ws://a.example"]),
        (changed(form_action=["https://*"]), ["wildcard form-action https://*"]),
        (changed(style_src=["*.com"]), ["wildcard style-src *.com"]),
        (changed(base_uri=["*.example.com"]), ["wildcard-host base-uri *.example.com"]),
        (changed(report_uri=["http://a.example/r"]), ["insecure-source report-uri http://a.example/r"]),
        (
            changed(connect_src=["[::1]", "https://[2001:db8::1]/x"]),
            [
                "ip-source connect-src [::1]",
                "ip-source connect-src https://[2001:db8::1]/x",
            ],
        ),
        # What the neighbours of a source make of it.
        (changed(script_src=["'nonce'", "'unsafe-inline'"]), ["ignored-source script-src 'unsafe-inline'"]),
        (changed(style_src=[HASH, "'unsafe-inline'"]), ["ignored-source style-src 'unsafe-inline'"]),
        (
            changed(script_src=[HASH, "'strict-dynamic'", "https:", "a.example"]),
            [
                "ignored-source script-src https:",
                "ignored-source script-src a.example",
            ],
        ),
        (changed(script_src=[HASH, "'strict-dynamic'", "'unsafe-eval'"]), ["unsafe-eval script-src 'unsafe-eval'"]),
        # default-src decides where nothing else does.
        (
            {
                "default-src": ["'unsafe-inline'"],
                **{n: STRICT[n] for n in ("base-uri", "form-action", "frame-ancestors")},
            },
            [
                "default-open default-src 'unsafe-inline'",
                "unsafe-inline-script default-src 'unsafe-inline'",
            ],
        ),
        (
            {**STRICT, "default-src": ["'unsafe-inline'"], "style-src": ["'self'"]},
            ["default-open default-src 'unsafe-inline'"],
        ),
        (
            changed(default_src=["'unsafe-inline'"], style_src=ABSENT),
            [
                "default-open default-src 'unsafe-inline'",
                "unsafe-inline-style default-src 'unsafe-inline'",
            ],
        ),
        # An empty policy allows everything.
        (
            {},
            [
                f"missing-directive {name}"
                for name in ("default-src", "script-src", "object-src", "base-uri", "form-action", "frame-ancestors")
            ],
        ),
    ],
)
def test_findings(policy: Any, findings: list[str]) -> None:
    assert found(policy) == findings


def test_the_nonce_of_a_header_that_was_sent_is_as_it_should_be() -> None:
    assert found(csp.header(STRICT, nonce=NONCE[7:-1])) == []


def test_a_comma_joins_two_policies_in_a_header() -> None:
    text = csp.header({**STRICT, "worker-src": ["'self'"]}, nonce=NONCE[7:-1])
    assert found(f"{text}, default-src 'none'") == [
        "unexpected-value report-to",
        "unexpected-value report-to 'none'",
        "character report-to csp,",
        "missing-semicolon report-to default-src",
        "misplaced-keyword report-to 'none'",
    ]


# --- report-only -----------------------------------------------------------------------------------------------------


def test_a_report_only_policy_has_to_say_where_reports_go() -> None:
    assert said({"script-src": ["'self'"]}, report_only=True) == [
        "csp.policy.report-uri is missing: a report-only policy without report-uri does nothing. "
        "Write where reports go, e.g. [/csp-report]."
    ]
    assert said({"require-trusted-types-for": ["'script'"], "report-uri": ["/r"]}, report_only=True) == []
    assert said({"require-trusted-types-for": ["'script'"], "report-to": ["r"]}, report_only=True) == []


def test_a_report_only_policy_cannot_be_unsafe_but_malformed() -> None:
    policy = {"script-src": ["*", "'unsafe-inline'", "self"], "report-uri": ["/r"]}
    assert said(policy, report_only=True) == [
        "csp.policy.script-src[2] is \"self\": without single quotes it is read as the name of a host. Write 'self'."
    ]


def test_a_report_only_policy_is_told_what_browsers_ignore_in_it() -> None:
    policy = {"upgrade-insecure-requests": [], "sandbox": [], "report-uri": ["/r"]}
    assert [
        (one.rule, one.directive) for one in csp.findings(policy, report_only=True) if one.rule != "no-trusted-types"
    ] == [("ignored-in-report-only", "sandbox"), ("ignored-in-report-only", "upgrade-insecure-requests")]


# --- waivers ---------------------------------------------------------------------------------------------------------

WAIVER: dict[str, Any] = {
    "directive": "style-src",
    "source": "'unsafe-inline'",
    "reason": "the dialog library injects styles",
    "owner": "web team",
    "expires": "2026-12-31",
}
WAIVED = changed(style_src=["'self'", "'unsafe-inline'"])


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"expires": datetime.date(2026, 11, 24)},  # it holds on its last day
        {"directive": "STYLE-SRC", "source": "'UNSAFE-INLINE'"},
    ],
)
def test_a_waiver_covers_what_it_names(change: dict[str, Any]) -> None:
    assert said(WAIVED, waivers=[{**WAIVER, **change}]) == []


def test_a_waiver_covers_nothing_else() -> None:
    both = changed(style_src=["'self'", "'unsafe-inline'"], style_src_attr=["'unsafe-inline'"])
    (sentence,) = said(both, waivers=[WAIVER])
    assert sentence.startswith("csp.policy.style-src-attr[0] is ")


@pytest.mark.parametrize("part", WAIVER_PARTS)
@pytest.mark.parametrize("value", [ABSENT, None, "", " "])
def test_a_waiver_states_every_part(part: str, value: object) -> None:
    waiver = {name: one for name, one in {**WAIVER, part: value}.items() if one is not ABSENT}
    written = {ABSENT: "missing", None: "null"}.get(value, f'"{value}"')
    sentences = said(WAIVED, waivers=[waiver])
    assert (
        f"csp.waivers[0].{part} is {written}: a waiver without it can never be reviewed. Write {WAIVER_PARTS[part]}."
        in sentences
    )
    # What cannot be matched covers nothing; the rest is said once.
    assert any(one.startswith("csp.policy.") for one in sentences) is (part in ("directive", "source"))


@pytest.mark.parametrize(
    ("policy", "change", "sentence"),
    [
        (
            WAIVED,
            {"expires": "2026-11-23"},
            'csp.waivers[0].expires is "2026-11-23": it has expired, today is 2026-11-24. '
            "Write a later day if the reason still holds, or remove the waiver and the source.",
        ),
        (
            WAIVED,
            {"expires": "next year"},
            'csp.waivers[0].expires is "next year": it is no date. Write the last day it holds, e.g. "2030-01-31".',
        ),
        (
            WAIVED,
            {"ticket": 7},
            "csp.waivers[0].ticket is 7: a waiver has no such part. Write directive, source, reason, owner, expires.",
        ),
        (
            STRICT,
            {},
            'csp.waivers[0] is {"directive": "style-src", "source": "\'unsafe-inline\'"}: the policy holds no such '
            "thing that needs a waiver. Write no waiver for it.",
        ),
    ],
)
def test_what_is_wrong_with_a_waiver(policy: Any, change: dict[str, Any], sentence: str) -> None:
    assert said(policy, waivers=[{**WAIVER, **change}]) == [sentence]


def test_what_is_malformed_cannot_be_waived() -> None:
    policy = changed(img_src=["self"])
    sentences = said(policy, waivers=[{**WAIVER, "directive": "img-src", "source": "self"}])
    assert [one.split(" is ")[0] for one in sentences] == ["csp.waivers[0]", "csp.policy.img-src[0]"]


def test_waivers_stand_beside_the_policy() -> None:
    (problem,) = csp.problems(STRICT, setting="policy", waivers=[WAIVER], today=TODAY)
    assert problem.setting == "waivers[0]"


# --- tables ----------------------------------------------------------------------------------------------------------


def test_keywords_name_directives() -> None:
    assert frozenset().union(*KEYWORDS.values()) <= DIRECTIVES


@pytest.mark.parametrize("rule", RULES)
def test_sentences_end_where_they_should(rule: str) -> None:
    entry = RULES[rule]
    for clause in (entry.why, entry.instead):
        assert clause
        assert not clause.endswith(".")
        assert set(re.findall(r"{(\w+)}", clause)) <= {"directive", "source", "closest", "detail", "replacement"}


@pytest.mark.parametrize(
    ("host", "path", "evaluates", "bypass"),
    [
        ("maps.googleapis.com", "", False, "maps.googleapis.com/maps/api/js/"),
        ("maps.googleapis.com", "/", False, "maps.googleapis.com/maps/api/js/"),
        ("maps.googleapis.com", "/maps/", False, "maps.googleapis.com/maps/api/js/"),
        ("maps.googleapis.com", "/maps/api/js/Service", False, "maps.googleapis.com/maps/api/js/"),
        ("maps.googleapis.com", "/maps/api/js", False, None),
        ("maps.googleapis.com", "/maps", False, None),
        ("maps.googleapis.com", "/other/", False, None),
        ("googleapis.com", "", False, None),
        ("*.google.ru", "", False, "maps.google.ru/maps/"),
        ("*.ru", "/token.php", False, "ulogin.ru/token.php"),
        ("evil-unpkg.com", "", False, None),
        ("www.googletagmanager.com", "", False, None),
        ("www.googletagmanager.com", "", True, "www.googletagmanager.com/gtm/"),
    ],
)
def test_hosts_that_undo_a_script_src(host: str, path: str, evaluates: bool, bypass: str | None) -> None:
    assert bypass_of(host, path, evaluates=evaluates) == bypass


def test_the_table_of_hosts_is_well_formed() -> None:
    assert list(BYPASSES) == sorted(BYPASSES)
    assert all(re.fullmatch(r"[a-z0-9.-]+", host) for host in BYPASSES)
    assert all(folder.startswith("/") for folders in BYPASSES.values() for folder in folders)
    assert all(any(host.endswith(known) for known in BYPASSES) for host in NEED_EVAL)


# --- whatever comes --------------------------------------------------------------------------------------------------


@given(
    policy=st.dictionaries(
        st.one_of(st.sampled_from(sorted(DIRECTIVES)), st.text(max_size=8), st.integers()),
        st.one_of(
            st.none(),
            st.text(max_size=8),
            st.lists(st.one_of(st.sampled_from(sorted(KEYWORDS)), st.text(max_size=8), st.integers()), max_size=4),
        ),
        max_size=5,
    ),
    report_only=st.booleans(),
)
def test_any_settings_are_judged_and_what_passes_can_be_written(policy: dict[Any, Any], report_only: bool) -> None:
    problems = csp.problems(policy, setting="csp.policy", today=TODAY, report_only=report_only)
    if not problems:
        csp.header(policy, nonce="$request_id")


@given(text=st.text(max_size=60))
@example(text="\xa0")  # white space, but not that of a header
def test_any_header_is_judged(text: str) -> None:
    csp.findings(text)
