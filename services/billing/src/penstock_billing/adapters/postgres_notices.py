"""Providers' notices in PostgreSQL."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Final

from penstock_billing.ports.notices import Arrival, NoticeTurn, Waiting
from penstock_billing.ports.payments import Notice, Provider
from penstock_shared.runtime.postgres import Postgres, translated

_STORE: Final = """
insert into billing.notices as n
    (provider, notice_id, kind, reference, at, received_at, signatures, due_at)
values ($1, $2, $3, $4, $5, $6, array_remove(array[$7::text], null), $6)
on conflict (provider, notice_id) do update
    set signatures = n.signatures || excluded.signatures
    where not n.signatures && excluded.signatures
returning xmax = 0 as added"""
# Others' turns are passed over; a turn that dies with its process is nobody's at once.
_DUE: Final = """
select provider, notice_id, kind, reference, at, attempts from billing.notices
where done_at is null and due_at <= $1 order by due_at limit 1 for update skip locked"""
_DONE: Final = """
update billing.notices set done_at = $3, outcome = $4 where provider = $1 and notice_id = $2"""
_AGAIN: Final = """
update billing.notices set attempts = attempts + 1, due_at = $3
where provider = $1 and notice_id = $2"""
_PRUNE: Final = "delete from billing.notices where done_at < $1 and outcome = 'done' returning 1"


class PostgresNotices:
    """A `NoticeInbox`."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def store(self, notice: Notice, signature: str | None, at: datetime) -> Arrival:
        """After this returns it is committed, and its sender may be told so."""
        rows = await self._postgres.fetch(
            _STORE,
            notice.provider.value,
            notice.notice_id,
            notice.kind,
            notice.reference,
            notice.at,
            at,
            signature,
        )
        if not rows:
            return Arrival.REPLAYED
        return Arrival.NEW if rows[0]["added"] else Arrival.DUPLICATE

    @contextlib.asynccontextmanager
    async def due(self, at: datetime) -> AsyncIterator[NoticeTurn | None]:
        """The first that is due, held against other replicas until the block ends."""
        with translated():
            async with self._postgres.acquire() as connection, connection.transaction():
                row = await connection.fetchrow(_DUE, at)
                yield None if row is None else _Turn(connection, row)

    async def prune(self, before: datetime) -> int:
        """Forget what was done before then; how many."""
        return len(await self._postgres.fetch(_PRUNE, before))


class _Turn:
    """A `NoticeTurn` on one connection, whose transaction holds the row."""

    def __init__(self, connection: Any, row: Any) -> None:
        self._connection = connection
        notice = Notice(
            provider=Provider(row["provider"]),
            notice_id=row["notice_id"],
            kind=row["kind"],
            reference=row["reference"],
            at=row["at"],
        )
        self.waiting = Waiting(notice, row["attempts"])

    async def done(self, at: datetime) -> None:
        """Its effect is committed."""
        await self._write(_DONE, at, "done")

    async def again(self, due_at: datetime) -> None:
        """It failed; it comes again then."""
        await self._write(_AGAIN, due_at)

    async def park(self, at: datetime) -> None:
        """It failed too often: a person has to look."""
        await self._write(_DONE, at, "parked")

    async def _write(self, statement: str, *values: object) -> None:
        notice = self.waiting.notice
        await self._connection.execute(statement, notice.provider.value, notice.notice_id, *values)
