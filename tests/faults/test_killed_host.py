# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A converge of hardening, sshd and the firewall killed at any moment is healed by the next one.

Healed means: the host is, to the letter, as after a converge to the same setting that nobody has disturbed.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from hosts_support import RELEASES, ROOT, Edge, Host, on_each, tree_of, unsettled
from killing_support import Killer, assert_all_healed, seeded, told

SERVICES = ("hardening", "sshd", "fail2ban", "firewall")

COMMON: Mapping[str, Any] = {
    # The shortest that are allowed: a change without its confirmation is taken back within the time of a run.
    "sshd_confirm_within": 10,
    "firewall_confirm_within": 20,
    # One operator makes the runs of many here.
    "firewall_ssh": {"burst": 500, "rate": "500/minute"},
}
# Items whose packages take longer than all runs of this test.
LEFT_OUT = {"integrity": False, "upgrades": False, "needrestart": False, "passwords": False}
SHORT_MACS = ["hmac-sha2-512-etm@openssh.com", "hmac-sha2-256-etm@openssh.com"]

# Nothing of the three roles' running configuration is the same with both: files that come and go, files with another
# content, a kernel parameter, lines of PAM's, and what sshd, fail2ban and the kernel's packet filter have loaded.
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "a": {
        **COMMON,
        "hardening_items": {**LEFT_OUT, "guessing": True, "core_dumps": False},
        "hardening_banner": "With setting a.\n",
        "hardening_sysctl": {"net.core.somaxconn": 5000},
        "hardening_journal": {"size": "1G"},
        "sshd_banner": "With setting a.",
        "sshd_max_auth_tries": 3,
        "sshd_fail2ban_max_retry": 3,
        "firewall_open": [{"port": 8080}],
    },
    "b": {
        **COMMON,
        "hardening_items": {**LEFT_OUT, "guessing": False, "core_dumps": True},
        "hardening_banner": "With setting b.\n",
        "hardening_sysctl": {"net.core.somaxconn": 6000},
        "hardening_journal": {"size": "2G"},
        "sshd_max_auth_tries": 4,
        "sshd_macs": SHORT_MACS,
        "sshd_fail2ban_max_retry": 4,
        "firewall_open": [{"port": 9090}],
    },
}
# What a picture (see below) of a host with one of the settings shows, and that of a host with the other does not.
TELLING: Mapping[str, list[str]] = {
    "a": [
        "net.core.somaxconn = 5000",
        "lines of faillock: 3",
        "maxauthtries 3",
        f"sshd offers {','.join([*SHORT_MACS, 'umac-128-etm@openssh.com'])}\n",
        "fail2ban bans after 3",
        "tcp dport 8080 accept",
        "/etc/ssh/banner",
    ],
    "b": [
        "net.core.somaxconn = 6000",
        "lines of faillock: 0",
        "maxauthtries 4",
        f"sshd offers {','.join(SHORT_MACS)}\n",
        "fail2ban bans after 4",
        "tcp dport 9090 accept",
        "/etc/security/limits.d/90-hardening.conf",
    ],
}

PLACES = "/etc /usr/local /usr/share/pam-configs"
# Run on the host. `production-firewall check` fails where the kernel has other rules than were loaded.
FORCE = """
sysctl net.core.somaxconn
echo "lines of faillock: $(cat /etc/pam.d/common-auth /etc/pam.d/common-account | grep -c pam_faillock)"
sshd -T | sort
echo "fail2ban bans after $(fail2ban-client get sshd maxretry)"
production-firewall check
systemctl show --property=Id,ActiveState,UnitFileState \
    ssh.service ssh.socket fail2ban.service production-firewall.service systemd-journald.service
systemctl list-units --all --plain --no-legend 'fushuma-production-revert-*'
systemctl --failed --plain --no-legend
"""
# What `sshd -T` tells is what the files say. This asks the one that runs: a list of its first packet, RFC 4253 §7.1.
OFFERS = """
import socket
with socket.create_connection(("127.0.0.1", 22), 30) as connection, connection.makefile("rb") as stream:
    connection.sendall(b"SSH-2.0-picture\\r\\n")
    stream.readline()
    packet = stream.read(int.from_bytes(stream.read(4), "big"))[18:]
lists = []
for _number in range(10):
    size = 4 + int.from_bytes(packet[:4], "big")
    lists.append(packet[4:size].decode())
    packet = packet[size:]
print("sshd offers", lists[4])
"""


def picture(one: Host) -> str:
    """All of the three roles on a host: the files, and what is in force."""
    return tree_of(one, PLACES) + one.sh(FORCE) + one.python(OFFERS)


def wrong(edge: Edge, undisturbed: Mapping[str, str], letter: str) -> list[str]:
    """What is not as it should be with this setting in force."""
    differing = difflib.unified_diff(
        undisturbed[letter].splitlines(), picture(edge.host).splitlines(), "undisturbed", "now", lineterm="", n=0
    )
    return [*unsettled(edge.host, SERVICES), *differing]


def first_play(path: Path) -> Path:
    """The part of site.yml that is about every host."""
    plays = yaml.safe_load((ROOT / "playbooks" / "site.yml").read_text("utf-8"))
    path.write_text(yaml.safe_dump([play for play in plays if play.get("hosts") == "all"]), "utf-8")
    return path


@pytest.fixture
def hosts(boot: Callable[..., Any], tmp_path: Path) -> list[Edge]:
    playbook = first_play(tmp_path / "host.yml")
    return [Edge(boot(f"killed{release}", release), tmp_path, playbook, ("hardened",)) for release in RELEASES]


def undisturbed(edge: Edge) -> dict[str, str]:
    """A picture of the host with each of the settings; it has ``a`` at the end."""
    edge.play(SETTINGS["a"]).ok()
    pictures: dict[str, str] = {}
    for letter in "ba":
        edge.play(SETTINGS[letter]).ok()
        pictures[letter] = picture(edge.host)
    return pictures


def test_a_killed_converge_of_the_host_roles_is_healed_by_the_next(
    hosts: list[Edge], capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = on_each(hosts, undisturbed)
    for shown in pictures:
        for letter, other in ("ab", "ba"):
            assert [text for text in TELLING[letter] if text not in shown[letter]] == []
            assert [text for text in TELLING[letter] if text in shown[other]] == []
    killers = [
        Killer(edge, SETTINGS, SERVICES, partial(wrong, edge, shown), seeded(edge))
        for edge, shown in zip(hosts, pictures, strict=True)
    ]
    on_each(killers, Killer.run)
    with capsys.disabled():
        print(told(killers))
    assert_all_healed(killers)
