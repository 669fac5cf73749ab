"""Worker processes that tests kill, stop and start again. Each ends what it has started."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Self

from tests.support.service_process import ServiceProcess
from tests.support.worker_rig import WorkerRig


class WorkerProcess(ServiceProcess):
    """One doctored worker (its echo model can kill it) on a rig's broker.

    The first one of a test is ready when its first job streams.
    """

    def __init__(self, rig: WorkerRig, name: str, **settings: Any) -> None:
        given = {
            "nats_url": rig.nats_url,
            "root_key_file": rig.root_key_file,
            "instance": name,
            "echo_model": 1,
            "drain_grace_s": 2,
            **settings,
        }
        log_file = rig.directory / f"{name}.log"
        super().__init__("tests.support.doctored_worker", log_file=log_file, settings=given)


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
