#!/usr/bin/python
# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: packages
short_description: Have Debian packages installed, at the price of a look where they are
version_added: 0.1.0
description:
  - Looks which of the packages are missing, and has apt-get install just those, without what they only recommend.
    Where none is
    missing apt is not even started, which is what nearly every run of a converged host comes to.
  - The package lists are fetched anew when they are missing or older than an hour, and only when something is
    installed.
options:
  names:
    description: The packages.
    type: list
    elements: str
    required: true
attributes:
  check_mode:
    support: full
    description: Says what would be installed, on a host without package lists too.
  diff_mode:
    support: full
    description: Names the packages.
  platform:
    support: full
    platforms: debian
    description: Debian and what is made from it.
seealso:
  - module: ansible.builtin.apt
author:
  - fushuma.production contributors (@fushuma)
"""

EXAMPLES = r"""
- name: Install nginx
  fushuma.production.packages:
    names: [nginx, openssl]
"""

RETURN = r"""
missing:
  description: The packages that were installed, or in check mode would be.
  type: list
  elements: str
  returned: always
"""

import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.fushuma.production.plugins.module_utils.journal import TransactionError, must, run

LISTS = Path("/var/lib/apt/lists")
LISTS_LAST = 3600  # seconds
APT_TIMEOUT = 1800  # seconds; a slow mirror is not an error
# Nobody is there to answer; an operator's own configuration files stay; another apt at work is waited for.
APT_GET = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120"]
INSTALL = ["install", "--yes", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confdef"]
INSTALL += ["-o", "Dpkg::Options::=--force-confold"]


def missing(names: list[str]) -> list[str]:
    """Those of the packages that are not installed whole."""
    shown = run(["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *names])
    installed = {line.split()[0] for line in shown.output.splitlines() if line.endswith(" installed")}
    return [name for name in names if name.partition(":")[0] not in installed]


def lists_stale(folder: Path, now: float) -> bool:
    """Whether apt has no package lists, or old ones."""
    # The folder's time alone says nothing, for images are made without lists. The lists' own times say nothing either:
    # they are those of the mirror.
    return not any(folder.glob("*Packages*")) or now - folder.stat().st_mtime > LISTS_LAST


def install(names: list[str], folder: Path) -> None:
    """Have the packages installed. Raises TransactionError with apt's own words."""
    if lists_stale(folder, time.time()):
        must([*APT_GET, "update"], APT_TIMEOUT)
    must([*APT_GET, *INSTALL, *names], APT_TIMEOUT)


def main() -> None:
    module = AnsibleModule(
        argument_spec={"names": {"type": "list", "elements": "str", "required": True}},
        supports_check_mode=True,
    )
    wanted = missing(module.params["names"])
    try:
        if wanted and not module.check_mode:
            install(wanted, LISTS)
    except TransactionError as error:
        module.fail_json(msg=str(error))
    diff = {"before": "", "after": "".join(f"{name}\n" for name in wanted), "after_header": "packages"}
    module.exit_json(changed=bool(wanted), missing=wanted, diff=diff if wanted else {})


if __name__ == "__main__":
    main()
