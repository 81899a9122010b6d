#!/usr/bin/python
# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: docker_config
short_description: Bring Docker's configuration into force without stopping a container
version_added: 0.2.0
extends_documentation_fragment:
  - fushuma.production.files
description:
  - Writes F(/etc/docker/daemon.json) and all that belongs to it in one transaction, as
    M(fushuma.production.service_config) does.
  - Before anything is written the host's own dockerd is asked what it makes of the new configuration, also one that
    has no C(--validate) yet. A change by which Docker would lose sight of its images, containers and volumes is
    refused.
  - Where a daemon runs that would take its containers along when it is restarted, and is to leave them running
    (C(live-restore)), it is told that first, by a reload.
  - What Docker takes up only when it starts while no container runs is warned of until it has.
options:
  packages:
    description: Debian packages that are needed.
    type: list
    elements: str
    default: []
  rivals:
    description: Packages of another source of Docker. Where one of them is installed, nothing is changed and the task
      fails.
    type: list
    elements: str
    default: []
  operators:
    description: All members of the group C(docker). Each of them is as good as root.
    type: list
    elements: str
    default: []
  prune:
    description: Whether C(docker-prune.timer) runs, which is one of O(files).
    type: bool
    default: true
attributes:
  check_mode:
    support: full
    description: Says what would change and what would be refused, on a host without Docker too.
  diff_mode:
    support: full
    description: Shows files as Ansible does and the commands that would run; what others may not read is hidden.
  platform:
    support: full
    platforms: debian
    description: Debian 12 and 13 with systemd. Nothing but Debian's Python is needed on the host.
author:
  - fushuma.production contributors (@fushuma)
"""

EXAMPLES = r"""
- name: Run Docker with a setting of its own, besides those that the host has
  fushuma.production.docker_config:
    packages: [docker.io]
    files:
      - dest: /etc/docker/daemon.json
        content: '{"live-restore": true, "userland-proxy": false}'
        merge_json: 1
        on_change: restart
        reload_keys: [live-restore]
    prune: false
"""

RETURN = r"""
packages:
  description: The packages that were installed, or in check mode would be.
  type: list
  elements: str
  returned: always
  sample: [docker.io]
paths:
  description: The paths that changed, or in check mode would change.
  type: list
  elements: str
  returned: always
  sample: [/etc/docker/daemon.json]
commands:
  description: What was run, or in check mode would run, to bring the files into force.
  type: list
  elements: str
  returned: always
  sample: [systemctl reload-or-restart docker.service, systemctl restart docker.service]
healed:
  description: Whether a change left half done by a killed run was undone first.
  type: bool
  returned: always
"""

import binascii
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.fushuma.production.plugins.module_utils import docker
from ansible_collections.fushuma.production.plugins.module_utils.arguments import (
    DIRECTORY_SPEC,
    FILE_SPEC,
    directories_from,
    files_from,
)
from ansible_collections.fushuma.production.plugins.module_utils.journal import Store, TransactionError
from ansible_collections.fushuma.production.plugins.module_utils.transaction import Service, diffs

SPEC: dict[str, Any] = {
    "packages": {"type": "list", "elements": "str", "default": []},
    "rivals": {"type": "list", "elements": "str", "default": []},
    "operators": {"type": "list", "elements": "str", "default": []},
    "prune": {"type": "bool", "default": True},
    "files": {"type": "list", "elements": "dict", "default": [], "options": FILE_SPEC},
    "directories": {"type": "list", "elements": "dict", "default": [], "options": DIRECTORY_SPEC},
}


def main() -> None:
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    params = module.params
    wanted = docker.Wanted(params["rivals"], params["operators"], params["prune"])
    try:
        base = Service(
            "docker",
            files_from(params["files"]),
            directories_from(params["directories"]),
            params["packages"],
        )
        outcome = docker.converged(base, wanted, Store, check=module.check_mode)
    except (TransactionError, OSError) as error:
        module.fail_json(msg=str(error))
    except (ValueError, binascii.Error) as error:
        module.fail_json(msg=f"a mode is not an octal number, or a content not base64: {error}")
    for note in docker.waiting():
        module.warn(note)
    module.exit_json(
        changed=outcome.changed,
        packages=outcome.packages,
        paths=[change.after.path for change in outcome.changes],
        commands=[" ".join(argv) for argv in outcome.commands],
        healed=outcome.healed,
        diff=diffs(outcome) if module._diff else [],
    )


if __name__ == "__main__":
    main()
