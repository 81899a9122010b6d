# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The command ``production-backup``."""

from __future__ import annotations

from collections.abc import Sequence

from .settings import Settings


def main(argv: Sequence[str]) -> int:
    """0 well, 1 not, 2 wrong usage."""
    if argv[:1] == ["restore"]:
        from . import restore

        return restore.main(argv[1:], Settings.load())
    if argv[:1] == ["drill"]:
        from . import drill

        return drill.main(argv[1:], Settings.load())
    raise NotImplementedError
