# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Settings of the redis role that cannot work, each with the sentence that an operator reads."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.plugin_utils import specs
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import sentences
from ansible_collections.fushuma.production.plugins.plugin_utils.redis import problems
from ansible_collections.fushuma.production.plugins.plugin_utils.sizes import bytes_of

OPTIONS = specs.role_options("redis")
USER = {"name": "app", "password": "canary-1f0e9d8c7b6a"}


def said(*instances: dict[str, Any], **settings: Any) -> list[str]:
    given = {"redis_admin_password": "canary-a1b2c3d4e5f6", "redis_instances": list(instances), **settings}
    assert not specs.problems(OPTIONS, given), "the shape is wrong already"
    return sentences(problems(specs.filled(OPTIONS, given)))


def cache(**settings: Any) -> dict[str, Any]:
    return {"name": "cache", **settings}


def user(**settings: Any) -> dict[str, Any]:
    return cache(users=[{**USER, **settings}])


@pytest.mark.parametrize(
    "instances",
    [
        [],
        [cache()],
        [cache(), {"name": "jobs", "use": "queue", "port": 6380}],
        [cache(), {"name": "old", "state": "absent"}],
        [cache(addresses=["127.0.0.1", "10.0.1.31"], **{"from": ["10.0.0.0/8"]})],
        [cache(addresses=["10.0.1.31"])],
        [cache(use="queue", policy="noeviction", persistence="snapshot")],
        [cache(use="session", policy="volatile-ttl")],
        [user(role="exporter"), {"name": "two", "port": 1, "memory": "1gb"}],
        [
            user(
                former_password="canary-0000aaaa1111",
                keys=["a:*", "b"],
                commands=["+flushdb", "-@scripting", "+client|id"],
            )
        ],
        [cache(settings={"slowlog-max-len": 12})],
    ],
)
def test_settings_that_work(instances: list[dict[str, Any]]) -> None:
    assert said(*instances) == []


@pytest.mark.parametrize(
    ("instance", "setting", "why"),
    [
        (cache(name="Cache"), "name", "a unit and files are called by it"),
        (cache(port=70000), "port", "ports go from 1 to 65535"),
        (cache(memory="256"), "memory", "it is no size"),
        (cache(memory="256M"), "memory", "it is no size"),
        (cache(memory="100kb"), "memory", "less than an empty server takes"),
        (cache(addresses=[]), "addresses", "it would listen nowhere"),
        (cache(addresses=["localhost"]), "addresses[0]", "it is no address"),
        (cache(**{"from": "world"}), "from", "only machines that are named may connect"),
        (cache(**{"from": []}), "from", "only machines that are named may connect"),
        (cache(**{"from": ["10.0.0.0/8"]}), "from", "loopback addresses only"),
        (cache(addresses=["10.0.0.1"], **{"from": ["office"]}), "from[0]", "it is no network"),
        (cache(addresses=["10.0.0.1"], **{"from": ["::/0"]}), "from[0]", "it is the whole world"),
        (cache(use="queue", policy="allkeys-lru"), "policy", "a queue would lose jobs"),
        (cache(use="queue", persistence="none"), "persistence", "empty after a restart"),
        (cache(use="session", policy="allkeys-lfu"), "policy", "sessions that never end"),
        (cache(settings={"requirepass": "x"}), "settings.requirepass", "Write users"),
        (cache(settings={"MaxMemory": "1gb"}), "settings.MaxMemory", "Write memory"),
        (user(name="default"), "users[0].name", "the role has a user of that name itself"),
        (user(name="my app"), "users[0].name", "it is no name for a user"),
        (user(former_password=USER["password"]), "users[0].former_password", "it is the present one"),
        (user(keys=["a b"]), "users[0].keys[0]", "it is no pattern"),
        (user(channels=[""]), "users[0].channels[0]", "it is no pattern"),
        (user(commands=["flushdb"]), "users[0].commands[0]", "it is no rule"),
        (user(commands=["+@admin"]), "users[0].commands[0]", "could change or empty the whole server"),
        (cache(users=[USER, USER]), "users[1].name", "users[0] has it already"),
    ],
)
def test_settings_that_cannot_work(instance: dict[str, Any], setting: str, why: str) -> None:
    (found,) = said(instance)
    assert found.startswith(f"redis_instances[0].{setting} is ")
    assert why in found
    assert "canary" not in found


def test_two_of_a_kind() -> None:
    assert [one.partition(" is ")[0] for one in said(cache(), cache())] == [
        "redis_instances[1].name",
        "redis_instances[1].port",
    ]


def test_an_admin_needs_a_password() -> None:
    (found,) = said(cache(), redis_admin_password="")
    assert found.startswith("redis_admin_password is ")
    assert said(redis_admin_password="") == []
    assert said(cache(state="absent"), redis_admin_password="") == []


@pytest.mark.parametrize(("text", "size"), [("1kb", 1024), ("2gb", 2 * 1024**3), ("0mb", 0), ("1 mb", 0), ("mb", 0)])
def test_sizes(text: str, size: int) -> None:
    assert bytes_of(text) == size
