# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Turns the `files` of a service_config task into contents, on the controller."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.template import Templar, trust_as_template

DIGEST_TOKEN = "@config_digest@"
ORIGINS = ("src", "copy", "content")
USED_UP = (*ORIGINS, "vars")


@dataclass(frozen=True)
class Rendered:
    """One file with its content; ``attributes`` are the declared ones the host needs (owner, mode, state, ...)."""

    dest: str
    content: bytes | None
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def with_digest(self, digest: str) -> Rendered:
        """The file with the digest in the places that ask for it."""
        if self.content is None:
            return self
        return replace(self, content=self.content.replace(DIGEST_TOKEN.encode(), digest.encode()))


@dataclass(frozen=True)
class Renderer:
    """Renders templates with the variables of a task; ``find(folder, name)`` gives the path of a controller file."""

    templar: Templar
    variables: Mapping[str, Any]
    find: Callable[[str, str], str]

    def render(self, declared: Sequence[Mapping[str, Any]]) -> tuple[list[Rendered], str]:
        """Every file of the service, and their common digest. Raises AnsibleError that names what does not render."""
        files = [file for spec in declared for one, item in expanded(spec, "dest") for file in self._file(one, item)]
        digest = digest_of(files)
        return [file.with_digest(digest) for file in files], digest

    def _file(self, spec: Mapping[str, Any], item: Mapping[str, Any]) -> Iterator[Rendered]:
        dest = str(spec["dest"])
        if isinstance(spec.get("mode"), int):
            raise AnsibleError(f"{dest}: the mode stands without quotes, so YAML reads another number; quote it")
        origins = [origin for origin in ORIGINS if spec.get(origin) is not None]
        attributes = {key: value for key, value in spec.items() if key not in (*USED_UP, "dest")}
        if spec.get("state") == "absent":
            yield Rendered(dest, None, attributes)
            return
        if len(origins) != 1:
            raise AnsibleError(f"{dest}: a file has exactly one of src, copy and content, not {origins or 'none'}")
        try:
            if "src" in origins:
                text = self._template(str(spec["src"]), {**(spec.get("vars") or {}), **item})
                yield Rendered(dest, text.encode(), attributes)
            elif "copy" in origins:
                for path, below in _copied(Path(self.find("files", str(spec["copy"])))):
                    yield Rendered(os.path.join(dest, below) if below else dest, path.read_bytes(), attributes)
            else:
                yield Rendered(dest, str(spec["content"]).encode(), attributes)
        except (AnsibleError, OSError) as error:
            raise AnsibleError(f"{dest} does not render: {error}") from error

    def _template(self, name: str, extra: Mapping[str, Any]) -> str:
        path = Path(self.find("templates", name))
        templar = self.templar.copy_with_new_env(
            searchpath=[str(path.parent)], available_variables={**self.variables, **extra}
        )
        rendered = templar.template(trust_as_template(path.read_text("utf-8")), escape_backslashes=False)
        return "" if rendered is None else str(rendered)


def shipped(file: Rendered) -> dict[str, Any]:
    """A file as a module takes it: the content in base64, so that bytes survive and a log can be masked."""
    content = None if file.content is None else base64.b64encode(file.content).decode("ascii")
    return {**file.attributes, "dest": file.dest, "content": content}


def expanded(spec: Mapping[str, Any], path: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The spec once for each element of its `each`, with that element as variables for its template.

    ``{key}`` in the option named by ``path``, and in `copy`, becomes the element's value of that key.
    """
    alone = {key: value for key, value in spec.items() if key != "each"}
    if "each" not in spec:
        yield alone, {}
        return
    for item in spec["each"]:
        known = item if isinstance(item, Mapping) else {"item": item}
        try:
            named = {key: str(spec[key]).format_map(dict(known)) for key in (path, "copy") if key in spec}
        except (KeyError, ValueError, IndexError) as error:
            raise AnsibleError(f"{spec[path]}: what stands in braces is no key of each element ({error})") from error
        yield {**alone, **named}, {"item": item}


def _copied(source: Path) -> Iterator[tuple[Path, str]]:
    if not source.is_dir():
        yield source, ""
        return
    for path in sorted(source.rglob("*")):
        if path.is_file():
            yield path, str(path.relative_to(source))


def digest_of(files: Iterable[Rendered]) -> str:
    """A short digest over all paths and contents; the same files give the same digest on every run."""
    total = hashlib.sha256()
    for file in sorted(files, key=lambda one: one.dest):
        for part in (file.dest.encode(), b"absent" if file.content is None else b"present", file.content or b""):
            total.update(len(part).to_bytes(8, "big") + part)
    return total.hexdigest()[:16]
