# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether the host waits for a restart or for packages. The names are those of Debian's own collectors."""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from pathlib import Path

from .text import Family

# Inst NAME [VERSION] (VERSION ORIGIN, ORIGIN [ARCHITECTURE]); without a version before it is new, and no upgrade.
UPGRADE = re.compile(r"^Inst \S+ \[[^\]]*\] \(\S+ (?P<origin>.*) \[(?P<arch>[^\]]+)\]\)", re.MULTILINE)
SIMULATED = ("apt-get", "-s", "dist-upgrade")
STAMPS = ("var/lib/apt/periodic/update-success-stamp", "var/lib/apt/lists")


def needs_restart(root: Path, running: str) -> bool:
    """A package said so, or the kernel that starts next is not the one that runs."""
    if (root / "run/reboot-required").exists():
        return True
    try:
        return os.readlink(root / "vmlinuz").rpartition("vmlinuz-")[2] != running
    except OSError:
        return False


def upgrades(said: str) -> dict[tuple[str, str], int]:
    """How many packages wait, by origin and architecture, out of what apt-get says it would do."""
    return dict(Counter((one["origin"].replace(", ", ","), one["arch"]) for one in UPGRADE.finditer(said)))


def simulated() -> str | None:
    """What apt-get would do; None where it does not say."""
    try:
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            SIMULATED,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def families(root: Path, running: str, said: str | None) -> list[Family]:
    restart = Family("node_reboot_required", "gauge", "Whether the host needs a restart.")
    restart.add(int(needs_restart(root, running)))
    pending = Family("apt_upgrades_pending", "gauge", "Packages that wait to be upgraded, by origin.")
    if said is not None:
        for (origin, arch), count in sorted((upgrades(said) or {("", ""): 0}).items()):
            pending.add(count, origin=origin, arch=arch)
    listed = Family("apt_package_cache_timestamp_seconds", "gauge", "When the lists of packages were fetched last.")
    stamps = [(root / name).stat().st_mtime for name in STAMPS if (root / name).exists()]
    if stamps:
        listed.add(max(stamps))
    return [restart, pending, listed]
