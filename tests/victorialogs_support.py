# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""VictoriaLogs for suites on throw-away hosts: a real store of logs that takes what Loki takes.

It is built once, of Debian 13's own source packages, and kept where the scenarios keep it too
(molecule/shared/tasks/victorialogs.yml).
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any

import docker  # type: ignore[import-untyped]
from hosts_support import ROOT, Host, wait_for

BUILT = ROOT / ".cache" / "victoria-logs"
RECIPE = ROOT / "molecule" / "shared" / "files" / "victorialogs.sh"
PROGRAM = "/usr/local/bin/victoria-logs"
PORT = 9428
UNIT = f"""
[Service]
ExecStart={PROGRAM} -storageDataPath=/var/lib/victoria-logs -httpListenAddr=127.0.0.1:{PORT}
"""
ASK = """
import sys, urllib.request as u
from urllib.parse import urlencode
question = urlencode({"query": sys.argv[1]}).encode()
print(u.urlopen("http://127.0.0.1:%d/select/logsql/query", question, timeout=60).read().decode(), end="")
"""


def ensure(builder: Host) -> Path:
    """The program, for either release; where it is not there yet, ``builder``, a host of Debian 13, builds it."""
    if not BUILT.exists():
        builder.write("/root/victorialogs.sh", RECIPE.read_text("utf-8"))
        builder.run(["bash", "/root/victorialogs.sh", "/root/victoria-logs"])
        with closing(docker.from_env(timeout=120)) as client:
            chunks, _facts = client.containers.get(builder.record.container).get_archive("/root/victoria-logs")
            packed = io.BytesIO(b"".join(chunks))
        with tarfile.open(fileobj=packed) as archive:
            content = archive.extractfile("victoria-logs")
            assert content
            fresh = BUILT.with_suffix(f".{os.getpid()}")
            fresh.write_bytes(content.read())
        fresh.chmod(0o755)
        fresh.replace(BUILT)
    return BUILT


def bring(one: Host, program: Path) -> None:
    """Have it run on a host, as ``victoria-logs.service``, for that host alone."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(program, "victoria-logs")
    with closing(docker.from_env(timeout=120)) as client:
        client.containers.get(one.record.container).put_archive("/usr/local/bin", packed.getvalue())
    one.write("/etc/systemd/system/victoria-logs.service", UNIT)
    one.sh("systemctl daemon-reload && systemctl start victoria-logs.service")
    wait_for(lambda: not one.run(["python3", "-c", ASK % PORT, "*"], check=False).code, "VictoriaLogs answers")


def found(one: Host, query: str) -> list[dict[str, Any]]:
    """What the store has of a query in LogsQL."""
    return [json.loads(line) for line in one.python(ASK % PORT, query).splitlines()]


def count(one: Host, query: str) -> int:
    """How many lines the store has of a query."""
    return int(found(one, f"{query} | stats count() lines")[0]["lines"])
