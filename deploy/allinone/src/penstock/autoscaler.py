"""Start and stop workers as their queue grows and shrinks, as KEDA does in a cluster."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import islice
from typing import Protocol

import nats
from nats.errors import Error as BusError
from nats.js.errors import NotFoundError

from penstock.operator_bus import keep_quiet
from penstock.scaling import ScalingPolicy, WorkerRange, WorkerScaler
from penstock.supervision.spec import ProcessSpec, ProcessState, ProcessStatus
from penstock_shared.contracts.streams import JOBS

_PREFIX = "worker-"
# What the server lists of a stream's consumers in one answer.
_LISTED_AT_ONCE = 256

Lags = Callable[[], Awaitable[Sequence[int]]]


class ProcessPool(Protocol):
    """What scaling needs of the supervisor."""

    def statuses(self) -> tuple[ProcessStatus, ...]:
        """Report every process, those included that drain."""

    def add(self, spec: ProcessSpec) -> None:
        """Start one more."""

    async def remove(self, name: str) -> None:
        """Drain one; returns when it is gone."""


class Autoscaler:
    """Keeps the number of workers at what the queue asks for."""

    def __init__(
        self,
        pool: ProcessPool,
        describe: Callable[[str], ProcessSpec],
        lags: Lags,
        bounds: WorkerRange,
        policy: ScalingPolicy,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Scale the pool between the bounds; `describe` plans the worker of a given name."""
        self._pool = pool
        self._describe = describe
        self._lags = lags
        self._names = [f"{_PREFIX}{number}" for number in range(1, bounds.most + 1)]
        self._scaler = WorkerScaler(policy, bounds)
        self._polling_interval_s = policy.polling_interval_s
        self._clock = clock
        self._draining: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Look and act until cancelled; what drains then is left to the pool's own stop."""
        while True:
            # A bus that is away says nothing about the queue: keep what there is.
            with suppress(BusError, OSError):
                await self.look()
            await asyncio.sleep(self._polling_interval_s)

    async def look(self) -> None:
        """Compare the queue with the workers once; start some, or begin to drain some."""
        lags = await self._lags()
        present = {s.name: s.state for s in self._pool.statuses() if s.name.startswith(_PREFIX)}
        # As in a cluster, one that drains counts no more, but keeps its name (and its port).
        running = [name for name in self._names if name in present and name not in self._draining]
        # And of the others those that are not ready go first: they may never be.
        running.sort(key=lambda name: present[name] is not ProcessState.READY)
        wanted = self._scaler.decide(lags, len(running), self._clock())
        free = (name for name in self._names if name not in present)
        for name in islice(free, max(0, wanted - len(running))):
            self._pool.add(self._describe(name))
        for name in running[wanted:]:
            self._drain(name)

    def _drain(self, name: str) -> None:
        """Let one go in its own time: a new burst must not wait until it has."""
        task = asyncio.create_task(self._pool.remove(name), name=f"drain {name}")
        self._draining[name] = task
        task.add_done_callback(lambda _: self._draining.pop(name))


@asynccontextmanager
async def job_lags(nats_url: str) -> AsyncIterator[Lags]:
    """Connect, and give the question for the lag of each of the workers' consumers."""
    client = await nats.connect(nats_url.split(","), max_reconnect_attempts=-1, error_cb=keep_quiet)
    jetstream = client.jetstream()

    async def ask() -> list[int]:
        lags: list[int] = []
        with suppress(NotFoundError):  # the stream is not there before the services are
            while page := await jetstream.consumers_info(JOBS, offset=len(lags)):
                lags += [(info.num_pending or 0) + (info.num_ack_pending or 0) for info in page]
                if len(page) < _LISTED_AT_ONCE:
                    break
        return lags

    try:
        yield ask
    finally:
        await client.close()
