# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters over Content-Security-Policies: types are checked here, the work is done in plugin_utils/csp.py."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.fushuma.production.plugins.plugin_utils import csp
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import sentences


def _typed(name: str, what: str, value: object, kind: type | tuple[type, ...], in_words: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise AnsibleFilterError(f"{name}: {what} takes {in_words}, not {type(value).__name__}")
    return value


def _policy(name: str, what: str, value: object) -> csp.Policy:
    """A mapping of directives to lists of strings, or an error that names the directive."""
    policy = _typed(name, what, value, Mapping, "a dictionary")
    for directive, sources in policy.items():
        _typed(name, f"{what}: the name of a directive", directive, str, "a string")
        if isinstance(sources, str):
            raise AnsibleFilterError(f"{name}: {what}: {directive} takes a list of strings, not a string")
        for source in _typed(name, f"{what}: {directive}", sources, Sequence, "a list of strings"):
            _typed(name, f"{what}: a source of {directive}", source, str, "a string")
    return {str(directive): list(sources) for directive, sources in policy.items()}


def csp_header(policy: object, nonce: object = None) -> str:
    """The header's value; wrong characters and a missing nonce are errors, for there is nothing to return."""
    value = None if nonce is None else _typed("csp_header", "nonce", nonce, str, "a string")
    try:
        return csp.header(_policy("csp_header", "the policy", policy), nonce=value)
    except ValueError as error:
        raise AnsibleFilterError(f"csp_header: {error}") from error


def csp_parse(text: object) -> csp.Policy:
    """The policy a browser reads in a header's value."""
    return csp.parse(_typed("csp_parse", "the header", text, str, "a string"))


def csp_merge(policy: object, *additions: object) -> csp.Policy:
    """The policy with the sources of each of the additions."""
    merged = _policy("csp_merge", "the policy", policy)
    for addition in additions:
        merged = csp.merge(merged, _policy("csp_merge", "an addition", addition))
    return merged


def csp_hashes(html: object, policy: object = None) -> dict[str, list[str]]:
    """Hashes for the inline scripts and styles of a page, and sentences about what no hash allows."""
    try:
        page = csp.hashes(_typed("csp_hashes", "the page", html, str, "a string"))
    except ValueError as error:
        raise AnsibleFilterError(f"csp_hashes: {error}") from error
    blocked = page.problems
    if policy is not None:
        blocked = csp.page_problems(page, _policy("csp_hashes", "policy", policy))
    return {
        "script-src": page.script_src,
        "style-src": page.style_src,
        "integrity": page.integrity,
        "origins": page.origins,
        "problems": [problem.sentence() for problem in blocked],
    }


def csp_problems(
    policy: object,
    waivers: object = (),
    setting: object = "policy",
    today: object = None,
    report_only: object = False,
) -> list[str]:
    """Everything wrong with a policy (a dictionary, or a header's value), a sentence each."""
    judged = _typed("csp_problems", "the policy", policy, (Mapping, str), "a dictionary or a header's value")
    waived = _typed("csp_problems", "waivers", waivers, (list, tuple), "a list of dictionaries")
    for waiver in waived:
        _typed("csp_problems", "a waiver", waiver, Mapping, "a dictionary")
    where = _typed("csp_problems", "setting", setting, str, "a string")
    watching = _typed("csp_problems", "report_only", report_only, bool, "true or false")
    try:
        day = datetime.date.today() if today is None else datetime.date.fromisoformat(str(today))
    except ValueError as error:
        raise AnsibleFilterError(f"csp_problems: today takes a date such as 2030-01-31, not {today!r}") from error
    return sentences(csp.problems(judged, setting=where, waivers=waived, today=day, report_only=watching))


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., object]]:
        return {
            "csp_header": csp_header,
            "csp_hashes": csp_hashes,
            "csp_merge": csp_merge,
            "csp_parse": csp_parse,
            "csp_problems": csp_problems,
        }
