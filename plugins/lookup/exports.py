# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the roles of a host tell others, for playbooks to hand over."""

from __future__ import annotations

DOCUMENTATION = r"""
name: exports
short_description: What the roles of a host tell others
version_added: 0.1.0
description:
  - Every role says in its exports what others need to know of it, such as the ports it listens on. This collects one
    such part of all roles that a playbook gives to the current host.
  - Playbooks hand the result to the role that needs it. No role reads another role's variables.
options:
  _terms:
    description: The parts wanted, such as V(listens), V(logs), V(metrics), V(health), V(backup) or V(connections).
    required: true
    type: list
    elements: str
  playbook:
    description: The playbook that says which role runs on which host. It is this collection's C(site.yml) by default.
    type: path
  hosts:
    description: The hosts whose exports are wanted, each with its own variables. It is the current host by default.
    type: list
    elements: str
author:
  - fushuma.production contributors (@fushuma)
"""

EXAMPLES = r"""
- name: Let through what the host's roles listen on
  hosts: all
  roles:
    - role: fushuma.production.firewall
      firewall_listens: "{{ query('fushuma.production.exports', 'listens') }}"

- name: Add up the connections that the applications of all hosts may open
  hosts: data
  roles:
    - role: fushuma.production.mariadb
      mariadb_connections: >-
        {{ query('fushuma.production.exports', 'connections', hosts=groups['all'])
           | selectattr('host', 'eq', inventory_hostname) }}
"""

RETURN = r"""
_raw:
  description: The elements of that part, of one role after the other.
  type: list
  elements: dict
"""

from pathlib import Path
from typing import Any

from ansible.plugins.lookup import LookupBase
from ansible_collections.fushuma.production.plugins.plugin_utils.judging import (
    SITE,
    exports_of,
    hosts_of,
    plays_of,
)


class LookupModule(LookupBase):
    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[Any]:
        self.set_options(var_options=variables, direct=kwargs)
        known = variables or {}
        plays = plays_of(Path(self.get_option("playbook") or SITE))
        roles = hosts_of(plays, known["groups"])
        hosts = {known["inventory_hostname"]: known}
        if (wanted := self.get_option("hosts")) is not None:
            others = known["hostvars"]
            hosts = {name: hosts.get(name) or {**others.raw_get(name), "hostvars": others} for name in wanted}
        exports = [
            exports_of(role, variables, self._templar, terms)
            for name, variables in hosts.items()
            for role in roles.get(name, [])
        ]
        return [one for part in terms for each in exports for one in each.get(part, [])]
