# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where a change finds no room nothing changes, the operator reads why, and the next run after making room goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hosts_support import STATE, Client, Edge, disagreements, on_each, running_digest, tree_of

# A small file system in the place of the folder $1, with all that was in it and no room for more.
FILL = """
set -eu
cp -a "$1" /root/aside
mount -t tmpfs -o mode=$(stat -c %a "$1"),size=8m tmpfs "$1"
cp -a /root/aside/. "$1"
dd if=/dev/zero of="$1/.filler" bs=4k 2>/dev/null || true
"""
# Back to the disk of the host, with what has been changed meanwhile.
RETURN = """
set -eu
cp -a "$1" /root/changed
umount "$1"
find "$1" -mindepth 1 -delete
cp -a /root/changed/. "$1"
rm -r /root/aside /root/changed
"""


@pytest.mark.parametrize("full", ["/etc/nginx", STATE])
def test_a_full_disk_changes_nothing(
    full: str,
    edges: list[Edge],
    settings: Mapping[str, Mapping[str, Any]],
    whole: Callable[[str], bool],
) -> None:
    def work(one: Edge) -> None:
        running = running_digest(one.host)
        one.host.run(["sh", "-c", FILL, "sh", full])
        before = tree_of(one.host)

        with Client(one.port, accept=whole) as client:
            failed = one.play(settings["b"])
            assert failed.failed
            assert f"No space left on device: '{full}/" in failed.output, failed.output
            assert (tree_of(one.host), running_digest(one.host), disagreements(one.host)) == (before, running, [])

            one.host.run(["rm", f"{full}/.filler"])
            one.play(settings["b"]).ok()
            assert disagreements(one.host) == []
            assert running_digest(one.host) != running

        assert client.failures == []
        one.host.run(["sh", "-c", RETURN, "sh", full])
        assert one.play(settings["b"]).ok().changed == 0

    on_each(edges, work)
