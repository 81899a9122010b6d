# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The settings of one host or a whole inventory, judged at once and without contacting anybody.

Four steps, and all hosts and roles go through each: names that nothing reads, shapes (argument_specs), meaning (each
role's own judge), and rules across the roles of one host. What survives them must render.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.role.include import RoleInclude
from ansible.plugins.loader import filter_loader
from ansible.template import Templar
from ansible_collections.fushuma.production.plugins.module_utils.mariadb import PART
from ansible_collections.fushuma.production.plugins.plugin_utils import (
    alertmanager,
    app,
    backup,
    docker,
    exporters,
    firewall,
    grafana,
    hardening,
    log_shipper,
    loki,
    mariadb,
    nginx,
    prometheus,
    redis,
    secret,
    sentry,
    specs,
    sshd,
)
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import Problem, value_of
from ansible_collections.fushuma.production.plugins.plugin_utils.rendering import Renderer
from ansible_collections.fushuma.production.plugins.plugin_utils.sizes import bytes_of, shown

PREFIX = "fushuma.production."
SITE = specs.ROLES.parent / "playbooks" / "site.yml"
A_TEMPLATE = "a template"  # in the place of a value that cannot be had
Judge = Callable[[Mapping[str, Any]], list[Problem]]

# Each role's own judge: settings with all defaults filled in -> what cannot work.
JUDGES: Mapping[str, Judge] = {
    "alertmanager": alertmanager.problems,
    "app": app.problems,
    "backup": backup.problems,
    "docker": docker.problems,
    "exporters": exporters.problems,
    "firewall": firewall.problems,
    "grafana": grafana.problems,
    "hardening": hardening.problems,
    "log_shipper": log_shipper.problems,
    "loki": loki.problems,
    "mariadb": mariadb.problems,
    "nginx": nginx.problems,
    "prometheus": prometheus.problems,
    "redis": redis.problems,
    "sentry": sentry.problems,
    "sshd": sshd.problems,
}

IMPORT = "ansible.builtin.import_role"
ROLE_KEYWORDS = frozenset(RoleInclude.fattributes)

SLIP = 0.85  # difflib's ratio from which a name is a slip of the finger: one letter of seven, two of fourteen

# Preflight contacts no host, so templates are rendered as each supported release would have them.
# Roles by whose name people call variables of their own, such as app_version: of these only slips are no setting.
COMMON_WORDS = {"app"}

RELEASES: Sequence[Mapping[str, str]] = (
    {"distribution": "Debian", "distribution_major_version": "12", "distribution_release": "bookworm"},
    {"distribution": "Debian", "distribution_major_version": "13", "distribution_release": "trixie"},
)


@dataclass(frozen=True)
class Host:
    """A host as the inventory describes it; ``handed`` is what the playbook hands to each of its roles."""

    name: str
    variables: Mapping[str, Any]
    roles: Sequence[str]
    handed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def hosts_of(plays: Iterable[Mapping[str, Any]], groups: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Which roles of this collection a playbook runs on each host: ``{host: [role, ...]}``, in the playbook's order."""
    return {host: list(roles) for host, roles in handed_to(plays, groups).items()}


def handed_to(
    plays: Iterable[Mapping[str, Any]], groups: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, dict[str, Any]]]:
    """What a playbook hands to the roles of each host: ``{host: {role: {variable: value}}}``, in the playbook's order.

    Values are not rendered yet.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for play in plays:
        roles = roles_in(play)
        for host in groups.get(str(play.get("hosts")), []):
            of_host = found.setdefault(host, {})
            for role, variables in roles:
                if role.startswith(PREFIX):
                    of_host.setdefault(role.removeprefix(PREFIX), {}).update(variables)
    return found


def plays_of(playbook: Path) -> list[Mapping[str, Any]]:
    """The plays of a playbook, those of the playbooks it imports in their places."""
    found: list[Mapping[str, Any]] = []
    for play in yaml_of(playbook):
        imported = play.get("ansible.builtin.import_playbook")
        found += plays_of(playbook.parent / imported) if imported else [play]
    return found


def misspelt_groups(plays: Iterable[Mapping[str, Any]], groups: Mapping[str, Sequence[str]]) -> list[str]:
    """A sentence for each group of the inventory that is probably one of the playbook's, with a slip of the finger."""
    served = [str(play["hosts"]) for play in plays if roles_in(play)]
    empty = [name for name in served if not groups.get(name)]
    meant = {
        name: difflib.get_close_matches(name, empty, n=1, cutoff=0.7)
        for name in sorted(groups)
        if name not in ("all", "ungrouped", *served)
    }
    return [
        f"The inventory has a group {name} that no play is for, and no host in {near[0]}. Write {near[0]}."
        for name, near in meant.items()
        if near
    ]


def roles_in(play: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The roles that a play runs, each with what the play hands to it, in the order in which they run."""
    imported = [task for task in play.get("tasks") or [] if IMPORT in task]
    return [
        *((_role_named(entry), _variables_of(entry)) for entry in play.get("roles") or []),
        *((str(task[IMPORT]["name"]), task.get("vars") or {}) for task in imported),
    ]


def _role_named(entry: str | Mapping[str, Any]) -> str:
    return entry if isinstance(entry, str) else str(entry.get("role") or entry.get("name"))


def _variables_of(entry: str | Mapping[str, Any]) -> dict[str, Any]:
    """What a role is given where a play names it; the rest are words of Ansible's own."""
    if isinstance(entry, str):
        return {}
    own = {name: value for name, value in entry.items() if name not in ROLE_KEYWORDS}
    return {**(entry.get("vars") or {}), **own}


def judge(hosts: Sequence[Host], templar: Templar, *, renders: bool = True) -> list[str]:
    """Everything that is wrong, as sentences, each with its host.

    What a playbook hands over comes out of other settings. Where it is wrong because those are, they are named alone.
    ``renders`` has the roles' files rendered too, which takes most of the time.
    """
    databases = [host.name for host in hosts if "mariadb" in host.roles]
    found = [
        (host, problem) for host in hosts for problem in sorted(set(_host_problems(host, templar, databases, renders)))
    ]
    causes = [problem for host, problem in found if not _is_handed(host, problem)]
    named = [(host, one) for host, one in found if not (_is_handed(host, one) and _follows(one, causes))]
    return [problem.sentence(host.name) for host, problem in named]


def _is_handed(host: Host, problem: Problem) -> bool:
    handed = {name for variables in host.handed.values() for name in variables}
    return re.split(r"[.\[]", problem.setting)[0] in handed


def _follows(problem: Problem, causes: Sequence[Problem]) -> bool:
    """Whether a problem is there only because of another one: nothing could be had, or the same is wrong there."""
    if problem.value == A_TEMPLATE:
        return bool(causes)
    return any(cause.why == problem.why and cause.value.strip('"') == problem.value.strip('"') for cause in causes)


def _host_problems(host: Host, templar: Templar, databases: Sequence[str], renders: bool) -> Iterator[Problem]:
    yield from unknown_names(
        {**host.variables, **{name: value for one in host.handed.values() for name, value in one.items()}}
    )
    exports: dict[str, Mapping[str, Any]] = {}
    for role in host.roles:
        given = {**host.variables, **host.handed.get(role, {})}
        settings, found = role_settings(role, given, templar)
        found += _meaning_problems(role, settings, found)
        if not found:
            variables = {**role_files(role, "defaults"), **given, **settings, **role_files(role, "vars")}
            exports[role], found = _exports_and_files(role, variables, templar, renders)
        else:
            exports[role] = _exports_as_far_as_right(role, given, templar)
        yield from found
    yield from port_collisions(exports)
    yield from memory_problems(exports, host.variables, templar)
    yield from connection_problems(exports, databases)


def unknown_names(variables: Mapping[str, Any]) -> list[Problem]:
    """Variables that look like a role's settings and that no role reads."""
    roles = all_roles()
    known = [name for role in roles for name in specs.role_options(role)]
    private = {name for role in roles for name in role_files(role, "vars")}
    prefixes = tuple(f"{role}_" for role in roles if role not in COMMON_WORDS)
    suspects = [
        name
        for name in variables
        if name not in known and name not in private and (name.startswith(prefixes) or _is_slip(name, known))
    ]
    return [specs.unknown(name, variables[name], name, _of_the_same_role(name, known)) for name in suspects]


def _of_the_same_role(name: str, known: Sequence[str]) -> Sequence[str]:
    role = specs.role_of(name)
    return [one for one in known if role and specs.role_of(one) == role] or known


def _is_slip(name: str, known: Sequence[str]) -> bool:
    """Whether a name without a role's prefix is a setting's with a slip of the finger in it.

    Ansible's own names, private ones, and those that hold a whole setting's name (``edge_nginx_sites``) are meant so.
    """
    if name.startswith(("_", "ansible_")) or name.endswith(tuple(f"_{one}" for one in known)):
        return False
    return bool(difflib.get_close_matches(name.lower(), known, n=1, cutoff=SLIP))


def role_settings(role: str, variables: Mapping[str, Any], templar: Templar) -> tuple[dict[str, Any], list[Problem]]:
    """A role's settings on one host, rendered, and what is wrong with their shapes."""
    options = specs.role_options(role)
    raw = {**role_files(role, "defaults"), **variables}
    rendering = templar.copy_with_new_env(available_variables=raw)
    settings: dict[str, Any] = {}
    found: list[Problem] = []
    for name in options:
        if name not in raw:
            continue
        try:
            settings[name] = plain(rendering.template(raw[name]))
        except AnsibleError as error:
            found.append(Problem(name, A_TEMPLATE, f"it does not render ({_clause(error)})", "a value that does"))
            settings[name] = options[name].get("default")
    return settings, found + specs.problems(options, settings)


def _meaning_problems(role: str, settings: Mapping[str, Any], misfits: Sequence[Problem]) -> list[Problem]:
    """What cannot work in the settings of right shape; in the place of the others their defaults are judged."""
    options = specs.role_options(role)
    broken = {re.split(r"[.\[]", problem.setting)[0] for problem in misfits if problem.why != specs.UNREAD}
    if any(options[name].get("required") for name in broken):
        return []
    sound = {name: value for name, value in settings.items() if name not in broken}
    found = JUDGES[role](specs.filled(options, sound)) if role in JUDGES else []
    named = {problem.setting for problem in found}
    return found + [problem for problem in secret.problems(options, sound) if problem.setting not in named]


def _clause(error: Exception) -> str:
    """What an error says, as a part of a sentence."""
    return " ".join(str(error).split()).rstrip(".")


def plain(value: Any) -> Any:
    """The value with every template in it rendered; raises AnsibleError for one that cannot be."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return str(value) if isinstance(value, str) else value


def role_files(role: str, folder: str) -> dict[str, Any]:
    """A role's defaults or private vars as they stand in its main.yml."""
    path = specs.ROLES / role / folder / "main.yml"
    return dict(yaml_of(path) or {}) if path.exists() else {}


def read_ahead() -> None:
    """Read what all of them need: every role, the playbook that says which role runs where, and the filters."""
    for role in all_roles():
        specs.role_options(role)
        role_files(role, "defaults")
        role_files(role, "vars")
    plays_of(SITE)
    # To look for one filter of a collection is to import all of them.
    filter_loader.get("fushuma.production.csp_header")


def all_roles() -> list[str]:
    """The names of this collection's roles."""
    return sorted(path.parent.parent.name for path in specs.ROLES.glob("*/meta/argument_specs.yml"))


@lru_cache
def yaml_of(path: Path) -> Any:
    """A YAML file of this collection, its templates trusted as Ansible trusts them in a role.

    It is read once, for to read one takes longer than to judge with it: what is returned is not to be changed.
    """
    return DataLoader().load_from_file(str(path), cache="none", unsafe=True, trusted_as_template=True)


def exports_of(
    role: str, variables: Mapping[str, Any], templar: Templar, parts: Sequence[str] | None = None
) -> Mapping[str, Any]:
    """What a role tells others about a host with these variables, in all parts or in those that are wanted.

    Raises AnsibleError where they do not render.
    """
    private = role_files(role, "vars")
    exports = private.get(f"{role}_exports", {})
    wanted = {part: value for part, value in exports.items() if parts is None or part in parts}
    if not wanted:
        return {}
    known = {**role_files(role, "defaults"), **variables, **private}
    rendered: Mapping[str, Any] = plain(templar.copy_with_new_env(available_variables=known).template(wanted))
    return rendered


def _exports_as_far_as_right(role: str, variables: Mapping[str, Any], templar: Templar) -> Mapping[str, Any]:
    """What a role whose settings are not all right tells others, so that rules across roles are judged in the same run.

    Nothing where what is wrong lets nothing be told.
    """
    try:
        return exports_of(role, variables, templar)
    except (AnsibleError, ValueError):
        return {}


def _exports_and_files(
    role: str, variables: Mapping[str, Any], templar: Templar, renders: bool
) -> tuple[Mapping[str, Any], list[Problem]]:
    """What the role tells others, and with ``renders`` which of its files do not render with these settings."""
    base = specs.ROLES / role
    exports: Mapping[str, Any] = {}
    gathered = variables.get("ansible_facts") or {}
    for facts in [gathered] if "distribution_major_version" in gathered else RELEASES:
        known = {**variables, "ansible_facts": facts, "role_path": str(base)}
        rendering = templar.copy_with_new_env(available_variables=known)
        try:
            exports = exports_of(role, known, templar)
            if renders:
                files = plain(rendering.template(known.get(f"_{role}_files", [])))
                Renderer(rendering, known, lambda folder, name: str(base / folder / name)).render(files)
        except AnsibleError as error:
            release = facts["distribution_major_version"]
            where, shown = f"a file of the role {role}", f"impossible on Debian {release}"
            return exports, [Problem(where, shown, _clause(error), "settings with which it renders")]
    return exports, []


def port_collisions(exports: Mapping[str, Mapping[str, Any]]) -> list[Problem]:
    """Two things of one host on one port.

    ``exports`` is ``{role: {listens: [{port, setting, address, protocol}]}}``.
    """
    found = []
    before: list[Mapping[str, Any]] = []
    for one in (one for role_exports in exports.values() for one in role_exports.get("listens", [])):
        for other in before:
            shared = set(_ports(one)) & set(_ports(other))
            shares = shared and one.get("protocol", "tcp") == other.get("protocol", "tcp")
            if shares and _overlap(str(one.get("address", "")), str(other.get("address", ""))):
                why = f"{other['setting']} listens there too"
                found.append(Problem(one["setting"], value_of(one["port"]), why, "a port of its own"))
        before.append(one)
    return found


def _ports(listening: Mapping[str, Any]) -> range:
    """The port, or the range of ports such as ``8100-8119``."""
    first, _dash, last = str(listening["port"]).partition("-")
    return range(int(first), int(last or first) + 1)


def _overlap(one: str, other: str) -> bool:
    """Whether two addresses cannot share a port. IPv6 sockets leave IPv4 alone, as nginx opens them (ipv6only=on)."""
    if one == other or "" in (one, other):
        return True
    everywhere = {"0.0.0.0", "::", "[::]"}
    return (":" in one) == (":" in other) and (one in everywhere or other in everywhere)


def memory_problems(
    exports: Mapping[str, Mapping[str, Any]], variables: Mapping[str, Any], templar: Templar
) -> Iterator[Problem]:
    """What the roles of one host ask for in memory, against what the host has.

    ``exports`` is ``{role: {memory: [{setting, bytes, what}]}}``. How much the host has follows from its facts or,
    where it was not asked, from the variable ``host_memory``, such as ``4gb``. Without both nothing is compared.
    """
    facts, told = variables.get("ansible_facts") or {}, variables.get("host_memory")
    if told is not None:
        told = plain(templar.copy_with_new_env(available_variables=variables).template(told))
        if not bytes_of(str(told)):
            yield Problem("host_memory", value_of(told), "it is no size", '"4gb"')
            return
    has = facts["memtotal_mb"] * 1024**2 if "memtotal_mb" in facts else bytes_of(str(told))
    terms = [one for of_role in exports.values() for one in of_role.get("memory", [])]
    wanted = sum(int(one["bytes"]) for one in terms)
    if has and wanted > has * PART:
        shares = " + ".join(f"{one['setting']} {shown(int(one['bytes']))} ({one['what']})" for one in terms)
        why = f"it is asked for {shares} = {shown(wanted)}, and three quarters of it are {shown(int(has * PART))}"
        form = f"less for one of them; a host with {shown(int(wanted / PART))} would do"
        yield Problem("host_memory", value_of(shown(has)), why, form)


def connection_problems(exports: Mapping[str, Mapping[str, Any]], databases: Sequence[str]) -> Iterator[Problem]:
    """Connections to a host that runs no database: nobody would count them. Without any database others run theirs.

    ``exports`` is ``{role: {connections: [{host, who, ...}]}}``.
    """
    for one in (one for of_role in exports.values() for one in of_role.get("connections", [])):
        if databases and one["host"] not in databases:
            why = "no host of that name runs MariaDB, so they are not counted"
            yield Problem(f"the database of {one['who']}", value_of(one["host"]), why, f"one of {', '.join(databases)}")
