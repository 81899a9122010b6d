"""What roles tell others, as a playbook asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import lookup_loader
from ansible.template import Templar
from ansible_collections.fushuma.production.plugins.plugin_utils import specs

SITE = {"name": "www.fushuma.com", "root": "/srv/www"}


def asked(part: str, variables: dict[str, Any], **options: Any) -> list[Any]:
    known = {"inventory_hostname": "web1", "groups": {"all": ["web1"], "edge": ["web1"]}, **variables}
    known.setdefault("hostvars", HostVars({known["inventory_hostname"]: known}))
    templar = Templar(loader=DataLoader(), variables=known)
    plugin = lookup_loader.get("fushuma.production.exports", loader=DataLoader(), templar=templar)
    found: list[Any] = plugin.run([part], known, **options)
    return found


def test_the_ports_of_all_roles_of_the_host() -> None:
    listens = asked("listens", {"nginx_sites": [SITE], "nginx_https_port": 8443})
    assert {one["port"]: one["from"] for one in listens if one["setting"].startswith("nginx_")} == {
        80: "world",
        8443: "world",
        8081: "host",
    }


def test_a_part_that_no_role_has() -> None:
    assert asked("nothing", {"nginx_sites": [SITE]}) == []


def test_a_host_without_roles(tmp_path: Path) -> None:
    playbook = tmp_path / "own.yml"
    playbook.write_text("- hosts: elsewhere\n  roles: [fushuma.production.nginx]\n")
    assert asked("listens", {}, playbook=str(playbook)) == []


@pytest.mark.parametrize("group", ["edge", "all"])
def test_another_playbook_says_who_has_which_role(tmp_path: Path, group: str) -> None:
    playbook = tmp_path / "own.yml"
    playbook.write_text(f"- hosts: {group}\n  roles: [fushuma.production.nginx]\n")
    assert asked("listens", {}, playbook=str(playbook)) != []


def test_sshd_listens_for_the_world_on_each_port_and_address(tmp_path: Path) -> None:
    playbook = tmp_path / "own.yml"
    playbook.write_text("- hosts: all\n  roles: [fushuma.production.sshd]\n")
    settings = {"sshd_ports": [22, 2222], "sshd_listen_addresses": ["10.0.0.1", "::1"]}
    assert asked("listens", settings, playbook=str(playbook)) == [
        {"port": port, "address": address, "setting": f"sshd_ports[{number}]", "from": "world", "limited": True}
        for number, port in enumerate(settings["sshd_ports"])
        for address in settings["sshd_listen_addresses"]
    ]
    kept = {"sshd_ports": [2222], "__sshd_applied": {"kept_ports": [22]}}
    found = asked("listens", kept, playbook=str(playbook))
    assert [(one["port"], one["setting"]) for one in found] == [
        (2222, "sshd_ports[0]"),
        (22, "sshd_ports (the former one)"),
    ]
    (default,) = asked("listens", {}, playbook=str(playbook))
    assert (default["port"], default["address"]) == (22, "")


def test_redis_tells_where_its_instances_are_and_how_they_are_seen(tmp_path: Path) -> None:
    playbook = tmp_path / "own.yml"
    playbook.write_text("- hosts: all\n  roles: [fushuma.production.redis]\n")
    instances = [
        {"name": "cache", "addresses": ["127.0.0.1", "10.0.1.31"], "from": ["10.0.1.0/24"]},
        {"name": "old", "port": 6380, "state": "absent"},
    ]
    settings = {"redis_instances": instances}
    common = {"port": 6379, "setting": "redis_instances[0].port", "from": ["10.0.1.0/24"]}
    assert asked("listens", settings, playbook=str(playbook)) == [
        {**common, "address": "127.0.0.1"},
        {**common, "address": "10.0.1.31"},
    ]
    assert asked("health", settings, playbook=str(playbook)) == [
        {"name": "redis cache", "units": ["redis-server@cache.service"]}
    ]
    assert asked("logs", settings, playbook=str(playbook)) == [{"unit": "redis-server@cache.service", "job": "redis"}]


def test_redis_tells_who_reads_its_figures(tmp_path: Path) -> None:
    playbook = tmp_path / "own.yml"
    playbook.write_text("- hosts: all\n  roles: [fushuma.production.redis]\n")
    reader = {"name": "figures", "role": "exporter", "password": "canary-2a7b1c9d4e50"}
    files = {"certificate": "/srv/chain.pem", "key": "/srv/key.pem", "authority": "/srv/chain.pem"}
    instances = [
        {"name": "cache", "addresses": ["10.0.1.31", "127.0.0.1"], "users": [{**reader, "role": "app"}, reader]},
        {"name": "jobs", "port": 6380, "addresses": ["10.0.1.31"], "users": [reader], "tls": files},
        {"name": "wide", "port": 6381, "addresses": ["0.0.0.0"], "users": [reader]},
        {"name": "six", "port": 6382, "addresses": ["::"], "users": [reader]},
        {"name": "nobody", "port": 6383},
        {"name": "old", "port": 6384, "state": "absent", "users": [reader]},
    ]
    found = asked("metrics", {"redis_instances": instances}, playbook=str(playbook))
    assert [(one["name"], one["host"], one["port"], one["tls"]) for one in found] == [
        ("cache", "127.0.0.1", 6379, False),
        ("jobs", "10.0.1.31", 6380, True),
        ("wide", "127.0.0.1", 6381, False),
        ("six", "::1", 6382, False),
    ]
    assert {(one["job"], one["user"], one["password"]) for one in found} == {("redis", "figures", reader["password"])}
    assert specs.problems(specs.role_options("exporters"), {"exporters_sources": found}) == []


def test_docker_tells_that_there_are_containers(tmp_path: Path) -> None:
    playbook = tmp_path / "own.yml"
    playbook.write_text("- hosts: all\n  roles: [fushuma.production.docker]\n")
    assert asked("metrics", {}, playbook=str(playbook)) == [{"job": "containers"}]


def test_nginx_tells_where_visitors_find_its_sites(tmp_path: Path) -> None:
    playbook = tmp_path / "own.yml"
    playbook.write_text("- hosts: all\n  roles: [fushuma.production.nginx]\n")
    own = {"name": "staging.fushuma.com", "root": "/srv/www", "certificate": {"source": "selfsigned"}}
    settings: dict[str, Any] = {"nginx_sites": [SITE, own]}
    assert asked("probes", settings, playbook=str(playbook)) == [
        {
            "host": "web1",
            "name": "www.fushuma.com",
            "url": "https://www.fushuma.com/",
            "module": "http",
            "insecure": False,
        },
        {
            "host": "web1",
            "name": "staging.fushuma.com",
            "url": "https://staging.fushuma.com/",
            "module": "http",
            "insecure": True,
        },
    ]
    settings |= {"nginx_public_https_port": 8443, "nginx_probe_address": "10.0.1.11:443"}
    (site, _own) = asked("probes", settings, playbook=str(playbook))
    assert (site["url"], site["address"]) == ("https://www.fushuma.com:8443/", "10.0.1.11:443")


def test_redis_tells_how_to_have_its_data_written(tmp_path: Path) -> None:
    playbook = tmp_path / "own.yml"
    playbook.write_text("- hosts: all\n  roles: [fushuma.production.redis]\n")
    instances = [
        {"name": "cache"},
        {"name": "jobs", "use": "queue", "settings": {"dbfilename": "jobs.rdb"}},
        {"name": "pages", "persistence": "snapshot"},
        {"name": "votes", "use": "session", "persistence": "none"},
        {"name": "old", "use": "queue", "state": "absent"},
    ]
    jobs, pages = asked("backup", {"redis_instances": instances, "redis_server": "valkey"}, playbook=str(playbook))
    assert jobs == {
        "kind": "redis",
        "instance": "jobs",
        "server": "valkey",
        "folder": "/var/lib/valkey/jobs",
        "rdb": "/var/lib/valkey/jobs/jobs.rdb",
        "unit": "valkey-server@jobs.service",
        "cli": ["/usr/local/sbin/valkey-admin", "jobs"],
    }
    assert (pages["instance"], pages["rdb"]) == ("pages", "/var/lib/valkey/pages/dump.rdb")


def test_what_a_host_has_to_back_up_is_handed_over() -> None:
    """As site.yml asks for it, and as the role takes it."""
    groups = {"all": ["all1"], "edge": ["all1"], "data": ["all1"], "app": ["all1"]}
    web = {"name": "web", "port": 3000, "volumes": [{"source": "uploads", "target": "/u"}]}
    settings = {
        "groups": groups,
        "nginx_acme": {"email": "ops@fushuma.com"},
        "nginx_sites": [{"name": "www.fushuma.com", "upstream": {"servers": ["127.0.0.1:3000"]}}],
        "redis_instances": [{"name": "jobs", "use": "queue"}],
        "mariadb_databases": [{"name": "shop"}],
        "app_applications": [{"name": "shop", "image": {"build": "/srv/shop"}, "processes": [web]}],
    }
    found = asked("backup", {**settings, "inventory_hostname": "all1"})
    shown = [(one["kind"], one.get("path") or one.get("volume") or one.get("instance") or "") for one in found]
    assert shown == [
        ("path", "/etc/ssh"),
        ("path", "/etc/production-firewall"),
        ("redis", "jobs"),
        ("mariadb", ""),
        ("path", "/etc/nginx"),
        ("path", "/etc/letsencrypt"),
        ("volume", "uploads"),
    ]
    assert specs.problems(specs.role_options("backup"), {"backup_sources": found}) == []
    asking = {**settings, "nginx_sites": [{**settings["nginx_sites"][0], "certificate": {"source": "selfsigned"}}]}
    assert {"kind": "path", "path": "/etc/letsencrypt"} not in asked("backup", {**asking, "inventory_hostname": "all1"})


def test_mariadb_tells_where_it_is_and_what_there_is_to_back_up(tmp_path: Path) -> None:
    playbook = tmp_path / "own.yml"
    playbook.write_text("- hosts: all\n  roles: [fushuma.production.mariadb]\n")
    settings = {
        "mariadb_addresses": ["10.0.1.31"],
        "mariadb_from": ["10.0.1.0/24"],
        "mariadb_databases": [{"name": "shop"}],
        "mariadb_users": [
            {"name": "saver", "role": "backup", "password": "canary-1f0e9d8c7b6a"},
            {"name": "figures", "role": "exporter", "state": "absent"},
        ],
    }
    assert asked("listens", settings, playbook=str(playbook)) == [
        {"port": 3306, "address": "10.0.1.31", "setting": "mariadb_port", "from": ["10.0.1.0/24"]}
    ]
    assert asked("backup", settings, playbook=str(playbook)) == [
        {"kind": "mariadb", "databases": ["shop"], "user": "saver"}
    ]
    budget = {"job": "mariadb", "textfile": "/var/lib/prometheus/node-exporter/mariadb_connection_budget.prom"}
    assert asked("metrics", settings, playbook=str(playbook)) == [budget]
    reader = {"name": "figures", "role": "exporter", "password": "canary-2a7b1c9d4e50"}
    by_socket = {**settings, "mariadb_users": [reader], "mariadb_metrics_folder": ""}
    assert asked("metrics", by_socket, playbook=str(playbook)) == [
        {
            "job": "mariadb",
            "socket": "/run/mysqld/mysqld.sock",
            "port": 3306,
            "user": "figures",
            "password": "canary-2a7b1c9d4e50",
        }
    ]
    elsewhere = {**settings, "mariadb_users": [{**reader, "hosts": ["10.0.1.0/24"]}]}
    assert asked("metrics", elsewhere, playbook=str(playbook)) == [budget]
    (memory,) = asked("memory", settings, playbook=str(playbook))
    assert (memory["setting"], memory["bytes"] > 256 * 1024**2) == ("mariadb_memory", True)


class HostVars(dict[str, dict[str, Any]]):
    """Ansible's hostvars, as far as the lookup asks them."""

    def raw_get(self, name: str) -> dict[str, Any]:
        return self[name]


def test_the_exports_of_other_hosts_with_their_own_variables(tmp_path: Path) -> None:
    playbook = tmp_path / "own.yml"
    playbook.write_text("- hosts: data\n  roles: [fushuma.production.mariadb]\n")
    groups = {"all": ["web1", "data1", "data2"], "data": ["data1", "data2"]}
    common = {"groups": groups, "mariadb_databases": [{"name": "shop"}]}
    hostvars = HostVars(
        data1={**common, "inventory_hostname": "data1", "mariadb_port": 3307, "mariadb_addresses": ["10.0.0.1"]},
        data2={**common, "inventory_hostname": "data2", "mariadb_addresses": ["10.0.0.2"]},
        web1=common,
    )
    settings = {"groups": groups, "hostvars": hostvars}
    found = asked("listens", settings, playbook=str(playbook), hosts=["web1", "data1", "data2"])
    assert [(one["address"], one["port"]) for one in found] == [("10.0.0.1", 3307), ("10.0.0.2", 3306)]
    assert asked("listens", settings, playbook=str(playbook)) == []
    assert asked("listens", settings, playbook=str(playbook), hosts=[]) == []


@pytest.mark.parametrize("part", ["listens", "health", "logs", "metrics", "backup", "memory"])
def test_no_mariadb_without_a_database(tmp_path: Path, part: str) -> None:
    playbook = tmp_path / "own.yml"
    playbook.write_text("- hosts: all\n  roles: [fushuma.production.mariadb]\n")
    assert asked(part, {}, playbook=str(playbook)) == []
    assert asked(part, {"mariadb_databases": [{"name": "shop"}]}, playbook=str(playbook)) != []


def test_connections_of_the_applications_of_all_hosts() -> None:
    """As site.yml asks for a database."""
    pool = {"host": "data1", "processes": 4, "pools": 2, "limit": 5}
    web = {"name": "web", "port": 3000, "replicas": 2, "connections": [pool]}
    shop = {"name": "shop", "image": {"build": "/srv/shop"}, "processes": [web]}
    groups = {"all": ["app1", "data1"], "app": ["app1"], "data": ["data1"]}
    hostvars = HostVars(app1={"groups": groups, "inventory_hostname": "app1", "app_applications": [shop]})
    known = {"groups": groups, "inventory_hostname": "data1", "hostvars": hostvars}
    (found,) = asked("connections", known, hosts=["app1"])
    assert (found["host"], found["processes"], found["pools"], found["limit"]) == ("data1", 4, 2, 5)
    assert "app1" in found["who"]


def test_what_a_playbook_hands_to_a_role_counts_for_what_the_role_tells(tmp_path: Path) -> None:
    playbook = tmp_path / "own.yml"
    playbook.write_text(
        "- hosts: all\n  roles:\n    - role: fushuma.production.sshd\n      sshd_ports: '{{ [given] }}'\n"
    )
    (found,) = asked("listens", {"given": 2222}, playbook=str(playbook))
    assert found["port"] == 2222


def test_what_can_be_asked_of_all_hosts(tmp_path: Path) -> None:
    """As a playbook wires it: each host's exporters are handed what the roles of the same host tell."""
    playbook = tmp_path / "own.yml"
    playbook.write_text(
        "- hosts: data\n  roles: [fushuma.production.redis]\n"
        "- hosts: all\n  roles:\n    - role: fushuma.production.exporters\n"
        "      exporters_sources: >-\n"
        f"        {{{{ query('fushuma.production.exports', 'metrics', playbook='{playbook}') }}}}\n"
        "      exporters_blackbox: \"{{ inventory_hostname in groups['ops'] | default([]) }}\"\n"
    )
    groups = {"all": ["data1", "data2", "ops1"], "data": ["data1", "data2"], "ops": ["ops1"]}
    reader = {"name": "figures", "role": "exporter", "password": "canary-2a7b1c9d4e50"}
    hostvars = HostVars(
        data1={"groups": groups, "redis_instances": [{"name": "cache", "users": [reader]}]},
        data2={"groups": groups, "redis_instances": [{"name": "jobs", "port": 6380, "users": [reader]}]},
        ops1={"groups": groups, "exporters_address": "10.0.1.50"},
    )
    for name, variables in hostvars.items():
        variables["inventory_hostname"] = name
    known = {"inventory_hostname": "ops1", "groups": groups, "exporters_address": "10.0.1.50", "hostvars": hostvars}
    found = asked("scrapes", known, playbook=str(playbook), hosts=groups["all"])
    assert [(one["job"], one["address"], one["labels"]["instance"]) for one in found] == [
        ("node", "127.0.0.1:9100", "data1"),
        ("redis", "127.0.0.1:9121", "data1/cache"),
        ("node", "127.0.0.1:9100", "data2"),
        ("redis", "127.0.0.1:9121", "data2/jobs"),
        ("node", "10.0.1.50:9100", "ops1"),
        ("blackbox", "10.0.1.50:9115", "ops1"),
    ]
    assert "canary" not in str(found)


def test_a_task_works_out_the_same_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables change while a run goes on, but not within a task."""
    playbook = tmp_path / "own.yml"
    playbook.write_text("- hosts: all\n  roles: [fushuma.production.sshd]\n")

    def port(number: int, part: str = "listens") -> list[int]:
        return [one.get("port", 0) for one in asked(part, {"sshd_ports": [number]}, playbook=str(playbook))]

    assert (port(22), port(2222)) == ([22], [2222])
    monkeypatch.setattr("multiprocessing.parent_process", lambda: object())
    assert (port(22), port(2222)) == ([22], [22])
    assert port(22, "health") == [0]
