"""A whole application on four hosts: an edge, two with the application, one with its data."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from knocking import address_of
from plays import all_hosts
from testinfra.host import Host
from web import Request, ask

SHOP, TOOL = "shop.test", "tool.test"
STATE = "/var/lib/fushuma-production/applications"
APPS = ("stack-app12", "stack-app13")
SHOPS = ["shop-web-1-a", "shop-web-2-a"]


def edge() -> Host:
    return all_hosts()["stack-edge13"]


def apps() -> dict[str, Host]:
    return {name: all_hosts()[name] for name in APPS}


def data() -> Host:
    return all_hosts()["stack-data12"]


def from_shop(path: str, **more: Any) -> Any:
    (answer,) = ask(edge(), Request(SHOP, path, **more))
    assert answer.status < 300, (path, answer)
    return json.loads(answer.body)


def told(host: Host, container: str) -> Any:
    return json.loads(host.check_output("docker inspect %s", container))[0]


def containers(host: Host) -> list[str]:
    return sorted(host.check_output("docker ps --all --format '{{.Names}}'").split())


def count(table: str) -> int:
    return int(data().check_output(f"mariadb -N shop -e 'select count(*) from {table}'"))


def test_the_application_answers_with_its_page_under_the_sites_policy() -> None:
    (answer,) = ask(edge(), Request(SHOP))
    assert (answer.status, answer.one("X-Release")) == (200, "1.0.0")
    assert "'sha256-" in answer.one("Content-Security-Policy")
    assert "unsafe-inline" not in answer.one("Content-Security-Policy")
    assert answer.one("X-Powered-By") == ""


def test_it_uses_its_database_and_its_cache() -> None:
    assert from_shop("/ready") == {"database": "ok", "redis": "ok"}
    name = f"tea {time.time()}"
    headers = {"Content-Type": "application/json"}
    tea = json.dumps({"name": name, "price_cents": 390})
    from_shop("/api/items", method="POST", headers=headers, body=tea)
    assert name in json.dumps(from_shop("/api/items"))


def test_both_hosts_answer_and_one_takes_over_where_the_other_is_gone() -> None:
    started = {from_shop("/version")["started"] for _number in range(40)}
    assert len(started) == 4, "two replicas on each of two hosts"
    gone = apps()["stack-app12"]
    gone.check_output("docker stop %s %s", *SHOPS)
    try:
        assert len({from_shop("/version")["started"] for _number in range(20)}) == 2
    finally:
        gone.check_output("docker start %s %s", *SHOPS)


def test_what_there_may_be_one_of_is_on_one_host() -> None:
    assert {name: containers(host) for name, host in apps().items()} == {
        "stack-app12": [*SHOPS, "shop-worker-1-a", "tool-web-1-a"],
        "stack-app13": [*SHOPS, "tool-web-1-a"],
    }


def test_the_worker_does_what_it_is_given() -> None:
    test_it_uses_its_database_and_its_cache()
    deadline = time.monotonic() + 20
    while not count("jobs"):
        assert time.monotonic() < deadline, "no job was done"
        time.sleep(0.2)


def test_what_runs_at_its_time_runs() -> None:
    for host in apps().values():
        before = count("reports")
        host.check_output("systemctl start app-shop-report.service")
        assert count("reports") == before + 1
        assert host.service("app-shop-report.timer").is_enabled
        assert not [name for name in containers(host) if "report" in name]


def test_what_was_to_be_done_before_the_migration_was_done() -> None:
    assert data().file("/root/before-migration.sql").contains("Dump completed")


def test_containers_have_few_rights() -> None:
    for host in apps().values():
        for name in SHOPS:
            found = told(host, name)
            config = found["HostConfig"]
            assert config["ReadonlyRootfs"]
            assert config["CapDrop"] == ["ALL"]
            assert not config["CapAdd"]
            assert "no-new-privileges" in config["SecurityOpt"]
            assert not config["Privileged"]
            assert not [bind for bind in config["Binds"] or [] if "docker.sock" in bind]
            status = host.file(f"/proc/{found['State']['Pid']}/status").content_string
            assert "Uid:\t10001\t10001\t10001\t10001" in status
            assert "CapBnd:\t0000000000000000" in status
            assert "NoNewPrivs:\t1" in status


def test_options_of_a_process_hold() -> None:
    (answer,) = ask(edge(), Request(TOOL, "/busy"))
    assert answer.status == 202
    found = json.loads(answer.body)
    values: Mapping[str, str] = {"NAME": "tool of the shop", "LIST": "a,b", "NESTED": '{"a": [1]}', "PER_PROCESS": "3"}
    assert {name: found[name] for name in values} == values
    assert "Uid:\t4711\t4711" in found["status"]
    for host in apps().values():
        config = told(host, "tool-web-1-a")["HostConfig"]
        assert config["CapAdd"] == ["NET_BIND_SERVICE"]
        assert config["Binds"] == ["shop-uploads:/uploads:ro"]
    paths = ("/scratch/a", "/tmp/a", "/uploads/b")
    written = {path: ask(edge(), Request(TOOL, f"/write{path}"))[0].body for path in paths}
    assert written == {"/scratch/a": "written", "/tmp/a": "written", "/uploads/b": "EROFS"}


def test_the_environment_is_for_root_only() -> None:
    for name, host in apps().items():
        files = host.check_output(f"find {STATE} -name '*.env'").split()
        assert len(files) == (5 if name == APPS[0] else 4)
        for path in files:
            assert (host.file(path).mode, host.file(path).user) == (0o600, "root")
        assert host.file(STATE).mode == 0o700
        others = [path for path in files if ".migrate." not in path]
        assert not [path for path in others if "canary-e4120f9bd86c" in host.file(path).content_string]
        assert "canary" not in host.check_output("ps -eo args")


def test_others_reach_what_was_declared_and_nothing_else() -> None:
    knocked: Mapping[str, Mapping[int, str]] = {
        "stack-app12": {22: "open", 8100: "open", 8201: "refused", 8200: "open", 3000: "silent", 4000: "silent"},
        "stack-data12": {22: "open", 3306: "open", 6379: "open", 4444: "silent"},
        "stack-edge13": {22: "open", 80: "open", 443: "open", 8081: "silent"},
    }
    program = (
        "import socket, sys\n"
        "for port in sys.argv[2:]:\n"
        "    try:\n"
        "        socket.create_connection((sys.argv[1], int(port)), 2).close(); print(port, 'open')\n"
        "    except ConnectionRefusedError:\n"
        "        print(port, 'refused')\n"
        "    except OSError:\n"
        "        print(port, 'silent')\n"
    )
    for name, ports in knocked.items():
        host = all_hosts()[name]
        source = edge() if name != "stack-edge13" else data()
        listed = " ".join(map(str, ports))
        answer = source.check_output(f"python3 -c %s {address_of(host, 4)} {listed}", program)
        found = {int(port): how for port, how in (line.split() for line in answer.splitlines())}
        assert found == ports, name
