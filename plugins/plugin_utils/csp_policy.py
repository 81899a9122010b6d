# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A Content-Security-Policy as data: read, written, extended. Judging it is csp_judge's part.

A policy maps directives to lists of sources: ``{"default-src": ["'none'"], "upgrade-insecure-requests": []}``.
The source ``'nonce'`` stands for a value that is new in every response and known only where the header is sent.
Rules are those of W3C Content Security Policy Level 3 (CSP3), quoted by section.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

Policy = dict[str, list[str]]

NONCE = "'nonce'"
WHITESPACE = "\t\n\f\r "  # ASCII whitespace as the Infra standard defines it

DIRECTIVE_NAME = re.compile(r"[A-Za-z0-9-]+", re.ASCII)
# What a value may hold: visible ASCII (CSP3 §2.2.1) without the two characters that separate directives and policies,
# and without the three that end or change a string in nginx's double quotes.
SOURCE = re.compile(r"[!#%-+\--:<-\[\]-~]+", re.ASCII)
NONCE_VALUE = re.compile(r"[A-Za-z0-9+/_-]+={0,2}", re.ASCII)
NONCE_VARIABLE = re.compile(r"\$(?:\w+|\{\w+\})", re.ASCII)
NONCE_SOURCE = re.compile(r"'nonce-[A-Za-z0-9+/_-]+={0,2}'", re.ASCII)
HASH_SOURCE = re.compile(r"'(sha256|sha384|sha512)-([A-Za-z0-9+/_-]+={0,2})'", re.ASCII)
SCHEME_SOURCE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:", re.ASCII)
_CASED_KEYWORD = re.compile(r"'(nonce|sha\d+|md5)-", re.ASCII | re.IGNORECASE)

_DEFAULT = ("default-src",)
# Where a browser looks when a fetch directive is missing (CSP3 §6.8.3).
FALLBACKS: Mapping[str, tuple[str, ...]] = {
    "default-src": (),
    "child-src": _DEFAULT,
    "connect-src": _DEFAULT,
    "font-src": _DEFAULT,
    "frame-src": ("child-src", *_DEFAULT),
    "img-src": _DEFAULT,
    "manifest-src": _DEFAULT,
    "media-src": _DEFAULT,
    "object-src": _DEFAULT,
    "script-src": _DEFAULT,
    "script-src-attr": ("script-src", *_DEFAULT),
    "script-src-elem": ("script-src", *_DEFAULT),
    "style-src": _DEFAULT,
    "style-src-attr": ("style-src", *_DEFAULT),
    "style-src-elem": ("style-src", *_DEFAULT),
    "worker-src": ("child-src", "script-src", *_DEFAULT),
}


def canonical(source: str) -> str:
    """A source as browsers compare it: keywords, schemes and names of algorithms match in any case (CSP3 §2.3.1)."""
    cased = _CASED_KEYWORD.match(source)
    if cased:
        return cased.group().lower() + source[cased.end() :]
    return source.lower() if source.startswith("'") or SCHEME_SOURCE.fullmatch(source) else source


def effective(policy: Mapping[str, Sequence[str]], directive: str) -> str | None:
    """The name of the directive that governs ``directive`` in this policy; None if nothing restricts it."""
    candidates = (directive, *FALLBACKS.get(directive, ()))
    return next((name for name in candidates if name in policy), None)


def trusts(sources: Sequence[str]) -> bool:
    """Whether a nonce or a hash stands among them."""
    return any(source == NONCE or NONCE_SOURCE.fullmatch(source) or HASH_SOURCE.fullmatch(source) for source in sources)


def allows_inline(sources: Sequence[str]) -> bool:
    """Whether 'unsafe-inline' stands among them and has an effect: what ends it is listed in CSP3 §6.7.3.2."""
    return "'unsafe-inline'" in sources and "'strict-dynamic'" not in sources and not trusts(sources)


def _rendered(directive: str, source: str, nonce: str | None) -> str:
    if not SOURCE.fullmatch(source):
        raise ValueError(
            f"{source!r} in {directive} holds a character that would end the header, the directive or nginx's quoted "
            "string; percent-encode it (RFC 3986), or make each source an item of the list"
        )
    if canonical(source) != NONCE:
        return source
    if nonce is None:
        raise ValueError(f"{directive} uses 'nonce', but there is no value that is new in every response")
    return f"'nonce-{nonce}'"


def header(policy: Mapping[str, Sequence[str]], *, nonce: str | None = None) -> str:
    """The value of the header: default-src first, then the order given.

    nonce: what ``'nonce'`` becomes: an nginx variable (``$request_id``) or a base64 value.
    The result fits into an HTTP header and, but for that variable, into nginx's double quotes as it is. ValueError:
    a name or a source that would break out of either, or a nonce that is needed and missing, or malformed.
    """
    if nonce is not None and not (NONCE_VALUE.fullmatch(nonce) or NONCE_VARIABLE.fullmatch(nonce)):
        raise ValueError(f"the nonce {nonce!r} is neither an nginx variable such as $request_id nor a base64 value")
    directives = []
    for directive in sorted(policy, key=lambda name: name != "default-src"):
        if not DIRECTIVE_NAME.fullmatch(directive):
            raise ValueError(f"{directive!r} is no name of a directive: letters, digits and hyphens make one")
        rendered = [_rendered(directive, source, nonce) for source in policy[directive]]
        directives.append(" ".join([directive, *rendered]))
    return "; ".join(directives)


def read(text: str) -> tuple[Policy, list[str], list[str]]:
    """A header's value as browsers read it (CSP3 §2.2.1), and what they drop without a word.

    Returns the policy, the names of directives that came again (the first wins), and the directives dropped because
    they are not ASCII. Commas separate policies in a header; ``text`` is one policy, so they stay where they are.
    """
    policy: Policy = {}
    repeated, dropped = [], []
    for token in text.split(";"):
        words = [word for word in re.split(f"[{WHITESPACE}]+", token) if word]
        if not words:
            continue
        name = words[0].lower()
        if not token.isascii():
            dropped.append(" ".join(words))
        elif name in policy:
            repeated.append(name)
        else:
            policy[name] = [canonical(word) for word in words[1:]]
    return policy, repeated, dropped


def parse(text: str) -> Policy:
    """A header's value as browsers read it. Never fails: what browsers ignore, ``findings(text)`` names."""
    return read(text)[0]


def _joined(sources: Sequence[str], more: Sequence[str]) -> list[str]:
    added = [canonical(source) for source in more]
    others = [source for source in added if not HASH_SOURCE.fullmatch(source)]
    if allows_inline([*sources, *others]):
        added = others
    result = list(dict.fromkeys([*sources, *added]))
    return [source for source in result if source != "'none'"] or result[:1]


def merge(policy: Mapping[str, Sequence[str]], additions: Mapping[str, Sequence[str]]) -> Policy:
    """The policy with more sources; no directive loses one but 'none', and merging twice changes nothing.

    - 'none' goes when something joins it.
    - A fetch directive the policy leaves to its fallback starts with the sources of that fallback, so that a hash
      added to script-src does not take away what default-src allowed.
    - Sources added to script-src or style-src also reach script-src-elem or style-src-elem if the policy has one:
      that is where browsers look for the hash of an element.
    - A hash is left out where 'unsafe-inline' is in effect: it would end that effect.
    """
    result: Policy = {directive: list(sources) for directive, sources in policy.items()}
    for directive, more in additions.items():
        for name in (directive, f"{directive}-elem"):
            if name in policy or additions.get(name) or (name == directive and name not in FALLBACKS):
                start = result[name] if name in result else policy.get(effective(policy, name) or "", [])
                result[name] = _joined(start, more)
    return result
