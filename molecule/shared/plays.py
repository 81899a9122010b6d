"""Plays that the tests themselves run, mostly on all hosts of the scenario: failures are results too."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import testinfra
from testinfra.host import Host

SECRET = re.compile("canary(?!_timestamp_seconds)|PRIVATE KEY")
"""Every secret in a scenario has this word in it; so have figures of lines and events that are looked for again."""

LONGEST = 120.0  # seconds

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Played:
    """How ansible-playbook ended, what it said, and for each host the results of the tasks in their order."""

    code: int
    output: str
    results: Mapping[str, Sequence[Result]]


def inventory() -> str:
    """Where Molecule keeps the scenario's inventory."""
    return os.path.join(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "inventory")


def all_hosts() -> dict[str, Host]:
    """The hosts of the scenario by their names."""
    found = testinfra.get_hosts(["all"], connection="ansible", ansible_inventory=inventory())
    return {host.backend.host: host for host in found}


def run_playbook(playbook: Path | str, *arguments: str, seconds: float = LONGEST) -> Played:
    """Run a playbook, given by its path or its name in a collection, to its end. No secret may be in what it says."""
    with tempfile.NamedTemporaryFile("r", encoding="utf-8") as lines:
        environment = {
            **{name: value for name, value in os.environ.items() if name != "ANSIBLE_LOG_PATH"},
            "ANSIBLE_CALLBACK_PLUGINS": str(Path(__file__).parent / "callback_plugins"),
            "ANSIBLE_CALLBACKS_ENABLED": "results",
            "PLAY_RESULTS": lines.name,
        }
        done = subprocess.run(
            ["ansible-playbook", *arguments, str(playbook)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
            env=environment,
        )
        results: dict[str, list[Result]] = {}
        for one in map(json.loads, lines):
            results.setdefault(one["host"], []).append(one["result"])
    assert not SECRET.search(done.stdout), done.stdout
    return Played(done.returncode, done.stdout, results)


def play(*tasks: Mapping[str, Any], arguments: Sequence[str] = ("--diff",), seconds: float = LONGEST) -> Played:
    """Run tasks, each ``{module: arguments}``, on all hosts; one that fails does not stop those behind it."""
    document = {
        "hosts": "all",
        "gather_facts": False,
        "ignore_errors": True,
        "ignore_unreachable": True,
        "tasks": tasks,
    }
    with tempfile.TemporaryDirectory() as folder:
        playbook = Path(folder, "play.yml")
        playbook.write_text(json.dumps([document]), "utf-8")
        played = run_playbook(playbook, "--inventory", inventory(), *arguments, seconds=seconds)
    assert played.results, played.output
    return played
