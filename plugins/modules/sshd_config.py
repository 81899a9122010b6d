#!/usr/bin/python
# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: sshd_config
short_description: Bring sshd's configuration into force, unless it would shut out the one who brings it
version_added: 0.2.0
extends_documentation_fragment:
  - fushuma.production.files
description:
  - Writes F(/etc/ssh/sshd_config.d/00-production.conf) and all that belongs to it in one transaction, as
    M(fushuma.production.service_config) does.
  - Before anything is written sshd itself is asked what it would make of the new configuration. A change by which
    another file's line would win, or which would shut out the user over whose connection this runs, is refused.
  - The port over which this runs stays open besides the wanted ones until a run arrives over one of these.
  - Where systemd listens for sshd (C(ssh.socket)), C(ssh.service) takes its place, so that sshd's own configuration is
    the only one that says where it listens.
options:
  ports:
    description: The ports sshd listens on.
    type: list
    elements: int
    required: true
  directives:
    description:
      - Keywords of sshd_config(5) with their values. Lists become one line, or one for each element with
        C(ListenAddress); what is empty is left to sshd.
    type: dict
    default: {}
  algorithms:
    description:
      - Keywords that hold algorithms, each with its list in the order of preference. Those that the host's sshd does
        not offer are left out.
    type: dict
    default: {}
  match:
    description: Blocks for some connections only, in this order.
    type: list
    elements: dict
    default: []
    suboptions:
      criteria:
        description: What the connection has to be, such as C(User) with a pattern.
        type: dict
        required: true
      settings:
        description: Keywords with their values, as in O(directives).
        type: dict
        required: true
  authorized_keys:
    description: The public keys with which users get in.
    type: list
    elements: dict
    default: []
    suboptions:
      user:
        description: The user, who has to exist.
        type: str
        required: true
      keys:
        description: Public keys, each a line as F(authorized_keys) has it.
        type: list
        elements: str
        default: []
      options:
        description: Options of all these keys, such as C(restrict).
        type: list
        elements: str
        default: []
      exclusive:
        description: Take away all other keys of the user.
        type: bool
        default: false
  authorized_keys_file:
    description: Where sshd looks for a user's keys, as in C(AuthorizedKeysFile).
    type: str
    default: .ssh/authorized_keys
  host_keys:
    description: The kinds of keys by which the host is known. A missing one is made.
    type: list
    elements: str
    choices: [ed25519, rsa]
    default: [ed25519, rsa]
  replace_short_host_keys:
    description: Make another RSA key where the host's has less than 3072 bits. Otherwise that is no longer used.
    type: bool
    default: false
  moduli_bits:
    description: The smallest group for Diffie-Hellman that stays in F(/etc/ssh/moduli).
    type: int
    default: 3071
  confirm_within:
    description:
      - Seconds within which the change has to be confirmed over a new connection, which is done by itself. Unless it is
        the host puts the former configuration back. 0 asks for no confirmation.
    type: int
    default: 45
attributes:
  check_mode:
    support: full
    description: Says what would change and what would be refused, on a host without sshd too.
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
- name: Let only operators in, by key, over a port of its own
  fushuma.production.sshd_config:
    ports: [2222]
    directives:
      PermitRootLogin: "no"
      PasswordAuthentication: false
      AllowGroups: [sudo]
    algorithms:
      KexAlgorithms: [mlkem768x25519-sha256, sntrup761x25519-sha512@openssh.com]
"""

RETURN = r"""
packages:
  description: The packages that were installed, or in check mode would be.
  type: list
  elements: str
  returned: always
paths:
  description: The paths that changed, or in check mode would change.
  type: list
  elements: str
  returned: always
  sample: [/etc/ssh/sshd_config.d/00-production.conf]
commands:
  description: What was run, or in check mode would run, to bring the files into force.
  type: list
  elements: str
  returned: always
  sample: [systemctl reload-or-restart ssh.service]
healed:
  description: Whether a change left half done by a killed run was undone first.
  type: bool
  returned: always
pending:
  description: Whether the change still waits for its confirmation.
  type: bool
  returned: always
ports:
  description: The ports sshd listens on, the one that is kept for this connection included.
  type: list
  elements: int
  returned: always
  sample: [2222, 22]
kept_ports:
  description: Ports that are not wanted and stay open until a run arrives over a wanted one.
  type: list
  elements: int
  returned: always
  sample: [22]
"""

import binascii
import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.fushuma.production.plugins.module_utils import sshd
from ansible_collections.fushuma.production.plugins.module_utils.arguments import (
    DIRECTORY_SPEC,
    FILE_SPEC,
    directories_from,
    files_from,
)
from ansible_collections.fushuma.production.plugins.module_utils.journal import Store, TransactionError
from ansible_collections.fushuma.production.plugins.module_utils.transaction import Service, converge, diffs

MATCH_SPEC = {"criteria": {"type": "dict", "required": True}, "settings": {"type": "dict", "required": True}}
KEYS_SPEC = {
    "user": {"type": "str", "required": True},
    "keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
    "options": {"type": "list", "elements": "str", "default": []},
    "exclusive": {"type": "bool", "default": False},
}
SPEC = {
    "ports": {"type": "list", "elements": "int", "required": True},
    "directives": {"type": "dict", "default": {}},
    "algorithms": {"type": "dict", "default": {}},
    "match": {"type": "list", "elements": "dict", "default": [], "options": MATCH_SPEC},
    "authorized_keys": {"type": "list", "elements": "dict", "default": [], "options": KEYS_SPEC, "no_log": False},
    "authorized_keys_file": {"type": "str", "default": ".ssh/authorized_keys", "no_log": False},
    "host_keys": {
        "type": "list",
        "elements": "str",
        "choices": ["ed25519", "rsa"],
        "default": ["ed25519", "rsa"],
        "no_log": False,
    },
    "replace_short_host_keys": {"type": "bool", "default": False},
    "moduli_bits": {"type": "int", "default": 3071},
    "files": {"type": "list", "elements": "dict", "default": [], "options": FILE_SPEC},
    "directories": {"type": "list", "elements": "dict", "default": [], "options": DIRECTORY_SPEC},
    "confirm_within": {"type": "int", "default": 45},
}


def wanted_from(params: dict[str, Any]) -> sshd.Wanted:
    return sshd.Wanted(
        ports=params["ports"],
        directives=params["directives"],
        algorithms=params["algorithms"],
        match=[sshd.Match(**one) for one in params["match"]],
        authorized_keys=[sshd.AuthorizedKeys(**one) for one in params["authorized_keys"]],
        authorized_keys_file=params["authorized_keys_file"],
        host_keys=params["host_keys"],
        replace_short_host_keys=params["replace_short_host_keys"],
        moduli_bits=params["moduli_bits"],
    )


def main() -> None:
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    wanted, session = wanted_from(module.params), sshd.session_of(os.getpid())
    kept = sshd.kept_ports(session, wanted.ports)

    def complete(service: Service) -> Service:
        if not module.check_mode:
            sshd.make_runtime()
        whole, notes = sshd.completed(service, wanted, session)
        for note in notes:
            module.warn(note)
        return whole

    try:
        base = Service(
            name="sshd",
            files=files_from(module.params["files"]),
            directories=directories_from(module.params["directories"]),
            packages=sshd.PACKAGES,
            units=[sshd.UNIT],
            confirm_within=module.params["confirm_within"],
        )
        outcome = converge(base, Store("sshd"), check=module.check_mode, complete=complete)
    except (TransactionError, OSError) as error:
        module.fail_json(msg=str(error))
    except (ValueError, binascii.Error) as error:
        module.fail_json(msg=f"a mode is not an octal number, or a content not base64, or a key none: {error}")
    for port in kept:
        module.warn(
            f"port {port} stays open until you connect over {wanted.ports[0]}: "
            f"set ansible_port: {wanted.ports[0]} and run again"
        )
    module.exit_json(
        changed=outcome.changed,
        packages=outcome.packages,
        paths=[change.after.path for change in outcome.changes],
        commands=[" ".join(argv) for argv in outcome.commands],
        healed=outcome.healed,
        pending=outcome.pending,
        ports=[*wanted.ports, *kept],
        kept_ports=kept,
        diff=diffs(outcome) if module._diff else [],
    )


if __name__ == "__main__":
    main()
