# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Two hosts that site.yml has brought up, and the runbooks on them. The fixture `fleet` (tests/runbooks) makes one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from hosts_support import CONTROLLER, ROOT, Host, Played, play
from testhosts.inventory import variables

SITE = ROOT / "playbooks" / "site.yml"
RUNBOOKS = ROOT / "playbooks" / "runbooks"
BASE = {
    "firewall_ssh": {"burst": 500, "rate": "500/minute"},
    "sshd_fail2ban_ignore": CONTROLLER,
    # AIDE takes a minute of a processor to read a host.
    "hardening_items": {"integrity": False},
    # tests/observe is about those.
    "exporters_enabled": False,
}


class Fleet:
    """Two hosts of a network of their own, reached by their addresses, which they keep when they boot again."""

    def __init__(self, hosts: list[Host], folder: Path) -> None:
        self.hosts, self.folder = hosts, folder
        self.groups: tuple[str, ...] = ()

    def inventory(self, settings: Mapping[str, Any]) -> Path:
        known = {
            one.name: {**variables(one.record), "ansible_host": one.record.address, "ansible_port": 22}
            for one in self.hosts
        }
        path = self.folder / "hosts.yml"
        groups = {group: {"hosts": dict.fromkeys(known)} for group in self.groups}
        document = {"all": {"vars": {**BASE, **settings}, "hosts": known, "children": groups}}
        path.write_text(yaml.safe_dump(document, width=1000), "utf-8")
        return path

    def site(self, **settings: Any) -> Played:
        return play(SITE, self.inventory(settings)).ok()

    def runbook(
        self, name: str, settings: Mapping[str, Any] | None = None, *, check: bool = False, **said: Any
    ) -> Played:
        return play(RUNBOOKS / f"{name}.yml", self.inventory(settings or {}), said, check=check, diff=True)


def refused(played: Played, *words: str) -> None:
    """It failed before anything was touched, in these words."""
    assert played.failed, played.output
    said = " ".join(played.output.split())
    assert [word for word in words if word not in said] == [], played.output
    assert played.changed == 0
