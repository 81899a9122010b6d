# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Proves that lines of logs arrive: writes one, looks for it in each store, and tells node_exporter.

It runs by itself on the host, as a unit whose output goes to the journal: ``log_proof.py CONFIG``.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode, urlsplit

STATS = ["/usr/sbin/syslog-ng-ctl", "stats"]
# What syslog-ng itself counts of them leaves out what it is about to send, and after a restart what was there before.
STATE, QUEUES = "/var/lib/syslog-ng/syslog-ng.persist", ["/usr/bin/persist-tool", "dump"]
QUEUED = ["/usr/bin/dqtool", "info"]
ASKING = 10.0  # seconds that one question may take
PAUSE = 1.0  # seconds between two
SINCE = 600  # seconds; how old a line may be that is looked for

FOUND_HELP = "When a line that was written to prove the path was last found again in all stores"
HELP = {
    "production_logs_dropped_total": ("counter", "Lines that a store refused for good, since the shipper started"),
    "production_logs_queued": ("gauge", "Lines that wait for a store"),
}

Store = Mapping[str, Any]


def main(argv: Sequence[str]) -> int:
    """Returns 0 also where nothing arrives: the figures say so, and a unit that fails each minute says no more."""
    with open(argv[0], encoding="utf-8") as file:
        config = json.load(file)
    number = uuid.uuid4().hex
    say(f"log pipeline proof {number}")
    missing = looked_for(config["stores"], number, config["within"])
    for store, why in missing.items():
        say(f"the line was not found within {config['within']} s at {store}: {why}", level=4)
    if config["textfile"]:
        name = config["found_as"]
        found = former(config["textfile"], name) if missing else time.time()
        write(config["textfile"], {name: found, **counted([one["id"] for one in config["stores"]])})
    return 0


def say(text: str, level: int = 6) -> None:
    """A line for the journal, with its level as systemd reads it (sd-daemon(3))."""
    sys.stdout.write(f"<{level}>{text}\n")
    sys.stdout.flush()


# --- stores -----------------------------------------------------------------------------------------------------------


def looked_for(stores: Sequence[Store], number: str, within: float) -> dict[str, str]:
    """Ask until every store has the line or the time is over: those that have it not, and what they said last."""
    deadline = time.monotonic() + within
    missing = {one["url"]: "it was not asked" for one in stores}
    while True:
        for one in stores:
            if one["url"] in missing:
                try:
                    if has(one, number):
                        del missing[one["url"]]
                    else:
                        missing[one["url"]] = "it has no such line"
                except (OSError, ValueError, http.client.HTTPException) as error:
                    missing[one["url"]] = f"{type(error).__name__}: {error}"
        if not missing or time.monotonic() > deadline:
            return missing
        time.sleep(PAUSE)


def has(store: Store, number: str) -> bool:
    """Whether the store has a line with the number in it."""
    return ASKED[store["kind"]](store, number)


def loki_has(store: Store, number: str) -> bool:
    now = time.time()
    question = {
        "query": f'{{job=~".+"}} |= "{number}"',
        "start": str(int((now - SINCE) * 1e9)),
        "end": str(int((now + SINCE) * 1e9)),
        "limit": "1",
    }
    told = json.loads(answer(store, "/loki/api/v1/query_range", question))
    return bool(told["data"]["result"])


def victorialogs_has(store: Store, number: str) -> bool:
    question = {"query": f'_time:{SINCE}s "{number}"', "limit": "1"}
    return number in answer(store, "/select/logsql/query", question)


ASKED: Mapping[str, Callable[[Store, str], bool]] = {"loki": loki_has, "victorialogs": victorialogs_has}


def answer(store: Store, path: str, question: Mapping[str, str]) -> str:
    """What the store says; raises ValueError for what is no answer."""
    where = urlsplit(store["url"])
    connection: http.client.HTTPConnection
    if where.scheme == "https":
        context = ssl.create_default_context(cafile=store["authorities"])
        connection = http.client.HTTPSConnection(where.netloc, timeout=ASKING, context=context)
    else:
        connection = http.client.HTTPConnection(where.netloc, timeout=ASKING)
    headers = dict(store["headers"])
    if store["user"]:
        login = base64.b64encode(f"{store['user']}:{store['password']}".encode()).decode()
        headers["Authorization"] = f"Basic {login}"
    try:
        connection.request("GET", f"{where.path}{path}?{urlencode(question)}", headers=headers)
        response = connection.getresponse()
        body = response.read().decode(errors="replace")
    finally:
        connection.close()
    if response.status != 200:
        raise ValueError(f"it answers {response.status}")
    return body


# --- figures ----------------------------------------------------------------------------------------------------------


def counted(stores: Sequence[str]) -> dict[str, float]:
    """What stores have refused, and what waits for these, by their names in syslog-ng's configuration.

    Nothing where syslog-ng does not say.
    """
    try:
        dropped = dropped_of(output(STATS))
        files = queues_of(state(), stores)
        queued = queued_of(output([*QUEUED, *files])) if files else 0
    except (OSError, subprocess.SubprocessError) as error:
        say(f"syslog-ng does not say what it counted: {type(error).__name__}", level=4)
        return {}
    return {"production_logs_dropped_total": dropped, "production_logs_queued": queued}


def state() -> str:
    """What syslog-ng remembers. The tool writes beside the file, so it gets a copy."""
    with tempfile.TemporaryDirectory() as folder:
        return output([*QUEUES, shutil.copy(STATE, folder)])


def output(argv: Sequence[str]) -> str:
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=ASKING, check=True)
    return done.stdout.decode(errors="replace")


def dropped_of(stats: str) -> int:
    """Of all stores since syslog-ng started; lines are ``SourceName;SourceId;SourceInstance;State;Type;Number``."""
    fields = [line.split(";") for line in stats.splitlines()]
    return sum(int(one[-1]) for one in fields if one[0] == "dst.http" and one[-2] == "dropped")


def queues_of(told: str, stores: Sequence[str]) -> list[str]:
    """The files in which lines wait for these stores; a store that is gone may have left another one.

    Lines are ``http.STORE = { "value": "BYTES" }`` with the bytes in hexadecimal form, four for the length of a path.
    """
    known = re.findall(r'^http\.(\w+) = \{ "value": "([0-9A-F ]+)"', told, re.MULTILINE)
    return [bytes.fromhex(value)[4:].rstrip(b"\0").decode() for name, value in known if name in stores]


def queued_of(told: str) -> int:
    """Of all files that lines wait in."""
    return sum(map(int, re.findall(r"number_of_messages='(\d+)'", told)))


def former(path: str, name: str) -> float:
    """When a line was found the last time, as the file of figures says; 0 for never."""
    try:
        with open(path, encoding="utf-8") as file:
            values = [line.split()[1] for line in file if line.startswith(f"{name} ")]
        return float(values[0])
    except (OSError, ValueError, IndexError):
        return 0.0


def write(path: str, figures: Mapping[str, float]) -> None:
    """Replace the file of figures by a whole one."""
    lines = []
    for name, value in figures.items():
        kind, words = HELP.get(name, ("gauge", FOUND_HELP))
        lines += [f"# HELP {name} {words}.", f"# TYPE {name} {kind}", f"{name} {value:.3f}"]
    fresh = f"{path}.{os.getpid()}"
    with open(fresh, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    os.replace(fresh, path)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
