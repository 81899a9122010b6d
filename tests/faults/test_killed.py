# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A converge killed at any moment is healed by the next one, and nginx serves through all of it."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
from hosts_support import Client, Edge, disagreements, on_each

KILLS = 10  # on each release
ATTEMPTS = 2 * KILLS  # one that has ended before it is killed does not count

# Run on the host. Waits for the change that holds the lock of nginx. `measure` prints the seconds it took; `kill
# SECONDS` ends it after so many, as the kernel does where memory runs out, and says how far it was.
WATCH = """
import glob, os, signal, sys, time
LOCK, JOURNAL = ("/var/lib/fushuma-production/nginx." + end for end in ("lock", "journal"))

def holder():
    for descriptor in glob.glob("/proc/[0-9]*/fd/*"):
        try:
            if os.readlink(descriptor) == LOCK:
                return int(descriptor.split("/")[2])
        except OSError:
            pass

while not (pid := holder()):
    time.sleep(0.002)
began = time.monotonic()
if sys.argv[1] == "kill":
    time.sleep(float(sys.argv[2]))
    try:
        os.kill(pid, signal.SIGKILL)
        print("half done" if os.path.exists(JOURNAL) else "not begun or all done")
    except ProcessLookupError:
        print("ended")
else:
    while holder():
        time.sleep(0.002)
    print(time.monotonic() - began)
"""


@dataclass
class Killer:
    """Brings a host from one setting to the other and back, and kills that at random moments."""

    edge: Edge
    settings: Mapping[str, Mapping[str, Any]]
    whole: Callable[[str], bool]
    random: random.Random
    converge: float = 0.0  # seconds the last converge took
    change: float = 0.0  # seconds a change on the host took, within a converge
    report: list[str] = field(default_factory=list)
    healed: int = 0

    def run(self) -> Client:
        """Kill until there are enough kills; returns the client that asked the host through all of it."""
        with Client(self.edge.port, accept=self.whole) as client:
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
        return client

    def say(self, line: str) -> None:
        self.report.append(f"{self.edge.host.name}: {line}")

    def measure(self, letter: str) -> None:
        """Find out what a change to this setting takes now."""
        with ThreadPoolExecutor(1) as pool:
            change = pool.submit(self.edge.host.python, WATCH, "measure")
            self.converge = self.edge.play(self.settings[letter]).ok().seconds
            self.change = float(change.result())
        self.say(f"a converge takes {self.converge:.1f} s, the change within it {self.change:.2f} s")

    def kill_controller(self, letter: str) -> str:
        """Kill the controller at a random moment; what it has started on the host goes on or not, as it may."""
        moment = self.random.uniform(0, self.converge)
        controller = self.edge.start(self.settings[letter])
        time.sleep(moment)
        killed = controller.running()
        controller.kill()
        return f"controller killed {moment:.2f} s after it had begun {letter}" if killed else ""

    def kill_module(self, letter: str) -> str:
        """Kill the module on the host at a random moment of its change, and then the controller."""
        moment = self.random.uniform(0, self.change)
        with ThreadPoolExecutor(1) as pool:
            killed = pool.submit(self.edge.host.python, WATCH, "kill", str(moment))
            controller = self.edge.start(self.settings[letter])
            found = killed.result().strip()
            controller.kill()
        return "" if found == "ended" else f"module killed {moment:.3f} s after it had begun {letter}, {found}"

    def wrong_after(self, letter: str) -> list[str]:
        """What is not as it should be after the next normal run, and the one after that."""
        following = self.edge.play(self.settings[letter])
        if following.failed:
            return [f"the next run fails: {following.output}"]
        self.converge = following.seconds
        wrong = disagreements(self.edge.host)
        sites = self.edge.host.sh("ls /etc/nginx/sites").split()
        if sites != ["localhost.conf", f"only-{letter}.example.conf"]:
            wrong.append(f"the sites are {sites}")
        if complaint := Client(self.edge.port, accept=lambda body: f"<title>{letter}</title>" in body).ask():
            wrong.append(f"the site does not serve the new content: {complaint}")
        again = self.edge.play(self.settings[letter], diff=True)
        if again.failed or again.changed:
            wrong.append(f"one more run changes something: {again.output}")
        return wrong


def test_a_killed_converge_is_healed_by_the_next_and_nginx_never_stops_serving(
    edges: list[Edge],
    settings: Mapping[str, Mapping[str, Any]],
    whole: Callable[[str], bool],
    capsys: pytest.CaptureFixture[str],
) -> None:
    seed = os.environ.get("FAULTS_SEED", str(random.randrange(10**6)))
    killers = {
        edge.host.name: Killer(edge, settings, whole, random.Random(f"{seed} {edge.host.name}")) for edge in edges
    }
    clients = on_each(edges, lambda edge: killers[edge.host.name].run())
    healed = sum(killer.healed for killer in killers.values())
    requests = sum(client.requests for client in clients)
    failures = [failure for client in clients for failure in client.failures]
    report = [line for killer in killers.values() for line in killer.report]
    with capsys.disabled():
        print(f"\nFAULTS_SEED={seed}", *report, sep="\n")
        print(f"healed {healed} of {KILLS * len(killers)}; {requests} requests, {len(failures)} failed")
    assert failures == []
    assert healed == KILLS * len(killers), "\n".join(line for line in report if not line.endswith(": healed"))
    assert requests > 10 * healed
