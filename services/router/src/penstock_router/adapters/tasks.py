"""Tasks that live as long as the service, and are missed when they do not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine

from penstock_shared.runtime.telemetry import log


class Tasks:
    """A few named tasks; `/readyz` tells which of them is gone."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def spawn(self, name: str, work: Coroutine[None, None, None]) -> None:
        """Run `work`, which is not meant to end."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(_tell)
        self._tasks.append(task)

    def gone(self) -> list[str]:
        """What to say of those that have ended."""
        return [f"the task {task.get_name()} has ended" for task in self._tasks if task.done()]

    async def stop(self) -> None:
        """End them all; what they died of was said when they did."""
        for task in self._tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()


def _tell(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        error = task.exception()
        log().error("task.ended", task=task.get_name(), kind=type(error).__name__, exc_info=error)
