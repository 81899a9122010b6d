"""Lines that come, are found, outlive a crash, raise alerts and go; and what Loki does not take is put back."""

from __future__ import annotations

import json
import re
import shlex
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml
from plays import Played, all_hosts, play
from testinfra.host import Host

SETTINGS = yaml.safe_load((Path(__file__).parents[1] / "vars.yml").read_text("utf-8"))
BASE = "http://127.0.0.1:3100"
PUSH = """
import json, sys, time, urllib.request
job, mark, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
lines = [[str(time.time_ns() + n), f"{mark} {n}"] for n in range(count)]
body = json.dumps({"streams": [{"stream": {"job": job}, "values": lines}]}).encode()
request = urllib.request.Request("http://127.0.0.1:3100/loki/api/v1/push", body, {"Content-Type": "application/json"})
print(urllib.request.urlopen(request, timeout=10).status)
"""
ASK = """
import json, sys, time, urllib.parse, urllib.request
query = urllib.parse.urlencode({"query": sys.argv[1], "time": time.time_ns()})
with urllib.request.urlopen(f"http://127.0.0.1:3100/loki/api/v1/query?{query}", timeout=10) as answer:
    print(answer.read().decode())
"""
FLUSH = """
import urllib.request
urllib.request.urlopen(urllib.request.Request("http://127.0.0.1:3100/flush", method="POST"), timeout=30)
"""
READ = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"


def python(host: Host, code: str, *arguments: str) -> str:
    return str(host.check_output(" ".join(["python3", "-c", shlex.quote(code), *map(shlex.quote, arguments)])))


def applied(*arguments: str, **settings: Any) -> Played:
    role = {"ansible.builtin.include_role": {"name": "fushuma.production.loki"}, "vars": SETTINGS | settings}
    return play(role, arguments=("--diff", *arguments))


def counted(host: Host, mark: str) -> int:
    query = f'sum(count_over_time({{job=~".+"}} |= "{mark}" [1h]))'
    found = json.loads(python(host, ASK, query))["data"]["result"]
    return int(found[0]["value"][1]) if found else 0


def until(host: Host, command: str, seconds: int = 60) -> None:
    host.check_output(f"timeout {seconds} sh -c {shlex.quote(f'until {command}; do sleep 0.2; done')}")


def ready(host: Host) -> None:
    until(host, f"python3 -c {shlex.quote(READ)} {BASE}/ready 2>/dev/null | grep -q ready")


def process(host: Host) -> str:
    return str(host.check_output("systemctl show --value --property=MainPID loki.service"))


def test_lines_are_found_again_after_a_crash(host: Host) -> None:
    mark = f"order-{uuid.uuid4().hex}"
    assert python(host, PUSH, "shop", mark, "3000") == "204"
    assert counted(host, mark) == 3000
    host.check_output("systemctl kill --signal=SIGKILL loki.service")
    until(host, "systemctl is-active --quiet loki.service")
    ready(host)
    assert counted(host, mark) == 3000


def test_lines_are_on_object_storage_once_they_are_written_out(host: Host) -> None:
    mark = f"order-{uuid.uuid4().hex}"
    python(host, PUSH, "shop", mark, "500")
    python(host, FLUSH)
    until(host, "find /srv/s3/logs/fake -type f | grep -q .")
    assert not host.run("find /var/lib/loki/chunks -type f -path '*fake*' | grep .").stdout
    assert counted(host, mark) == 500


def test_what_is_too_old_is_removed_and_not_taken(host: Host) -> None:
    config = yaml.safe_load(python(host, READ, f"{BASE}/config"))
    compactor, limits = config["compactor"], config["limits_config"]
    assert (compactor["retention_enabled"], compactor["delete_request_store"]) == (True, "s3")
    assert limits["retention_period"] in ("31d", "744h", "4w3d")
    metrics = python(host, READ, f"{BASE}/metrics")
    assert re.search(r"^loki_boltdb_shipper_compactor_running 1$", metrics, re.MULTILINE)
    old = PUSH.replace("time.time_ns() + n", f"{time.time_ns() - 30 * 86400 * 10**9} + n")
    done = host.run(f"python3 -c {shlex.quote(old)} shop old 1")
    assert "400" in done.stderr


def test_a_rule_reaches_the_alertmanager(host: Host) -> None:
    python(host, PUSH, "app", "error: no more lambs", "3")
    until(host, "grep -q AppErrors /srv/alerts.log", seconds=90)
    told = host.file("/srv/alerts.log").content_string
    assert told.startswith("/api/v2/alerts ")
    assert re.search(r"app logs \d+ errors", told)


def test_it_has_no_rights_and_is_private(host: Host) -> None:
    found = host.check_output("systemd-analyze security --no-pager loki.service | tail -n 1")
    assert float(re.search(r": ([0-9.]+) ", found)[1]) <= 4.0, found
    assert host.check_output("stat -c %%U /proc/%s", process(host)) == "loki"
    listening = host.check_output("ss -Hltnp")
    own = [line.split()[3] for line in listening.splitlines() if f"pid={process(host)}," in line]
    assert sorted(own) == ["127.0.0.1:3100", "127.0.0.1:9095"]


def test_it_stays_within_its_memory(host: Host) -> None:
    shown = host.check_output("grep VmRSS /proc/%s/status", process(host))
    assert int(shown.split()[1]) < 512 * 1024, shown


def test_secrets_are_in_one_file(host: Host) -> None:
    found = host.run("grep -rl c[a]nary-s3 /etc /var/lib/loki /opt/loki --include=*").stdout.split()
    assert found == ["/etc/loki/environment"]
    assert "canary" not in python(host, READ, f"{BASE}/config")


def failures(played: Played) -> dict[str, str]:
    last = {name: results[-1] for name, results in played.results.items()}
    assert all(one["failed"] for one in last.values()), played.output
    return {name: str(one["msg"]) for name, one in last.items()}


@pytest.mark.parametrize(
    ("settings", "why", "restarts"),
    [
        # Unknown to this Loki, as its own check says: the running one is not touched.
        ({"loki_schema": [SETTINGS["loki_schema"][0]]}, "is in force and would be gone", False),
        (
            {"loki_rules": [{"name": "app", "rules": [{"alert": "A", "expr": '{job="a"} | nonsense [5m] > 1'}]}]},
            "Loki refuses its rules: ",
            False,
        ),
        # What its own check does not see: nothing answers there.
        (
            {"loki_s3": {**SETTINGS["loki_s3"], "ca_file": "/nowhere.pem"}, "loki_ready_within": 20},
            "The former configuration is back and in force.",
            True,
        ),
    ],
)
def test_what_does_not_work_is_put_back(settings: dict[str, Any], why: str, restarts: bool) -> None:
    before = {name: process(host) for name, host in all_hosts().items()}
    for name, said in failures(applied(**settings)).items():
        host = all_hosts()[name]
        assert why in said
        assert (process(host) != before[name]) == restarts
        ready(host)
        assert "nowhere" not in host.file("/etc/loki/config.yml").content_string


def test_rules_change_without_a_restart() -> None:
    before = {name: process(host) for name, host in all_hosts().items()}
    rules = [{"name": "other", "rules": [{"alert": "B", "expr": 'sum(rate({job="b"}[5m])) > 9'}]}]
    assert applied(loki_rules=rules).code == 0
    for name, host in all_hosts().items():
        assert "other" in python(host, READ, f"{BASE}/loki/api/v1/rules")
        assert process(host) == before[name]
    assert applied().code == 0


def test_it_runs_when_all_is_over(host: Host) -> None:
    assert host.check_output("systemctl is-active loki.service") == "active"
