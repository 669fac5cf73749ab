"""The reference models' generator is no installed part of the product: tests import its source."""

from __future__ import annotations

import sys
from pathlib import Path

SOURCE = Path(__file__).parents[3] / "models" / "src"
if str(SOURCE) not in sys.path:
    sys.path.insert(0, str(SOURCE))
