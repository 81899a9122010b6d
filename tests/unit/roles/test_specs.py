# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every role keeps its word: what its spec declares is generated, read and described, and nothing else is read.

The judges are pure functions from a role's folder to a list of sentences. Below they are applied to the collection's
roles, and to made-up roles with one fault each.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import generate
import jinja2
import jinja2.meta
import jinja2.nodes
import pytest
import yaml

ROLES = sorted(path for path in (generate.ROOT / "roles").glob("*") if path.is_dir())
NAMES = [role.name for role in ROLES]
JUDGE, INCLUDE = "fushuma.production.judge", "ansible.builtin.include_tasks"
PLAYS = sorted(path for name in ("roles", "playbooks", "molecule") for path in (generate.ROOT / name).rglob("*.yml"))
PYTHON = [path.read_text(encoding="utf-8") for path in sorted((generate.ROOT / "plugins").rglob("*.py"))]

DESCRIBED_BY = ("author", "description", "short_description", "version_added")
DOCUMENTATION = {"DOCUMENTATION", "EXAMPLES", "RETURN"}
# Keywords whose text is an expression without braces.
EXPRESSIONS = {"changed_when", "failed_when", "that", "until", "var", "when"}
JINJA = jinja2.Environment(extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols"])


def texts_of(folder: Path, *names: str) -> Iterator[str]:
    """The texts of all files in the named subfolders of a role."""
    for name in names:
        for path in sorted((folder / name).rglob("*")):
            if path.is_file():
                yield path.read_text(encoding="utf-8")


def words_of_python(source: str) -> set[str]:
    """Names and words of texts in Python code; documentation and comments do not count."""
    tree = ast.parse(source)
    documentation = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        or (isinstance(node, ast.Assign) and {getattr(target, "id", "") for target in node.targets} & DOCUMENTATION)
    }
    words: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str() as name):
                words.add(name)
            case ast.Constant(value=str() as text) if node not in documentation:
                words.update(words_of_text(text))
    return words


def words_of_text(text: str) -> set[str]:
    """Words with and without the hyphens in them."""
    return {*re.findall(r"\w+", text), *re.findall(r"[\w-]+", text)}


def words_of_role(folder: Path) -> set[str]:
    """All words of a role's tasks, handlers, vars and templates; comments do not count."""
    words: set[str] = set()
    for text in texts_of(folder, "tasks", "handlers", "vars"):
        words |= words_of_text(re.sub(r"(^|\s)#.*", "", text))
    for text in texts_of(folder, "templates"):
        words |= words_of_text(re.sub(r"\{#.*?#\}", "", text, flags=re.DOTALL))
    return words


def variables_of(expression: str) -> set[str]:
    """The variables a Jinja text reads and does not set itself."""
    tree = JINJA.parse(expression)
    # Jinja wants to know each filter and test; which of Ansible's it is makes no difference to the variables.
    for used in tree.find_all(jinja2.nodes.Filter):
        used.name = "string"
    for asked in tree.find_all(jinja2.nodes.Test):
        asked.name = "defined"
    return jinja2.meta.find_undeclared_variables(tree)


def variables_in(value: object, keyword: str = "") -> set[str]:
    """The variables that the templates and expressions in a YAML document read."""
    match value:
        case dict():
            return set().union(*(variables_in(item, str(key)) for key, item in value.items()))
        case list():
            return set().union(*(variables_in(item, keyword) for item in value))
        case str():
            return variables_of(f"{{{{ {value} }}}}" if keyword in EXPRESSIONS and "{{" not in value else value)
    return set()


def variables_set(value: object) -> set[str]:
    """The names that tasks give to variables: ``vars``, ``register`` and loop variables."""
    names: set[str] = set()
    match value:
        case dict():
            names |= {str(value[key]) for key in ("index_var", "loop_var", "register") if key in value}
            names |= set(value["vars"]) if isinstance(value.get("vars"), dict) else set()
            return names.union(*(variables_set(item) for item in value.values()))
        case list():
            return names.union(*(variables_set(item) for item in value))
    return names


def stale_defaults(folder: Path) -> list[str]:
    """Where the defaults, read as data, are not those of the spec."""
    wanted = generate.defaults_of(generate.read_role(folder))
    path = folder / "defaults" / "main.yml"
    found = (yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None) or {}
    return [
        f"{name} is {found.get(name, 'missing')!r} in defaults/main.yml and {wanted.get(name, 'missing')!r} in the spec"
        for name in sorted({*wanted, *found})
        if (name in wanted) != (name in found) or repr(wanted[name]) != repr(found[name])
    ]


def foreign_names(folder: Path) -> list[str]:
    """Options whose name does not start with the role's."""
    role = generate.read_role(folder)
    return [
        f"{option.name} does not start with {role.name}_"
        for option in role.options
        if not belongs(option.name, role.name)
    ]


def belongs(variable: str, role: str) -> bool:
    """Whether a variable is one of the role's public ones, by its name."""
    return variable.startswith(f"{role}_")


def unread_options(folder: Path, python: list[str]) -> list[str]:
    """Options of any depth that neither the role nor a plugin reads."""
    words = words_of_role(folder).union(*map(words_of_python, python))
    options = [option for top in generate.read_role(folder).options for option in top.walk()]
    return [f"{option.path} is in the spec, and nothing reads it" for option in options if option.name not in words]


def unknown_variables(folder: Path, roles: list[str]) -> list[str]:
    """Variables that carry a role's prefix and are read, but not declared by this role."""
    known = {option.name for option in generate.read_role(folder).options}
    read: set[str] = set()
    for text in texts_of(folder, "templates"):
        read |= variables_of(text)
    for text in texts_of(folder, "tasks", "handlers"):
        document = yaml.safe_load(text)
        read |= variables_in(document)
        known |= variables_set(document)
    for text in texts_of(folder, "vars", "defaults"):
        document = yaml.safe_load(text) or {}
        read |= variables_in(document)
        known |= set(document)
    return [
        f"{name} is read, and the spec of {folder.name} does not know it"
        for name in sorted(read - known)
        if any(belongs(name, role) for role in {*roles, folder.name})
    ]


def incomplete_entry_points(folder: Path) -> list[str]:
    """Entry points without a description or without tasks."""
    text = (folder / "meta" / "argument_specs.yml").read_text(encoding="utf-8")
    problems = []
    for name, spec in yaml.safe_load(text)["argument_specs"].items():
        problems += [f"{folder.name}: {name} has no {key}" for key in DESCRIBED_BY if not spec.get(key)]
        if not (folder / "tasks" / f"{name}.yml").is_file():
            problems.append(f"{folder.name}: {name} has no tasks/{name}.yml")
    return problems


def calls_of(value: object) -> Iterator[tuple[str, str]]:
    """The role and the entry point of each include_role and import_role in a YAML document."""
    if isinstance(value, list):
        for item in value:
            yield from calls_of(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if str(key).rpartition(".")[2] in ("import_role", "include_role") and isinstance(item, dict):
                yield str(item.get("name", "")).rpartition(".")[2], str(item.get("tasks_from", "main"))
            yield from calls_of(item)


def unjudged_calls(document: object, entry_points: dict[str, set[str]]) -> list[str]:
    """Calls whose arguments nothing judges: Ansible looks the entry point up by the very text of ``tasks_from``."""
    return [
        f"{role} is called with tasks_from {entry}, which is no entry point of its spec"
        for role, entry in calls_of(document)
        if role in entry_points and entry not in entry_points[role]
    ]


def judges_first(folder: Path, entry: str = "main") -> bool:
    """Whether a role judges its settings before anything else; where it is switched off it may pass over that too."""
    first, *others = yaml.safe_load((folder / "tasks" / f"{entry}.yml").read_text(encoding="utf-8"))
    included = first.get(INCLUDE)
    if included and first.get("when"):
        return judges_first(folder, included.removesuffix(".yml"))
    # What is on only under a condition is judged under one; what is always done is always judged.
    always = all("when" in task for task in others) or "when" not in first
    return bool(first.get(JUDGE) == {"role": folder.name} and always)


@pytest.mark.parametrize("role", ROLES, ids=NAMES)
class TestRole:
    """Each role of the collection."""

    def test_defaults_are_those_of_the_spec(self, role: Path) -> None:
        assert stale_defaults(role) == []

    def test_names_carry_the_role(self, role: Path) -> None:
        assert foreign_names(role) == []

    def test_every_option_is_read(self, role: Path) -> None:
        assert unread_options(role, PYTHON) == []

    def test_every_variable_is_declared(self, role: Path) -> None:
        assert unknown_variables(role, NAMES) == []

    def test_its_settings_are_judged_before_anything_else(self, role: Path) -> None:
        assert judges_first(role)

    def test_entry_points_are_complete(self, role: Path) -> None:
        assert incomplete_entry_points(role) == []


def test_every_call_of_a_role_is_judged() -> None:
    entry_points = {role.name: {entry.name for entry in generate.read_role(role).entry_points} for role in ROLES}
    documents = [list(yaml.safe_load_all(path.read_text(encoding="utf-8"))) for path in PLAYS]
    assert unjudged_calls(documents, entry_points) == []


def dicts_in(value: object) -> Iterator[dict[str, Any]]:
    """Every dict of a YAML document."""
    if isinstance(value, dict):
        yield value
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
        yield from dicts_in(one)


def test_a_first_change_that_is_undone_asks_for_no_user_of_a_file_that_is_gone() -> None:
    found = [one for role in ROLES for text in texts_of(role, "vars") for one in dicts_in(yaml.safe_load(text))]
    users = [one for one in found if "systemd-sysusers" in str(one.get("apply"))]
    assert len(users) >= 3
    assert [one["dest"] for one in users if not one.get("undo")] == []


# The judges themselves, on a made-up role that is right and then broken in one place.

SITES = {
    "type": "list",
    "elements": "dict",
    "default": [],
    "description": "Sites.",
    "options": {
        "csp": {"type": "dict", "description": "CSP.", "options": {"script-src": {"type": "str", "description": "x"}}}
    },
}
SPEC: dict[str, Any] = {
    "author": ["x"],
    "version_added": "0.1.0",
    "short_description": "Serve",
    "description": "Serves.",
    "options": {"web_port": {"type": "int", "default": 443, "description": "Port."}, "web_sites": SITES},
}
TASKS = """\
- name: Write  # web_commented
  ansible.builtin.template: {src: web_site.conf.j2, dest: "/etc/{{ item.name }}"}
  when: web_port > 1
  register: __web_written
  loop: "{{ web_sites }}"
"""


@pytest.fixture
def role(tmp_path: Path) -> Path:
    """A role without a fault."""
    folder = tmp_path / "roles" / "web"
    write(folder, "meta/argument_specs.yml", yaml.safe_dump({"argument_specs": {"main": SPEC}}))
    write(folder, "tasks/main.yml", TASKS)
    write(folder, "vars/main.yml", 'web_exports: {port: "{{ web_port }}"}\n')
    write(
        folder, "templates/site.conf.j2", "{% for x in web_sites %}{{ x.csp['script-src'] }}{% endfor %}{# web_note #}"
    )
    write(folder, "defaults/main.yml", generate.render_defaults(generate.read_role(folder)))
    return folder


def write(folder: Path, name: str, text: str) -> None:
    """Put a file into the role."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_role_without_a_fault_passes(role: Path) -> None:
    assert stale_defaults(role) == []
    assert foreign_names(role) == []
    assert unread_options(role, []) == []
    assert unknown_variables(role, []) == []
    assert incomplete_entry_points(role) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("web_port: 80\nweb_sites: []\n", "web_port is 80 in defaults/main.yml and 443 in the spec"),
        ("web_port: '443'\nweb_sites: []\n", "web_port is '443' in defaults/main.yml and 443 in the spec"),
        ("web_port: 443\n", "web_sites is 'missing' in defaults/main.yml and [] in the spec"),
        ("web_port: 443\nweb_sites: []\nweb_x: 1\n", "web_x is 1 in defaults/main.yml and 'missing' in the spec"),
    ],
)
def test_stale_defaults_are_found(role: Path, text: str, message: str) -> None:
    write(role, "defaults/main.yml", text)
    assert stale_defaults(role) == [message]


def test_a_foreign_name_is_found(role: Path) -> None:
    spec = {**SPEC, "options": {"port": SPEC["options"]["web_port"]}}
    write(role, "meta/argument_specs.yml", yaml.safe_dump({"argument_specs": {"main": spec}}))
    assert foreign_names(role) == ["port does not start with web_"]


def test_an_option_nobody_reads_is_found(role: Path) -> None:
    write(role, "templates/site.conf.j2", "{# script-src #}")
    write(role, "tasks/main.yml", "- name: Nothing  # csp script-src\n# csp\n")
    assert unread_options(role, ['"""csp script-src"""\nDOCUMENTATION = "web_sites csp"\n# csp']) == [
        "web_sites is in the spec, and nothing reads it",
        "web_sites[].csp is in the spec, and nothing reads it",
        "web_sites[].csp.script-src is in the spec, and nothing reads it",
    ]
    assert unread_options(role, ["def f(x): return x.csp.get('script-src')", "web_sites = 1"]) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("templates/a.j2", "{{ web_typo }}"),
        ("templates/a.j2", "{% if web_typo is defined %}{% endif %}"),
        ("tasks/main.yml", "[{when: web_typo | length > 0}]"),
        ("tasks/main.yml", "[{block: [{ansible.builtin.assert: {that: [web_port == 1, web_typo == 2]}}]}]"),
        ("tasks/main.yml", "[{name: x, loop: '{{ web_sites | map(attribute=web_typo) }}'}]"),
        ("handlers/main.yml", "[{name: 'Reload {{ web_typo }}'}]"),
        ("vars/main.yml", "_web_x: ['{{ web_typo }}']"),
        ("defaults/main.yml", "web_port: '{{ web_typo }}'"),
    ],
)
def test_an_undeclared_variable_is_found(role: Path, name: str, text: str) -> None:
    write(role, name, text)
    assert unknown_variables(role, []) == ["web_typo is read, and the spec of web does not know it"]


@pytest.mark.parametrize(
    "tasks",
    [
        "[{name: x, vars: {web_typo: 1}, when: web_typo}]",
        "[{name: x, loop_control: {loop_var: web_typo}, when: web_typo}]",
        "[{name: x, ansible.builtin.debug: {msg: 'web_typo {{ [] | ns.name.web_typo }} {{ x.web_typo }}'}}]",
    ],
)
def test_what_is_no_undeclared_variable_passes(role: Path, tasks: str) -> None:
    write(role, "tasks/main.yml", tasks)
    assert unknown_variables(role, []) == []


def test_another_roles_variable_is_found(role: Path) -> None:
    write(role, "templates/a.j2", "{{ redis_port }}{{ inventory_hostname }}")
    assert unknown_variables(role, []) == []
    assert unknown_variables(role, ["redis"]) == ["redis_port is read, and the spec of web does not know it"]


def test_an_incomplete_entry_point_is_found(role: Path) -> None:
    spec = {key: value for key, value in SPEC.items() if key != "author"}
    write(role, "meta/argument_specs.yml", yaml.safe_dump({"argument_specs": {"main": SPEC, "renew": spec}}))
    assert incomplete_entry_points(role) == ["web: renew has no author", "web: renew has no tasks/renew.yml"]


def test_an_unjudged_call_is_found() -> None:
    plays = yaml.safe_load("""
    - hosts: all
      tasks:
        - block:
            - ansible.builtin.include_role: {name: fushuma.production.web, tasks_from: renew.yml}
            - import_role: {name: web, tasks_from: renew}
            - ansible.builtin.import_role: {name: web}
            - ansible.builtin.include_role: {name: elsewhere, tasks_from: x.yml}
    """)
    assert unjudged_calls(plays, {"web": {"main", "renew"}}) == [
        "web is called with tasks_from renew.yml, which is no entry point of its spec"
    ]


@pytest.mark.parametrize(
    ("tasks", "judged"),
    [
        ({"main": [{JUDGE: {"role": "web"}}, {"name": "write"}]}, True),
        ({"main": [{"name": "write"}, {JUDGE: {"role": "web"}}]}, False),
        ({"main": [{JUDGE: {"role": "other"}}]}, False),
        ({"main": [{JUDGE: {"role": "web"}, "when": "web_port > 1"}, {"name": "write"}]}, False),
        ({"main": [{JUDGE: {"role": "web"}, "when": "web_on"}, {"name": "write", "when": "web_on"}]}, True),
        ({"main": [{INCLUDE: "run.yml", "when": "web_enabled"}], "run": [{JUDGE: {"role": "web"}}]}, True),
        ({"main": [{INCLUDE: "run.yml", "when": "web_enabled"}], "run": [{"name": "write"}]}, False),
    ],
)
def test_a_role_that_does_not_judge_first_is_found(
    tmp_path: Path, tasks: dict[str, list[dict[str, Any]]], judged: bool
) -> None:
    folder = tmp_path / "web"
    for name, list_of_tasks in tasks.items():
        write(folder, f"tasks/{name}.yml", yaml.safe_dump(list_of_tasks))
    assert judges_first(folder) is judged
