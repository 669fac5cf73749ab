"""Which models this worker pulls jobs for: those of the registry whose files it has."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from penstock_shared.contracts.errors import PenstockError
from penstock_shared.contracts.models import ModelRecord
from penstock_shared.runtime.telemetry import log
from penstock_worker.handlers.lanes import Lanes
from penstock_worker.handlers.residents import Residents

_STOP_GRACE_S = 2.0


class ServedModels:
    """Follows the registry: opens and closes the lanes of models."""

    def __init__(
        self,
        residents: Residents,
        has: Callable[[ModelRecord], bool],
        lanes_of: Callable[[str], Lanes],
    ) -> None:
        self._residents = residents
        self._has = has
        self._lanes_of = lanes_of
        self._lanes: dict[str, Lanes] = {}
        self._closing: dict[Lanes, asyncio.Task[None]] = {}
        """Of models that are served no more: their last jobs run."""
        self._records: dict[str, ModelRecord] = {}
        self._changed: asyncio.Queue[str] = asyncio.Queue()
        """Names: what is done about a model follows its latest record."""
        self._task: asyncio.Task[None] | None = None

    def on_change(self, name: str, record: ModelRecord | None) -> None:
        """The registry has changed: hand this to its mirror."""
        self._residents.update(name, record)
        if record is None:
            self._records.pop(name, None)
        else:
            self._records[name] = record
        self._changed.put_nowait(name)

    async def start(self) -> None:
        """Open the lanes of what is registered, and follow."""
        while not self._changed.empty():
            await self._apply(self._changed.get_nowait())
        self._task = asyncio.create_task(self._follow(), name="served-models")

    async def stop_pulling(self) -> None:
        """Take nothing new, and hand back what nobody has looked at or what waits for a load."""
        self._residents.hand_back_waiting()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await asyncio.gather(*(lanes.stop_pulling() for lanes in self._all()))

    async def finish(self) -> None:
        """Wait until every job that was taken is settled."""
        await asyncio.gather(*(lanes.finish() for lanes in self._all()))

    async def stop(self) -> None:
        """Leave what is left to its next holder."""
        await asyncio.gather(*(lanes.stop(_STOP_GRACE_S) for lanes in self._all()))
        await asyncio.gather(*self._closing.values(), return_exceptions=True)

    def _all(self) -> tuple[Lanes, ...]:
        return (*self._lanes.values(), *self._closing)

    async def _follow(self) -> None:
        while True:
            name = await self._changed.get()
            try:
                await self._apply(name)
            except Exception as error:  # noqa: BLE001  one model must not stop the others
                log().error("model.not_served", model=name, kind=type(error).__name__)
                await asyncio.sleep(1.0)
                self._changed.put_nowait(name)

    async def _apply(self, name: str) -> None:
        """A model that fails to load is served, too: its jobs end with the reason."""
        record = self._records.get(name)
        if record is None or not await self._is_here(record):
            self._begin_close(name)
        elif name not in self._lanes:
            self._lanes[name] = lanes = self._lanes_of(name)
            try:
                await lanes.start()
            except Exception:
                self._begin_close(name)  # so that the next try begins anew
                raise

    async def _is_here(self, record: ModelRecord) -> bool:
        try:
            return await asyncio.to_thread(self._has, record)
        except PenstockError:  # its manifest is broken
            return True

    def _begin_close(self, name: str) -> None:
        """Its jobs finish by themselves: the changes of other models do not wait for them."""
        lanes = self._lanes.pop(name, None)
        if lanes is not None:
            task = asyncio.create_task(self._close(lanes), name=f"close-{name}")
            self._closing[lanes] = task

    async def _close(self, lanes: Lanes) -> None:
        await lanes.stop_pulling()
        await lanes.finish()
        await lanes.stop(_STOP_GRACE_S)
        del self._closing[lanes]
