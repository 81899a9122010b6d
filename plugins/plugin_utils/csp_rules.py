# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a Content-Security-Policy may say, and every rule it can break, as tables. csp_judge applies them.

Directives, keywords and tokens are those of W3C CSP Level 3, Trusted Types, Upgrade Insecure Requests and the
sandbox flags of the HTML standard. docs/csp.md lists the rules; a unit test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ansible_collections.fushuma.production.plugins.plugin_utils.csp_policy import FALLBACKS

Severity = Literal["refused", "hint"]


@dataclass(frozen=True)
class Rule:
    """One way in which a policy can be wrong.

    severity:  ``refused`` makes a problem; a ``hint`` is worth knowing and stops nothing.
    waivable:  whether a waiver can allow it: a policy that is unsafe for a reason can be sent, a malformed one cannot.
    why:       a clause after "<setting> is <value>: ", ``instead`` one after "Write "; both may name {directive},
               {source}, {closest} (a known name that looks alike), {detail} and {replacement}.
    """

    severity: Severity
    waivable: bool
    why: str
    instead: str


SCRIPT = ("script-src", "script-src-elem", "script-src-attr")
STYLE = ("style-src", "style-src-elem", "style-src-attr")
SOURCE_LISTS = frozenset({*FALLBACKS, "base-uri", "form-action", "frame-ancestors"})
# Directives without a list of sources; csp_judge.VALUES says what each may hold.
OTHER_DIRECTIVES = frozenset(
    {
        "report-to",
        "report-uri",
        "require-trusted-types-for",
        "sandbox",
        "trusted-types",
        "upgrade-insecure-requests",
        "webrtc",
    }
)
DIRECTIVES = SOURCE_LISTS | OTHER_DIRECTIVES

# Directives that browsers no longer follow: why, and what to write.
DEPRECATED: Mapping[str, tuple[str, str]] = {
    "block-all-mixed-content": ("browsers block or upgrade mixed content by themselves", "upgrade-insecure-requests"),
    "disown-opener": ("it never left the draft", "the header Cross-Origin-Opener-Policy"),
    "navigate-to": ("no browser follows it", "form-action, and no open redirects in the application"),
    "plugin-types": ("plugins are gone from browsers", "object-src 'none'"),
    "prefetch-src": ("no browser follows it", "the hosts in default-src or the directive of each kind of file"),
    "referrer": ("it never left the draft", "the header Referrer-Policy"),
    "reflected-xss": ("it never left the draft", "no replacement: a strict script-src does its work"),
    "require-sri-for": ("it never left the draft", "integrity attributes in the HTML"),
}

_INLINE = frozenset({*SCRIPT, *STYLE, "default-src"})
_CODE = frozenset({*SCRIPT, "default-src"})
# keyword -> the directives in which it has a meaning
KEYWORDS: Mapping[str, frozenset[str]] = {
    "'self'": SOURCE_LISTS,
    "'none'": SOURCE_LISTS | {"trusted-types"},
    "'nonce'": _INLINE,
    "'unsafe-inline'": _INLINE,
    "'unsafe-hashes'": _INLINE,
    "'report-sample'": _INLINE,
    "'unsafe-eval'": _CODE,
    "'wasm-unsafe-eval'": _CODE,
    "'trusted-types-eval'": _CODE,
    "'strict-dynamic'": _CODE,
    "'inline-speculation-rules'": _CODE,
    "'script'": frozenset({"require-trusted-types-for"}),
    "'allow-duplicates'": frozenset({"trusted-types"}),
    "'allow'": frozenset({"webrtc"}),
    "'block'": frozenset({"webrtc"}),
}
EVAL = frozenset({"'unsafe-eval'", "'trusted-types-eval'"})

SANDBOX_TOKENS = frozenset(
    f"allow-{flag}"
    for flag in (
        "downloads",
        "forms",
        "modals",
        "orientation-lock",
        "pointer-lock",
        "popups",
        "popups-to-escape-sandbox",
        "presentation",
        "same-origin",
        "scripts",
        "storage-access-by-user-activation",
        "top-navigation",
        "top-navigation-by-user-activation",
        "top-navigation-to-custom-protocols",
    )
)

# Directives whose sources can run code or decide where code comes from, seen from weakest to widest:
RUNS_CODE = frozenset({*SCRIPT, "default-src", "object-src", "base-uri", "worker-src"})
# ... and those whose content is only shown: any host in them is worth a hint, no more.
SHOWN = frozenset({"img-src", "media-src", "font-src"})
NETWORK_SCHEMES = frozenset({"http:", "https:", "ws:", "wss:"})
# Schemes whose content a page, and so an attacker in it, makes up itself: where they do no harm.
LOCAL_SCHEMES: Mapping[str, frozenset[str]] = {
    "data:": SHOWN | {"connect-src"},
    "blob:": SHOWN | {"connect-src", "worker-src", "child-src", "frame-src"},
    "filesystem:": frozenset(),
}
# Names of schemes that, without their colon, are the name of a host.
BARE_SCHEMES = frozenset({"blob", "data", "filesystem", "http", "https", "mediastream", "ws", "wss"})

# What a strict policy states; nothing but default-src stands in for another.
REQUIRED: Mapping[str, tuple[str, str]] = {
    "default-src": ("every kind of file without a directive of its own is allowed from everywhere", "[\"'none'\"]"),
    "script-src": ("scripts are allowed from everywhere", "[\"'self'\"] and the hashes of the inline scripts"),
    "object-src": ("plugins are allowed from everywhere", "[\"'none'\"]"),
    "base-uri": ("it has no fallback, and an injected <base> sends every relative script elsewhere", "[\"'none'\"]"),
    "form-action": ("it has no fallback, and an injected form sends what users type elsewhere", "[\"'self'\"]"),
    "frame-ancestors": ("it has no fallback, and every site may frame this one", "[\"'none'\"]"),
}
# What a browser follows in the enforced policy only.
NOT_IN_REPORT_ONLY = frozenset({"sandbox", "upgrade-insecure-requests"})


def _invalid(why: str, instead: str) -> Rule:
    return Rule("refused", False, why, instead)


def _unsafe(why: str, instead: str) -> Rule:
    return Rule("refused", True, why, instead)


def _hint(why: str, instead: str) -> Rule:
    return Rule("hint", True, why, instead)


_REMOVE = "nothing here: remove it"
_HASH_OR_NONCE = "the hash of each inline block (csp_hashes finds them), or 'nonce'"

RULES: Mapping[str, Rule] = {
    # Malformed: browsers read something else than what was meant.
    "shape": _invalid("a directive takes a list of sources, each a string", "{detail}"),
    "character": _invalid(
        "a character of it would end the header, the directive or nginx's quoted string",
        "it percent-encoded (RFC 3986), each source as an item of its own",
    ),
    "not-ascii": _invalid(
        "browsers drop a directive that is not ASCII", "names of hosts in punycode, paths percent-encoded"
    ),
    "unknown-directive": _invalid("CSP Level 3 has no such directive, and browsers ignore it", "{closest}"),
    "deprecated-directive": _invalid("{detail}", "{replacement}"),
    "duplicate-directive": _invalid(
        "only the first {directive} of a policy counts", "all its sources in one {directive}"
    ),
    "missing-semicolon": _invalid(
        "it is the name of a directive, here read as a host", "{source} as a directive of its own"
    ),
    "unquoted-keyword": _invalid("without single quotes it is read as the name of a host", "{replacement}"),
    "unknown-keyword": _invalid("there is no such keyword, and browsers ignore it", "{closest}"),
    "misplaced-keyword": _invalid("it has no meaning in {directive}", _REMOVE),
    "bad-hash": _invalid("{detail}", "'sha256-' and the base64 of the 32 bytes, as csp_hashes returns it"),
    "bad-nonce": _invalid(
        "a nonce holds base64 characters only", "'nonce', which becomes a new value in every response"
    ),
    "none-with-company": _invalid(
        "'none' is ignored beside other sources", "either 'none' alone or the other sources alone"
    ),
    "duplicate-source": _invalid("it stands there twice", "it once"),
    "empty-directive": _invalid("without a source it blocks everything, which 'none' says plainly", "[\"'none'\"]"),
    "unexpected-value": _invalid("{directive} {detail}", "{replacement}"),
    "bad-source": _invalid("it is no source expression of CSP Level 3 ({detail})", "{replacement}"),
    "unreported": _invalid(
        "a report-only policy without report-uri does nothing", "where reports go, e.g. [/csp-report]"
    ),
    # Missing: what is not said is allowed.
    "missing-directive": _invalid("{detail}", "{replacement}"),
    # Unsafe: browsers read exactly this, and it lets an attacker do more than the page needs.
    "default-open": _unsafe(
        "default-src decides for kinds of files nobody has thought of yet",
        "default-src 'none' and one directive for each kind the page loads",
    ),
    "unsafe-inline-script": _unsafe("it runs every script an attacker can inject into the page", _HASH_OR_NONCE),
    "unsafe-inline-style": _unsafe("it applies every style an attacker can inject into the page", _HASH_OR_NONCE),
    "unsafe-eval": _unsafe(
        "it turns strings into code", "code without eval; 'wasm-unsafe-eval' is enough for WebAssembly"
    ),
    "unsafe-hashes": _unsafe(
        "an attacker can put the blessed code on any element", "event listeners in a script, styles in a class"
    ),
    "plain-scheme": _unsafe("{detail}", "the hosts that are needed"),
    "wildcard": _unsafe("it allows every host there is", "the hosts that are needed"),
    "wildcard-host": _unsafe("one forgotten subdomain is enough to run code in this page", "the hosts that are needed"),
    "bypass-host": _unsafe(
        "{detail} is known to run what an injected tag tells it (JSONP, AngularJS)",
        "a copy on the site itself, or the exact file as https://host/path",
    ),
    "object-source": _unsafe("plugins are a way around script-src", "'none'"),
    "ip-source": _unsafe(
        "addresses match no source, but for 127.0.0.1: the visitor's own machine", "the name of a host"
    ),
    "insecure-source": _unsafe(
        "without TLS anyone on the way can change or read it", "https:// (wss:// for WebSockets)"
    ),
    "static-nonce": _unsafe(
        "a nonce that stays is a password on every page", "'nonce', which is new in every response"
    ),
    "short-nonce": _unsafe("it can be guessed", "at least 22 base64 characters (128 bits), new in every response"),
    "ignored-source": _unsafe("{detail}", _REMOVE),
    "strict-dynamic-alone": _unsafe("without a nonce or a hash beside it no script runs", _HASH_OR_NONCE),
    # Hints: fine in a strict policy, or a matter of taste.
    "script-self": _hint("uploads and JSONP on the site itself would run", "hashes or 'nonce' with 'strict-dynamic'"),
    "script-host": _hint("every script on that host may run; its path does not bind redirects", "a copy on the site"),
    "no-strict-dynamic": _hint("lists of hosts are often bypassed", "hashes or 'nonce' with 'strict-dynamic'"),
    "shown-from-anywhere": _hint("content from any host can carry data out of the page", "the hosts that are needed"),
    "wildcard-subdomains": _hint("every subdomain is allowed", "the hosts that are needed"),
    "ignored-in-report-only": _hint("a report-only policy ignores {directive}", "it in the enforced policy"),
    "no-inline-fallback": _hint(
        "browsers of CSP level 1 run no inline script", "nothing: they lack today's TLS anyway"
    ),
    "no-host-fallback": _hint("browsers of CSP level 2 run no script", "nothing: they lack today's TLS anyway"),
    "no-trusted-types": _hint(
        "DOM sinks take any string", "require-trusted-types-for 'script' where the application can"
    ),
    "no-reporting": _hint("nobody hears of what is blocked", "where reports go, e.g. [/csp-report]"),
    "report-to-only": _hint("not every browser knows report-to", "report-uri beside it"),
}
