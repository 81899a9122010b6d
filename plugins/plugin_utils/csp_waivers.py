# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is unsafe in a Content-Security-Policy for a reason: waivers, and what is a problem in spite of them."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence

from ansible_collections.fushuma.production.plugins.plugin_utils.csp_judge import Finding, findings
from ansible_collections.fushuma.production.plugins.plugin_utils.csp_policy import canonical
from ansible_collections.fushuma.production.plugins.plugin_utils.csp_rules import RULES
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import Problem, value_of

WAIVER_PARTS: Mapping[str, str] = {
    "directive": "the directive it is about, e.g. style-src-attr",
    "source": "the source it allows, as the policy writes it, e.g. \"'unsafe-inline'\"",
    "reason": "why the application cannot do without",
    "owner": "who answers for it",
    "expires": 'the last day it holds, e.g. "2030-01-31"',
}


def _parts(waiver: Mapping[str, object], where: str, today: datetime.date) -> Iterator[Problem]:
    """What is wrong with a waiver by itself."""
    for part, value in waiver.items():
        if part not in WAIVER_PARTS:
            yield Problem(f"{where}.{part}", value_of(value), "a waiver has no such part", ", ".join(WAIVER_PARTS))
    for part, meaning in WAIVER_PARTS.items():
        value = waiver.get(part)
        if value is None or not str(value).strip():
            written = value_of(value) if part in waiver else "missing"
            yield Problem(f"{where}.{part}", written, "a waiver without it can never be reviewed", meaning)
    expires = waiver.get("expires")
    if expires:
        try:
            last_day = datetime.date.fromisoformat(str(expires))
        except ValueError:
            yield Problem(f"{where}.expires", value_of(expires), "it is no date", WAIVER_PARTS["expires"])
        else:
            if last_day < today:
                yield Problem(
                    f"{where}.expires",
                    value_of(str(last_day)),
                    f"it has expired, today is {today}",
                    "a later day if the reason still holds, or remove the waiver and the source",
                )


def _covers(waiver: Mapping[str, object], finding: Finding) -> bool:
    named = (str(waiver.get("directive")).lower(), canonical(str(waiver.get("source"))))
    return RULES[finding.rule].waivable and named == (finding.directive, finding.source)


def problems(
    policy: Mapping[str, object] | str,
    *,
    setting: str,
    waivers: Sequence[Mapping[str, object]] = (),
    today: datetime.date,
    report_only: bool = False,
) -> list[Problem]:
    """Everything that has to change before a policy is sent.

    setting: where the policy stands (``nginx_sites[0].csp.policy``); its waivers stand beside it
    (``nginx_sites[0].csp.waivers``). A waiver holds every part of WAIVER_PARTS. What it names is no problem any more;
    a waiver that is incomplete, has expired, or names nothing that needs one is a problem itself.
    """
    refused = [finding for finding in findings(policy, report_only=report_only) if finding.severity == "refused"]
    if report_only:  # it blocks nothing, so it cannot allow too much either
        refused = [finding for finding in refused if not RULES[finding.rule].waivable]
    beside = f"{setting.rpartition('.')[0]}.waivers".lstrip(".")
    result: list[Problem] = []
    for number, waiver in enumerate(waivers):
        where = f"{beside}[{number}]"
        result += _parts(waiver, where, today)
        if waiver.get("directive") and waiver.get("source") and not any(_covers(waiver, one) for one in refused):
            named = value_of({part: waiver[part] for part in ("directive", "source")})
            result.append(
                Problem(where, named, "the policy holds no such thing that needs a waiver", "no waiver for it")
            )
    for finding in refused:
        if not any(_covers(waiver, finding) for waiver in waivers):
            place = "" if finding.at is None else f"[{finding.at}]"
            result.append(Problem(f"{setting}.{finding.directive}{place}", finding.value, finding.why, finding.instead))
    return result
