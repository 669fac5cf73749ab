"""Says that this instance lives, and looks after what instances that died have left running."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from penstock_realtime import metrics
from penstock_realtime.ports import InstanceRegistry, Peers, SessionStore
from penstock_realtime.serving.orphans import Orphans
from penstock_shared.contracts.errors import PenstockError
from penstock_shared.runtime.telemetry import log

_BEATS_PER_GRACE: Final = 10
_BEATS_MISSED: Final = 3.5
"""After how many beats without one an instance is looked after."""


class Instances:
    """This instance among the others."""

    def __init__(
        self,
        registry: InstanceRegistry,
        store: SessionStore,
        peers: Peers,
        orphans: Orphans,
        *,
        instance: str,
        grace_s: float,
        on_forgotten: Callable[[], Awaitable[None]],
    ) -> None:
        self._registry = registry
        self._store = store
        self._peers = peers
        self._orphans = orphans
        self._instance = instance
        self._grace_s = grace_s
        self._on_forgotten = on_forgotten
        """The store has lost what this instance wrote."""
        self._beat_s = grace_s / _BEATS_PER_GRACE
        self._adopting: set[str] = set()

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            try:
                await self._beat()
            except PenstockError as error:
                metrics.SESSION_STORE_FAILURES.inc()
                log().warning("instances.no_beat", code=error.code)
            await asyncio.sleep(self._beat_s)

    async def _beat(self) -> None:
        heard = await self._registry.beat(self._instance, self._beat_s * _BEATS_MISSED)
        if heard.forgotten:
            await self._on_forgotten()
        for dead, silent_s in heard.silent.items():
            if dead not in self._adopting:
                self._adopting.add(dead)
                self._orphans.spawn(self._look_after(dead, max(0.0, self._grace_s - silent_s)))

    async def _look_after(self, dead: str, grace_s: float) -> None:
        """Cancel what a dead instance's sockets were following, once the grace is over.

        If this instance dies as well, the next one to look starts again: `adopt` holds that off
        for twice the grace only.
        """
        try:
            if await self._peers.answers(dead):
                return  # it is the store that it does not reach
            if await self._registry.adopt(dead, self._instance, 2 * self._grace_s):
                await asyncio.sleep(grace_s)
                if not await self._peers.answers(dead):  # else it was only frozen
                    await self._end(dead)
        except PenstockError as error:
            log().warning("instance.not_looked_after", dead=dead, code=error.code)
        finally:
            self._adopting.discard(dead)

    async def _end(self, dead: str) -> None:
        held = await self._registry.held(dead)
        log().info("instance.dead", dead=dead, sessions=len(held))
        metrics.INSTANCES_ADOPTED.inc()
        states = [await self._store.read(tenant, session_id) for tenant, session_id in held]
        await asyncio.gather(
            *(
                self._orphans.after_grace(state, 0.0)
                for state in states
                if state is not None and state.instance == dead
            )
        )
        await self._registry.bury(dead)
