# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The generator of defaults and role pages, on small made-up roles."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

import generate
import pytest
import yaml

OPTIONS: dict[str, Any] = {
    "web_port": {"type": "int", "default": 443, "description": "TCP port, see V(443)."},
    "web_version": {"type": "str", "default": "1.10", "description": ["Looks like a number.", "Second | paragraph."]},
    "web_flag": {"type": "str", "default": "yes", "choices": ["yes", "no"], "description": "Looks like a bool."},
    "web_url": {"type": "str", "default": "https://{{ inventory_hostname }}/", "description": "A template."},
    "web_motd": {"type": "str", "default": "first\nsecond\n", "description": "Two lines."},
    "web_password": {"type": "str", "required": True, "description": "A secret."},
    "web_email": {"type": "str", "description": "May be left out."},
    "web_sites": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "description": "Sites.",
        "options": {
            "name": {"type": "str", "required": True, "description": "Its name."},
            "tls": {
                "type": "dict",
                "description": "TLS.",
                "options": {"curves": {"type": "list", "elements": "str", "default": ["a"], "description": "Curves."}},
            },
        },
    },
}

NESTED = {"type": "list", "elements": "dict", "description": "x", "options": {"z": {"type": "str"}}}


def spec_of(options: dict[str, Any]) -> dict[str, Any]:
    """An argument spec with one entry point."""
    return {"argument_specs": {"main": {"short_description": "Serve", "description": "Text.", "options": options}}}


def make_role(root: Path, options: dict[str, Any] | None = None, name: str = "web", **entries: Any) -> Path:
    """A role folder with nothing but its spec."""
    spec = spec_of(OPTIONS if options is None else options)
    spec["argument_specs"].update(entries)
    path = root / "roles" / name / "meta" / "argument_specs.yml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return root / "roles" / name


def test_defaults_keep_values_types_and_order(tmp_path: Path) -> None:
    role = generate.read_role(make_role(tmp_path))
    text = generate.render_defaults(role)
    loaded = yaml.safe_load(text)
    expected = {name: option["default"] for name, option in OPTIONS.items() if "default" in option}
    assert loaded == expected == generate.defaults_of(role)
    assert list(loaded) == list(expected)
    assert {name: type(value) for name, value in loaded.items()} == {
        "web_port": int,
        "web_version": str,
        "web_flag": str,
        "web_url": str,
        "web_motd": str,
        "web_sites": list,
    }


def test_defaults_read_well(tmp_path: Path) -> None:
    names = ("web_port", "web_password", "web_email", "web_motd")
    role = generate.read_role(make_role(tmp_path, {name: OPTIONS[name] for name in names}))
    assert generate.render_defaults(role) == dedent(
        """\
        ---
        # Generated from meta/argument_specs.yml by tools/generate.py; do not edit.

        # TCP port, see 443.
        web_port: 443

        # A secret.
        # web_password: (required)

        # May be left out.
        # web_email: (no default)

        # Two lines.
        web_motd: |
          first
          second
        """
    )


def test_keys_keep_their_order() -> None:
    assert generate.to_yaml({"x": {"b": 1, "a": 2}}) == "x:\n  b: 1\n  a: 2\n"


def test_quotes_and_long_texts_stay_readable() -> None:
    assert generate.to_yaml({"x": "'none'"}) == "x: \"'none'\"\n"
    text = "accelerometer=(), " * 20
    lines = generate.to_yaml({"x": text}).splitlines()
    assert max(map(len, lines)) <= 120
    assert yaml.safe_load("\n".join(lines)) == {"x": text}


def test_lists_are_indented_and_repeated_values_written_out() -> None:
    shared = ["a"]
    assert generate.to_yaml({"x": shared, "y": shared}) == "x:\n  - a\ny:\n  - a\n"


def test_page_lists_options_of_all_depths(tmp_path: Path) -> None:
    page = generate.render_page(generate.read_role(make_role(tmp_path)))
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == [
        *("web_port", "web_version", "web_flag", "web_url", "web_motd", "web_password", "web_email", "web_sites"),
        *("web_sites[].name", "web_sites[].tls", "web_sites[].tls.curves"),
    ]
    assert "| `web_port` | int | `443` | TCP port, see `443`. |" in rows
    assert '| `web_version` | str | `"1.10"` | Looks like a number.<br>Second \\| paragraph. |' in rows
    assert '| `web_flag` | str | `"yes"` | Looks like a bool.<br>One of `"yes"`, `"no"`. |' in rows
    assert "| `web_password` | str | **required** | A secret. |" in rows
    assert "| `web_email` | str |  | May be left out. |" in rows
    assert '| `web_sites[].tls.curves` | list of str | `["a"]` | Curves. |' in rows


def test_a_long_default_is_linked(tmp_path: Path) -> None:
    option = {"type": "str", "default": "x" * 100, "description": "Long."}
    page = generate.render_page(generate.read_role(make_role(tmp_path, {"web_x": option})))
    assert "[defaults](../../roles/web/defaults/main.yml)" in page


def test_further_entry_points(tmp_path: Path) -> None:
    port = {"web_port": OPTIONS["web_port"]}
    extra = {"short_description": "Renew.", "description": "More.", "options": {**port, "web_x": OPTIONS["web_email"]}}
    role = generate.read_role(make_role(tmp_path, port, renew=extra))
    assert [option.name for option in role.options] == ["web_port", "web_x"]
    assert "## Entry point `renew`\n\nRenew.\n\nMore.\n" in generate.render_page(role)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"description": "x"}, "web: main: web_x has no type"),
        ({"type": "str"}, "web: main: web_x has no description"),
        ({"type": "str", "description": []}, "web_x has no description"),
        ({"type": "str", "description": ["x", " "]}, "web_x has no description"),
        ({"type": "str", "description": ["x", 1]}, "web_x has no description"),
        ({"type": "string", "description": "x"}, "web_x has the type 'string', which Ansible does not know"),
        ({"type": "list", "elements": "text", "description": "x"}, "web_x has the type 'text'"),
        ({"type": "list", "description": "x"}, "web_x is a list without elements"),
        ({"type": "str", "required": True, "default": "", "description": "x"}, "web_x is required and has a default"),
        ({"type": "int", "default": "1", "description": "x"}, "web_x has the default '1', which is no int"),
        ({"type": "int", "default": True, "description": "x"}, "web_x has the default True, which is no int"),
        ({"type": "str", "default": 1.1, "description": "x"}, "web_x has the default 1.1, which is no str"),
        ({"type": "str", "default": "c", "choices": ["a"], "description": "x"}, "the default 'c', which is none of"),
        ("text", "web_x has to be a mapping"),
        ({"type": "dict", "description": "x", "options": {"y": NESTED}}, "web: main: web_x.y[].z has no description"),
    ],
)
def test_a_spec_that_says_too_little_is_refused(tmp_path: Path, option: object, message: str) -> None:
    with pytest.raises(generate.SpecError) as caught:
        generate.read_role(make_role(tmp_path, {"web_x": option}))
    assert message in str(caught.value)


@pytest.mark.parametrize("default", ["{{ other }}", None])
def test_a_template_and_null_fit_any_type(tmp_path: Path, default: object) -> None:
    option = {"type": "int", "default": default, "description": "x"}
    assert generate.defaults_of(generate.read_role(make_role(tmp_path, {"web_x": option}))) == {"web_x": default}


def test_a_role_needs_a_spec_with_main(tmp_path: Path) -> None:
    (tmp_path / "roles" / "bare").mkdir(parents=True)
    with pytest.raises(generate.SpecError, match=r"bare has no meta/argument_specs\.yml"):
        generate.read_roles(tmp_path)
    folder = make_role(tmp_path, {})
    (folder / "meta" / "argument_specs.yml").write_text("argument_specs: {other: {}}")
    with pytest.raises(generate.SpecError, match="web has no entry point main"):
        generate.read_role(folder)


def test_entry_points_may_not_disagree(tmp_path: Path) -> None:
    other = {"type": "int", "default": 80, "description": "x"}
    extra = {"short_description": "x", "description": "x", "options": {"web_port": other}}
    folder = make_role(tmp_path, {"web_port": OPTIONS["web_port"]}, renew=extra)
    with pytest.raises(generate.SpecError, match="web_port differs between two entry points"):
        generate.read_role(folder)


def test_markup() -> None:
    text = "See O(web_x), L(the page,https://x.example/) and B(no) other; FOO(x) stays."
    assert generate.markdown(text) == "See `web_x`, [the page](https://x.example/) and *no* other; FOO(x) stays."
    assert generate.plain(text) == "See web_x, the page (https://x.example/) and no other; FOO(x) stays."


def test_readme_table_stands_between_its_markers(tmp_path: Path) -> None:
    make_role(tmp_path)
    roles = generate.read_roles(tmp_path)
    text = "a\n<!-- roles -->\nold\n<!-- /roles -->\nb\n"
    table = "| Role | What it does |\n| --- | --- |\n| [web](docs/roles/web.md) | Serve |\n"
    assert generate.render_readme(text, roles) == f"a\n<!-- roles -->\n{table}<!-- /roles -->\nb\n"
    assert generate.render_readme("none", roles) == "none"


def test_check_finds_what_writing_mends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_role(tmp_path)
    (tmp_path / "README.md").write_text("<!-- roles -->\n<!-- /roles -->\n")
    gone = tmp_path / "docs" / "roles" / "gone.md"
    gone.parent.mkdir(parents=True)
    gone.write_text(generate.PAGE_HEADER)
    (gone.parent / "by-hand.md").write_text("# Ours\n")

    assert generate.main(["--check"], tmp_path) == 1
    found = capsys.readouterr()
    assert "+web_port: 443" in found.out
    assert "4 of 4 generated files are stale: run `make docs`." in found.err
    assert gone.exists()

    assert generate.main([], tmp_path) == 0
    assert not gone.exists()
    assert (gone.parent / "by-hand.md").exists()
    assert generate.main(["--check"], tmp_path) == 0

    defaults = tmp_path / "roles" / "web" / "defaults" / "main.yml"
    defaults.write_text(defaults.read_text().rstrip("\n"))
    capsys.readouterr()
    assert generate.main(["--check"], tmp_path) == 1
    assert "roles/web/defaults/main.yml differs in its line endings" in capsys.readouterr().out


def test_a_bad_spec_stops_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_role(tmp_path, {"web_x": {"type": "str"}})
    assert generate.main([], tmp_path) == 2
    assert capsys.readouterr().err == "Nothing is generated: web: main: web_x has no description\n"
    assert not (tmp_path / "docs").exists()


def test_items_of_a_role_are_listed(tmp_path: Path) -> None:
    folder = make_role(tmp_path)
    assert "## Items" not in generate.render_page(generate.read_role(folder))
    (folder / "vars").mkdir(exist_ok=True)
    items = [
        {"name": "cron", "level": "strict", "title": "Timed | commands", "cis": ["2.4.1"], "anssi": ["R50"]},
        {"name": "own", "level": "baseline", "title": "Own"},
    ]
    variables = {"_web_items": items, "_web_ports": [1, {"name": "other"}], "_web_text": "x"}
    (folder / "vars" / "main.yml").write_text(yaml.safe_dump(variables), "utf-8")
    page = generate.render_page(generate.read_role(folder))
    assert "| `cron` | strict | Timed \\| commands | CIS 2.4.1, ANSSI R50 |\n| `own` | baseline | Own |  |\n" in page
    assert "other" not in page
