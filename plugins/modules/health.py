#!/usr/bin/python
# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: health
short_description: Wait until a host is well, or say what is not
version_added: 0.2.0
description:
  - Asks for what the host's roles stand for. Their units have to be active, and their URLs have to answer.
  - With O(since) nothing may have failed that had not before, and what ran then has to run.
  - Changes nothing.
options:
  services:
    description: What the roles say of their health, as P(fushuma.production.exports#lookup) has it.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: How it is called in what this module says.
        type: str
        required: true
      units:
        description: The systemd units that are active.
        type: list
        elements: str
        default: []
      url:
        description: A URL that answers 200 to the host itself.
        type: str
        default: ""
  since:
    description:
      - What this module returned when the host was as it should be, RV(running) and RV(failed_services) at least.
    type: dict
  timeout:
    description: Seconds within which all has to be well.
    type: int
    default: 60
attributes:
  check_mode:
    support: full
    description: Asks in check mode too; it changes nothing.
  diff_mode:
    support: none
    description: Changes nothing.
  platform:
    support: full
    platforms: debian
    description: Debian 12 and 13 with systemd. Nothing but Debian's Python is needed on the host.
author:
  - fushuma.production contributors (@fushuma)
"""

EXAMPLES = r"""
- name: See what runs before
  fushuma.production.health:
    services: "{{ query('fushuma.production.exports', 'health') }}"
  register: __before

- name: Wait until all of it runs again
  fushuma.production.health:
    services: "{{ query('fushuma.production.exports', 'health') }}"
    since: "{{ __before }}"
"""

RETURN = r"""
running:
  description: The services that start at boot and are active now.
  type: list
  elements: str
  returned: always
  sample: [nginx.service, ssh.service]
failed_services:
  description: The services that have failed.
  type: list
  elements: str
  returned: always
  sample: []
complaints:
  description: What is not as it should be.
  type: list
  elements: str
  returned: always
  sample: ["sshd: fail2ban.service is not active"]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.fushuma.production.plugins.module_utils.health import Promise, Seen, wait_until_well
from ansible_collections.fushuma.production.plugins.module_utils.journal import TransactionError

SERVICE_SPEC = {
    "name": {"type": "str", "required": True},
    "units": {"type": "list", "elements": "str", "default": []},
    "url": {"type": "str", "default": ""},
}
SPEC = {
    "services": {"type": "list", "elements": "dict", "default": [], "options": SERVICE_SPEC},
    "since": {"type": "dict"},
    "timeout": {"type": "int", "default": 60},
}


def main() -> None:
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    promises = [Promise(**one) for one in module.params["services"]]
    before = module.params["since"]
    since = Seen(frozenset(before["running"]), frozenset(before["failed_services"])) if before else None
    try:
        now, wrong = wait_until_well(promises, since, module.params["timeout"])
    except TransactionError as error:
        module.fail_json(msg=str(error))
    seen = {"running": sorted(now.running), "failed_services": sorted(now.failed), "complaints": wrong}
    if wrong:
        module.fail_json(msg="The host is not well: " + "; ".join(wrong) + ".", **seen)
    module.exit_json(changed=False, **seen)


if __name__ == "__main__":
    main()
