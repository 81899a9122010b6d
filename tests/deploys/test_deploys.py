# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Deployments, rollbacks and rotations of secrets while visitors come: none of them has a request that fails.

Everything runs on one host of each Debian release, as `site.yml` brings it. The visitors are wrk on the host, which
keeps its connections, and clients from outside who read and write.
"""

from __future__ import annotations

import json
import secrets as random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import application_image
import pytest
from hosts_support import RELEASES, Client, Played, free_port, on_each, prepare, times, wait_for
from load_support import Load, load_on
from registry_support import PORT as REGISTRY_PORT
from registry_support import serve_registry
from stack_support import GATEWAY, SECRETS, SITE, Stack, on_one

DEPLOY, ROLL_BACK = "deploy.yml", "rollback.yml"
STATE = "/var/lib/fushuma-production/applications/shop"
KEEP = 3  # images, as the role has it
PAUSE = 20  # milliseconds; about two hundred requests a second


@pytest.fixture(scope="module")
def stacks(boot: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> list[Stack]:
    """The whole on a host of each Debian release, with release 1.0.0 of the application."""
    folder = tmp_path_factory.mktemp("deploys")
    prepare(RELEASES)
    options = {"firewall_open": [{"port": REGISTRY_PORT, "comment": "the registry of one of the tests"}]}
    booted = [boot(f"deploys{release}", release, publish={free_port(): 443}) for release in RELEASES]
    found = [on_one(host, folder, **options) for host in booted]
    on_each(found, bring_up)
    return found


def bring_up(stack: Stack) -> None:
    stack.edge.install("wrk", "procps", "curl")
    stack.edge.sh(f"echo 127.0.0.1 {SITE} >> /etc/hosts")
    stack.play("site.yml", stack.settings("1.0.0")).ok()


@dataclass
class Visitors:
    """Those who ask while something is done, and what went wrong for them."""

    wrk: Load
    clients: list[Client]

    def __str__(self) -> str:
        return f"{self.wrk.requests} requests of wrk and {sum(one.requests for one in self.clients)} from outside"

    @property
    def failures(self) -> list[str]:
        return [*self.wrk.errors, *(failure for one in self.clients for failure in one.failures)]


@contextmanager
def visitors(stack: Stack, options: Sequence[str] = ()) -> Iterator[Visitors]:
    """Visitors of a host, from entering the context to leaving it; ``options`` are those of wrk."""
    port = stack.edge.port(443)
    reader = Client(port, SITE, "/api/items", pause=0.1)
    writer = Client(
        port, SITE, "/api/items", pause=0.3, body=json.dumps({"name": "Tea", "price_cents": 390}), status=201
    )
    with ExitStack() as entered:
        wrk = entered.enter_context(load_on(stack.edge, f"https://{SITE}/version", options, PAUSE))
        yield Visitors(wrk, [entered.enter_context(one) for one in (reader, writer)])


def containers(stack: Stack) -> list[str]:
    return sorted(stack.app.sh("docker ps --all --format '{{.Names}} {{.State}}'").splitlines())


def images(stack: Stack) -> list[str]:
    return stack.app.sh("docker images --quiet --no-trunc | sort -u").splitlines()


def settled(stack: Stack, release: str) -> None:
    """The release answers, and nothing else is left of any deployment."""
    assert stack.answers() == release
    found = containers(stack)
    slots = {name.rpartition("-")[2] for name in found}
    assert [name.rpartition("-")[0] for name in found] == ["shop-web-1", "shop-web-2", "shop-worker-1"], found
    assert slots in ({"a running"}, {"b running"}), found
    assert len(images(stack)) <= KEEP
    flags = stack.edge.sh("ls /etc/nginx/applications/shop.web.*").split()
    assert set(flags) <= {"a.servers", "b.servers", "b.on"}, flags
    assert stack.app.sh(f"ls {STATE} | grep -c .env").strip() == "4"


def told(played: Played) -> str:
    """A run's output in one line."""
    return " ".join(played.output.split())


def test_deployments_and_rollbacks_while_visitors_come(stacks: list[Stack], capsys: pytest.CaptureFixture[str]) -> None:
    counted = on_each(stacks, deploy_again_and_again)
    with capsys.disabled():
        print("\n" + "\n".join(counted))


def deploy_again_and_again(stack: Stack) -> str:
    before, took = "1.0.0", []
    with visitors(stack) as seen:
        for number in range(1, times(10) + 1):
            release = f"2.{number}.0"
            took.append(stack.play(DEPLOY, stack.settings(release)).ok().seconds)
            settled(stack, release)
            if number % 2:
                stack.play(ROLL_BACK, stack.settings(release)).ok()
                settled(stack, before)
                held = stack.play("plays/applications.yml", stack.settings(release)).ok()
                assert "name an image that was rolled back" in told(held)
                settled(stack, before)
            else:
                before = release
            if number <= 3:
                refused(stack, f"3.{number}.0", "never_ready", "was not ready within")
                refused(stack, f"4.{number}.0", "broken_page", f"https://{SITE}/ answers 500, not 200")
            if number == 2:
                refused(stack, "5.0.0", "broken_migration", "migrate ended with 1")
            settled(stack, before)
    assert seen.failures == [], seen
    last = stack.play("site.yml", stack.settings(before)).ok()
    assert last.changed == 0, last.output
    return f"{stack.edge.name}: deployed in {min(took):.1f} to {max(took):.1f} s: {seen}, 0 failed"


def refused(stack: Stack, release: str, behaviour: str, why: str) -> None:
    """A release that does not come into service, and changes nothing."""
    before = stack.answers(), containers(stack), images(stack)
    settings = stack.settings(release, behaviour)
    settings["app_applications"][0]["ready_timeout"] = 5
    played = stack.play(DEPLOY, settings)
    assert played.failed
    assert why in told(played), played.output
    assert (stack.answers(), containers(stack), images(stack)) == before


def test_a_deployment_that_is_killed_is_finished_by_the_next(
    stacks: list[Stack], capsys: pytest.CaptureFixture[str]
) -> None:
    counted = on_each(stacks, kill_and_deploy)
    with capsys.disabled():
        print("\n" + "\n".join(counted))


def kill_and_deploy(stack: Stack) -> str:
    stack.play(DEPLOY, stack.settings("6.0.0")).ok()
    started = "docker ps --format '{{.Names}}' | grep -c web"
    moments = {
        "while the release gets ready": lambda: int(stack.app.sh(started)) > 2,
        "after visitors were sent to it": lambda: stack.answers() not in ("6.0.0", "7.0.0"),
    }
    with visitors(stack) as seen:
        for number, (moment, reached) in enumerate(moments.items(), 1):
            release = f"7.{number}.0"
            controller = stack.start(DEPLOY, stack.settings(release))
            try:
                wait_for(reached, moment, 120)
            finally:
                controller.kill()
            # What the module on the host was about to do, it may still do.
            lock = "/var/lib/fushuma-production/release-shop.lock"
            stack.app.sh(f"flock {lock} true")
            stack.play(DEPLOY, stack.settings("7.0.0")).ok()
            settled(stack, "7.0.0")
    assert seen.failures == [], seen
    assert stack.play(DEPLOY, stack.settings("7.0.0")).ok().changed == 0
    return f"{stack.edge.name}: {seen}, killed {len(moments)} times, 0 failed"


def test_a_dry_run_says_what_would_be_done_and_does_nothing(stacks: list[Stack]) -> None:
    def dry(stack: Stack) -> None:
        stack.play(DEPLOY, stack.settings("8.0.0")).ok()
        before = containers(stack), images(stack), stack.app.sh(f"cat {STATE}/state.json")
        played = stack.play(DEPLOY, stack.settings("8.1.0"), check=True, diff=True).ok()
        for step in (
            "load the image",
            "migrate the database",
            "start web 1",
            "start worker 1",
            "send visitors to release",
        ):
            assert f"+would: {step}" in played.output
        assert not any(secret in played.output for secret in SECRETS.values())
        assert (containers(stack), images(stack), stack.app.sh(f"cat {STATE}/state.json")) == before

    on_each(stacks, dry)


def test_an_application_is_restarted_and_scaled_while_visitors_come(
    stacks: list[Stack], capsys: pytest.CaptureFixture[str]
) -> None:
    counted = on_each(stacks, restart_and_scale)
    with capsys.disabled():
        print("\n" + "\n".join(counted))


def restart_and_scale(stack: Stack) -> str:
    settings = stack.settings("8.5.0")
    stack.play(DEPLOY, settings).ok()
    before = ids(stack)
    with visitors(stack) as seen:
        restarted = stack.play("runbooks/restart_app.yml", settings, extra_vars={"application": "shop"}).ok()
        assert not set(before) & set(ids(stack))
        settled(stack, "8.5.0")
    assert seen.failures == [], seen
    # Addresses that are new to nginx need a reload, which closes idle connections.
    with visitors(stack, ["-H", "Connection: close"]) as seen:
        more = {"application": "shop", "process": "web", "replicas": 4}
        scaled = stack.play("runbooks/scale_app.yml", settings, extra_vars=more).ok()
        assert len(containers(stack)) == 5
    assert seen.failures == [], seen
    kept = ids(stack)
    assert stack.play(DEPLOY, settings).ok().changed == 0
    assert ids(stack) == kept, "what was asked for by hand stays"
    unknown = stack.play("runbooks/restart_app.yml", settings, extra_vars={"application": "shpo"})
    assert unknown.failed
    assert "There is no application shpo. Write one of shop." in told(unknown)
    stack.play("runbooks/scale_app.yml", settings, extra_vars={**more, "replicas": 2}).ok()
    settled(stack, "8.5.0")
    return (
        f"{stack.edge.name}: restarted in {restarted.seconds:.1f} s, scaled in {scaled.seconds:.1f} s: {seen}, 0 failed"
    )


def ids(stack: Stack) -> list[str]:
    return sorted(stack.app.sh("docker ps --quiet").split())


def test_an_image_comes_from_a_registry_by_its_digest(stacks: list[Stack]) -> None:
    on_each(stacks, pull)


def pull(stack: Stack) -> None:
    registry = serve_registry(stack.app)
    place = registry.push(application_image.build("8.6.0"))
    address = place.partition("/")[0]
    stack.app.write(f"/etc/docker/certs.d/{address}/ca.crt", registry.ca)
    settings = stack.settings("8.6.0")
    settings["docker_registries"] = [{"host": address, "user": registry.user, "password": registry.password}]
    settings["app_applications"][0]["image"] = {"reference": place}
    dry = stack.play("site.yml", settings, check=True, diff=True, options=["--tags", "docker,app"]).ok()
    assert f"pull the image {place}" in dry.output
    played = stack.play("site.yml", settings, diff=True, options=["--tags", "docker,app"]).ok()
    assert registry.password not in played.output
    settled(stack, "8.6.0")


def test_secrets_are_rotated_while_visitors_come(stacks: list[Stack], capsys: pytest.CaptureFixture[str]) -> None:
    counted = on_each(stacks, rotate)
    with capsys.disabled():
        print("\n" + "\n".join(counted))


def rotate(stack: Stack) -> str:
    stack.play("site.yml", stack.settings("9.0.0")).ok()
    new = {name: f"canary-{random.token_hex(12)}" for name in SECRETS}
    with visitors(stack) as seen:
        settings = stack.settings("9.0.0", secrets=new, former=SECRETS)
        settings["redis_former_admin_password"] = SECRETS["admin"]
        played = stack.play("runbooks/rotate_secret.yml", settings, diff=True).ok()
    assert seen.failures == [], seen
    values = [*new.values(), *SECRETS.values()]
    assert not [value for value in values if value in played.output]
    everywhere = stack.edge.sh("journalctl --no-pager; cat /var/log/*.log /var/log/*/*.log 2>/dev/null; ps -eo args")
    assert not [value for value in values if value in everywhere]
    for name, works in ((SECRETS, False), (new, True)):
        assert logs_in_to_redis(stack, name["app"]) == works
        assert logs_in_to_mariadb(stack, name["shop"]) == works
    assert stack.play("site.yml", stack.settings("9.0.0", secrets=new)).ok().changed == 0
    return f"{stack.edge.name}: rotated in {played.seconds:.1f} s: {seen}, 0 failed"


def logs_in_to_redis(stack: Stack, secret: str) -> bool:
    """The secret goes by the environment: an argument would stand in the list of processes."""
    script = "read -r REDISCLI_AUTH; export REDISCLI_AUTH; redis-cli --user shop get shop:none"
    return "WRONGPASS" not in stack.edge.sh(f"printf '%s\\n' '{secret}' | sh -c '{script}' 2>&1")


def logs_in_to_mariadb(stack: Stack, secret: str) -> bool:
    """From the network of a container, as the application does: the server lets nobody in from elsewhere."""
    stack.edge.write("/root/login.cnf", f"[client]\nuser=shop\npassword={secret}\nhost={GATEWAY}\nskip-ssl\n")
    names = stack.app.sh("docker ps --quiet --filter label=production.process=web").split()
    pid = stack.app.sh(f"docker inspect --format '{{{{.State.Pid}}}}' {names[0]}").strip()
    asked = ["mariadb", "--defaults-extra-file=/root/login.cnf", "shop", "-e", "select 1"]
    found = stack.edge.run(["nsenter", "--target", pid, "--net", *asked], check=False)
    stack.edge.sh("rm /root/login.cnf")
    assert found.code == 0 or "Access denied" in found.output, found.output
    return found.code == 0
