# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A group of settings with its nested defaults, which Ansible itself never fills in."""

from __future__ import annotations

DOCUMENTATION = r"""
name: filled
short_description: A role's setting with the defaults of its nested options
version_added: 0.1.0
description:
  - An operator who gives one key of a group of settings means the others to stay as they are. Ansible replaces the
    whole group. This fills in what is left away, with the defaults that the role's argument_specs state.
options:
  _terms:
    description: The names of the settings, such as V(hardening_journal).
    required: true
    type: list
    elements: str
author:
  - fushuma.production contributors (@fushuma)
"""

EXAMPLES = r"""
_hardening_journal: "{{ lookup('fushuma.production.filled', 'hardening_journal') }}"
"""

RETURN = r"""
_raw:
  description: The settings, one for each name.
  type: list
  elements: raw
"""

from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase
from ansible_collections.fushuma.production.plugins.plugin_utils import specs


class LookupModule(LookupBase):
    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[Any]:
        self.set_options(var_options=variables, direct=kwargs)
        return [self._filled(term, (variables or {}).get(term)) for term in terms]

    def _filled(self, name: str, value: Any) -> Any:
        role = specs.role_of(name)
        if not role or name not in specs.role_options(role):
            raise AnsibleError(f"no role has a setting {name}")
        return specs.filled({name: specs.role_options(role)[name]}, {name: self._templar.template(value)})[name]
