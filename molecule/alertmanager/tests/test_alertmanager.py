"""Alerts reach those whom the routes name, in words for people; what would keep them away is never activated."""

from __future__ import annotations

import email
import email.policy
import json
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from plays import Played, all_hosts, inventory, play, run_playbook
from testinfra.host import Host

SCENARIO = Path(__file__).parents[1]
SETTINGS = yaml.safe_load((SCENARIO / "vars.yml").read_text("utf-8"))
RUNBOOKS = SCENARIO.parents[1] / "playbooks" / "runbooks"
PATIENCE = 30.0  # seconds
UNIT = "prometheus-alertmanager.service"
# Little, as most have it.
PLAIN = {
    "alertmanager_receivers": [{"name": "operators", "webhooks": [{"url": "http://127.0.0.1:8099/plain/canary-0f3c"}]}],
    "alertmanager_heartbeat": SETTINGS["alertmanager_heartbeat"],
}


HOSTS = all_hosts()


def applied(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """What the first of the role's tasks that failed returned on each host, or else the last one."""
    task = {"ansible.builtin.include_role": {"name": "fushuma.production.alertmanager"}, "vars": settings}
    played = play(task)
    assert set(played.results) == set(HOSTS), played.output
    return [
        next((dict(one) for one in results if one["failed"]), dict(results[-1])) for results in played.results.values()
    ]


def brought(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The same, where nothing failed."""
    results = applied(settings)
    assert not [one["msg"] for one in results if one["failed"]]
    return results


def fires(host: Host, name: str, summary: str = "", /, **labels: str) -> None:
    words = " ".join(f"'{key}={value}'" for key, value in labels.items())
    notes = {"summary": summary or f"{name} it is", "runbook_url": f"https://docs.test/{name}.md"}
    told = " ".join(f"--annotation='{key}={value}'" for key, value in notes.items())
    host.check_output(f"amtool alert add alertname={name} {words} {told} --annotation=description='At 91 %.'")


def told(host: Host, **wanted: Any) -> list[dict[str, Any]]:
    """What the inbox was told, those of it in which all of this holds."""
    lines = host.run("cat /srv/inbox/told").stdout.splitlines()
    found = [json.loads(line) for line in lines]
    return [one for one in found if all(one.get(key) == value for key, value in wanted.items())]


def waited(ask: Callable[[], list[Any]], seconds: float = PATIENCE) -> list[Any]:
    deadline = time.monotonic() + seconds
    while not (found := ask()) and time.monotonic() < deadline:
        time.sleep(0.3)
    assert found, f"not within {seconds} seconds"
    return found


def alerts(host: Host, name: str) -> list[dict[str, Any]]:
    query = "amtool alert query --output=json --active --inhibited --silenced"
    found: list[dict[str, Any]] = json.loads(host.check_output(f"{query} alertname={name}"))
    return found


def main_pid(host: Host) -> str:
    return str(host.check_output(f"systemctl show --value --property MainPID {UNIT}"))


def test_everything_listens_where_it_was_said(host: Host) -> None:
    listening = {line.split()[4] for line in host.check_output("ss -Hltun").splitlines()}
    assert {"*:9193", "127.0.0.1:9195"} <= listening
    ask = "curl --silent --show-error --output /dev/null --write-out '%{http_code}' --cacert /srv/tls/chain.pem"
    at = "--resolve alerts.test:9193:127.0.0.1 https://alerts.test:9193/api/v2/status"
    assert host.check_output(f"{ask} {at}") == "401"
    assert host.check_output(f"{ask} --user prometheus:wrong {at}") == "401"
    assert host.run("amtool config show").rc == 0, "it has the password out of its file"
    assert host.run(f"{ask} http://127.0.0.1:9193/").stdout != "200"


def test_it_is_shut_in(host: Host) -> None:
    (said,) = [
        line for line in host.run(f"systemd-analyze security {UNIT}").stdout.splitlines() if "Overall exposure" in line
    ]
    assert float(said.split(":")[1].split()[0]) <= 3.0


def test_a_critical_alert_reaches_the_chat_and_a_program(host: Host) -> None:
    fires(host, "DiskFull", "The disk of web1 is full", severity="critical", host="web1", mountpoint="/")
    title = "[CRITICAL] DiskFull on web1"

    def chats() -> list[Any]:
        bodies = [one["body"] for one in told(host, path="/slack/canary-slack-5d70ce2b91")]
        return [one for one in bodies if one["attachments"][0]["title"] == title]

    chat = waited(chats)[0]
    assert (chat["channel"], chat["username"]) == ("#alerts", "hosts")
    (attachment,) = chat["attachments"]
    assert attachment["fallback"] == title
    assert attachment["title_link"] == "https://docs.test/DiskFull.md"
    assert attachment["color"] == "danger"
    lines = attachment["text"].splitlines()
    assert lines[:3] == ["The disk of web1 is full", "At 91 %.", "Host: web1"]
    assert lines[3].startswith("Since: 20")
    assert lines[3].endswith(" UTC")
    assert lines[4] == "Runbook: https://docs.test/DiskFull.md"
    assert lines[-1] == "Alertmanager: https://alerts.test/all"
    hooks = waited(lambda: told(host, path="/webhook/canary-hook-7704ae1c3d"))
    assert {one["authorization"] for one in hooks} == {"Bearer canary-token-e2b97d5f60"}
    assert "DiskFull" in {one["body"]["alerts"][0]["labels"]["alertname"] for one in hooks}


def test_what_no_route_takes_comes_by_mail_and_once_more_when_it_is_over(host: Host) -> None:
    fires(host, "Odd", "Something is odd", host="web1", severity="odd")

    def mails(word: str) -> list[Any]:
        parsed = [
            email.message_from_string(one["message"], policy=email.policy.default)
            for one in told(host, hello="ops.test")
        ]
        return [one for one in parsed if word in one["Subject"]]

    mail = waited(lambda: mails("[ODD] Odd on web1"))[0]
    assert (mail["To"], mail["From"]) == ("operators@alerts.test", "alerts@alerts.test")
    text = mail.get_body(("plain",)).get_content().replace("\r\n", "\n")
    assert text.startswith("Something is odd\nAt 91 %.\nHost: web1\nSince: ")
    assert mail.get_body(("html",)) is None
    assert told(host, hello="ops.test")[0]["login"] == ["alerts", "canary-mail-83d1e0a6f7"]
    now = host.check_output("date --utc +%Y-%m-%dT%H:%M:%S+00:00")
    host.check_output(f"amtool alert add alertname=Odd host=web1 severity=odd --end={now} --annotation=summary=odd")
    over = waited(lambda: mails("[RESOLVED] Odd on web1"))[0]
    assert "RESOLVED: odd" in over.get_body(("plain",)).get_content()


def test_raw_settings_have_their_secret_from_a_file(host: Host) -> None:
    fires(host, "Paged", severity="critical", team="pager", host="web9")
    page = waited(lambda: told(host, path="/pager"))[0]
    assert page["body"]["routing_key"] == SETTINGS["alertmanager_secrets"]["pager"]


def test_a_worse_alert_stands_for_others(host: Host) -> None:
    fires(host, "DiskFills", severity="critical", host="web2", subject="disk", mountpoint="/")
    fires(host, "DatabaseDown", severity="critical", application="shop")
    fires(host, "HostDown", severity="critical", host="web3")
    waited(lambda: [one for one in told(host) if "HostDown" in json.dumps(one)])
    fires(host, "DiskFills", severity="warning", host="web2", subject="disk", mountpoint="/")
    fires(host, "DiskSlow", severity="warning", host="web2", subject="disk", mountpoint="/")
    fires(host, "DiskSlow", "/srv is slow", severity="warning", host="web2", subject="disk", mountpoint="/srv")
    fires(host, "NoAnswer", severity="critical", host="web3")
    fires(host, "ApplicationErrors", severity="warning", application="shop")

    def silent(name: str) -> dict[str, bool]:
        return {
            one["labels"]["severity"] + one["labels"].get("mountpoint", ""): bool(one["status"]["inhibitedBy"])
            for one in alerts(host, name)
        }

    waited(lambda: [1] if silent("ApplicationErrors") == {"warning": True} else [])
    assert silent("DiskFills") == {"critical/": False, "warning/": True}
    assert silent("DiskSlow") == {"warning/": True, "warning/srv": False}
    assert silent("HostDown") == {"critical": False}
    assert silent("NoAnswer") == {"critical": True}
    assert silent("DatabaseDown") == {"critical": False}
    waited(lambda: [one for one in told(host) if "/srv is slow" in json.dumps(one)])
    assert "NoAnswer" not in json.dumps(told(host))


def test_the_heartbeat_goes_out_again_and_again_and_to_nobody_else(host: Host) -> None:
    fires(host, "Watchdog", severity="none", host="web3")
    path = "/heartbeat/canary-beat-40c7b8f1de"
    waited(lambda: told(host, path=path)[2:])
    beats = [one["at"] for one in told(host, path=path)]
    assert all(4 < later - earlier < 9 for earlier, later in zip(beats[-3:], beats[-2:], strict=False))
    assert {one.get("path") for one in told(host) if "Watchdog" in json.dumps(one)} == {path}


# --- secrets ----------------------------------------------------------------------------------------------------------


def test_secrets_are_not_lying_about(host: Host) -> None:
    places = "/etc /usr/local /var/lib/prometheus /run/systemd /var/log"
    readable = f"find {places} -xdev -type f -perm -o+r -not -path '*/journal/*' -exec grep -l canary {{}} +"
    assert host.run(readable).stdout == ""
    assert "canary" not in host.check_output("ps -eo args")
    config = host.file("/etc/prometheus/alertmanager.yml")
    assert (config.mode, config.user, config.group) == (0o640, "root", "prometheus")
    found = host.check_output("grep -o 'canary-[a-z]*' /etc/prometheus/alertmanager.yml").split()
    assert found == ["canary-hook", "canary-beat"], "what both releases take from a file is in one"
    for folder in ("", "/secrets"):
        assert host.file(f"/etc/prometheus/alertmanager{folder}").mode == 0o750
    assert host.run("su -s /bin/sh nobody -c 'cat /etc/prometheus/alertmanager/mail'").rc != 0


def test_secrets_are_not_in_its_log(host: Host) -> None:
    """Debian 12's names the address of a webhook that does not answer; here all of them do."""
    said = host.check_output(f"journalctl --unit={UNIT} --output=cat --no-pager")
    assert "Loading configuration file" in said
    assert "canary" not in said


# --- changes: on all hosts at once -----------------------------------------------------------------------------------


def state() -> list[tuple[str, str]]:
    files = "find /etc/prometheus /etc/default -type f -exec sha256sum {} + | sort"
    return [(main_pid(host), host.check_output(files)) for host in HOSTS.values()]


@pytest.fixture
def _as_it_was() -> Iterator[None]:
    """Nothing of the running Alertmanager and its files is another one afterwards."""
    before = state()
    yield
    assert state() == before


def refused(settings: dict[str, Any], *words: str) -> None:
    for one in applied(settings):
        assert one["failed"]
        assert [word for word in words if word not in one["msg"]] == [], one["msg"]


@pytest.mark.usefixtures("_as_it_was")
def test_routes_that_lead_elsewhere_are_refused_before_anything_is_written() -> None:
    wrong = deepcopy(SETTINGS)
    wrong["alertmanager_routes"][1]["receiver"] = "pager"
    refused(wrong, "nothing was touched", "an alert with severity=critical, alertname=Any goes to chat, pager")


@pytest.mark.usefixtures("_as_it_was")
def test_what_amtool_refuses_is_never_activated() -> None:
    wrong = deepcopy(SETTINGS)
    wrong["alertmanager_receivers"][3]["settings"] = {"pagerduty_configs": [{"no_such": 1, "url": "http://127.0.0.1"}]}
    refused(wrong, "check-config", "The former configuration is back")


@pytest.mark.usefixtures("_as_it_was")
def test_alertmanager_itself_has_the_last_word_on_routes() -> None:
    """Python takes this digit for one, Alertmanager does not."""
    wrong = deepcopy(SETTINGS)
    wrong["alertmanager_routes"].insert(0, {"receiver": "chat", "matchers": [r'host=~"\\d"']})
    wrong["alertmanager_route_tests"].append({"labels": {"host": "٣"}, "receivers": ["chat"]})
    refused(wrong, "routes test", "did not match", "The former configuration is back")


@pytest.mark.usefixtures("_as_it_was")
def test_what_does_not_answer_is_taken_back() -> None:
    """It goes on without a key until somebody asks it."""
    tls = {**SETTINGS["alertmanager_tls"], "key": "/srv/tls/none.pem"}
    files = state()
    refused({**SETTINGS, "alertmanager_tls": tls}, "The former configuration is back")
    assert [one[1] for one in state()] == [one[1] for one in files]


def test_routes_change_without_a_restart() -> None:
    before = [main_pid(host) for host in HOSTS.values()]
    other = deepcopy(SETTINGS)
    other["alertmanager_routes"].append({"receiver": "pager", "matchers": ["team=night"]})
    for settings, receiver in ((other, "pager"), (SETTINGS, "operators")):
        brought(settings)
        for host in HOSTS.values():
            assert host.check_output("amtool config routes test team=night") == receiver
            shown = host.check_output("amtool config routes show")
            assert ('team="night"' in shown) == (receiver == "pager")
    assert [main_pid(host) for host in HOSTS.values()] == before


# --- runbooks ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Runbook:
    folder: Path
    name: str

    def run(self, *arguments: str, **said: Any) -> Played:
        groups, settings = self.folder / "groups.yml", self.folder / "settings.yml"
        groups.write_text(yaml.safe_dump({"ops": {"hosts": {one: {} for one in HOSTS}}}), "utf-8")
        settings.write_text(yaml.safe_dump(SETTINGS), "utf-8")
        words = ["--inventory", inventory(), "--inventory", str(groups), "--extra-vars", f"@{settings}"]
        return run_playbook(RUNBOOKS / f"{self.name}.yml", *words, "--extra-vars", json.dumps(said), *arguments)

    def changed(self, *arguments: str, **said: Any) -> tuple[int, str]:
        """How many tasks changed something on each host, all of which succeeded; and what was said."""
        played = self.run(*arguments, **said)
        assert played.code == 0, played.output
        counts = {sum(bool(one.get("changed")) for one in played.results[name]) for name in HOSTS}
        assert len(counts) == 1, played.output
        return counts.pop(), played.output


def test_a_silence_begins_and_ends(tmp_path: Path) -> None:
    book = Runbook(tmp_path, "silence_alert")
    aim = {"alert": "DiskFull", "matchers": ['host="web5"']}
    said = {**aim, "duration": "20m", "reason": "a test", "who": "alice"}
    count, words = book.changed("--check", **said)
    assert (count, "For 20m: alertname=" in words, "No alert is silent." in words) == (1, True, True)
    count, words = book.changed(**said)
    assert (count, "by alice: a test" in words) == (1, True)
    assert book.changed(**said)[0] == 0
    for host in HOSTS.values():
        fires(host, "DiskFull", severity="critical", host="web5")
        waited(lambda host=host: [one for one in alerts(host, "DiskFull") if one["status"]["silencedBy"]])
    ended = {**aim, "reason": "", "state": "absent"}
    count, words = book.changed(**ended)
    assert (count, "No alert is silent." in words) == (1, True)
    assert book.changed(**ended)[0] == 0


def test_the_watchdog_is_never_silent(tmp_path: Path) -> None:
    refused = Runbook(tmp_path, "silence_alert").run(alert="Watchdog", reason="a test", who="alice")
    assert refused.code != 0
    assert "Nothing was touched." in refused.output


def test_a_test_alert_is_seen_to_arrive(tmp_path: Path) -> None:
    book = Runbook(tmp_path, "test_alert")
    count, words = book.changed(severity="critical", minutes=1)
    assert (count, "Messages taken: 2, for chat, program." in words) == (1, True)
    for host in HOSTS.values():
        assert [one for one in told(host) if "This is a test of alerts" in json.dumps(one)]
    # The first one is not over yet, and the second one is told all the same.
    assert book.changed(severity="critical", minutes=1)[0] == 1
    assert book.run(severity="awful").code != 0


def test_a_test_alert_that_nobody_takes_is_seen_too(tmp_path: Path) -> None:
    for host in HOSTS.values():
        host.check_output("systemctl stop inbox.service")
    try:
        failed = Runbook(tmp_path, "test_alert").run(severity="warning", patience=30)
    finally:
        for host in HOSTS.values():
            host.check_output("systemctl start inbox.service")
    assert failed.code != 0
    assert failed.output.count("were not taken") >= len(HOSTS)


# --- as most have it; the last one, for Alertmanager starts anew ------------------------------------------------------


def test_little_is_enough() -> None:
    try:
        brought(PLAIN)
        assert not [one for one in brought(PLAIN) if one["changed"]]
        for host in HOSTS.values():
            listening = {line.split()[4] for line in host.check_output("ss -Hltun").splitlines()}
            assert "127.0.0.1:9093" in listening
            assert not [one for one in listening if one.endswith((":9094", ":9193", ":9195"))]
            assert host.check_output("find /etc/prometheus/alertmanager -type f") == ""
            fires(host, "DiskFull", severity="critical", host="web1")
            assert host.check_output("curl --silent http://127.0.0.1:9093/-/ready").strip() == "OK"
    finally:
        brought(SETTINGS)
