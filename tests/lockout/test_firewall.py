# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Changes to the firewall that cut the controller off: refused before, or taken back by the host within a minute.

Each case has its rules judged or loaded for real, loses the host, waits until it answers again with the rules it had,
and goes on with a good run. Answers are those of new connections from where the controller is.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hosts_support import (
    CONTROLLER,
    RELEASES,
    Controller,
    Host,
    Played,
    on_each,
    play,
    role_play,
    wait_for,
    write_inventory,
)

BACK_WITHIN = 60.0  # seconds from the moment the host was lost
CONFIRM_WITHIN = 20  # seconds; the shortest that is allowed, for the sake of the suite
ELSEWHERE = ["192.0.2.0/24", "2001:db8::/32"]  # RFC 5737, RFC 3849: nobody's
GOOD: Mapping[str, Any] = {
    "firewall_confirm_within": CONFIRM_WITHIN,
    "firewall_ssh": {"burst": 500, "rate": "500/minute"},
}
STATE = "nft --stateless --terse list table inet production; cat /etc/production-firewall/*.nft"
JOURNAL = "/var/lib/fushuma-production/firewall.journal"


@dataclass
class Walled:
    """A host with the firewall, and the folder with its inventory and playbook."""

    host: Host
    folder: Path

    def playbook(self) -> Path:
        return role_play(self.folder / f"{self.host.name}-firewall.yml", "firewall", "all")

    def inventory(self, settings: Mapping[str, Any]) -> Path:
        known = {**GOOD, **settings}
        return write_inventory(self.folder / f"{self.host.name}.yml", [self.host], known, groups=("walled",))

    def play(self, settings: Mapping[str, Any]) -> Played:
        return play(self.playbook(), self.inventory(settings))

    def start(self, settings: Mapping[str, Any]) -> Controller:
        return Controller(self.playbook(), self.inventory(settings), self.folder / f"{self.host.name}.log")

    def state(self) -> str:
        """The rules in force and those on the disk."""
        return self.host.sh(STATE)

    def answers(self) -> bool:
        """Whether sshd answers a new connection."""
        try:
            with socket.create_connection(("127.0.0.1", self.host.record.ssh_port), timeout=2) as connection:
                connection.settimeout(2)
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def wait_until_back(self, since: float) -> float:
        """Wait until the host answers; returns the seconds since then."""
        wait_for(self.answers, f"{self.host.name} answers again", BACK_WITHIN - (time.monotonic() - since))
        return time.monotonic() - since


@pytest.fixture(scope="module")
def booted(boot: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> list[Walled]:
    folder = tmp_path_factory.mktemp("lockout-firewall")
    return [Walled(boot(f"walled{release}", release), folder) for release in RELEASES]


@pytest.fixture
def walled(booted: list[Walled]) -> list[Walled]:
    """A host of each release with good rules in force."""
    on_each(booted, lambda one: one.play({}).ok())
    return booted


def nobody_gets_in(**settings: Any) -> dict[str, Any]:
    return {**GOOD, "firewall_ssh": {**GOOD["firewall_ssh"], "from": "host"}, **settings}


REFUSED: Mapping[str, tuple[dict[str, Any], str]] = {
    "ssh-from-nowhere": (nobody_gets_in(), "nothing lets SSH in on port 22"),
    "ssh-on-another-port-only": (
        nobody_gets_in(firewall_open=[{"port": "2200-2222"}]),
        "nothing lets SSH in on port 22",
    ),
    "ssh-over-udp": (nobody_gets_in(firewall_open=[{"port": 22, "protocol": "udp"}]), "nothing lets SSH in on port 22"),
    "the-world-blocked": ({"firewall_block": ["0.0.0.0/0"]}, "the controller's too"),
    "too-few-connections": ({"firewall_ssh": {"rate": "1/hour"}}, "would wait for more than a minute"),
}

CUT_OFF: Mapping[str, dict[str, Any]] = {
    "controller-blocked": {"firewall_block": CONTROLLER},
    "open-on-a-wrong-interface": nobody_gets_in(firewall_open=[{"port": 22, "interface": "eth9"}]),
    "open-for-others": nobody_gets_in(firewall_ssh={"from": ELSEWHERE}),
    "open-on-another-port": {"firewall_ssh": {"ports": [2222]}},
    "open-for-others-by-a-role": {
        "firewall_listens": [{"port": 22, "from": ELSEWHERE, "limited": True, "setting": "sshd_port"}],
    },
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_seen_to_cut_off_is_refused(walled: list[Walled], case: str) -> None:
    settings, why = REFUSED[case]

    def work(one: Walled) -> None:
        before = one.state()
        refused = one.play(settings)
        assert refused.failed
        assert why in refused.output
        assert "nothing was touched" in refused.output
        assert (one.state(), one.answers()) == (before, True)

    on_each(walled, work)


@pytest.mark.parametrize("case", CUT_OFF)
def test_the_host_takes_back_what_cuts_off(walled: list[Walled], case: str, capsys: pytest.CaptureFixture[str]) -> None:
    def work(one: Walled) -> str:
        before = one.state()
        controller = one.start(CUT_OFF[case])
        try:
            wait_for(lambda: one.host.run(["test", "-e", JOURNAL], check=False).code == 0, "a change is under way")
            wait_for(lambda: not one.answers(), "the rules are in force, and the host is lost")
            lost = time.monotonic()
            seconds = one.wait_until_back(lost)
            wait_for(lambda: not controller.running(), "the run ends by itself")
        finally:
            controller.kill()
        assert one.state() == before
        assert one.host.run(["test", "-e", JOURNAL], check=False).code != 0
        said = (one.folder / f"{one.host.name}.log").read_text()
        assert "failed=1" in said or "unreachable=1" in said, said
        assert_goes_on(one)
        return f"{one.host.name}: {case}: back after {seconds:.1f} s"

    report = on_each(walled, work)
    with capsys.disabled():
        print("", *report, sep="\n")


def assert_goes_on(one: Walled) -> None:
    """The next good run changes what it has to, and the one after that nothing."""
    good = {"firewall_open": [{"port": 8443}]}
    one.play(good).ok()
    assert "tcp dport 8443 accept" in one.state()
    assert one.play(good).ok().changed == 0


def test_the_first_rules_of_a_host_are_taken_back_too(booted: list[Walled]) -> None:
    """There was no firewall before, so there is none afterwards."""

    def work(one: Walled) -> None:
        one.host.sh("systemctl disable --now production-firewall.service 2>/dev/null; true")
        one.host.sh("rm -rf /etc/production-firewall /etc/systemd/system/production-firewall.service")
        one.host.sh("rm -f /var/lib/fushuma-production/firewall.*; systemctl daemon-reload")
        assert one.play(CUT_OFF["open-for-others"]).failed
        wait_for(one.answers, f"{one.host.name} answers again")
        wait_for(lambda: one.host.run(["test", "-e", JOURNAL], check=False).code != 0, "the host has taken it back")
        assert "production" not in one.host.sh("nft list tables")
        assert one.host.run(["test", "-e", "/etc/production-firewall"], check=False).code != 0
        assert_goes_on(one)

    on_each(booted, work)


# Stands in for ssh on the controller: when the connection has been given up for a new one, there comes none.
SSH = """\
#!/bin/sh
case " $* " in
    *" -O stop "*) touch "$0.stopped" ;;
    *) [ -e "$0.stopped" ] && exec sleep 600 ;;
esac
exec ssh "$@"
"""


def test_a_controller_that_dies_before_it_confirms(walled: list[Walled]) -> None:
    """The rules let it in, but nobody has said so."""

    def work(one: Walled) -> None:
        before = one.state()
        ssh = one.folder / f"{one.host.name}-ssh"
        ssh.write_text(SSH)
        ssh.chmod(0o755)
        controller = one.start({"firewall_open": [{"port": 8080}], "ansible_ssh_executable": str(ssh)})
        try:
            wait_for(Path(f"{ssh}.stopped").exists, "the change waits for its confirmation")
            assert "tcp dport 8080 accept" in one.state()
        finally:
            controller.kill()
        began = time.monotonic()
        wait_for(lambda: one.host.run(["test", "-e", JOURNAL], check=False).code != 0, "the host has taken it back")
        assert time.monotonic() - began < BACK_WITHIN
        assert (one.state(), one.answers()) == (before, True)
        assert_goes_on(one)

    on_each(walled, work)


def test_a_host_that_loses_its_power_before_the_confirmation_boots_with_the_former_rules(walled: list[Walled]) -> None:
    def work(one: Walled) -> Walled:
        before = one.state()
        controller = one.start(CUT_OFF["open-for-others"])
        try:
            wait_for(lambda: one.host.run(["test", "-e", JOURNAL], check=False).code == 0, "a change is under way")
            wait_for(lambda: not one.answers(), "the rules are in force, and the host is lost")
        finally:
            one.host.kill()
            controller.kill()
        again = Walled(one.host.boot_again(), one.folder)
        assert (again.state(), again.answers()) == (before, True)
        assert_goes_on(again)
        one.host = again.host
        return one

    on_each(walled, work)
