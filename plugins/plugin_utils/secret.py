# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Secrets that protect nothing: placeholders, and ones short enough to be guessed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.fushuma.production.plugins.plugin_utils.problem import Problem, value_of
from ansible_collections.fushuma.production.plugins.plugin_utils.specs import Options

# Without a limit on attempts a guessable secret falls offline; NIST SP 800-63B-4 §3.1.1.2 asks for 15 characters
# where a password stands alone.
SHORTEST = 15
PLACEHOLDER = re.compile(
    r"change.?me|replace.?me|pass.?word|passwd|secret|example|dummy|sample|placeholder|default|todo|fixme|admin"
    r"|your[-_ ]|letmein|qwerty|(?<![1-9])12345|<[^>]*>|x{4,}|\*{4,}|\.{3,}",
    re.IGNORECASE,
)
# Hexadecimal digits are harmless wherever a secret may stand: in URLs, in shells, in configurations.
FORM = "the output of `openssl rand -hex 24`, kept in a vault file"


def problems(options: Options, settings: Mapping[str, Any]) -> list[Problem]:
    """Weak values of all options that the spec marks as secret (``no_log: true``), at any depth."""
    return [problem for name, value in secrets(options, settings) for problem in weak(name, value)]


def secrets(options: Options, settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The values of all options that the spec marks as secret, at any depth, each with where it stands."""
    for name, option in options.items():
        value, setting = settings.get(name), f"{prefix}{name}"
        if not value:
            continue
        if option.get("no_log"):
            yield from _texts(setting, value)
        elif "options" in option:
            groups = value if option["type"] == "list" else [value]
            for index, group in enumerate(groups):
                if not isinstance(group, Mapping):
                    continue  # a setting of the wrong shape, of which others say so
                below = f"{setting}[{index}]." if option["type"] == "list" else f"{setting}."
                yield from secrets(option["options"], group, below)


def _texts(setting: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from _texts(f"{setting}.{key}", one)
    elif isinstance(value, (list, tuple)):
        for index, one in enumerate(value):
            yield from _texts(f"{setting}[{index}]", one)
    else:
        yield setting, str(value)


def weak(setting: str, value: str) -> list[Problem]:
    """Why this secret protects nothing; it is never repeated. Keys in PEM form are judged by those who use them."""
    shown = value_of(value, secret=True)
    if "-----BEGIN " in value:
        return []
    if PLACEHOLDER.search(value) or len(set(value)) < 5:
        return [Problem(setting, shown, "it is a placeholder that anybody would try first", FORM)]
    if len(value) < SHORTEST:
        return [Problem(setting, shown, f"less than {SHORTEST} characters can be guessed", FORM)]
    return []


def without_former(settings: Any) -> Any:
    """Settings in which no secret of before counts any more: what is called ``former_…``, at any depth, is away."""
    if isinstance(settings, Mapping):
        kept = {key: value for key, value in settings.items() if not str(key).startswith("former_")}
        return {key: without_former(value) for key, value in kept.items()}
    if isinstance(settings, (list, tuple)):
        return [without_former(one) for one in settings]
    return settings
