# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Figures as node_exporter reads them from files (the text format of Prometheus)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Sample = tuple[Mapping[str, str], float]


@dataclass
class Family:
    """All samples of one name. A family without samples is not written."""

    name: str
    kind: str
    about: str
    samples: list[Sample] = field(default_factory=list)

    def add(self, value: int | float, **labels: str) -> None:
        self.samples.append((labels, value))


def shown(families: Iterable[Family]) -> str:
    """The families as a file has them."""
    lines: list[str] = []
    for one in families:
        if one.samples:
            lines += [f"# HELP {one.name} {one.about}", f"# TYPE {one.name} {one.kind}"]
            lines += [f"{one.name}{_labels(labels)} {value!r}" for labels, value in one.samples]
    return "".join(f"{line}\n" for line in lines)


def _labels(labels: Mapping[str, str]) -> str:
    pairs = [f'{key}="{_escaped(value)}"' for key, value in labels.items()]
    return "{" + ",".join(pairs) + "}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def write(path: Path, families: Sequence[Family]) -> None:
    """Replace the file at once, so that nobody reads half of it."""
    waiting = path.with_name(f".{path.name}.new")
    waiting.write_text(shown(families), "utf-8")
    waiting.chmod(0o644)
    os.replace(waiting, path)
