"""A look into realtime's schema in PostgreSQL, past the service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg

from penstock_shared.contracts import subjects
from penstock_shared.contracts.ids import parse_request_id
from penstock_shared.contracts.streams import EVENTS
from penstock_shared.runtime.broker import Broker


class ResponseStore:
    """Rows as the service's own role sees them."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    async def rows(self, tenant: str | None = "*") -> list[Any]:
        """What a transaction sees that names `tenant`; None names none."""
        connection = await asyncpg.connect(self._dsn)
        try:
            async with connection.transaction():
                if tenant is not None:
                    await connection.execute(
                        "select set_config('realtime.tenant', $1, true)", tenant
                    )
                rows = await connection.fetch(
                    "select * from realtime.responses order by tenant, request_id"
                )
                return list(rows)
        finally:
            await connection.close()

    async def execute(self, statement: str) -> str:
        """Anything else."""
        connection = await asyncpg.connect(self._dsn)
        try:
            return str(await connection.execute(statement))
        finally:
            await connection.close()

    async def until(self, check: Callable[[list[Any]], bool], within_s: float = 20) -> list[Any]:
        """The rows once `check` holds of them."""
        async with asyncio.timeout(within_s):
            while True:
                try:
                    rows = await self.rows()
                except (asyncpg.PostgresError, OSError):  # not migrated yet, or restarting
                    rows = []
                if check(rows):
                    return rows
                await asyncio.sleep(0.05)

    async def whole(self, count: int, within_s: float = 20) -> list[Any]:
        """The rows once so many are there, each with both facts."""
        return await self.until(
            lambda rows: len(rows) == count and all(row["routed"] and row["ended"] for row in rows),
            within_s,
        )


async def purge_events(broker: Broker, tenant: str, response_id: str) -> None:
    """What audit will do one day: EVENTS has this response no more, nor its deletion."""
    request_id = parse_request_id(response_id)
    for subject in (
        subjects.request_event(tenant, request_id),
        subjects.response_event(tenant, request_id),
    ):
        await broker.jetstream.purge_stream(EVENTS, subject=subject)
