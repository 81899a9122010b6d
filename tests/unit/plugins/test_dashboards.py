# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Dashboards in YAML and the JSON that is made of them; then those of the collection, one by one."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.plugin_utils import dashboards, specs
from hypothesis import given
from hypothesis import strategies as st

FOLDER = specs.ROLES / "grafana" / "dashboards"
DOCUMENTS = dashboards.load(FOLDER)
UIDS = [one["uid"] for one in DOCUMENTS]

PANEL: dict[str, Any] = {"title": "One", "description": "d", "unit": "s", "expressions": {"{{host}}": "up"}}
DOCUMENT: dict[str, Any] = {
    "uid": "small",
    "title": "Small",
    "description": "d",
    "variables": {
        "host": {"query": "label_values(up, host)"},
        "objective": {"label": "Goal", "values": [0.9, 0.99]},
        "job": {"source": "loki", "query": "job"},
        "words": {"text": "x"},
    },
    "rows": [{"title": "First", "panels": [PANEL]}, {"panels": [{**PANEL, "title": "Two", "type": "stat"}]}],
}


def document(**panel: Any) -> dict[str, Any]:
    """A document whose first panel has these keys."""
    found = copy.deepcopy(DOCUMENT)
    found["rows"][0]["panels"][0] |= panel
    return found


def made(**panel: Any) -> dict[str, Any]:
    """That panel's JSON."""
    found: dict[str, Any] = dashboards.dashboard(document(**panel))["panels"][1]
    return found


# --- the form ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([], "document : a group of keys is needed"),
        ({**DOCUMENT, "row": []}, "document Small: nothing reads row"),
        ({key: value for key, value in DOCUMENT.items() if key != "uid"}, "document Small: uid is missing"),
        ({**DOCUMENT, "variables": {"host": []}}, "variable host: a group of keys is needed"),
        ({**DOCUMENT, "variables": {"host": {}}}, "variable host: exactly one of query, values and text"),
        ({**DOCUMENT, "variables": {"host": {"query": "a", "text": "b"}}}, "exactly one of query, values and text"),
        ({**DOCUMENT, "rows": ["a"]}, "row : a group of keys is needed"),
        ({**DOCUMENT, "rows": [{"panels": ["a"]}]}, "panel : a group of keys is needed"),
        (document(unti="s"), "panel One: nothing reads unti"),
        (document(type="gauge"), "One: no type gauge, or no source prometheus"),
        (document(source="mysql"), "One: no type timeseries, or no source mysql"),
        (document(title="Two"), "Two: another panel has the same title, or the same number"),
        (document(type="table"), "One: columns is for tables, and no table is without"),
        (document(columns={"a": "b"}), "One: columns is for tables, and no table is without"),
    ],
)
def test_what_is_no_dashboard_is_refused(wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        dashboards.check(wrong)


def test_two_titles_with_one_number_are_refused() -> None:
    # Two texts with the same CRC-32, which a search has found.
    assert dashboards.number("plumless") == dashboards.number("buckeroo")
    with pytest.raises(ValueError, match="another panel has the same title, or the same number"):
        dashboards.check(
            {**DOCUMENT, "rows": [{"panels": [{**PANEL, "title": one} for one in ("plumless", "buckeroo")]}]}
        )


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.yml").write_text(json.dumps({**DOCUMENT, "uid": name}))
    assert [one["uid"] for one in dashboards.load(tmp_path)] == ["a", "b"]
    (tmp_path / "c.yml").write_text(json.dumps({**DOCUMENT, "uid": "b"}))
    with pytest.raises(ValueError, match=r"two dashboards of .* have the same uid"):
        dashboards.load(tmp_path)
    (tmp_path / "c.yml").write_text("[]")
    with pytest.raises(ValueError, match=r"c\.yml: document : a group of keys is needed"):
        dashboards.load(tmp_path)


# --- the JSON ---------------------------------------------------------------------------------------------------------


def test_the_same_document_gives_the_same_text() -> None:
    text = dashboards.text(DOCUMENT)
    assert text == dashboards.text(copy.deepcopy(DOCUMENT))
    assert json.loads(text) == dashboards.dashboard(DOCUMENT)
    assert len(text.splitlines()) == 1 + 3 + 1


def test_numbers_stay_where_other_panels_come() -> None:
    more = copy.deepcopy(DOCUMENT)
    more["rows"][0]["panels"].insert(0, {**PANEL, "title": "New"})
    before, after = ({one["title"]: one["id"] for one in dashboards.dashboard(d)["panels"]} for d in (DOCUMENT, more))
    assert before.items() <= after.items()


@given(
    st.lists(
        st.tuples(st.booleans(), st.lists(st.sampled_from(sorted(dashboards.HEIGHTS)), min_size=1, max_size=30)),
        min_size=1,
        max_size=6,
    )
)
def test_panels_fill_all_columns_and_none_lies_upon_another(rows: list[tuple[bool, list[str]]]) -> None:
    count = iter(range(1000))
    given_rows: list[dict[str, Any]] = [
        {"panels": [{**PANEL, "title": f"panel {next(count)}", "type": kind, "columns": {}} for kind in kinds]}
        | ({"title": f"row {next(count)}"} if titled else {})
        for titled, kinds in rows
    ]
    panels = dashboards.dashboard({**DOCUMENT, "rows": given_rows})["panels"]
    taken: dict[tuple[int, int], str] = {}
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= 24
        for cell in (
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        ):
            assert taken.setdefault(cell, panel["title"]) == panel["title"]
    height = max(y for _x, y in taken) + 1
    assert len(taken) == 24 * height
    assert min(one["gridPos"]["w"] for one in panels) >= 3


def test_variables() -> None:
    host, objective, job, words = dashboards.dashboard(DOCUMENT)["templating"]["list"]
    assert (host["type"], host["definition"], host["datasource"]["uid"]) == (
        "query",
        "label_values(up, host)",
        "prometheus",
    )
    assert (host["multi"], host["includeAll"], host["allValue"], host["label"]) == (True, True, ".+", "Host")
    assert (objective["type"], objective["query"], objective["current"]["value"]) == ("custom", "0.9,0.99", "0.9")
    assert [one["selected"] for one in objective["options"]] == [True, False]
    assert (job["datasource"]["type"], job["query"]["label"]) == ("loki", "job")
    assert (words["type"], words["query"]) == ("textbox", "x")


def test_limits_are_colours_from_below_to_above() -> None:
    def steps(**limits: Any) -> list[tuple[str, float | None]]:
        found = made(thresholds=limits)["fieldConfig"]["defaults"]["thresholds"]["steps"]
        return [(one["color"], one["value"]) for one in found]

    assert steps() == [("green", None)]
    assert steps(warning=1, critical=2) == [("green", None), ("orange", 1), ("red", 2)]
    assert steps(below=True, warning=14, critical=7) == [("red", None), ("orange", 7), ("green", 14)]
    assert steps(below=True, warning=14) == [("orange", None), ("green", 14)]
    assert steps(below=True, critical=7) == [("red", None), ("green", 7)]


def test_what_a_panel_asks() -> None:
    (target,) = made()["targets"]
    assert (target["expr"], target["legendFormat"], target["range"], target["instant"]) == (
        "up",
        "{{host}}",
        True,
        False,
    )
    (target,) = made(type="stat")["targets"]
    assert (target["range"], target["instant"], target["format"]) == (False, True, "time_series")
    table = made(type="table", columns={"host": "Host", "Value": "Count"})
    assert table["targets"][0]["format"] == "table"
    assert table["transformations"][1]["options"]["renameByName"] == {"host": "Host", "Value": "Count"}
    (target,) = made(source="loki", type="logs")["targets"]
    assert (target["queryType"], target["datasource"]["uid"]) == ("range", "loki")
    assert made(source="loki", type="stat")["targets"][0]["queryType"] == "instant"
    assert [one["refId"] for one in made(expressions={"a": "b", "c": "d"})["targets"]] == ["A", "B"]


def test_how_a_panel_looks() -> None:
    defaults = made(stack=True, min=0, max=1, decimals=2, values={0: "no", 1: "yes"})["fieldConfig"]["defaults"]
    assert (defaults["min"], defaults["max"], defaults["decimals"], defaults["unit"]) == (0, 1, 2, "s")
    assert defaults["mappings"][0]["options"]["1"] == {"text": "yes", "index": 1}
    assert defaults["custom"]["stacking"]["mode"] == "normal"
    assert made(type="stat", thresholds={"warning": 1})["options"]["colorMode"] == "background"


def test_expressions_have_values_in_the_place_of_variables() -> None:
    tried = {
        'a{host=~"$host"}': 'a{host=~".+"}',
        "a[$__rate_interval] / $objective": "a[2m] / 0.9",
        'b |~ "${words:regex}"': 'b |~ "x"',
        'label_replace(a, "b", "${1}xx", "c", "$1")': 'label_replace(a, "b", "${1}xx", "c", "$1")',
    }
    for before, after in tried.items():
        assert dashboards.expressions([document(expressions={"": before})])[0] == ("small", "One", after)
    with pytest.raises(ValueError, match="small: there is no variable hots"):
        dashboards.expressions([document(expressions={"": "a{host=~'$hots'}"})])
    assert dashboards.expressions([document(source="loki")], "loki") == [("small", "One", "up")]


def test_panels_that_may_be_empty() -> None:
    assert dashboards.may_be_empty([document(may_be_empty="so")]) == {("small", "One"): "so"}


# --- those of the collection ------------------------------------------------------------------------------------------

# By the first letters of their names: what each exporter, and what this collection itself, measures.
KNOWN = re.compile(
    r"(node|nginx|redis|mysql_(up|global_(status|variables))|probe|prometheus|alertmanager|loki|process|scrape"
    r"|mariadb_connection_budget|production_(backup|restore_drill|drift|container|logs|errors))_\w+"
    r"|up|mysql_up|http_requests_total|http_request_duration_seconds_(bucket|sum|count)|apt_upgrades_pending|ALERTS"
)
# Words of PromQL that no bracket follows.
WORDS = {"by", "or", "on", "and", "ignoring", "group_left", "group_right", "unless", "without", "bool"}
UNITS = {"none", "percentunit", "bytes", "Bps", "s", "d", "ops", "reqps", "cps"}
ALL = [(one["uid"], panel) for one in DOCUMENTS for panel in dashboards.panels(one)]


def balanced(text: str) -> bool:
    """Whether all brackets outside of texts are closed in their order."""
    open_, closing = [], {")": "(", "]": "[", "}": "{"}
    for letter in re.sub(r'"(\\.|[^"\\])*"', "", text):
        if letter in "([{":
            open_.append(letter)
        elif letter in closing and (not open_ or open_.pop() != closing[letter]):
            return False
    return not open_


def metrics_of(expression: str) -> set[str]:
    """The names in an expression that are no functions, labels or texts."""
    bare = re.sub(r'"(\\.|[^"\\])*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", bare)
    bare = re.sub(r"\b(by|on|ignoring|without|group_left|group_right) *\([^)]*\)", "", bare)
    return set(re.findall(r"\b([A-Za-z_:]\w*)\b(?! *\()", bare)) - WORDS


def test_expressions_of_tests() -> None:
    assert balanced('sum(a{b="("}[5m])')
    assert not balanced("sum(a{b)}")
    assert not balanced("sum(a")
    assert metrics_of('sum by (x) (rate(up{b="c"}[5m])) / on (a) group_left () max(b_c) or 2 * d') == {"up", "b_c", "d"}


@pytest.mark.parametrize(("uid", "panel"), ALL, ids=[f"{uid} {panel['title']}" for uid, panel in ALL])
def test_each_panel_says_what_is_normal_and_asks_what_there_is(uid: str, panel: dict[str, Any]) -> None:
    assert panel["unit"] in UNITS
    assert "ormal" in panel["description"]
    assert len(panel["description"]) > 30
    assert panel["description"].endswith(".")
    assert "`" not in panel["title"]
    for expression in panel["expressions"].values():
        assert balanced(expression)
        assert not re.search(r'=~?"\$', expression.replace('=~"$', "")), "a choice of several needs =~"
        if dashboards.source(panel) == "prometheus":
            unknown = {
                name
                for name in metrics_of(dashboards.substituted(expression, _document(uid)))
                if not KNOWN.fullmatch(name)
            }
            assert not unknown


def _document(uid: str) -> dashboards.Document:
    return next(one for one in DOCUMENTS if one["uid"] == uid)


@pytest.mark.parametrize("uid", UIDS)
def test_each_dashboard_is_whole(uid: str) -> None:
    found = json.loads(dashboards.text(_document(uid)))
    assert found["uid"] == uid
    assert found["schemaVersion"] >= 39
    assert {"title", "tags", "time", "timezone", "templating", "panels", "annotations", "refresh"} <= found.keys()
    numbers = [one["id"] for one in found["panels"]]
    assert len(set(numbers)) == len(numbers)
    for panel in found["panels"]:
        assert {"id", "type", "title", "gridPos"} <= panel.keys()
        if panel["type"] != "row":
            assert {"datasource", "targets", "fieldConfig", "options", "description"} <= panel.keys()
            assert panel["targets"]
    used = {
        name
        for _uid, panel in ALL
        if _uid == uid
        for text in panel["expressions"].values()
        for name in re.findall(r"\$([a-z]+)\b", text)
    }
    used |= {
        name
        for one in _document(uid).get("variables", {}).values()
        for name in re.findall(r"\$([a-z]+)\b", one.get("query", ""))
    }
    assert used == set(_document(uid).get("variables", {}))


def test_there_is_one_for_each_part() -> None:
    assert set(UIDS) == {"overview", "host", "nginx", "redis", "mariadb", "app", "backups", "logs", "monitoring"}
    assert [one.stem for one in sorted(FOLDER.glob("*.yml"))] == UIDS
