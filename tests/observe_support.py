# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A host with the whole application that is also watched: figures, alerts, logs and errors, and an inbox for all that
people would be told."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import stack_support
import victorialogs_support
from hosts_support import ROOT, Host, Played, booted, play, removed, wait_for
from stack_support import GATEWAY, Stack

GROUPS = (*stack_support.GROUPS, "ops")
OBSERVING = ROOT / "playbooks" / "plays" / "observing.yml"
AROUND = ROOT / "tests" / "observe" / "around.yml"
INBOX_PORT, MAIL_PORT = 8099, 2525  # molecule/shared/files/inbox.py
ERRORS, ERRORS_KEY, ERRORS_PORT = "errors.test", "5c8e2f71d9a4b306" * 2, 8010
# Nobody resolves the name of a test for a container, which goes the short way.
DSN = f"http://{ERRORS_KEY}@{GATEWAY}:{ERRORS_PORT}/2"
# Every secret in a test has this word in it, by which it is looked for everywhere.
SECRETS = {
    name: f"canary-{name}-5c8e2f71d9"
    for name in ("figures", "hook", "ping", "slack", "mail", "errors", "boss", "measure", "store")
}
# Alerts that tests bring about, and how soon these come: with the rule itself, not a minute later.
AT_ONCE = ("RedisDown", "NginxDown", "SiteDown", "BackupTooOld")


def settings(stack: Stack) -> dict[str, Any]:
    """What the inventory says of it all. Everything works every second."""
    told = stack.settings("1.0.0")
    (cache,) = told["redis_instances"]
    (shop,) = told["app_applications"]
    web, *others = shop["processes"]
    here = f"http://127.0.0.1:{INBOX_PORT}"
    mail = {"smarthost": f"127.0.0.1:{MAIL_PORT}", "from": "alerts@shop.test", "tls": False}
    return {
        **told,
        "exporters_enabled": True,
        "redis_instances": [
            {
                **cache,
                "users": [*cache["users"], {"name": "figures", "password": SECRETS["figures"], "role": "exporter"}],
            }
        ],
        "mariadb_users": [
            *told["mariadb_users"],
            {"name": "figures", "password": SECRETS["measure"], "role": "exporter"},
        ],
        "app_applications": [
            {
                **shop,
                "processes": [{**web, "metrics": "/metrics"}, *others],
                "env": [*shop["env"], {"name": "SENTRY_DSN", "required": False}],
                "values": {**shop["values"], "SENTRY_DSN": DSN},
            }
        ],
        "nginx_probe_address": "127.0.0.1:443",
        "backup_repositories": [
            {"name": "here", "kind": "local", "path": "/srv/backups", "password": SECRETS["store"]},
        ],
        "prometheus_intervals": {"scrape": "1s", "timeout": "1s", "evaluation": "1s"},
        "prometheus_rules": {name: {"for": "1s"} for name in AT_ONCE},
        # An alert that nobody repeats ends after four times this delay.
        "prometheus_flags": {"rules.alert.resend-delay": "2s"},
        "prometheus_retention": {"size": "1gb", "time": "10d"},
        "alertmanager_receivers": [
            {
                "name": "people",
                "mail": ["ops@shop.test"],
                "webhooks": [{"url": f"{here}/hook/{SECRETS['hook']}"}],
            },
        ],
        "alertmanager_mail": mail,
        "alertmanager_route": {"group_wait": "1s", "group_interval": "1s", "repeat_interval": "1h"},
        "alertmanager_heartbeat": {"url": f"{here}/ping/{SECRETS['ping']}", "interval": "5s"},
        "log_stores": [{"url": f"http://127.0.0.1:{victorialogs_support.PORT}", "kind": "victorialogs"}],
        "sentry_mode": "bugsink",
        "sentry_url": f"https://{ERRORS}",
        "sentry_addresses": ["127.0.0.1", GATEWAY],
        "sentry_from": [stack_support.SUBNET],
        "sentry_secret_key": SECRETS["errors"] * 2,
        "sentry_admin": {"email": "ops@shop.test", "password": SECRETS["boss"]},
        "sentry_private_webhooks": True,
        "sentry_projects": [
            {
                "name": "shop",
                "number": 2,
                "application": "shop",
                "key": ERRORS_KEY,
                "alerts": [{"kind": "webhook", "url": f"{here}/errors/{SECRETS['slack']}"}],
            }
        ],
    }


ASK_ALL = """
import json, sys, urllib.error, urllib.request
def asked(url):
    try:
        return json.load(urllib.request.urlopen(url, timeout=30))
    except urllib.error.HTTPError as error:
        return json.load(error)
print(json.dumps([asked(url) for url in sys.argv[1:]]))
"""


@dataclass
class Watched:
    """A host with all of it."""

    host: Host
    folder: Path
    changes: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def stack(self) -> Stack:
        return Stack(self.folder, {group: [self.host] for group in GROUPS})

    @property
    def settings(self) -> dict[str, Any]:
        return {**settings(self.stack), **self.changes}

    def site(self, **options: Any) -> Played:
        return self.stack.play("site.yml", self.settings, **options)

    def observe(self, **options: Any) -> Played:
        """The plays that watch, and no others."""
        return play(OBSERVING, self.stack.inventory(self.settings), **options)

    def around(self) -> None:
        """Bring an inbox and a store of logs."""
        play(AROUND, self.stack.inventory({})).ok()
        self.host.install("curl")
        victorialogs_support.bring(self.host, store_of_logs())

    # --- asking

    def asks(self, url: str, *arguments: str) -> str:
        """What an address answers to the host itself."""
        return self.host.run(["curl", "-sS", "--fail-with-body", "--max-time", "10", *arguments, url]).output

    def prometheus(self, path: str, **parameters: str) -> Any:
        """``data`` of an answer of Prometheus's API."""
        answer = json.loads(self.asks(f"http://127.0.0.1:9090/api/v1/{path}?{urlencode(parameters)}"))
        assert answer["status"] == "success", answer
        return answer["data"]

    def answers(self, urls: Sequence[str]) -> list[Any]:
        """The JSON that each address answers to the host itself, asked in one go."""
        told: list[Any] = json.loads(self.host.python(ASK_ALL, *urls))
        return told

    def value(self, expression: str) -> list[float]:
        return [float(one["value"][1]) for one in self.prometheus("query", query=expression)["result"]]

    def firing(self) -> set[str]:
        alerts = self.prometheus("alerts")["alerts"]
        return {one["labels"]["alertname"] for one in alerts if one["state"] == "firing"}

    def lines(self, query: str) -> list[dict[str, Any]]:
        """The lines of the store of logs that a query finds."""
        return victorialogs_support.found(self.host, f"_time:1h {query}")

    def issues(self) -> str:
        """The issues of the application, as the error tracker tells them."""
        token = json.loads(self.host.read("/etc/sentry-proof/key.json"))["token"]
        self.host.write("/root/ask", f'header = "Authorization: Bearer {token}"\nheader = "Host: {ERRORS}"\n')
        address = f"http://127.0.0.1:{ERRORS_PORT}/api/canonical/0/issues/?project=2"
        return self.asks(address, "--config", "/root/ask", "--header", "X-Forwarded-Proto: https")

    # --- what people are told

    def posted(self, path: str, since: float = 0) -> list[dict[str, Any]]:
        """What was posted to addresses that begin so, the oldest first: ``{at, path, body}``."""
        return [one for one in self._told() if one["at"] >= since and one.get("path", "").startswith(path)]

    def mailed(self, since: float = 0) -> list[str]:
        return [one["message"] for one in self._told() if one["at"] >= since and "message" in one]

    def _told(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.host.sh("cat /srv/inbox/told 2>/dev/null || true").splitlines()]

    def told_of(self, name: str, status: str, since: float) -> bool:
        """Whether an alert was told by webhook and by mail after a moment."""
        hooked = any(
            alert["labels"]["alertname"] == name and alert["status"] == status
            for one in self.posted("/hook", since)
            for alert in one["body"]["alerts"]
        )
        subjects = [line for one in self.mailed(since) for line in one.splitlines() if line.startswith("Subject: ")]
        return hooked and any(name in one and ("RESOLVED" in one) == (status == "resolved") for one in subjects)

    def now(self) -> float:
        """The host's own time."""
        return float(self.host.sh("date +%s.%N"))


def store_of_logs() -> Path:
    """The program of a store of logs; built where it never was, on a host of Debian 13 that goes again."""
    if victorialogs_support.BUILT.exists():
        return victorialogs_support.BUILT
    builder = booted("observestore13", "13")
    try:
        return victorialogs_support.ensure(builder)
    finally:
        removed(builder.name)


def seconds_until(condition: Callable[[], object], what: str, seconds: float = 60) -> float:
    """How long it took until a condition held; fails where it never does."""
    began = time.monotonic()
    wait_for(condition, what, seconds)
    return time.monotonic() - began


def memory_of(host: Host, units: Sequence[str]) -> dict[str, float]:
    """The memory in MB of each unit's processes, what several share being divided among them (PSS)."""
    script = """
for unit in "$@"; do
    total=0
    for pid in $(cat "/sys/fs/cgroup$(systemctl show --value --property ControlGroup "$unit")/cgroup.procs"); do
        one=$(awk '$1 == "Pss:" { print $2 }' "/proc/$pid/smaps_rollup" 2>/dev/null || true)
        total=$((total + ${one:-0}))
    done
    echo "$unit $total"
done
"""
    lines = host.run(["sh", "-c", script, "sh", *units]).output.splitlines()
    return {unit: int(kilobytes) / 1024 for unit, kilobytes in (line.split() for line in lines)}


def exposure_of(host: Host, units: Sequence[str]) -> dict[str, float]:
    """How much of the system each unit may reach, as systemd counts it: 0 for nothing, 10 for everything."""
    rows = [line.split() for line in host.sh("systemd-analyze security --no-pager").splitlines()]
    return {words[0]: float(words[1]) for words in rows if words and words[0] in units}


def secrets_of(told: Mapping[str, Any]) -> set[str]:
    """Every text in the settings that is a secret of a test."""
    if isinstance(told, Mapping):
        return {one for value in told.values() for one in secrets_of(value)}
    if isinstance(told, (list, tuple)):
        return {one for value in told for one in secrets_of(value)}
    return {told} if isinstance(told, str) and "canary" in told else set()
