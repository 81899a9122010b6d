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
  - Playbooks hand the result to the role that needs it. No role reads another role's variables. What the playbook
    hands to a role counts for that role's exports too.
  - A task works out the same parts of the same hosts once, however often its variables ask for them.
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

import multiprocessing
from pathlib import Path
from typing import Any

from ansible.plugins.lookup import LookupBase
from ansible_collections.fushuma.production.plugins.plugin_utils.judging import (
    SITE,
    exports_of,
    handed_to,
    plays_of,
)

# What the process of a task has worked out. Variables are lazy: each mention of one asks again, and to ask all roles of
# twenty hosts takes a second.
_KNOWN: dict[tuple[Any, ...], list[Any]] = {}


class LookupModule(LookupBase):
    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[Any]:
        self.set_options(var_options=variables, direct=kwargs)
        known = variables or {}
        wanted = self.get_option("hosts")
        playbook = Path(self.get_option("playbook") or SITE)
        release = (known.get("ansible_facts") or {}).get("distribution_major_version")
        key = (playbook, known["inventory_hostname"], release, tuple(terms), None if wanted is None else tuple(wanted))
        if key in _KNOWN:
            return list(_KNOWN[key])
        found = self._exports(playbook, terms, wanted, known)
        # The process of a task ends with it. That of the whole run sees variables change, and remembers nothing.
        if multiprocessing.parent_process() is not None:
            _KNOWN[key] = found
        return found

    def _exports(self, playbook: Path, terms: list[str], wanted: list[str] | None, known: dict[str, Any]) -> list[Any]:
        handed = handed_to(plays_of(playbook), known["groups"])
        hosts = {known["inventory_hostname"]: known}
        if wanted is not None:
            others = known["hostvars"]
            hosts = {name: hosts.get(name) or {**others.raw_get(name), "hostvars": others} for name in wanted}
        exports = [
            exports_of(role, {**variables, **given}, self._templar, terms)
            for name, variables in hosts.items()
            for role, given in handed.get(name, {}).items()
        ]
        return [one for part in terms for each in exports for one in each.get(part, [])]
