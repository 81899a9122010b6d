"""Figures of the host and of what runs on it, as Prometheus asks for them, and changes that cannot break them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from plays import Played, all_hosts, play
from testinfra.host import Host

SETTINGS = yaml.safe_load((Path(__file__).parents[1] / "vars.yml").read_text("utf-8"))
PORTS = SETTINGS["exporters_ports"]
ADDRESS = SETTINGS["exporters_address"]
FOLDER = SETTINGS["exporters_textfile_folder"]
EXPORTERS = [f"prometheus-{name}-exporter.service" for name in PORTS]
PROGRAMS = [f"production-figures-{name}.service" for name in ("host", "containers")]
BACK = "The former configuration is back and in force."
UNTOUCHED = "nothing was touched"

ASK = (
    "import sys, urllib.request\n"
    "try: print(urllib.request.urlopen(sys.argv[1], timeout=20).read().decode())\n"
    "except OSError as error: sys.exit(str(error))"
)


def asked(host: Host, name: str, path: str = "/metrics", address: str = ADDRESS) -> str:
    """What an exporter answers, as Prometheus asks it; "" where nobody does."""
    done = host.run("python3 -c %s %s", ASK, f"http://{address}:{PORTS.get(name, name)}{path}")
    return str(done.stdout) if done.succeeded else ""


def figure(text: str, series: str) -> float:
    """The value of the one series that begins so."""
    (line,) = [line for line in text.splitlines() if line.startswith(series)]
    return float(line.rpartition(" ")[2])


def applied(host: Host | None = None, *arguments: str, **settings: Any) -> Played:
    """The role with other settings on one host, or on all of them at once."""
    role = {"ansible.builtin.include_role": {"name": "fushuma.production.exporters"}, "vars": SETTINGS | settings}
    limit = ("--limit", host.backend.host) if host else ()
    return play(role, arguments=("--diff", *limit, *arguments))


def refusals(played: Played) -> dict[str, str]:
    """What each host says of the task that failed on it."""
    return {name: one["msg"] for name, results in played.results.items() for one in results if one.get("failed")}


def pids(host: Host) -> str:
    return str(host.check_output("systemctl show --property=MainPID --value %s", " ".join(EXPORTERS)))


# --- what is told -----------------------------------------------------------------------------------------------------


def test_the_host_itself(host: Host) -> None:
    told = asked(host, "node")
    assert figure(told, "node_load1 ") >= 0
    assert figure(told, 'node_systemd_unit_state{name="nginx.service",state="active",type="forking"}') == 1
    assert figure(told, 'node_systemd_unit_start_time_seconds{name="nginx.service"}') > 1e9
    # The clock, the mounts and the processes as they are, not as its own sandbox has them.
    assert "node_timex_sync_status" in told
    assert re.search(r'^node_filesystem_readonly{[^}]*mountpoint="/var/lib/docker"[^}]*} 0$', told, re.MULTILINE)
    assert re.search(r'^node_filesystem_avail_bytes{[^}]*mountpoint="/var/lib/docker"', told, re.MULTILINE)
    assert figure(told, "node_processes_pids ") > 10
    wrong = re.findall(r'^node_scrape_collector_success{collector="(\w+)"} 0$', told, re.MULTILINE)
    assert not set(wrong) & {"systemd", "textfile", "timex", "filesystem", "meminfo", "netdev", "processes", "cpu"}


def test_nginx(host: Host) -> None:
    told = asked(host, "nginx")
    assert figure(told, "nginx_up") == 1
    assert figure(told, "nginx_connections_active") >= 1
    assert figure(told, "nginx_http_requests_total") >= 1


@pytest.mark.parametrize(("name", "target"), [("cache", "redis://127.0.0.1:6379"), ("jobs", "rediss://127.0.0.1:6380")])
def test_each_instance_of_redis(host: Host, name: str, target: str) -> None:
    told = asked(host, "redis", f"/scrape?target={target}")
    assert figure(told, "redis_up ") == 1, name
    assert figure(told, "redis_memory_max_bytes ") == 32 * 1024**2
    assert figure(told, "redis_memory_used_bytes ") > 0
    assert figure(told, "redis_connected_clients ") >= 1
    for series in ("redis_rejected_connections_total", "redis_evicted_keys_total", "redis_keyspace_hits_total"):
        assert figure(told, f"{series} ") >= 0
    other = target.replace("127.0.0.1", "127.0.0.2")
    assert "redis_up 0" in asked(host, "redis", f"/scrape?target={other}")


def test_mariadb(host: Host) -> None:
    told = asked(host, "mysqld")
    assert figure(told, "mysql_up") == 1
    assert figure(told, "mysql_global_status_threads_connected") >= 1
    assert figure(told, "mysql_global_variables_max_connections") == 151
    assert 'mysql_exporter_collector_duration_seconds{collector="collect.info_schema.processlist"}' in told
    assert figure(asked(host, "node"), "mariadb_connection_budget_max ") == 151


def test_sites_are_asked_as_visitors_ask_them(host: Host) -> None:
    site = "https://127.0.0.1:8443/&hostname=shop.test"
    told = asked(host, "blackbox", f"/probe?module=http_insecure&target={site}")
    assert "probe_http_status_code" in told
    assert figure(told, "probe_ssl_earliest_cert_expiry ") > 1e9
    # Nobody trusts a certificate that is signed by itself.
    told = asked(host, "blackbox", f"/probe?module=http_2xx&target={site}")
    assert (figure(told, "probe_success "), figure(told, "probe_http_status_code ")) == (0, 0)
    assert figure(asked(host, "blackbox", "/probe?module=tcp&target=127.0.0.1:6379"), "probe_success ") == 1
    assert figure(asked(host, "blackbox", "/probe?module=tcp&target=127.0.0.1:6999"), "probe_success ") == 0
    assert figure(asked(host, "blackbox", "/probe?module=ssh&target=127.0.0.1:22"), "probe_success ") == 1


# --- what no exporter knows -------------------------------------------------------------------------------------------


def written(host: Host, what: str) -> str:
    # A run that a timer has begun before is not waited for: it may have seen what was before.
    host.check_output("systemctl restart production-figures-%s.service", what)
    return asked(host, "node")


def test_certificates_packages_and_restarts(host: Host) -> None:
    told = written(host, "host")
    for name, path in (("shop.test", "/etc/nginx/certificates/shop.test/chain.pem"), ("tls", "/srv/tls/chain.pem")):
        ends = figure(told, f'production_certificate_expiry_timestamp_seconds{{name="{name}",path="{path}"}}')
        wanted = host.check_output('date -d "$(openssl x509 -noout -enddate -in %s | cut -d= -f2)" +%%s', path)
        assert ends == float(wanted)
    assert figure(told, "node_reboot_required ") == 0
    assert "apt_upgrades_pending{" in told
    assert figure(told, "apt_package_cache_timestamp_seconds ") > 1e9
    host.check_output("touch /run/reboot-required")
    try:
        assert figure(written(host, "host"), "node_reboot_required ") == 1
    finally:
        host.check_output("rm /run/reboot-required")


def drift(host: Host) -> dict[str, int]:
    told = written(host, "host")
    assert figure(told, "production_drift_checked_timestamp_seconds ") > 1e9
    found = re.findall(r'^production_drift_files{service="([^"]+)"} (\d+)$', told, re.MULTILINE)
    return {name: int(count) for name, count in found}


def test_files_that_were_changed_by_hand(host: Host) -> None:
    before = drift(host)
    assert before == dict.fromkeys(["docker", "exporters", "mariadb", "nginx", "redis-cache", "redis-jobs"], 0)
    host.check_output("echo '# by hand' >> /etc/redis/redis-cache.conf && echo >> /etc/nginx/nginx.conf")
    # It is one of those that are ignored.
    host.check_output("chmod 0640 /etc/mysql/accounts.json")
    try:
        assert drift(host) == before | {"redis-cache": 1, "nginx": 1}
    finally:
        host.check_output("sed -i '$d' /etc/redis/redis-cache.conf /etc/nginx/nginx.conf")
        host.check_output("chmod 0600 /etc/mysql/accounts.json")


@pytest.fixture
def container(host: Host) -> Iterator[str]:
    """A container as the app role starts one."""
    labels = "--label=production.application=shop --label=production.process=web"
    check = "--health-cmd=true --health-interval=1s"
    host.check_output("mkdir -p /srv/image && cp $(command -v busybox) /srv/image/sh && mkdir -p /srv/image/bin")
    host.check_output("cp /srv/image/sh /srv/image/bin/sh && tar -C /srv/image -c . | docker import - small")
    host.check_output(
        f"docker run --detach --network=none --memory=32m {labels} {check} --name shop-web-1-a small"
        " /sh -c 'while :; do :; done'"
    )
    yield "shop-web-1-a"
    host.check_output("docker rm --force shop-web-1-a")


def test_what_containers_take(host: Host, container: str) -> None:
    # In the order in which node_exporter tells them.
    labels = f'app="shop",container="{container}",image="small",process="web"'
    told = written(host, "containers")
    assert figure(told, f"production_container_up{{{labels}}}") == 1
    assert figure(told, f"production_container_restarts_total{{{labels}}}") == 0
    assert figure(told, f"production_container_oom_kills_total{{{labels}}}") == 0
    first = figure(told, f"production_container_cpu_seconds_total{{{labels}}}")
    wait = "timeout 30 sh -c 'until docker inspect $0 | grep -q \"Status.*: .healthy.\"; do sleep 0.2; done' %s"
    host.check_output(wait, container)
    told = written(host, "containers")
    assert figure(told, f"production_container_cpu_seconds_total{{{labels}}}") > first
    assert figure(told, f'production_container_health{{{labels},status="healthy"}}') == 1
    # What the kernel of these hosts does not do is left away: Docker forgets a limit that it cannot set.
    limit = int(host.check_output("docker inspect --format '{{.HostConfig.Memory}}' %s", container))
    for name in ("memory_limit_bytes", "memory_bytes"):
        assert (f"production_container_{name}{{" in told) == bool(limit)
    host.check_output("docker stop --time 0 %s", container)
    assert figure(written(host, "containers"), f"production_container_up{{{labels}}}") == 0


def test_nothing_old_is_shown_where_docker_does_not_answer(host: Host, container: str) -> None:
    assert container in written(host, "containers")
    host.check_output("mv /run/docker.sock /run/docker.away")
    try:
        assert not host.run("systemctl start production-figures-containers.service").succeeded
        assert "production_container_up" not in asked(host, "node")
        failed = 'node_systemd_unit_state{name="production-figures-containers.service",state="failed",type="oneshot"}'
        assert figure(asked(host, "node"), failed) == 1
    finally:
        host.check_output("mv /run/docker.away /run/docker.sock")
    assert container in written(host, "containers")


def test_timers_write_them_again_and_again(host: Host) -> None:
    for name in ("host", "containers"):
        timer = host.service(f"production-figures-{name}.timer")
        assert timer.is_running
        assert timer.is_enabled
    age = "echo $(($(date +%s) - $(stat -c %Y {})))"
    assert int(host.check_output(age.format(f"{FOLDER}/production_containers.prom"))) < 60


# --- who reaches it, and what it may do -------------------------------------------------------------------------------


def test_they_listen_where_they_are_told_and_nowhere_else(host: Host) -> None:
    listening = [line.split()[3] for line in host.check_output("ss -Hltn").splitlines()]
    for name, port in PORTS.items():
        assert [one for one in listening if one.endswith(f":{port}")] == [f"{ADDRESS}:{port}"]
        assert asked(host, name, "/", "127.0.0.1") == ""


@pytest.mark.parametrize("unit", [*EXPORTERS, *PROGRAMS])
def test_each_unit_is_confined(host: Host, unit: str) -> None:
    found = host.check_output("systemd-analyze security --no-pager %s | tail -1", unit)
    assert float(re.findall(r"\d+\.\d+", found)[0]) <= 3, found


def test_secrets_are_not_lying_about(host: Host) -> None:
    folder = host.file("/etc/prometheus-exporters")
    assert (folder.user, folder.mode) == ("root", 0o700)
    assert host.file("/etc/prometheus-exporters/redis.json").mode == 0o600
    assert host.file("/etc/prometheus-exporters/mysqld.cnf").mode == 0o600
    assert "canary" not in host.check_output("ps -eo args")
    assert "canary" not in host.check_output("cat /etc/default/prometheus-* /etc/prometheus/blackbox.yml")
    assert "canary" not in host.check_output("cat /proc/*/environ | tr '\\0' '\\n' | grep -v SUDO_COMMAND || true")
    for name in PORTS:
        assert "canary" not in asked(host, name)
    # The exporters run as one user, and yet only one of them sees each password.
    pid = host.check_output("systemctl show --value --property=MainPID prometheus-nginx-exporter.service")
    inside = "nsenter --mount --target %s setpriv --reuid=prometheus --regid=prometheus --clear-groups cat %s"
    for path in ("prometheus-redis-exporter.service/redis.json", "prometheus-mysqld-exporter.service/mysqld.cnf"):
        assert not host.run(inside, pid, f"/run/credentials/{path}").succeeded


def test_an_exporter_comes_back_when_what_it_measures_does(host: Host) -> None:
    host.check_output("systemctl stop nginx.service")
    try:
        assert "\nnginx_up 0" in asked(host, "nginx")
        host.check_output("systemctl restart --no-block prometheus-nginx-exporter.service")
    finally:
        host.check_output("systemctl start nginx.service")
    wait = 'timeout 30 sh -c \'until python3 -c "$0" $1 | grep -q "^nginx_up 1"; do sleep 0.3; done\' %s %s'
    host.check_output(wait, ASK, f"http://{ADDRESS}:{PORTS['nginx']}/metrics")


# --- changes ----------------------------------------------------------------------------------------------------------


def test_settings_that_cannot_work_are_refused(host: Host) -> None:
    before = pids(host)
    for settings, words in (
        ({"exporters_address": "0.0.0.0"}, "Prometheus has to know one address"),
        ({"exporters_ports": {"node": 9113}}, "exporters_ports.node has it already"),
        ({"exporters_arguments": {"redis": ["--redis.password=x"]}}, "other settings decide on it"),
        ({"exporters_extra": {"modules": {"mail": {"prober": "smtp"}}}}, "it does not say how to ask"),
    ):
        refused = applied(host, **settings)
        assert words in refused.output, refused.output
        assert UNTOUCHED in refused.output
    assert pids(host) == before


def with_other_passwords() -> list[dict[str, Any]]:
    sources = deepcopy(SETTINGS["exporters_sources"])
    for one in (one for one in sources if one["job"] in ("redis", "mariadb") and "password" in one):
        one["password"] = "canary-wrong-66d0e1c9"
    return sources


# All that is wrong is told at once.
WRONG = {"exporters_sources": with_other_passwords(), "exporters_arguments": {"node": ["--collector.nothing"]}}
UNKNOWN = {"exporters_extra": {"modules": {"mail": {"prober": "tcp", "tcp": {"no_such": 1}}}}}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (WRONG, [f"http://{ADDRESS}:{PORTS['node']}/", "redis_up 1", "mysql_up 1"]),
        (UNKNOWN, ["no_such"]),
    ],
)
def test_what_an_exporter_does_not_take_is_put_back(settings: dict[str, Any], words: list[str]) -> None:
    state = "sha256sum /etc/default/prometheus-* /etc/prometheus/blackbox.yml /etc/prometheus-exporters/*"
    before = {name: host.check_output(state) for name, host in all_hosts().items()}
    found = refusals(applied(**settings))
    assert found.keys() == before.keys()
    for name, host in all_hosts().items():
        assert [one for one in words if one not in found[name]] == []
        assert BACK in found[name]
        assert host.check_output(state) == before[name]
        assert "mysql_up 1" in asked(host, "mysqld")
        assert "node_load1" in asked(host, "node")


def test_what_is_not_there_any_more_is_not_measured_any_more() -> None:
    """A host of nothing, by the role's defaults, and back."""
    none: dict[str, Any] = {
        "exporters_sources": [],
        "exporters_blackbox": False,
        "exporters_address": "127.0.0.1",
        "exporters_from": "host",
        "exporters_ports": {},
        "exporters_arguments": {},
        "exporters_extra": {},
    }
    assert not refusals(applied(**none))
    try:
        for host in all_hosts().values():
            for unit in EXPORTERS:
                assert host.service(unit).is_running == (unit == "prometheus-node-exporter.service")
                assert host.service(unit).is_enabled == (unit == "prometheus-node-exporter.service")
            assert not host.service("production-figures-containers.timer").is_running
            assert not host.file(f"{FOLDER}/production_containers.prom").exists
            assert not host.file("/etc/prometheus-exporters/redis.json").exists
            listening = [line.split()[3] for line in host.check_output("ss -Hltn").splitlines()]
            assert [one for one in listening if one.endswith(":9100")] == ["127.0.0.1:9100"]
            assert asked(host, "9100", "/", ADDRESS) == ""
    finally:
        assert not refusals(applied())
    again = applied()
    assert {name for name, results in again.results.items() if any(one.get("changed") for one in results)} == set()
