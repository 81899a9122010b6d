# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Write what follows from the roles' argument specs: their defaults, their reference pages, the README's table.

``roles/<role>/meta/argument_specs.yml`` is the only place where an option is described. Ansible judges arguments by it,
but takes defaults from ``defaults/main.yml`` alone, so that file is generated. ``--check`` writes nothing and fails
with a diff where a file is not what would be written.
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
SOURCE = "meta/argument_specs.yml by tools/generate.py; do not edit"
PAGE_HEADER = f"<!-- Generated from {SOURCE}. -->"
TABLE = re.compile(r"(<!-- roles -->\n).*?(<!-- /roles -->)", re.DOTALL)
WIDTH = 118
YAML_WIDTH = 90  # PyYAML ends a line behind the word that crosses it
LONGEST_DEFAULT = 80

# Ansible's argument types and the Python types a default of each may have; a template is text for any of them.
TYPES: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "bits": (str, int),
    "bytes": (str, int),
    "dict": (dict,),
    "float": (float, int),
    "int": (int,),
    "json": (str, dict, list),
    "jsonarg": (str, dict, list),
    "list": (list,),
    "path": (str,),
    "raw": (object,),
    "str": (str,),
}
# Ansible's semantic markup: https://docs.ansible.com/ansible/latest/dev_guide/ansible_markup.html
LINK = re.compile(r"\bL\(([^,)]+),\s*([^)]+)\)")
CODE = re.compile(r"\b(?:C|E|M|O|P|RV|V)\(([^)]*)\)")
EMPHASIS = re.compile(r"\b[BIU]\(([^)]*)\)")


class SpecError(Exception):
    """An argument spec from which nothing sensible can be generated."""


@dataclass(frozen=True)
class Option:
    """One option of a role. ``path`` is where it stands as an operator writes it: ``nginx_sites[].name``."""

    path: str
    name: str
    type: str
    elements: str
    required: bool
    choices: tuple[object, ...]
    description: tuple[str, ...]
    has_default: bool
    default: object
    options: tuple[Option, ...]

    def walk(self) -> Iterator[Option]:
        """This option and all below it, in the order of the spec."""
        yield self
        for option in self.options:
            yield from option.walk()


@dataclass(frozen=True)
class Item:
    """One thing that a role does and that can be switched by its name; ``serves`` are ids of benchmarks."""

    name: str
    level: str
    title: str
    serves: str


@dataclass(frozen=True)
class EntryPoint:
    """One way to call a role; ``options`` are the top-level ones."""

    name: str
    short_description: str
    description: tuple[str, ...]
    options: tuple[Option, ...]


@dataclass(frozen=True)
class Role:
    """A role as its spec describes it."""

    name: str
    entry_points: tuple[EntryPoint, ...] = field(default=())
    items: tuple[Item, ...] = field(default=())

    @property
    def main(self) -> EntryPoint:
        """The entry point that runs where none is named."""
        return next(entry for entry in self.entry_points if entry.name == "main")

    @property
    def options(self) -> tuple[Option, ...]:
        """All top-level options; one that several entry points share is listed once."""
        merged = {option.name: option for entry in self.entry_points for option in entry.options}
        return tuple(merged.values())


def as_mapping(value: object, where: str) -> Mapping[str, Any]:
    """``value`` if it is a mapping; ``where`` names it in the error."""
    if not isinstance(value, Mapping):
        raise SpecError(f"{where} has to be a mapping")
    return value


def paragraphs(value: object, where: str) -> tuple[str, ...]:
    """A description, which Ansible allows as one text or a list of them, as a tuple of one-line paragraphs."""
    given: list[object] = value if isinstance(value, list) else [value]
    texts = tuple(" ".join(text.split()) for text in given if isinstance(text, str))
    if not all(texts) or len(texts) != len(given) or not texts:
        raise SpecError(f"{where} has no description")
    return texts


def fits(value: object, wanted: str) -> bool:
    """Whether a default has the declared type as it stands; Ansible would convert it, a reader would be misled."""
    if value is None or (isinstance(value, str) and "{{" in value):
        return True
    if isinstance(value, bool) and wanted != "raw":
        return wanted == "bool"
    return isinstance(value, TYPES[wanted])


def read_option(name: str, value: object, parent: str, where: str) -> Option:
    """One option and those below it. ``parent`` is the path of the option that holds it, "" at the top."""
    path = f"{parent}.{name}" if parent else name
    here = f"{where}: {path}"
    spec = as_mapping(value, here)
    kind, elements = spec.get("type"), spec.get("elements", "")
    if kind is None:
        raise SpecError(f"{here} has no type")
    for declared in filter(None, (kind, elements)):
        if declared not in TYPES:
            raise SpecError(f"{here} has the type {declared!r}, which Ansible does not know")
    if kind == "list" and not elements:
        raise SpecError(f"{here} is a list without elements")
    if spec.get("required") and "default" in spec:
        raise SpecError(f"{here} is required and has a default")
    if not fits(spec.get("default"), kind):
        raise SpecError(f"{here} has the default {spec['default']!r}, which is no {kind}")
    choices = tuple(spec.get("choices") or ())
    if choices and isinstance(spec.get("default"), str | int | float) and spec["default"] not in choices:
        raise SpecError(f"{here} has the default {spec['default']!r}, which is none of its choices")
    below = f"{path}[]" if kind == "list" else path
    options = as_mapping(spec.get("options") or {}, f"{here}: options")
    return Option(
        path=path,
        name=name,
        type=kind,
        elements=elements,
        required=bool(spec.get("required")),
        choices=choices,
        description=paragraphs(spec.get("description"), here),
        has_default="default" in spec,
        default=spec.get("default"),
        options=tuple(read_option(key, item, below, where) for key, item in options.items()),
    )


def read_entry_point(name: str, value: object, where: str) -> EntryPoint:
    """One entry point of an argument spec."""
    spec = as_mapping(value, where)
    return EntryPoint(
        name=name,
        short_description=paragraphs(spec.get("short_description"), f"{where} (short)")[0],
        description=paragraphs(spec.get("description"), where),
        options=tuple(
            read_option(key, item, "", where) for key, item in as_mapping(spec.get("options") or {}, where).items()
        ),
    )


def read_items(folder: Path) -> tuple[Item, ...]:
    """The items of a role that has a list of them in its vars, each with a name, a level and a title."""
    path = folder / "vars" / "main.yml"
    found = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    items = [one for value in (found or {}).values() if isinstance(value, list) for one in value]
    return tuple(
        Item(
            one["name"],
            one["level"],
            one["title"],
            ", ".join(
                [*(f"CIS {cis}" for cis in one.get("cis", [])), *(f"ANSSI {rule}" for rule in one.get("anssi", []))]
            ),
        )
        for one in items
        if isinstance(one, dict) and {"name", "level", "title"} <= one.keys()
    )


def read_role(folder: Path) -> Role:
    """The role in ``folder``, from its meta/argument_specs.yml."""
    path = folder / "meta" / "argument_specs.yml"
    if not path.is_file():
        raise SpecError(f"{folder.name} has no meta/argument_specs.yml")
    document = as_mapping(yaml.safe_load(path.read_text(encoding="utf-8")), folder.name)
    entries = as_mapping(document.get("argument_specs"), f"{folder.name}: argument_specs")
    if "main" not in entries:
        raise SpecError(f"{folder.name} has no entry point main")
    role = Role(
        folder.name,
        tuple(read_entry_point(name, item, f"{folder.name}: {name}") for name, item in entries.items()),
        read_items(folder),
    )
    for entry in role.entry_points:
        for option in entry.options:
            if option not in role.options:
                raise SpecError(f"{folder.name}: {option.name} differs between two entry points")
    return role


def read_roles(root: Path) -> list[Role]:
    """All roles of the collection, by name."""
    return [read_role(folder) for folder in sorted((root / "roles").glob("*")) if folder.is_dir()]


def defaults_of(role: Role) -> dict[str, object]:
    """What defaults/main.yml holds as data: the top-level options that have a default."""
    return {option.name: option.default for option in role.options if option.has_default}


class _Dumper(yaml.SafeDumper):
    """Indents lists below their key, as yamllint wants it, and repeats values instead of naming them by anchors."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: object) -> bool:
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    """Text of several lines as a block, text that starts with a quote in the other quotes, any other as it comes."""
    style = "|" if "\n" in text else '"' if text.startswith("'") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def to_yaml(value: object) -> str:
    """``value`` as YAML in block style, in the order given."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=YAML_WIDTH)


def plain(text: str) -> str:
    """Ansible's markup taken away."""
    return EMPHASIS.sub(r"\1", CODE.sub(r"\1", LINK.sub(r"\1 (\2)", text)))


def markdown(text: str) -> str:
    """Ansible's markup as Markdown."""
    return EMPHASIS.sub(r"*\1*", CODE.sub(r"`\1`", LINK.sub(r"[\1](\2)", text)))


def sentence(text: str) -> str:
    """A short description, which has no full stop, as a sentence in Markdown."""
    return f"{markdown(text).rstrip('.')}."


def comment(text: str) -> str:
    """A paragraph as lines of comment."""
    return "\n".join(textwrap.wrap(plain(text), WIDTH, initial_indent="# ", subsequent_indent="# "))


def render_defaults(role: Role) -> str:
    """The text of roles/<role>/defaults/main.yml."""
    blocks = []
    for option in role.options:
        if option.has_default:
            value = to_yaml({option.name: option.default}).rstrip()
        else:
            value = f"# {option.name}: ({'required' if option.required else 'no default'})"
        blocks.append(f"{comment(option.description[0])}\n{value}\n")
    return f"---\n# Generated from {SOURCE}.\n\n" + "\n".join(blocks)


def cell(text: str) -> str:
    """Text as it may stand in a cell of a Markdown table."""
    return text.replace("|", "\\|")


def code(value: object) -> str:
    """A value as inline code: JSON, which is YAML too."""
    return f"`{json.dumps(value, ensure_ascii=False, default=str)}`"


def describe_default(option: Option, role: str) -> str:
    """The cell that says what holds where an option is not set."""
    if option.required:
        return "**required**"
    if not option.has_default or option.default is None:
        return ""
    text = code(option.default)
    return text if len(text) <= LONGEST_DEFAULT else f"[defaults](../../roles/{role}/defaults/main.yml)"


def describe_option(option: Option, role: str) -> str:
    """One row of a reference page."""
    kind = f"{option.type} of {option.elements}" if option.elements else option.type
    texts = [markdown(text) for text in option.description]
    if option.choices:
        texts.append("One of " + ", ".join(code(choice) for choice in option.choices) + ".")
    row = (f"`{option.path}`", kind, describe_default(option, role), "<br>".join(texts))
    return "| " + " | ".join(cell(text) for text in row) + " |"


def render_page(role: Role) -> str:
    """The text of docs/roles/<role>.md."""
    lines = [PAGE_HEADER, f"# {role.name}", "", f"{sentence(role.main.short_description)}"]
    for entry in role.entry_points:
        if entry.name != "main":
            lines += ["", f"## Entry point `{entry.name}`", "", f"{sentence(entry.short_description)}"]
        for text in entry.description:
            lines += ["", markdown(text)]
        rows = [describe_option(option, role.name) for top in entry.options for option in top.walk()]
        if rows:
            lines += ["", "| Setting | Type | Default | What it does |", "| --- | --- | --- | --- |", *rows]
    if role.items:
        rows = [f"| `{item.name}` | {item.level} | {cell(item.title)} | {item.serves} |" for item in role.items]
        lines += ["", "## Items", "", "| Item | Level | What it brings | Serves |", "| --- | --- | --- | --- |", *rows]
    return "\n".join(lines) + "\n"


def render_table(roles: list[Role]) -> str:
    """The README's table of roles."""
    lines = ["| Role | What it does |", "| --- | --- |"]
    for role in roles:
        lines.append(f"| [{role.name}](docs/roles/{role.name}.md) | {cell(markdown(role.main.short_description))} |")
    return "\n".join(lines) + "\n"


def render_readme(text: str, roles: list[Role]) -> str:
    """``text`` with the table of roles between its markers brought up to date; unchanged where it has none."""
    return TABLE.sub(lambda match: f"{match[1]}{render_table(roles)}{match[2]}", text)


def wanted_files(root: Path) -> dict[Path, str | None]:
    """Every generated file and its text; None for a page whose role is gone."""
    roles = read_roles(root)
    files: dict[Path, str | None] = {
        page: None
        for page in (root / "docs" / "roles").glob("*.md")
        if page.read_text(encoding="utf-8").startswith(PAGE_HEADER)
    }
    for role in roles:
        files[root / "roles" / role.name / "defaults" / "main.yml"] = render_defaults(role)
        files[root / "docs" / "roles" / f"{role.name}.md"] = render_page(role)
    readme = root / "README.md"
    if readme.is_file():
        files[readme] = render_readme(readme.read_text(encoding="utf-8"), roles)
    return files


def difference(root: Path, path: Path, wanted: str | None) -> str:
    """A unified diff from what stands in the file to what should; "" where both are the same."""
    found = path.read_text(encoding="utf-8") if path.is_file() else None
    if found == wanted:
        return ""
    name = str(path.relative_to(root))
    before, after = (found or "").splitlines(), (wanted or "").splitlines()
    lines = difflib.unified_diff(before, after, name, f"{name} (generated)", lineterm="")
    return "\n".join(lines) or f"{name} differs in its line endings"


def write(path: Path, text: str | None) -> None:
    """Make the file what it should be, or remove it."""
    if text is None:
        path.unlink()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """0 when all is as it should be, 1 when ``--check`` found a stale file, 2 when a spec cannot be used."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file is stale")
    check = parser.parse_args(arguments).check
    try:
        files = wanted_files(root)
    except (SpecError, yaml.YAMLError) as problem:
        print(f"Nothing is generated: {problem}", file=sys.stderr)
        return 2
    stale = {path: diff for path, text in files.items() if (diff := difference(root, path, text))}
    for path, diff in stale.items():
        print(diff if check else f"wrote {path.relative_to(root)}")
        if not check:
            write(path, files[path])
    if check and stale:
        print(f"{len(stale)} of {len(files)} generated files are stale: run `make docs`.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
