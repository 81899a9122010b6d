"""A server that asks who it is, scrapes and probes what it is told, and takes up changes that work, and no others."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from plays import Played, all_hosts, play
from testinfra.host import Host

SETTINGS = yaml.safe_load((Path(__file__).parents[1] / "vars.yml").read_text("utf-8"))
PASSWORDS = {one["name"]: one["password"] for one in SETTINGS["prometheus_users"]}
STORE = ("https://localhost:9095/store", "writer", SETTINGS["prometheus_targets"][0]["password"])


def curl(host: Host, url: str, user: str = "", password: str = "") -> str:
    """What is answered, and the status after it. The password goes by a file that the shell makes of its input."""
    config = f'user = "{user}:{password}"' if user else ""
    done = host.run(f"echo {shlex.quote(config)} | curl -sk -K - -w ' %{{http_code}}' {shlex.quote(url)}")
    return str(done.stdout).strip()


def asked(host: Host, query: str, store: bool = False) -> list[tuple[dict[str, str], float]]:
    """The series of an instant query, each with its value; of the store for ``store``."""
    path = f"/api/v1/query?query={quote(query)}"
    if store:
        text = curl(host, STORE[0] + path, *STORE[1:]).rpartition(" ")[0]
    else:
        text = host.check_output(f"prometheus-ask {shlex.quote(path)}")
    return [(one["metric"], float(one["value"][1])) for one in json.loads(text)["data"]["result"]]


def within(host: Host, holds: Callable[[], bool], tries: int = 40) -> bool:
    """Whether it holds soon. The host does the waiting."""
    for _ in range(tries):
        if holds():
            return True
        host.run("sleep 0.5")
    return False


def config_of(host: Host) -> str:
    return str(json.loads(host.check_output("prometheus-ask /api/v1/status/config"))["data"]["yaml"])


def task(settings: dict[str, Any]) -> dict[str, Any]:
    return {"ansible.builtin.include_role": {"name": "fushuma.production.prometheus"}, "vars": settings}


def applied(settings: dict[str, Any]) -> Played:
    return play(task(settings))


def state(host: Host) -> tuple[str, str, str]:
    """What must not change: the process, the files and what the server works with."""
    pid = host.check_output("systemctl show --value --property MainPID prometheus.service")
    files = "/etc/prometheus/prometheus.yml /etc/prometheus/web.yml /etc/prometheus/rules/*"
    return pid, host.check_output(f"sha256sum {files}"), config_of(host)


def states(hosts: dict[str, Host]) -> dict[str, tuple[str, str, str]]:
    return {name: state(host) for name, host in hosts.items()}


def test_nobody_is_let_in_without_a_password_or_tls(host: Host) -> None:
    address = host.check_output("hostname -I").split()[0]
    url = f"https://{address}:9091/api/v1/labels"
    assert curl(host, url).endswith("401")
    assert curl(host, url, "grafana", "wrong").endswith("401")
    for user, password in PASSWORDS.items():
        assert curl(host, url, user, password).endswith("200")
    assert curl(host, url.replace("https:", "http:")).endswith("400")


def test_all_targets_are_up_with_the_labels_that_rules_expect(host: Host) -> None:
    name = host.backend.host
    wanted = {
        ("prometheus", name, name),
        ("store", "store1", "store1"),
        ("blackbox", "edge1", "edge1"),
        ("blackbox", "edge1", "edge1/itself"),
        ("probe", "edge1", "shop"),
        ("probe", "edge1", "down"),
        ("by-hand", name, "localhost:9095"),
    }

    def up() -> set[tuple[str, str, str]]:
        return {(one["job"], one["host"], one["instance"]) for one, value in asked(host, "up") if value == 1}

    assert within(host, lambda: up() == wanted), up()
    assert [one["redis"] for one, _value in asked(host, 'up{redis="itself"}')] == ["itself"]


def test_a_probe_finds_a_server_whose_name_nobody_resolves(host: Host) -> None:
    found = {one["site"]: (one["url"], value) for one, value in asked(host, 'probe_success{job="probe"}')}
    assert found == {
        "shop": ("https://store.example/store/-/healthy", 1.0),
        "down": ("http://127.0.0.1:1/", 0.0),
    }
    assert asked(host, 'probe_ssl_earliest_cert_expiry{job="probe"}')[0][0]["site"] == "shop"


def test_a_remote_store_gets_what_it_is_to_have(host: Host) -> None:
    assert within(host, lambda: len(asked(host, 'up{job="prometheus"}', store=True)) == 1)
    (series, value) = asked(host, 'up{job="prometheus"}', store=True)[0]
    assert (series["site"], series["host"], value) == ("test", host.backend.host, 1.0)
    assert asked(host, "go_goroutines", store=True) == []
    assert asked(host, "go_goroutines") != []


def test_another_one_gets_its_token(host: Host) -> None:
    length = len(SETTINGS["prometheus_remote_write"][1]["bearer"])
    assert within(host, lambda: curl(host, "https://127.0.0.1:9096/") == f"Bearer {length} 200")


def test_alerts_of_ones_own_fire_and_go_to_alertmanager(host: Host) -> None:
    def firing() -> list[str]:
        return [one["site"] for one, _value in asked(host, 'ALERTS{alertname="ProbeDown",alertstate="firing"}')]

    assert within(host, lambda: firing() == ["down"])
    known = json.loads(host.check_output("prometheus-ask /api/v1/alertmanagers"))["data"]["activeAlertmanagers"]
    assert [one["url"] for one in known] == ["https://localhost:9095/api/v2/alerts"]
    alerts = json.loads(host.check_output("prometheus-ask /api/v1/alerts"))["data"]["alerts"]
    said = [one["annotations"]["summary"] for one in alerts if one["labels"]["alertname"] == "ProbeDown"]
    assert said == ["down is down"]


def test_flags(host: Host) -> None:
    flags = json.loads(host.check_output("prometheus-ask /api/v1/status/flags"))["data"]
    wanted = {
        "storage.tsdb.retention.time": "10d",
        "storage.tsdb.retention.size": "512MiB",
        "query.max-samples": "1000000",
        "web.external-url": "https://prometheus.example.com/figures",
        "web.enable-admin-api": "false",
        "web.enable-lifecycle": "false",
    }
    assert {name: flags[name] for name in wanted} == wanted


def test_it_can_do_little_else(host: Host) -> None:
    said = host.check_output("systemd-analyze security --no-pager prometheus.service | tail -n 1")
    assert float(said.split(": ")[1].split()[0]) <= 3.0, said
    show = "systemctl show --value --property MemoryMax prometheus.service"
    assert host.check_output(show) == str(384 * 1024**2)


def test_secrets_are_not_lying_about(host: Host) -> None:
    listed = host.check_output("find /etc/prometheus/secrets -type f -printf '%f %m %u %g\\n'").splitlines()
    names = ["alertmanager-0", "job-prometheus", "job-store", "own-0-password", "remote-longterm", "remote-other"]
    assert sorted(listed) == [f"{name} 640 root prometheus" for name in names]
    assert host.file("/etc/prometheus/secrets").mode == 0o750
    assert host.file("/etc/prometheus/web.yml").mode == 0o640
    assert "canary" not in host.check_output("cat /etc/prometheus/*.yml /usr/local/sbin/prometheus-*")
    assert "canary" not in host.check_output("ps -eo args; systemctl show prometheus.service")


def test_changes_on_all_hosts() -> None:
    """One after the other, and what is left is what the scenario wants.

    A changed configuration is taken up without a restart. With the defaults nobody needs a password, and nobody else is
    let in.
    """
    hosts = all_hosts()
    before = states(hosts)
    assert applied({**SETTINGS, "prometheus_external_labels": {"site": "test", "more": "yes"}}).code == 0
    for name, host in hosts.items():
        assert 'more: "yes"' in config_of(host)
        assert state(host)[0] == before[name][0]
    assert applied({"prometheus_external_labels": {"site": "alone"}}).code == 0
    for host in hosts.values():
        listening = {line.split()[3] for line in host.check_output("ss -Hltn").splitlines()}
        assert "127.0.0.1:9090" in listening
        assert not [one for one in listening if one.endswith(":9091")]
        assert curl(host, "http://127.0.0.1:9090/-/ready").endswith("200")
        assert "site: alone" in config_of(host)
        assert host.check_output("ls /etc/prometheus/secrets") == ""
    assert applied(SETTINGS).code == 0
    assert {name: one[1:] for name, one in states(hosts).items()} == {name: one[1:] for name, one in before.items()}


REFUSED = {
    "parse error": {"prometheus_extra_rules": [{"name": "own", "rules": [{"record": "a:b", "expr": "sum("}]}]},
    "no_such_option": {"prometheus_scrape_configs": [{"job_name": "by-hand", "no_such_option": 1}]},
    "of which four fifths can be had": {"prometheus_retention": {"size": "9000gb"}},
    "the server cannot read": {"prometheus_tls": {"certificate": "/srv/tls/chain.pem", "key": "/srv/tls/none.pem"}},
}


def test_what_does_not_work_is_never_activated() -> None:
    hosts = all_hosts()
    before = states(hosts)
    refused = play(*(task({**SETTINGS, **change}) for change in REFUSED.values()))
    for words in REFUSED:
        assert refused.output.count(words) >= len(hosts), refused.output
    assert refused.output.count("fatal: ") == len(hosts) * len(REFUSED), refused.output
    assert states(hosts) == before


def test_what_only_the_running_server_notices_is_put_back() -> None:
    """Its port is somebody else's."""
    hosts = all_hosts()
    before = states(hosts)
    refused = applied({**SETTINGS, "prometheus_port": 9116})
    assert refused.output.count("fatal: ") == len(hosts), refused.output
    assert "The former configuration is back" in refused.output
    assert {name: one[1:] for name, one in states(hosts).items()} == {name: one[1:] for name, one in before.items()}
