# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Settings of the log_shipper role that cannot work, what is made of those that can, and what no line may hold."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.fushuma.production.plugins.filter.log_shipper import FilterModule
from ansible_collections.fushuma.production.plugins.plugin_utils import log_shipper_model as model
from ansible_collections.fushuma.production.plugins.plugin_utils import specs
from ansible_collections.fushuma.production.plugins.plugin_utils.log_shipper import problems
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import sentences
from hypothesis import given
from hypothesis import strategies as st

OPTIONS = specs.role_options("log_shipper")
LOKI = {"url": "http://10.0.1.50:3100"}
SECURE = {"url": "https://logs.fushuma.com", "user": "shipper", "password": "canary-1f0e9d8c7b6a"}
CA = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


def said(**settings: Any) -> list[str]:
    named = {f"log_shipper_{name}": value for name, value in settings.items()}
    assert not specs.problems(OPTIONS, named), "the shape is wrong already"
    return sentences(problems(specs.filled(OPTIONS, named)))


def made(**settings: Any) -> list[dict[str, Any]]:
    named = {f"log_shipper_{name}": value for name, value in settings.items()}
    found: list[dict[str, Any]] = FilterModule().filters()["log_shipper_model"](named, "web1")
    return found


# --- what cannot work -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"stores": [LOKI, SECURE | {"ca": CA, "tenant": "fushuma"}]},
        {"stores": [LOKI | {"kind": "victorialogs", "tenant": "12:3", "push": "/in/push"}]},
        {"stores": [{"url": "http://localhost:3100/logs", "user": "a", "password": "canary-0a9b8c7d6e5f"}]},
        {"stores": [{"url": "http://[::1]:3100", "user": "a", "password": "canary-0a9b8c7d6e5f"}]},
        {"stores": [LOKI, LOKI | {"push": "/other"}]},
        {"logs": [{"unit": "a@b.service", "job": "a"}, {"application": "shop", "job": "shop"}]},
        {"logs": [{"unit": "a.service", "job": "a"}, {"unit": "a.service", "job": "a"}]},
        {"logs": [{"path": "/var/log/a.log", "job": "a", "starts": r"^\d"}]},
        {"scrub": [{"name": "a", "pattern": r"(a)(b)", "replacement": "$2$1"}, {"name": "card"}]},
        {"rate": [{"unit": "a.service", "interval": "0s", "burst": 1}, {"unit": "b.service", "state": "absent"}]},
        {"buffer": "32mb", "memory": "64mb", "proof": {"interval": 10, "within": 9}, "textfile_folder": ""},
    ],
)
def test_settings_that_work(settings: dict[str, Any]) -> None:
    assert said(**settings) == []


def store(**settings: Any) -> dict[str, Any]:
    return {"stores": [{**LOKI, **settings}]}


def secure(**settings: Any) -> dict[str, Any]:
    return {"stores": [{**SECURE, **settings}]}


def log(**settings: Any) -> dict[str, Any]:
    return {"logs": [{"job": "a", **settings}]}


def rule(**settings: Any) -> dict[str, Any]:
    return {"scrub": [{"name": "a", "pattern": "(a)b", **settings}]}


def rate(**settings: Any) -> dict[str, Any]:
    return {"rate": [{"unit": "a.service", **settings}]}


@pytest.mark.parametrize(
    ("settings", "setting", "why"),
    [
        (store(url="10.0.1.50:3100"), "stores[0].url", "it is no address of a server"),
        (store(url="http://u:p@10.0.1.50"), "stores[0].url", "neither a login nor a question"),
        (store(push="push"), "stores[0].push", "it is no path"),
        (secure(password=""), "stores[0].password", "a login has both"),
        (secure(user=""), "stores[0].user", "a login has both"),
        (secure(user="a`b"), "stores[0].user", 'syslog-ng cannot read "`" in it'),
        (secure(password="canary-`-0a9b8c7d6e5f"), "stores[0].password is a secret of 21 characters", "cannot read"),
        (secure(user="a:b"), "stores[0].user", "a colon ends the name"),
        (secure(url="http://logs.fushuma.com"), "stores[0].url", "everybody on the way would read the password"),
        (store(ca=CA), "stores[0].ca", "no certificate is shown without TLS"),
        (secure(ca="/etc/ca.pem"), "stores[0].ca", "it is no certificate in PEM form"),
        (store(tenant="a b"), "stores[0].tenant", "it is no tenant of loki"),
        (store(tenant="a", kind="victorialogs"), "stores[0].tenant", "it is no tenant of victorialogs"),
        ({"stores": [LOKI, LOKI]}, "stores[1].url", "log_shipper_stores[0] has it already"),
        (log(), "logs[0]", "exactly one of unit, path and application"),
        (log(unit="a.service", path="/a"), "logs[0]", "exactly one of unit, path and application"),
        (log(unit="a.service", job="a b"), "logs[0].job", "a label is found by it"),
        (log(unit="a.service", job="journal"), "logs[0].job", "the job of all lines that nobody declares"),
        (log(unit="a`.service"), "logs[0].unit", "syslog-ng cannot read it"),
        (log(path="a.log"), "logs[0].path", "no whole path of a file"),
        (log(path="/var/../a.log"), "logs[0].path", "no whole path of a file"),
        (log(path="/var/log/*.log"), "logs[0].path", "it is a pattern"),
        (log(unit="a.service", starts="a"), "logs[0].starts", "are whole already"),
        (log(path="/a", starts="a", format="json"), "logs[0].starts", "an entry of JSON is one line"),
        (log(path="/a", starts="("), "logs[0].starts", "no regular expression"),
        (
            {"logs": [{"unit": "a.service", "job": "a"}, {"unit": "a.service", "job": "b"}]},
            "logs[1].unit",
            "log_shipper_logs[0] reads it in another way",
        ),
        (rule(name="A"), "scrub[0].name", "a rule is told from others by it"),
        (rule(pattern=""), "scrub[0].pattern", "there is nothing to switch off"),
        (rule(pattern="["), "scrub[0].pattern", "no regular expression"),
        (rule(pattern="a`"), "scrub[0].pattern", r"\x60 is a backtick"),
        (rule(pattern="a*"), "scrub[0].pattern", "it fits where nothing is"),
        (rule(replacement="$2"), "scrub[0].replacement", "the pattern has 1 groups"),
        (rule(replacement="$0"), "scrub[0].replacement", "the pattern has 1 groups"),
        (rule(replacement="`"), "scrub[0].replacement", "syslog-ng cannot read it"),
        ({"scrub": [{"name": "a", "pattern": "a"}] * 2}, "scrub[1].name", "has it already"),
        (rate(unit="worker"), "rate[0].unit", "no name of a unit"),
        (rate(interval="often"), "rate[0].interval", "it is no time"),
        (rate(burst=0), "rate[0].burst", "could not log at all"),
        ({"rate": [{"unit": "a.service"}] * 2}, "rate[1].unit", "has it already"),
        ({"buffer": "1mb"}, "buffer", "less than 32 MB"),
        ({"memory": "big"}, "memory", "it is no size"),
        ({"proof": {"interval": 5}}, "proof.interval", "takes a while"),
        ({"proof": {"interval": 60, "within": 60}}, "proof.within", "before the next one is written"),
        ({"textfile_folder": "figures"}, "textfile_folder", "no whole path"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], setting: str, why: str) -> None:
    (sentence,) = said(**settings)
    assert sentence.startswith(f"log_shipper_{setting}")
    assert why in sentence


# --- what is made of settings -----------------------------------------------------------------------------------------


def test_what_is_read_and_where_it_goes() -> None:
    config, proof, authority = made(
        stores=[LOKI | {"tenant": "fushuma"}, SECURE | {"ca": CA, "kind": "victorialogs", "tenant": "12"}],
        logs=[
            {"unit": "b.service", "job": "b"},
            {"application": "shop-admin", "job": "admin"},
            {"application": "shop", "job": "shop"},
            {"path": "/var/log/a.log", "job": "a", "starts": r"^\d"},
        ],
    )
    assert [one["unit"] for one in config["units"]] == [
        '"b.service"',
        '"production-logs.service"',
        '"syslog-ng.service"',
    ]
    assert [one["begins"] for one in config["applications"]] == ['"^shop-"', r'"^shop\\-admin-"']
    assert [(one["path"], one["starts"]) for one in config["files"]] == [('"/var/log/a.log"', r'"^\\d"')]
    assert config["names"] == ["file_1"]
    first, second = config["stores"]
    assert first["url"] == '"http://10.0.1.50:3100/loki/api/v1/push"'
    assert (first["authorities"], first["user"]) == ("", "")
    assert second["url"] == '"https://logs.fushuma.com/insert/loki/api/v1/push"'
    assert first["headers"] == ['"X-Scope-OrgID: fushuma"']
    assert second["headers"] == ['"AccountID: 12"', '"ProjectID: 0"']
    assert authority["dest"] == f"/etc/syslog-ng/authorities/{second['id']}.pem"
    assert second["authorities"] == f'"{authority["dest"]}"'
    assert proof["config"]["textfile"] == "/var/lib/prometheus/node-exporter/production_logs.prom"
    assert [one["authorities"] for one in proof["config"]["stores"]] == [
        "/etc/ssl/certs/ca-certificates.crt",
        authority["dest"],
    ]
    plain = made(stores=[LOKI], textfile_folder="")[1]["config"]
    assert (plain["textfile"], plain["stores"][0]["headers"]) == ("", {})


def test_own_rules_come_beside_the_usual_ones_or_in_their_place() -> None:
    own = [
        {"name": "card", "pattern": "x", "replacement": "US$ $1"},
        {"name": "bearer"},
        {"name": "own", "pattern": "y"},
    ]
    found = {one["name"]: one for one in made(scrub=own)[0]["scrub"]}
    assert found["card"] == {"name": "card", "pattern": '"x"', "replacement": '"US$$ $1"'}
    assert found["own"]["replacement"] == '"***"'
    assert found.keys() == ({one["name"] for one in model.USUAL} | {"own"}) - {"bearer"}


def test_settings_of_the_wrong_shape_are_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="log_shipper_model"):
        made(stores=[{"place": "here"}])


@given(st.text(st.characters(codec="ascii", exclude_characters="`")))
def test_quoted_texts_are_read_as_they_were(text: str) -> None:
    quoted = model.quoted(text)
    assert quoted[0] == quoted[-1] == '"'
    inside = quoted[1:-1]
    assert re.fullmatch(r'(?:[^"\\]|\\["\\])*', inside, re.DOTALL)
    assert re.sub(r"\\(.)", r"\1", inside, flags=re.DOTALL) == text


# --- what no line may hold --------------------------------------------------------------------------------------------


def scrubbed(text: str) -> str:
    for one in model.USUAL:
        text = re.sub(one["pattern"], re.sub(r"\$(\d)", r"\\\1", one["replacement"]), text)
    return text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Authorization: Bearer hide1.hide2", "Authorization: Bearer ***"),
        ("Authorization: Basic aGlkZTE6aGlkZTI=", "Authorization: Basic ***"),
        ('{"authorization":"Bearer hide1","a":1}', '{"authorization":"Bearer ***","a":1}'),
        (r'{"m":"{\"Authorization\":\"Token hide1\"}"}', r'{"m":"{\"Authorization\":\"Token ***\"}"}'),
        ("sent bearer hide1hide1", "sent bearer ***"),
        ("Cookie: sid=hide1; other=hide2", "Cookie: ***"),
        ('{"set-cookie":"sid=hide1; Path=/","a":1}', '{"set-cookie":"***","a":1}'),
        ("mysql://shop:hide1@db/shop", "mysql://shop:***@db/shop"),
        ('{"password":"hide\\"1","user":"u"}', '{"password":"***","user":"u"}'),
        ('{"db_password" : "hide1"}', '{"db_password" : "***"}'),
        (r'{"m":"{\"client_secret\":\"hide1\"}"}', r'{"m":"{\"client_secret\":\"***\"}"}'),
        ("password=hide1&x=1", "password=***&x=1"),
        ("api_key: 'hide1', x", "api_key: '***', x"),
        ("/cb?access_token=hide1&state=2", "/cb?access_token=***&state=2"),
        ("backup --password hide1 --verbose", "backup --password *** --verbose"),
        ("CREATE USER a IDENTIFIED BY 'hide1'", "CREATE USER a IDENTIFIED BY '***'"),
        ("got eyJhbGciOiJI.eyJzdWIiOiIx.hide1", "got ***"),
        ("key ghp_hide1hide1hide1", "key ***"),
        ("key AKIAABCDEFGHIJKLMNOP", "key ***"),
        ("card 4111 1111 1111 1111.", "card ***."),
        ("card 5555-5555-5555-4444 or 378282246310005", "card *** or ***"),
        ("-----BEGIN RSA PRIVATE KEY-----\nhide1\nhide2\n-----END RSA PRIVATE KEY-----", None),
    ],
)
def test_secrets_are_taken_out(text: str, expected: str | None) -> None:
    found = scrubbed(text)
    assert "hide" not in found
    assert expected is None or found == expected


@pytest.mark.parametrize(
    "text",
    [
        "Accepted publickey for deploy from 10.0.0.1 port 50000 ssh2: ED25519 SHA256:abc",
        "systemd-ask-password-wall.path: Deactivated successfully.",
        '{"prompt_tokens":1234,"token":null,"ok":true}',
        '{"time":"2026-11-26T10:00:00+00:00","bytes":1764154800123456,"seconds":0.4111111111111111}',
        "root : PWD=/root ; USER=root ; COMMAND=/usr/bin/id",
        "http://10.0.0.1:3000/a@b 192.168.100.200:4444",
        "log pipeline proof 65b06b8526c5473e91e364dc7fc79323",
        "id 4111111-1111-1111 4111111111111111abc 41111111111111112222",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert scrubbed(text) == text


@pytest.fixture(scope="module")
def pcre() -> ctypes.CDLL:
    """The library that syslog-ng of Debian 13 asks; grep needs it too, so it is everywhere."""
    return ctypes.CDLL("libpcre2-8.so.0")


@pytest.mark.parametrize("one", model.USUAL, ids=lambda one: one["name"])
def test_the_usual_rules_are_read_by_pcre(pcre: ctypes.CDLL, one: Mapping[str, str]) -> None:
    pattern = one["pattern"].encode()
    number, place = ctypes.c_int(), ctypes.c_size_t()
    compiled = pcre.pcre2_compile_8
    compiled.restype = ctypes.c_void_p
    assert compiled(pattern, ctypes.c_size_t(len(pattern)), 0, ctypes.byref(number), ctypes.byref(place), None), place
    assert not re.search(one["pattern"], "")
    assert not list(model.unwritable(one["pattern"] + one["replacement"]))
