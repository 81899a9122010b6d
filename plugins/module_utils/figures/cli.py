# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Programs that timers start: each writes one file of figures for node_exporter."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from . import certificates, containers, drift, system
from .text import Family, write


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Write figures of this host for node_exporter.")
    parser.add_argument("what", choices=["containers", "host"])
    parser.add_argument("--config", type=Path, required=True, help="what the role exporters has written")
    parser.add_argument("--state", type=Path, default=Path("/var/lib/fushuma-production"), help="of transactions")
    parser.add_argument("--memory", type=Path, default=Path("/var/lib/production-figures/containers.json"))
    options = parser.parse_args(arguments)
    config = json.loads(options.config.read_text("utf-8"))
    target = Path(config["folder"], f"production_{options.what}.prom")
    families: list[Family] = []
    failure = ""
    try:
        if options.what == "containers":
            families = containers.read(lambda path: containers.asked(path, config["docker"]), options.memory)
        else:
            families += system.families(Path("/"), platform.release(), system.simulated())
            families += certificates.families(config["certificates"])
            families += drift.families(options.state, config["ignored"], time.time())
    except (OSError, ValueError, KeyError) as error:
        failure = f"{type(error).__name__}: {error}"
    # Asked again, for the role may have taken the program away, and its file, while it was at work.
    if options.what in json.loads(options.config.read_text("utf-8"))["wanted"]:
        # Also where nothing was found out: what was true before is not shown for ever.
        write(target, families)
    if failure:
        sys.stderr.write(f"{failure}\n")
    return 1 if failure else 0
