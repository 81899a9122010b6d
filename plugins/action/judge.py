# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Judges settings on the controller; no host is contacted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.fushuma.production.plugins.plugin_utils.judging import (
    Host,
    handed_to,
    judge,
    misspelt_groups,
    plays_of,
    read_ahead,
    roles_in,
)

# Ansible imports this before it forks a process for each task, and none of them has to read again what is read here:
# that takes as long as to judge.
read_ahead()


class ActionModule(ActionBase):
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        _checked, args = self.validate_argument_spec(
            {"playbook": {"type": "path"}, "role": {"type": "str"}},
            mutually_exclusive=[["playbook", "role"]],
            required_one_of=[["playbook", "role"]],
        )
        if args["role"]:
            # A plain text: what was read ahead is not found by one that Ansible has tagged with where it stands.
            hosts = [Host(variables["inventory_hostname"], variables, [str(args["role"])])]
        else:
            hosts = self._inventory(Path(args["playbook"]), variables)
        # A role's own task renders its files next, before it touches anything.
        problems = judge(hosts, self._templar, renders=not args["role"])
        names = [host.name for host in hosts]
        if problems:
            count = "1 setting" if len(problems) == 1 else f"{len(problems)} settings"
            message = f"{count} cannot work; nothing was touched.\n" + "\n".join(problems)
            return {"failed": True, "msg": message, "problems": problems, "hosts": names}
        return {"changed": False, "problems": [], "hosts": names}

    def _inventory(self, playbook: Path, variables: dict[str, Any]) -> list[Host]:
        plays, groups = plays_of(playbook), variables["groups"]
        handed = handed_to(plays, groups)
        if slips := misspelt_groups(plays, groups):
            raise AnsibleActionFail(" ".join(slips))
        if not handed:
            wanted = ", ".join(sorted({str(play["hosts"]) for play in plays if roles_in(play)}))
            raise AnsibleActionFail(
                f"The inventory has no host in any of the groups {wanted}, so nothing would be done. "
                "Put a host into the groups of what it is to run; one host may be in all of them."
            )
        hostvars = variables["hostvars"]
        return [
            Host(name, {**hostvars.raw_get(name), "hostvars": hostvars}, list(roles), roles)
            for name, roles in sorted(handed.items())
        ]
