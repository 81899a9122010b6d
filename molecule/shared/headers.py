"""The security headers that every response of a site carries, each once."""

from __future__ import annotations

from collections.abc import Iterable

from web import Answer

SECURITY_HEADERS = (
    "Content-Security-Policy",
    "Cross-Origin-Opener-Policy",
    "Cross-Origin-Resource-Policy",
    "Permissions-Policy",
    "Referrer-Policy",
    "Reporting-Endpoints",
    "Strict-Transport-Security",
    "X-Content-Type-Options",
    "X-Frame-Options",
)


def wrong_headers(answer: Answer, without: Iterable[str] = ()) -> list[str]:
    """Which security headers the answer does not carry just once, and those of ``without`` that it carries at all."""
    never = set(without)
    counts = {name: len(answer.all(name)) for name in {*SECURITY_HEADERS, *never}}
    return [f"{name}: {count} times" for name, count in sorted(counts.items()) if count != (name not in never)]
