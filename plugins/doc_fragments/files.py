# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations


class ModuleDocFragment:
    """Files and directories of a service, as modules are told of them (module_utils/arguments.py)."""

    DOCUMENTATION = r"""
options:
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
        description:
          - What this file needs to come into force, where it differs from the others. V(nothing) is for what is read
            whenever it is needed.
        type: str
        choices: [reload, restart, nothing]
      apply:
        description: Programs, each an argv, that bring this file into force in place of the units.
        type: list
        elements: list
        default: []
      merge_json:
        description:
          - Merge the content, a JSON object, into what the host has in the file. With V(1) the keys of the outermost
            object are merged, each with its whole value; with V(2) those of the objects in it, and so on.
          - Keys of the content replace the host's of the same name, and the host's other keys stay. Keys that an
            earlier run brought and this one does not are taken away again, with O(files[].state=absent) all of them.
            The host remembers which they are. A file in which nothing is left goes.
          - A file that holds no JSON object is refused before anything is touched.
        type: int
        default: 0
      reload_keys:
        description: The outermost keys of a merged file that a reload takes up. A change of nothing else is not
          restarted for.
        type: list
        elements: str
        default: []
      undo:
        description: Programs, each an argv, that take back what O(files[].apply) did when the former file is there
          again. Without them O(files[].apply) runs once more.
        type: list
        elements: list
        default: []
      in_force:
        description:
          - A program, as an argv, that ends with 0 where what the file says is in force. Where it is not any more,
            O(files[].apply) runs, and the units are left alone. It is asked after each change too.
          - It must not change anything, for check mode asks too.
        type: list
        elements: str
        default: []
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
"""
