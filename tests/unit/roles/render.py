# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A role as the controller sees it: its files, what its tasks are given and what it exports, for any settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible_collections.fushuma.production.plugins.plugin_utils import specs
from ansible_collections.fushuma.production.plugins.plugin_utils.judging import RELEASES, plain, role_files, yaml_of
from ansible_collections.fushuma.production.plugins.plugin_utils.rendering import Renderer

FACTS = {facts["distribution_major_version"]: facts for facts in RELEASES}


def templar(variables: Mapping[str, Any] | None = None) -> Templar:
    """A templar as Ansible gives one to an action: what is undefined is an error."""
    return Templar(loader=DataLoader(), variables=dict(variables or {}))


@dataclass(frozen=True)
class Role:
    """A role on a host of a Debian release, with these settings on top of its defaults."""

    name: str
    settings: Mapping[str, Any]
    release: str = "13"

    @cached_property
    def variables(self) -> dict[str, Any]:
        """What its templates and tasks see, in the order of Ansible's precedence."""
        return {
            **role_files(self.name, "defaults"),
            **self.settings,
            **role_files(self.name, "vars"),
            "ansible_facts": FACTS[self.release],
            "inventory_hostname": "web1",
            "role_path": str(specs.ROLES / self.name),
            "omit": "omitted",
        }

    def value(self, expression: Any) -> Any:
        """Something of the role with all its templates rendered."""
        return plain(templar(self.variables).template(expression))

    @cached_property
    def _rendered(self) -> tuple[dict[str, bytes], str]:
        base = specs.ROLES / self.name
        renderer = Renderer(templar(self.variables), self.variables, lambda folder, name: str(base / folder / name))
        files, digest = renderer.render(self.value(self.variables[f"_{self.name}_files"]))
        return {file.dest: file.content for file in files if file.content is not None}, digest

    @cached_property
    def files(self) -> dict[str, str]:
        """The text of each file by its path on the host; those that shall be absent are not among them."""
        return {dest: content.decode() for dest, content in self._rendered[0].items()}

    @property
    def digest(self) -> str:
        return self._rendered[1]

    @cached_property
    def tasks(self) -> list[tuple[str, dict[str, Any]]]:
        """Each task that runs, as its module and what that is given; what ``files`` makes is in ``files`` above."""
        return [given for task in self._running("main.yml") for given in self._given(task)]

    def _running(self, name: str) -> Iterator[Mapping[str, Any]]:
        for task in yaml_of(specs.ROLES / self.name / "tasks" / name):
            if self._runs(task):
                included = task.get("ansible.builtin.include_tasks")
                yield from self._running(included) if included else [task]

    def _runs(self, task: Mapping[str, Any]) -> bool:
        return "when" not in task or bool(templar(self.variables).evaluate_conditional(task["when"]))

    def _given(self, task: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        for name, arguments in task.items():
            if "." in name:
                wanted = {key: value for key, value in arguments.items() if key != "files"}
                yield name.rpartition(".")[2], self.value(wanted)

    @cached_property
    def exports(self) -> dict[str, Any]:
        """What it tells other roles."""
        exports: dict[str, Any] = self.value(self.variables[f"{self.name}_exports"])
        return exports
