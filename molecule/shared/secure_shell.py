"""sshd from outside: logins with a client of its own for each, and ssh-audit."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testinfra.host import Host


@dataclass(frozen=True)
class Login:
    """How a login ended; ``said`` is what ssh and the command have said."""

    code: int
    said: str


def variables(host: Host) -> dict[str, Any]:
    """How the host is reached."""
    found: dict[str, Any] = host.ansible.get_variables()
    return found


def login(host: Host, *options: str, user: str = "operator", command: str = "true", key: Path | str = "") -> Login:
    """Log in over a new connection. Without a key of its own it is the operator's."""
    known = variables(host)
    asked = ["ssh", "-o", "ControlPath=none", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-F", "none"]
    asked += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes"]
    asked += ["-i", str(key or known["ansible_ssh_private_key_file"]), "-p", str(known["ansible_port"])]
    done = subprocess.run(
        [*asked, *options, f"{user}@127.0.0.1", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=30,
        check=False,
    )
    return Login(done.returncode, done.stdout)


def audit(host: Host) -> dict[str, Any]:
    """What ssh-audit says. Without its test of how many connections sshd takes at once."""
    program = str(Path(sys.executable).with_name("ssh-audit"))
    asked = [program, "--json", "--skip-rate-test", "--port", str(variables(host)["ansible_port"]), "127.0.0.1"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def findings(report: dict[str, Any], *levels: str) -> list[str]:
    """The algorithms of which ssh-audit says something of these levels, and what."""
    return [
        f"{one['algorithm']}: {note}"
        for kind in ("kex", "key", "enc", "mac")
        for one in report[kind]
        for level in levels
        for note in one["notes"].get(level, [])
    ]


def effective(host: Host, context: str = "") -> dict[str, list[str]]:
    """What sshd -T says, in general or for a connection such as ``user=anna,addr=10.0.0.1``."""
    asked = "/usr/sbin/sshd -T" + (f" -C {context}" if context else "")
    found: dict[str, list[str]] = {}
    for line in host.check_output(asked).splitlines():
        keyword, _space, value = line.partition(" ")
        found.setdefault(keyword, []).append(value)
    return found
