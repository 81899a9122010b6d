# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Kills converges at random moments, the controller and the module on the host in turns, and lets the next run heal."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from hosts_support import STATE, Edge, times

KILLS = times(10)  # on each release
ATTEMPTS = 2 * KILLS  # one that has ended before it is killed does not count
SEED = os.environ.get("FAULTS_SEED", str(random.randrange(10**6)))

# Run on the host. A change of a service is under way while its lock is held or its journal is there: the latter alone
# means that it waits for its confirmation. `measure SERVICE...` tells how many seconds each was; `kill SERVICE SECONDS`
# ends it after so many, as the kernel does where memory runs out, and says how far it was.
WATCH = f"""
import glob, json, os, signal, sys, time

def lock(name):
    return "{STATE}/" + name + ".lock"

def has_journal(name):
    return os.path.exists("{STATE}/" + name + ".journal")

def holders():
    found = {{}}
    for descriptor in glob.glob("/proc/[0-9]*/fd/*"):
        try:
            found[os.readlink(descriptor)] = int(descriptor.split("/")[2])
        except OSError:
            pass
    return found

def measure(names):
    began, ended = {{}}, {{}}
    while len(ended) < len(names):
        found, now = holders(), time.monotonic()
        for name in set(names) - set(ended):
            if lock(name) in found:
                began.setdefault(name, now)
            elif name in began and not has_journal(name):
                ended[name] = now
        time.sleep(0.01)
    return json.dumps({{name: ended[name] - began[name] for name in names}})

def kill(name, seconds):
    while lock(name) not in holders():
        time.sleep(0.01)
    time.sleep(float(seconds))
    pid = holders().get(lock(name))
    if not pid:
        return "waiting for its confirmation" if has_journal(name) else "ended"
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return "ended"
    return "half done" if has_journal(name) else "not begun or all done"

print(measure(sys.argv[2:]) if sys.argv[1] == "measure" else kill(*sys.argv[2:]))
"""


@dataclass
class Killer:
    """Brings a host from one setting to the other and back, and kills that at random moments.

    ``services`` are those the change is made of, each with a lock of its own. ``wrong`` says what on the host is not as
    it should be with a setting.
    """

    edge: Edge
    settings: Mapping[str, Mapping[str, Any]]
    services: Sequence[str]
    wrong: Callable[[str], list[str]]
    random: random.Random
    converge: float = 0.0  # seconds the last converge took
    changes: dict[str, float] = field(default_factory=dict)  # seconds each service's change took, within a converge
    report: list[str] = field(default_factory=list)
    healed: int = 0
    _targets: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Kill until there are enough kills. The host has setting ``a`` before."""
        former, letter, kills = "b", "a", 0
        self.measure(former)
        for _attempt in range(ATTEMPTS):
            done = self.kill_module(letter) if kills % 2 else self.kill_controller(letter)
            # The operator goes on, or thinks better of it.
            following = self.random.choice([former, letter])
            wrong = self.wrong_after(following)
            former, letter = following, {"a": "b", "b": "a"}[following]
            if done or wrong:
                kills += 1
                self.healed += not wrong
                self.say(f"{kills}: {done}, then {following}: {'; '.join(wrong) or 'healed'}")
            if kills == KILLS:
                break

    def say(self, line: str) -> None:
        self.report.append(f"{self.edge.host.name}: {line}")

    def measure(self, letter: str) -> None:
        """Find out what a change to this setting takes now."""
        with ThreadPoolExecutor(1) as pool:
            changes = pool.submit(self.edge.host.python, WATCH, "measure", *self.services)
            self.converge = self.edge.play(self.settings[letter]).ok().seconds
            self.changes = json.loads(changes.result())
        each = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in self.changes.items())
        self.say(f"a converge takes {self.converge:.1f} s, the changes within it: {each}")

    def kill_controller(self, letter: str) -> str:
        """Kill the controller at a random moment; what it has started on the host goes on or not, as it may."""
        moment = self.random.uniform(0, self.converge)
        controller = self.edge.start(self.settings[letter])
        time.sleep(moment)
        killed = controller.running()
        controller.kill()
        return f"controller killed {moment:.2f} s after it had begun {letter}" if killed else ""

    def kill_module(self, letter: str) -> str:
        """Kill the module on the host at a random moment of a service's change, and then the controller.

        Where that service waits for its confirmation at this moment, it is the controller alone that can be killed.
        """
        service = self.next_target()
        moment = self.random.uniform(0, self.changes[service])
        with ThreadPoolExecutor(1) as pool:
            killed = pool.submit(self.edge.host.python, WATCH, "kill", service, str(moment))
            controller = self.edge.start(self.settings[letter])
            found = killed.result().strip()
            controller.kill()
        if found == "ended":
            self._targets.append(service)
            return ""
        return f"module killed {moment:.3f} s after it had begun {letter} of {service}, {found}"

    def next_target(self) -> str:
        """A service at random; none is killed again before all have had their turn."""
        self._targets = self._targets or self.random.sample(self.services, len(self.services))
        return self._targets.pop()

    def wrong_after(self, letter: str) -> list[str]:
        """What is not as it should be after the next normal run, and the one after that."""
        following = self.edge.play(self.settings[letter])
        if following.failed:
            return [f"the next run fails: {following.output}"]
        self.converge = following.seconds
        wrong = self.wrong(letter)
        again = self.edge.play(self.settings[letter], diff=True)
        if again.failed or again.changed:
            wrong.append(f"one more run changes something: {again.output}")
        return wrong


def seeded(edge: Edge) -> random.Random:
    """The moments of a host. The FAULTS_SEED that another run has told brings its moments again."""
    return random.Random(f"{SEED} {edge.host.name}")


def told(killers: Sequence[Killer]) -> str:
    """What became of all kills."""
    lines = [line for killer in killers for line in killer.report]
    return "\n".join([f"\nFAULTS_SEED={SEED}", *lines, f"healed {healed(killers)} of {KILLS * len(killers)}"])


def healed(killers: Sequence[Killer]) -> int:
    return sum(killer.healed for killer in killers)


def assert_all_healed(killers: Sequence[Killer]) -> None:
    """Every kill has taken place, and was healed."""
    lines = [line for killer in killers for line in killer.report]
    assert healed(killers) == KILLS * len(killers), "\n".join(line for line in lines if not line.endswith(": healed"))
