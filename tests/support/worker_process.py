"""Worker processes that tests kill, stop and start again. Each ends what it has started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

from tests.support.worker_rig import WorkerRig


class WorkerProcess:
    """One doctored worker (its echo model can kill it) on a rig's broker."""

    def __init__(self, rig: WorkerRig, name: str, **settings: Any) -> None:
        self._log_file: Path = rig.directory / f"{name}.log"
        self._environ = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
        given = {
            "nats_url": rig.nats_url,
            "root_key_file": rig.root_key_file,
            "instance": name,
            "echo_model": 1,
            "drain_grace_s": 2,
            **settings,
        }
        self._environ |= {f"PENSTOCK_{key.upper()}": str(value) for key, value in given.items()}
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it; the first one of a test is ready when its first job streams."""
        with self._log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.support.doctored_worker",
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


@contextlib.asynccontextmanager
async def processes(
    rig: WorkerRig, count: int, **settings: Any
) -> AsyncIterator[list[WorkerProcess]]:
    """That many workers, not yet started."""
    made = [WorkerProcess(rig, f"worker-{n}", **settings) for n in range(count)]
    try:
        yield made
    except BaseException:
        print(*(one.log_text() for one in made), sep="\n---\n")
        raise
    finally:
        await asyncio.gather(*(one.stop() for one in made))


class Supervised:
    """One worker that is started again whenever it dies, as the supervisor does."""

    def __init__(self, worker: WorkerProcess) -> None:
        self._worker = worker
        self.deaths: list[int] = []
        """The signals that it died of."""
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._watch(), name="supervised-worker")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _watch(self) -> None:
        while True:
            await self._worker.start()
            self.deaths.append(await self._worker.died())
