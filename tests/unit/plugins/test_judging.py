# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Settings of hosts judged at once: names that nothing reads, shapes, meaning, ports, and files that do not render."""

from __future__ import annotations

import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.template import trust_as_template
from ansible_collections.fushuma.production.plugins.plugin_utils import judging, specs
from ansible_collections.fushuma.production.plugins.plugin_utils.judging import Host
from hypothesis import assume, example, given
from hypothesis import strategies as st

from ..roles.render import templar

SITE = {"name": "www.fushuma.com", "root": "/srv/www"}
ROLE = "fushuma.production.nginx"
IMPORT = "ansible.builtin.import_role"


def judged(**variables: Any) -> list[str]:
    """What is said of one host that runs nginx, without its name."""
    found = judging.judge([Host("web1", variables, ["nginx"])], templar())
    return [sentence.removeprefix("web1: ") for sentence in found]


# --- which role runs where -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plays", "found"),
    [
        ([], {}),
        ([{"import_playbook": "preflight.yml"}], {}),
        ([{"hosts": "edge"}, {"hosts": "data", "roles": None}], {"web1": [], "web2": [], "db1": []}),
        ([{"hosts": "edge", "roles": [ROLE]}], {"web1": ["nginx"], "web2": ["nginx"]}),
        ([{"hosts": "edge", "roles": [{"role": ROLE, "tags": ["nginx"]}]}], {"web1": ["nginx"], "web2": ["nginx"]}),
        ([{"hosts": "data", "roles": [{"name": ROLE}]}], {"db1": ["nginx"]}),
        ([{"hosts": "edge", "roles": ["other.collection.nginx", {"role": "own"}]}], {"web1": [], "web2": []}),
        ([{"hosts": "nobody", "roles": [ROLE]}], {}),
        ([{"hosts": "data", "tasks": [{IMPORT: {"name": ROLE}}, {"ansible.builtin.ping": {}}]}], {"db1": ["nginx"]}),
        (
            [{"hosts": "data", "tasks": [{IMPORT: {"name": ROLE}}], "roles": ["fushuma.production.redis"]}],
            {"db1": ["redis", "nginx"]},
        ),
        (
            [
                {"hosts": "data", "roles": ["fushuma.production.redis", ROLE]},
                {"hosts": "all", "roles": [ROLE, "fushuma.production.docker"]},
            ],
            {"db1": ["redis", "nginx", "docker"], "web1": ["nginx", "docker"], "web2": ["nginx", "docker"]},
        ),
    ],
)
def test_which_role_runs_where(plays: list[dict[str, Any]], found: dict[str, list[str]]) -> None:
    groups = {"all": ["web1", "web2", "db1"], "edge": ["web1", "web2"], "data": ["db1"]}
    assert judging.hosts_of(plays, groups) == found


def test_the_collections_own_playbook_is_understood() -> None:
    plays = judging.yaml_of(specs.ROLES.parent / "playbooks" / "site.yml")
    assert judging.hosts_of(plays, {"edge": ["web1"]})["web1"][0] == "nginx"


def test_playbooks_that_are_imported_are_read_in_their_places(tmp_path: Path) -> None:
    (tmp_path / "plays").mkdir()
    for name, text in {
        "site.yml": "- hosts: a\n- ansible.builtin.import_playbook: plays/b.yml\n- hosts: d\n",
        "plays/b.yml": "- hosts: b\n- ansible.builtin.import_playbook: c.yml\n",
        "plays/c.yml": "- hosts: c\n",
    }.items():
        (tmp_path / name).write_text(text, "utf-8")
    assert [play["hosts"] for play in judging.plays_of(tmp_path / "site.yml")] == ["a", "b", "c", "d"]


def test_applications_are_deployed_to_their_group() -> None:
    plays = judging.plays_of(specs.ROLES.parent / "playbooks" / "site.yml")
    assert "app" in judging.hosts_of(plays, {"app": ["app1"]})["app1"]


# --- names that nothing reads ----------------------------------------------------------------------------------------

UNREAD = "nothing reads a setting of this name."


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("nginx_sitez", [SITE], f"nginx_sitez is given: {UNREAD} Write nginx_sites, if that is meant."),
        ("nginx_http_prt", 81, f"nginx_http_prt is 81: {UNREAD} Write nginx_http_port, if that is meant."),
        ("ngnix_sites", "x", f"ngnix_sites is given: {UNREAD} Write nginx_sites, if that is meant."),
        ("nginxsites", None, f"nginxsites is given: {UNREAD} Write nginx_sites, if that is meant."),
        ("Nginx_Sites", True, f"Nginx_Sites is true: {UNREAD} Write nginx_sites, if that is meant."),
        ("ngnix_htttp_port", 1.5, f"ngnix_htttp_port is 1.5: {UNREAD} Write nginx_http_port, if that is meant."),
        (
            "nginx_acme_password",
            "hunter2",
            f"nginx_acme_password is given: {UNREAD} Write nginx_acme, if that is meant.",
        ),
    ],
)
def test_misspelt_names(name: str, value: object, sentence: str) -> None:
    assert [problem.sentence() for problem in judging.unknown_names({name: value})] == [sentence]


def test_a_name_that_resembles_none_is_told_what_there_is() -> None:
    (problem,) = judging.unknown_names({"nginx_qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq": 1})
    assert problem.instead.startswith("one of nginx_acme, nginx_app_hosts, nginx_client_timeout, ")


@pytest.mark.parametrize(
    "name",
    [
        *specs.role_options("nginx"),
        *judging.role_files("nginx", "vars"),
        "_nginx_sites",
        "__nginx_sites",
        "ansible_nginx_sites",
        "my_nginx_sites",
        "nginx",
        "sites",
        "apache_sites",
        "app_version",
        "app_image",
        "app_port",
        "http_port",
        "https_port",
        "gitea_https_port",
        "ngrok_http_port",
        "memcached_port",
        # Ansible's own, and the groups of the example inventory
        "groups",
        "hostvars",
        "inventory_hostname",
        "inventory_dir",
        "group_names",
        "playbook_dir",
        "environment",
        "vars",
        "omit",
        "edge",
        "app",
    ],
)
def test_names_that_are_meant_so(name: str) -> None:
    assert judging.unknown_names({name: "x"}) == []


# What begins with a role's name is the role's.
OF_ROLES = tuple(f"{role.name}_" for role in specs.ROLES.iterdir())


@given(st.text(string.ascii_lowercase + "_", min_size=1, max_size=30))
@example("nginy")
def test_a_name_of_somebody_else_is_not_accused(name: str) -> None:
    """Letters drawn at random are no slip of the finger."""
    assume(not name.startswith(OF_ROLES))
    assert judging.unknown_names({name: "x"}) == []


WORDS = """app api backup cache certificate client config data db dir domain host http https image listen mail name node
password path port proxy public queue root server service sites ssl status timeout tls user version web"""


@given(st.lists(st.sampled_from(WORDS.split()), min_size=1, max_size=4))
def test_names_as_people_make_them_are_not_accused(words: list[str]) -> None:
    name = "_".join(words)
    assume(not name.startswith(OF_ROLES))
    assert judging.unknown_names({name: "x"}) == []


# --- shapes ----------------------------------------------------------------------------------------------------------


def test_settings_are_rendered() -> None:
    variables = {
        "base": 8000,
        "nginx_http_port": trust_as_template("{{ base + 80 }}"),
        "nginx_sites": [{"name": trust_as_template("{{ domain }}"), "aliases": (1, 2)}],
        "domain": trust_as_template("www.{{ 'fushuma.com' }}"),
        "unrelated": trust_as_template("{{ missing }}"),
    }
    settings, found = judging.role_settings("nginx", variables, templar())
    assert found == []
    assert settings["nginx_http_port"] == 8080
    assert settings["nginx_sites"] == [{"name": "www.fushuma.com", "aliases": [1, 2]}]
    assert type(settings["nginx_sites"][0]["name"]) is str
    assert settings["nginx_https_port"] == 443
    assert "unrelated" not in settings


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{ missing }}", "'missing' is undefined"),
        ("{{ missing", "Syntax error in template: unexpected end of template, expected 'end of print statement'."),
        ("{{ 1 / 0 }}", "Error rendering template: division by zero"),
    ],
)
def test_a_template_that_does_not_render_is_one_sentence(template: str, why: str) -> None:
    variables = {"nginx_sites": [{"name": "a", "root": trust_as_template(template)}]}
    settings, found = judging.role_settings("nginx", variables, templar())
    sentence = f"nginx_sites is a template: it does not render ({why.rstrip('.')}). Write a value that does."
    assert [problem.sentence() for problem in found] == [sentence]
    assert settings["nginx_sites"] == []


def test_a_setting_that_is_nowhere_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(specs, "role_options", lambda _role: {"web_name": {"type": "str", "required": True}})
    monkeypatch.setattr(judging, "role_files", lambda _role, _folder: {})
    assert judging.role_settings("web", {}, templar())[0] == {}
    (sentence,) = judging.judge([Host("web1", {}, ["web"])], templar())
    assert sentence.startswith("web1: web_name is missing: ")


def test_what_has_the_wrong_shape_hides_no_other_problem() -> None:
    found = judged(
        nginx_http_port="x",
        nginx_https_port=0,
        nginx_hsts={"max_age": -1, "maxage": 5},
        nginx_sites=[{**SITE, "rate": "x", "rates": "5r/s", "locations": [{"path": "/a", "users": {"me": "short"}}]}],
        nginx_worker_connections=trust_as_template("{{ missing }}"),
        nginx_sitez=[],
    )
    assert [sentence.split(" is ")[0] for sentence in found] == [
        "nginx_hsts.max_age",
        "nginx_hsts.maxage",
        "nginx_http_port",
        "nginx_https_port",
        "nginx_sites[0].locations[0].users.me",
        "nginx_sites[0].rate",
        "nginx_sites[0].rates",
        "nginx_sitez",
        "nginx_worker_connections",
    ]


def test_one_setting_is_judged_once() -> None:
    site = {**SITE, "csp": {"policy": {"script-src": ["'nonce'"]}, "nonce_placeholder": "changeme"}}
    assert [sentence.split(" is ")[0] for sentence in judged(nginx_sites=[site])] == [
        "nginx_sites[0].csp.nonce_placeholder"
    ]


def test_no_secret_is_repeated() -> None:
    site = {
        **SITE,
        "certificate": {"source": "files", "kye": "canary-1", "key": ["canary-2"]},
        "locations": [{"path": "/a", "users": "canary-3"}, {"path": "/b", "users": {"me": "changeme-canary-4"}}],
        "csp": {"nonce_placeholder": "canary-5"},
    }
    found = judged(nginx_sites=[site], nginx_pasword="canary-6")
    assert len(found) == 4
    assert "canary" not in " ".join(found)


# --- ports -----------------------------------------------------------------------------------------------------------


def listening(*places: tuple[int, str]) -> dict[str, Any]:
    return {"listens": [{"port": port, "setting": f"s{n}", "address": where} for n, (port, where) in enumerate(places)]}


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ((80, "127.0.0.1"), (81, "127.0.0.1"), False),
        ((80, "127.0.0.1"), (80, "127.0.0.1"), True),
        ((80, "127.0.0.1"), (80, "127.0.0.2"), False),
        ((80, "127.0.0.1"), (80, ""), True),
        ((80, "0.0.0.0"), (80, "127.0.0.1"), True),
        ((80, "::"), (80, "::1"), True),
        ((80, "2001:db8::1"), (80, "[::]"), True),
        ((80, "::"), (80, "127.0.0.1"), False),
        ((80, "0.0.0.0"), (80, "::"), False),
        ((80, "::1"), (80, ""), True),
    ],
)
def test_ports_that_meet(one: tuple[int, str], other: tuple[int, str], meet: bool) -> None:
    for places in ((one, other), (other, one)):
        found = judging.port_collisions({"a": listening(places[0]), "b": {"listens": [], "logs": []}, "c": {}})
        assert found == []
        second = {"listens": [{"port": places[1][0], "setting": "other", "address": places[1][1]}]}
        found = judging.port_collisions({"a": listening(places[0]), "b": second})
        sentence = f"other is {places[1][0]}: s0 listens there too. Write a port of its own."
        assert [problem.sentence() for problem in found] == ([sentence] if meet else [])


def test_tcp_and_udp_do_not_meet() -> None:
    exports = {"listens": [{"port": 9094, "setting": one, "protocol": one} for one in ("tcp", "udp")]}
    assert judging.port_collisions({"alertmanager": exports}) == []


def test_one_setting_on_all_addresses_meets_nobody() -> None:
    exports = {"listens": [{"port": 80, "setting": "a", "address": where} for where in ("0.0.0.0", "::")]}
    assert judging.port_collisions({"web": exports}) == []


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("8100-8119", 8119, True),
        ("8100-8119", "8120-8139", False),
        ("8100-8119", "8110-8200", True),
        ("8110", "8100-8119", True),
        (8099, "8100-8119", False),
    ],
)
def test_ranges_that_meet(one: int | str, other: int | str, meet: bool) -> None:
    exports = {"listens": [{"port": port, "setting": f"s{n}"} for n, port in enumerate((one, other))]}
    found = judging.port_collisions({"app": exports})
    assert [(problem.setting, problem.why) for problem in found] == [("s1", "s0 listens there too")] * meet


def test_ports_of_two_applications_may_not_meet() -> None:
    image = {"reference": f"registry.fushuma.com/shop@sha256:{'a' * 64}"}
    web = {"name": "web", "port": 3000, "ready": {"path": "/ready"}}
    shops = [{"name": name, "image": image, "processes": [web]} for name in ("one", "two")]
    variables = {"app_applications": shops, "groups": {}, "inventory_hostname": "app1"}
    assert judging.judge([Host("app1", variables, ["app"])], templar()) == [
        'app1: app_applications[1].ports is "8100-8119": app_applications[0].ports listens there too. '
        "Write a port of its own."
    ]


def test_three_on_one_port() -> None:
    found = judging.port_collisions({"web": listening((80, ""), (80, "127.0.0.1"), (80, "127.0.0.2"))})
    assert [(problem.setting, problem.why) for problem in found] == [
        ("s1", "s0 listens there too"),
        ("s2", "s0 listens there too"),
    ]


def test_ports_of_one_role_may_meet_each_other() -> None:
    assert judged(nginx_https_port=80, nginx_sites=[SITE]) == [
        "nginx_https_port is 80: nginx_http_port listens there too. Write a port of its own."
    ]
    assert judged(nginx_status_port=443, nginx_listen_addresses=["192.0.2.7"]) == []
    assert judged(nginx_status_port=443) == [
        "nginx_status_port is 443: nginx_https_port listens there too. Write a port of its own."
    ]


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def role(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A role ``web`` with one file, in a collection of its own."""
    folder = tmp_path / "web"
    for name, text in {
        "meta/argument_specs.yml": "argument_specs: {main: {options: {web_text: {type: str, default: a}}}}",
        "defaults/main.yml": "web_text: a",
        "vars/main.yml": "_web_files: [{src: a.j2, dest: /etc/a}]",
        "templates/a.j2": "{{ web_text }} on {{ ansible_facts['distribution_release'] }}",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    monkeypatch.setattr(specs, "ROLES", tmp_path)
    specs.role_options.cache_clear()
    yield folder
    specs.role_options.cache_clear()


def web(**variables: Any) -> list[str]:
    return judging.judge([Host("web1", variables, ["web"])], templar())


def test_a_role_without_a_judge_or_exports_of_its_own(role: Path) -> None:
    assert web() == []
    assert web(web_text={}) == ['web1: web_text is {}: a text is needed. Write for example "a".']


def test_a_file_that_does_not_render_is_named(role: Path) -> None:
    (role / "templates" / "a.j2").write_text("{{ web_txt }}", "utf-8")
    assert web() == [
        "web1: a file of the role web is impossible on Debian 12: /etc/a does not render: 'web_txt' is undefined. "
        "Write settings with which it renders."
    ]


def test_files_are_rendered_for_the_release_at_hand_or_for_all(role: Path) -> None:
    text = "{{ {'bookworm': 1}[ansible_facts['distribution_release']] }}"
    (role / "templates" / "a.j2").write_text(text, "utf-8")
    (sentence,) = web()
    assert "impossible on Debian 13: /etc/a does not render" in sentence
    assert web(ansible_facts={"distribution_major_version": "12", "distribution_release": "bookworm"}) == []
    assert web(ansible_facts={"python": {}}) == [sentence]


def test_a_role_without_files(role: Path) -> None:
    (role / "vars" / "main.yml").unlink()
    assert web() == []


def test_exports_that_do_not_render(role: Path) -> None:
    (role / "vars" / "main.yml").write_text("web_exports: {listens: '{{ nowhere }}'}", "utf-8")
    assert web() == [
        "web1: a file of the role web is impossible on Debian 12: 'nowhere' is undefined. "
        "Write settings with which it renders."
    ]


# --- an inventory ----------------------------------------------------------------------------------------------------


def test_all_problems_of_all_hosts_come_at_once_and_in_order() -> None:
    hosts = [
        Host("web1", {"nginx_sites": [{**SITE, "rate": "x", "burst": -1}], "nginx_sitez": 1}, ["nginx"]),
        Host("web2", {"nginx_http_port": "x", "nginx_status_port": 0}, ["nginx"]),
        Host("web3", {"nginx_sites": [SITE]}, ["nginx"]),
        Host("db1", {"nginx_sites": [{**SITE, "rate": "x"}], "ngnix_sites": 1}, []),
    ]
    found = judging.judge(hosts, templar())
    assert [sentence.split(" is ")[0] for sentence in found] == [
        "web1: nginx_sites[0].burst",
        "web1: nginx_sites[0].rate",
        "web1: nginx_sitez",
        "web2: nginx_http_port",
        "web2: nginx_status_port",
        "db1: ngnix_sites",
    ]
    assert found == judging.judge(hosts, templar())
    alone = [sentence for host in hosts for sentence in judging.judge([host], templar())]
    assert found == alone


def test_no_hosts() -> None:
    assert judging.judge([], templar()) == []


@pytest.mark.parametrize(
    ("groups", "found"),
    [
        ({"edge": ["web1"]}, []),
        ({"egde": ["web1"]}, ["egde"]),
        ({"edges": ["web1"], "edge": []}, ["edges"]),
        ({"egde": ["web1"], "edge": ["web2"]}, []),
        ({"ops": ["web1"], "ungrouped": []}, []),
    ],
)
def test_groups_with_a_slip_of_the_finger(groups: dict[str, list[str]], found: list[str]) -> None:
    edge = {"hosts": "edge", "tasks": [{IMPORT: {"name": "x"}}]}
    plays = [{"import_playbook": "x.yml"}, {"hosts": "all", "roles": ["x"]}, edge]
    sentences = judging.misspelt_groups(plays, {"all": ["web1"], **groups})
    assert [sentence.split()[5] for sentence in sentences] == found


# --- what a playbook hands over --------------------------------------------------------------------------------------


def test_what_a_playbook_hands_to_each_role() -> None:
    entry = {"role": ROLE, "tags": ["nginx"], "when": "x", "nginx_http_port": 81, "vars": {"nginx_https_port": 82}}
    plays = [
        {"hosts": "all", "roles": [entry, "fushuma.production.redis", {"role": "other.collection.x", "x_y": 1}]},
        {"hosts": "edge", "tasks": [{"name": "x", IMPORT: {"name": ROLE}, "vars": {"nginx_http_port": 91}}]},
    ]
    assert judging.handed_to(plays, {"all": ["web1", "db1"], "edge": ["web1"]}) == {
        "web1": {"nginx": {"nginx_http_port": 91, "nginx_https_port": 82}, "redis": {}},
        "db1": {"nginx": {"nginx_http_port": 81, "nginx_https_port": 82}, "redis": {}},
    }


def test_what_cannot_be_handed_over_is_not_named_beside_its_cause() -> None:
    handed = {"nginx": {"nginx_app_hosts": trust_as_template("{{ nobody }}")}}
    wrong = Host("web1", {"nginx_sites": [SITE], "nginx_http_port": 0}, ["nginx"], handed)
    (said,) = judging.judge([wrong], templar({}))
    assert said.startswith("web1: nginx_http_port is 0: ")
    alone = Host("web1", {"nginx_sites": [SITE]}, ["nginx"], handed)
    (said,) = judging.judge([alone], templar({}))
    assert said.startswith("web1: nginx_app_hosts is a template: it does not render")


def test_what_is_handed_over_is_judged_before_what_the_inventory_says() -> None:
    handed = {"nginx": {"nginx_http_port": trust_as_template("{{ ports[0] }}"), "nginx_sitez": []}}
    host = Host("web1", {"nginx_sites": [SITE], "nginx_http_port": 80, "ports": [0]}, ["nginx"], handed)
    assert [sentence.split(" is ")[0] for sentence in judging.judge([host], templar())] == [
        "web1: nginx_http_port",
        "web1: nginx_sitez",
    ]
    assert judging.judge([Host("web1", host.variables, ["nginx"])], templar()) == []


# --- memory ----------------------------------------------------------------------------------------------------------

BOTH = {
    "redis_admin_password": "canary-2f9c81d0a7b3",
    "redis_instances": [{"name": "cache", "memory": "1gb"}, {"name": "old", "port": 1, "state": "absent"}],
    "mariadb_databases": [{"name": "shop"}],
    "mariadb_memory": "1gb",
    "mariadb_max_connections": 100,
}


def of_memory(**variables: Any) -> list[str]:
    return judging.judge([Host("data1", {**BOTH, **variables}, ["redis", "mariadb"])], templar())


def test_the_memory_of_all_roles_of_a_host_is_added_up() -> None:
    assert of_memory() == [], "nobody has said how much there is"
    assert of_memory(host_memory="4gb") == []
    assert of_memory(host_memory="2gb") == [
        'data1: host_memory is "2048 MB": it is asked for redis_instances[0].memory 1024 MB (the data of cache) + '
        "mariadb_memory 1383 MB (1088 MB of buffers and 100 connections of 3.0 MB) = 2407 MB, and three quarters of "
        "it are 1536 MB. Write less for one of them; a host with 3210 MB would do."
    ]


def test_what_a_host_says_of_its_memory_counts_more() -> None:
    assert of_memory(host_memory="2gb", ansible_facts={"memtotal_mb": 4096}) == []
    assert len(of_memory(host_memory="8gb", ansible_facts={"memtotal_mb": 2048})) == 1
    assert of_memory(host_memory=trust_as_template("{{ size }}"), size="4gb") == []


def test_a_host_memory_that_is_no_size() -> None:
    assert of_memory(host_memory="lots") == ['data1: host_memory is "lots": it is no size. Write "4gb".']


# --- connections -----------------------------------------------------------------------------------------------------


def test_connections_to_a_host_without_a_database_are_not_passed_over() -> None:
    exports = {"app": {"connections": [{"host": "data1", "who": "shop web"}]}, "nginx": {}}
    assert list(judging.connection_problems(exports, ["data1"])) == []
    assert list(judging.connection_problems(exports, [])) == [], "somebody else runs it"
    (found,) = judging.connection_problems(exports, ["db1", "db2"])
    assert found.sentence("app1") == (
        'app1: the database of shop web is "data1": no host of that name runs MariaDB, so they are not counted. '
        "Write one of db1, db2."
    )


def test_what_was_read_ahead_is_not_read_again() -> None:
    for cache in (judging.yaml_of, specs.role_options):
        cache.cache_clear()
    judging.read_ahead()
    read = [cache.cache_info().misses for cache in (judging.yaml_of, specs.role_options)]
    for role in judging.all_roles():
        judging.role_files(role, "defaults"), judging.role_files(role, "vars"), specs.role_options(role)
    judging.plays_of(judging.SITE)
    assert [cache.cache_info().misses for cache in (judging.yaml_of, specs.role_options)] == read
