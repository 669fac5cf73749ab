"""What ends while somebody is connected: keys, tenants, providers. Their connections go, too."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from penstock_realtime.domain.token_claims import SUBJECT_PREFIX
from penstock_shared.contracts.accounts import IdentityProvider, KeyRecord, TenantRecord
from penstock_shared.runtime.clock import Clock

_LOOK_EVERY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Revoked:
    """Who may not go on, and what to tell them."""

    reason: str
    key_ids: frozenset[str] = frozenset()
    tenants: frozenset[str] = frozenset()
    """Everybody in them."""
    subjects_of: frozenset[str] = frozenset()
    """Whoever came to them with a token."""

    def covers(self, tenant: str, key_id: str) -> bool:
        """Whether this caller is among them."""
        return (
            key_id in self.key_ids
            or tenant in self.tenants
            or (tenant in self.subjects_of and key_id.startswith(SUBJECT_PREFIX))
        )


class KeyDirectory(Protocol):
    """All keys, from memory."""

    def values(self) -> Iterable[KeyRecord]:
        """Every key that was ever made."""
        ...


class TenantDirectory(Protocol):
    """All tenants, from memory."""

    def values(self) -> Iterable[TenantRecord]:
        """Every tenant."""
        ...


class Revocations:
    """Hears every change of the `keys` and `tenants` buckets, and watches the clock.

    While the buckets are first read it stays quiet; `begin` then tells of all that has ended.
    """

    def __init__(self, revoke: Callable[[Revoked], None], clock: Clock) -> None:
        self._revoke = revoke
        self._clock = clock
        self._begun = False
        self._ends: list[tuple[datetime, str]] = []
        """A heap. An expiry never moves later, so an entry that is due is right."""
        self._providers: dict[str, tuple[IdentityProvider, ...]] = {}

    def begin(self, keys: KeyDirectory, tenants: TenantDirectory) -> None:
        """The buckets are read. Revoke what has ended while nobody listened."""
        self._begun = True
        gone = frozenset(key.key_id for key in keys.values() if key.revoked_at is not None)
        suspended = frozenset(t.tenant for t in tenants.values() if t.refusal() is not None)
        if gone or suspended:
            self._revoke(Revoked("This API key was revoked.", gone, suspended))
        self.sweep()

    async def run(self) -> None:
        """Look at the clock for ever."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            self.sweep()

    def sweep(self) -> None:
        """Revoke what has expired by now."""
        now = self._clock.now()
        expired = set()
        while self._ends and self._ends[0][0] <= now:
            expired.add(heapq.heappop(self._ends)[1])
        if expired:
            self._revoke(Revoked("This API key has expired.", key_ids=frozenset(expired)))

    def on_key(self, key: KeyRecord | None) -> None:
        """A key's record has changed."""
        if key is None:
            return
        if key.revoked_at is not None:
            if self._begun:
                gone = frozenset({key.key_id})
                self._revoke(Revoked("This API key was revoked.", key_ids=gone))
        elif key.expires_at is not None:
            heapq.heappush(self._ends, (key.expires_at, key.key_id))

    def on_tenant(self, name: str, tenant: TenantRecord | None) -> None:
        """A tenant's record has changed."""
        providers = tenant.identity_providers if tenant is not None else ()
        before = self._providers.pop(name, ())
        if providers:
            self._providers[name] = providers
        if not self._begun:
            return
        this = frozenset({name})
        refusal = None if tenant is None else tenant.refusal()
        if tenant is None:
            self._revoke(Revoked("This tenant does not exist any more.", tenants=this))
        elif refusal is not None:
            self._revoke(Revoked(refusal.message, tenants=this))
        elif before and before != providers:
            reason = "The tenant's identity providers have changed: connect again."
            self._revoke(Revoked(reason, subjects_of=this))
