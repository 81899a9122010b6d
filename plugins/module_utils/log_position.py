# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Has syslog-ng begin at the end of the journal, so that what was there before it came is left there.

It has a setting for that, ``read-old-records(no)``, with which it gets no line at all where systemd is 254 or newer: it
goes to the end (sd_journal_seek_tail(3)) and asks for the next entry, and libsystemd then says for ever that behind
the end there is none. So what syslog-ng remembers of the journal is written before its first start, as if it had
already read the last entry. Later ones find that it remembers, and leave it alone.

It runs by itself on the host, before each start of syslog-ng.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile

FOLDER = "/var/lib/syslog-ng"
STATE, NAME = "syslog-ng.persist", "systemd-journal"
KNOWN, ADDED = ["/usr/bin/persist-tool", "dump"], ["/usr/bin/persist-tool", "add", "-", "--output-dir"]
LAST = ["/usr/bin/journalctl", "--quiet", "--no-pager", "--lines", "1", "--output", "json", "--output-fields", "_PID"]
ROOM = 1024  # bytes that syslog-ng has for a position
PATIENCE = 30.0  # seconds that each of them may take


def main() -> int:
    if remembered():
        return 0
    # In an empty journal there is nothing to leave out.
    for entry in map(json.loads, output(LAST).splitlines()):
        output([*ADDED, FOLDER], f'{NAME} = {{ "value": "{packed(entry["__CURSOR"])}" }}\n')
    return 0


def remembered() -> bool:
    """Whether syslog-ng has a position already. The tool writes beside the file, so it gets a copy."""
    known = os.path.join(FOLDER, STATE)
    if not os.path.exists(known):
        return False
    with tempfile.TemporaryDirectory() as folder:
        told = output([*KNOWN, shutil.copy(known, folder)])
    return any(line.startswith(f"{NAME} = ") for line in told.splitlines())


def packed(cursor: str) -> str:
    """A position as syslog-ng keeps it: version of the form, order of bytes, and the text with zeros behind it."""
    kept = bytes([0, sys.byteorder == "big"]) + cursor.encode().ljust(ROOM, b"\0")
    return kept.hex(" ").upper()


def output(argv: list[str], given: str = "") -> str:
    done = subprocess.run(argv, input=given, stdout=subprocess.PIPE, timeout=PATIENCE, check=True, text=True)
    return done.stdout


if __name__ == "__main__":
    raise SystemExit(main())
