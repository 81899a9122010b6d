# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Of 12,000 lines in each disturbance none is lost, and no more than a batch comes twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hosts_support import RELEASES, THOROUGH, Edge, Host, on_each, prepare, role_play, wait_for
from victorialogs_support import PORT, bring, count, ensure, found

EACH = 4000  # lines of each kind
BATCH = 500  # lines that are sent at once
OUTAGE = 15  # seconds
SETTINGS = {
    "log_shipper_stores": [{"url": f"http://127.0.0.1:{PORT}", "kind": "victorialogs"}],
    "log_shipper_logs": [
        {"unit": "worker.service", "job": "worker"},
        {"application": "shop", "job": "shop"},
        {"path": "/var/log/nginx/access.log", "job": "nginx", "format": "json"},
    ],
    # All of it comes at once.
    "log_shipper_rate": [{"unit": f"{one}.service", "interval": "0s"} for one in ("worker", "shop")],
}
KINDS = ("worker", "shop", "nginx")
# Each is a unit of its own, so that journald counts its lines apart. A container's come as Docker's driver has them.
WRITERS = {
    "worker": """
import sys, time
for number in range(int(sys.argv[2])):
    print(sys.argv[1], "worker", number, flush=True)
    time.sleep(0.001)
""",
    "shop": """
import socket, sys, time
journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
journal.connect("/run/systemd/journal/socket")
for number in range(int(sys.argv[2])):
    text = f"{sys.argv[1]} shop {number}"
    journal.send(f"PRIORITY=6\\nCONTAINER_NAME=shop-web-1\\nMESSAGE={text}\\n".encode())
    time.sleep(0.001)
""",
    "nginx": """
import os, sys, time
path = "/var/log/nginx/access.log"
for number in range(int(sys.argv[2])):
    if number % 1500 == 1499 and sys.argv[3] == "rotates":  # as logrotate does
        os.rename(path, f"{path}.1")
    with open(path, "a") as file:
        file.write('{"path":"/%s","kind":"nginx","number":%d}\\n' % (sys.argv[1], number))
    time.sleep(0.001)
""",
}
UNIT = """
[Service]
Type=oneshot
EnvironmentFile=/run/word
ExecStart=/usr/bin/python3 /usr/local/lib/{kind}.py $WORD {each} $ROTATES
"""

DISTURBANCES = {
    "none": "",
    "restarted": "systemctl restart syslog-ng.service",
    "killed": "systemctl kill --signal=SIGKILL syslog-ng.service",
    "stopped": f"systemctl stop syslog-ng.service; sleep {OUTAGE / 2}; systemctl start syslog-ng.service",
}


@pytest.fixture(scope="module")
def hosts(boot: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> list[Host]:
    """A host of each release with a store, its shipper, and three that log."""
    folder: Path = tmp_path_factory.mktemp("loss")
    prepare(RELEASES)
    found = [boot(f"loss{one}", one) for one in RELEASES]
    program = ensure(found[-1])
    playbook = role_play(folder / "log_shipper.yml", "log_shipper")

    def bring_up(one: Host) -> None:
        bring(one, program)
        one.sh("mkdir -p /var/log/nginx")
        for kind, writer in WRITERS.items():
            one.write(f"/usr/local/lib/{kind}.py", writer)
            one.write(f"/etc/systemd/system/{kind}.service", UNIT.format(kind=kind, each=EACH))
        Edge(one, folder, playbook).play(SETTINGS).ok()

    on_each(found, bring_up)
    return found


# With THOROUGH=1 each with the store and without it.
CASES = [(one, down) for one in DISTURBANCES for down in (True, False) if down or one == "killed" or THOROUGH]


@pytest.mark.parametrize(("disturbance", "store_down"), CASES)
def test_nothing_is_lost(hosts: list[Host], disturbance: str, store_down: bool) -> None:
    word = f"w{list(DISTURBANCES).index(disturbance)}{int(store_down)}x"

    def work(one: Host) -> str:
        # A file that is rotated while nobody reads it is not read (docs/logs.md).
        rotates = "no" if DISTURBANCES[disturbance] else "rotates"
        one.write("/run/word", f"WORD={word}\nROTATES={rotates}\n")
        if store_down:
            one.sh("systemctl stop victoria-logs.service")
        one.sh(f"systemctl start --no-block {' '.join(f'{kind}.service' for kind in KINDS)}")
        one.sh("sleep 2")
        if DISTURBANCES[disturbance]:
            one.sh(DISTURBANCES[disturbance])
        waiting = "systemctl show --value --property ActiveState worker.service shop.service nginx.service"
        wait_for(lambda: "activating" not in one.sh(waiting), "all is written", 120)
        if store_down:
            one.sh(f"sleep {OUTAGE}; systemctl start victoria-logs.service")
        query = f'_time:1h "{word}" job:in({",".join(KINDS)})'
        wait_for(lambda: count(one, query) >= len(KINDS) * EACH, f"{one.name}: {count(one, query)} lines", 120)
        # What is sent twice comes soon after.
        one.sh("sleep 2")
        lines = Counter(line["_msg"] for line in found(one, query))
        wanted = {f"{word} {kind} {number}" for kind in ("worker", "shop") for number in range(EACH)}
        wanted |= {f'{{"path":"/{word}","kind":"nginx","number":{number}}}' for number in range(EACH)}
        assert set(lines) == wanted, f"{one.name}: {len(wanted - set(lines))} lost"
        twice = lines.total() - len(wanted)
        assert twice <= BATCH, f"{one.name}: {twice} came twice"
        return f"{one.name}: {len(wanted)} lines, 0 lost, {twice} twice"

    for told in on_each(hosts, work):
        print(told)
