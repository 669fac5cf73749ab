"""The operator's command, as an operator runs it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

from tests.support.stack import Stack


def penstock(stack: Stack, *arguments: str, check: bool = True) -> Any:
    """Run `penstock … --json` against a stack; the parsed output, or stderr when it may fail."""
    done = subprocess.run(
        [sys.executable, "-m", "penstock", *arguments, "--json", "--data-dir", str(stack.data_dir)],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    if not check:
        return done
    assert done.returncode == 0, f"{arguments}: {done.stderr}"
    return json.loads(done.stdout)


async def operate(stack: Stack, *arguments: str, check: bool = True) -> Any:
    """The same without blocking the event loop."""
    return await asyncio.to_thread(penstock, stack, *arguments, check=check)
