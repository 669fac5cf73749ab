"""The consumers of every model's lanes: made with the model, so that lag shows without workers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

import nats.errors
import nats.js.errors

from penstock_router.adapters.tasks import Tasks
from penstock_shared.contracts.errors import PenstockError
from penstock_shared.contracts.streams import job_consumer
from penstock_shared.contracts.subjects import Lane
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.consumer import ensure_consumer
from penstock_shared.runtime.telemetry import log

_RETRY_S: Final = 1.0


class JobConsumers:
    """Ensures the durable consumer of each lane of each model, and never deletes one.

    A model's jobs outlive its record: whoever removes it may bring it back, and the sweeper ends
    what nobody runs.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._models: set[str] = set()
        self._wanting: set[str] = set()
        self._wake = asyncio.Event()
        self._tasks = Tasks()
        broker.on_reconnect(self.ensure_again)

    def model_changed(self, model: str, *, exists: bool) -> None:
        """The record of `model` was written or removed."""
        if not exists:
            self._models.discard(model)
            self._wanting.discard(model)
        elif model not in self._models:
            self._models.add(model)
            self._want((model,))

    async def ensure_again(self) -> None:
        """After a reconnect: the server may be another one, or have lost them."""
        self._want(self._models)

    def start(self) -> None:
        """Begin to make what is wanted."""
        self._tasks.spawn("job-consumers", self._keep_making())

    def problems(self) -> list[str]:
        """Whether it is gone."""
        return self._tasks.gone()

    async def stop(self) -> None:
        """Make no more."""
        await self._tasks.stop()

    def _want(self, models: Iterable[str]) -> None:
        self._wanting.update(models)
        self._wake.set()

    async def _keep_making(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            wanted, self._wanting = self._wanting, set()
            failed = [model for model in wanted if not await self._made(model)]
            if failed:
                await asyncio.sleep(_RETRY_S)
                self._want(self._models.intersection(failed))

    async def _made(self, model: str) -> bool:
        try:
            for lane in Lane:
                await ensure_consumer(self._broker, job_consumer(model, lane))
        except (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError) as error:
            log().warning("consumer.postponed", model=model, kind=type(error).__name__)
            return False
        except PenstockError as error:
            log().error("consumer.refused", model=model, code=error.code)
            return False
        return True
