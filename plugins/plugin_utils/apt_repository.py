# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The repository in which a program's makers publish Debian packages: what cannot work in a role's settings of it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.fushuma.production.plugins.plugin_utils.problem import Problem, value_of

URL = re.compile(r"https://[A-Za-z0-9.-]+(:\d+)?(/[A-Za-z0-9._~/-]*)?")
VERSION = re.compile(r"(\d+:)?\d[A-Za-z0-9.+~*-]*")
ARMOURED = b"-----BEGIN PGP PUBLIC KEY BLOCK-----"


@dataclass(frozen=True)
class Repository:
    """What is known of one, beside what the operator says."""

    setting: str  # in which the operator does
    maker: str
    url: str
    key_url: str  # where the makers publish their key
    key_file: str  # what one calls a copy of it
    version: str = ""  # an example of how apt writes versions of theirs


def problems(settings: Mapping[str, Any], repository: Repository) -> Iterator[Problem]:
    """What cannot work in the repository's setting.

    It has a ``url``, a ``key`` or a ``key_file`` and its ``key_sha256``, and a ``version`` where the role has it.
    """
    under = repository.setting
    given = settings[under]
    if not URL.fullmatch(given["url"]):
        why = "packages come over TLS from a place without a login in its name"
        shown = value_of(re.sub(r"//.*@", "//***@", given["url"]))
        yield Problem(f"{under}.url", shown, why, f'"{repository.url}"')
    if given.get("version") and not VERSION.fullmatch(given["version"]):
        form = f'"{repository.version}"'
        yield Problem(f"{under}.version", value_of(given["version"]), "no package has such a version", form)
    yield from _key_problems(under, given, repository)


def _key_problems(under: str, given: Mapping[str, Any], repository: Repository) -> Iterator[Problem]:
    if bool(given["key"]) == bool(given["key_file"]):
        shown = "given, and key_file too" if given["key"] else "missing"
        form = f"the text of {repository.key_url}, or in key_file the path of a file with it"
        yield Problem(f"{under}.key", shown, f"by exactly one key apt knows packages of {repository.maker}", form)
        return
    setting, key = f"{under}.key", given["key"].encode()
    if given["key_file"]:
        setting, path = f"{under}.key_file", Path(given["key_file"])
        if not path.is_absolute() or not path.is_file():
            form = f'its whole path, such as "{{{{ inventory_dir }}}}/files/{repository.key_file}"'
            yield Problem(setting, value_of(given["key_file"]), "the controller has no such file", form)
            return
        key = path.read_bytes()
    if not key.startswith(ARMOURED):
        form = f"the key in the form that starts with {ARMOURED.decode()}"
        yield Problem(setting, "another text", "it is no public key in a form for text files", form)
        return
    found = hashlib.sha256(key).hexdigest()
    if found != given["key_sha256"].lower():
        why = f"it has the SHA-256 {found}, and key_sha256 says {given['key_sha256'] or 'nothing'}"
        form = f"the key that is meant, and its SHA-256 after a look at the fingerprint {repository.maker} tells"
        yield Problem(setting, "another key", why, form)


def update(sources: str) -> list[str]:
    """The command that has apt read one file of sources anew, and no other; it fails where the repository does."""
    options = [f"Dir::Etc::SourceList={sources}", "Dir::Etc::SourceParts=-"]
    # What apt knows of other repositories stays, and one that is out of reach is an error.
    options += ["APT::Get::List-Cleanup=false", "APT::Update::Error-Mode=any"]
    return ["apt-get", "-qq", "update", *(word for option in options for word in ("-o", option))]
