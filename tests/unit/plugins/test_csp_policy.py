# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A Content-Security-Policy is read as browsers read it, written so that nothing breaks out, and extended safely."""

from __future__ import annotations

import string

import pytest
from ansible_collections.fushuma.production.plugins.plugin_utils import csp
from ansible_collections.fushuma.production.plugins.plugin_utils.csp_policy import (
    FALLBACKS,
    allows_inline,
    canonical,
    effective,
    read,
)
from hypothesis import given
from hypothesis import strategies as st

HASH = "'sha256-xnlpMIZlFSzRApf+Kx0xOuYbKEqqYDhXxXSVpdyrjL4='"
OTHER_HASH = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"

# Sources as a policy in canonical form holds them: any text the header may carry, and the ones with a meaning.
_TEXT = "".join(sorted(set(string.ascii_letters + string.digits + "!#%&()*+-./:<=>?@[]^_`{|}~") - {"'"}))
MEANINGFUL = ["'self'", "'none'", "'unsafe-inline'", "'strict-dynamic'", HASH, OTHER_HASH, "https:", "*.example.com"]
SOURCES = st.one_of(st.sampled_from(MEANINGFUL), st.text(_TEXT, min_size=1, max_size=12).map(canonical))
NAMES = st.one_of(
    st.sampled_from([*FALLBACKS, "base-uri", "sandbox", "upgrade-insecure-requests"]),
    st.text(string.ascii_lowercase + string.digits + "-", min_size=1, max_size=12),
)
POLICIES = st.dictionaries(NAMES, st.lists(SOURCES, max_size=5), max_size=6)
# Without child-src: workers fall back to it before script-src, so adding it changes what governs them.
ADDITIONS = st.dictionaries(
    st.sampled_from(sorted(FALLBACKS.keys() - {"child-src"})),
    st.lists(st.sampled_from(MEANINGFUL), max_size=4),
    max_size=4,
)


# --- header ----------------------------------------------------------------------------------------------------------


def test_default_src_comes_first_and_the_rest_as_given() -> None:
    policy = {"script-src": ["'self'"], "default-src": ["'none'"], "upgrade-insecure-requests": [], "a": ["b", "c"]}
    assert csp.header(policy) == "default-src 'none'; script-src 'self'; upgrade-insecure-requests; a b c"


def test_an_empty_policy_is_an_empty_header() -> None:
    assert csp.header({}) == ""


@pytest.mark.parametrize("nonce", ["$request_id", "${request_id}", "MTIzNDU2Nzg5MDEyMzQ1Ng==", "a-b_c"])
def test_the_nonce_is_written_where_the_policy_asks_for_it(nonce: str) -> None:
    policy = {"script-src": ["'NONCE'", "'strict-dynamic'"], "img-src": ["nonce"]}
    assert csp.header(policy, nonce=nonce) == f"script-src 'nonce-{nonce}' 'strict-dynamic'; img-src nonce"


def test_a_nonce_that_is_missing_is_an_error() -> None:
    with pytest.raises(
        ValueError, match="script-src uses 'nonce', but there is no value that is new in every response"
    ):
        csp.header({"script-src": ["'nonce'"]})


@pytest.mark.parametrize("nonce", ["", "a b", "a'b", 'a"b', "$", "$a$b", "$a b", "${a", "$ä", "a===", "a=b"])
def test_a_malformed_nonce_is_an_error(nonce: str) -> None:
    with pytest.raises(ValueError, match="neither an nginx variable such as"):
        csp.header({"script-src": ["'self'"]}, nonce=nonce)


@pytest.mark.parametrize("character", [*';,"\\$ \t\n\r\f\0\x1f\x7f', "ä", "\u2028", ""])
def test_what_would_break_out_is_an_error(character: str) -> None:
    source = f"https://a{character}b" if character else ""
    with pytest.raises(ValueError, match="in img-src holds a character that would end the header"):
        csp.header({"img-src": ["'self'", source]})


@pytest.mark.parametrize("name", ["", "img src", "img-src;", "img_src", "ïmg-src", "a\n", "default-src 'none'"])
def test_what_is_no_name_of_a_directive_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="is no name of a directive"):
        csp.header({name: []})


@given(policy=st.dictionaries(st.text(max_size=5), st.lists(st.text(max_size=6), max_size=3), max_size=3))
def test_a_header_never_breaks_nginx_or_http(policy: dict[str, list[str]]) -> None:
    try:
        written = csp.header(policy, nonce="$request_id")
    except ValueError:
        return
    assert written.isascii()
    assert written.isprintable()
    assert not set('"\\,') & set(written)
    assert "$" not in written.replace("'nonce-$request_id'", "")
    assert written.count(";") == max(0, len(policy) - 1)


# --- parse -----------------------------------------------------------------------------------------------------------


@given(policy=POLICIES)
def test_what_was_written_is_read_back(policy: csp.Policy) -> None:
    assert csp.parse(csp.header(policy)) == policy


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("", {}),
        (" ; ;; ", {}),
        ("default-src", {"default-src": []}),
        ("DEFAULT-SRC 'SELF'", {"default-src": ["'self'"]}),
        ("img-src\t'self'\n  HTTPS:\r\f;", {"img-src": ["'self'", "https:"]}),
        ("img-src a; img-src b", {"img-src": ["a"]}),
        ("img-src a; IMG-SRC b", {"img-src": ["a"]}),
        ("img-src ä; font-src b", {"font-src": ["b"]}),
        ("img-src a a", {"img-src": ["a", "a"]}),
        ("img-src https://Example.com/Path", {"img-src": ["https://Example.com/Path"]}),
        ("img-src a, default-src 'none'", {"img-src": ["a,", "default-src", "'none'"]}),
        ("script-src 'NONCE-AbC' 'SHA256-AbC='", {"script-src": ["'nonce-AbC'", "'sha256-AbC='"]}),
    ],
)
def test_reads_as_browsers_do(text: str, policy: csp.Policy) -> None:
    assert csp.parse(text) == policy


def test_what_browsers_drop_is_told() -> None:
    assert read("img-src a; img-src b; FONT-src ä b") == ({"img-src": ["a"]}, ["img-src"], ["FONT-src ä b"])


# --- which directive, which source counts ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("present", "directive", "governing"),
    [
        ("default-src", "script-src-elem", "default-src"),
        ("default-src script-src", "script-src-attr", "script-src"),
        ("script-src-elem script-src", "script-src-elem", "script-src-elem"),
        ("default-src script-src child-src", "worker-src", "child-src"),
        ("default-src script-src", "worker-src", "script-src"),
        ("child-src default-src", "frame-src", "child-src"),
        ("default-src", "base-uri", None),
        ("img-src", "default-src", None),
    ],
)
def test_fallbacks(present: str, directive: str, governing: str | None) -> None:
    assert effective({name: [] for name in present.split()}, directive) == governing


@pytest.mark.parametrize(
    ("sources", "allowed"),
    [
        ("'unsafe-inline' 'self'", True),
        ("'self'", False),
        (f"'unsafe-inline' {HASH}", False),
        ("'unsafe-inline' 'nonce'", False),
        ("'unsafe-inline' 'nonce-abc'", False),
        ("'unsafe-inline' 'strict-dynamic'", False),
        ("'unsafe-inline' 'nonce-***'", True),
    ],
)
def test_what_ends_unsafe_inline(sources: str, allowed: bool) -> None:
    assert allows_inline(sources.split()) is allowed


# --- merge -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "additions", "merged"),
    [
        # 'none' goes when something joins it, and stays when nothing does.
        ({"img-src": ["'none'"]}, {"img-src": ["'self'"]}, {"img-src": ["'self'"]}),
        ({"img-src": ["'self'"]}, {"img-src": ["'none'"]}, {"img-src": ["'self'"]}),
        ({"img-src": ["'none'"]}, {"img-src": ["'none'"]}, {"img-src": ["'none'"]}),
        ({"img-src": ["'none'"]}, {"img-src": []}, {"img-src": ["'none'"]}),
        # What is there already is not added again.
        ({"img-src": ["a", "https:"]}, {"img-src": ["HTTPS:", "b", "b"]}, {"img-src": ["a", "https:", "b"]}),
        # A new fetch directive starts from its fallback.
        (
            {"default-src": ["'self'"]},
            {"script-src": [HASH]},
            {"default-src": ["'self'"], "script-src": ["'self'", HASH]},
        ),
        ({"default-src": ["'none'"]}, {"style-src": [HASH]}, {"default-src": ["'none'"], "style-src": [HASH]}),
        ({"default-src": ["'none'"]}, {"style-src": []}, {"default-src": ["'none'"]}),
        ({}, {"style-src": [HASH]}, {"style-src": [HASH]}),
        # Others start from nothing.
        ({"default-src": ["'self'"]}, {"base-uri": ["'none'"]}, {"default-src": ["'self'"], "base-uri": ["'none'"]}),
        ({}, {"upgrade-insecure-requests": []}, {"upgrade-insecure-requests": []}),
        # The hash of an element belongs where browsers look for it.
        (
            {"script-src": ["'self'"], "script-src-elem": ["'self'"]},
            {"script-src": [HASH]},
            {"script-src": ["'self'", HASH], "script-src-elem": ["'self'", HASH]},
        ),
        # 'unsafe-inline' allows it anyway, and the hash would end that.
        ({"style-src": ["'unsafe-inline'"]}, {"style-src": [HASH]}, {"style-src": ["'unsafe-inline'"]}),
        (
            {"script-src": ["'unsafe-inline'"]},
            {"script-src": [HASH, "'strict-dynamic'"]},
            {"script-src": ["'unsafe-inline'", HASH, "'strict-dynamic'"]},
        ),
        (
            {"style-src": ["'unsafe-inline'", OTHER_HASH]},
            {"style-src": [HASH]},
            {"style-src": ["'unsafe-inline'", OTHER_HASH, HASH]},
        ),
    ],
)
def test_merge(policy: csp.Policy, additions: csp.Policy, merged: csp.Policy) -> None:
    assert csp.merge(policy, additions) == merged


def test_merge_leaves_what_it_was_given_alone() -> None:
    policy = {"img-src": ["a"]}
    csp.merge(policy, {"img-src": ["b"]})["img-src"].append("c")
    assert policy == {"img-src": ["a"]}


@given(policy=POLICIES, additions=ADDITIONS)
def test_merging_twice_changes_nothing(policy: csp.Policy, additions: csp.Policy) -> None:
    once = csp.merge(policy, additions)
    assert csp.merge(once, additions) == once


@given(policy=POLICIES, additions=ADDITIONS)
def test_merging_takes_nothing_away(policy: csp.Policy, additions: csp.Policy) -> None:
    merged = csp.merge(policy, additions)
    for directive in FALLBACKS:  # through whichever directive governs it before and after
        before = policy.get(effective(policy, directive) or "", [])
        after = merged.get(effective(merged, directive) or "", [])
        assert set(before) - {"'none'"} <= set(after)
