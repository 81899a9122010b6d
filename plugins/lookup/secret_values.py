# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The secrets among a host's settings, so that they can be taken out of what is shown."""

from __future__ import annotations

DOCUMENTATION = r"""
name: secret_values
short_description: The values of all settings of a host that are secret
version_added: 0.3.0
description:
  - Every role marks the options that are secret with C(no_log). This collects their values for the current host, at any
    depth, of all roles of the collection. Hand them only to an option that is not logged.
  - A setting that does not render has no value, and is left away. So is a value of less than eight characters.
options:
  _terms:
    description: Nothing.
    type: list
    elements: str
author:
  - fushuma.production contributors (@fushuma)
"""

EXAMPLES = r"""
- name: Gather what an incident needs
  fushuma.production.diagnostics:
    secrets: "{{ query('fushuma.production.secret_values') }}"
"""

RETURN = r"""
_raw:
  description: The values, each once.
  type: list
  elements: str
"""

from typing import Any

from ansible.plugins.lookup import LookupBase
from ansible_collections.fushuma.production.plugins.module_utils.releases import SHORTEST_SECRET
from ansible_collections.fushuma.production.plugins.plugin_utils import judging, secret, specs


class LookupModule(LookupBase):
    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        known = variables or {}
        found: set[str] = set()
        for path in sorted(specs.ROLES.glob("*/meta/argument_specs.yml")):
            role = path.parent.parent.name
            settings, _misfits = judging.role_settings(role, known, self._templar)
            found |= {value for _name, value in secret.secrets(specs.role_options(role), settings)}
        # A short one cannot be told from other words, and Ansible hides its modules' secrets wherever they stand.
        return sorted(value for value in found if len(value) >= SHORTEST_SECRET)
