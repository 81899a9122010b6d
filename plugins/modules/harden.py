#!/usr/bin/python
# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: harden
short_description: Bring items of hardening into force in one transaction
version_added: 0.1.0
description:
  - Takes all items in one round trip, finds out which of them the kernel of this host can take, and brings those into
    force as M(fushuma.production.service_config) does for a service. Whatever fails, everything is put back.
  - An item that is off is taken back where that is possible. Its files go, and edited settings get their former
    values. Kernel parameters get theirs at the next boot.
options:
  items:
    description: The items, in the form of the role's own list. The controller renders their files.
    type: list
    elements: dict
    required: true
  level:
    description: Items of this level and below are on; V(baseline) is below V(strict). One without a level is on.
    type: str
    choices: [baseline, strict]
    default: strict
  switches:
    description: Items that are on or off whatever O(level) says, as C(name) and V(true) or V(false).
    type: dict
    default: {}
attributes:
  check_mode:
    support: full
    description: Says what would change.
  diff_mode:
    support: full
    description: Shows files as Ansible does, and the commands that would run.
  platform:
    support: full
    platforms: debian
    description: Debian 12 and 13 with systemd.
seealso:
  - module: fushuma.production.service_config
author:
  - fushuma.production contributors (@fushuma)
"""

EXAMPLES = r"""
- name: Bring two items into force
  fushuma.production.harden:
    items:
      - name: kernel_pointers
        sysctl: {kernel.kptr_restrict: 2, kernel.dmesg_restrict: 1}
      - name: login_banner
        files: [{dest: /etc/issue.net, content: "Authorised users only.\n"}]
"""

RETURN = r"""
report:
  description: What became of each item.
  type: list
  elements: dict
  returned: always
  sample:
    - {name: kernel_pointers, state: in force, reasons: []}
    - {name: auditd, state: not applicable, reasons: ["the kernel does not let this host do it (no CAP_AUDIT_CONTROL)"]}
packages:
  description: The packages that were installed, or in check mode would be.
  type: list
  elements: str
  returned: always
removed:
  description: The packages that were removed, or in check mode would be.
  type: list
  elements: str
  returned: always
paths:
  description: The paths that changed, or in check mode would change.
  type: list
  elements: str
  returned: always
commands:
  description: What was run, or in check mode would run, to bring the files into force.
  type: list
  elements: str
  returned: always
healed:
  description: Whether a change left half done by a killed run was undone first.
  type: bool
  returned: always
"""

import base64
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.fushuma.production.plugins.module_utils.hardening import as_result, service_of
from ansible_collections.fushuma.production.plugins.module_utils.journal import Store, TransactionError
from ansible_collections.fushuma.production.plugins.module_utils.transaction import Service, converge, diffs


def arrived(item: dict[str, Any]) -> dict[str, Any]:
    """The item with the contents of its files as bytes; they travel as base64."""
    files = [
        {**one, "content": None if one.get("content") is None else base64.b64decode(one["content"])}
        for one in item.get("files") or []
    ]
    return {**item, "files": files}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "items": {"type": "list", "elements": "dict", "required": True},
            # The controller has used these up; they are here so that ansible-doc and the module agree.
            "level": {"type": "str", "choices": ["baseline", "strict"], "default": "strict"},
            "switches": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    try:
        items = [arrived(item) for item in module.params["items"]]
        service, reports = service_of(items)
        # Packages bring files, and what is to be done with those is seen only then.
        packages = Service(service.name, packages=service.packages, unwanted=service.unwanted)
        outcome = converge(
            packages, Store(service.name), check=module.check_mode, complete=lambda _packages: service_of(items)[0]
        )
    except (TransactionError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=outcome.changed,
        report=as_result(reports),
        packages=outcome.packages,
        removed=outcome.removed,
        paths=[change.after.path for change in outcome.changes],
        commands=[" ".join(argv) for argv in outcome.commands],
        healed=outcome.healed,
        diff=diffs(outcome) if module._diff else [],
    )


if __name__ == "__main__":
    main()
