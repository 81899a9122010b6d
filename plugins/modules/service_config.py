#!/usr/bin/python
# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: service_config
short_description: Bring all files of one service into force in one transaction
version_added: 0.1.0
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
  files:
    description:
      - The service's files, all of them in one list. A file has exactly one of O(files[].src), O(files[].copy) and
        O(files[].content), or O(files[].state=absent).
      - The text C(@config_digest@) in a file stands for a digest over all rendered files. A probe that finds it in
        an answer
        of the service proves that the service runs with exactly these files.
    type: list
    elements: dict
    default: []
    suboptions:
      dest:
        description:
          - Where the file stands on the host. With O(files[].each), C({key}) stands for the element's value of that
            key.
        type: path
        required: true
      src:
        description: A template, searched for as M(ansible.builtin.template) does.
        type: str
      copy:
        description:
          - A file or a folder on the controller that is taken as it is. A folder's files go below O(files[].dest).
            C({key}) works
            as in O(files[].dest).
        type: str
      content:
        description: The content itself.
        type: str
      each:
        description: One file for each element of this list; the template sees the element as C(item).
        type: list
        elements: raw
      vars:
        description: Variables for the template, on top of those of the task.
        type: dict
      owner:
        description: Owner, by name or number.
        type: str
        default: root
      group:
        description: Group, by name or number.
        type: str
        default: root
      mode:
        description: Permissions as an octal number in quotes.
        type: str
        default: "0644"
      sensitive:
        description: Never show the content. What others on the host may not read is hidden anyway.
        type: bool
        default: false
      on_change:
        description: What this file needs to come into force, where it differs from O(on_change).
        type: str
        choices: [reload, restart]
      state:
        description: Whether the file shall exist.
        type: str
        choices: [present, absent]
        default: present
  directories:
    description: The directories that belong to the service. Missing parents of any path are made with mode 0755.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The directory. With O(directories[].each), C({key}) stands for the element's value of that key.
        type: path
        required: true
      each:
        description: One directory for each element of this list.
        type: list
        elements: raw
      owner:
        description: Owner, by name or number.
        type: str
        default: root
      group:
        description: Group, by name or number.
        type: str
        default: root
      mode:
        description: Permissions as an octal number in quotes.
        type: str
        default: "0755"
      prune:
        description: Remove whatever is below it and not in O(files). Only for directories that the service owns
          whole.
        type: bool
        default: false
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
      - Each probe has one of O(probe[].tcp), O(probe[].http) and O(probe[].exec).
    type: list
    elements: dict
    default: []
    suboptions:
      tcp:
        description: An address that accepts connections, C(host:port).
        type: str
      http:
        description: A URL that answers. Certificates are not verified.
        type: str
      exec:
        description: A program that ends with 0, as an argv. It must not change anything, for check mode asks too.
        type: list
        elements: str
      socket:
        description: A Unix socket through which O(probe[].http) is asked.
        type: path
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

import base64
import binascii
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.fushuma.production.plugins.module_utils.journal import Store, TransactionError
from ansible_collections.fushuma.production.plugins.module_utils.probe import Probe
from ansible_collections.fushuma.production.plugins.module_utils.transaction import (
    Directory,
    File,
    Service,
    confirm,
    converge,
    diffs,
)

OWNED = {"owner": {"type": "str", "default": "root"}, "group": {"type": "str", "default": "root"}}
# What the controller has used up before the module runs is here only so that ansible-doc and the module agree.
FILE_SPEC = {
    "dest": {"type": "path", "required": True},
    "src": {"type": "str"},
    "copy": {"type": "str"},
    "content": {"type": "str", "no_log": True},
    "each": {"type": "list", "elements": "raw"},
    "vars": {"type": "dict"},
    "mode": {"type": "str", "default": "0644"},
    "sensitive": {"type": "bool", "default": False},
    "on_change": {"type": "str", "choices": ["reload", "restart"]},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    **OWNED,
}
DIRECTORY_SPEC = {
    "path": {"type": "path", "required": True},
    "each": {"type": "list", "elements": "raw"},
    "mode": {"type": "str", "default": "0755"},
    "prune": {"type": "bool", "default": False},
    **OWNED,
}
PROBE_SPEC = {
    "tcp": {"type": "str"},
    "http": {"type": "str"},
    "exec": {"type": "list", "elements": "str"},
    "socket": {"type": "path"},
    "status": {"type": "int", "default": 200},
    "body": {"type": "str", "default": ""},
}
SPEC = {
    "name": {"type": "str", "required": True},
    "packages": {"type": "list", "elements": "str", "default": []},
    "units": {"type": "list", "elements": "str", "default": []},
    "conflicts": {"type": "list", "elements": "str", "default": []},
    "files": {"type": "list", "elements": "dict", "default": [], "options": FILE_SPEC},
    "directories": {"type": "list", "elements": "dict", "default": [], "options": DIRECTORY_SPEC},
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
        "mutually_exclusive": [["tcp", "http", "exec"]],
        "required_one_of": [["tcp", "http", "exec"]],
    },
    "probe_timeout": {"type": "int", "default": 10},
    "confirm_within": {"type": "int", "default": 0},
}


def octal(mode: str) -> int:
    """Permissions as a number; ValueError for what is no octal number."""
    number = int(mode, 8)
    if not 0 <= number <= 0o7777:
        raise ValueError(mode)
    return number


def service_from(params: dict[str, Any]) -> Service:
    """The transaction as the parameters describe it. File contents arrive as base64, as the controller sends them."""
    return Service(
        name=params["name"],
        packages=params["packages"],
        units=params["units"],
        conflicts=params["conflicts"],
        files=[
            File(
                dest=file["dest"],
                content=base64.b64decode(file["content"] or "") if file["state"] == "present" else None,
                owner=file["owner"],
                group=file["group"],
                mode=octal(file["mode"]),
                on_change=file["on_change"],
                sensitive=file["sensitive"],
            )
            for file in params["files"]
        ],
        directories=[
            Directory(folder["path"], folder["owner"], folder["group"], octal(folder["mode"]), folder["prune"])
            for folder in params["directories"]
        ],
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
