#!/usr/bin/python
# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: diagnostics
short_description: Gather what an incident needs to know of a host, without secrets
version_added: 0.3.0
description:
  - Gathers state, logs and configuration of a host in one round trip and leaves them as an archive that root alone
    reads.
  - Each program it asks has ten seconds, all of them together O(timeout). What hangs or fails is noted in the archive
    and keeps nothing else from it. Each answer has at most 1 MiB, all of them 24 MiB.
  - O(secrets) are taken out of everything, and so are private keys, the values of environments, and what looks like a
    password, token, cookie or authorization. Files that other users of the host may not read are named, not shown.
options:
  units:
    description: Systemd units whose state and journal are wanted.
    type: list
    elements: str
    default: []
  logs:
    description: Logs that are wanted, as P(fushuma.production.exports#lookup) has them, each with C(path) or C(unit).
    type: list
    elements: dict
    default: []
  since:
    description: How far back the journal is wanted, as in systemd.time(7).
    type: str
    default: 1 hour ago
  secrets:
    description: Values that are taken out of everything, as P(fushuma.production.secret_values#lookup) has them.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds for all of it.
    type: int
    default: 120
attributes:
  check_mode:
    support: full
    description: Looks and says what stands out, and leaves no archive.
  diff_mode:
    support: none
    description: Nothing of the host changes but the archive that is left.
  platform:
    support: full
    platforms: debian
    description: Debian 12 and 13 with systemd. Nothing but Debian's Python is needed on the host.
author:
  - fushuma.production contributors (@fushuma)
"""

EXAMPLES = r"""
- name: Gather what an incident needs
  fushuma.production.diagnostics:
    units: [nginx.service]
    logs: "{{ query('fushuma.production.exports', 'logs') }}"
    secrets: "{{ query('fushuma.production.secret_values') }}"
    since: yesterday
  register: gathered
"""

RETURN = r"""
path:
  description: The archive on the host; empty in check mode.
  type: str
  returned: always
  sample: /run/diagnostics-k3j2.tar.gz
time:
  description: When it was gathered, in a form for file names.
  type: str
  returned: always
  sample: 20261126T030558Z
findings:
  description: What stands out, each a clause. What was not to be learnt is among it.
  type: list
  elements: str
  returned: always
  sample: ["redis-server@cache.service has failed"]
"""

import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.fushuma.production.plugins.module_utils.diagnostics import Bundle, ask, gather, write

SPEC = {
    "units": {"type": "list", "elements": "str", "default": []},
    "logs": {"type": "list", "elements": "dict", "default": []},
    "since": {"type": "str", "default": "1 hour ago"},
    "secrets": {"type": "list", "elements": "str", "default": [], "no_log": True},
    "timeout": {"type": "int", "default": 120},
}


def main() -> None:
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    wanted = module.params
    since = ask(["systemd-analyze", "timestamp", "--", wanted["since"]])
    if since.note.startswith("ended"):
        module.fail_json(
            msg=f'since is "{wanted["since"]}": systemd knows no such time. Write for example "2 hours ago", '
            '"yesterday" or "2026-11-26 03:00". Nothing was gathered.'
        )
    bundle = Bundle(seconds=wanted["timeout"])
    texts, findings = gather(wanted["units"], wanted["logs"], wanted["since"], wanted["secrets"], bundle=bundle)
    now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    path = ""
    if not module.check_mode:
        try:
            path = write(texts, f"{os.uname().nodename}-{now}")
        except OSError as error:
            module.fail_json(msg=f"the archive cannot be written: {error}", findings=findings)
    module.exit_json(changed=not module.check_mode, path=path, time=now, findings=findings)


if __name__ == "__main__":
    main()
