"""Instances that nobody uses without a name, users with rights for their work, and changes that cannot break them."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from plays import Played, play
from testinfra.host import Host

SETTINGS = yaml.safe_load((Path(__file__).parents[1] / "vars.yml").read_text("utf-8"))
PASSWORDS = {user["name"]: user["password"] for one in SETTINGS["redis_instances"] for user in one["users"]}


def says(host: Host, user: str, *command: str, port: int = 6379, password: str = "") -> str:
    """What the server answers to a user over TCP; the password goes by the environment."""
    login = f"--user {user}" if user else ""
    auth = f"REDISCLI_AUTH={password or PASSWORDS[user]}" if user else ""
    done = host.run(f"{auth} redis-cli -p {port} {login} --no-auth-warning {' '.join(command)}")
    return str(done.stdout + done.stderr).strip()


def applied(settings: dict[str, Any], *arguments: str) -> Played:
    task = {"ansible.builtin.include_role": {"name": "fushuma.production.redis"}, "vars": settings}
    return play(task, arguments=("--diff", *arguments))


def main_pid(host: Host, instance: str) -> str:
    return str(host.check_output(f"systemctl show --value --property MainPID redis-server@{instance}.service"))


@pytest.mark.parametrize("port", [6379, 6380])
def test_nobody_is_let_in_without_a_name(host: Host, port: int) -> None:
    assert "NOAUTH" in says(host, "", "ping", port=port)
    assert "NOAUTH" in says(host, "", "info", port=port)
    assert "WRONGPASS" in says(host, "app", "ping", port=port, password="wrong")
    assert "WRONGPASS" in says(host, "default", "ping", port=port, password="wrong")


def test_an_application_reads_and_writes_what_is_its_own(host: Host) -> None:
    assert says(host, "app", "set", "app:1", "one") == "OK"
    assert says(host, "app", "get", "app:1") == "one"
    assert says(host, "app", "eval", "'return 7'", "0") == "7"
    assert "redis_version" in says(host, "app", "info")
    assert says(host, "app", "publish", "app:news", "hello") == "0"


@pytest.mark.parametrize(
    "command",
    [
        "flushall",
        "keys '*'",
        "config get '*'",
        "acl list",
        "save",
        "set other:1 x",
        "publish other x",
        "shutdown",
    ],
)
def test_an_application_may_not(host: Host, command: str) -> None:
    assert "NOPERM" in says(host, "app", command)


def test_others_may_do_their_work_and_nothing_else(host: Host) -> None:
    assert "used_memory" in says(host, "figures", "info")
    assert "NOPERM" in says(host, "figures", "get", "app:1")
    assert "Background saving" in says(host, "saver", "bgsave", port=6380)
    assert "NOPERM" in says(host, "saver", "get", "x", port=6380)


def test_use_decides_on_what_is_forgotten_and_kept(host: Host) -> None:
    for instance, policy, kept in (("cache", "allkeys-lru", "no"), ("jobs", "noeviction", "yes")):
        asked = host.check_output(f"redis-admin {instance} config get maxmemory-policy appendonly maxmemory")
        found = dict(zip(*[iter(asked.split())] * 2, strict=True))
        assert (found["maxmemory-policy"], found["appendonly"], found["maxmemory"]) == (
            policy,
            kept,
            str(256 * 1024**2),
        )
    assert says(host, "worker", "set", "job", "1", port=6380) == "OK"
    host.check_output("systemctl restart redis-server@jobs.service")
    host.check_output("timeout 20 sh -c 'until redis-admin jobs ping; do sleep 0.1; done'")
    assert says(host, "worker", "get", "job", port=6380) == "1"


def test_it_listens_on_the_loopback_addresses_only(host: Host) -> None:
    listening = {line.split()[3] for line in host.check_output("ss -Hltn").splitlines()}
    assert {"127.0.0.1:6379", "127.0.0.1:6380"} <= listening
    assert not [one for one in listening if one.endswith((":6379", ":6380")) and not one.startswith(("127.", "[::1]"))]
    assert not host.service("redis-server").is_running
    assert not host.service("redis-server").is_enabled


def test_the_server_cannot_give_itself_other_users(host: Host) -> None:
    folder = host.file("/etc/redis")
    assert (folder.user, folder.group, folder.mode) == ("root", "redis", 0o750)
    assert "ReadOnlyPaths=/etc/redis" in host.check_output("systemctl show --property ReadOnlyPaths redis-server@cache")
    assert "ERR" in host.run("redis-admin cache acl save").stderr


def test_secrets_are_not_lying_about(host: Host) -> None:
    assert host.file("/etc/redis/admin").mode == 0o600
    assert "canary" not in host.check_output("cat /etc/redis/*.acl /etc/redis/redis-*.conf")
    acl = host.file("/etc/redis/redis-cache.acl")
    assert (acl.mode, acl.user, acl.group) == (0o640, "root", "redis")
    assert "canary" not in host.check_output("ps -eo args")


def test_a_password_changes_without_a_restart_and_both_count_meanwhile(host: Host) -> None:
    """Alone on its host; what it leaves is what the scenario wants."""
    before, former = main_pid(host, "cache"), PASSWORDS["app"]
    rotated = deepcopy(SETTINGS)
    new = "canary-app-next-c41b7e90"
    rotated["redis_instances"][0]["users"][0] |= {"password": new, "former_password": former}
    assert applied(rotated, "--limit", host.backend.host).code == 0
    assert [says(host, "app", "ping", password=one) for one in (former, new)] == ["PONG", "PONG"]
    del rotated["redis_instances"][0]["users"][0]["former_password"]
    assert applied(rotated, "--limit", host.backend.host).code == 0
    assert says(host, "app", "ping", password=new) == "PONG"
    assert "WRONGPASS" in says(host, "app", "ping", password=former)
    admin = {
        **SETTINGS,
        "redis_admin_password": "canary-boss-next-93e1",
        "redis_former_admin_password": SETTINGS["redis_admin_password"],
    }
    assert applied(admin, "--limit", host.backend.host).code == 0
    assert (
        applied(SETTINGS | {"redis_former_admin_password": "canary-boss-next-93e1"}, "--limit", host.backend.host).code
        == 0
    )
    assert applied(SETTINGS, "--limit", host.backend.host).code == 0
    assert says(host, "app", "ping", password=former) == "PONG"
    assert main_pid(host, "cache") == before


def test_what_the_server_does_not_take_is_never_activated(host: Host) -> None:
    before = main_pid(host, "cache"), host.check_output("sha256sum /etc/redis/redis-cache.*")
    for change, words in (
        ({"settings": {"maxmemory-samples": "many"}}, "maxmemory-samples"),
        ({"settings": {"no-such-thing": "1"}}, "no-such-thing"),
        ({"memory": "900gb"}, "of which three quarters can be had"),
    ):
        wrong = deepcopy(SETTINGS)
        wrong["redis_instances"][0] |= change
        refused = applied(wrong, "--limit", host.backend.host)
        assert words in refused.output, refused.output
        assert "The former configuration is back" in refused.output
        assert (main_pid(host, "cache"), host.check_output("sha256sum /etc/redis/redis-cache.*")) == before
    assert says(host, "app", "ping") == "PONG"
