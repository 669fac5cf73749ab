"""A service in a process of its own, which tests kill, stop and start again."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path


class ServiceProcess:
    """`python -m <command>` with these settings and no others; it logs to `log_file`."""

    def __init__(self, *command: str, log_file: Path, settings: Mapping[str, object]) -> None:
        self._command = command
        self._log_file = log_file
        self._environ = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
        self._environ |= {f"PENSTOCK_{key.upper()}": str(value) for key, value in settings.items()}
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it; it is ready when it does its first work."""
        with self._log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                *self._command,
                env=self._environ,
                cwd=Path(__file__).parents[2],
                stderr=log,
            )

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def died(self) -> int:
        """Wait for its end; the signal that it died of, or 0."""
        assert self._process is not None
        return max(0, -await self._process.wait())

    async def stop(self) -> None:
        """End it, whatever state it is in."""
        if self._process is None or self._process.returncode is not None:
            return
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(15):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def log_text(self) -> str:
        """The end of what it has logged."""
        return self._log_file.read_text(errors="replace")[-6000:]
