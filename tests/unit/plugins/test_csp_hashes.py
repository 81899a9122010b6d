# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hashes are those browsers compute, and what no hash allows is named with its line."""

from __future__ import annotations

import base64
import hashlib
import itertools

import pytest
from ansible_collections.fushuma.production.plugins.plugin_utils import csp
from hypothesis import given
from hypothesis import strategies as st


def sha256(text: bytes) -> str:
    return f"'sha256-{base64.standard_b64encode(hashlib.new('sha256', text).digest()).decode('ascii')}'"


def sentences(html: str) -> list[str]:
    return [problem.sentence() for problem in csp.hashes(html).problems]


# --- hashes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("html", "source"),
    [
        # W3C CSP Level 3, and OWASP's cheat sheet.
        ("<script>alert('Hello, world.');</script>", "'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng='"),
        ("""<script>var foo = "314"</script>""", "'sha256-gPMJwWBMWDx0Cm7ZygJKZIU2vZpiYvzUQjl5Rh37hKs='"),
    ],
)
def test_hashes_others_published(html: str, source: str) -> None:
    assert csp.hashes(html).script_src == [source]


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<script>a</script>", b"a"),
        ("<SCRIPT>a</SCRIPT >", b"a"),
        ("<script type='' defer>a</script>", b"a"),
        ("<script type>a</script>", b"a"),
        ("<script type=' Text/JavaScript '>a</script>", b"a"),
        ("<script type=module>a</script>", b"a"),
        ("<script type=importmap>{}</script>", b"{}"),
        ("<script type=speculationrules>{}</script>", b"{}"),
        ("<script language=JavaScript>a</script>", b"a"),
        ("<script nonce=x>a</script>", b"a"),
        ("<script>\r\n a\rb\n</script>", b"\n a\nb\n"),
        ("<script>a\0b</script>", "a�b".encode()),
        ("<script>a &amp; <b>é</b></script>", "a &amp; <b>é</b>".encode()),
        ("<script> </script>", b" "),
        ("<script>//<!--\na\n//--></script>", b"//<!--\na\n//-->"),
        ("<script>'</scriptx>'</script>", b"'</scriptx>'"),
        ("<script>'</ script>'</script>", b"'</ script>'"),
        ("<script>a</script/>", b"a"),
        ("<script>a</script x='>'>", b"a"),
        ("<script>a</script\n>", b"a"),
        ("<!--><script>a</script> -->", b"a"),
        ("<!---><script>a</script> -->", b"a"),
        ("<!-- --!><script>a</script> -->", b"a"),
        ("<!-- -- > <script>no</script> --><script>a</script>", b"a"),
        ("<![CDATA[ ><script>a</script>]]>", b"a"),
        ("<![if !IE]><script>a</script><![endif]>", b"a"),
        ("<!doctype html><script>a</script>", b"a"),
        ("<textarea/><script>no</script></textarea><script>a</script>", b"a"),
        ("<script src=x/></script><script>a</script>", b"a"),
        ("<svg><![CDATA[<script>no</script>]]></svg><script>a</script>", b"a"),
        ("</b></script><script>a</script>", b"a"),
        ("<svg><script/><text>no</text></svg><script>a</script>", b"a"),
        ("<template><script>a</script></template>", b"a"),
        ("<svg><script>a</script></svg>", b"a"),
        ("<svg><title>t</title></svg><script>a</script>", b"a"),
        ("<iframe srcdoc='&lt;script>a&lt;/script>'></iframe>", b"a"),
        ("<script>a</script><script>a</script>", b"a"),
        ("<title><script>no</script></title><script>a</script>", b"a"),
        ("<textarea><script></textarea><script>a</script>", b"a"),
        ("<!-- <script>no</script> --><script>a</script>", b"a"),
        ("<p title='<script>no</script>'><script>a</script>", b"a"),
        ("<script type=text/javascript1.5>a</script>", b"a"),
    ],
)
def test_scripts_that_need_a_hash(html: str, text: bytes) -> None:
    page = csp.hashes(html)
    assert page.script_src == [sha256(text)]
    assert (page.style_src, page.problems) == ([], [])


@pytest.mark.parametrize("prefix", ["application/", "application/x-", "text/", "text/x-"])
@pytest.mark.parametrize("name", ["javascript", "ecmascript"])
def test_all_names_of_javascript(prefix: str, name: str) -> None:
    assert csp.hashes(f"<script type={prefix}{name}>a</script>").script_src == [sha256(b"a")]


@pytest.mark.parametrize("name", ["jscript", "livescript", *(f"javascript1.{minor}" for minor in range(6))])
def test_old_names_of_javascript(name: str) -> None:
    assert csp.hashes(f"<script language={name}>a</script>").script_src == [sha256(b"a")]


@pytest.mark.parametrize("attribute", ["action", "data", "formaction", "href", "src", "xlink:href"])
def test_attributes_that_hold_an_address(attribute: str) -> None:
    assert [problem.kind for problem in csp.hashes(f"<a {attribute}=javascript:x>").problems] == ["javascript-url"]


@pytest.mark.parametrize("tag", ["script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes"])
def test_a_tag_in_text_is_none(tag: str) -> None:
    assert csp.hashes(f"<{tag}><b onclick=x></{tag}><b style=x>").problems[-1].kind == "style-attribute"
    assert len(csp.hashes(f"<{tag}><b onclick=x></{tag}>").problems) == 0


@pytest.mark.parametrize(
    "html",
    [
        "",
        "<p>text",
        "<script></script>",
        "<script type=application/json>{}</script>",
        "<script type=application/ld+json>{}</script>",
        "<script type='text/javascript; charset=utf-8'>a</script>",
        "<script type=text/template><b onclick=x></script>",
        "<script language=vbscript>a</script>",
        "<style type=text/less>a</style>",
        "<svg></svg></svg></math>",
    ],
)
def test_what_needs_nothing(html: str) -> None:
    assert csp.hashes(html) == csp.HashResult()


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<style>a{}</style>", b"a{}"),
        ("<style media=print type=TEXT/css>a{}</style>", b"a{}"),
        ("<style></style>", b""),
        ("<noscript><style>a{}</style></noscript>", b"a{}"),
        ("<svg><style>a{}</style></svg>", b"a{}"),
        ("<math></svg><style>a{}</style></math>", b"a{}"),
        ("<svg></svg><style>a>b{}</style>", b"a>b{}"),
        ("<style>a::after{content:'\r\n&lt;'}</style>", b"a::after{content:'\n&lt;'}"),
    ],
)
def test_styles_that_need_a_hash(html: str, text: bytes) -> None:
    page = csp.hashes(html)
    assert page.style_src == [sha256(text)]
    assert (page.script_src, page.problems) == ([], [])


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40).filter(
    lambda text: not any(word in text.lower() for word in ("</s", "<!--", "eval", "function", "set"))
)


@given(texts=st.lists(TEXTS, max_size=4), tags=st.lists(st.sampled_from(["script", "style"]), min_size=4, max_size=4))
def test_hashes_of_any_text(texts: list[str], tags: list[str]) -> None:
    page = csp.hashes("".join(f"<p>\r\n<{tag}>{text}</{tag}>" for tag, text in zip(tags, texts, strict=False)))
    for kind, sources in (("script", page.script_src), ("style", page.style_src)):
        expected = []
        for tag, text in zip(tags, texts, strict=False):
            served = text.encode().replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\0", b"\xef\xbf\xbd")
            if tag == kind and (served or tag == "style"):
                expected.append(sha256(served))
        assert sources == list(dict.fromkeys(expected))
    assert page.problems == []


def test_text_that_is_not_unicode_is_an_error() -> None:
    with pytest.raises(ValueError, match="the page is not UTF-8: surrogates not allowed at character 8"):
        csp.hashes(b"<script>\xe4</script>".decode("utf-8", "surrogateescape"))


@given(
    html=st.lists(st.sampled_from([*"<>/!-='\"a \n\r\0&", "<script", "</script>", "<svg>", "<!--", "-->"])).map("".join)
)
def test_any_text_is_read(html: str) -> None:
    csp.hashes(html)


# --- what no hash allows ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("html", "sentence"),
    [
        (
            "<p>\n<b ONCLICK=x()>",
            "line 2: <b> has the inline event handler onclick. Call addEventListener in a script instead.",
        ),
        (
            "<a href=' java\nscript:x()'>",
            "line 1: <a> has a javascript: URL in href. Use a button and an event listener in a script instead.",
        ),
        (
            "\r\n\r\n<b style='color:red'>",
            "line 3: <b> has a style attribute. "
            "Move it to a class in a stylesheet, or set it from a script through element.style.",
        ),
        (
            "<script>\n\nif (x) eval ('1')</script>",
            "line 3: eval turns a string into code. "
            "Use code instead of a string of code: JSON.parse, a function, an arrow function in the timer.",
        ),
        (
            "<base href=/app/>",
            "line 1: <base href='/app/'>. Remove it and write absolute paths, or allow its address in base-uri.",
        ),
        ("<object data=x></object>", "line 1: <object>. Use <img>, <video>, <iframe> or a link."),
        ("<embed src=x>", "line 1: <embed>. Use <img>, <video>, <iframe> or a link."),
        (
            "<meta content=x http-equiv=content-security-policy>",
            "line 1: <meta http-equiv=Content-Security-Policy>. "
            "Remove it: the header is the one owner of the policy, and browsers enforce both.",
        ),
        (
            "<script src=/a.js />\n<p>",
            "line 1: <script> has no closing tag. Write its end: browsers run no script that has none.",
        ),
        ("\n<script>a", "line 2: <script> has no closing tag. Write its end: browsers run no script that has none."),
        (
            "\n<!-- a <script>b</script>",
            "line 2: a tag or a comment has no end. Write its end: browsers run no script that has none.",
        ),
        (
            "<svg><style>a>b{}&gt;</style></svg>",
            "line 1: <style> with markup or entities. "
            "Move it out of the <svg> or <math>: markup inside is read differently there.",
        ),
        (
            "<script>\n<!-- <script> </script>",
            "line 1: <!-- and <script in the text of a script. "
            "Write it otherwise: between the two, </script> does not end a script, so its hash is not certain.",
        ),
        (
            "<script src=https://a.example/a.js integrity='sha1-abc'></script>",
            "line 1: <script src='https://a.example/a.js'> has an integrity browsers do not know. "
            "Write sha256-, sha384- or sha512- and the base64 of the file's hash.",
        ),
        (
            "<p>\n<iframe srcdoc='<b onclick=x>'></iframe>",
            "line 2: <b> has the inline event handler onclick. Call addEventListener in a script instead.",
        ),
    ],
)
def test_each_thing_is_named_with_its_line(html: str, sentence: str) -> None:
    assert sentences(html) == [sentence]


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("new Function('x')", True),
        ("setTimeout('x', 1)", True),
        ("window.setInterval(`x`)", True),
        ("setTimeout(() => x(), 1)", False),
        ("parser.eval(x)", False),
        ("myeval(x)", False),
        ("evaluate(x)", False),
        ("Function.prototype", False),
    ],
)
def test_strings_that_become_code(code: str, found: bool) -> None:
    assert [problem.kind for problem in csp.hashes(f"<script>{code}</script>").problems] == ["eval"] * found


@pytest.mark.parametrize(
    "html",
    [
        "<a href='javascripts.html'>",
        "<b data-onclick=x on=y on-click=z>",
        "<base target=_blank>",
        "<meta http-equiv=refresh content=1>",
        "<svg><![CDATA[ x ]]></svg>",
        "<p title='style onclick=x'>",
    ],
)
def test_what_only_looks_like_it(html: str) -> None:
    assert sentences(html) == []


# --- external scripts, and what a policy makes of the page -----------------------------------------------------------

SHA384 = f"sha384-{'a' * 64}"
EXTERNAL = f"""<script src=/app.js></script>
<script src='https://CDN.example.com/x.js?v=1' integrity='{SHA384}?a {SHA384}'></script>
<script src=//b.example/y.js nonce=z>ignored</script>
<script src='data:text/javascript,1'></script>
<script src></script>
"""


def test_external_scripts() -> None:
    page = csp.hashes(EXTERNAL)
    assert page.script_src == []
    assert page.integrity == [f"'{SHA384}'"]
    assert page.origins == ["data:", "https://b.example", "https://cdn.example.com"]
    assert [(one.line, one.nonce) for one in page.external] == [
        (1, False),
        (2, False),
        (3, True),
        (4, False),
        (5, False),
    ]


@pytest.mark.parametrize(
    ("script_src", "blocked"),
    [
        ("'none'", [1, 2, 3, 4, 5]),
        ("'self'", [2, 3, 4]),
        ("*", [4]),
        ("https:", [4]),
        ("data:", [1, 2, 3, 5]),
        ("'self' https://cdn.example.com b.example", [4]),
        ("'self' http://cdn.example.com/x.js https://b.example/", [2, 4]),
        ("*.example.com https://*.example", [1, 4, 5]),
        (f"'{SHA384}'", [1, 3, 4, 5]),
        (f"'{SHA384}' 'nonce' 'strict-dynamic' 'self' https:", [1, 4, 5]),
    ],
)
def test_external_scripts_a_policy_blocks(script_src: str, blocked: list[int]) -> None:
    problems = csp.page_problems(csp.hashes(EXTERNAL), {"script-src": script_src.split()})
    assert [problem.line for problem in problems] == blocked
    assert {problem.kind for problem in problems} <= {"blocked-script"}


def test_a_script_the_policy_blocks_is_named() -> None:
    (problem,) = csp.page_problems(csp.hashes("<script src=/a.js></script>"), {"default-src": ["'none'"]})
    assert problem.sentence() == (
        "line 1: the policy blocks <script src='/a.js'>. "
        "Allow it in script-src, by its origin or by the hash of an integrity attribute."
    )


EVERYTHING = (
    "<base href=/><b onclick=x style=y><a href=javascript:x><object></object><script>eval('1')</script>"
    "<meta http-equiv=content-security-policy>"
)
KINDS = {"base", "event-handler", "style-attribute", "javascript-url", "plugin", "eval", "meta-policy"}


@pytest.mark.parametrize(
    ("policy", "allowed"),
    [
        ({"default-src": ["'none'"], "base-uri": ["'none'"]}, set()),
        ({"default-src": ["'none'"], "base-uri": ["'self'"]}, {"base"}),
        ({"default-src": ["'none'"]}, {"base"}),
        ({"default-src": ["'none'"], "object-src": ["'self'"]}, {"base", "plugin"}),
        ({"default-src": ["'none'"], "object-src": []}, {"base"}),
        ({"default-src": ["'none'"], "style-src-attr": ["'UNSAFE-INLINE'"]}, {"base", "style-attribute"}),
        ({"default-src": ["'none'"], "script-src-attr": ["'unsafe-inline'"]}, {"base", "event-handler"}),
        (
            {"default-src": ["'none'"], "script-src": ["'unsafe-inline'"]},
            {"base", "event-handler", "javascript-url"},
        ),
        ({"default-src": ["'none'"], "script-src": ["'unsafe-inline'", "'nonce'"]}, {"base"}),
        ({"default-src": ["'none'"], "script-src": ["'unsafe-eval'"]}, {"base", "eval"}),
        ({}, KINDS - {"meta-policy"}),
    ],
)
def test_what_the_policy_allows_is_no_problem(policy: csp.Policy, allowed: set[str]) -> None:
    page = csp.hashes(EVERYTHING)
    assert {problem.kind for problem in page.problems} == KINDS
    assert {problem.kind for problem in csp.page_problems(page, policy)} == KINDS - allowed


def test_problems_come_in_the_order_of_the_page() -> None:
    lines = [problem.line for problem in csp.hashes("<b style=x>\n<b onclick=x>\n<b style=x>").problems]
    assert all(first <= second for first, second in itertools.pairwise(lines))
