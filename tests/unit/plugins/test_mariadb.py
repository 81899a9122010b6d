# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Settings of the mariadb role that cannot work, each with the sentence that an operator reads."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.plugin_utils import specs
from ansible_collections.fushuma.production.plugins.plugin_utils.mariadb import problems
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import sentences

OPTIONS = specs.role_options("mariadb")
USER = {"name": "app", "password": "canary-1f0e9d8c7b6a", "databases": ["shop"]}
SHOP = {"name": "shop"}
TLS = {"certificate": "/srv/chain.pem", "key": "/srv/key.pem", "authority": "/srv/ca.pem"}
POOL = {"host": "data1", "who": "shop web on app1", "replicas": 2, "processes": 8, "pools": 2, "limit": 10}


def said(**settings: Any) -> list[str]:
    given = {f"mariadb_{name}": value for name, value in {"databases": [SHOP], **settings}.items()}
    assert not specs.problems(OPTIONS, given), "the shape is wrong already"
    return sentences(problems(specs.filled(OPTIONS, given)))


def user(**settings: Any) -> dict[str, Any]:
    return {"users": [{**USER, **settings}]}


def granted(database: str, *privileges: str) -> dict[str, Any]:
    return user(grants=[{"database": database, "privileges": list(privileges)}])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"databases": []},
        user(),
        user(former_password="canary-0000aaaa1111", connections=20),
        user(role="exporter", databases=[]),
        user(role="backup", databases=[]),
        user(role="migrate"),
        {"users": [USER, {"name": "former", "state": "absent"}]},
        {"users": [USER], "trusted_networks": ["172.16.0.0/12"], **user(hosts=["172.18.0.0/16", "172.17.0.2"])},
        {"tls": TLS, **user(hosts=["10.0.1.21", "10.0.1.0/24", "fd00::1", "localhost"])},
        user(hosts=["127.0.0.1", "::1", "127.0.0.0/8"]),
        granted("shop", "create view", "DROP"),
        granted("*", "PROCESS", "show databases"),
        granted("performance_schema", "SELECT"),
        {"addresses": ["127.0.0.1", "10.0.1.31"], "from": ["10.0.1.0/24"]},
        {"databases": [{"name": "old", "character_set": "latin1", "collation": "latin1_swedish_ci"}]},
        {"settings": {"sort_buffer_size": "1M", "event-scheduler": True}},
        {"binlog_days": 14, "slow_seconds": 0.0},
        {"connections": [{"host": "data1", "who": "shop web", "limit": 128}]},
        {"connections": [POOL], "max_connections": 362},
        {
            "connections": [POOL],
            "max_connections": 352,
            "reserved_connections": {"admin": 0, "exporter": 0, "backup": 0},
        },
    ],
)
def test_settings_that_work(settings: dict[str, Any]) -> None:
    assert said(**settings) == []


@pytest.mark.parametrize(
    ("settings", "setting", "why"),
    [
        ({"port": 0}, "port", "ports go from 1 to 65535"),
        ({"memory": "256M"}, "memory", "it is no size"),
        ({"memory": "1mb"}, "memory", "less than the server can work with"),
        ({"max_connections": 9}, "max_connections", "10 to 100000"),
        ({"binlog_days": 100}, "binlog_days", "1 to 99 days"),
        ({"slow_seconds": -1.0}, "slow_seconds", "less than no time"),
        ({"reserved_connections": {"admin": -1}}, "reserved_connections.admin", "less than none"),
        ({"addresses": ["localhost"]}, "addresses[0]", "it is no address"),
        ({"addresses": []}, "addresses", "it would listen nowhere"),
        ({"from": "world"}, "from", "only machines that are named may connect"),
        ({"from": ["10.0.0.0/8"]}, "from", "loopback addresses only"),
        ({"trusted_networks": ["docker0"]}, "trusted_networks[0]", "it is no network"),
        ({"databases": [SHOP, SHOP]}, "databases[1].name", "databases[0] has it already"),
        ({"databases": [{"name": "mysql"}]}, "databases[0].name", "the server or its installer"),
        ({"databases": [{"name": "a`b"}]}, "databases[0].name", "it is no plain name"),
        ({"databases": [{**SHOP, "character_set": "utf8'"}]}, "databases[0].character_set", "it is no character set"),
        ({"databases": [{**SHOP, "character_set": "latin1"}]}, "databases[0].collation", "character set latin1"),
        ({"users": [USER, USER]}, "users[1].name", "users[0] has it already"),
        (user(name="root"), "users[0].name", "the server needs a user of that name itself"),
        (user(name="o'app"), "users[0].name", "it is no name for a user"),
        (user(name="a b", state="absent"), "users[0].name", "it is no name for a user"),
        (user(password=""), "users[0].password", "nobody is let in without one"),
        (user(former_password=USER["password"]), "users[0].former_password", "it is the present one"),
        (user(connections=-1), "users[0].connections", "less than none"),
        (user(role="exporter"), "users[0].databases", "and no data"),
        (user(databases=[]), "users[0].databases", "nothing to work with"),
        (user(databases=["shop", "wine"]), "users[0].databases[1]", "mariadb_databases has none of that name"),
        (user(hosts=[]), "users[0].hosts", "it could come from nowhere"),
        (user(hosts=["%"]), "users[0].hosts[0]", "neither an address nor a network"),
        (user(hosts=["app1.local"]), "users[0].hosts[0]", "the server resolves no names"),
        (user(hosts=["0.0.0.0/0"]), "users[0].hosts[0]", "it is the whole world"),
        ({"tls": TLS, **user(hosts=["fd00::/64"])}, "users[0].hosts[0]", "networks of IPv4 only"),
        (user(hosts=["10.0.1.21"]), "users[0].hosts[0]", "the server has no certificate"),
        (granted("wine", "SELECT"), "users[0].grants[0].database", "mariadb_databases has none of that name"),
        (granted("mysql", "SELECT"), "users[0].grants[0].database", "mariadb_databases has none of that name"),
        (granted("*", "SUPER"), "users[0].grants[0].privileges[0]", "no privilege on the whole server"),
        (granted("*", "PROCESS", "file"), "users[0].grants[0].privileges[1]", "no privilege on the whole server"),
        (granted("*", "ALL"), "users[0].grants[0].privileges[0]", "no privilege on the whole server"),
        (granted("*", "SELECT"), "users[0].grants[0].privileges[0]", "no privilege on the whole server"),
        (granted("shop", "GRANT OPTION"), "users[0].grants[0].privileges[0]", "no privilege on a database"),
        (granted("shop", "ALL PRIVILEGES"), "users[0].grants[0].privileges[0]", "no privilege on a database"),
        (granted("sys", "INSERT"), "users[0].grants[0].privileges[0]", "no privilege on a database"),
        ({"settings": {"a b": 1}}, "settings.a b", "it is no name of a variable"),
        ({"settings": {"loose_x": 1}}, "settings.loose_x", "would pass over what it does not know"),
        ({"settings": {"max-connections": 1}}, "settings.max-connections", "Write mariadb_max_connections"),
        ({"settings": {"skip_log_bin": 1}}, "settings.skip_log_bin", "Write mariadb_binlog_days"),
        ({"settings": {"skip-ssl": True}}, "settings.skip-ssl", "Write mariadb_tls"),
        ({"settings": {"local_infile": "ON"}}, "settings.local_infile", "told to send their own files"),
        ({"settings": {"skip-grant-tables": True}}, "settings.skip-grant-tables", "everybody would be let in"),
        ({"settings": {"sql_mode": "A\nuser = root"}}, "settings.sql_mode", "a variable has one value"),
        ({"settings": {"sql_mode": ["A"]}}, "settings.sql_mode", "a variable has one value"),
        ({"connections": [POOL, {**POOL, "host": "data2"}]}, "connections", "they are for several hosts"),
        ({"connections": [{**POOL, "pools": -1}]}, "connections[0].pools", "it is no number of things"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], setting: str, why: str) -> None:
    (found,) = said(**settings)
    assert found.startswith(f"mariadb_{setting} is ")
    assert why in found
    assert "canary" not in found


def test_connections_are_added_up_term_by_term() -> None:
    worker = {"host": "data1", "who": "shop worker on app1", "limit": 5}
    (found,) = said(connections=[POOL, worker])
    assert found == (
        "mariadb_max_connections is 151: applications may open 2 x 8 x 2 x 10 (shop web on app1) + "
        "1 x 1 x 1 x 5 (shop worker on app1) = 325 connections, a tenth more is 358, "
        "and 10 are kept (admin 5, exporter 3, backup 2). Write at least 368, or smaller pools."
    )
    assert said(connections=[POOL, worker], max_connections=367) != []
    assert said(connections=[POOL, worker], max_connections=368) == []
