# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What Docker's API says (https://docs.docker.com/reference/api/engine/).

For what is asked on every run: Docker's own program takes longer to start than the daemon to answer.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from ansible_collections.fushuma.production.plugins.module_utils.journal import TransactionError
from ansible_collections.fushuma.production.plugins.module_utils.probe import Probe, answer

SOCKET = "/run/docker.sock"
PATIENCE = 60.0  # seconds; a daemon that pulls or removes much answers late


class Unanswered(TransactionError):
    """No daemon answers, or it has refused the question."""


def asked(path: str, filters: Mapping[str, Sequence[str]] | None = None) -> Any:
    """The answer to a question without a body, for example ``/containers/json?all=1``; raises Unanswered."""
    chosen = f"{'&' if '?' in path else '?'}filters={quote(json.dumps(filters))}" if filters else ""
    try:
        told = answer(Probe(socket=SOCKET), f"http://docker{path}{chosen}", PATIENCE)
        found = json.loads(told.body)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unanswered(f"Docker does not answer at {SOCKET}: {str(error) or type(error).__name__}") from error
    if told.status != 200:
        raise Unanswered(f"Docker answers {path} with {told.status}: {found['message']}")
    return found
