# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What stands against a silence of alerts, and which of those that are there is the same."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.fushuma.production.plugins.filter.silences import FilterModule

SAID = {"alert": "DiskFull", "matchers": [], "duration": "2h", "reason": "it grows", "who": "alice"}


def silence(*there: dict[str, Any], **said: Any) -> dict[str, Any]:
    found: dict[str, Any] = FilterModule().filters()["alert_silence"]({**SAID, **said}, there)
    return found


def known(number: int, *matchers: tuple[str, str, bool, bool], state: str = "active") -> dict[str, Any]:
    keys = ("name", "value", "isRegex", "isEqual")
    return {
        "id": f"id{number}",
        "status": {"state": state},
        "matchers": [dict(zip(keys, one, strict=True)) for one in matchers],
        "endsAt": "2026-11-26T21:48:00.000Z",
        "createdBy": "alice",
        "comment": "it grows",
    }


@pytest.mark.parametrize(
    ("said", "matchers"),
    [
        ({}, ['alertname="DiskFull"']),
        ({"matchers": ["host=web1"]}, ['alertname="DiskFull"', 'host="web1"']),
        ({"alert": "", "matchers": ['host="web1"']}, ['host="web1"', 'alertname!="Watchdog"']),
        ({"alert": "", "matchers": ['alertname=~"Disk.*"']}, ['alertname=~"Disk.*"']),
        ({"duration": "1w"}, ['alertname="DiskFull"']),
        # As a command line has them.
        ({"matchers": "['host=web1', 'job=\"a b\"']"}, ['alertname="DiskFull"', 'host="web1"', 'job="a b"']),
        ({"matchers": 'host="web1"'}, ['alertname="DiskFull"', 'host="web1"']),
    ],
)
def test_what_is_silenced(said: dict[str, Any], matchers: list[str]) -> None:
    found = silence(**said)
    assert (found["problems"], found["matchers"]) == ([], matchers)


@pytest.mark.parametrize(
    ("said", "setting", "why"),
    [
        ({"alert": "Watchdog"}, "alert", "whoever waits for it outside would call for help"),
        ({"alert": "", "matchers": ['alertname=~".+"']}, "matchers", "Watchdog would be silent"),
        ({"alert": ""}, "matchers", "all alerts would be silent"),
        ({"alert": "", "matchers": ['host=~".*"']}, "matchers", "all alerts would be silent"),
        ({"matchers": ["host"]}, "matchers[0]", "it is no matcher"),
        ({"matchers": "[host"}, "matchers[0]", "it is no matcher"),
        ({"duration": ""}, "duration", "a silence ends by itself"),
        ({"duration": "8d"}, "duration", "after seven days at the latest"),
        ({"duration": "for ever"}, "duration", "after seven days at the latest"),
        ({"reason": " "}, "reason", "others have to know of it"),
        ({"who": ""}, "who", "others have to know of it"),
    ],
)
def test_what_cannot_be_meant(said: dict[str, Any], setting: str, why: str) -> None:
    (found,) = silence(**said)["problems"]
    assert found.startswith(f"{setting} is ")
    assert why in found
    assert silence(**said)["matchers"] == []


def test_the_one_that_is_there() -> None:
    there = [
        known(1, ("host", "web1", False, True), ("alertname", "DiskFull", False, True)),
        known(2, ("alertname", "DiskFull", False, True)),
        known(3, ("alertname", "DiskFull", False, True), ("host", "web1", False, True), state="expired"),
        known(4, ("job", "db.*", True, True), ("alertname", "Watchdog", False, False)),
        known(5, ("alertname", "Disk.*", True, False), ("host", "web1", False, True)),
    ]
    found = silence(*there, matchers=["host=web1"])
    assert found["same"] == ["id1"]
    assert [one.partition(":")[0] for one in found["lines"]] == ["id1", "id2", "id4", "id5"]
    assert found["lines"][2] == (
        'id4: job=~"db.*", alertname!="Watchdog", until 2026-11-26T21:48 UTC, by alice: it grows'
    )
    assert silence(*there, alert="", matchers=['job=~"db.*"'])["same"] == ["id4"]


def test_a_silence_has_all_its_parts() -> None:
    with pytest.raises(AnsibleFilterError, match="expects a dict with alert, matchers, duration, reason, who"):
        FilterModule().filters()["alert_silence"]({"alert": "DiskFull"})
