# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What cannot work when somebody is let into the hosts, or shut out of them, by name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.fushuma.production.plugins.module_utils.sshd_keys import parsed
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import Problem, value_of

Settings = Mapping[str, Any]

# What useradd(8) recommends; sudo reads no file with a dot in its name (sudoers(5), @includedir).
NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}")
RIGHTS = ("nopasswd", "password", "none")


def adding_problems(operator: str, keys: Sequence[str], rights: str, settings: Settings) -> list[Problem]:
    """What stands against letting an operator in. ``settings`` are the host's variables, as far as they are known."""
    return [
        *_name_problems(operator),
        *_key_problems(keys),
        *_rights_problems(rights),
        *_allowed_problems(operator, settings),
        *(_known_problems(operator, settings, "it is the inventory that decides on the keys of", "the new key there")),
    ]


def removing_problems(operator: str, settings: Settings) -> list[Problem]:
    """What stands against shutting an operator out."""
    found = [*_name_problems(operator)]
    found += _known_problems(operator, settings, "the next run of site.yml would let in", "the list without them")
    if operator == settings.get("ansible_user"):
        why = "Ansible connects to this host as that user"
        found.append(Problem("operator", value_of(operator), why, "another name, or ansible_user: one who stays"))
    return found


def _name_problems(operator: str) -> Iterator[Problem]:
    form = "a name of lower-case letters, digits, dashes and underscores, such as alice"
    if operator == "root":
        yield Problem("operator", value_of(operator), "root is nobody's name", form)
    elif not NAME.fullmatch(operator):
        yield Problem("operator", value_of(operator), "it is no name for a user", form)


def _key_problems(keys: Sequence[str]) -> Iterator[Problem]:
    form = "the line of a file such as id_ed25519.pub"
    if not keys:
        yield Problem("keys", "[]", "nobody could log in with it", form)
    for number, line in enumerate(keys):
        try:
            parsed(line)
        except ValueError as error:
            shown = value_of(line, secret="PRIVATE" in line)
            yield Problem(f"keys[{number}]", shown, f"it is no public key ({error})", form)


def _rights_problems(rights: str) -> Iterator[Problem]:
    if rights not in RIGHTS:
        yield Problem("sudo", value_of(rights), "nobody knows what that means", " or ".join(RIGHTS))


def _allowed_problems(operator: str, settings: Settings) -> Iterator[Problem]:
    """AllowUsers takes patterns USER and USER@HOST; one that has no star names one user."""
    users = settings.get("sshd_allow_users") or []
    names = [str(one).partition("@")[0] for one in users]
    if users and operator not in names and not any("*" in one or "?" in one for one in names):
        why = f"sshd would keep {operator} out"
        yield Problem("sshd_allow_users", value_of(users), why, f"it with {operator}, and run site.yml first")


def _known_problems(operator: str, settings: Settings, why: str, instead: str) -> Iterator[Problem]:
    for number, one in enumerate(settings.get("sshd_authorized_keys") or []):
        if one.get("user") == operator and one.get("keys"):
            yield Problem(f"sshd_authorized_keys[{number}].user", value_of(operator), f"{why} {operator}", instead)
