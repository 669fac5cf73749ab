"""Looks at the platform once a second, and tells every change of this router's mode as a fact."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Final

from penstock_router import metrics
from penstock_router.adapters.tasks import Tasks
from penstock_router.domain.breaker import BreakerState
from penstock_router.domain.breakers import Breakers
from penstock_router.domain.modes import Modes, Signs, dearer_away, text_models
from penstock_router.domain.queue_load import QueueLoad
from penstock_shared.contracts import subjects
from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.errors import TransientError
from penstock_shared.contracts.ids import PLATFORM
from penstock_shared.contracts.models import ModelRecord
from penstock_shared.contracts.routing import MODE_FACT, ROUTER_TOPIC, Mode, ModeChanged
from penstock_shared.contracts.subjects import Lane
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.clock import Clock
from penstock_shared.runtime.telemetry import log

_EVERY_S: Final = 1.0


class ModeWatch:
    """Keeps `modes`; the fact of the last change is also the write that shows how the log does.

    It is tried before every look that would otherwise find the log gone, so that requests which
    cannot be written, whatever one tenant has put into them, make the router read-only for nobody
    (I8). A fact may therefore stand twice, with the same id.
    """

    def __init__(
        self,
        broker: Broker,
        modes: Modes,
        breakers: Breakers,
        loads: Mapping[str, QueueLoad],
        models: Callable[[], Collection[ModelRecord]],
        facts_behind: Callable[[], int],
        clock: Clock,
        *,
        instance: str,
        deadline_s: float,
        source: str,
    ) -> None:
        """`deadline_s`: what a request has that names none; a longer queue is of no use to it."""
        self._broker = broker
        self._modes = modes
        self._breakers = breakers
        self._loads = loads
        self._models = models
        self._facts_behind = facts_behind
        self._clock = clock
        self._instance = instance
        self._deadline_s = deadline_s
        self._source = source
        self._untold: ModeChanged | None = None
        self._told = self._changed()
        self._tasks = Tasks()

    def start(self) -> None:
        """Begin to look."""
        self._tasks.spawn("mode-watch", self._keep_looking())

    def problems(self) -> list[str]:
        """Whether it is gone."""
        return self._tasks.gone()

    async def stop(self) -> None:
        """Look no more."""
        await self._tasks.stop()

    async def _keep_looking(self) -> None:
        while True:
            await self._tell()
            self.look()
            await asyncio.sleep(_EVERY_S)

    def look(self) -> None:
        """Look once."""
        if self._modes.look(self._signs(), self._clock.monotonic_s()):
            self._untold = self._told = self._changed()
            log().warning("mode.changed", mode=self._told.mode.value, why=self._told.why)
        for mode in Mode:
            metrics.MODE.labels(mode.value).set(mode is self._modes.mode)
        now = self._clock.now()
        metrics.BREAKER.clear()  # of models that are gone
        for model in self._models():
            state = self._breakers.state(model.name, now)
            for each in BreakerState:
                metrics.BREAKER.labels(model.name, each.value).set(each is state)

    def _signs(self) -> Signs:
        models = self._models()
        serving = [model for model in text_models(models) if self._is_usable(model)]
        waits_s = [self._wait_s(model, Lane.BATCH) for model in serving]
        known_s = [wait_s for wait_s in waits_s if wait_s is not None]
        return Signs(
            connected=self._broker.is_connected,
            dearer_away=dearer_away(models, self._is_usable),
            batch_wait_s=min(known_s) if known_s and len(known_s) == len(waits_s) else None,
            facts_behind=self._facts_behind(),
        )

    def _is_usable(self, model: ModelRecord) -> bool:
        if model.quarantined:
            return False
        if self._breakers.state(model.name, self._clock.now()) is BreakerState.OPEN:
            return False
        wait_s = self._wait_s(model, Lane.STANDARD)
        return wait_s is None or wait_s <= self._deadline_s

    def _wait_s(self, model: ModelRecord, lane: Lane) -> float | None:
        load = self._loads.get(model.name)
        return None if load is None else load.wait_s(lane)

    def _changed(self) -> ModeChanged:
        return ModeChanged(
            instance=self._instance,
            mode=self._modes.mode,
            why=self._modes.why,
            changed_at=self._clock.now(),
        )

    async def _tell(self) -> None:
        """Write the last change, if it was not written yet, or a write must be tried."""
        if not self._broker.is_connected:
            return
        if self._untold is None and not self._modes.wants_proof:
            return
        changed = self._untold or self._told
        started_s = self._clock.monotonic_s()
        try:
            await self._broker.publish(
                subjects.topic_event(PLATFORM, ROUTER_TOPIC, MODE_FACT),
                changed.model_dump_json().encode(),
                Envelope(
                    id=f"{changed.instance}/mode/{changed.changed_at.timestamp():.3f}",
                    source=self._source,
                    type=ModeChanged.TYPE,
                    time=changed.changed_at,
                ),
            )
        except TransientError as error:
            self._modes.wrote(None)
            log().warning("mode.untold", mode=changed.mode.value, code=error.code)
            return
        self._modes.wrote(self._clock.monotonic_s() - started_s)
        self._untold = None
