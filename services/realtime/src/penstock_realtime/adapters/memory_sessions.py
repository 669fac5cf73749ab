"""Sessions of an instance without Redis: they live and die with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, Generic, TypeVar

from penstock_realtime.ports import SessionState

V = TypeVar("V")
Key = tuple[str, str]
_SWEPT_PER_PUT: Final = 2


class _Expiring(Generic[V]):
    """A dictionary whose entries end, each in its own time; it holds at most a few that have."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._monotonic_s = monotonic_s
        self._entries: dict[Key, tuple[V, float]] = {}

    def put(self, key: Key, value: V, ttl_s: float) -> None:
        now_s = self._monotonic_s()
        self._entries.pop(key, None)
        self._entries[key] = (value, now_s + ttl_s)
        for oldest in list(self._entries)[:_SWEPT_PER_PUT]:
            if self._entries[oldest][1] <= now_s:
                del self._entries[oldest]

    def get(self, key: Key) -> V | None:
        entry = self._entries.get(key)
        return entry[0] if entry is not None and entry[1] > self._monotonic_s() else None

    def drop(self, key: Key) -> None:
        self._entries.pop(key, None)


class MemorySessions:
    """`SessionStore` for one instance."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._sessions: _Expiring[SessionState] = _Expiring(monotonic_s)
        self._followers: _Expiring[dict[str, float]] = _Expiring(monotonic_s)
        """Until when each of them follows."""
        self._monotonic_s = monotonic_s

    async def put(self, states: Sequence[tuple[SessionState, float]]) -> Sequence[SessionState]:
        """Write sessions; returns those that were refused."""
        refused = []
        for state, ttl_s in states:
            key = (state.tenant, state.session_id)
            known = self._sessions.get(key)
            if known is not None and known.term > state.term:
                refused.append(state)
            else:
                self._sessions.put(key, state, ttl_s)
        return refused

    async def claim(
        self, tenant: str, session_id: str, holder: str, ttl_s: float
    ) -> tuple[SessionState, str] | None:
        """Take a session over, in a new term."""
        before = self._sessions.get((tenant, session_id))
        if before is None:
            return None
        state = replace(before, holder=holder, term=before.term + 1)
        self._sessions.put((tenant, session_id), state, ttl_s)
        return state, before.holder

    async def read(self, tenant: str, session_id: str) -> SessionState | None:
        """A session as it was last written."""
        return self._sessions.get((tenant, session_id))

    async def forget(self, state: SessionState) -> None:
        """Delete a session, unless somebody has claimed it since."""
        known = self._sessions.get((state.tenant, state.session_id))
        if known is not None and known.term <= state.term:
            self._sessions.drop((state.tenant, state.session_id))

    async def settle(self, state: SessionState) -> None:
        """Nobody else would deal with it anyway."""

    async def follow(self, tenant: str, request_id: str, follower: str, ttl_s: float) -> None:
        """Note who delivers a response."""
        now_s = self._monotonic_s()
        ends = {**(self._followers.get((tenant, request_id)) or {}), follower: now_s + ttl_s}
        self._followers.put((tenant, request_id), ends, max(ends.values()) - now_s)

    async def unfollow(self, tenant: str, request_id: str, follower: str, within_s: float) -> None:
        """Undo `follow` after so many seconds."""
        if follower in await self.followers(tenant, request_id):
            await self.follow(tenant, request_id, follower, within_s)

    async def followers(self, tenant: str, request_id: str) -> frozenset[str]:
        """Who follows a response."""
        ends, now_s = self._followers.get((tenant, request_id)) or {}, self._monotonic_s()
        return frozenset(follower for follower, end_s in ends.items() if end_s > now_s)
