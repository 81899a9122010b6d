# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A JSON file that two share: what is brought arrives, what was brought goes, and what is the other's stays."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.module_utils import merging
from ansible_collections.fushuma.production.plugins.module_utils.journal import TransactionError
from ansible_collections.fushuma.production.plugins.module_utils.merging import keys_of, merged, parsed, same, written
from ansible_collections.fushuma.production.plugins.module_utils.transaction import (
    File,
    Outcome,
    Service,
    converge,
    diffs,
)
from hypothesis import given
from hypothesis import strategies as st

from .conftest import Host

UNIT = "web.service"

names = st.sampled_from(["a", "b", "c"])
leaves = st.one_of(
    st.booleans(), st.integers(-2, 2), st.text(max_size=2), st.none(), st.lists(st.booleans(), max_size=1)
)
# Objects that have something in them, for one in which nothing is left goes.
objects = st.dictionaries(names, st.one_of(leaves, st.dictionaries(names, leaves, min_size=1, max_size=2)), max_size=3)
depths = st.integers(1, 3)


def at(tree: Any, path: list[str]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


@given(there=objects, wanted=objects, depth=depths)
def test_what_is_wanted_arrives_and_then_rests(there: Any, wanted: Any, depth: int) -> None:
    before = copy.deepcopy((there, wanted))
    whole = merged(there, wanted, [], depth)
    assert (there, wanted) == before
    for path in keys_of(wanted, depth):
        assert same(at(whole, path), at(wanted, path))
    assert same(merged(whole, wanted, keys_of(wanted, depth), depth), whole)
    assert parsed(written(whole)) == whole


@given(there=objects, wanted=objects, depth=depths)
def test_what_is_not_wanted_stays_as_it_is(there: Any, wanted: Any, depth: int) -> None:
    whole, ours = merged(there, wanted, [], depth), keys_of(wanted, depth)
    for path in keys_of(there, depth):
        if not any(path[: len(one)] == one or one[: len(path)] == path for one in ours):
            assert same(at(whole, path), at(there, path))


@given(there=objects, first=objects, second=objects, depth=depths)
def test_what_was_brought_leaves_nothing_behind(there: Any, first: Any, second: Any, depth: int) -> None:
    """Whatever came between, it is as if only the last had come to what others have."""
    ours = keys_of(first, depth)
    others = merged(there, {}, ours, depth)
    clash = [path for path in keys_of(there, depth) for one in ours if one[: len(path)] == path]
    if not clash:
        assert same(merged(merged(there, first, [], depth), second, ours, depth), merged(others, second, [], depth))


@pytest.mark.parametrize(
    ("there", "wanted", "former", "depth", "whole"),
    [
        ({}, {}, [], 1, {}),
        ({"a": 1}, {"a": True}, [], 1, {"a": True}),
        ({"a": {"x": 1}}, {"a": {"y": 2}}, [], 1, {"a": {"y": 2}}),
        ({"a": {"x": 1}}, {"a": {"y": 2}}, [], 2, {"a": {"x": 1, "y": 2}}),
        ({"a": 7}, {"a": {"y": 2}}, [], 2, {"a": {"y": 2}}),
        ({"a": {"x": 1}}, {"a": {}}, [], 2, {"a": {"x": 1}}),
        ({"a": {"x": 1}}, {}, [["a", "x"]], 2, {}),
        ({"a": {"x": 1, "y": 2}}, {}, [["a", "x"]], 2, {"a": {"y": 2}}),
        ({"a": 7, "b": 1}, {}, [["a", "x"]], 2, {"a": 7, "b": 1}),
        ({"b": 1}, {}, [["a"], ["a", "x"], ["b"]], 1, {}),
        ({"b": 1, "a": 2}, {"c": 3, "b": 4}, [["a"]], 1, {"b": 4, "c": 3}),
    ],
)
def test_merged(there: Any, wanted: Any, former: Any, depth: int, whole: Any) -> None:
    assert same(merged(there, wanted, former, depth), whole)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"{", "Expecting"),
        (b"[]", "no object in braces"),
        (b"1", "no object in braces"),
        (b'{"a": NaN}', "NaN is no JSON"),
        (b'{"a": -Infinity}', "-Infinity is no JSON"),
        (b"\xff", "utf-8"),
        (b"\xef\xbb\xbf{}", "BOM"),
    ],
)
def test_what_is_no_object(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parsed(data)


def test_an_empty_file_has_an_empty_object() -> None:
    assert (parsed(b""), parsed(b" \n")) == ({}, {})


def test_what_differs() -> None:
    one, other = {"a": 1, "b": 1, "c": None, "e": {"x": 1}}, {"a": 1, "b": True, "d": 1, "e": {"x": 1}}
    assert merging.differing(one, other) == {"b", "c", "d"}


# --- in a transaction -------------------------------------------------------------------------------------------------


def shared(host: Host, wanted: Any, **options: Any) -> Service:
    """A service with one file, of which it has only some keys."""
    me, us = str(os.geteuid()), str(os.getegid())
    content = None if wanted is None else json.dumps(wanted).encode()
    given = {"merge_json": 1, "reload_keys": ("level",), "on_change": "restart", **options}
    validate = given.pop("validate", [])
    file = File(str(host.path("own.json")), content, me, us, **given)
    return Service("web", [file], units=[UNIT], validate=validate)


def run(host: Host, wanted: Any, *, check: bool = False, **options: Any) -> Outcome:
    return converge(shared(host, wanted, **options), host.store, check=check)


def found(host: Host) -> Any:
    return json.loads(host.path("own.json").read_text("utf-8"))


def keys(host: Host) -> Path:
    return host.store.state / "web.keys"


def test_keys_come_and_go_and_the_hosts_own_stay(host: Host) -> None:
    host.unit(UNIT, active=True, enabled=True)
    host.write("own.json", '{"theirs": 1, "level": "x"}')
    host.store.state.mkdir()
    foreseen = run(host, {"level": 1, "ours": 2}, check=True)
    assert run(host, {"level": 1, "ours": 2}) == foreseen
    assert found(host) == {"theirs": 1, "level": 1, "ours": 2}
    assert not run(host, {"level": 1, "ours": 2}).changed
    run(host, {"other": 3})
    assert found(host) == {"theirs": 1, "other": 3}
    run(host, None)
    assert found(host) == {"theirs": 1}
    assert not keys(host).exists()
    assert not run(host, None).changed


def test_a_file_in_which_nothing_is_left_goes(host: Host) -> None:
    run(host, {})
    assert not host.path("own.json").exists()
    run(host, {"ours": 1})
    run(host, {})
    assert not host.path("own.json").exists()
    host.write("own.json", "{}")
    run(host, {})
    assert host.path("own.json").read_text("utf-8") == "{}"


def test_the_hosts_own_words_stay_where_they_say_all_of_it(host: Host) -> None:
    text = '{ "ours": 1,\n\t"theirs": 1.50 }'
    host.write("own.json", text)
    run(host, {"ours": 1})
    assert host.path("own.json").read_text("utf-8") == text


def test_a_hand_edit_is_undone_and_taken_up(host: Host) -> None:
    host.unit(UNIT, active=True, enabled=True)
    run(host, {"ours": 1})
    host.commands()
    host.write("own.json", '{"ours": 2, "theirs": 3}')
    assert run(host, {"ours": 1}).changed
    assert found(host) == {"ours": 1, "theirs": 3}
    assert host.commands() == [f"restart {UNIT}"]


@pytest.mark.parametrize(
    ("wanted", "verb"),
    [
        ({"level": 2, "ours": 1}, "reload-or-restart"),
        ({"level": 2, "ours": 2}, "restart"),
        ({"ours": 1}, "reload-or-restart"),
    ],
)
def test_what_a_reload_takes_up_is_not_restarted_for(host: Host, wanted: Any, verb: str) -> None:
    host.unit(UNIT, active=True, enabled=True)
    run(host, {"level": 1, "ours": 1})
    host.commands()
    run(host, wanted)
    assert host.commands() == [f"{verb} {UNIT}"]


def test_what_nobody_knows_to_be_in_force_is_restarted_for(host: Host) -> None:
    host.unit(UNIT, active=True, enabled=True)
    run(host, {"level": 1})
    host.store.forget()
    host.commands()
    run(host, {"level": 2})
    assert host.commands() == [f"restart {UNIT}"]


def test_what_is_refused_leaves_the_file_and_what_is_known_of_it(host: Host) -> None:
    host.unit(UNIT, active=True, enabled=True)
    host.write("own.json", '{"theirs": 1}')
    run(host, {"ours": 1})
    before = host.tree(), keys(host).read_bytes()
    with pytest.raises(TransactionError, match="The former configuration is back"):
        run(host, {"other": 1}, validate=[["false"]])
    assert (host.tree(), keys(host).read_bytes()) == before
    run(host, {"other": 1})
    assert found(host) == {"theirs": 1, "other": 1}


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1e999}'])
def test_a_file_that_is_no_object_is_refused_before_anything(host: Host, check: bool, text: str) -> None:
    host.write("own.json", text)
    before = host.tree()
    with pytest.raises(
        TransactionError, match=r"present content of .*own\.json is no JSON object.* Nothing was changed"
    ):
        converge(Service("web", shared(host, {"ours": 1}).files, packages=["no-such-package"]), host.store, check=check)
    assert host.tree() == before


def test_a_wanted_content_that_is_no_object(host: Host) -> None:
    with pytest.raises(TransactionError, match="the wanted content"):
        run(host, [1])


def test_a_link_is_not_merged_into(host: Host) -> None:
    host.path("own.json").symlink_to("/nowhere")
    with pytest.raises(TransactionError, match="is a link where a file is wanted"):
        run(host, {"ours": 1})


def test_a_secret_file_stays_secret(host: Host) -> None:
    host.write("own.json", '{"theirs": "canary-one"}', 0o600)
    outcome = run(host, {"ours": "canary-two"}, mode=0o600, merge_json=2)
    shown = json.dumps(diffs(outcome))
    assert "canary" not in shown
    # Which keys were brought is no secret.
    assert '[[\\"ours\\"]]' in shown.replace('\\\\"', '\\"')


def test_files_that_are_not_merged_are_as_ever(host: Host) -> None:
    me, us = str(os.geteuid()), str(os.getegid())
    plain = File(str(host.path("plain")), b"text", me, us)
    converge(Service("web", [plain, *shared(host, {"ours": 1}).files]), host.store)
    assert host.path("plain").read_text("utf-8") == "text"
    # A file that is left out for now keeps what is known of it.
    converge(Service("web", [plain, File(str(host.path("more.json")), b'{"a": 1}', me, us, merge_json=1)]), host.store)
    assert set(json.loads(keys(host).read_text("utf-8"))) == {str(host.path("own.json")), str(host.path("more.json"))}
