"""service_config on real hosts: what it does for a service, and what is left where a change goes wrong at any point."""

from __future__ import annotations

import base64
import itertools
import json
import random
import secrets
import time
from collections.abc import Mapping
from typing import Any

import pytest
from plays import Played, Result, all_hosts, play
from testinfra.host import Host

MODULE = "fushuma.production.service_config"
STATE = "/var/lib/fushuma-production"
SECRET = "canary-Tq8vLm3xZr6k"
HOSTS = all_hosts()
PORTS = itertools.count(random.randrange(10000, 30000, 100))  # others each time, so that the tests can be run again

Task = dict[str, Any]


class Service:
    """A service in small (files/served.py) of its own for each test."""

    def __init__(self, name: str) -> None:
        self.name = f"{name}-{secrets.token_hex(2)}"
        self.port = next(PORTS)
        self.folder = f"/etc/{self.name}"
        self.configuration = f"{self.folder}/main.conf"
        self.unit = f"/etc/systemd/system/{self.name}.service"

    def task(self, content: str, *more_files: Mapping[str, Any], **more: Any) -> Task:
        """The task that brings the service into force with this configuration."""
        start = f"/usr/bin/python3 /usr/local/lib/served.py {self.name} {self.port}"
        lines = ["[Service]", f"ExecStart={start}", "ExecReload=/bin/kill -HUP $MAINPID"]
        unit = "\n".join([*lines, "[Install]", "WantedBy=multi-user.target", ""])
        arguments = {
            "name": self.name,
            "units": [f"{self.name}.service"],
            "files": [
                {"content": unit, "dest": self.unit},
                {"content": f"{content}\n", "dest": self.configuration},
                *more_files,
            ],
            "validate": [self.checker()],
            "probe": [{"http": f"http://127.0.0.1:{self.port}/", "body": content.split()[0]}],
        }
        return {MODULE: {**arguments, **more}}

    def checker(self) -> list[str]:
        return ["/usr/bin/python3", "/usr/local/lib/checker.py", self.name]

    def trap(self) -> Task:
        """Have the checker kill its caller, once."""
        return shell(f"touch /run/served/{self.name}.kill")

    def history(self, host: Host) -> list[str]:
        """How often and with which word the service has taken up its configuration."""
        return host.check_output(f"cat /run/served/{self.name}").splitlines()

    def is_settled(self, host: Host, word: str) -> bool:
        """Whether the service runs with this word, as its file, its record and the missing journal say too."""
        return bool(
            host.check_output(f"cat {self.configuration}").startswith(word)
            and self.history(host)[-1].endswith(f" {word}")
            and host.service(self.name).is_running
            and host.service(self.name).is_enabled
            and host.file(f"{STATE}/{self.name}.record").exists
            and not host.file(f"{STATE}/{self.name}.journal").exists
        )


def shell(command: str) -> Task:
    return {"ansible.builtin.shell": command}


def on_each(played: Played, number: int) -> list[tuple[Host, Result]]:
    """Each host with its result of a task."""
    assert played.results.keys() == HOSTS.keys()
    return [(host, played.results[name][number]) for name, host in HOSTS.items()]


def answers(host: Host) -> bool:
    """Whether the host can be reached over SSH."""
    try:
        return bool(host.run("true").rc == 0)
    except RuntimeError:
        return False


def outcome(result: Result) -> str:
    """In one word: changed, unchanged or failed."""
    return "failed" if result["failed"] else "changed" if result["changed"] else "unchanged"


def outcomes(played: Played) -> set[tuple[str, ...]]:
    """The outcomes of all tasks of each host; one element where the hosts agree."""
    return {tuple(map(outcome, results)) for results in played.results.values()}


def test_a_change_reloads_and_no_change_does_nothing() -> None:
    service = Service("reloads")
    played = play(service.task("one"), service.task("one"), service.task("two"))
    assert outcomes(played) == {("changed", "unchanged", "changed")}
    for host, result in on_each(played, 1):
        assert (result["paths"], result["commands"]) == ([], [])
        assert service.history(host) == ["start one", "reload two"]
        assert service.is_settled(host, "two")


def test_a_file_that_needs_it_restarts() -> None:
    service = Service("restarts")
    limits = {"dest": f"{service.folder}/limits.conf", "on_change": "restart"}
    played = play(
        service.task("one", {**limits, "content": "1\n"}),
        service.task("two", {**limits, "content": "1\n"}),
        service.task("two", {**limits, "content": "2\n"}),
        service.task("three", {**limits, "content": "2\n"}, on_change="restart"),
    )
    assert outcomes(played) == {("changed",) * 4}
    for host in HOSTS.values():
        assert service.history(host) == ["start one", "reload two", "start two", "start three"]


def test_files_come_with_their_owner_and_mode_and_go_with_what_is_not_wanted() -> None:
    service = Service("owns")
    parts = f"{service.folder}/parts"
    folder = {"path": parts, "group": "mail", "mode": "0750", "prune": True}
    part = {"dest": f"{parts}/deep/one", "content": "1", "owner": "daemon", "group": "mail", "mode": "0640"}
    played = play(
        service.task("one", part, directories=[folder]),
        shell(f"ls -l {part['dest']}; mkdir -p {parts}/foreign/deep; touch {parts}/foreign/deep/file {parts}/two"),
        service.task("one", part, directories=[folder]),
        service.task("one", {"dest": part["dest"], "state": "absent"}, directories=[folder]),
    )
    assert outcomes(played) == {("changed",) * 4}
    for _host, result in on_each(played, 1):
        assert result["stdout"].startswith("-rw-r----- 1 daemon mail 1 ")
    for _host, result in on_each(played, 2):
        assert set(result["paths"]) == {
            f"{parts}/foreign",
            f"{parts}/foreign/deep",
            f"{parts}/foreign/deep/file",
            f"{parts}/two",
        }
    for host in HOSTS.values():
        owned = host.file(parts)
        assert (owned.user, owned.group, owned.mode) == ("root", "mail", 0o750)
        assert host.check_output(f"find {parts} -mindepth 1 -type f") == ""


def test_what_was_changed_by_hand_is_undone() -> None:
    service = Service("byhand")
    played = play(
        service.task("one"),
        shell(f"echo other >{service.configuration}; chmod 0600 {service.unit}"),
        shell(f"systemctl disable --now {service.name}"),
        service.task("one"),
    )
    for host, result in on_each(played, 3):
        assert set(result["paths"]) == {service.configuration, service.unit}
        assert service.is_settled(host, "one")
        assert host.file(service.unit).mode == 0o644


def test_what_the_checker_refuses_never_comes_into_force() -> None:
    service = Service("refused")
    played = play(service.task("one"), service.task("broken by a typo"))
    for host, result in on_each(played, 1):
        assert "refuses the new configuration: line 1 makes no sense: broken by a typo" in result["msg"]
        assert service.history(host) == ["start one"]
        assert service.is_settled(host, "one")


@pytest.mark.parametrize("word", ["mute", "fatal"])
def test_what_passes_the_checker_and_does_not_answer_is_put_back(word: str) -> None:
    service = Service(f"unanswered-{word}")
    played = play(service.task("one"), service.task(word, probe_timeout=1))
    assert outcomes(played) == {("changed", "failed")}
    for host, result in on_each(played, 1):
        assert "The former configuration is back and in force." in result["msg"]
        assert service.history(host)[:2] == ["start one", f"reload {word}"]
        assert service.is_settled(host, "one")


def test_a_first_install_that_fails_leaves_nothing() -> None:
    service = Service("stillborn")
    mute = service.task("mute", directories=[{"path": f"/var/lib/{service.name}"}], probe_timeout=1)
    for host, result in on_each(play(mute), 0):
        assert result["failed"]
        left = f"find /etc /usr/local /var/lib -path '*{service.name}*' -not -name '*.lock'"
        assert host.check_output(left) == ""
        assert host.run(f"systemctl cat {service.name}.service").rc != 0
        assert not host.service(service.name).is_running


def test_a_dry_run_tells_what_would_happen_and_touches_nothing() -> None:
    service = Service("dry")
    foreseen = play(service.task("one"), arguments=["--check", "--diff"])
    for host, result in on_each(foreseen, 0):
        unit = f"{service.name}.service"
        assert set(result["paths"]) == {service.folder, service.configuration, service.unit}
        assert result["commands"] == ["systemctl daemon-reload", f"systemctl enable {unit}", f"systemctl start {unit}"]
        assert host.check_output(f"find /etc /var/lib /run -path '*{service.name}*'") == ""
    assert "+one" in foreseen.output
    done = play(service.task("one"))
    for (_host, before), (_same, after) in zip(on_each(foreseen, 0), on_each(done, 0), strict=True):
        assert (before["paths"], before["commands"]) == (after["paths"], after["commands"])


@pytest.mark.parametrize("stage", ["validate", "apply"])
def test_a_module_that_is_killed_is_healed_by_the_next_run(stage: str) -> None:
    """Killed before the service has seen the new files, and after that."""
    service = Service(f"killed-{stage}")
    programs = {"validate": [], "apply": [], stage: [service.checker()]}
    played = play(
        service.task("one", **programs),
        service.trap(),
        service.task("two", **programs),
        shell(f"cat {service.configuration}; ls {STATE}/{service.name}.*"),
        service.task("two", **programs),
        service.task("two", **programs),
    )
    assert outcomes(played) == {("changed", "changed", "failed", "changed", "changed", "unchanged")}
    for host, left in on_each(played, 3):
        assert left["stdout_lines"][0] == "two"
        assert f"{STATE}/{service.name}.journal" in left["stdout_lines"]
        assert (f"{STATE}/{service.name}.record" in left["stdout_lines"]) == (stage == "validate")
        assert service.is_settled(host, "two")
    assert all(result["healed"] for _host, result in on_each(played, 4))


def test_a_host_that_loses_power_boots_with_the_former_files() -> None:
    service = Service("power")
    played = play(
        service.task("one"),
        service.trap(),
        service.task("two"),
        shell("systemctl is-enabled fushuma-production-heal && systemctl start fushuma-production-heal"),
        shell(f"cat {service.configuration}; ls {STATE}/{service.name}.*"),
        service.task("one"),
    )
    assert outcomes(played) == {("changed", "changed", "failed", "changed", "changed", "changed")}
    for host, left in on_each(played, 4):
        assert left["stdout_lines"] == ["one", f"{STATE}/{service.name}.lock"]
        assert service.is_settled(host, "one")


def test_a_change_is_confirmed_over_a_new_connection() -> None:
    service = Service("confirmed")
    played = play(service.task("one", confirm_within=60), service.task("one", confirm_within=60))
    assert outcomes(played) == {("changed", "unchanged")}
    for host, result in on_each(played, 0):
        assert result["pending"] is False
        assert service.is_settled(host, "one")
        assert "fushuma-production-revert" not in host.check_output("systemctl list-timers --all")


def test_a_host_that_cannot_be_reached_any_more_takes_the_change_back() -> None:
    within = 5
    dropin = "/etc/ssh/sshd_config.d/00-elsewhere.conf"
    elsewhere = {
        "name": "elsewhere",
        "units": ["ssh.service"],
        "files": [{"content": "Port 2222\n", "dest": dropin}],
        "validate": [["/usr/sbin/sshd", "-t"]],
        "confirm_within": within,
    }
    began = time.monotonic()
    played = play({MODULE: elsewhere})
    gone = time.monotonic() - began
    assert outcomes(played) == {("failed",)}
    for host, result in on_each(played, 0):
        assert "the host puts the former configuration back within 5 s" in result["msg"]
        while not answers(host):
            assert time.monotonic() - began < gone + within + 5, "the host is still out of reach"
            time.sleep(0.2)
        assert not host.file(dropin).exists
        assert not host.file(f"{STATE}/elsewhere.journal").exists
        assert host.socket("tcp://0.0.0.0:22").is_listening
        assert not host.socket("tcp://0.0.0.0:2222").is_listening


def test_secrets_are_neither_shown_nor_logged() -> None:
    """``play`` itself refuses every output that holds a secret."""
    service = Service("discreet")
    by_mode = {"dest": f"{service.folder}/by-mode", "content": f"{SECRET}\n", "mode": "0600"}
    by_word = {"dest": f"{service.folder}/by-word", "content": f"{SECRET}\n", "sensitive": True}
    quoted = {"content": f"broken {SECRET}\n", "dest": service.configuration, "mode": "0600"}
    refusing = service.task("one")
    refusing[MODULE]["files"][1] = quoted
    changed = [{**one, "content": f"{SECRET}{SECRET}\n"} for one in (by_mode, by_word)]
    played = play(service.task("one", by_mode, by_word), service.task("one", *changed), refusing)
    assert outcomes(played) == {("changed", "changed", "failed")}
    assert "(secret, another one than before)" in played.output
    encoded = base64.b64encode(f"{SECRET}\n".encode()).decode()[:20]
    for host, result in on_each(played, 2):
        assert "line 1 makes no sense: broken ********" in result["msg"]
        journal = host.check_output("journalctl --no-pager --output=cat")
        assert service.name in journal
        assert SECRET not in journal
        assert encoded not in journal


def test_a_full_disk_is_found_before_anything_is_replaced() -> None:
    service = Service("full")
    disk = f"/srv/{service.name}"
    mount = f"mkdir -p {disk} && mount -t tmpfs -o size=64k none {disk} && echo old >{disk}/data"
    small = {"dest": f"{disk}/data", "content": "new\n"}
    large = {"dest": f"{disk}/large", "content": "x" * 100_000}
    played = play(service.task("one"), shell(mount), service.task("two", small, large))
    assert outcomes(played) == {("changed", "changed", "failed")}
    for host, result in on_each(played, 2):
        assert "No space left on device" in result["msg"]
        assert host.check_output(f"cat {disk}/data; find {disk} -type f") == f"old\n{disk}/data"
        assert service.history(host) == ["start one"]
        assert service.is_settled(host, "one")


def test_files_that_others_write_are_taken_up_too() -> None:
    service = Service("reads")
    read = f"/run/{service.name}.pem"
    reading = service.task("one", reads=[read])
    played = play(shell(f"echo 1 >{read}"), reading, reading, shell(f"echo 2 >{read}"), reading)
    assert outcomes(played) == {("changed", "changed", "unchanged", "changed", "changed")}
    for host in HOSTS.values():
        assert service.history(host) == ["start one", "reload one"]


def test_a_service_is_stopped_and_disabled_where_that_is_wanted() -> None:
    service = Service("stopped")
    rest = {"state": "stopped", "enabled": False, "probe": []}
    played = play(service.task("one"), service.task("two", **rest), service.task("two", **rest))
    assert outcomes(played) == {("changed", "changed", "unchanged")}
    for host in HOSTS.values():
        assert not host.service(service.name).is_running
        assert not host.service(service.name).is_enabled
        assert service.history(host) == ["start one"]


def test_the_digest_proves_that_a_service_runs_with_these_files() -> None:
    service = Service("digest")
    probe = [{"http": f"http://127.0.0.1:{service.port}/", "body": "@config_digest@"}]
    stuck = [{"http": f"http://127.0.0.1:{service.port}/", "body": "@config_digest@ and more"}]
    played = play(
        service.task("one @config_digest@", probe=probe),
        service.task("two @config_digest@", probe=stuck, probe_timeout=1),
    )
    assert outcomes(played) == {("changed", "failed")}
    for host in HOSTS.values():
        assert service.is_settled(host, "one")


def test_rules_are_loaded_where_no_unit_does() -> None:
    """With ``apply`` alone: loaded when the files change or the host has forgotten that it took them up."""
    name = f"rules-{secrets.token_hex(2)}"
    load = [["/bin/sh", "-c", f"cat /etc/{name}/* >>/run/{name}"]]
    rules = {"name": name, "files": [{"content": "1\n", "dest": f"/etc/{name}/one"}], "apply": load}
    played = play({MODULE: rules}, {MODULE: rules}, shell(f"rm {STATE}/{name}.record"), {MODULE: rules})
    assert outcomes(played) == {("changed", "unchanged", "changed", "changed")}
    for host in HOSTS.values():
        assert host.check_output(f"cat /run/{name}") == "1\n1"


def test_two_runs_at_once_take_turns() -> None:
    service = Service("turns")
    noted, lock = f"/run/{service.name}", f"{STATE}/{service.name}.lock"
    hold = f"(flock 9; sleep 2; cat {service.configuration} >{noted}) 9>{lock} >/dev/null 2>&1 &"
    played = play(service.task("one"), shell(hold), service.task("two"))
    assert outcomes(played) == {("changed", "changed", "changed")}
    for host in HOSTS.values():
        assert host.check_output(f"cat {noted}") == "one"
        assert service.is_settled(host, "two")


def cache(port: int) -> Task:
    """A service that comes with a package, on a port that is not its package's."""
    arguments = {
        "name": "memcached",
        "packages": ["memcached"],
        "units": ["memcached.service"],
        "files": [{"content": f"-l 127.0.0.1\n-p {port}\n-u memcache\n", "dest": "/etc/memcached.conf"}],
        "on_change": "restart",
        "probe": [{"tcp": f"127.0.0.1:{port}"}],
    }
    return {MODULE: arguments}


def starts(host: Host) -> int:
    """How often the service of `cache` was started since the host booted."""
    return host.check_output("journalctl --no-pager --output=cat --unit=memcached").count("Started memcached")


def test_a_package_comes_with_the_service_and_does_not_start_it_with_its_own_settings() -> None:
    port = next(PORTS)
    foreseen = play(cache(port), arguments=["--check", "--diff"])
    assert "+memcached" in foreseen.output
    for host, result in on_each(foreseen, 0):
        assert (outcome(result), result["packages"]) == ("changed", ["memcached"])
        assert not host.package("memcached").is_installed
    played = play(cache(port), cache(port))
    assert outcomes(played) == {("changed", "unchanged")}
    for host, result in on_each(played, 0):
        assert (result["packages"], result["commands"]) == (["memcached"], ["systemctl start memcached.service"])
        assert starts(host) == 1
        assert not host.file("/usr/sbin/policy-rc.d").exists
        assert host.service("memcached").is_enabled
        assert host.socket(f"tcp://127.0.0.1:{port}").is_listening


def test_an_installation_that_was_killed_is_finished_by_the_next_run() -> None:
    # What apt then refuses to go on from: dpkg has noted what it was about to do.
    kill = """
        noted() { ls /var/lib/dpkg/updates | grep -q '^[0-9]'; }
        until noted; do
            apt-get -qq purge -y memcached
            setsid apt-get -qq install -y memcached & apt=$!
            while kill -0 $apt 2>/dev/null && ! noted; do :; done
            pkill -9 -x apt-get; pkill -9 -x dpkg; wait $apt
        done
        apt-get -qq install -y memcached
    """
    port = next(PORTS)
    played = play(shell(kill), cache(port), cache(port))
    assert outcomes(played) == {("failed", "changed", "unchanged")}
    for host, result in on_each(played, 0):
        assert "dpkg was interrupted" in result["stderr"]
        assert host.package("memcached").is_installed
        assert host.socket(f"tcp://127.0.0.1:{port}").is_listening


def test_the_record_names_every_file(host: Host) -> None:
    record = json.loads(host.check_output(f"cat {STATE}/settled.record"))
    wanted = {"/etc/systemd/system/settled.service", "/etc/settled", "/etc/settled/main.conf", "/etc/settled/secret"}
    assert set(record["files"]) == wanted
    assert host.file(f"{STATE}/settled.record").mode == 0o600
