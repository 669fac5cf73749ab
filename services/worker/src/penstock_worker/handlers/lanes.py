"""One model's consumers: pulls jobs of each lane into a waiting room of bounded size."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import partial
from typing import Final

from penstock_shared.contracts.streams import job_consumer
from penstock_shared.contracts.subjects import Lane
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.consumer import Delivery, DurableConsumer
from penstock_shared.runtime.settlement import settle
from penstock_worker import metrics
from penstock_worker.domain.batching import LANE_ORDER
from penstock_worker.handlers.jobs import JobHandler

_AHEAD: Final = 4
_LEAST_AHEAD: Final = 4
"""How many jobs are pulled ahead of a free seat: a share of the seats. A cancellation reaches
those only when their turn comes, and no other worker can run them."""


class _Seat:
    """A place in a waiting room; given back once, by whoever comes first."""

    def __init__(self, room: asyncio.Semaphore, leave: Callable[[], None]) -> None:
        self._room = room
        self._leave = leave
        self._taken = True

    def give_back(self) -> None:
        if self._taken:
            self._taken = False
            self._leave()
            self._room.release()


class Lanes:
    """Pulls what fits, and no more: what waits here cannot run elsewhere.

    A task per job lives from its delivery to its ack. Jobs that wait have a seat; those that run
    or write their fact have left it, so a slow log does not keep the engine idle.
    """

    def __init__(
        self, broker: Broker, model: str, handler: JobHandler, rng: random.Random, *, seats: int
    ) -> None:
        self._model = model
        self._handler = handler
        self._rng = rng
        self._seats = seats
        self._consumers = {
            lane: DurableConsumer(
                broker, job_consumer(model, lane), credit=max(seats // _AHEAD, _LEAST_AHEAD)
            )
            for lane in LANE_ORDER
        }
        self._pumps: list[asyncio.Task[None]] = []
        self._jobs: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to pull."""
        for lane, consumer in self._consumers.items():
            await consumer.start()
            self._pumps.append(
                asyncio.create_task(
                    self._pump(lane, consumer), name=f"lane-{self._model}-{lane.value}"
                )
            )

    async def stop_pulling(self) -> None:
        """Take nothing new, and hand back what nobody has looked at."""
        if not self._pumps:
            return
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        self._pumps.clear()
        await asyncio.gather(*(consumer.stop() for consumer in self._consumers.values()))

    async def finish(self) -> None:
        """Wait until every job that was taken is settled."""
        while self._jobs:
            await asyncio.wait(self._jobs)

    async def stop(self, grace_s: float) -> None:
        """Give what is left `grace_s`, then leave it to its next holder."""
        if self._jobs:
            await asyncio.wait(self._jobs, timeout=grace_s)
        for job in self._jobs:
            job.cancel()
        for consumer in self._consumers.values():
            await consumer.close()

    async def _pump(self, lane: Lane, consumer: DurableConsumer) -> None:
        room = asyncio.Semaphore(self._seats)
        waiting = metrics.QUEUED.labels(self._model, lane.value)
        while True:
            await room.acquire()
            delivery = await consumer.get()
            waiting.inc()
            job = asyncio.create_task(self._hold(delivery, _Seat(room, waiting.dec)))
            self._jobs.add(job)
            job.add_done_callback(self._jobs.discard)

    async def _hold(self, delivery: Delivery, seat: _Seat) -> None:
        try:
            await settle(
                delivery,
                partial(self._handler.on_job, on_start=seat.give_back),
                self._handler.reject,
                self._rng,
            )
        finally:
            seat.give_back()
