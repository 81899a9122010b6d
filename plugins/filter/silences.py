# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.fushuma.production.plugins.plugin_utils import silences
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import sentences

SAID = ("alert", "matchers", "duration", "reason", "who")


def alert_silence(said: Any, there: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """What stands against a silence, how amtool is told of it, and which of those that are there is the same."""
    if not isinstance(said, Mapping) or set(SAID) - set(said):
        raise AnsibleFilterError(f"alert_silence: expects a dict with {', '.join(SAID)}")
    said = {**said, "matchers": conditions(said["matchers"])}
    problems = sentences(silences.problems(said))
    wanted = [] if problems else silences.matchers(said["alert"], said["matchers"])
    return {
        "problems": problems,
        "matchers": list(map(str, wanted)),
        "same": silences.same(wanted, there),
        "lines": silences.lines(there),
    }


def conditions(given: Any) -> list[str]:
    """Matchers as a command line has them: a list, as a text of one too, or a single one."""
    if isinstance(given, str) and given.lstrip().startswith("["):
        with suppress(yaml.YAMLError):  # then it is no matcher
            given = yaml.safe_load(given)
    return [given] if isinstance(given, str) else list(map(str, given))


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"alert_silence": alert_silence}
