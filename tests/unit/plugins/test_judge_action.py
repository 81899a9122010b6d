"""The judge as a task: one role for the host at hand, or a playbook for the inventory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible_collections.fushuma.production.plugins.action import judge as action
from ansible_collections.fushuma.production.plugins.plugin_utils import judging, specs

SITE = Path(__file__).resolve().parents[3] / "playbooks" / "site.yml"


class HostVars(dict[str, dict[str, Any]]):
    """Ansible's hostvars, as far as the judge asks them."""

    def raw_get(self, name: str) -> dict[str, Any]:
        return self[name]


def task(**args: str) -> action.ActionModule:
    judging = action.ActionModule.__new__(action.ActionModule)
    judging._task = type("Task", (), {"args": args})()
    judging._templar = Templar(loader=DataLoader())
    return judging


@pytest.fixture(autouse=True)
def no_base(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(action.ActionBase, "run", lambda *_args: {})


def test_one_role_of_the_host_at_hand() -> None:
    good = task(role="nginx").run(None, {"inventory_hostname": "web1"})
    assert good == {"changed": False, "problems": [], "hosts": ["web1"]}
    bad = task(role="nginx").run(None, {"inventory_hostname": "web1", "nginx_http_port": "x"})
    sentence = 'web1: nginx_http_port is "x": a whole number is needed. Write for example 80.'
    assert bad["failed"]
    assert bad["problems"] == [sentence]
    assert bad["msg"] == f"1 setting cannot work; nothing was touched.\n{sentence}"


class Tagged(str):
    """A text as Ansible hands it over, with a tag of where it stands; no cache of plain texts finds it."""


def test_the_role_of_a_task_is_not_read_again() -> None:
    caches = (judging.yaml_of, specs.role_options)
    judging.read_ahead()
    read = [cache.cache_info().misses for cache in caches]
    assert task(role=Tagged("nginx")).run(None, {"inventory_hostname": "web1"})["hosts"] == ["web1"]
    assert [cache.cache_info().misses for cache in caches] == read


@pytest.fixture
def edge_only(tmp_path: Path) -> str:
    """A playbook that has something for one group."""
    playbook = tmp_path / "edge.yml"
    playbook.write_text("- hosts: edge\n  roles: [fushuma.production.nginx]\n", "utf-8")
    return str(playbook)


def test_a_playbook_for_the_whole_inventory(edge_only: str) -> None:
    hostvars = HostVars(b={"nginx_https_port": 0}, a={"nginx_http_port": "x"}, unrelated={"nginx_http_port": "x"})
    variables = {"groups": {"edge": ["b", "a"], "all": ["a", "b", "unrelated"]}, "hostvars": hostvars}
    found = task(playbook=edge_only).run(None, variables)
    assert found["hosts"] == ["a", "b"]
    assert [sentence.split(" ")[:2] for sentence in found["problems"]] == [
        ["a:", "nginx_http_port"],
        ["b:", "nginx_https_port"],
    ]
    assert found["msg"].startswith("2 settings cannot work; nothing was touched.\n")


def test_an_inventory_in_which_nothing_would_happen(edge_only: str) -> None:
    variables = {"groups": {"all": ["a"]}, "hostvars": HostVars(a={})}
    with pytest.raises(AnsibleActionFail, match="no host in any of the groups edge, so nothing would be done"):
        task(playbook=edge_only).run(None, variables)


def test_a_group_that_is_misspelt() -> None:
    variables = {"groups": {"all": ["a"], "egde": ["a"]}, "hostvars": HostVars(a={})}
    with pytest.raises(AnsibleActionFail, match="a group egde that no play is for, and no host in edge"):
        task(playbook=str(SITE)).run(None, variables)


@pytest.mark.parametrize("args", [{}, {"role": "nginx", "playbook": "x"}])
def test_one_of_both_is_asked_for(args: dict[str, str]) -> None:
    with pytest.raises(AnsibleActionFail):
        task(**args).run(None, {})


def test_connections_of_all_applications_are_added_up_in_preflight(tmp_path: Path) -> None:
    """A playbook hands over what applications of other hosts may open, and no host is contacted."""
    playbook = tmp_path / "data.yml"
    playbook.write_text(
        "- hosts: data\n"
        "  roles:\n"
        "    - role: fushuma.production.mariadb\n"
        "      mariadb_connections: >-\n"
        "        {{ groups['app'] | map('extract', hostvars, 'pools') | flatten\n"
        "           | selectattr('host', 'eq', inventory_hostname) }}\n",
        "utf-8",
    )
    pool = {"host": "data1", "who": "shop web", "processes": 8, "pools": 2, "limit": 10}
    groups = {"data": ["data1", "data2"], "app": ["app1", "app2"], "all": ["data1", "data2", "app1", "app2"]}
    hostvars = HostVars(
        data1={"groups": groups, "inventory_hostname": "data1"},
        data2={"groups": groups, "inventory_hostname": "data2"},
        app1={"pools": [pool]},
        app2={"pools": [pool, {**pool, "host": "data2", "processes": 1}]},
    )
    found = task(playbook=str(playbook)).run(None, {"groups": groups, "hostvars": hostvars})
    assert found["problems"] == [
        "data1: mariadb_max_connections is 151: applications may open 1 x 8 x 2 x 10 (shop web) + 1 x 8 x 2 x 10 "
        "(shop web) = 320 connections, a tenth more is 352, and 10 are kept (admin 5, exporter 3, backup 2). "
        "Write at least 362, or smaller pools."
    ]
