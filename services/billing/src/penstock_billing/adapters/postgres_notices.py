"""Providers' notices in PostgreSQL."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from penstock_billing.ports.notices import Arrival, NoticeTurn, Waiting
from penstock_billing.ports.payments import Notice, Provider
from penstock_shared.runtime.postgres import Postgres

_STORE: Final = """
insert into billing.notices as n
    (provider, notice_id, kind, reference, at, received_at, signatures, due_at)
values ($1, $2, $3, $4, $5, $6, array_remove(array[$7::text], null), $6)
on conflict (provider, notice_id) do update
    set signatures = (excluded.signatures || n.signatures)[:64]
    where not n.signatures && excluded.signatures
returning xmax = 0 as added"""
# Whose turn it is is settled by moving it forward: no connection waits for a provider.
_DUE: Final = """
update billing.notices set due_at = $2 where (provider, notice_id) = (
    select provider, notice_id from billing.notices
    where done_at is null and due_at <= $1 order by due_at limit 1 for update skip locked)
returning provider, notice_id, kind, reference, at, attempts"""
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

    async def due(self, at: datetime, until: datetime) -> NoticeTurn | None:
        """The first that is due; nobody else gets it before `until`."""
        rows = await self._postgres.fetch(_DUE, at, until)
        return _Turn(self._postgres, rows[0]) if rows else None

    async def prune(self, before: datetime) -> int:
        """Forget what was done before then; how many."""
        return len(await self._postgres.fetch(_PRUNE, before))


class _Turn:
    """A `NoticeTurn`."""

    def __init__(self, postgres: Postgres, row: Any) -> None:
        self._postgres = postgres
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
        await self._postgres.fetch(statement, notice.provider.value, notice.notice_id, *values)
