"""One running batch: where the engine's thread hands over to the event loop.

The engine's thread only appends to lists and reads a clock; it wakes the loop once per step, or,
when steps are faster than the interval, once per interval. A loop that lags is not woken again
until it has looked, so deltas grow instead of queues.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from penstock_worker.domain.generation import Generation


class Flight:
    """The `BatchObserver` of one batch."""

    def __init__(
        self,
        batch: Sequence[Generation],
        now_s: Callable[[], float],
        interval_s: float,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._batch = batch
        self._now_s = now_s
        self._interval_s = interval_s
        self._loop = loop
        self._step_s = now_s()
        self._next_wake_s = 0.0  # the first token never waits
        self._somebody_ended = False
        self._woken = False
        self._wake = asyncio.Event()

    def on_token(self, index: int, token: int, log_prob: float) -> bool:
        """Engine's thread."""
        if self._batch[index].accept(token, log_prob, self._step_s):
            self._somebody_ended = True
            return True
        return False

    def on_end(self, index: int) -> None:
        """Engine's thread."""
        self._batch[index].ended = True
        self._somebody_ended = True

    def on_step(self) -> None:
        """Engine's thread."""
        now_s = self._step_s = self._now_s()
        if now_s >= self._next_wake_s or self._somebody_ended:
            self._next_wake_s = now_s + self._interval_s
            self._somebody_ended = False
            if not self._woken:
                self._woken = True
                self._loop.call_soon_threadsafe(self._wake.set)

    def landed(self, _: object = None) -> None:
        """Loop's thread: the engine has returned."""
        self._wake.set()

    async def progress(self) -> None:
        """Loop's thread: wait until there is something to take."""
        await self._wake.wait()
        self._wake.clear()
        self._woken = False
