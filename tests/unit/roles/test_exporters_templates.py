# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the exporters role writes and does, with what the other roles of a host tell it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.plugin_utils import specs

from .render import Role

READER = {"name": "figures", "role": "exporter", "password": "canary-2a7b1c9d4e50"}
SYSTEMD = Path("/etc/systemd/system")


def sources() -> list[dict[str, Any]]:
    """What the roles of a host with everything say of themselves."""
    web = {"name": "web", "port": 3000, "metrics": "/metrics"}
    roles = [
        Role("nginx", {"nginx_sites": [{"name": "www.fushuma.com", "root": "/srv/www"}]}),
        Role("redis", {"redis_instances": [{"name": "cache", "users": [READER]}]}),
        Role("mariadb", {"mariadb_databases": [{"name": "shop"}], "mariadb_users": [READER]}),
        Role("docker", {}),
        Role("app", {"app_applications": [{"name": "shop", "image": {"build": "/srv"}, "processes": [web]}]}),
        Role("backup", {"backup_repositories": [{"name": "a", "kind": "local", "path": "/srv/b", "password": "x"}]}),
    ]
    return [one for role in roles for one in role.exports["metrics"]]


@pytest.fixture(scope="module")
def whole() -> Role:
    return Role("exporters", {"exporters_sources": sources(), "exporters_blackbox": True, "groups": {}})


def test_what_roles_tell_is_what_it_takes(whole: Role) -> None:
    given = whole.settings["exporters_sources"]
    assert specs.problems(specs.role_options("exporters"), {"exporters_sources": given}) == []
    ((_judge, judged), (_module, task)) = whole.tasks
    assert judged == {"role": "exporters"}
    assert len(task["units"]) == 7
    assert task["replaces"] == ["prometheus-node-exporter-apt.timer"]
    assert task["validate"] == [
        ["/usr/bin/prometheus-blackbox-exporter", "--config.file=/etc/prometheus/blackbox.yml", "--config.check"]
    ]
    assert {one["job"] for one in whole.exports["scrapes"]} == {"node", "nginx", "redis", "mariadb", "blackbox", "app"}


def test_a_host_of_nothing() -> None:
    role = Role("exporters", {})
    (_judge, (_module, task)) = role.tasks
    assert task["packages"] == ["prometheus-node-exporter", "openssl", "python3"]
    assert task["validate"] == []
    assert [path for path in role.files if path.startswith("/etc/default/")] == [
        "/etc/default/prometheus-node-exporter"
    ]
    assert [one["port"] for one in role.exports["listens"]] == [9100]


def test_the_program_is_brought_whole(whole: Role) -> None:
    folder = Path(specs.ROLES.parent, "plugins/module_utils/figures")
    brought = {path for path in whole.files if path.startswith("/usr/local/lib/production-figures/figures/")}
    assert {Path(path).name for path in brought} == {path.name for path in folder.glob("*.py")}


def test_secrets_are_where_they_belong(whole: Role) -> None:
    holding = {path for path, text in whole.files.items() if "canary" in text}
    assert holding == {"/etc/prometheus-exporters/redis.json", "/etc/prometheus-exporters/mysqld.cnf"}
    redis = whole.files[f"{SYSTEMD}/prometheus-redis-exporter.service.d/production.conf"]
    assert "LoadCredential=redis.json:/etc/prometheus-exporters/redis.json\n" in redis
    assert "LoadCredential" not in whole.files[f"{SYSTEMD}/prometheus-node-exporter.service.d/production.conf"]


def test_only_the_exporter_of_the_host_looks_around(whole: Role) -> None:
    for name in ("node", "nginx", "redis", "mysqld", "blackbox"):
        text = whole.files[f"{SYSTEMD}/prometheus-{name}-exporter.service.d/production.conf"]
        assert ("ProtectProc=invisible\n" in text) == (name != "node")
        assert ("AF_NETLINK" in text) == (name == "node")
        assert "CapabilityBoundingSet=\n" in text


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
def test_systemd_takes_the_units(whole: Role, tmp_path: Path) -> None:
    for path, text in whole.files.items():
        if Path(path).parent == SYSTEMD:
            (tmp_path / Path(path).name).write_text(text)
    units = [str(path) for path in tmp_path.iterdir()]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert str(tmp_path) not in done.stderr, done.stderr
