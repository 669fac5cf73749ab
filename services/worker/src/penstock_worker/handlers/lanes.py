"""One model's consumers: pulls jobs of each lane into a waiting room of bounded size."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from functools import partial
from typing import Final

from penstock_shared.contracts.streams import job_consumer
from penstock_shared.contracts.subjects import Lane
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.consumer import Delivery, DurableConsumer, HandBackHook
from penstock_shared.runtime.settlement import settle
from penstock_worker import metrics
from penstock_worker.domain.line import LANE_ORDER
from penstock_worker.handlers.jobs import JobHandler

_AHEAD: Final = 4
_LEAST_AHEAD: Final = 4
"""How many jobs are pulled ahead of a free seat: a share of the seats. A cancellation reaches
those only when their turn comes, and no other worker can run them."""
_OVER_SHARE_EVERY_S: Final = 1.0
"""While others wait, one job of the over-share lane comes in so often, so that none starves."""


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
        self,
        broker: Broker,
        model: str,
        handler: JobHandler,
        rng: random.Random,
        *,
        seats: int,
        before_hand_back: HandBackHook,
    ) -> None:
        self._model = model
        self._handler = handler
        self._rng = rng
        self._seats = seats
        self._consumers = {
            lane: DurableConsumer(
                broker,
                job_consumer(model, lane),
                credit=max(seats // _AHEAD, _LEAST_AHEAD),
                before_hand_back=before_hand_back,
            )
            for lane in LANE_ORDER
        }
        self._waiting = dict.fromkeys(LANE_ORDER, 0)
        self._fair_lanes_empty = asyncio.Event()
        self._fair_lanes_empty.set()
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
        while True:
            await room.acquire()
            if lane is Lane.OVER_SHARE:
                await self._its_turn()
            delivery = await consumer.get()
            self._count(lane, 1)
            seat = _Seat(room, partial(self._count, lane, -1))
            job = asyncio.create_task(self._hold(delivery, seat))
            self._jobs.add(job)
            job.add_done_callback(self._jobs.discard)

    async def _its_turn(self) -> None:
        """When nobody in the other lanes waits for the model, or for a trickle."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_OVER_SHARE_EVERY_S):
                await self._fair_lanes_empty.wait()

    def _count(self, lane: Lane, change: int) -> None:
        self._waiting[lane] += change
        metrics.QUEUED.labels(self._model, lane.value).set(self._waiting[lane])
        others = sum(self._waiting.values()) - self._waiting[Lane.OVER_SHARE]
        if others:
            self._fair_lanes_empty.clear()
        else:
            self._fair_lanes_empty.set()

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
