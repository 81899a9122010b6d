# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Repositories of programs' makers: what cannot work in their settings, and how apt reads one of them alone."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.filter.apt import FilterModule
from ansible_collections.fushuma.production.plugins.plugin_utils import apt_repository
from ansible_collections.fushuma.production.plugins.plugin_utils.apt_repository import Repository

KEY = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmDMEaSZmvBYJ\n-----END PGP PUBLIC KEY BLOCK-----\n"
DIGEST = hashlib.sha256(KEY.encode()).hexdigest()
TOOLS = Repository(
    "tools_repository", "Tools", "https://apt.tools.test", "https://apt.tools.test/key", "tools.asc", "1.*"
)


def said(**given: Any) -> list[str]:
    settings = {"url": TOOLS.url, "key": KEY, "key_file": "", "key_sha256": DIGEST, **given}
    return [one.sentence("web1") for one in apt_repository.problems({TOOLS.setting: settings}, TOOLS)]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"key_sha256": DIGEST.upper()},
        {"version": ""},
        {"version": "5:28.5.*"},
        {"url": "https://mirror.test:8443/tools/debian"},
    ],
)
def test_what_works(given: dict[str, Any]) -> None:
    assert said(**given) == []


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"url": "http://apt.tools.test"}, 'tools_repository.url is "http://apt.tools.test": packages come over TLS'),
        ({"url": "https://me:s/e@t@apt.tools.test"}, 'tools_repository.url is "https://***@apt.tools.test": packages'),
        ({"url": "https://apt.tools.test/a b"}, "tools_repository.url"),
        ({"version": "newest"}, 'no package has such a version. Write "1.*"'),
        ({"key": ""}, "tools_repository.key is missing: by exactly one key apt knows packages of Tools"),
        ({"key_file": "/srv/tools.asc"}, "tools_repository.key is given, and key_file too"),
        ({"key": "", "key_file": "tools.asc"}, "the controller has no such file"),
        ({"key": "", "key_file": "/srv/none"}, '"{{ inventory_dir }}/files/tools.asc"'),
        ({"key": "", "key_file": __file__}, "tools_repository.key_file is another text: it is no public key"),
        ({"key": "mDMEaSZmvBYJ"}, "tools_repository.key is another text: it is no public key"),
        ({"key_sha256": ""}, f"it has the SHA-256 {DIGEST}, and key_sha256 says nothing"),
        ({"key_sha256": "0" * 64}, "after a look at the fingerprint Tools tells."),
    ],
)
def test_what_cannot_work_is_said_in_one_sentence(given: dict[str, Any], sentence: str) -> None:
    (found,) = said(**given)
    assert found.startswith("web1: ")
    assert sentence in found


def test_the_key_of_a_file_is_compared_byte_by_byte(tmp_path: Path) -> None:
    file = tmp_path / "tools.asc"
    file.write_text(KEY)
    assert said(key="", key_file=str(file)) == []
    file.write_text(KEY + "\n")
    (found,) = said(key="", key_file=str(file))
    assert "tools_repository.key_file is another key" in found


def test_all_of_it_is_said_at_once() -> None:
    assert len(said(url="", version="-", key="")) == 3


def test_apt_reads_one_file_and_forgets_no_other_repository() -> None:
    update = FilterModule().filters()["apt_update"]
    assert update("/etc/apt/sources.list.d/tools.sources") == [
        "apt-get",
        "-qq",
        "update",
        "-o",
        "Dir::Etc::SourceList=/etc/apt/sources.list.d/tools.sources",
        "-o",
        "Dir::Etc::SourceParts=-",
        "-o",
        "APT::Get::List-Cleanup=false",
        "-o",
        "APT::Update::Error-Mode=any",
    ]
