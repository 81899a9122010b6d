# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A site that is shut for a while: what is refused, and what nginx is told."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.fushuma.production.plugins.filter.nginx import FilterModule
from ansible_collections.fushuma.production.plugins.plugin_utils import maintenance
from hypothesis import given
from hypothesis import strategies as st

SITES = [{"name": "shop.fushuma.com", "aliases": ["www.shop.fushuma.com"]}, {"name": "www.fushuma.com"}]
SETTINGS = {"nginx_sites": SITES, "nginx_listen_addresses": ["0.0.0.0", "[::]"], "nginx_https_port": 443}
nginx_maintenance = FilterModule().filters()["nginx_maintenance"]


def asked(settings: dict[str, Any] | None = None, **told: Any) -> dict[str, Any]:
    wanted = {"site": "shop.fushuma.com", "state": "on", **told}
    found: dict[str, Any] = nginx_maintenance(wanted, {**SETTINGS, **(settings or {})}, host="web1")
    return found


@pytest.mark.parametrize(
    ("settings", "told", "words"),
    [
        ({}, {}, ""),
        ({}, {"state": "off"}, ""),
        ({}, {"state": True}, ""),
        ({}, {"state": False}, ""),
        ({}, {"allow": ["192.0.2.1/32", "2001:db8::/32", "192.0.2.9"]}, ""),
        ({}, {"allow": "['192.0.2.1/32', \"2001:db8::1\"]"}, ""),
        ({}, {"allow": "192.0.2.1/32,2001:db8::1"}, ""),
        ({}, {"retry_after": 60, "message": "x" * 300}, ""),
        (
            {},
            {"site": "shop"},
            'site is "shop": nginx has no such site. Write one of shop.fushuma.com, www.fushuma.com.',
        ),
        ({"nginx_sites": []}, {}, "Write a site, once nginx_sites has one."),
        ({}, {"site": "www.shop.fushuma.com"}, "it is another name of shop.fushuma.com. Write shop.fushuma.com."),
        ({}, {"state": "maybe"}, 'state is "maybe": the site is either shut or not. Write on or off.'),
        ({}, {"state": None}, 'state is "None"'),
        ({}, {"allow": ["192.0.2.300"]}, 'allow[0] is "192.0.2.300": it is no network'),
        ({}, {"allow": "192.0.2.1 192.0.2.1/24"}, 'allow[1] is "192.0.2.1/24": it is no network'),
        ({}, {"allow": "0.0.0.0/0"}, "it is every address there is"),
        ({}, {"allow": ["::/0"]}, "it is every address there is"),
        ({}, {"message": "x" * 301}, "nobody reads that much"),
        ({}, {"retry_after": "soon"}, 'retry_after is "soon": it is no number of seconds from 1 to 604800'),
        ({}, {"retry_after": "604801"}, "it is no number of seconds"),
        ({}, {"retry_after": -1}, "it is no number of seconds"),
    ],
)
def test_what_is_asked_for(settings: dict[str, Any], told: dict[str, Any], words: str) -> None:
    found = asked(settings, **told)
    assert len(found["problems"]) == (1 if words else 0), found
    if words:
        assert found["problems"][0].startswith("web1: ")
        assert words in found["problems"][0]
        assert (found["files"], found["probe"]) == ([], [])
    else:
        assert len(found["files"]) == 2


@pytest.mark.parametrize("wrong", [("on", SETTINGS), ({}, "settings")])
def test_what_is_no_dict(wrong: Any) -> None:
    with pytest.raises(AnsibleFilterError, match="each as a dict"):
        nginx_maintenance(*wrong)


def test_a_site_that_is_shut() -> None:
    found = asked(allow=["192.0.2.0/24", "127.0.0.1/32"], retry_after=90)
    http, server = found["files"]
    assert http["dest"] == "/etc/nginx/maintenance/shop.fushuma.com.http"
    assert re.findall(r"^    ([0-9a-f.:]+/\d+) 0;$", http["content"], re.MULTILINE) == [
        "127.0.0.1/32",
        "::1/128",
        "192.0.2.0/24",
    ]
    assert "    /.well-known/csp-report 0;\n" in http["content"]
    assert server["dest"] == "/etc/nginx/maintenance/shop.fushuma.com.server"
    assert "    add_header Retry-After 90 always;\n" in server["content"]
    assert "    include /etc/nginx/headers/shop.fushuma.com.conf;\n" in server["content"]
    assert {*re.findall(r"\$\w+", server["content"])} < {*re.findall(r"\$\w+", http["content"])}
    (probe,) = found["probe"]
    assert (probe["status"], probe["expects"], probe["body"]) == (503, {"Retry-After": "90"}, "@config_digest@")
    assert probe["headers"] == {"X-Production-Visitor": "probe"}


def test_a_site_that_is_opened_again() -> None:
    found = asked(state="off")
    assert [one["state"] for one in found["files"]] == ["absent", "absent"]
    assert (found["probe"][0]["status"], found["probe"][0]["body"]) == (404, "")


@pytest.mark.parametrize(
    ("addresses", "asks"),
    [
        (["0.0.0.0", "[::]"], "127.0.0.1:443"),
        (["[::]"], "[::1]:443"),
        (["10.0.0.5"], "10.0.0.5:443"),
        (["10.0.0.5", "127.0.0.1"], "127.0.0.1:443"),
    ],
)
def test_where_it_is_asked(addresses: list[str], asks: str) -> None:
    assert asked({"nginx_listen_addresses": addresses})["probe"][0]["address"] == asks


@given(st.text(max_size=maintenance.LONGEST_MESSAGE))
def test_any_message_is_a_text_of_the_page_and_one_word_to_nginx(message: str) -> None:
    page = maintenance.page("shop.fushuma.com", message)
    assert not {*page} & {*'"\\$;\n{}'} - {";"}
    assert page.isascii()
    assert len(page) < 4096
    inside = page.partition("<p>")[2].partition("</p>")[0]
    assert not {*inside} & {*"<>'\""}
    # References to some characters are read as others (HTML, numeric character reference end state).
    if not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef]|[\ufffe\uffff]", message):
        plain = "".join(one for one in message if ord(one) & 0xFFFE != 0xFFFE)
        assert html.unescape(inside).replace("\r", "") == plain.replace("\r", "")
