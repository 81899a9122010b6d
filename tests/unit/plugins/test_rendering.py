# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files of a service turned into contents on the controller, and the digest by which they are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible_collections.fushuma.production.plugins.plugin_utils.rendering import (
    DIGEST_TOKEN,
    Rendered,
    Renderer,
    digest_of,
    expanded,
)
from hypothesis import given
from hypothesis import strategies as st

from ..roles.render import templar


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A role's folder with templates and files."""
    (tmp_path / "templates").mkdir()
    (tmp_path / "files" / "site" / "assets").mkdir(parents=True)
    for name, content in {
        "templates/a.j2": b"port {{ port }}\n",
        "templates/item.j2": b"{{ item.name }} {{ port }} {{ part | default('no part') }}",
        "templates/plain.j2": b"{{ item }}",
        "templates/none.j2": b"{{ nothing }}",
        "templates/below.j2": b"{% include 'a.j2' %}",
        "templates/back.j2": rb"a\nb {{ '\\n' }}",
        "templates/typo.j2": b"{{ prot }}",
        "files/logo.png": b"\x89PNG\r\n\x00\xff",
        "files/site/index.html": b"<p>",
        "files/site/assets/a.js": b"{{ port }}",
    }.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def rendered(folder: Path, *files: Mapping[str, Any], **variables: Any) -> tuple[list[Rendered], str]:
    known = {"port": 80, "nothing": None, **variables}
    return Renderer(templar(known), known, lambda kind, name: str(folder / kind / name)).render(files)


def contents(folder: Path, *files: Mapping[str, Any]) -> dict[str, bytes | None]:
    return {file.dest: file.content for file in rendered(folder, *files)[0]}


# --- contents --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "found"),
    [
        ({"src": "a.j2"}, b"port 80\n"),
        ({"src": "a.j2", "vars": {"port": 81}}, b"port 81\n"),
        ({"src": "below.j2"}, b"port 80"),
        ({"src": "none.j2"}, b""),
        ({"src": "back.j2"}, b"a\\nb \\n"),
        ({"content": "{{ port }}"}, b"{{ port }}"),
        ({"content": ""}, b""),
        ({"content": 5}, b"5"),
        ({"content": "für"}, "für".encode()),
        ({"copy": "logo.png"}, b"\x89PNG\r\n\x00\xff"),
        ({"state": "absent"}, None),
        ({"state": "absent", "src": "typo.j2"}, None),
    ],
)
def test_one_file(folder: Path, file: dict[str, Any], found: bytes | None) -> None:
    assert contents(folder, {"dest": "/etc/a", **file}) == {"/etc/a": found}


def test_a_folder_is_copied_whole_and_as_it_is(folder: Path) -> None:
    assert contents(folder, {"copy": "site", "dest": "/var/www"}) == {
        "/var/www/index.html": b"<p>",
        "/var/www/assets/a.js": b"{{ port }}",
    }


def test_attributes_reach_the_host_and_nothing_else(folder: Path) -> None:
    file = {"dest": "/a", "src": "a.j2", "vars": {"port": 1}, "mode": "0600", "owner": "web", "sensitive": True}
    ((one,), _digest) = rendered(folder, file)
    assert one.attributes == {"mode": "0600", "owner": "web", "sensitive": True}
    ((gone,), _digest) = rendered(folder, {"dest": "/a", "state": "absent"})
    assert gone.attributes == {"state": "absent"}


def test_one_file_for_each_element(folder: Path) -> None:
    sites = [{"name": "a", "content": "site"}, {"name": "b", "content": "logo.png"}]
    assert contents(
        folder,
        {"src": "item.j2", "dest": "/etc/{name}.conf", "each": sites, "vars": {"part": "key"}},
        {"src": "plain.j2", "dest": "/etc/{item}", "each": ["x", "y"]},
        {"copy": "{content}", "dest": "/var/{name}", "each": sites},
        {"content": "{name}", "dest": "/run/{name}", "each": sites[:1]},
        {"src": "item.j2", "dest": "/etc/nobody", "each": []},
    ) == {
        "/etc/a.conf": b"a 80 key",
        "/etc/b.conf": b"b 80 key",
        "/etc/x": b"x",
        "/etc/y": b"y",
        "/var/a/index.html": b"<p>",
        "/var/a/assets/a.js": b"{{ port }}",
        "/var/b": b"\x89PNG\r\n\x00\xff",
        "/run/a": b"{name}",
    }


def test_directories_have_elements_too() -> None:
    spec = {"path": "/var/www/{name}", "prune": True, "each": [{"name": "a"}]}
    assert list(expanded(spec, "path")) == [({"path": "/var/www/a", "prune": True}, {"item": {"name": "a"}})]
    assert list(expanded({"path": "/var/{x}"}, "path")) == [({"path": "/var/{x}"}, {})]


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ({"src": "typo.j2"}, "/etc/a does not render: 'prot' is undefined"),
        ({"src": "missing.j2"}, "/etc/a does not render: [Errno 2] No such file or directory: '.*/missing.j2'"),
        ({"copy": "missing"}, "/etc/a does not render: [Errno 2] No such file or directory: '.*/missing'"),
        ({}, "/etc/a: a file has exactly one of src, copy and content, not none"),
        (
            {"src": "a.j2", "content": ""},
            r"/etc/a: a file has exactly one of src, copy and content, not \['src', 'content'\]",
        ),
        (
            {"content": "", "mode": 0o644},
            "/etc/a: the mode stands without quotes, so YAML reads another number; quote it",
        ),
        (
            {"content": "", "dest": "/etc/{nmae}", "each": [{"name": "a"}]},
            r"/etc/{nmae}: what stands in braces is no key of each element \('nmae'\)",
        ),
        (
            {"content": "", "dest": "/etc/{", "each": [{"name": "a"}]},
            r"/etc/{: what stands in braces is no key of each element \(Single '{' .*\)",
        ),
        (
            {"content": "", "dest": "/etc/{}", "each": [{"name": "a"}]},
            r"/etc/{}: what stands in braces is no key of each element \(.*\)",
        ),
    ],
)
def test_errors_name_the_file(folder: Path, file: dict[str, Any], message: str) -> None:
    with pytest.raises(AnsibleError, match=message.replace("[Errno 2]", r"\[Errno 2\]")):
        rendered(folder, {"dest": "/etc/a", **file})


# --- digest ----------------------------------------------------------------------------------------------------------

CONTENTS = st.none() | st.binary(max_size=20)
FILES = st.dictionaries(st.text(min_size=1, max_size=8), CONTENTS, min_size=1, max_size=6)


def as_files(found: Mapping[str, bytes | None] | Sequence[tuple[str, bytes | None]]) -> list[Rendered]:
    return [Rendered(dest, content) for dest, content in dict(found).items()]


@given(FILES, st.randoms())
def test_the_order_of_files_does_not_matter(files: dict[str, bytes | None], random: Any) -> None:
    shuffled = list(files.items())
    random.shuffle(shuffled)
    assert digest_of(as_files(shuffled)) == digest_of(as_files(files))


@given(FILES, FILES)
def test_two_sets_of_files_have_two_digests(one: dict[str, bytes | None], other: dict[str, bytes | None]) -> None:
    assert (digest_of(as_files(one)) == digest_of(as_files(other))) == (one == other)


@given(FILES, st.data())
def test_each_file_counts(files: dict[str, bytes | None], data: Any) -> None:
    changed = data.draw(st.sampled_from(sorted(files)))
    for content in (None, b"", (files[changed] or b"") + b"x"):
        if content != files[changed]:
            assert digest_of(as_files({**files, changed: content})) != digest_of(as_files(files))
    left = {dest: content for dest, content in files.items() if dest != changed}
    assert digest_of(as_files(left)) != digest_of(as_files(files))


def test_the_digest_stands_where_it_is_asked_for(folder: Path) -> None:
    declared = [
        {"dest": "/etc/a", "content": f"<{DIGEST_TOKEN}> <{DIGEST_TOKEN}>"},
        {"dest": "/etc/b", "content": "b"},
        {"dest": "/etc/c", "state": "absent"},
    ]
    files, digest = rendered(folder, *declared)
    assert len(digest) == 16
    assert [file.content for file in files] == [f"<{digest}> <{digest}>".encode(), b"b", None]
    assert rendered(folder, *declared) == (files, digest)
    declared[1]["content"] = "B"
    again, changed = rendered(folder, *declared)
    assert changed != digest
    assert again[0].content == f"<{changed}> <{changed}>".encode()
