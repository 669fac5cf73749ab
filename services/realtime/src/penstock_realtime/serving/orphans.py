"""Responses whose WebSocket was lost: they go on for a while, then they are cancelled.

Unless somebody follows them by then, on any instance: the session was claimed again, or another
session or request follows the response. What is unknown (the store is away, or was flushed) lets a
response run: its deadline bounds it, and cancelling what a client listens to could not be undone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, Final

from penstock_realtime import metrics
from penstock_realtime.ports import SessionState, SessionStore
from penstock_realtime.serving.lookup import Lookup
from penstock_shared.contracts.errors import PenstockError
from penstock_shared.contracts.requests import RequestEnded
from penstock_shared.runtime.telemetry import log

_COMMAND_ATTEMPTS: Final = 30
_COMMAND_AGAIN_S: Final = 1.0


class Orphans:
    """Owns the tasks that outlive a socket."""

    def __init__(self, lookup: Lookup, store: SessionStore, grace_s: float) -> None:
        self._lookup = lookup
        self._store = store
        self._grace_s = grace_s
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` to its end, or to `stop`."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Forget them: what runs, runs on, or is another instance's to cancel."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def after_grace(self, state: SessionState, wait_s: float) -> None:
        """Wait; then cancel what still runs in a session without a socket, and settle it.

        What others follow has another grace, and another, until they have gone as well.
        """
        running = state.cancellable
        try:
            while running:
                await asyncio.sleep(wait_s)
                now = await self._store.read(state.tenant, state.session_id)
                if now is None or now.term != state.term:
                    break
                followed = [id_ for id_ in running if await self._is_followed(state, id_)]
                await self.cancel(state.tenant, [id_ for id_ in running if id_ not in followed])
                running = [id_ for id_ in followed if not await self._ended(state.tenant, id_)]
                wait_s = self._grace_s
            await self._store.settle(state)
        except PenstockError as error:
            metrics.ORPHANS.labels("unknown").inc(len(running))
            log().warning("orphans.left_running", session_id=state.session_id, code=error.code)

    async def cancel(self, tenant: str, request_ids: Iterable[str]) -> None:
        """Cancel those that have not ended; while the broker is away, again and again."""
        await asyncio.gather(*(self._cancel(tenant, request_id) for request_id in request_ids))

    async def _is_followed(self, state: SessionState, request_id: str) -> bool:
        followers = await self._store.followers(state.tenant, request_id)
        return bool(followers - {state.holder})

    async def _ended(self, tenant: str, request_id: str) -> bool:
        # What is unknown may be on its way through a router: the command waits for it.
        fact = await self._lookup.sources.facts.last_fact(tenant, request_id)
        return isinstance(fact, RequestEnded)

    async def _cancel(self, tenant: str, request_id: str) -> None:
        for _ in range(_COMMAND_ATTEMPTS):
            try:
                if not await self._ended(tenant, request_id):
                    await self._lookup.commands.cancel(tenant, request_id)
                    metrics.ORPHANS.labels("cancelled").inc()
            except PenstockError as error:
                log().warning("orphan.not_cancelled", request_id=request_id, code=error.code)
                await asyncio.sleep(_COMMAND_AGAIN_S)
            else:
                return
