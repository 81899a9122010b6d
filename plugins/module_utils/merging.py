# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""JSON files that a role shares with others: its own keys are brought and taken away, those of others stay.

How deep objects are merged is said by a depth: with 1 the keys of the outermost object count, each with its whole
value; with 2 those of the objects in it. A key is named by its path, such as ``["auths", "ghcr.io"]``.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

Object = dict[str, Any]
Path = list[str]


def parsed(data: bytes) -> Object:
    """The object in a JSON file; an empty file has an empty one. ValueError for whatever is no object."""
    if not data.strip():
        return {}
    found = json.loads(data.decode("utf-8"), parse_constant=_refuse)
    if not isinstance(found, dict):
        raise ValueError("it is JSON, but no object in braces")
    return found


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


def written(value: Mapping[str, Any]) -> bytes:
    """An object as a file for people. ValueError for numbers that JSON does not have."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def same(one: object, other: object) -> bool:
    """Whether two values are the same JSON: unlike Python, it tells true from 1."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def differing(one: Object, other: Object) -> set[str]:
    """The outermost keys whose values differ, or that only one of the two has."""
    missing = object()
    return {
        key
        for key in {*one, *other}
        if key not in one or key not in other or not same(one.get(key, missing), other.get(key, missing))
    }


def keys_of(wanted: Object, depth: int) -> list[Path]:
    """The paths of all keys that an object brings."""
    return list(_paths(wanted, depth))


def _paths(wanted: Object, depth: int) -> Iterator[Path]:
    for key, value in wanted.items():
        if depth > 1 and isinstance(value, dict):
            yield from ([key, *below] for below in _paths(value, depth - 1))
        else:
            yield [key]


def merged(there: Object, wanted: Object, former: Sequence[Sequence[str]], depth: int) -> Object:
    """What is there, with all that is wanted, and without those ``former`` keys that are not wanted any more."""
    whole, ours = copy.deepcopy(there), keys_of(wanted, depth)
    for path in former:
        if list(path) not in ours:
            _take_away(whole, path)
    _bring(whole, wanted, depth)
    return whole


def _take_away(tree: Object, path: Sequence[str]) -> None:
    head, *rest = path
    below = tree.get(head)
    if rest and isinstance(below, dict):
        _take_away(below, rest)
    if not rest or below == {}:
        tree.pop(head, None)


def _bring(tree: Object, wanted: Object, depth: int) -> None:
    for key, value in wanted.items():
        if not (depth > 1 and isinstance(value, dict)):
            tree[key] = value
        elif value:
            if not isinstance(tree.get(key), dict):
                tree[key] = {}
            _bring(tree[key], value, depth - 1)
