#!/usr/bin/python
# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: port_check
short_description: Compare the ports that answer from outside with those that were declared
version_added: 0.1.0
description:
  - Opens TCP connections to the ports of a host, from where the module runs, and closes them at once. UDP is asked
    where it was declared only.
  - Delegate it to the controller or to another host, for a host's own view says nothing of its firewall.
  - Fails where a port answers that was not declared for whoever asks, and where a declared one does not answer.
options:
  addresses:
    description: The addresses of the host, IPv4 and IPv6.
    type: list
    elements: str
    required: true
  declared:
    description: What may answer, as C(declared) of the filter P(fushuma.production.firewall_model#filter).
    type: list
    elements: dict
    required: true
    suboptions:
      ports:
        description: A port or a range.
        type: str
        required: true
      protocol:
        description: The transport.
        type: str
        choices: [tcp, udp]
        default: tcp
      sources:
        description: The networks that may connect. All may where none are given.
        type: list
        elements: str
      address:
        description: The address it answers at; V(0.0.0.0) is all of IPv4, V(::) all of IPv6, nothing all.
        type: str
        default: ""
      setting:
        description: The setting that declares it.
        type: str
        required: true
  ports:
    description: The TCP ports that are asked.
    type: str
    default: 1-65535
  timeout:
    description: Seconds for all of it. A host that drops what it does not know takes about 20 for all ports.
    type: int
    default: 120
attributes:
  check_mode:
    support: full
    description: Asks in check mode too; it changes nothing.
  diff_mode:
    support: none
    description: Changes nothing.
  platform:
    support: full
    platforms: posix
    description: Nothing but Python is needed.
author:
  - fushuma.production contributors (@fushuma)
"""

EXAMPLES = r"""
- name: Ask every port from the controller
  fushuma.production.port_check:
    addresses: ["{{ ansible_facts.default_ipv4.address }}"]
    declared: "{{ ({'firewall_open': firewall_open} | fushuma.production.firewall_model).declared }}"
  delegate_to: localhost
  become: false
"""

RETURN = r"""
answering:
  description: The ports that answer at each address.
  type: dict
  returned: always
  sample: {"192.0.2.1": [22, 443]}
differences:
  description: What is not as declared, each a sentence.
  type: list
  elements: str
  returned: always
  sample: ["192.0.2.1:5432/tcp answers and is declared by nothing"]
"""

import ipaddress

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.fushuma.production.plugins.module_utils.ports import (
    Declared,
    differences,
    look_at_all,
    numbers,
)

DECLARED = {
    "ports": {"type": "str", "required": True},
    "protocol": {"type": "str", "choices": ["tcp", "udp"], "default": "tcp"},
    "sources": {"type": "list", "elements": "str"},
    "address": {"type": "str", "default": ""},
    "setting": {"type": "str", "required": True},
}
SPEC = {
    "addresses": {"type": "list", "elements": "str", "required": True},
    "declared": {"type": "list", "elements": "dict", "required": True, "options": DECLARED},
    "ports": {"type": "str", "default": "1-65535"},
    "timeout": {"type": "int", "default": 120},
}


def main() -> None:
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    declared = [Declared.of(one) for one in module.params["declared"]]
    try:
        asked = numbers(module.params["ports"])
        addresses = [str(ipaddress.ip_address(one.strip("[]"))) for one in module.params["addresses"]]
        seen = look_at_all(addresses, asked, declared, module.params["timeout"])
        found = [one for answers in seen for one in differences(declared, asked, answers)]
    except (OSError, ValueError) as error:
        module.fail_json(msg=str(error))
    answering = {one.address: sorted(one.answering) for one in seen}
    if not addresses:
        module.fail_json(msg="There is no address to ask.", answering={}, differences=[])
    if found:
        module.fail_json(msg="\n".join(found), answering=answering, differences=found)
    module.exit_json(changed=False, answering=answering, differences=[])


if __name__ == "__main__":
    main()
