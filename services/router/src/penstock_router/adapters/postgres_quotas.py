"""Reservations in PostgreSQL, of everything that waits at that moment in one statement."""

from __future__ import annotations

from penstock_shared.contracts.accounts import TenantRecord
from penstock_shared.contracts.requests import RequestRouted
from penstock_shared.runtime.clock import Clock
from penstock_shared.runtime.postgres import Postgres


class PostgresQuotas:
    """A `QuotaGate`."""

    def __init__(self, postgres: Postgres | None, clock: Clock) -> None:
        """Without a database nobody who has a quota is let in."""
        self._postgres = postgres
        self._clock = clock

    async def reserve(self, tenant: TenantRecord, routed: RequestRouted) -> None:
        """Reserve what `routed.reserves` says of every quota of the tenant, or of none."""
        raise NotImplementedError
