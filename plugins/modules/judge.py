#!/usr/bin/python
# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: judge
short_description: Judge settings before a host is touched
version_added: 0.1.0
description:
  - Judges the settings of this collection's roles, on the controller and without contacting a host.
  - Every problem is one sentence that names the host, the variable, its value, why it cannot work and a form that
    would. All
    problems are named at once.
  - Looked at are names that nothing reads, shapes, meaning, ports that collide, secrets that protect nothing, and
    whether
    all templates render on each supported release.
options:
  playbook:
    description: A playbook. The roles it gives to groups are judged for all hosts of the inventory.
    type: path
  role:
    description: A role, judged for the current host alone.
    type: str
attributes:
  check_mode:
    support: full
    description: Never changes anything.
  diff_mode:
    support: none
    description: Never changes anything.
  platform:
    support: full
    platforms: all
    description: Runs on the controller.
author:
  - fushuma.production contributors (@fushuma)
"""

EXAMPLES = r"""
- name: Judge all settings; no host is contacted
  fushuma.production.judge:
    playbook: "{{ playbook_dir }}/site.yml"
  run_once: true
"""

RETURN = r"""
problems:
  description: What cannot work, a sentence each.
  type: list
  elements: str
  returned: always
  sample:
    - 'edge1: nginx_http_port is "8o80": a whole number is needed. Write for example 80.'
hosts:
  description: The hosts whose settings were judged.
  type: list
  elements: str
  returned: always
"""
