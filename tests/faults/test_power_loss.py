# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A host that loses its power amid a change boots with the former configuration, and the next run goes on."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hosts_support import Client, Edge, disagreements, on_each, times, tree_of, wait_for

LOSSES = times(3)  # on each release
HEAL, NGINX = "fushuma-production-heal.service", "nginx.service"

# Run on the host. Waits for a change under way and stops it after SECONDS, so that nothing more happens until the power
# is cut. Says whether it still was under way.
FREEZE = """
import glob, os, signal, sys, time
LOCK, JOURNAL = ("/var/lib/fushuma-production/nginx." + end for end in ("lock", "journal"))

def holders():
    for descriptor in glob.glob("/proc/[0-9]*/fd/*"):
        try:
            if os.readlink(descriptor) == LOCK:
                yield int(descriptor.split("/")[2])
        except OSError:
            pass

while not os.path.exists(JOURNAL):
    time.sleep(0.001)
time.sleep(float(sys.argv[1]))
for pid in holders():
    os.kill(pid, signal.SIGSTOP)
print(os.path.exists(JOURNAL))
"""


def lose_power_during(edge: Edge, wanted: Mapping[str, Any], moment: float) -> bool:
    """Cut the power so many seconds after a change has begun; returns whether it was still under way."""
    with ThreadPoolExecutor(1) as pool:
        frozen = pool.submit(edge.host.python, FREEZE, str(moment))
        controller = edge.start(wanted)
        under_way = frozen.result().strip() == "True"
        edge.host.kill()
        controller.kill()
    edge.host = edge.host.boot_again()
    return under_way


def began(edge: Edge, unit: str) -> int:
    """When a unit was started, in microseconds since the machine has booted; 0 where it was not."""
    shown = edge.host.run(["systemctl", "show", "--value", "--property=ExecMainStartTimestampMonotonic", unit])
    return int(shown.output.strip() or 0)


def lose_and_boot(one: Edge, settings: Mapping[str, Mapping[str, Any]], moments: random.Random) -> list[str]:
    """Lose the power in the middle of changes; returns the moments."""
    lost: list[str] = []
    for attempt in range(4 * LOSSES):
        if len(lost) == LOSSES:
            break
        former, wanted = ("ab", "ba")[attempt % 2]
        before, moment = tree_of(one.host), moments.uniform(0, 0.3)
        under_way = lose_power_during(one, settings[wanted], moment)
        wait_for(lambda: Client(one.port).ask() == "", "nginx serves after boot")
        if under_way:
            lost.append(f"{one.host.name}: power lost {moment:.3f} s after the journal was written")
            assert tree_of(one.host) == before, lost
            assert f"<title>{former}</title>" in one.host.read("/var/www/localhost/index.html")
            assert 0 < began(one, HEAL) < began(one, NGINX)
        one.play(settings[wanted]).ok()
        assert disagreements(one.host) == []
        assert one.play(settings[wanted]).ok().changed == 0
    return lost


def test_a_change_cut_short_by_a_power_loss_is_undone_at_boot(
    edges: list[Edge],
    settings: Mapping[str, Mapping[str, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    seed = os.environ.get("FAULTS_SEED", str(random.randrange(10**6)))
    found = on_each(edges, lambda one: lose_and_boot(one, settings, random.Random(f"{seed} {one.host.name}")))
    report = [line for lines in found for line in lines]
    with capsys.disabled():
        print(f"\nFAULTS_SEED={seed}", *report, sep="\n")
    assert len(report) == LOSSES * len(edges)
