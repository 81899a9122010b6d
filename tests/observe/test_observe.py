# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From what happens on a host to whoever has to be told, end to end and measured, on a host with everything.

Each time is printed (`-rP` shows it); docs/alerting.md, logs.md and errors.md name the figures of one run.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import dashboards_support
import observe_support as support
import pytest
from hosts_support import RELEASES, on_each, prepare, wait_for
from observe_support import Watched, exposure_of, memory_of, seconds_until, secrets_of
from stack_support import SITE

# What watches, and nothing of what it watches.
UNITS = (
    "prometheus.service",
    "prometheus-alertmanager.service",
    "prometheus-node-exporter.service",
    "prometheus-nginx-exporter.service",
    "prometheus-redis-exporter.service",
    "prometheus-mysqld-exporter.service",
    "prometheus-blackbox-exporter.service",
    "syslog-ng.service",
    "bugsink.service",
    "bugsink-snappea.service",
)
PROMETHEUS = "http://127.0.0.1:9090"
NOT_COUNTED = {("app", "Memory of containers"): "the kernel of test hosts counts no memory of containers"}
LARGEST_EXPOSURE = 4.0
MEMORY = 700.0  # MB; docs/scaling.md says how much of it is whose


@pytest.fixture(scope="module")
def watched(boot: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> list[Watched]:
    prepare(RELEASES)
    folder = tmp_path_factory.mktemp("observe")
    support.store_of_logs()
    found = [Watched(boot(f"observe{one}", one), folder) for one in RELEASES]

    def brought(one: Watched) -> None:
        one.around()
        one.site().ok()
        # As on a host that has been there for a day.
        one.host.sh("systemctl start production-backup@run.service")

    on_each(found, brought)
    return found


@pytest.fixture(params=RELEASES)
def one(request: pytest.FixtureRequest, watched: list[Watched]) -> Watched:
    return watched[RELEASES.index(request.param)]


def timed(what: str, watched: list[Watched], work: Callable[[Watched], dict[str, float]]) -> None:
    """Do the work on all hosts at once, and say what was measured."""
    for one, found in zip(watched, on_each(watched, work), strict=True):
        print(f"{what}, {one.host.name}: " + ", ".join(f"{name} {took:.1f} s" for name, took in found.items()))


@pytest.mark.parametrize(
    ("alert", "unit"), [("RedisDown", "redis-server@cache.service"), ("NginxDown", "nginx.service")]
)
def test_a_stopped_service_reaches_people_by_webhook_and_mail(watched: list[Watched], alert: str, unit: str) -> None:
    def stopped(one: Watched) -> dict[str, float]:
        began = one.now()
        one.host.sh(f"systemctl stop {unit}")
        told = seconds_until(lambda: one.told_of(alert, "firing", began), f"{alert} is told")
        began = one.now()
        one.host.sh(f"systemctl start {unit}")
        return {
            "told after": told,
            "resolved after": seconds_until(lambda: one.told_of(alert, "resolved", began), f"{alert} is over"),
        }

    timed(f"{alert} at webhook and mail", watched, stopped)


def test_a_stale_backup_reaches_people(watched: list[Watched]) -> None:
    """The figures of a backup, of three days ago; the next backup brings its own again."""

    def aged(one: Watched) -> dict[str, float]:
        one.host.sh("systemctl start production-backup@run.service")
        wait_for(lambda: one.value("production_backup_last_success_timestamp_seconds"), "figures of the backup")
        began = one.now()
        place = "/var/lib/prometheus/node-exporter/production_backup.prom"
        one.host.sh(
            f"awk '/^production_backup_last_success/ {{ $NF = $NF - 3 * 86400 }} {{ print }}' {place} > {place}.new"
            f" && chmod --reference={place} {place}.new && mv {place}.new {place}"
        )
        told = seconds_until(lambda: one.told_of("BackupTooOld", "firing", began), "the stale backup is told")
        began = one.now()
        one.host.sh("systemctl start production-backup@run.service")
        over = seconds_until(lambda: one.told_of("BackupTooOld", "resolved", began), "it is over")
        return {"told after": told, "resolved after": over}

    timed("a stale backup", watched, aged)


def test_a_line_is_found_in_the_store(watched: list[Watched]) -> None:
    def logged(one: Watched) -> dict[str, float]:
        one.host.sh("logger --tag shop-test 'a line of the number 58213'")
        journal = seconds_until(lambda: one.lines('"58213" unit:!sudo -COMMAND -Started'), "the line of the journal")
        one.host.sh(f"curl -sk --resolve {SITE}:443:127.0.0.1 https://{SITE}/visited-61742 -o /dev/null")
        access = seconds_until(lambda: one.lines('"visited-61742" job:nginx'), "the request in nginx's log")
        return {"journal": journal, "nginx": access}

    timed("a line is found", watched, logged)


def test_an_exception_becomes_an_issue_and_an_alert(watched: list[Watched]) -> None:
    def failed(one: Watched) -> dict[str, float]:
        began = one.now()
        one.host.sh(f"curl -sk --resolve {SITE}:443:127.0.0.1 https://{SITE}/api/failure -o /dev/null")
        issue = seconds_until(lambda: "a failure that was asked for" in one.issues(), "the issue")
        alert = seconds_until(lambda: one.posted("/errors", began), "its alert")
        return {"issue": issue, "alert after that": alert}

    timed("an exception", watched, failed)


def test_what_an_application_says_is_found_by_its_container(one: Watched) -> None:
    one.host.sh(f"curl -sk --resolve {SITE}:443:127.0.0.1 https://{SITE}/api/failure -o /dev/null")
    wait_for(lambda: one.lines('"a failure that was asked for" job:shop'), "the application's own line")


def test_the_release_and_the_environment_are_those_of_the_deployment(one: Watched) -> None:
    for name, value in (("SENTRY_RELEASE", "shop@"), ("SENTRY_ENVIRONMENT", "production")):
        inside = one.host.sh("docker inspect --format '{{json .Config.Env}}' $(docker ps --quiet --filter name=shop)")
        assert any(name in line and value in line for line in inside.splitlines()), (name, inside)


def test_every_target_is_up(one: Watched) -> None:
    """But those of the slot that has no release."""
    wait_for(lambda: not one.value('up{job!="app"} == 0') and one.value('up{job!="app"}'), "all targets")
    jobs = {found["metric"]["job"] for found in one.prometheus("query", query="up")["result"]}
    assert jobs >= {"node", "nginx", "redis", "mariadb", "blackbox", "prometheus", "alertmanager", "app"}
    wait_for(lambda: one.value('max by (app) (up{job="app"}) == 1'), "the application's figures")


def test_no_rule_fails_and_nothing_fires_but_the_heartbeat(one: Watched) -> None:
    groups = one.prometheus("rules")["groups"]
    broken = [rule["name"] for group in groups for rule in group["rules"] if rule.get("lastError")]
    assert broken == []
    wait_for(lambda: "Watchdog" in one.firing(), "the heartbeat")
    wait_for(lambda: not (one.firing() - {"Watchdog"} - EXPECTED), f"nothing else fires: {one.firing()}")


# What is true of a test host: it cannot set its clock, its machine's disk may be anything, and Debian has updates.
EXPECTED = {"ClockNotSynchronised", "UpdatesPending", "SecurityUpdatesPending", "RestoreDrillTooOld"}


def test_the_proofs_of_logs_and_errors_come_back(one: Watched) -> None:
    one.host.sh("systemctl start production-logs.service sentry-proof.service")
    for name in ("production_logs_canary_timestamp_seconds", "production_errors_canary_timestamp_seconds"):
        wait_for(lambda name=name: one.value(f"time() - {name} < 300"), name)  # type: ignore[misc]


def test_every_expression_of_every_dashboard_is_answered(one: Watched) -> None:
    asked = dashboards_support.expressions()
    assert len(asked) > 80

    def wrong() -> list[str]:
        answers = iter(one.answers([f"{PROMETHEUS}/api/v1/query?{urlencode({'query': it[2]})}" for it in asked]))
        excused = {**dashboards_support.reasons(), **NOT_COUNTED}
        return dashboards_support.empty_or_wrong(PROMETHEUS, asked, lambda _url: next(answers), may_be_empty=excused)

    one.host.sh(f"curl -sk --resolve {SITE}:443:127.0.0.1 https://{SITE}/api/items -o /dev/null")
    wait_for(lambda: not wrong(), f"answered: {wrong()}", 90)


def test_only_declared_ports_answer_another_host(one: Watched) -> None:
    listening = one.host.sh("ss --listening --tcp --numeric --no-header")
    ports = sorted({int(line.split()[3].rpartition(":")[2]) for line in listening.splitlines()})
    assert len(ports) > 15
    answering = [port for port in ports if reachable(one.host.record.address, port)]
    assert answering == [22, 80, 443]


def reachable(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=1):
            return True
    except OSError:
        return False


def test_no_unit_may_do_more_than_it_has_to(one: Watched) -> None:
    found = exposure_of(one.host, UNITS)
    assert set(found) == set(UNITS)
    print(f"worst exposure, {one.host.name}: {max(found.values())}")
    assert {unit: value for unit, value in found.items() if value > LARGEST_EXPOSURE} == {}


def test_memory_of_all_that_watches(one: Watched) -> None:
    found = memory_of(one.host, UNITS)
    print(
        f"memory, {one.host.name}: {sum(found.values()):.0f} MB: {json.dumps({k: round(v) for k, v in found.items()})}"
    )
    assert all(found.values()), found
    assert sum(found.values()) < MEMORY


# What everybody on the host may read, what everybody sees of processes, and what the journal has.
SEARCH = """
setpriv --reuid=65534 --regid=65534 --clear-groups grep -rlIF -f - / \\
    --exclude-dir=proc --exclude-dir=sys --exclude-dir=dev 2>/dev/null < /root/secrets
grep -lF -f /root/secrets /proc/[0-9]*/cmdline 2>/dev/null
journalctl --no-pager --output=cat | grep -F -f /root/secrets
true
"""


def test_no_secret_is_in_a_process_list_a_log_or_a_file_that_others_read(one: Watched) -> None:
    wanted = secrets_of(one.settings)
    assert len(wanted) > 10
    one.host.write("/root/secrets", "\n".join(wanted))
    one.host.sh("chmod 0600 /root/secrets")
    # The search finds what there is to find.
    one.host.write("/srv/open", min(wanted))
    assert one.host.sh(SEARCH).split() == ["/srv/open"]
    one.host.sh("rm /srv/open")


def test_a_second_run_changes_nothing_and_says_no_secret(watched: list[Watched]) -> None:
    def again(one: Watched) -> None:
        for options in ({}, {"check": True, "diff": True}):
            played = one.observe(**options).ok()
            assert played.changed == 0, played.output
            assert "canary" not in played.output

    on_each(watched, again)


def test_a_change_shows_no_secret(watched: list[Watched]) -> None:
    (one, *_others) = watched
    other = {**one.settings, **{name: changed(value) for name, value in one.settings.items() if name in ROTATED}}
    played = support.play(support.OBSERVING, one.stack.inventory(other), check=True, diff=True)
    assert played.ok().changed > 0
    assert re.findall("canary.*", played.output) == []


ROTATED = ("alertmanager_heartbeat", "alertmanager_receivers", "sentry_admin", "sentry_projects")


def changed(value: Any) -> Any:
    """The same with other secrets."""
    return json.loads(json.dumps(value).replace("canary-", "canary-new-"))


def test_the_heartbeat_ends_with_prometheus(watched: list[Watched]) -> None:
    """Somebody outside has to notice, for here nobody is left who could."""

    def stopped(one: Watched) -> dict[str, float]:
        wait_for(lambda: one.posted("/ping"), "the first heartbeat")
        began = one.now()
        one.host.sh("systemctl stop prometheus.service")
        try:
            return {"the last one came after": last_ping(one) - began}
        finally:
            one.host.sh("systemctl start prometheus.service")

    timed("the heartbeat", watched, stopped)


def last_ping(one: Watched, quiet: float = 12) -> float:
    """When the last heartbeat came, once none has come for a while."""
    wait_for(lambda: one.now() - one.posted("/ping")[-1]["at"] > quiet, "the heartbeat ends", 600)
    return float(one.posted("/ping")[-1]["at"])
