# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Sizes of memory as operators write them."""

from __future__ import annotations

import re

SIZE = re.compile(r"([1-9]\d*)(kb|mb|gb)")
UNITS = {"kb": 1024, "mb": 1024**2, "gb": 1024**3}


def bytes_of(text: str) -> int:
    """``512mb`` as a number of bytes; 0 for what is no such text."""
    found = SIZE.fullmatch(text)
    return int(found[1]) * UNITS[found[2]] if found else 0


def shown(size: int) -> str:
    """Bytes as they are told, in whole MB."""
    return f"{size // UNITS['mb']} MB"
