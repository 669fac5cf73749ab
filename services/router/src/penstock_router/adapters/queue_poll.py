"""Reads every job consumer once a second: one request for up to 256 of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final

from prometheus_client import Gauge

from penstock_router import metrics
from penstock_router.adapters.tasks import Tasks
from penstock_router.domain.queue_load import LaneReading, QueueLoad
from penstock_shared.contracts.errors import TransientError
from penstock_shared.contracts.streams import JOBS, job_consumer
from penstock_shared.contracts.subjects import Lane
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.clock import Clock
from penstock_shared.runtime.telemetry import log

_EVERY_S: Final = 1.0
_TIMEOUT_S: Final = 2.0
_FORGET_AFTER_S: Final = 15.0
_LIST: Final = f"$JS.API.CONSUMER.LIST.{JOBS}"


class QueuePoll:
    """Keeps `loads` fresh; a look that fails leaves them as they are, for a while.

    Between two readings only admissions change a depth: an old one would refuse everybody in the
    end, so what has not been read for `_FORGET_AFTER_S` is not known.
    """

    def __init__(
        self,
        broker: Broker,
        loads: defaultdict[str, QueueLoad],
        model_names: Callable[[], Collection[str]],
        clock: Clock,
    ) -> None:
        self._broker = broker
        self._loads = loads
        self._model_names = model_names
        self._clock = clock
        self._read_at_s = clock.monotonic_s()
        self._tasks = Tasks()

    async def start(self) -> None:
        """Look once, then go on looking."""
        await self.look()
        self._tasks.spawn("queue-poll", self._keep_looking())

    def problems(self) -> list[str]:
        """Whether it is gone."""
        return self._tasks.gone()

    async def stop(self) -> None:
        """Look no more."""
        await self._tasks.stop()

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Read every consumer once; what the server does not tell is logged."""
        try:
            await self._read()
        except TransientError as error:
            log().warning("queues.unread", code=error.code)
        except (KeyError, TypeError, ValueError) as error:
            log().warning("queues.unreadable", kind=type(error).__name__)
        if self._clock.monotonic_s() - self._read_at_s > _FORGET_AFTER_S:
            self._loads.clear()

    async def _read(self) -> None:
        readings = await self._readings()
        now_s = self._read_at_s = self._clock.monotonic_s()
        names = frozenset(self._model_names())
        for model in self._loads.keys() - names:
            _forget(model)
            del self._loads[model]
        for model in names:
            lanes = {
                lane: readings[durable]
                for lane in Lane
                if (durable := job_consumer(model, lane).durable) in readings
            }
            load = self._loads[model]
            load.read(lanes, now_s)
            metrics.QUEUE_DEPTH.labels(model).set(load.depth)
            for lane, reading in lanes.items():
                metrics.JOBS_LAG.labels(model, lane.value).set(reading.unfetched + reading.held)
            metrics.DRAIN_RATE.labels(model).set(load.rate_per_s or 0)

    async def _readings(self) -> dict[str, LaneReading]:
        """By durable. The answer comes in pages (ADR-1 of NATS: total, offset, limit)."""
        readings: dict[str, LaneReading] = {}
        offset = 0
        while True:
            question = json.dumps({"offset": offset}).encode()
            reply = await self._broker.request(_LIST, question, timeout_s=_TIMEOUT_S)
            answer: dict[str, Any] = json.loads(reply.data)
            page = _page(answer["consumers"] or ())
            readings |= page
            offset += len(page)  # not what is new: the list may shift between two pages
            if not page or offset >= answer["total"]:
                return readings


def _page(consumers: Iterable[dict[str, Any]]) -> dict[str, LaneReading]:
    return {
        info["name"]: LaneReading(
            unfetched=info["num_pending"],
            held=info["num_ack_pending"],
            delivered=info["delivered"]["consumer_seq"],
        )
        for info in consumers
    }


def _forget(model: str) -> None:
    labels: list[tuple[Gauge, tuple[str, ...]]] = [
        (metrics.QUEUE_DEPTH, (model,)),
        (metrics.DRAIN_RATE, (model,)),
        *((metrics.JOBS_LAG, (model, lane.value)) for lane in Lane),
    ]
    for gauge, of in labels:
        with contextlib.suppress(KeyError):  # it was never looked at
            gauge.remove(*of)
