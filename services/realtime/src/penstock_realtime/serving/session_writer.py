"""Writes what changes in sessions, off the hot path.

The latest state of a session replaces one that waits, so a store that is away costs one entry per
session, and an answer that is shorter than the pause costs it nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple

from penstock_realtime import metrics
from penstock_realtime.ports import SessionState, SessionStore
from penstock_shared.contracts.errors import PenstockError
from penstock_shared.runtime.telemetry import log

_PAUSE_S: Final = 0.05
_BATCH: Final = 256
_RETRY_AFTER_S: Final = 1.0

Key = tuple[str, str]
"""Tenant and session id."""


class _Entry(NamedTuple):
    state: SessionState
    ttl_s: float
    last: bool


class SessionWriter:
    """Keeps the store behind by moments only."""

    def __init__(self, store: SessionStore, on_refused: Callable[[SessionState], None]) -> None:
        self._store = store
        self._on_refused = on_refused
        """Somebody has claimed this session in a later term."""
        self._waiting: dict[Key, _Entry] = {}
        self._on_the_way: dict[Key, _Entry] = {}
        self._written: dict[Key, SessionState] = {}
        self._wake = asyncio.Event()
        self._urgent = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()

    def put(
        self, state: SessionState, ttl_s: float, *, urgent: bool = False, last: bool = False
    ) -> None:
        """Write it soon, at once if `urgent`; returns at once. What is written already is not.

        After its `last` state a session is not remembered.
        """
        key = (state.tenant, state.session_id)
        if not urgent and self._written.get(key) == state:
            self._waiting.pop(key, None)
            return
        self._waiting[key] = _Entry(state, ttl_s, last)
        self._wake.set()
        if urgent:
            self._urgent.set()

    def owes(self, tenant: str, session_id: str) -> bool:
        """Whether the latest state of a session is not written yet."""
        return (tenant, session_id) in self._waiting or (tenant, session_id) in self._on_the_way

    def forget(self, tenant: str, session_id: str) -> None:
        """This instance writes it no more."""
        for states in (self._waiting, self._on_the_way, self._written):
            states.pop((tenant, session_id), None)

    async def flush(self) -> None:
        """Write what waits, now.

        Raises:
            UnavailableError: the store does not answer; what is not written still waits.
        """
        async with self._one_at_a_time:
            while self._waiting:
                await self._write_some()

    async def _write_some(self) -> None:
        for key in list(self._waiting)[:_BATCH]:
            self._on_the_way[key] = self._waiting.pop(key)
            self._written.pop(key, None)
        try:
            entries = list(self._on_the_way.values())
            refused = await self._store.put([(entry.state, entry.ttl_s) for entry in entries])
            self._written |= {
                key: entry.state for key, entry in self._on_the_way.items() if not entry.last
            }
        except BaseException:
            self._waiting = self._on_the_way | self._waiting  # unless something newer waits
            raise
        finally:
            self._on_the_way = {}
        for state in refused:
            self._on_refused(state)

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._wake.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(_PAUSE_S):
                    await self._urgent.wait()
            self._wake.clear()
            self._urgent.clear()
            try:
                await self.flush()
            except PenstockError as error:
                metrics.SESSION_STORE_FAILURES.inc()
                log().warning("sessions.not_written", code=error.code, waiting=len(self._waiting))
                self._wake.set()
                await asyncio.sleep(_RETRY_AFTER_S)
