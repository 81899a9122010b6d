# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who gets an alert: matchers and routes, followed as Alertmanager follows them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.fushuma.production.plugins.plugin_utils import specs

Labels = Mapping[str, str]
Route = Mapping[str, Any]

MATCHER = re.compile(r'\s*([A-Za-z_][A-Za-z0-9_]*)\s*(=~|!~|!=|=)\s*(?:"((?:[^"\\]|\\.)*)"|([^\s"{},]*))\s*')
ESCAPES = {"n": "\n", '"': '"', "\\": "\\"}


@dataclass(frozen=True)
class Matcher:
    """One condition on a label. One that an alert does not have counts as an empty text."""

    label: str
    operator: str
    value: str

    def holds(self, labels: Labels) -> bool:
        found = str(labels.get(self.label, ""))
        same = bool(re.fullmatch(self.value, found)) if "~" in self.operator else self.value == found
        return same != self.operator.startswith("!")

    def __str__(self) -> str:
        value = self.value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
        return f'{self.label}{self.operator}"{value}"'


def matcher(text: str) -> Matcher:
    """A matcher as Alertmanager writes them; raises ValueError, in words, for what is none."""
    found = MATCHER.fullmatch(text)
    if not found:
        raise ValueError("it is no matcher")
    label, operator, quoted, bare = found.groups()
    value = bare if quoted is None else re.sub(r"\\(.)", lambda one: ESCAPES.get(one[1], one[0]), quoted)
    if "~" in operator:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"it is no regular expression ({error})") from error
    return Matcher(label, operator, value)


def whole(routes: Sequence[Route]) -> list[dict[str, Any]]:
    """Routes with all defaults, at any depth: argument_specs know of no structure within itself."""
    options = {"routes": specs.role_options("alertmanager")["alertmanager_routes"]}
    filled = specs.filled(options, {"routes": routes})["routes"]
    return [{**one, "routes": whole(one["routes"])} for one in filled]


def takers(routes: Sequence[Route], labels: Labels) -> list[Route]:
    """The routes, of whatever depth, that take an alert; none where the one around them does. They are whole."""
    found: list[Route] = []
    for one in routes:
        if not all(matcher(text).holds(labels) for text in one["matchers"]):
            continue
        below = takers(one["routes"], labels)
        # What a route does not say is said by the one around it.
        found += [{**inner, "receiver": inner["receiver"] or one["receiver"]} for inner in below] or [one]
        if not one["continue"]:
            break
    return found


def receivers(routes: Sequence[Route], labels: Labels, otherwise: str) -> list[str]:
    """The receivers that get an alert, in the order of their routes."""
    return [one["receiver"] or otherwise for one in takers(routes, labels)] or [otherwise]


def paths(routes: Sequence[Route], above: Sequence[Route] = (), prefix: str = "") -> Iterator[tuple[str, list[Route]]]:
    """All routes, each with its place and itself behind those around it."""
    for number, one in enumerate(routes):
        place, path = f"{prefix}[{number}]", [*above, one]
        yield place, path
        yield from paths(one["routes"], path, f"{place}.routes")


def may_take(path: Sequence[Route], label: str, value: str) -> bool:
    """Whether a route may get an alert with this label, as far as the conditions on the label say."""
    conditions = [matcher(text) for one in path for text in one["matchers"]]
    return all(one.holds({label: value}) for one in conditions if one.label == label)
