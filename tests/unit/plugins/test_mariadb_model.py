# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the mariadb role writes down."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.fushuma.production.plugins.filter.mariadb import FilterModule
from ansible_collections.fushuma.production.plugins.plugin_utils.mariadb_model import native_hash, needs_tls

from ..roles.render import Role

model = FilterModule().filters()["mariadb_model"]
USER = {"name": "app", "password": "canary-1f0e9d8c7b6a", "databases": ["my_shop"]}
TLS = {"certificate": "/srv/chain.pem", "key": "/srv/key.pem", "authority": "/srv/ca.pem"}


def accounts(*users: dict[str, Any], **settings: Any) -> dict[str, Any]:
    databases = [{"name": "my_shop"}, {"name": "wine"}]
    found: dict[str, Any] = model({"mariadb_databases": databases, "mariadb_users": list(users), **settings})[
        "accounts"
    ]
    return found


def rights(**settings: Any) -> dict[str, list[str]]:
    user = {**USER, **{name: value for name, value in settings.items() if not name.startswith("mariadb_")}}
    role = {name: value for name, value in settings.items() if name.startswith("mariadb_")}
    found: dict[str, list[str]] = accounts(user, **role)["accounts"][0]["rights"]
    return found


def test_a_hash_as_the_server_makes_it() -> None:
    # SELECT PASSWORD('mariadb')
    assert native_hash("mariadb") == "*54958E764CE10E50764C2EECBB71D01F08549980"


def test_an_account_for_each_of_its_hosts() -> None:
    user = {**USER, "hosts": ["localhost", "127.0.0.1", "10.0.1.0/24", "10.0.2.7", "fd00::1", "172.17.0.0/16"]}
    found = accounts({**user, "former_password": "canary-before-00aa"}, mariadb_trusted_networks=["172.16.0.0/12"])
    assert {one["host"]: one["tls"] for one in found["accounts"]} == {
        "localhost": False,
        "127.0.0.1": False,
        "::1": False,
        "10.0.1.0/255.255.255.0": True,
        "10.0.2.7": True,
        "fd00::1": True,
        "172.17.0.0/255.255.0.0": False,
    }
    assert len(found["accounts"]) == 7
    assert found["accounts"][0]["hashes"] == [native_hash("canary-1f0e9d8c7b6a"), native_hash("canary-before-00aa")]
    assert "canary" not in str(found)


def test_users_who_shall_not_be() -> None:
    found = accounts({"name": "former", "state": "absent"})
    assert (found["accounts"], found["absent"]) == ([], ["former"])
    assert found["databases"][1] == {"name": "wine", "character_set": "utf8mb4", "collation": "utf8mb4_unicode_ci"}


def test_rights_of_each_role() -> None:
    app = rights()
    assert app.keys() == {r"`my\_shop`.*"}, "an underscore would stand for any letter"
    assert {"SELECT", "DELETE", "EXECUTE"} <= set(app[r"`my\_shop`.*"])
    assert not {"CREATE", "DROP", "ALTER", "TRIGGER"} & set(app[r"`my\_shop`.*"])
    assert {"CREATE", "DROP", "ALTER", "SELECT"} <= set(rights(role="migrate")[r"`my\_shop`.*"])
    assert rights(role="exporter", databases=[]) == {
        "*.*": ["BINLOG MONITOR", "PROCESS", "SLAVE MONITOR"],
        "`performance_schema`.*": ["SELECT"],
    }
    backup = rights(role="backup", databases=[])
    assert backup.keys() == {r"`my\_shop`.*", "`wine`.*", "`mysql`.`proc`"}
    assert rights(role="backup").keys() == {r"`my\_shop`.*", "`mysql`.`proc`"}
    assert rights(role="backup", mariadb_binlog_days=7)["*.*"] == ["BINLOG MONITOR", "RELOAD"]


def test_further_rights() -> None:
    grants = [{"database": "*", "privileges": ["process"]}, {"database": "my_shop", "privileges": ["DROP"]}]
    found = rights(grants=grants)
    assert found["*.*"] == ["PROCESS"]
    assert {"DROP", "SELECT"} <= set(found[r"`my\_shop`.*"])


@pytest.mark.parametrize(
    ("host", "trusted", "wanted"),
    [
        ("localhost", [], False),
        ("127.0.0.0/8", [], False),
        ("10.0.0.1", [], True),
        ("10.0.0.1", ["10.0.0.0/24"], False),
        ("10.0.0.0/16", ["10.0.0.0/24"], True),
        ("fd00::1", ["10.0.0.0/24"], True),
        ("fd00::1", ["fd00::/8"], False),
    ],
)
def test_who_comes_from_elsewhere_speaks_tls(host: str, trusted: list[str], wanted: bool) -> None:
    assert needs_tls(host, trusted) is wanted


def test_variables() -> None:
    found = model({})["variables"]
    assert (found["bind_address"], found["local_infile"], found["slow_query_log"]) == ("127.0.0.1,::1", "OFF", "ON")
    assert "log_bin" not in found
    assert "ssl_cert" not in found
    settings = {"sort-buffer-size": "1M", "event_scheduler": True, "key_buffer_size": "8M"}
    found = model(
        {"mariadb_binlog_days": 7, "mariadb_slow_seconds": 0, "mariadb_tls": TLS, "mariadb_settings": settings}
    )["variables"]
    assert (found["log_bin"], found["expire_logs_days"]) == ("mariadb-bin", 7)
    assert (found["slow_query_log"], found["ssl_cert"]) == ("OFF", "/srv/chain.pem")
    assert (found["sort_buffer_size"], found["event_scheduler"], found["key_buffer_size"]) == ("1M", "ON", "8M")


def test_memory_is_that_of_buffers_and_of_all_connections() -> None:
    megabyte = 1024**2
    found = model({"mariadb_memory": "1gb", "mariadb_max_connections": 100})
    once, each = (1024 + 16 + 16 + 32) * megabyte, 3100672
    assert found["memory"] == once + 100 * each
    assert found["memory_terms"] == "1088 MB of buffers and 100 connections of 3.0 MB"
    wider = model(
        {"mariadb_memory": "1gb", "mariadb_max_connections": 100, "mariadb_settings": {"sort_buffer_size": "4M"}}
    )
    assert wider["memory"] == found["memory"] + 100 * 2 * megabyte
    odd = model(
        {"mariadb_memory": "1gb", "mariadb_max_connections": 100, "mariadb_settings": {"sort_buffer_size": "x"}}
    )
    assert odd["memory"] == found["memory"]


def test_figures_of_the_budget_and_no_figures() -> None:
    pools = [{"host": "data1", "who": 'shop "web"', "processes": 4, "limit": 5}]
    path = "/var/lib/prometheus/node-exporter/mariadb_connection_budget.prom"
    figures = Role("mariadb", {"mariadb_connections": pools}).files[path]
    assert 'mariadb_connection_budget_application_wanted{application="shop \\"web\\""} 20\n' in figures
    assert "\nmariadb_connection_budget_wanted 20\n" in figures
    assert "\nmariadb_connection_budget_reserved 10\n" in figures
    assert path not in Role("mariadb", {"mariadb_metrics_folder": ""}).files


def test_redis_waits_for_its_addresses_too() -> None:
    def sysctl(*addresses: str) -> str:
        instances = [{"name": "cache"}, {"name": "jobs", "port": 6380, "addresses": list(addresses)}]
        settings = {"redis_instances": instances, "redis_admin_password": "canary-a1b2c3d4e5f6"}
        return Role("redis", settings).files["/etc/sysctl.d/90-redis.conf"]

    assert "-net.ipv6.ip_nonlocal_bind = 1" in sysctl("127.0.0.1", "172.17.0.1")
    assert "nonlocal" not in sysctl("127.0.0.1", "::1")
    assert "nonlocal" not in sysctl("0.0.0.0", "::")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ([], "expects the role's settings as a dict, not list"),
        ({"mariadb_port": "x"}, "mariadb_port is"),
        ({"mariadb_users": [{**USER, "hosts": ["here"]}]}, "'here' does not appear to be an IPv4 or IPv6 network"),
    ],
)
def test_the_filter_says_what_it_cannot_work_with(settings: Any, words: str) -> None:
    with pytest.raises(AnsibleFilterError, match=words):
        model(settings)
