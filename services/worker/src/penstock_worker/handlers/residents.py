"""Which models are loaded: on demand, within a budget of memory, swapped without a gap.

The registry (`models` in KV) says which version of a model serves. A version is loaded when the
first job for it comes (or ahead, while there is room), and gives way, least recently used first,
when another one needs its memory. A job holds the version that it began with until it has ended;
when a new version is promoted, the old one serves until the new one is warm.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, Protocol

from penstock_shared.contracts.errors import PenstockError, PermanentError
from penstock_shared.contracts.models import (
    ModelRecord,
    ModelState,
    ResidentModel,
)
from penstock_shared.runtime.clock import Clock
from penstock_shared.runtime.telemetry import log
from penstock_worker import metrics
from penstock_worker.domain.load_failures import LoadFailures
from penstock_worker.domain.memory import whom_to_unload
from penstock_worker.domain.resident import Resident
from penstock_worker.errors import HandedBackError, ModelError, UnwantedError

_ASK_EVERY_S: Final = 0.25
"""While a model is being loaded: whether the jobs that wait for it are wanted still."""
_LEAST_RESIDENCE_S: Final = 2.0
"""A model that was just loaded is not pushed out by the next one at once."""


class ModelShelf(Protocol):
    """Where models come from; its methods read files and block."""

    def memory_bytes(self, record: ModelRecord) -> int:
        """What the version that serves is taken to need.

        Raises:
            PermanentError: its files are not what they should be, or not here.
        """
        ...

    def load(self, record: ModelRecord) -> Resident:
        """Verify, tune, load and warm up.

        Raises:
            PermanentError: it cannot be run; the message says why and what to do.
            EngineMemoryError: it does not fit into memory.
        """
        ...


class Residents:
    """The loaded models."""

    def __init__(self, shelf: ModelShelf, clock: Clock, *, budget_bytes: int) -> None:
        self._shelf = shelf
        self._clock = clock
        self._budget_bytes = budget_bytes
        self._records: dict[str, ModelRecord] = {}
        self._serving: dict[str, Resident] = {}
        self._leaving: list[Resident] = []
        """Held by jobs that began with them; nobody new gets them."""
        self._loads: dict[str, asyncio.Task[None]] = {}
        self._load_ended: dict[str, asyncio.Event] = {}
        self._failures = LoadFailures(clock.monotonic_s)
        self._one_at_a_time = asyncio.Lock()
        self._someone_left = asyncio.Event()
        self._stopping = False

    def update(self, name: str, record: ModelRecord | None) -> None:
        """The registry says something new of a model."""
        self._failures.forget(name)
        resident = self._serving.get(name)
        if record is None:
            self._records.pop(name, None)
        else:
            self._records[name] = record
        if resident is None:
            return
        if record is None or record.quarantined:
            self._retire(name)
        elif record.version != resident.version:
            self._begin_load(name)

    async def preload(self) -> None:
        """Load what fits together, smallest first; the rest comes on demand."""
        free = self._budget_bytes
        for record in sorted(self._records.values(), key=lambda one: one.size_bytes):
            try:
                need = await asyncio.to_thread(self._shelf.memory_bytes, record)
                if need <= free:
                    free -= need
                    self.release(await self.acquire(record.name))
            except PenstockError as error:  # `states` tells it, and so does every job
                log().error("model.failed", model=record.name, code=error.code)

    async def acquire(self, name: str, wanted: Callable[[], bool] = lambda: True) -> Resident:
        """The version that serves, loaded; `release` it when the job has ended.

        Raises:
            UnwantedError: the job was no longer `wanted` before the model was there.
            ModelError: it was removed, is quarantined, or cannot be loaded.
            HandedBackError: this worker stops.
            TransientError: there was too little memory to load it; try again later.
        """
        while True:
            record = self._runnable(name)
            if (resident := self._serving.get(name)) is not None:
                if resident.version != record.version and self._failures.of(name) is None:
                    self._begin_load(name)
                resident.users += 1
                return resident
            self._failures.raise_for(name)
            self._begin_load(name)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ASK_EVERY_S):
                    await self._load_ended.setdefault(name, asyncio.Event()).wait()
            if not wanted():
                raise UnwantedError("Nobody waits for this model's answer any more.")

    def release(self, resident: Resident) -> None:
        """A job has ended."""
        resident.users -= 1
        resident.last_used_s = self._clock.monotonic_s()
        self._close_if_left(resident)
        self._someone_left.set()

    def states(self) -> tuple[ResidentModel, ...]:
        """Every model of the registry, as it stands here."""
        return tuple(self._state(record) for record in self._records.values())

    def loading(self) -> list[str]:
        """Which models are being loaded."""
        return list(self._loads)

    def hand_back_waiting(self) -> None:
        """Take nothing new; whoever waits for a model to be loaded hears HandedBackError."""
        self._stopping = True
        for load_ended in self._load_ended.values():
            load_ended.set()

    async def stop(self) -> None:
        """Unload everything; no job holds anything any more.

        A load under way is waited for: its thread cannot be stopped, and an engine that nobody
        closes can abort the process at its exit.
        """
        self.hand_back_waiting()
        await asyncio.gather(*self._loads.values())
        for resident in (*self._serving.values(), *self._leaving):
            resident.engine.close()

    def _runnable(self, name: str) -> ModelRecord:
        if self._stopping:
            raise HandedBackError("This worker stops.")
        record = self._records.get(name)
        if record is None:
            msg = f"The model {name} was removed: choose another one."
            raise ModelError(msg, code="model_removed", param="model")
        if record.quarantined:
            msg = (
                f"The model {name} is quarantined: its process died on several requests. "
                f"Lift it with 'penstock models promote {name} {record.version}'."
            )
            raise ModelError(msg, code="model_quarantined", param="model")
        return record

    def _wanted(self, name: str) -> ModelRecord | None:
        record = self._records.get(name)
        return None if record is None or record.quarantined or self._stopping else record

    def _begin_load(self, name: str) -> None:
        task = self._loads.get(name)
        if task is None or task.done():
            task = asyncio.create_task(self._load(name), name=f"load-{name}")
            self._loads[name] = task
            task.add_done_callback(lambda done: self._end_load(name, done))

    def _end_load(self, name: str, task: asyncio.Task[None]) -> None:
        if self._loads.get(name) is task:
            del self._loads[name]
        self._load_ended.pop(name, asyncio.Event()).set()

    async def _load(self, name: str) -> None:
        """Load until what is loaded is what serves; a failure is kept, and raised by `acquire`."""
        async with self._one_at_a_time:
            while (record := self._wanted(name)) is not None:
                standing = self._serving.get(name)
                if standing is not None and standing.version == record.version:
                    return
                try:
                    resident = await self._load_version(record)
                except PenstockError as error:
                    log().error("model.failed", model=name, code=error.code, why=error.message)
                    if self._records.get(name) == record:
                        self._failures.keep(name, error)
                        return
                    continue
                self._retire(name)
                self._serving[name] = resident
                metrics.MODEL_LOADS.labels(name).inc()
                self._tell_memory(name)
            self._retire(name)  # nobody wants it any more

    async def _load_version(self, record: ModelRecord) -> Resident:
        try:
            need_bytes = await asyncio.to_thread(self._shelf.memory_bytes, record)
            await self._make_room(need_bytes, record.name)
            resident = await asyncio.to_thread(self._shelf.load, record)
        except PenstockError:
            raise
        except Exception as error:  # files can be broken in ways that no library foresees
            log().error("model.unreadable", model=record.name, exc_info=error)
            msg = f"{record.name} cannot be loaded ({type(error).__name__}): add the model again."
            raise PermanentError(msg, code="model_unloadable") from error
        resident.loaded_at_s = resident.last_used_s = self._clock.monotonic_s()
        log().info("model.loaded", model=record.name, version=record.version)
        return resident

    async def _make_room(self, need_bytes: int, name: str) -> None:
        """Wait until `need_bytes` are free, and see to it.

        Whoever must go gets nobody new and leaves with its last job, however busy it is: a model
        that is asked for gets its turn.

        Raises:
            ModelError: it needs more than there is.
        """
        if need_bytes > self._budget_bytes:
            msg = (
                f"{name} needs {need_bytes:,} bytes and the budget is {self._budget_bytes:,}: "
                "raise PENSTOCK_MEMORY_BUDGET_BYTES, or take a smaller model."
            )
            raise ModelError(msg, code="model_too_large")
        while True:
            held = [*self._serving.values(), *self._leaving]
            excess = sum(one.memory_bytes for one in held) + need_bytes - self._budget_bytes
            if excess <= 0:
                return
            excess -= sum(one.memory_bytes for one in self._leaving)
            for victim in whom_to_unload(tuple(self._serving.values()), excess):
                await self._let_it_serve(victim)
                self._retire(victim.name)
            self._someone_left.clear()
            if self._leaving:
                await self._someone_left.wait()

    async def _let_it_serve(self, resident: Resident) -> None:
        served_s = self._clock.monotonic_s() - resident.loaded_at_s
        if resident.users and served_s < _LEAST_RESIDENCE_S:
            await asyncio.sleep(_LEAST_RESIDENCE_S - served_s)

    def _retire(self, name: str) -> None:
        resident = self._serving.pop(name, None)
        if resident is not None:
            self._leaving.append(resident)
            self._close_if_left(resident)

    def _close_if_left(self, resident: Resident) -> None:
        if resident in self._leaving and not resident.users:
            self._leaving.remove(resident)
            resident.engine.close()
            self._tell_memory(resident.name)
            log().info("model.unloaded", model=resident.name, version=resident.version)

    def _tell_memory(self, name: str) -> None:
        held = [one for one in (*self._serving.values(), *self._leaving) if one.name == name]
        metrics.MODEL_MEMORY.labels(name).set(sum(one.memory_bytes for one in held))

    def _state(self, record: ModelRecord) -> ResidentModel:
        resident = self._serving.get(record.name)
        failed = self._failures.of(record.name)
        if resident is not None:
            state = ModelState.READY
        elif failed is not None:
            state = ModelState.FAILED
        else:
            state = ModelState.LOADING if record.name in self._loads else ModelState.UNLOADED
        return ResidentModel(
            name=record.name,
            version=resident.version if resident else record.version,
            state=state,
            why=failed.message if failed else None,
            memory_bytes=resident.memory_bytes if resident else 0,
            layout=resident.layout if resident else None,
        )
