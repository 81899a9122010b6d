# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Settings against a role's argument_specs: every misfit at once, each as a Problem, and the nested defaults filled in.

Ansible checks argument_specs too, but one role and host at a time, without the path of a nested option, and it never
applies the defaults of nested options. Here both follow from the same file that Ansible reads.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from ansible.module_utils.common.validation import (
    check_type_bool,
    check_type_float,
    check_type_int,
)
from ansible.module_utils.common.yaml import yaml_load
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import Problem, sentences, value_of

Options = Mapping[str, Mapping[str, Any]]

ROLES = Path(__file__).parents[2] / "roles"

UNREAD = "nothing reads a setting of this name"
TYPES: dict[str, tuple[str, str]] = {
    "str": ("a text is needed", "one text, in quotes where it could be read as something else"),
    "path": ("a path is needed", "one path"),
    "int": ("a whole number is needed", "a whole number without a unit"),
    "float": ("a number is needed", "a number without a unit"),
    "bool": ("true or false is needed", "true or false"),
    "list": ("a list is needed", "each element on a line of its own, after `- `"),
    "dict": ("a group of settings is needed", "one `key: value` a line, indented below the name"),
}


@lru_cache
def role_options(role: str) -> Options:
    """The options of a role's main entry point, as its meta/argument_specs.yml states them."""
    document = yaml_load((ROLES / role / "meta" / "argument_specs.yml").read_text("utf-8"))
    options: Options = document["argument_specs"]["main"]["options"]
    return options


def role_of(setting: str) -> str:
    """The role whose name, of two the longer, a setting's name begins with; "" where it is no role's."""
    parts = setting.split("_")
    names = ("_".join(parts[:count]) for count in range(len(parts) - 1, 0, -1))
    return next((name for name in names if (ROLES / name / "meta").is_dir()), "")


def problems(options: Options, settings: Mapping[str, Any]) -> list[Problem]:
    """Whatever in the settings does not fit the options, at any depth. Unknown names count only below the top level."""
    found: list[Problem] = []
    for name, option in options.items():
        if name in settings and settings[name] is not None:
            found += _value_problems(option, settings[name], name)
        elif option.get("required"):
            found.append(_missing(name, option))
    return found


def _missing(setting: str, option: Mapping[str, Any]) -> Problem:
    return Problem(setting, "missing", "it has no default that could be right for you", _form(option))


def _form(option: Mapping[str, Any]) -> str:
    """A form that would fit the option."""
    if option.get("choices"):
        return "one of " + ", ".join(map(str, option["choices"]))
    if option.get("default") not in (None, [], {}):
        return f"for example {value_of(option['default'])}"
    return TYPES.get(option["type"], ("", "a value"))[1]


def _value_problems(option: Mapping[str, Any], value: Any, setting: str) -> list[Problem]:
    kind, secret = option["type"], bool(option.get("no_log"))
    try:
        value = coerced(kind, value)
    except (TypeError, ValueError):
        return [Problem(setting, value_of(value, secret=secret), TYPES[kind][0], _form(option))]
    if kind == "list":
        # As Ansible has it, the choices of a list are those of its elements.
        element = {"type": option.get("elements", "raw")}
        element |= {key: option[key] for key in ("options", "choices") if key in option}
        return [p for i, one in enumerate(value) for p in _value_problems(element, one, f"{setting}[{i}]")]
    if option.get("choices") and value not in option["choices"]:
        return [Problem(setting, value_of(value, secret=secret), "it is none of the choices", _form(option))]
    if kind == "dict" and "options" in option:
        return _group_problems(option["options"], value, setting)
    return []


def _group_problems(options: Options, group: Mapping[str, Any], setting: str) -> list[Problem]:
    found = [unknown(f"{setting}.{name}", group[name], name, options) for name in group if name not in options]
    return found + [problem.under(setting) for problem in problems(options, group)]


def unknown(setting: str, value: object, name: str, known: Mapping[str, object] | Sequence[str]) -> Problem:
    """A name that nothing reads, with the name that was probably meant. A text may be a secret, so it is not shown."""
    near = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    instead = f"{near[0]}, if that is meant" if near else "one of " + ", ".join(sorted(known))
    shown = value_of(value) if isinstance(value, (bool, int, float)) else "given"
    return Problem(setting, shown, UNREAD, instead)


def coerced(kind: str, value: Any) -> Any:
    """The value as the type it stands for: numbers and booleans may come as text from a command line.

    Raises TypeError or ValueError where it stands for none.
    """
    if kind == "int":
        if isinstance(value, (bool, float)):
            raise TypeError(kind)
        return check_type_int(value)
    if kind == "float":
        if isinstance(value, bool):
            raise TypeError(kind)
        return check_type_float(value)
    if kind == "bool":
        return check_type_bool(value)
    wanted = {"str": str, "path": str, "list": list, "dict": Mapping}.get(kind)
    if kind in ("str", "path") and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if wanted and not isinstance(value, wanted):
        raise TypeError(kind)
    return value


def settled(role: str, settings: Any) -> dict[str, Any]:
    """A role's settings as a filter is given them, with all defaults; raises ValueError for what is none."""
    if not isinstance(settings, Mapping):
        raise ValueError(f"expects the role's settings as a dict, not {type(settings).__name__}")
    options = role_options(role)
    if misfits := sentences(problems(options, settings)):
        raise ValueError(" ".join(misfits))
    return filled(options, settings)


def filled(options: Options, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with the defaults of nested options filled in and all values of the right type.

    A group that has options but is not given stays away unless it has a default itself; None means not given.
    """
    result: dict[str, Any] = {}
    for name, option in options.items():
        value = settings.get(name)
        if value is None:
            value = option.get("default")
        result[name] = None if value is None else _filled_value(option, value)
    return result


def _filled_value(option: Mapping[str, Any], value: Any) -> Any:
    kind = option["type"]
    if kind == "list":
        element = {"type": option.get("elements", "raw"), "options": option.get("options")}
        return [_filled_value(element, one) for one in value]
    if kind == "dict" and option.get("options"):
        return filled(option["options"], value)
    return coerced(kind, value)
