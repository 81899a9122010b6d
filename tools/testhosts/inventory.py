# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Test hosts as Ansible sees them: ordinary hosts over SSH."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import yaml

from .host import KEY, KNOWN_HOSTS, Record


def variables(record: Record, key: Path = KEY, known_hosts: Path = KNOWN_HOSTS) -> dict[str, object]:
    """The connection variables of one host.

    ControlPath is left to Ansible, whose own is short: a socket's path has no more than 107 characters (unix(7)).
    """
    # ssh takes the value apart at spaces once more, so it gets quotes of its own (ssh_config(5), UserKnownHostsFile).
    known = shlex.quote(f'UserKnownHostsFile="{known_hosts / record.name}"')
    return {
        "ansible_host": "127.0.0.1",
        "ansible_port": record.ssh_port,
        "ansible_user": "operator",
        "ansible_become": True,
        "ansible_python_interpreter": "/usr/bin/python3",
        "ansible_ssh_private_key_file": str(key),
        "ansible_ssh_common_args": f"-o IdentitiesOnly=yes -o StrictHostKeyChecking=accept-new -o {known}",
    }


def render(records: Sequence[Record]) -> str:
    """An inventory in YAML with these hosts."""
    hosts = {record.name: variables(record) for record in records}
    return yaml.safe_dump({"all": {"hosts": hosts}}, sort_keys=False, width=1000)
