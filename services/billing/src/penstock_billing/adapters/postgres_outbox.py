"""The outbox in PostgreSQL."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from penstock_billing.ports.outbox import OutboxEntry, OutboxKind
from penstock_shared.runtime.postgres import Postgres, translated

_LOCK: Final = 0x70656E73_00000002
_FIRST: Final = """
select id, event_id, kind, key, event_type, payload, traceparent, created_at
from billing.outbox order by id limit 1"""
_LAST_NUMBER: Final = "select last_value from billing.outbox_id_seq"
_ENQUEUE: Final = """
insert into billing.outbox (event_id, kind, key, event_type, payload, traceparent, created_at)
values ($1, $2, $3, $4, $5, $6, $7)"""


async def enqueue(connection: Any, entries: Sequence[OutboxEntry]) -> None:
    """Publish these, in this order, once the transaction on `connection` is committed."""
    for entry in entries:
        await connection.execute(
            _ENQUEUE,
            entry.event_id,
            entry.kind.value,
            entry.key,
            entry.event_type,
            entry.payload,
            entry.traceparent,
            entry.created_at,
        )


class PostgresOutbox:
    """An `Outbox`.

    One relay works at a time, over all replicas: the advisory lock ends with the transaction, or
    with the process that held it. `for update skip locked` would let two relays publish a key's
    creation and its revocation in the wrong order, and a revoked key would work again.
    """

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    @contextlib.asynccontextmanager
    async def first(self) -> AsyncIterator[OutboxEntry | None]:
        """The oldest entry; deleted when the block ends without an error."""
        with translated():
            async with self._postgres.acquire() as connection, connection.transaction():
                await connection.execute("select pg_advisory_xact_lock($1)", _LOCK)
                row = await connection.fetchrow(_FIRST)
                if row is None:
                    yield None
                    return
                yield OutboxEntry(
                    event_id=str(row["event_id"]),
                    kind=OutboxKind(row["kind"]),
                    key=row["key"],
                    event_type=row["event_type"],
                    payload=row["payload"],
                    created_at=row["created_at"],
                    traceparent=row["traceparent"],
                )
                await connection.execute("delete from billing.outbox where id = $1", row["id"])

    async def backlog(self) -> int:
        """How many entries wait."""
        return int(await self._postgres.fetchval("select count(*) from billing.outbox"))

    async def last_number(self) -> int:
        """Grows with every change to any account: the sequence that numbers the entries."""
        return int(await self._postgres.fetchval(_LAST_NUMBER))
