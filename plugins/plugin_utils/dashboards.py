# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Dashboards as people write them, in YAML, turned into the JSON that Grafana reads.

A document is ``{uid, title, description, variables?, rows}``, a row ``{title?, height?, panels}``, and a panel
``{title, description, unit, expressions, type?, source?, ...}`` (see KEYS); docs/dashboards.md tells what each is for.
The same document gives the same JSON every time. A panel's number follows from its title, so links to it stay when
others come.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from ansible.module_utils.common.yaml import yaml_load

Document = Mapping[str, Any]
Panel = Mapping[str, Any]

SCHEMA = 39
COLUMNS = 24
MOST_IN_A_LINE = 8
HEIGHTS = {"stat": 4, "timeseries": 8, "bargauge": 8, "table": 8, "logs": 14}
SOURCES = ("prometheus", "loki")
# What a document, a row and a panel may hold; those without which they are none come first.
KEYS: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    "document": (frozenset({"uid", "title", "description", "rows"}), frozenset({"variables", "since", "refresh"})),
    "row": (frozenset({"panels"}), frozenset({"title", "height"})),
    "panel": (
        frozenset({"title", "description", "unit", "expressions"}),
        frozenset(
            {"type", "source", "thresholds", "values", "stack", "min", "max", "decimals", "may_be_empty", "columns"}
        ),
    ),
    "variable": (frozenset(), frozenset({"label", "query", "values", "text", "source"})),
}

# What stands for Grafana's own variables, and for a choice of everything, where an expression is tried by itself.
BUILT_IN = {"__rate_interval": "2m", "__interval": "1m", "__range": "1h"}
EVERYTHING = ".+"
VARIABLE = re.compile(r"\$([A-Za-z_]\w*)|\$\{([A-Za-z_]\w*)(?::\w+)?\}")


def load(folder: Path) -> list[Document]:
    """The documents of a folder, in the order of their names. Raises ValueError for what is no dashboard."""
    found = []
    for path in sorted(folder.glob("*.yml")):
        about = path.stat()
        found.append(_read(path, about.st_mtime_ns, about.st_size))
    if len({one["uid"] for one in found}) < len(found):
        raise ValueError(f"two dashboards of {folder} have the same uid")
    return found


@lru_cache(maxsize=256)
def _read(path: Path, _changed: int, _size: int) -> Document:
    # Kept, for a role asks several times in a run.
    document = yaml_load(path.read_text("utf-8"))
    try:
        check(document)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error
    found: Document = document
    return found


def check(document: Any) -> None:
    """Raise ValueError with what is wrong with a document's form."""
    _check_keys("document", document, str(document.get("title", "")) if isinstance(document, Mapping) else "")
    for name, variable in document.get("variables", {}).items():
        _check_keys("variable", variable, name)
        if len({"query", "values", "text"} & variable.keys()) != 1:
            raise ValueError(f"variable {name}: exactly one of query, values and text")
    for row in document["rows"]:
        _check_keys("row", row, row.get("title", "") if isinstance(row, Mapping) else "")
    seen: set[int] = set()
    for panel in panels(document):
        _check_keys("panel", panel, panel.get("title", "") if isinstance(panel, Mapping) else "")
        if kind(panel) not in HEIGHTS or source(panel) not in SOURCES:
            raise ValueError(f"{panel['title']}: no type {kind(panel)}, or no source {source(panel)}")
        if (kind(panel) == "table") != ("columns" in panel):
            raise ValueError(f"{panel['title']}: columns is for tables, and no table is without")
        if number(panel["title"]) in seen:
            raise ValueError(f"{panel['title']}: another panel has the same title, or the same number")
        seen.add(number(panel["title"]))


def _check_keys(what: str, given: Any, name: str) -> None:
    needed, possible = KEYS[what]
    if not isinstance(given, Mapping):
        raise ValueError(f"{what} {name}: a group of keys is needed")
    if missing := needed - given.keys():
        raise ValueError(f"{what} {name}: {', '.join(sorted(missing))} is missing")
    if unknown := given.keys() - needed - possible:
        raise ValueError(f"{what} {name}: nothing reads {', '.join(sorted(map(str, unknown)))}")


def panels(document: Document) -> Iterator[Panel]:
    """All panels, in their order."""
    return (panel for row in document["rows"] for panel in row["panels"])


def kind(panel: Panel) -> str:
    """The panel's type."""
    return str(panel.get("type", "timeseries"))


def source(panel: Panel) -> str:
    """The uid of the datasource, which is its type too."""
    return str(panel.get("source", "prometheus"))


def number(title: str) -> int:
    """A panel's number, which follows from its title."""
    return zlib.crc32(title.encode()) & 0x7FFFFFFF


# --- the JSON ---------------------------------------------------------------------------------------------------------


def text(document: Document) -> str:
    """A dashboard's JSON, with each panel on a line of its own, so that a diff shows which one changed."""
    whole = dashboard(document)
    parts = ",\n".join(json.dumps(one, ensure_ascii=False) for one in whole.pop("panels"))
    return f'{json.dumps(whole, ensure_ascii=False)[:-1]}, "panels": [\n{parts}\n]}}\n'


def dashboard(document: Document) -> dict[str, Any]:
    """A dashboard as Grafana reads it."""
    return {
        "uid": document["uid"],
        "title": document["title"],
        "description": document["description"],
        "tags": ["production"],
        "schemaVersion": SCHEMA,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,  # the moment under the pointer is shown in all panels
        "timezone": "browser",
        "time": {"from": f"now-{document.get('since', '6h')}", "to": "now"},
        "refresh": document.get("refresh", "1m"),
        "fiscalYearStartMonth": 0,
        "annotations": {"list": []},
        "links": [
            {
                "type": "dashboards",
                "title": "Production",
                "tags": ["production"],
                "asDropdown": True,
                "includeVars": True,
                "keepTime": True,
            }
        ],
        "templating": {"list": [_variable(name, one) for name, one in document.get("variables", {}).items()]},
        "panels": list(_panels(document["rows"])),
    }


def _variable(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    common = {"name": name, "label": given.get("label", name.capitalize()), "hide": 0}
    if "text" in given:
        value = given["text"]
        current = {"text": value, "value": value, "selected": True}
        return {**common, "type": "textbox", "query": value, "current": current}
    if "values" in given:
        values = [str(one) for one in given["values"]]
        options = [{"text": one, "value": one, "selected": one == values[0]} for one in values]
        return {
            **common,
            "type": "custom",
            "query": ",".join(values),
            "current": options[0],
            "options": options,
            "multi": False,
            "includeAll": False,
        }
    where = given.get("source", "prometheus")
    query: Any = {"query": given["query"], "refId": name}
    if where == "loki":
        query = {"label": given["query"], "refId": name, "stream": "", "type": 1}
    return {
        **common,
        "type": "query",
        "datasource": _datasource(where),
        "definition": given["query"],
        "query": query,
        "refresh": 2,  # whenever the time changes
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": EVERYTHING,
        "current": {"text": ["All"], "value": ["$__all"], "selected": True},
        "options": [],
    }


def _datasource(uid: str) -> dict[str, str]:
    return {"type": uid, "uid": uid}


def _panels(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    top = 0
    for row in rows:
        if row.get("title"):
            place = {"x": 0, "y": top, "w": COLUMNS, "h": 1}
            # Apart from those of panels, which are half as large at most.
            heading = {"id": number(f"row {row['title']}"), "type": "row", "title": row["title"], "gridPos": place}
            yield {**heading, "collapsed": False, "panels": []}
            top += 1
        height = row.get("height") or max(HEIGHTS[kind(panel)] for panel in row["panels"])
        places = list(layout(len(row["panels"]), height, top))
        for panel, place in zip(row["panels"], places, strict=True):
            yield _panel(panel, place)
        top = places[-1]["y"] + height


def layout(count: int, height: int, top: int = 0) -> Iterator[dict[str, int]]:
    """The places of so many panels: lines that are full, of about as many panels each."""
    lines = -(-count // MOST_IN_A_LINE)
    for line in range(lines):
        here = count // lines + (line < count % lines)
        left = 0
        for one in range(here):
            width = COLUMNS // here + (one < COLUMNS % here)
            yield {"x": left, "y": top + line * height, "w": width, "h": height}
            left += width


def _panel(panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    where = _datasource(source(panel))
    return {
        "id": number(panel["title"]),
        "type": kind(panel),
        "title": panel["title"],
        "description": panel["description"],
        "datasource": where,
        "gridPos": place,
        "targets": [
            _target(panel, letter, legend, expression, where)
            for letter, (legend, expression) in zip("ABCDEFGHIJ", panel["expressions"].items(), strict=False)
        ],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel),
        **({"transformations": _columns(panel)} if kind(panel) == "table" else {}),
    }


def _target(panel: Panel, letter: str, legend: str, expression: str, where: dict[str, str]) -> dict[str, Any]:
    target: dict[str, Any] = {"refId": letter, "datasource": where, "expr": expression.strip(), "legendFormat": legend}
    now = kind(panel) in ("stat", "bargauge", "table")
    if source(panel) == "loki":
        return {**target, "queryType": "instant" if now else "range"}
    target |= {"editorMode": "code", "instant": now, "range": not now}
    return {**target, "format": "table" if kind(panel) == "table" else "time_series"}


def _defaults(panel: Panel) -> dict[str, Any]:
    limits = panel.get("thresholds")
    found: dict[str, Any] = {
        "unit": panel["unit"],
        "color": {"mode": "palette-classic" if kind(panel) == "timeseries" or not limits else "thresholds"},
        "thresholds": {"mode": "absolute", "steps": _steps(limits or {})},
        "mappings": [_mapping(panel["values"])] if "values" in panel else [],
        "custom": {},
    }
    found |= {key: panel[key] for key in ("min", "max", "decimals") if key in panel}
    if kind(panel) == "timeseries":
        found["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 30 if panel.get("stack") else 8,
            "showPoints": "auto",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.get("stack") else "none", "group": "A"},
            "thresholdsStyle": {"mode": "dashed" if limits else "off"},
        }
    if kind(panel) == "table":
        found["custom"] = {"align": "auto", "cellOptions": {"type": "auto"}, "filterable": True}
    return found


def _steps(limits: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Colours from below to above. Where ``below`` is said, small values are the bad ones."""
    colours = {"warning": "orange", "critical": "red"}
    if limits.get("below"):
        known = [name for name in ("critical", "warning") if name in limits]
        found: list[dict[str, Any]] = [{"color": colours[known[0]], "value": None}]
        after = [*(colours[name] for name in known[1:]), "green"]
        return found + [{"color": colour, "value": limits[name]} for name, colour in zip(known, after, strict=True)]
    found = [{"color": "green", "value": None}]
    return found + [{"color": colours[name], "value": limits[name]} for name in colours if name in limits]


def _mapping(values: Mapping[Any, str]) -> dict[str, Any]:
    options = {str(value): {"text": words, "index": index} for index, (value, words) in enumerate(values.items())}
    return {"type": "value", "options": options}


def _options(panel: Panel) -> dict[str, Any]:
    last = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    found: dict[str, Any] = {
        "timeseries": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "stat": {
            "reduceOptions": last,
            "colorMode": "background" if "thresholds" in panel else "value",
            "graphMode": "none",
            "justifyMode": "auto",
            "orientation": "auto",
            "textMode": "auto",
        },
        "bargauge": {
            "reduceOptions": last,
            "displayMode": "basic",
            "orientation": "horizontal",
            "showUnfilled": True,
            "valueMode": "color",
        },
        "table": {"showHeader": True, "cellHeight": "sm", "footer": {"show": False}},
        "logs": {
            "showTime": True,
            "wrapLogMessage": True,
            "prettifyLogMessage": False,
            "enableLogDetails": True,
            "dedupStrategy": "none",
            "sortOrder": "Descending",
        },
    }
    options: dict[str, Any] = found[kind(panel)]
    return options


def _columns(panel: Panel) -> list[dict[str, Any]]:
    """The columns of a table by what they are called: labels and, as Value, the figure. Others are left out."""
    columns: Mapping[str, str] = panel["columns"]
    return [
        {"id": "filterFieldsByName", "options": {"include": {"names": list(columns)}}},
        {
            "id": "organize",
            "options": {
                "excludeByName": {},
                "indexByName": {name: index for index, name in enumerate(columns)},
                "renameByName": dict(columns),
            },
        },
    ]


# --- trying expressions -----------------------------------------------------------------------------------------------


def expressions(documents: Sequence[Document], where: str = "prometheus") -> list[tuple[str, str, str]]:
    """What the panels of one source ask: ``(dashboard, panel, expression)``, with everything chosen."""
    return [
        (document["uid"], panel["title"], substituted(expression, document))
        for document in documents
        for panel in panels(document)
        if source(panel) == where
        for expression in panel["expressions"].values()
    ]


def substituted(expression: str, document: Document) -> str:
    """An expression with a value in the place of each variable. Raises ValueError for one that there is not."""
    known = {**BUILT_IN, **{name: _chosen(one) for name, one in document.get("variables", {}).items()}}

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in known:
            raise ValueError(f"{document['uid']}: there is no variable {name}")
        return known[name]

    return VARIABLE.sub(value, expression.strip())


def _chosen(variable: Mapping[str, Any]) -> str:
    if "values" in variable:
        return str(variable["values"][0])
    return str(variable.get("text", EVERYTHING))


def may_be_empty(documents: Sequence[Document]) -> dict[tuple[str, str], str]:
    """The panels for which no answer is a right one, by dashboard and title, each with the reason."""
    return {
        (document["uid"], panel["title"]): panel["may_be_empty"]
        for document in documents
        for panel in panels(document)
        if "may_be_empty" in panel
    }
