"""A whole application on one host: visitors are served, containers have few rights, and others reach what was declared."""

from __future__ import annotations

import json
import time
from typing import Any

from knocking import knock
from plays import all_hosts
from testinfra.host import Host
from web import Request, ask

SHOP, TOOL = "shop.test", "tool.test"
STATE = "/var/lib/fushuma-production/applications"


def from_shop(host: Host, path: str, **more: Any) -> Any:
    (answer,) = ask(host, Request(SHOP, path, **more))
    assert answer.status < 300, (path, answer)
    return json.loads(answer.body)


def told(host: Host, container: str) -> Any:
    return json.loads(host.check_output("docker inspect %s", container))[0]


def containers(host: Host) -> list[str]:
    return sorted(host.check_output("docker ps --all --format '{{.Names}}'").split())


def test_the_application_answers_with_its_page_under_the_sites_policy(host: Host) -> None:
    (answer,) = ask(host, Request(SHOP))
    assert (answer.status, answer.one("X-Release")) == (200, "1.0.0")
    assert "'sha256-" in answer.one("Content-Security-Policy")
    assert "unsafe-inline" not in answer.one("Content-Security-Policy")
    assert answer.one("X-Powered-By") == ""


def test_it_uses_its_database_its_cache_and_its_volume(host: Host) -> None:
    assert from_shop(host, "/ready") == {"database": "ok", "redis": "ok"}
    name = f"tea {time.time()}"
    headers = {"Content-Type": "application/json"}
    tea = json.dumps({"name": name, "price_cents": 390})
    from_shop(host, "/api/items", method="POST", headers=headers, body=tea)
    assert name in json.dumps(from_shop(host, "/api/items"))
    from_shop(host, "/api/uploads?name=a.txt", method="POST", body="uploaded")
    (answer,) = ask(host, Request(SHOP, "/uploads/a.txt"))
    assert answer.body == "uploaded"


def test_the_worker_does_what_it_is_given(host: Host) -> None:
    deadline = time.monotonic() + 20
    while host.check_output("mariadb -N shop -e 'select count(*) from jobs'").strip() == "0":
        assert time.monotonic() < deadline, "no job was done"
        time.sleep(0.2)


def test_what_runs_at_its_time_runs(host: Host) -> None:
    before = int(host.check_output("mariadb -N shop -e 'select count(*) from reports'"))
    host.check_output("systemctl start app-shop-report.service")
    assert int(host.check_output("mariadb -N shop -e 'select count(*) from reports'")) == before + 1
    assert host.service("app-shop-report.timer").is_enabled
    assert not [name for name in containers(host) if "report" in name]


def test_what_was_to_be_done_before_the_migration_was_done(host: Host) -> None:
    assert host.file("/root/before-migration.sql").contains("Dump completed")
    users = host.check_output("mariadb -N -e \"select user from mysql.user where user = 'migrate'\"")
    assert users.strip() == "migrate"


def test_containers_have_few_rights(host: Host) -> None:
    assert containers(host) == ["shop-web-1-a", "shop-web-2-a", "shop-worker-1-a", "tool-web-1-a"]
    for name in containers(host)[:3]:
        found = told(host, name)
        config = found["HostConfig"]
        assert config["ReadonlyRootfs"]
        assert config["CapDrop"] == ["ALL"]
        assert not config["CapAdd"]
        assert "no-new-privileges" in config["SecurityOpt"]
        assert config["PidsLimit"] == 256
        assert not config["Privileged"]
        assert not [bind for bind in config["Binds"] or [] if "docker.sock" in bind]
        pid = found["State"]["Pid"]
        status = host.file(f"/proc/{pid}/status").content_string
        assert "Uid:\t10001\t10001\t10001\t10001" in status
        assert "CapBnd:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status


def test_options_of_a_process_hold(host: Host) -> None:
    (answer,) = ask(host, Request(TOOL, "/busy"))
    assert answer.status == 202
    found = json.loads(answer.body)
    assert (found["NAME"], found["LIST"], found["NESTED"], found["PER_PROCESS"]) == (
        "tool of the shop",
        "a,b",
        '{"a": [1]}',
        "3",
    )
    assert "Uid:\t4711\t4711" in found["status"]
    assert "CapBnd:\t0000000000000400" in found["status"]  # NET_BIND_SERVICE
    config = told(host, "tool-web-1-a")["HostConfig"]
    assert (config["PidsLimit"], config["NanoCpus"]) == (64, 500_000_000)
    assert config["Binds"] == ["shop-uploads:/uploads:ro"]
    written = {
        path: ask(host, Request(TOOL, f"/write{path}"))[0].body for path in ("/scratch/a", "/tmp/a", "/uploads/b")
    }
    assert written == {"/scratch/a": "written", "/tmp/a": "written", "/uploads/b": "EROFS"}


def test_the_environment_is_for_root_only(host: Host) -> None:
    files = host.check_output(f"find {STATE} -name '*.env'").split()
    assert len(files) == 5
    for path in files:
        assert (host.file(path).mode, host.file(path).user) == (0o600, "root")
    assert host.file(STATE).mode == 0o700
    migration = next(path for path in files if ".migrate." in path)
    assert "canary-e4120f9bd86c" in host.file(migration).content_string
    others = [path for path in files if path != migration]
    assert not [path for path in others if "canary-e4120f9bd86c" in host.file(path).content_string]
    assert "canary" not in host.check_output("ps -eo args")


def test_others_reach_what_was_declared_and_nothing_else(host: Host) -> None:
    ports = {22: "open", 80: "open", 443: "open", 8100: "silent", 8200: "open", 8205: "refused", 3306: "silent"}
    ports |= {6379: "silent", 3000: "silent", 4000: "silent"}
    found = dict(zip(ports, knock(host, 4, tuple(ports)), strict=True))
    # Of the ports that the tool may take, the other slot's has nobody behind it.
    assert {**found, 8205: "refused"} == ports
    assert found[8205] in ("refused", "silent")


def test_hosts_are_not_mixed_up(host: Host) -> None:
    """Each edge knows both hosts, and nobody but the one that answers there has servers."""
    assert len(all_hosts()) == 2
    folders = host.check_output("ls /etc/nginx/applications").split()
    assert f"shop.web.{host.backend.host}" in folders
