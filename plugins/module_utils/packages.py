# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Debian packages, at the price of a look where they are installed.

apt is started only where one is missing; ``ansible.builtin.apt`` opens apt's cache on every run to learn that nothing
is to be done.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ansible_collections.fushuma.production.plugins.module_utils.journal import (
    Entry,
    TransactionError,
    make_so,
    must,
    run,
    snapshot,
)

LISTS = Path("/var/lib/apt/lists")
LISTS_LAST = 3600  # seconds
APT_TIMEOUT = 1800  # seconds; a slow mirror is not an error
# Nobody is there to answer; an operator's own configuration files stay; another apt at work is waited for.
APT_GET = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120"]
# Descriptions in the operator's language are not needed to install; those that are there stay.
UPDATE = ["update", "-o", "Acquire::Languages=none", "-o", "APT::Get::List-Cleanup=false"]
INSTALL = ["install", "--yes", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confdef"]
INSTALL += ["-o", "Dpkg::Options::=--force-confold"]
CONFIGURE = ["env", "DEBIAN_FRONTEND=noninteractive", "dpkg", "--configure", "--pending"]

# Debian's interface for who may start what (/usr/share/doc/init-system-helpers/README.policy-rc.d.gz).
POLICY = Path("/usr/sbin/policy-rc.d")
HELD = "FUSHUMA_PRODUCTION_HELD"
POLICY_SCRIPT = f"""\
#!/bin/sh
# Of fushuma.production, while it installs a package. Says nothing to anybody else, so one left behind does no harm.
[ "$1" = --quiet ] && shift
case " ${HELD} " in *" ${{1%.service}} "*) [ "$2" = start ] && exit 101 ;; esac
exit 0
"""


def missing(names: Sequence[str]) -> list[str]:
    """Those of the packages that are not installed whole."""
    if not names:
        return []
    shown = run(["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *names])
    installed = {line.split()[0] for line in shown.output.splitlines() if line.endswith(" installed")}
    return [name for name in names if name.partition(":")[0] not in installed]


def install(names: Sequence[str], units: Sequence[str] = ()) -> None:
    """Have the packages installed. Raises TransactionError with apt's own words.

    A package may not start the ``units``: they answer with the configuration that is wanted, or not at all.
    """
    if lists_stale(LISTS, time.time()):
        must([*APT_GET, *UPDATE], APT_TIMEOUT)
    with held_back(units):
        done = run([*APT_GET, *INSTALL, *names], APT_TIMEOUT)
        if done.code and "dpkg --configure -a" in done.output:
            # An earlier installation was cut short; apt leaves finishing it to somebody else.
            must(CONFIGURE, APT_TIMEOUT)
            done = run(done.argv, APT_TIMEOUT)
    if done.code:
        raise TransactionError(f"apt-get cannot install {', '.join(names)}: {done.output}")


def remove(names: Sequence[str]) -> None:
    """Have the packages removed, and no others: dpkg, unlike apt, refuses what something else needs."""
    must(["dpkg", "--remove", *names], APT_TIMEOUT)


def lists_stale(folder: Path, now: float) -> bool:
    """Whether apt has no package lists, or old ones."""
    # The folder's time alone says nothing, for images are made without lists. The lists' own times say nothing either:
    # they are those of the mirror.
    return not any(folder.glob("*Packages*")) or now - folder.stat().st_mtime > LISTS_LAST


@contextlib.contextmanager
def held_back(units: Sequence[str]) -> Iterator[None]:
    """Within this context packages do not start these units. A policy that the host has of its own counts instead."""
    policy = Entry(str(POLICY), "file", POLICY_SCRIPT.encode(), 0o755, os.geteuid(), os.getegid())
    if not units or snapshot(policy.path) not in (Entry(policy.path), policy):
        yield
        return
    make_so([policy])
    os.environ[HELD] = " ".join(unit.removesuffix(".service") for unit in units)
    try:
        yield
    finally:
        del os.environ[HELD]
        make_so([Entry(policy.path)])
