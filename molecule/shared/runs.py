"""What the scenario's playbook runs have said, from the log that Ansible keeps of them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

LINE = re.compile(r"^\S+ \S+ p=(?P<process>\d+) u=\S+ n=\S+ \w+\| ?(?P<text>.*)$")
RECAP = re.compile(r"^(?P<host>\S+)\s+: ok=\d+\s+changed=(?P<changed>\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """One run of ansible-playbook."""

    text: str

    @property
    def is_dry(self) -> bool:
        return "[CHECK MODE]" in self.text

    @property
    def changed(self) -> dict[str, int]:
        """How many tasks changed something, or would have, for each host."""
        return {found["host"]: int(found["changed"]) for found in RECAP.finditer(self.text)}


def runs_of(log: str) -> list[Run]:
    """The runs in a log, in their order. Lines without a prefix belong to the line above them."""
    process, lines = "", []
    for line in log.splitlines():
        found = LINE.match(line)
        process = found["process"] if found else process
        lines.append((process, found["text"] if found else line))
    return [Run("\n".join(text for _process, text in run)) for _process, run in groupby(lines, lambda one: one[0])]


def all_runs() -> Sequence[Run]:
    """The runs of this scenario since its hosts were created."""
    return runs_of(Path(os.environ["ANSIBLE_LOG_PATH"]).read_text("utf-8"))
