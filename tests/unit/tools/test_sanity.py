# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What tools/sanity.py reads out of ansible-test."""

from __future__ import annotations

from pathlib import Path

import ansible_test
import pytest
import sanity


def test_the_bootstrap_has_the_name_ansible_test_looks_for() -> None:
    assert sanity.bootstrap_name("packages = dict(\n    pip='24.2',\n)") == "get_pip_24_2.py"
    with pytest.raises(SystemExit, match="does not know"):
        sanity.bootstrap_name("packages = {}")


def test_the_installed_ansible_test_is_understood() -> None:
    source = Path(ansible_test.__file__).parent / "_internal" / "python_requirements.py"
    assert sanity.bootstrap_name(source.read_text(encoding="utf-8")).startswith("get_pip_2")


def test_a_test_left_out_is_heard_once() -> None:
    output = (
        'Running sanity test "pslint"\n'
        'WARNING: Required program "pwsh" not found.\n'
        "WARNING: Using locale C.UTF-8\n"
        'WARNING: Skipping sanity test "compile" on Python 3.8 because it could not be found.\n'
        "WARNING: Reviewing previous 2 warning(s):\n"
        'WARNING: Required program "pwsh" not found.\n'
    )
    assert sanity.tests_left_out(output) == [
        'Required program "pwsh" not found.',
        'Skipping sanity test "compile" on Python 3.8 because it could not be found.',
    ]
    assert sanity.tests_left_out("Running\n") == []


def test_errors_are_found_between_other_lines() -> None:
    output = "ERROR: Found 1 issue\nERROR: a.py:1:0: bad\nCollecting x\nInstalled ERROR: no\n"
    assert sanity.errors_of(output) == ["ERROR: Found 1 issue", "ERROR: a.py:1:0: bad"]
