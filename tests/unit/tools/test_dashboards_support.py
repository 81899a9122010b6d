# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Answers of a Prometheus 2.53 and a Loki 3.7, as they were given, and what is said of them."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

from dashboards_support import LOKI_PATH, empty_or_wrong, expressions, reasons

URL = "http://127.0.0.1:9090"
FULL = {
    "status": "success",
    "data": {"resultType": "vector", "result": [{"metric": {"job": "node"}, "value": [1764000000.0, "1"]}]},
}
EMPTY: dict[str, Any] = {"status": "success", "data": {"resultType": "vector", "result": []}}
WRONG = {
    "status": "error",
    "errorType": "bad_data",
    "error": 'invalid parameter "query": 1:5: parse error: unclosed left parenthesis',
}
ANSWERS = {"up": FULL, "down": EMPTY, "sum(": WRONG}


def ask(url: str) -> Any:
    parts = urlsplit(url)
    assert f"{parts.scheme}://{parts.netloc}" == URL
    return ANSWERS[parse_qs(parts.query)["query"][0]]


def said(*asked: tuple[str, str, str], **options: Any) -> list[str]:
    return empty_or_wrong(URL, asked, ask, **{"may_be_empty": {}, **options})


def test_what_is_answered_is_right() -> None:
    assert said(("host", "Up", "up")) == []


def test_what_is_not_answered_is_said() -> None:
    assert said(("host", "Up", "up"), ("host", "Down", "down")) == ["host, Down: down: no answer"]
    assert said(("host", "Down", "down"), may_be_empty={("host", "Down"): "nothing is"}) == []
    assert said(("host", "Down", "down"), may_be_empty={("other", "Down"): "nothing is"}) != []


def test_what_is_refused_is_said_wherever_it_stands() -> None:
    (sentence,) = said(("host", "Sum", "sum("), may_be_empty={("host", "Sum"): "nothing is"})
    assert sentence.startswith("host, Sum: sum(: bad_data invalid parameter")
    assert empty_or_wrong(URL, [("a", "b", "c")], lambda _url: {"message": "not found"}) == [
        "a, b: c:  {'message': 'not found'}"
    ]


def test_what_is_asked_of_loki_goes_to_another_path() -> None:
    asked: list[str] = []
    empty_or_wrong(URL, [("a", "b", "{c}")], lambda url: asked.append(url) or FULL, path=LOKI_PATH)
    assert asked == [f"{URL}/loki/api/v1/query_range?query=%7Bc%7D"]


def test_few_panels_of_the_collection_may_be_empty() -> None:
    known = {(dashboard, panel) for where in ("prometheus", "loki") for dashboard, panel, _one in expressions(where)}
    assert set(reasons()) <= known
    assert len(reasons()) < len(known) / 4
