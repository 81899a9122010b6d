# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Judges a Content-Security-Policy: every rule of csp_rules that it breaks."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.fushuma.production.plugins.plugin_utils import csp_rules as rules
from ansible_collections.fushuma.production.plugins.plugin_utils.csp_hosts import bypass_of
from ansible_collections.fushuma.production.plugins.plugin_utils.csp_policy import (
    HASH_SOURCE,
    NONCE,
    NONCE_SOURCE,
    SCHEME_SOURCE,
    SOURCE,
    Policy,
    canonical,
    effective,
    read,
    trusts,
)
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import value_of


@dataclass(frozen=True)
class Finding:
    """One rule that a policy breaks.

    rule, severity: of csp_rules.RULES. directive, source: where; source is "" when it is about the whole directive.
    at: the position of the source in its list. value, why, instead: as in Problem.
    """

    rule: str
    severity: rules.Severity
    directive: str
    source: str
    at: int | None
    value: str
    why: str
    instead: str


def _found(
    rule: str, directive: str, source: str = "", at: int | None = None, value: str | None = None, **words: str
) -> Finding:
    words |= {"directive": directive, "source": source}
    entry = rules.RULES[rule]
    return Finding(
        rule=rule,
        severity=entry.severity,
        directive=directive,
        source=source,
        at=at,
        value=value_of(source) if value is None else value,
        why=entry.why.format_map(words),
        instead=entry.instead.format_map(words),
    )


def _closest(name: str, known: Iterable[str], otherwise: str) -> str:
    return next(iter(difflib.get_close_matches(name.lower().strip(":"), sorted(known), n=1)), otherwise)


# --- Form: is it a policy at all? ------------------------------------------------------------------------------------


def _sound(policy: Mapping[str, object]) -> tuple[Policy, list[Finding]]:
    """The part of the policy that has the right shape, its sources in canonical form; findings about the rest."""
    sound: Policy = {}
    wrong = []
    for name, sources in policy.items():
        directive = str(name)  # YAML also has keys that are numbers
        if not isinstance(sources, Sequence) or isinstance(sources, (str, bytes)):
            listed = json.dumps(sources.split(), ensure_ascii=False) if isinstance(sources, str) else "[] or a list"
            wrong.append(_found("shape", directive, value=value_of(sources), detail=listed))
            continue
        for at, source in enumerate(sources):
            if not isinstance(source, str):
                wrong.append(_found("shape", directive, at=at, value=value_of(source), detail="a string"))
        sound[directive] = [canonical(source) if isinstance(source, str) else "" for source in sources]
    return sound, wrong


def _name(directive: str, sources: Sequence[str]) -> Iterator[Finding]:
    value = value_of(list(sources))
    if directive in rules.DEPRECATED:
        detail, replacement = rules.DEPRECATED[directive]
        yield _found("deprecated-directive", directive, value=value, detail=detail, replacement=replacement)
    elif directive not in rules.DIRECTIVES:
        closest = _closest(directive, rules.DIRECTIVES, "a directive of CSP Level 3")
        yield _found("unknown-directive", directive, value=value, closest=closest)


_HASH_CHARACTERS = {"sha256": 43, "sha384": 64, "sha512": 86}  # of base64 without padding
_SHORTEST_NONCE = 22  # base64 characters that hold the 128 bits of CSP3 §7.1
_FORMER_KEYWORDS = {"wasm-eval", "unsafe-hashed-attributes"}
_BARE_KEYWORDS = {keyword.strip("'") for keyword in rules.KEYWORDS} | _FORMER_KEYWORDS
_BARE_VALUE = re.compile(r"(?:nonce|sha256|sha384|sha512)-", re.IGNORECASE)


def _quoted(directive: str, source: str, at: int) -> Iterator[Finding]:
    """A source in single quotes: a keyword, a nonce or a hash."""
    hashed = HASH_SOURCE.fullmatch(source)
    if hashed:
        algorithm, value = hashed.groups()
        wanted = _HASH_CHARACTERS[algorithm]
        if len(value.rstrip("=")) != wanted:
            detail = f"a {algorithm} value has {wanted} characters of base64 before its padding"
            yield _found("bad-hash", directive, source, at, detail=detail)
    elif source.startswith(("'sha", "'md5")):
        yield _found("bad-hash", directive, source, at, detail="it is not '<sha256, sha384 or sha512>-<base64>'")
    elif source.startswith("'nonce-"):
        if not NONCE_SOURCE.fullmatch(source):
            yield _found("bad-nonce", directive, source, at)
        value = source[len("'nonce-") :].rstrip("'")
        yield _found("short-nonce" if len(value) < _SHORTEST_NONCE else "static-nonce", directive, source, at)
    elif source not in rules.KEYWORDS:
        closest = _closest(source, rules.KEYWORDS, "a keyword of CSP Level 3")
        yield _found("unknown-keyword", directive, source, at, closest=closest)
    where = rules.KEYWORDS.get(source)
    if hashed or source.startswith("'nonce-"):
        where = rules.KEYWORDS[NONCE]
    if where and directive in rules.DIRECTIVES and directive not in where:
        yield _found("misplaced-keyword", directive, source, at)


_HOST_SOURCE = re.compile(
    r"(?:(?P<scheme>[a-z][a-z0-9+.-]*)://)?"
    r"(?P<host>\*|\[[0-9a-f:.]+\]|(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*)"
    r"(?::(?:\d{1,5}|\*))?"
    r"(?P<path>/[^?#]*)?",
    re.ASCII | re.IGNORECASE,
)


def _unparsable(source: str) -> tuple[str, str] | None:
    """Why an unquoted source is neither a scheme nor a host of CSP3 §2.3.1, and what to write; None if it is one."""
    if source in rules.BARE_SCHEMES:
        return "a scheme ends in a colon", f"{source}:"
    if SCHEME_SOURCE.fullmatch(source) or _HOST_SOURCE.fullmatch(source):
        return None
    if source.startswith("//"):
        return "a scheme stands before //", f"https:{source}"
    if "?" in source or "#" in source:
        return "it cannot hold a query or a fragment", re.split(r"[?#]", source)[0]
    return "scheme://host:port/path, with * only as the first label", "the host as https://name"


# Directives without sources: what each item looks like, how few and how many there may be, and that in words.
_ANY = 10**6
VALUES: Mapping[str, tuple[re.Pattern[str], int, int, str, str]] = {
    "report-to": (re.compile(r"[!#-&(-~]+"), 1, 1, "takes the name of one endpoint", "e.g. [csp]"),
    "report-uri": (re.compile(r"(?:https?://|/)\S*"), 1, _ANY, "takes URLs or absolute paths", "e.g. [/csp-report]"),
    "require-trusted-types-for": (re.compile("'script'"), 1, 1, "takes exactly 'script'", "[\"'script'\"]"),
    "sandbox": (
        re.compile("|".join(sorted(rules.SANDBOX_TOKENS, key=len, reverse=True))),
        0,
        _ANY,
        "takes the sandbox flags of HTML",
        "flags such as allow-scripts, or []",
    ),
    "trusted-types": (
        re.compile(r"\*|'none'|'allow-duplicates'|[A-Za-z0-9#=_/@.%-]+"),
        0,
        _ANY,
        "takes names of Trusted Types policies",
        "names of letters, digits and -#=_/@.%",
    ),
    "upgrade-insecure-requests": (re.compile("(?!)"), 0, 0, "takes no value", "[]"),
    "webrtc": (re.compile("'allow'|'block'"), 1, 1, "takes 'allow' or 'block'", "[\"'block'\"]"),
}


def _source(directive: str, sources: Sequence[str], at: int) -> Iterator[Finding]:
    """What is malformed in one source, whatever the directive."""
    source = sources[at]
    if not SOURCE.fullmatch(source):
        if source:  # "" stands for an item that was no string
            yield _found("character", directive, source, at)
    elif source in sources[:at]:
        yield _found("duplicate-source", directive, source, at)
    elif source in rules.DIRECTIVES or source in rules.DEPRECATED:
        yield _found("missing-semicolon", directive, source, at)
    elif source in _BARE_KEYWORDS or _BARE_VALUE.match(source):
        yield _found("unquoted-keyword", directive, source, at, replacement=f"'{source}'")
    elif source.startswith("'"):
        yield from _quoted(directive, source, at)
    elif directive in rules.SOURCE_LISTS:
        reason = _unparsable(source)
        if reason:
            yield _found("bad-source", directive, source, at, detail=reason[0], replacement=reason[1])


def _value(directive: str, sources: Sequence[str]) -> Iterator[Finding]:
    """What is wrong with the list as a whole, or with an item of a directive that takes no sources."""
    if directive in rules.SOURCE_LISTS and not sources:
        yield _found("empty-directive", directive, value="[]")
    if "'none'" in sources and len(sources) > 1 and directive in rules.KEYWORDS["'none'"]:
        yield _found("none-with-company", directive, "'none'", sources.index("'none'"))
    if directive in VALUES:
        pattern, fewest, most, detail, replacement = VALUES[directive]
        if not fewest <= len(sources) <= most:
            value = value_of(list(sources))
            yield _found("unexpected-value", directive, value=value, detail=detail, replacement=replacement)
        for at, source in enumerate(sources):
            if not pattern.fullmatch(source) and most:
                yield _found("unexpected-value", directive, source, at, detail=detail, replacement=replacement)


def _form(policy: Policy) -> Iterator[Finding]:
    for directive, sources in policy.items():
        yield from _name(directive, sources)
        yield from _value(directive, sources)
        for at in range(len(sources)):
            yield from _source(directive, sources, at)


# --- Safety: what does it let an attacker do? ------------------------------------------------------------------------


def _governing(policy: Policy, family: Iterable[str]) -> list[str]:
    """The directives of this policy that decide for a family (script-src, -elem, -attr), each once."""
    names = (effective(policy, directive) for directive in family)
    return list(dict.fromkeys(name for name in names if name))


def _ignored(policy: Policy, directive: str, source: str) -> str | None:
    """Why browsers ignore a source because of another one in the same directive (CSP3 §6.7.2, §6.7.3); else None."""
    sources = policy[directive]
    dynamic = "'strict-dynamic'" in sources and directive in _governing(policy, rules.SCRIPT)
    if dynamic and (source in ("'self'", "'unsafe-inline'") or not source.startswith("'")):
        return "'strict-dynamic' makes browsers ignore it"
    if source == "'unsafe-inline'" and trusts(sources):
        return "a nonce or a hash makes browsers ignore it"
    return None


def _scheme(directive: str, source: str, at: int) -> Iterator[Finding]:
    """A source that is a whole scheme, such as ``https:``."""
    if source in rules.NETWORK_SCHEMES:
        if directive not in rules.SHOWN:
            yield _found("plain-scheme", directive, source, at, detail="it allows every host there is")
        elif source in ("http:", "ws:"):
            yield _found("insecure-source", directive, source, at)
        else:
            yield _found("shown-from-anywhere", directive, source, at)
    elif source in rules.LOCAL_SCHEMES:
        if directive not in rules.LOCAL_SCHEMES[source]:
            yield _found("plain-scheme", directive, source, at, detail="an attacker makes up what such a URL holds")
    elif directive in rules.RUNS_CODE:
        yield _found("plain-scheme", directive, source, at, detail="everything of that scheme could run here")


def _host(policy: Policy, directive: str, source: str, at: int) -> Iterator[Finding]:
    """A source that is a host, with or without scheme, port and path."""
    match = _HOST_SOURCE.fullmatch(source)
    if not match:
        return
    host, path = match["host"].lower(), match["path"] or ""
    if host == "*" or (host.startswith("*.") and host.count(".") == 1):
        yield _found("shown-from-anywhere" if directive in rules.SHOWN else "wildcard", directive, source, at)
    elif host.startswith("*."):
        rule = "wildcard-host" if directive in rules.RUNS_CODE else "wildcard-subdomains"
        yield _found(rule, directive, source, at)
    if directive in _governing(policy, rules.SCRIPT[:2]):
        bypass = bypass_of(host, path, evaluates=not rules.EVAL.isdisjoint(policy[directive]))
        if bypass:
            yield _found("bypass-host", directive, source, at, detail=bypass)
        else:
            yield _found("script-host", directive, source, at)


_ADDRESS = re.compile(
    r"(?:(?:[a-z][a-z0-9+.-]*:)?//)?(?:\[[0-9a-f:.]+\]|\d{1,3}(?:\.\d{1,3}){3})(?::(?:\d+|\*))?(?:/.*)?",
    re.ASCII | re.IGNORECASE,
)
_INSECURE = re.compile(r"(?:http|ws)://", re.IGNORECASE)
_NOTHING_IS_BEST = {"default-src": "default-open", "object-src": "object-source"}
_KEYWORD_RULES = {**dict.fromkeys(rules.EVAL, "unsafe-eval"), "'unsafe-hashes'": "unsafe-hashes"}


def _keyword(policy: Policy, directive: str, source: str, at: int) -> Iterator[Finding]:
    if source == "'unsafe-inline'":
        if directive in _governing(policy, rules.SCRIPT):
            yield _found("unsafe-inline-script", directive, source, at)
        elif directive in _governing(policy, rules.STYLE):
            yield _found("unsafe-inline-style", directive, source, at)
    elif source in _KEYWORD_RULES:
        yield _found(_KEYWORD_RULES[source], directive, source, at)
    elif source == "'strict-dynamic'" and not trusts(policy[directive]):
        yield _found("strict-dynamic-alone", directive, source, at)
    elif source == "'self'" and directive in _governing(policy, rules.SCRIPT[:2]):
        yield _found("script-self", directive, source, at)


def _safety(policy: Policy, directive: str, at: int) -> Iterator[Finding]:
    """What one source lets an attacker do."""
    source = policy[directive][at]
    if directive in _NOTHING_IS_BEST and source != "'none'":
        yield _found(_NOTHING_IS_BEST[directive], directive, source, at)
    if _INSECURE.match(source):
        yield _found("insecure-source", directive, source, at)
    if _ADDRESS.fullmatch(source):
        yield _found("ip-source", directive, source, at)
    ignored = _ignored(policy, directive, source)
    if ignored:
        yield _found("ignored-source", directive, source, at, detail=ignored)
    elif source.startswith("'"):
        yield from _keyword(policy, directive, source, at)
    elif directive in rules.SOURCE_LISTS and SCHEME_SOURCE.fullmatch(source):
        yield from _scheme(directive, source, at)
    elif directive in rules.SOURCE_LISTS:
        yield from _host(policy, directive, source, at)


def _missing(policy: Policy, report_only: bool) -> Iterator[Finding]:
    """What the policy does not say, or says where it is not heard."""
    if report_only:
        for directive in sorted(rules.NOT_IN_REPORT_ONLY & policy.keys()):
            yield _found("ignored-in-report-only", directive, value=value_of(policy[directive]))
    else:
        for directive, (detail, replacement) in rules.REQUIRED.items():
            if effective(policy, directive) is None:
                yield _found("missing-directive", directive, value="missing", detail=detail, replacement=replacement)
    if not policy.get("report-uri"):
        if policy.get("report-to"):
            yield _found("report-to-only", "report-to", value=value_of(policy["report-to"]))
        else:
            yield _found("unreported" if report_only else "no-reporting", "report-uri", value="missing")
    if "'script'" not in policy.get("require-trusted-types-for", ()):
        yield _found("no-trusted-types", "require-trusted-types-for", value="missing")


def _strictness(policy: Policy) -> Iterator[Finding]:
    """How far script-src is from hashes or nonces with 'strict-dynamic', and from what old browsers need."""
    for directive in _governing(policy, rules.SCRIPT[:1]):
        sources = policy[directive]
        value = value_of(sources)
        dynamic = "'strict-dynamic'" in sources
        if not dynamic and any(not source.startswith("'") for source in sources):
            yield _found("no-strict-dynamic", directive, value=value)
        if trusts(sources) and "'unsafe-inline'" not in sources:
            yield _found("no-inline-fallback", directive, value=value)
        if dynamic and not any(source in ("http:", "https:", "*") or "." in source for source in sources):
            yield _found("no-host-fallback", directive, value=value)


def findings(policy: Mapping[str, object] | str, *, report_only: bool = False) -> list[Finding]:
    """Every rule a policy breaks, hints included, in the order of the policy.

    policy: directives to lists of sources, or the text of a header, of which also that is judged which browsers drop.
    report_only: it goes into Content-Security-Policy-Report-Only. Such a policy blocks nothing, so it may leave
    directives out, but it has to say where reports go.
    """
    if isinstance(policy, str):
        parsed, repeated, dropped = read(policy)
        found = [_found("duplicate-directive", name, value=value_of(parsed[name])) for name in repeated]
        found += [_found("not-ascii", text.partition(" ")[0].lower(), value=value_of(text)) for text in dropped]
        # A nonce in a header that was sent is as it should be; whether it changes, one header does not tell.
        return found + [one for one in findings(parsed, report_only=report_only) if one.rule != "static-nonce"]
    sound, wrong = _sound(policy)
    safety = (
        finding
        for directive, sources in sound.items()
        for at, source in enumerate(sources)
        if source not in sources[:at]  # twice is said already
        for finding in _safety(sound, directive, at)
    )
    return [*wrong, *_form(sound), *safety, *_missing(sound, report_only), *_strictness(sound)]
