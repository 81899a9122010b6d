#!/usr/bin/python
# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: service_config
short_description: Bring all files of one service into force in one transaction
version_added: 0.1.0
extends_documentation_fragment:
  - fushuma.production.files
description:
  - Writes all files of a service, has the service's own checker judge them, activates and probes it. Whatever fails,
    the files and the running service are put back as they were.
  - What has to be reloaded follows from what was last activated on this host against what is on its disk, so a run
    that was killed at any point is healed by the next one.
  - Missing packages are installed first. They do not start the O(units), which so never answer with a configuration
    that is not the wanted one.
  - Everything happens in one round trip. The controller renders the templates.
options:
  name:
    description: The service's name. It names the transaction's record on the host, so it is unique per host.
    type: str
    required: true
  packages:
    description:
      - Debian packages that the service needs. apt-get is started only where one is missing, and installs none that are
        only recommended. It fetches the package lists when they are missing or older than an hour.
      - A package is not taken away when the change is put back.
    type: list
    elements: str
    default: []
  units:
    description: The systemd units that work with the files.
    type: list
    elements: str
    default: []
  conflicts:
    description: Units of others that undo what this service does. While one of them runs, nothing is changed and the
      task fails, in check mode too.
    type: list
    elements: str
    default: []
  replaces:
    description: Units that do the same work in another way, such as a package's own instance. They are stopped and
      disabled, and come back where the change is undone.
    type: list
    elements: str
    default: []
  reads:
    description: Files that others write and that the service reads when it is activated. When one has changed, the
      units are reloaded.
    type: list
    elements: path
    default: []
  validate:
    description: The service's checkers, each an argv. They run when the files are in place and nothing is activated
      yet.
    type: list
    elements: list
    default: []
  apply:
    description: Programs, each an argv, that bring the files into force where no unit does, such as a loader of
      rules.
    type: list
    elements: list
    default: []
  on_change:
    description: How the units take up changed files. A unit that cannot reload is restarted.
    type: str
    choices: [reload, restart]
    default: reload
  enabled:
    description: Whether the units start at boot.
    type: bool
    default: true
  state:
    description:
      - Whether the units run.
      - V(confirmed) keeps a change that waits for its confirmation; with O(confirm_within) that is sent by itself.
    type: str
    choices: [started, stopped, confirmed]
    default: started
  probe:
    description:
      - What must hold after activation, asked on the host until all of it holds or O(probe_timeout) has passed.
      - It is asked where nothing differs too. A service that does not answer then is activated anew.
      - Each probe has one of O(probe[].tcp), O(probe[].http), O(probe[].exec) and O(probe[].unit).
    type: list
    elements: dict
    default: []
    suboptions:
      tcp:
        description: An address that accepts connections, C(host:port).
        type: str
      http:
        description: A URL that answers. Certificates are verified only with O(probe[].trusted).
        type: str
      exec:
        description: A program that ends with 0, as an argv. It must not change anything, for check mode asks too.
        type: list
        elements: str
      unit:
        description: A systemd unit, of which O(probe[].newer) holds.
        type: str
      newer:
        description: Files. All processes that the unit's main process has begun are younger, so none works with what
          was there before.
        type: list
        elements: path
      timeout:
        description: Seconds that this probe has. It is waited for before the others are asked.
        type: int
      socket:
        description: A Unix socket through which O(probe[].http) is asked.
        type: path
      address:
        description: Where to connect for O(probe[].http), as C(host:port), if it is not what the URL says.
        type: str
      headers:
        description: What is sent along with O(probe[].http).
        type: dict
        default: {}
      trusted:
        description: The host's authorities have to trust the certificate, and it has to be of the URL's name.
        type: bool
        default: false
      expects:
        description: For each header of the HTTP answer that counts, a text that it contains.
        type: dict
        default: {}
      status:
        description: The HTTP status wanted.
        type: int
        default: 200
      body:
        description: A text that the HTTP answer or the program's output contains.
        type: str
        default: ""
  probe_timeout:
    description: Seconds the probes have.
    type: int
    default: 10
  confirm_within:
    description:
      - For changes that may cut the controller off. After activation the connection is closed, and the change is
        confirmed over
        a new one. Unless that succeeds within these seconds the host puts everything back by itself. 0 asks for no
        confirmation.
    type: int
    default: 0
attributes:
  check_mode:
    support: full
    description: Says what would change, on a host where the service is not installed yet too.
  diff_mode:
    support: full
    description: Shows files as Ansible does and the commands that would run; secrets are hidden.
  platform:
    support: full
    platforms: debian
    description: Debian 12 and 13 with systemd. Nothing but Debian's Python is needed on the host.
author:
  - fushuma.production contributors (@fushuma)
"""

EXAMPLES = r"""
- name: Configure nginx
  fushuma.production.service_config:
    name: nginx
    packages: [nginx]
    units: [nginx.service]
    files:
      - {src: nginx.conf.j2, dest: /etc/nginx/nginx.conf}
      - {src: site.conf.j2, dest: "/etc/nginx/sites/{name}.conf", each: "{{ sites }}"}
      - {dest: /etc/nginx/sites-enabled/default, state: absent}
    directories:
      - {path: /etc/nginx/sites, prune: true}
    validate:
      - [/usr/sbin/nginx, -t, -q]
    probe:
      - {http: "http://127.0.0.1/", status: 301}

- name: Change how sshd is reached, without a chance to be locked out
  fushuma.production.service_config:
    name: sshd
    units: [ssh.service]
    files:
      - {src: sshd.conf.j2, dest: /etc/ssh/sshd_config.d/00-production.conf, mode: "0600"}
    validate:
      - [/usr/sbin/sshd, -t]
    confirm_within: 30
"""

RETURN = r"""
packages:
  description: The packages that were installed, or in check mode would be.
  type: list
  elements: str
  returned: always
  sample: [nginx]
paths:
  description: The paths that changed, or in check mode would change.
  type: list
  elements: str
  returned: always
  sample: [/etc/nginx/nginx.conf]
commands:
  description: What was run, or in check mode would run, to bring the files into force.
  type: list
  elements: str
  returned: always
  sample: [systemctl reload-or-restart nginx.service]
healed:
  description: Whether a change left half done by a killed run was undone first.
  type: bool
  returned: always
pending:
  description: Whether the change still waits for its confirmation.
  type: bool
  returned: always
"""

import binascii
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.fushuma.production.plugins.module_utils.arguments import (
    DIRECTORY_SPEC,
    FILE_SPEC,
    directories_from,
    files_from,
)
from ansible_collections.fushuma.production.plugins.module_utils.journal import Store, TransactionError
from ansible_collections.fushuma.production.plugins.module_utils.probe import Probe
from ansible_collections.fushuma.production.plugins.module_utils.transaction import (
    Service,
    confirm,
    converge,
    diffs,
)

PROBE_SPEC = {
    "tcp": {"type": "str"},
    "http": {"type": "str"},
    "exec": {"type": "list", "elements": "str"},
    "unit": {"type": "str"},
    "newer": {"type": "list", "elements": "path"},
    "timeout": {"type": "int"},
    "socket": {"type": "path"},
    "address": {"type": "str"},
    "headers": {"type": "dict", "default": {}},
    "trusted": {"type": "bool", "default": False},
    "status": {"type": "int", "default": 200},
    "body": {"type": "str", "default": ""},
    "expects": {"type": "dict", "default": {}},
}
SPEC = {
    "name": {"type": "str", "required": True},
    "packages": {"type": "list", "elements": "str", "default": []},
    "units": {"type": "list", "elements": "str", "default": []},
    "conflicts": {"type": "list", "elements": "str", "default": []},
    "files": {"type": "list", "elements": "dict", "default": [], "options": FILE_SPEC},
    "directories": {"type": "list", "elements": "dict", "default": [], "options": DIRECTORY_SPEC},
    "replaces": {"type": "list", "elements": "str", "default": []},
    "reads": {"type": "list", "elements": "path", "default": []},
    "validate": {"type": "list", "elements": "list", "default": []},
    "apply": {"type": "list", "elements": "list", "default": []},
    "on_change": {"type": "str", "choices": ["reload", "restart"], "default": "reload"},
    "enabled": {"type": "bool", "default": True},
    "state": {"type": "str", "choices": ["started", "stopped", "confirmed"], "default": "started"},
    "probe": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": PROBE_SPEC,
        "mutually_exclusive": [["tcp", "http", "exec", "unit"]],
        "required_one_of": [["tcp", "http", "exec", "unit"]],
    },
    "probe_timeout": {"type": "int", "default": 10},
    "confirm_within": {"type": "int", "default": 0},
}


def service_from(params: dict[str, Any]) -> Service:
    """The transaction as the parameters describe it. File contents arrive as base64, as the controller sends them."""
    return Service(
        name=params["name"],
        packages=params["packages"],
        units=params["units"],
        conflicts=params["conflicts"],
        files=files_from(params["files"]),
        directories=directories_from(params["directories"]),
        replaces=params["replaces"],
        reads=params["reads"],
        validate=params["validate"],
        apply=params["apply"],
        on_change=params["on_change"],
        enabled=params["enabled"],
        running=params["state"] == "started",
        probes=[Probe(**{key: value for key, value in one.items() if value is not None}) for one in params["probe"]],
        probe_timeout=params["probe_timeout"],
        confirm_within=params["confirm_within"],
    )


def main() -> None:
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    store = Store(module.params["name"])
    try:
        if module.params["state"] == "confirmed":
            if not module.check_mode:
                confirm(store)
            module.exit_json(changed=False, packages=[], paths=[], commands=[], healed=False, pending=False)
        outcome = converge(service_from(module.params), store, check=module.check_mode)
    except (TransactionError, OSError) as error:
        module.fail_json(msg=str(error))
    except (ValueError, binascii.Error) as error:
        module.fail_json(msg=f"a mode is not an octal number, or a content not base64: {error}")
    module.exit_json(
        changed=outcome.changed,
        packages=outcome.packages,
        paths=[change.after.path for change in outcome.changes],
        commands=[" ".join(argv) for argv in outcome.commands],
        healed=outcome.healed,
        pending=outcome.pending,
        diff=diffs(outcome) if module._diff else [],
    )


if __name__ == "__main__":
    main()
