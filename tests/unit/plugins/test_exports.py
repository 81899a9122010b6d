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
    (metrics,) = asked("metrics", settings, playbook=str(playbook))
    assert (metrics["job"], metrics["user"]) == ("mariadb", "")
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
