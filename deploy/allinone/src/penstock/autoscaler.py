"""Start and stop workers as their queue grows and shrinks, as KEDA does in a cluster."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Protocol

import nats
from nats.errors import Error as BusError
from nats.js.errors import NotFoundError

from penstock.operator_bus import keep_quiet
from penstock.scaling import Stabilizer, WorkerRange, workers_for
from penstock.supervision.spec import ProcessSpec, ProcessStatus
from penstock_shared.contracts.streams import JOBS

_LOOK_EVERY_S = 1.0
_LAG_PER_WORKER = 16
_CALM_S = 60.0
_PREFIX = "worker-"

Lags = Callable[[], Awaitable[Sequence[int]]]


class ProcessPool(Protocol):
    """What scaling needs of the supervisor."""

    def statuses(self) -> tuple[ProcessStatus, ...]:
        """Report every process."""

    def add(self, spec: ProcessSpec) -> None:
        """Start one more."""

    async def remove(self, name: str) -> None:
        """Drain one."""


class Autoscaler:
    """Keeps the number of workers at what the queue asks for."""

    def __init__(
        self,
        pool: ProcessPool,
        describe: Callable[[str], ProcessSpec],
        lags: Lags,
        bounds: WorkerRange,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Scale the pool between the bounds; `describe` plans the worker of a given name."""
        self._pool = pool
        self._describe = describe
        self._lags = lags
        self._bounds = bounds
        self._clock = clock
        self._stabilizer = Stabilizer(_CALM_S)

    async def run(self) -> None:
        """Look and act until cancelled."""
        while True:
            # A bus that is away says nothing about the queue: keep what there is.
            with suppress(BusError, OSError):
                await self.look()
            await asyncio.sleep(_LOOK_EVERY_S)

    async def look(self) -> None:
        """Compare the queue with the workers once, and start or drain some."""
        wish = workers_for(await self._lags(), _LAG_PER_WORKER)
        wanted = self._bounds.clamp(self._stabilizer.settle(wish, self._clock()))
        running = sum(status.name.startswith(_PREFIX) for status in self._pool.statuses())
        for number in range(running + 1, wanted + 1):
            self._pool.add(self._describe(f"{_PREFIX}{number}"))
        for number in range(running, wanted, -1):
            await self._pool.remove(f"{_PREFIX}{number}")


@asynccontextmanager
async def job_lags(nats_url: str) -> AsyncIterator[Lags]:
    """Connect, and give the question for the lag of each of the workers' consumers."""
    client = await nats.connect(nats_url.split(","), max_reconnect_attempts=-1, error_cb=keep_quiet)
    jetstream = client.jetstream()

    async def ask() -> list[int]:
        try:
            consumers = await jetstream.consumers_info(JOBS)
        except NotFoundError:  # nobody has sent a job yet
            return []
        return [(info.num_pending or 0) + (info.num_ack_pending or 0) for info in consumers]

    try:
        yield ask
    finally:
        await client.close()
