"""Grafana itself: what the role wrote is what it works with."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from plays import all_hosts, play
from testinfra.host import Host

SETTINGS: dict[str, Any] = yaml.safe_load((Path(__file__).parents[1] / "vars.yml").read_text("utf-8"))
ROLE = Path(__file__).parents[3] / "roles" / "grafana"
PASSWORD, OTHER = SETTINGS["grafana_admin_password"], "canary-92b6e1d0c87f4a35"
ASK = """
import base64, sys, urllib.error, urllib.request
request = urllib.request.Request("http://127.0.0.1:3030" + sys.argv[1])
if sys.argv[2]:
    request.add_header("Authorization", "Basic " + base64.b64encode(f"admin:{sys.argv[2]}".encode()).decode())
try:
    with urllib.request.urlopen(request, timeout=20) as answer:
        print(answer.status, answer.read().decode())
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
"""


def ask(host: Host, path: str, password: str = PASSWORD) -> tuple[int, Any]:
    status, _space, body = host.check_output("python3 -c %s %s %s", ASK, path, password).partition(" ")
    return int(status), json.loads(body)


def applied(**settings: Any) -> dict[str, dict[str, Any]]:
    role = {"ansible.builtin.include_role": {"name": "fushuma.production.grafana"}, "vars": {**SETTINGS, **settings}}
    played = play({"ansible.builtin.setup": {"gather_subset": ["min"]}}, role)
    return {name: dict(played.results[name][-1]) for name in all_hosts()}


def test_it_is_well_and_on_the_host_alone(host: Host) -> None:
    assert ask(host, "/api/health", "")[1]["database"] == "ok"
    listening = host.check_output("ss -Hltnp | grep grafana")
    assert re.findall(r"(\S+):(\d+)\s+\S+\s+users", listening) == [("127.0.0.1", "3030")]


def test_nobody_gets_in_without_the_password(host: Host) -> None:
    assert ask(host, "/api/user")[1]["login"] == "admin"
    assert ask(host, "/api/user", "")[0] == 401
    assert ask(host, "/api/user", "admin")[0] == 401


def test_sources_of_data_have_their_uids(host: Host) -> None:
    found = {one["uid"]: one["type"] for one in ask(host, "/api/datasources")[1]}
    assert found == {"prometheus": "prometheus", "loki": "loki", "alertmanager": "alertmanager"}


@pytest.mark.parametrize("path", sorted((ROLE / "dashboards").glob("*.yml")), ids=lambda path: str(path.stem))
def test_each_dashboard_is_there_with_all_its_panels(host: Host, path: Path) -> None:
    wanted = yaml.safe_load(path.read_text("utf-8"))
    status, found = ask(host, f"/api/dashboards/uid/{wanted['uid']}")
    assert status == 200
    assert found["meta"]["provisioned"]
    titles = [panel["title"] for panel in found["dashboard"]["panels"] if panel["type"] != "row"]
    assert titles == [panel["title"] for row in wanted["rows"] for panel in row["panels"]]


def test_it_keeps_to_itself(host: Host) -> None:
    settings = ask(host, "/api/admin/settings")[1]
    assert settings["analytics"]["reporting_enabled"] == "false"
    assert settings["analytics"]["check_for_updates"] == "false"
    assert settings["users"]["allow_sign_up"] == "false"
    assert settings["auth.anonymous"]["enabled"] == "false"


@pytest.mark.parametrize("unit", ["grafana-server.service", "grafana-admin-password.service"])
def test_it_may_do_little(host: Host, unit: str) -> None:
    told = host.run(f"systemd-analyze security --no-pager {unit}").stdout
    (exposure,) = re.findall(r"Overall exposure level for \S+: ([\d.]+)", told)
    assert float(exposure) <= 4.0


def test_another_password_is_in_force_without_a_restart() -> None:
    show = "systemctl show --value --property=MainPID grafana-server.service"
    before = {name: host.check_output(show) for name, host in all_hosts().items()}
    assert not any(one["failed"] for one in applied(grafana_admin_password=OTHER).values())
    for name, host in all_hosts().items():
        assert ask(host, "/api/user", OTHER)[0] == 200
        assert ask(host, "/api/user", PASSWORD)[0] == 401
        assert host.check_output(show) == before[name]
    assert not any(one["failed"] for one in applied().values())
    assert not any(one["changed"] for one in applied().values())


def test_a_database_that_is_not_there_is_put_back() -> None:
    elsewhere = {"type": "mysql", "host": "127.0.0.1:1", "password": "canary-2f8c6d0b9e13a574"}
    for one in applied(grafana_database=elsewhere).values():
        assert one["failed"]
        assert "The former configuration is back and in force." in one["msg"]
    for host in all_hosts().values():
        assert ask(host, "/api/health", "")[1]["database"] == "ok"
        assert ask(host, "/api/user")[0] == 200


def test_the_host_is_well(host: Host) -> None:
    assert host.check_output("systemctl --failed --plain --no-legend") == ""
