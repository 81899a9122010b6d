# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What Lynis says of a host that site.yml has hardened as far as it goes without a change of how the host is used."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest
from hosts_support import RELEASES, ROOT, Host, play, wait_for, write_inventory

LEAST = 85
STRICT: Mapping[str, Any] = {
    "hardening_level": "strict",
    "hardening_items": {"password_age": True, "mount_tmp": True, "mount_dev": True, "mount_dev_shm": True},
    "sshd_allow_groups": ["operator"],
}
AUDIT = "lynis audit system --quick --no-colors --quiet > /dev/null 2>&1; cat /var/log/lynis-report.dat"


@pytest.fixture(scope="module")
def hosts(boot: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> list[Host]:
    found = [boot(f"audit{release}", release) for release in RELEASES]
    inventory = write_inventory(tmp_path_factory.mktemp("audit") / "hosts.yml", found, STRICT, groups=("hosts",))
    play(ROOT / "playbooks" / "site.yml", inventory).ok()
    for one in found:
        wait_for(partial(has_database, one), "AIDE has looked at all files", 300)
    return found


def has_database(host: Host) -> bool:
    return host.run(["test", "-e", "/var/lib/aide/aide.db"], check=False).code == 0


@pytest.mark.parametrize("number", range(len(RELEASES)), ids=[f"debian-{release}" for release in RELEASES])
def test_lynis(hosts: list[Host], number: int, capsys: pytest.CaptureFixture[str]) -> None:
    host = hosts[number]
    host.install("lynis")
    # Debian may have updated a package since the host was built. Not by unattended-upgrade: it leaves an empty
    # sources.list, in which Lynis misses the line that is in sources.list.d.
    host.sh("DEBIAN_FRONTEND=noninteractive apt-get upgrade -qq -y")
    report = host.sh(AUDIT)
    (index,) = re.findall(r"^hardening_index=(\d+)$", report, re.MULTILINE)
    with capsys.disabled():
        print(f"\n{host.name}: Lynis {index}")
    assert re.findall(r"^warning\[\]=.*$", report, re.MULTILINE) == []
    assert int(index) >= LEAST
