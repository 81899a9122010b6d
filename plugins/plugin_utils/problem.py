# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A setting that cannot work, and the one form in which every judge of this collection says so."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

LONGEST_VALUE = 120


@dataclass(frozen=True, order=True)
class Problem:
    """One wrong setting.

    setting: where it stands, as the operator writes it: ``nginx_sites[0].csp.policy.script-src``.
    value:   what stands there, as JSON; never a secret (use ``value_of(..., secret=True)``).
    why:     why it cannot work, a clause that follows "is <value>: " and has no full stop.
    instead: a form that would work, a clause that follows "Write " and has no full stop.
    """

    setting: str
    value: str
    why: str
    instead: str

    def sentence(self, host: str = "") -> str:
        """The problem as an operator reads it; ``host`` is left out where one host is meant anyway."""
        prefix = f"{host}: " if host else ""
        return f"{prefix}{self.setting} is {self.value}: {self.why}. Write {self.instead}."

    def under(self, prefix: str) -> Problem:
        """The same problem seen from the structure that holds the setting."""
        joined = f"{prefix}{self.setting}" if self.setting.startswith("[") else f"{prefix}.{self.setting}"
        return replace(self, setting=joined if self.setting else prefix)


def value_of(value: object, *, secret: bool = False) -> str:
    """A value as it is quoted in a problem: JSON, cut to one line; a secret only by its length."""
    if secret:
        return f"a secret of {len(str(value))} characters"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"


def sentences(problems: Iterable[Problem], host: str = "") -> list[str]:
    """All problems as sentences, in a stable order, each once."""
    return [problem.sentence(host) for problem in sorted(set(problems))]


def repeated(setting: str, groups: Sequence[Mapping[str, Any]], key: str) -> Iterator[Problem]:
    """A problem for each group of the list that has the same value for ``key`` as one before it."""
    seen: dict[Any, int] = {}
    for number, one in enumerate(groups):
        if one[key] in seen:
            why = f"{setting}[{seen[one[key]]}] has it already"
            yield Problem(f"{setting}[{number}].{key}", value_of(one[key]), why, f"another {key}")
        seen.setdefault(one[key], number)
