# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether what dashboards ask is answered: each expression, tried on a live Prometheus or Loki."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

from ansible_collections.fushuma.production.plugins.plugin_utils import dashboards, specs

FOLDER = specs.ROLES / "grafana" / "dashboards"
PROMETHEUS_PATH = "/api/v1/query"
LOKI_PATH = "/loki/api/v1/query_range"  # the only one that answers with lines and with figures

Expression = tuple[str, str, str]
Reasons = Mapping[tuple[str, str], str]
Ask = Callable[[str], Mapping[str, Any]]


def expressions(where: str = "prometheus") -> list[Expression]:
    """What all panels ask: ``(dashboard, panel, expression)``, with values in the place of variables."""
    return dashboards.expressions(dashboards.load(FOLDER), where)


def reasons() -> Reasons:
    """The panels that may be empty, by dashboard and title, each with the reason."""
    return dashboards.may_be_empty(dashboards.load(FOLDER))


def empty_or_wrong(
    url: str, asked: Iterable[Expression], ask: Ask, *, path: str = PROMETHEUS_PATH, may_be_empty: Reasons | None = None
) -> list[str]:
    """A sentence for each expression that is refused, or answered with nothing where there has to be something.

    ``ask`` gets a URL and returns the JSON of the answer, whatever its status is.
    """
    allowed = reasons() if may_be_empty is None else may_be_empty
    found = []
    for dashboard, panel, expression in asked:
        answer = ask(f"{url}{path}?{urlencode({'query': expression})}")
        where = f"{dashboard}, {panel}: {expression}"
        if answer.get("status") != "success":
            found.append(f"{where}: {answer.get('errorType', '')} {answer.get('error', answer)}")
        elif not answer["data"]["result"] and (dashboard, panel) not in allowed:
            found.append(f"{where}: no answer")
    return found
