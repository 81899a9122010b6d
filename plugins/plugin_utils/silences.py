# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A silence of alerts: what cannot be meant, and which of those that are there is the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.fushuma.production.plugins.plugin_utils.alertmanager import seconds
from ansible_collections.fushuma.production.plugins.plugin_utils.alertmanager_model import WATCHDOG
from ansible_collections.fushuma.production.plugins.plugin_utils.alertmanager_routes import Matcher, matcher
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import Problem, value_of

LONGEST = 7 * 86400  # seconds; for what is silent for longer, the rule is wrong


def matchers(alert: str, conditions: Sequence[str]) -> list[Matcher]:
    """What is silenced. Watchdog never is: whoever waits for it outside would call for help."""
    found = [*([Matcher("alertname", "=", alert)] if alert else []), *map(matcher, conditions)]
    if any(one.label == "alertname" for one in found):
        return found
    return [*found, Matcher("alertname", "!=", WATCHDOG)]


def problems(said: Mapping[str, Any]) -> Iterator[Problem]:
    """What stands against a silence; ``said`` is ``{alert, matchers, duration, reason, who}``."""
    unread = [(number, text, _misread(text)) for number, text in enumerate(said["matchers"])]
    misread = [(number, text, why) for number, text, why in unread if why]
    for number, text, why in misread:
        yield Problem(f"matchers[{number}]", value_of(text), why, "'host=\"web1\"' or 'host=~\"web.*\"'")
    if not misread:
        yield from _aim_problems(said["alert"], said["matchers"])
    if not 0 < seconds(said["duration"]) <= LONGEST:
        why = "a silence ends by itself, after seven days at the latest"
        yield Problem("duration", value_of(said["duration"]), why, '"2h"; for longer, change the rule')
    for name, form in (("reason", "why, for those who find it"), ("who", "your name")):
        if not str(said[name]).strip():
            yield Problem(name, '""', "others have to know of it", form)


def _misread(text: str) -> str:
    try:
        matcher(text)
    except ValueError as error:
        return str(error)
    return ""


def _aim_problems(alert: str, conditions: Sequence[str]) -> Iterator[Problem]:
    wanted = matchers(alert, conditions)
    if all(one.holds({}) for one in wanted):
        why = "all alerts would be silent"
        yield Problem("matchers", value_of(list(conditions)), why, "alert, or a condition such as 'host=\"web1\"'")
    elif all(one.holds({"alertname": WATCHDOG}) for one in wanted if one.label == "alertname"):
        why = f"{WATCHDOG} would be silent, and whoever waits for it outside would call for help"
        form = "the alerts that are meant"
        yield Problem("alert" if alert else "matchers", value_of(alert or list(conditions)), why, form)


def same(wanted: Sequence[Matcher], silences: Sequence[Mapping[str, Any]]) -> list[str]:
    """The ids of the silences, as Alertmanager's API tells of them, that hold now for just these matchers."""
    texts = sorted(map(str, wanted))
    return [
        str(one["id"])
        for one in silences
        if one["status"]["state"] != "expired" and sorted(str(_of_api(each)) for each in one["matchers"]) == texts
    ]


def _of_api(one: Mapping[str, Any]) -> Matcher:
    operator = ("=" if one.get("isEqual", True) else "!") + ("~" if one["isRegex"] else "")
    return Matcher(one["name"], "!=" if operator == "!" else operator, one["value"])


def lines(silences: Sequence[Mapping[str, Any]]) -> list[str]:
    """The silences that hold now, each as a line."""
    return [
        f"{one['id']}: {', '.join(str(_of_api(each)) for each in one['matchers'])}, until {one['endsAt'][:16]} UTC, "
        f"by {one['createdBy']}: {one['comment']}"
        for one in silences
        if one["status"]["state"] != "expired"
    ]
