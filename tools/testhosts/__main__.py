# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""``python tools/testhosts`` from any directory, and ``python -m tools.testhosts`` from the repository's root."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
sys.exit(importlib.import_module(f"{__package__ or 'testhosts'}.cli").main(sys.argv[1:]))
