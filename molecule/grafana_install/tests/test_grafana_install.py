"""How Grafana comes to a host, stays as it is wanted, and is put back; with a stand-in that answers in its place."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from plays import Played, all_hosts, play
from testinfra.host import Host

SETTINGS: dict[str, Any] = yaml.safe_load((Path(__file__).parents[1] / "vars.yml").read_text("utf-8"))
SCENARIO = {
    "folder": os.environ["MOLECULE_SCENARIO_DIRECTORY"],
    "scratch": os.environ["MOLECULE_EPHEMERAL_DIRECTORY"],
}
PASSWORD, OTHER = SETTINGS["grafana_admin_password"], "canary-0d4b8e6f2a197c53"
URL = "http://192.0.2.30:3031"
SERVER, RESET = "grafana-server.service", "grafana-admin-password.service"
APT = ("/etc/apt/keyrings/grafana.asc", "/etc/apt/preferences.d/grafana", "/etc/apt/sources.list.d/grafana.sources")
ASK = """
import base64, sys, urllib.error, urllib.request
request = urllib.request.Request(sys.argv[1] + "/api/user")
request.add_header("Authorization", "Basic " + base64.b64encode(f"admin:{sys.argv[2]}".encode()).decode())
try:
    print(urllib.request.urlopen(request, timeout=5).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""


def applied(*arguments: str, **settings: Any) -> Played:
    role = {
        "ansible.builtin.include_role": {"name": "fushuma.production.grafana"},
        "vars": {**SETTINGS, **SCENARIO, **settings},
    }
    return play({"ansible.builtin.setup": {"gather_subset": ["min"]}}, role, arguments=("--diff", *arguments))


def last_results(played: Played) -> dict[str, dict[str, Any]]:
    return {name: dict(played.results[name][-1]) for name in all_hosts()}


def login(host: Host, password: str) -> str:
    return str(host.check_output("python3 -c %s %s %s", ASK, URL, password))


def main_pid(host: Host) -> str:
    return str(host.check_output(f"systemctl show --value --property=MainPID {SERVER}"))


def test_it_runs_from_its_archive_where_it_is_told(host: Host) -> None:
    assert re.fullmatch(r"/opt/grafana/12\.0\.1-[0-9a-f]{8}", host.check_output("readlink /opt/grafana/current"))
    assert "192.0.2.30:3031" in host.check_output("ss -Hltn")
    process = host.check_output(f"ps -o user=,args= -p {main_pid(host)}")
    assert process.startswith("grafana ")
    assert host.check_output("readlink /opt/grafana/current") + "/bin/grafana server" in process
    assert host.check_output(f"systemctl show --value --property=MemoryMax {SERVER}") == str(300 * 1024**2)


@pytest.mark.parametrize("unit", [SERVER, RESET])
def test_it_may_do_little(host: Host, unit: str) -> None:
    told = host.run(f"systemd-analyze security --no-pager {unit}").stdout
    (exposure,) = re.findall(r"Overall exposure level for \S+: ([\d.]+)", told)
    assert float(exposure) <= 3.0


def test_secrets_are_where_only_root_reads_them(host: Host) -> None:
    sources = "/etc/grafana/provisioning/datasources/production.yaml"
    for path in ("/etc/grafana/grafana.ini", "/etc/grafana/admin-password", sources):
        assert (host.file(path).mode, host.file(path).user) == (0o600, "root")
    readable = host.check_output("find /etc/grafana /etc/systemd/system /opt/grafana -type f -perm /044")
    for path in readable.splitlines():
        assert "canary-" not in host.file(path).content_string
    runtime = host.file("/run/grafana")
    assert (runtime.mode, runtime.user) == (0o700, "grafana")
    assert "canary-" not in host.check_output(f"tr '\\0' '\\n' </proc/{main_pid(host)}/environ")
    assert 'password = """canary-1#2;3"4c0ffee"""' in host.file("/etc/grafana/grafana.ini").content_string


def test_dashboards_and_sources_of_data_are_files(host: Host) -> None:
    found = host.check_output("ls /etc/grafana/dashboards/production").split()
    assert "overview.json" in found
    for name in found:
        dashboard = json.loads(host.file(f"/etc/grafana/dashboards/production/{name}").content_string)
        assert dashboard["uid"] == name.removesuffix(".json")
    assert host.file("/etc/grafana/dashboards/own/Shop/orders.json").exists
    copied = host.file("/run/grafana/provisioning/datasources/production.yaml")
    assert copied.user == "grafana"
    sources = json.loads(copied.content_string)
    assert [one["uid"] for one in sources["datasources"]] == ["prometheus", "loki"]


def test_another_password_is_in_force_without_a_restart() -> None:
    before = {name: main_pid(host) for name, host in all_hosts().items()}
    for name, one in last_results(applied(grafana_admin_password=OTHER)).items():
        assert one["commands"] == [f"/usr/bin/systemctl start {RESET}"], name
    for name, host in all_hosts().items():
        assert (login(host, OTHER), login(host, PASSWORD)) == ("200", "401")
        assert main_pid(host) == before[name]


def test_a_password_that_somebody_changed_is_set_anew_and_asked_for_no_more_than_needed() -> None:
    """On the host there is still the other one, of the test before; then somebody changes it in the browser."""
    assert not any(one["failed"] for one in last_results(applied()).values())
    reset = "/opt/grafana/current/bin/grafana cli --config=/etc/grafana/grafana.ini admin reset-admin-password"
    for host in all_hosts().values():
        host.check_output(f"echo {OTHER} | {reset} --password-from-stdin")
        assert login(host, PASSWORD) == "401"
    for one in last_results(applied()).values():
        assert (one["changed"], one["commands"]) == (True, [f"/usr/bin/systemctl start {RESET}"])
    for host in all_hosts().values():
        assert login(host, PASSWORD) == "200"
    assert not any(one["changed"] for one in last_results(applied()).values())


def test_with_a_file_as_database_too() -> None:
    applied(grafana_database={})
    for one in last_results(applied(grafana_database={}, grafana_admin_password=OTHER)).values():
        assert not one["failed"]
    for host in all_hosts().values():
        assert login(host, OTHER) == "200"
    applied()


def test_another_version_and_back() -> None:
    for one in last_results(applied(archive=f"{SCENARIO['scratch']}/grafana-12.1.0.linux-amd64.tar.gz")).values():
        assert not one["failed"], one
    for host in all_hosts().values():
        assert "12.1.0" in host.check_output("readlink /opt/grafana/current")
        assert "12.1.0" in host.check_output(f"ps -o args= -p {main_pid(host)}")
    applied()
    for host in all_hosts().values():
        assert "12.0.1" in host.check_output(f"ps -o args= -p {main_pid(host)}")


def test_a_version_that_does_not_start_is_put_back() -> None:
    for one in last_results(applied(archive=f"{SCENARIO['scratch']}/grafana-12.2.0.linux-amd64.tar.gz")).values():
        assert one["failed"]
        assert "The former configuration is back and in force." in one["msg"]
    for host in all_hosts().values():
        assert "12.0.1" in host.check_output("readlink /opt/grafana/current")
        assert login(host, PASSWORD) == "200"


def test_an_archive_that_is_another_one_is_not_unpacked() -> None:
    archive = {"source": "{{ archive }}", "sha256": "0" * 64}
    for one in last_results(applied(grafana_archive=archive)).values():
        assert one["failed"]
        assert "the archive has not the SHA-256 that grafana_archive.sha256 says" in one["msg"]
    for host in all_hosts().values():
        assert "00000000" not in host.check_output("ls /opt/grafana /var/cache")
        assert login(host, PASSWORD) == "200"


def test_its_repository_is_foreseen_and_one_that_does_not_answer_does_not_stay() -> None:
    dry = applied("--check", grafana_archive={})
    for name in all_hosts():
        repository = dry.results[name][-2]
        assert sorted(repository["paths"]) == sorted(APT)
    for name, host in all_hosts().items():
        assert host.check_output("ls /etc/apt/preferences.d /etc/apt/sources.list.d").count("grafana") == 0, name
    wet = applied(grafana_archive={})
    for name, host in all_hosts().items():
        (repository,) = [one for one in wet.results[name] if "sources.list.d/grafana" in str(one.get("msg"))]
        assert repository["failed"]
        assert not [path for path in APT if host.file(path).exists]


def test_no_secret_is_in_the_journal(host: Host) -> None:
    units = f"-u {SERVER} -u {RESET}"
    assert "canary" not in host.check_output(f"journalctl --no-pager {units}")
    assert "Admin password changed successfully" in host.check_output(f"journalctl --no-pager -u {RESET}")


def test_the_host_is_well(host: Host) -> None:
    assert host.check_output("systemctl --failed --plain --no-legend") == ""
