# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the grafana role writes and tells others, and what its page tells of it."""

from __future__ import annotations

import configparser
import datetime
import json
import re
from hashlib import sha256
from typing import Any

import pytest
import yaml
from ansible_collections.fushuma.production.plugins.plugin_utils import dashboards, judging, nginx, specs
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import sentences

from .render import Role, templar

KEY = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmDMEaSZmvBYJ\n-----END PGP PUBLIC KEY BLOCK-----\n"
ARCHIVE = {"source": "https://dl.fushuma.com/grafana-12.3.0.linux-amd64.tar.gz", "sha256": "AB" * 32}
SETTINGS: dict[str, Any] = {
    "grafana_enabled": True,
    "grafana_repository": {"key": KEY, "key_sha256": sha256(KEY.encode()).hexdigest(), "version": "12.3.*"},
    "grafana_root_url": "https://grafana.fushuma.com/",
    "grafana_admin_password": "canary-5f0c2e9a7b41d836",
    "grafana_secret_key": "canary-a9d1774be2c05f68",
}
PAGE = specs.ROLES.parent / "docs" / "dashboards.md"


def role(release: str = "13", **settings: Any) -> Role:
    return Role("grafana", {**SETTINGS, **settings}, release)


@pytest.mark.parametrize("changes", [{}, {"grafana_archive": ARCHIVE}, {"grafana_enabled": False}])
def test_these_settings_are_accepted(changes: dict[str, Any]) -> None:
    host = judging.Host("web1", {"inventory_hostname": "web1", **SETTINGS, **changes}, ["grafana"])
    assert judging.judge([host], templar()) == []


def test_nothing_is_brought_where_it_is_not_wanted() -> None:
    off = Role("grafana", {})
    assert (off.files, off.tasks) == ({}, [])
    assert not any(off.exports.values())


@pytest.mark.parametrize("release", ["12", "13"])
def test_from_its_repository(release: str) -> None:
    found = role(release)
    assert "Package: grafana\nPin: version 12.3.*\nPin-Priority: 990" in found.files["/etc/apt/preferences.d/grafana"]
    assert "Signed-By: /etc/apt/keyrings/grafana.asc" in found.files["/etc/apt/sources.list.d/grafana.sources"]
    assert found.files["/etc/apt/keyrings/grafana.asc"] == KEY
    unit = found.files["/etc/systemd/system/grafana-server.service"]
    assert "ExecStart=/usr/share/grafana/bin/grafana server --homepath=/usr/share/grafana" in unit
    assert [module for module, _given in found.tasks] == ["judge", "service_config", "service_config"]
    assert found.tasks[-1][1]["packages"] == ["grafana"]
    assert "/usr/local/sbin/grafana-install" not in found.files


def test_units_have_one_setting_a_line() -> None:
    for name in ("grafana-server", "grafana-admin-password"):
        for line in role().files[f"/etc/systemd/system/{name}.service"].splitlines():
            assert re.fullmatch(r"|#.*|\[\w+\]|[A-Z][A-Za-z]+=(?!.*[a-z](Exec|Restrict)).*", line), line


def test_from_an_archive() -> None:
    found = role(grafana_archive=ARCHIVE)
    unit = found.files["/etc/systemd/system/grafana-server.service"]
    assert "ExecStart=/opt/grafana/12.3.0-abababab/bin/grafana server" in unit
    assert f'echo "{"ab" * 32}  $archive" | sha256sum' in found.files["/usr/local/sbin/grafana-install"]
    assert not [path for path in found.files if path.startswith("/etc/apt/")]
    (fetched,) = [given for module, given in found.tasks if module == "get_url"]
    assert fetched["dest"] == "/var/cache/grafana-12.3.0-abababab.tar.gz"
    local = role(grafana_archive={**ARCHIVE, "source": "/srv/own.tar.gz"})
    (copied,) = [given for module, given in local.tasks if module == "copy"]
    assert copied["dest"] == "/var/cache/grafana-own-abababab.tar.gz"


def test_secrets_stand_in_files_of_root_alone() -> None:
    found = role()
    held = {path for path, text in found.files.items() if "canary-" in text}
    assert held == {"/etc/grafana/grafana.ini", "/etc/grafana/admin-password"}
    ini = configparser.ConfigParser(interpolation=None)
    ini.read_string(found.files["/etc/grafana/grafana.ini"])
    assert ini["security"]["secret_key"] == SETTINGS["grafana_secret_key"]
    assert found.files["/etc/grafana/admin-password"] == f"{SETTINGS['grafana_admin_password']}\n"
    assert ini["security"]["cookie_secure"] == "true"


def test_the_password_is_given_before_the_first_start_only_where_the_database_is_a_file() -> None:
    path = "/etc/systemd/system/grafana-admin-password.service"
    assert "ConditionPathExists=/var/lib/grafana/grafana.db" in role().files[path]
    elsewhere = role(grafana_database={"type": "mysql", "host": "db:3306", "password": "canary-63b0d8f1a2c749e5"})
    assert "ConditionPathExists" not in elsewhere.files[path]
    assert "ExecStart=-/usr/share/grafana/bin/grafana cli" in elsewhere.files[path]


def test_dashboards_and_their_folders() -> None:
    found = role(grafana_dashboards_folder="")
    providers = json.loads(found.files["/etc/grafana/provisioning/dashboards/production.yaml"])["providers"]
    assert [one["name"] for one in providers] == ["production"]
    assert not [one for one in providers if one["allowUiUpdates"]]
    written = [path for path in found.files if path.startswith("/etc/grafana/dashboards/production/")]
    assert len(written) == len(dashboards.load(specs.ROLES / "grafana" / "dashboards"))
    assert "{{host}}" in found.files["/etc/grafana/dashboards/production/host.json"]


def test_own_dashboards(tmp_path: Any) -> None:
    (tmp_path / "own.json").write_text('{"uid": "own"}')
    found = role(grafana_dashboards_folder=str(tmp_path))
    assert found.files["/etc/grafana/dashboards/own/own.json"] == '{"uid": "own"}'
    providers = json.loads(found.files["/etc/grafana/provisioning/dashboards/production.yaml"])["providers"]
    assert [one["name"] for one in providers] == ["production", "own"]


def test_what_others_are_told() -> None:
    told = role(grafana_address="fd00::7", grafana_from=["fd00::/64"]).exports
    assert told["scrapes"] == [
        {
            "job": "grafana",
            "host": "web1",
            "address": "[fd00::7]:3030",
            "path": "/metrics",
            "unit": "grafana-server.service",
        }
    ]
    assert told["listens"] == [{"port": 3030, "address": "fd00::7", "setting": "grafana_port", "from": ["fd00::/64"]}]
    assert told["health"][0]["url"] == "http://[fd00::7]:3030/api/health"
    assert told["memory"][0]["bytes"] == 512 * 1024**2
    assert told["backup"] == [{"kind": "path", "path": "/var/lib/grafana"}]


# --- its page ---------------------------------------------------------------------------------------------------------


def blocks() -> list[Any]:
    """All YAML of the page."""
    return [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)]


def test_the_page_names_every_panel() -> None:
    text = PAGE.read_text("utf-8")
    for document in dashboards.load(specs.ROLES / "grafana" / "dashboards"):
        assert f"### {document['title']}\n" in text
        for row in document["rows"]:
            titles = " · ".join(panel["title"] for panel in row["panels"])
            assert f"| {row.get('title', '(top)')} | {titles} |" in text


def test_the_sites_of_the_page_are_accepted() -> None:
    soon = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=60)).strftime("%Y-%m-%d")
    (first,) = [one for one in blocks() if isinstance(one, dict) and "nginx_sites" in one]
    (more,) = [one for one in blocks() if isinstance(one, list)]
    sites = [*first["nginx_sites"], *more]
    for site in sites:
        site["certificate"] = {"source": "selfsigned"}
        for waiver in site.get("csp", {}).get("waivers", []):
            waiver["expires"] = soon
    sites[1]["users"] = {"operator": "b41d8365f0c2e9a7"}
    given = {"nginx_sites": sites}
    options = specs.role_options("nginx")
    assert specs.problems(options, given) == []
    assert sentences(nginx.problems(specs.filled(options, given))) == []


def test_the_dashboard_of_the_page_is_one() -> None:
    (document,) = [one for one in blocks() if isinstance(one, dict) and "rows" in one]
    dashboards.check(document)
    assert json.loads(dashboards.text(document))["uid"] == "queue"
