"""Settings against argument_specs: what is said about each misfit, and how nested defaults come in."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.plugin_utils import specs

OPTIONS: specs.Options = {
    "web_port": {"type": "int", "default": 80},
    "web_name": {"type": "str", "required": True},
    "web_level": {"type": "str", "choices": ["low", "high"], "default": "low"},
    "web_tls": {"type": "dict", "default": {}, "options": {"on": {"type": "bool", "default": True}}},
    "web_kinds": {"type": "list", "elements": "str", "choices": ["x", "y"], "default": ["x"]},
    "web_free": {"type": "dict", "default": {}},
    "web_sites": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "weight": {"type": "float", "default": 1.5},
            "proxy": {"type": "dict", "options": {"timeout": {"type": "int", "default": 5}}},
            "tags": {"type": "list", "elements": "str", "default": []},
            "root": {"type": "path"},
        },
    },
}


@pytest.mark.parametrize(
    ("settings", "sentences"),
    [
        ({"web_name": "a"}, []),
        ({"web_name": "a", "web_port": "8080", "web_level": "high", "web_free": {"any": 1}}, []),
        ({"web_name": 7}, []),
        (
            {},
            [
                "web_name is missing: it has no default that could be right for you. "
                "Write one text, in quotes where it could be read as something else."
            ],
        ),
        (
            {"web_name": "a", "web_port": "8o80"},
            ['web_port is "8o80": a whole number is needed. Write for example 80.'],
        ),
        ({"web_name": "a", "web_port": True}, ["web_port is true: a whole number is needed. Write for example 80."]),
        ({"web_name": "a", "web_port": 8.5}, ["web_port is 8.5: a whole number is needed. Write for example 80."]),
        (
            {"web_name": "a", "web_level": "medium"},
            ['web_level is "medium": it is none of the choices. Write one of low, high.'],
        ),
        ({"web_name": "a", "web_kinds": ["y", "x"]}, []),
        (
            {"web_name": "a", "web_kinds": ["y", "z"]},
            ['web_kinds[1] is "z": it is none of the choices. Write one of x, y.'],
        ),
        (
            {"web_name": "a", "web_tls": {"onn": True}},
            ["web_tls.onn is true: nothing reads a setting of this name. Write on, if that is meant."],
        ),
        (
            {"web_name": "a", "web_tls": {"zzzz": 1}},
            ["web_tls.zzzz is 1: nothing reads a setting of this name. Write one of on."],
        ),
        (
            {"web_name": "a", "web_tls": ["x"]},
            [
                'web_tls is ["x"]: a group of settings is needed. '
                "Write one `key: value` a line, indented below the name."
            ],
        ),
        (
            {"web_name": ["a"]},
            [
                'web_name is ["a"]: a text is needed. '
                "Write one text, in quotes where it could be read as something else."
            ],
        ),
        (
            {"web_name": "a", "web_sites": [{"name": "x", "tags": "one"}, {"weight": True, "proxy": {"timeout": "x"}}]},
            [
                'web_sites[0].tags is "one": a list is needed. Write each element on a line of its own, after `- `.',
                "web_sites[1].name is missing: it has no default that could be right for you. "
                "Write one text, in quotes where it could be read as something else.",
                'web_sites[1].proxy.timeout is "x": a whole number is needed. Write for example 5.',
                "web_sites[1].weight is true: a number is needed. Write for example 1.5.",
            ],
        ),
    ],
)
def test_problems(settings: dict[str, Any], sentences: list[str]) -> None:
    assert sorted(problem.sentence() for problem in specs.problems(OPTIONS, settings)) == sentences


def test_defaults_reach_every_depth_and_types_are_right() -> None:
    given = {"web_name": 7, "web_tls": {"on": "no"}, "web_sites": [{"name": "x", "proxy": {}, "weight": "2"}]}
    assert specs.filled(OPTIONS, given) == {
        "web_port": 80,
        "web_name": "7",
        "web_level": "low",
        "web_kinds": ["x"],
        "web_tls": {"on": False},
        "web_free": {},
        "web_sites": [{"name": "x", "weight": 2.0, "proxy": {"timeout": 5}, "tags": [], "root": None}],
    }


def test_a_group_that_is_not_given_stays_away() -> None:
    assert specs.filled(OPTIONS, {"web_name": "a", "web_sites": [{"name": "x"}]})["web_sites"][0]["proxy"] is None


def test_long_values_are_cut_and_secrets_only_counted() -> None:
    assert len(specs.value_of("x" * 500)) == 120
    assert specs.value_of("hunter2", secret=True) == "a secret of 7 characters"
