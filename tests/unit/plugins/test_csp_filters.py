# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The filters check types, hand the work on, and are documented as they are."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.fushuma.production.plugins.filter.csp import FilterModule

FILTERS: dict[str, Callable[..., Any]] = FilterModule().filters()
DOCUMENTED = Path(inspect.getfile(FilterModule)).parent
SELF = {"script-src": ["'self'"]}
STRICT = {
    "default-src": ["'none'"],
    "base-uri": ["'none'"],
    "form-action": ["'self'"],
    "frame-ancestors": ["'none'"],
    "style-src": ["'unsafe-inline'"],
}
WAIVER = {
    "directive": "style-src",
    "source": "'unsafe-inline'",
    "reason": "the dialog library",
    "owner": "web team",
    "expires": "2030-01-31",
}
PAGE = "<script>a</script><style>b</style><script src=https://a.example/x.js></script><b onclick=x>"


def test_header() -> None:
    assert FILTERS["csp_header"]({"script-src": ["'nonce'"]}, nonce="$request_id") == "script-src 'nonce-$request_id'"
    assert FILTERS["csp_header"](SELF) == "script-src 'self'"


def test_parse() -> None:
    assert FILTERS["csp_parse"]("img-src 'SELF'") == {"img-src": ["'self'"]}


def test_merge_takes_several_additions() -> None:
    assert FILTERS["csp_merge"](SELF, {"img-src": ["a"]}, {"img-src": ["b"]}) == {**SELF, "img-src": ["a", "b"]}


def test_hashes() -> None:
    found = FILTERS["csp_hashes"](PAGE)
    assert found == {
        "script-src": ["'sha256-ypeBEsobvcr6wjGzmiPcTaeG7/gUfE5yuYB3ha/uSLs='"],
        "style-src": ["'sha256-PiPoFgA5WUoziU9lZOGxNIu9egCI1CxKy3PurtWcAJ0='"],
        "integrity": [],
        "origins": ["https://a.example"],
        "problems": ["line 1: <b> has the inline event handler onclick. Call addEventListener in a script instead."],
    }


def test_hashes_under_a_policy() -> None:
    allowing = {"script-src": ["https://a.example"], "script-src-attr": ["'unsafe-inline'"]}
    assert FILTERS["csp_hashes"](PAGE, policy=allowing)["problems"] == []
    (sentence,) = FILTERS["csp_hashes"]("<script src=x></script>", policy={"default-src": ["'none'"]})["problems"]
    assert sentence.startswith("line 1: the policy blocks <script src='x'>")


def test_problems() -> None:
    (sentence,) = FILTERS["csp_problems"](STRICT)
    assert sentence.startswith("policy.style-src[0] is \"'unsafe-inline'\": ")
    assert FILTERS["csp_problems"](STRICT, waivers=[WAIVER], today="2030-01-31") == []
    (sentence,) = FILTERS["csp_problems"](STRICT, waivers=[WAIVER], setting="site.policy", today="2030-02-01")
    assert sentence.startswith('site.waivers[0].expires is "2030-01-31": it has expired, today is 2030-02-01. ')


def test_problems_of_a_header_and_of_a_report_only_policy() -> None:
    assert any(one.startswith("policy.imag-src is ") for one in FILTERS["csp_problems"]("imag-src 'self'"))
    assert FILTERS["csp_problems"]({"script-src": ["*"], "report-uri": ["/r"]}, report_only=True) == []


def test_problems_of_wrong_shape_are_sentences() -> None:
    assert (
        "policy.script-src is \"'self'\": a directive takes a list of sources, each a string. Write [\"'self'\"]."
        in FILTERS["csp_problems"]({**STRICT, "script-src": "'self'"})
    )


@pytest.mark.parametrize(
    ("name", "arguments", "options", "message"),
    [
        ("csp_header", ["x"], {}, "csp_header: the policy takes a dictionary, not str"),
        ("csp_header", [{1: []}], {}, "csp_header: the policy: the name of a directive takes a string, not int"),
        ("csp_header", [{"a": "b"}], {}, "csp_header: the policy: a takes a list of strings, not a string"),
        ("csp_header", [{"a": 1}], {}, "csp_header: the policy: a takes a list of strings, not int"),
        ("csp_header", [{"a": [1]}], {}, "csp_header: the policy: a source of a takes a string, not int"),
        ("csp_header", [{}], {"nonce": 1}, "csp_header: nonce takes a string, not int"),
        ("csp_header", [{"a": ["'nonce'"]}], {}, "csp_header: a uses 'nonce', but there is no value"),
        ("csp_header", [{"a": ["b;"]}], {}, "csp_header: 'b;' in a holds a character"),
        ("csp_parse", [None], {}, "csp_parse: the header takes a string, not NoneType"),
        ("csp_merge", [[]], {}, "csp_merge: the policy takes a dictionary, not list"),
        ("csp_merge", [{}, "x"], {}, "csp_merge: an addition takes a dictionary, not str"),
        ("csp_hashes", [b"x"], {}, "csp_hashes: the page takes a string, not bytes"),
        ("csp_hashes", ["\udce4"], {}, "csp_hashes: the page is not UTF-8"),
        ("csp_hashes", [""], {"policy": "x"}, "csp_hashes: policy takes a dictionary, not str"),
        ("csp_problems", [[]], {}, "csp_problems: the policy takes a dictionary or a header's value, not list"),
        ("csp_problems", [{}], {"waivers": "x"}, "csp_problems: waivers takes a list of dictionaries, not str"),
        ("csp_problems", [{}], {"waivers": ["x"]}, "csp_problems: a waiver takes a dictionary, not str"),
        ("csp_problems", [{}], {"setting": 1}, "csp_problems: setting takes a string, not int"),
        ("csp_problems", [{}], {"report_only": "yes"}, "csp_problems: report_only takes true or false, not str"),
        ("csp_problems", [{}], {"today": "today"}, "csp_problems: today takes a date such as 2030-01-31, not 'today'"),
    ],
)
def test_wrong_types_are_errors(name: str, arguments: list[Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(AnsibleFilterError) as caught:
        FILTERS[name](*arguments, **options)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", FILTERS)
def test_each_filter_is_documented_as_it_is(name: str) -> None:
    documentation = yaml.safe_load((DOCUMENTED / f"{name}.yml").read_text(encoding="utf-8"))
    assert documentation.keys() == {"DOCUMENTATION", "EXAMPLES", "RETURN"}
    described = documentation["DOCUMENTATION"]
    assert described["name"] == name
    parameters = list(inspect.signature(FILTERS[name]).parameters.values())
    options = {("_additions" if one.name == "additions" else one.name): one.default for one in parameters[1:]}
    assert described["options"].keys() == {"_input", *options}
    for option, default in options.items():
        stated = described["options"][option].get("default")
        assert stated == (
            list(default) if isinstance(default, tuple) else None if default is inspect._empty else default
        )
    assert f"fushuma.production.{name}" in documentation["EXAMPLES"]
    assert yaml.safe_load(documentation["EXAMPLES"])
