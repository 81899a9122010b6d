#!/usr/bin/python
# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: free_disk
short_description: Free what may go of a host's disks without asking
version_added: 0.3.0
description:
  - Removes downloaded packages, rotated logs older than O(days), the journal beyond O(journal), core dumps, and of
    Docker the containers that have ended, images without a name and the cache of builds.
  - Volumes, tagged images and the releases of applications are never touched, nor is a container that has a volume,
    that a release brings or that Docker would start again.
  - Says what each of these took, how full the file systems were before and are after, which folders take most, and
    which deleted files a process still keeps. What cannot be removed is said and keeps nothing else from it.
options:
  days:
    description: The days that rotated logs stay.
    type: int
    default: 14
  journal:
    description: What the journal may take, as V(500M) or V(1G).
    type: str
    default: 1G
attributes:
  check_mode:
    support: full
    description: Says what would go.
  diff_mode:
    support: none
    description: What goes is said in RV(parts).
  platform:
    support: full
    platforms: debian
    description: Debian 12 and 13. Nothing but Debian's Python is needed on the host.
author:
  - fushuma.production contributors (@fushuma)
"""

EXAMPLES = r"""
- name: Free what may go
  fushuma.production.free_disk:
    days: 7
    journal: 200M
"""

RETURN = r"""
parts:
  description: What went, or in check mode would go, of each kind; C({what, count, bytes, failures}).
  type: list
  elements: dict
  returned: always
report:
  description: All of it in lines for people.
  type: list
  elements: str
  returned: always
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.fushuma.production.plugins.module_utils.disk import (
    MOST_LISTED,
    WALK_SECONDS,
    Usage,
    bytes_of,
    deleted_but_open,
    expendables,
    largest,
    places,
    readable,
    usage,
)

SPEC = {
    "days": {"type": "int", "default": 14},
    "journal": {"type": "str", "default": "1G"},
}


def report(
    parts: Sequence[Mapping[str, Any]],
    before: Sequence[Usage],
    after: Sequence[Usage],
    folders: Mapping[str, Sequence[tuple[str, int]] | None],
    kept: Sequence[tuple[str, int]],
) -> list[str]:
    """What there is to say, in lines. Without ``after`` nothing was removed yet.

    folders: for each file system those that take most; None where that is not known.
    """
    lines = [f"before: {one.line}" for one in before] + [f"after: {one.line}" for one in after]
    word = "freed" if after else "would free"
    lines += [f"{word}: {one['what']}, {readable(one['bytes'])}" for one in parts if one["count"]]
    lines += [] if any(one["count"] for one in parts) else ["there is nothing that may go without asking"]
    lines += [f"not removed: {failure}" for one in parts for failure in one["failures"]]
    large = sorted((one for found in folders.values() for one in found or []), key=lambda one: -one[1])
    lines += [f"large: {path}, {readable(size)}" for path, size in large[:MOST_LISTED]]
    unknown = [place for place, found in folders.items() if found is None]
    lines += [f"which folders of {place} take most was not known within {WALK_SECONDS} s" for place in unknown]
    return lines + [f"deleted, and there until its process ends: {what}, {readable(size)}" for what, size in kept]


def main() -> None:
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    days = module.params["days"]
    try:
        bound = bytes_of(module.params["journal"])
    except ValueError:
        module.fail_json(
            msg=f'journal is "{module.params["journal"]}": it is no size. Write for example 500M. Nothing was touched.'
        )
    if days < 1:
        module.fail_json(msg=f"days is {days}: logs of today are needed. Write 1 or more. Nothing was touched.")
    where = places(Path("/proc/self/mountinfo").read_text("utf-8"))
    before = [usage(place) for place in where]
    parts = expendables(bound, days)
    due = [part for part in parts if part.count]
    if not module.check_mode:
        for part in due:
            part.go()
    after = [] if module.check_mode else [usage(place) for place in where]
    told = [part.as_dict() for part in parts]
    folders = {place: largest(place) for place in where}
    module.exit_json(changed=bool(due), parts=told, report=report(told, before, after, folders, deleted_but_open()))


if __name__ == "__main__":
    main()
