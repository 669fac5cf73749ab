"""Short-lived Python processes of the tests."""

from __future__ import annotations

import subprocess
import sys


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run this Python with arguments and return what became of it."""
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
