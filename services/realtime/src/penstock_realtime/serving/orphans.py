"""Responses whose WebSocket was lost: they go on for a while, then they are cancelled.

Kept in memory: if this instance dies too, they end by themselves, by their deadline at the latest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

from penstock_realtime.serving.lookup import Lookup
from penstock_shared.contracts.errors import PenstockError
from penstock_shared.contracts.requests import RequestEnded
from penstock_shared.runtime.telemetry import log


class Orphans:
    """Owns the tasks that outlive a socket."""

    def __init__(self, lookup: Lookup, grace_s: float) -> None:
        self._lookup = lookup
        self._grace_s = grace_s
        self._tasks: set[asyncio.Task[None]] = set()

    def adopt(self, tenant: str, request_ids: Iterable[str]) -> None:
        """Cancel these after the grace, unless they have ended."""
        for request_id in request_ids:
            self.spawn(self._cancel_later(tenant, request_id))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` to its end, or to `stop`."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Forget them: what runs, runs on."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _cancel_later(self, tenant: str, request_id: str) -> None:
        await asyncio.sleep(self._grace_s)
        try:
            fact = await self._lookup.sources.facts.last_fact(tenant, request_id)
            if fact is not None and not isinstance(fact, RequestEnded):
                await self._lookup.commands.cancel(tenant, request_id)
        except PenstockError as error:
            log().warning("orphan.not_cancelled", request_id=request_id, code=error.code)
