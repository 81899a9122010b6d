# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hosts over SSH, the role sshd on them, and a client that opens a new connection each time it asks."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from hosts_support import STATE, Controller, Host, Played, play, role_play, wait_for
from testhosts.inventory import variables

Result = TypeVar("Result")

NEW_PORT = 2222
# What is tested here is what the host itself says, so the controller does not say who connects.
BASE: Mapping[str, Any] = {"sshd_connecting_user": "", "sshd_fail2ban": False}
PLACES = "/etc/ssh /home /root/.ssh /etc/systemd/system"


@dataclass
class Reached:
    """A host over SSH, and the folder with its inventory and playbook."""

    host: Host
    folder: Path

    def connection(self, port: int = 22, user: str = "operator", more: str = "") -> dict[str, Any]:
        """How it is reached on a port of its own."""
        found = variables(self.host.record)
        outside = self.host.record.ssh_port if port == 22 else self.host.port(port)
        arguments = f"{found['ansible_ssh_common_args']} {more}"
        return {**found, "ansible_port": outside, "ansible_user": user, "ansible_ssh_common_args": arguments}

    def inventory(self, settings: Mapping[str, Any], **reached: Any) -> Path:
        known = {self.host.name: self.connection(**reached)}
        document = {"all": {"vars": {**BASE, **settings}, "children": {"reached": {"hosts": known}}}}
        path = self.folder / f"{self.host.name}.yml"
        path.write_text(yaml.safe_dump(document, sort_keys=False, width=1000), "utf-8")
        return path

    def play(self, settings: Mapping[str, Any] | None = None, *, check: bool = False, **reached: Any) -> Played:
        """Run the role with these settings to its end."""
        return play(self._playbook(), self.inventory(settings or {}, **reached), check=check, diff=True)

    def start(self, settings: Mapping[str, Any], **reached: Any) -> Controller:
        """The same in the background."""
        return Controller(self._playbook(), self.inventory(settings, **reached), self.folder / f"{self.host.name}.log")

    def _playbook(self) -> Path:
        return role_play(self.folder / f"{self.host.name}-sshd.yml", role="sshd", group="reached")

    def answers(self, port: int = 22, user: str = "operator", more: str = "") -> bool:
        """Whether a new connection can be opened; no connection that is still open is used."""
        found = self.connection(port, user, more)
        options = shlex.split(str(found["ansible_ssh_common_args"]))
        asked = ["ssh", "-o", "ControlPath=none", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", *options]
        asked += ["-i", str(found["ansible_ssh_private_key_file"]), "-p", str(found["ansible_port"])]
        done = subprocess.run(
            [*asked, f"{user}@127.0.0.1", "true"], stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        return done.returncode == 0

    def disconnect(self) -> None:
        """Close the connections that Ansible keeps open between its runs."""
        for user in ("operator", "root"):
            for port in (22, NEW_PORT):
                found = self.connection(port, user)
                path = Path("~/.ansible/cp/%C").expanduser()
                asked = ["ssh", "-o", f"ControlPath={path}", "-O", "exit", "-p", str(found["ansible_port"])]
                subprocess.run([*asked, f"{user}@127.0.0.1"], capture_output=True, check=False)

    def tree(self) -> str:
        """All that decides who gets in: paths with kind, mode, owner and content, and the units."""
        listed = self.host.sh(f"find {PLACES} -printf '%p %y %m %U %G %l\\n' 2>/dev/null | sort", check=False)
        sums = self.host.sh(f"find {PLACES} -type f -exec sha256sum {{}} + 2>/dev/null | sort", check=False)
        units = self.host.sh("systemctl show -p Id,ActiveState,UnitFileState ssh.service ssh.socket")
        return listed + sums + units

    def listening(self) -> set[int]:
        """The ports on which sshd, or systemd for it, listens."""
        lines = self.host.sh("ss -Hltnp").splitlines()
        return {int(line.split()[3].rpartition(":")[2]) for line in lines if "sshd" in line or "systemd" in line}

    def settled(self) -> None:
        """No change is under way any more."""
        wait_for(lambda: not self.host.sh(f"ls {STATE}/*.journal 2>/dev/null", check=False), "no journal is left", 60)


def on_each(hosts: Sequence[Reached], work: Callable[[Reached], Result]) -> list[Result]:
    """Do the work on all hosts at the same time, to its end; what failed first is raised then."""
    with ThreadPoolExecutor(len(hosts)) as pool:
        return list(pool.map(work, hosts))
