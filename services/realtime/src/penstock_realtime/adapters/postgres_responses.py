"""Kept responses in PostgreSQL, schema `realtime`.

Every statement names a tenant by `set_config`, for its transaction only: row-level security shows
it that tenant's rows, also where a condition was forgotten (I8).
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, Final

import asyncpg
from pydantic import ValidationError

from penstock_realtime.ports import ArchivedResponse, ResponseFacts
from penstock_shared.contracts.errors import PermanentError, UnavailableError
from penstock_shared.contracts.requests import RequestEnded, RequestRouted
from penstock_shared.runtime.migrations import migrate
from penstock_shared.runtime.postgres import Postgres, translated

_EVERY_TENANT: Final = "*"
_NAME_TENANT: Final = "select set_config('realtime.tenant', $1, true)"
_KEEP: Final = """
insert into realtime.responses as kept (tenant, request_id, expires_at, routed, ended, deleted)
select * from unnest(
    $1::text[], $2::uuid[], $3::timestamptz[], $4::bytea[], $5::bytea[], $6::boolean[])
on conflict (tenant, request_id) do update set
    routed = case when not (kept.deleted or excluded.deleted)
        then coalesce(kept.routed, excluded.routed) end,
    ended = case when not (kept.deleted or excluded.deleted)
        then coalesce(kept.ended, excluded.ended) end,
    deleted = kept.deleted or excluded.deleted,
    -- As `merged` has it. Mostly unchanged: an update that touches no index is a cheap one.
    expires_at = case
        when kept.deleted and excluded.deleted then greatest(kept.expires_at, excluded.expires_at)
        when excluded.deleted then excluded.expires_at
        when kept.deleted then kept.expires_at
        else least(kept.expires_at, excluded.expires_at) end"""
_GET: Final = """
select routed, ended from realtime.responses
where tenant = $1 and request_id = $2 and routed is not null"""
_PRUNE: Final = """
delete from realtime.responses where (tenant, request_id) in (
    select tenant, request_id from realtime.responses where expires_at <= $1
    order by expires_at limit $2 for update skip locked)"""


class PostgresResponses:
    """`StoredResponses`, and the `Archive` that fills them."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def prepare(self) -> bool:
        """Bring the schema up to date; whether EVENTS is to be read from its beginning (I9)."""
        await migrate(self._postgres, "realtime", "penstock_realtime.adapters")
        return bool(await self._postgres.fetchval("select exists (select from realtime.rebuild)"))

    async def rebuild_begun(self) -> None:
        """The consumer stands at the beginning: the request for it is fulfilled."""
        await self._postgres.fetch("delete from realtime.rebuild")

    async def keep(self, responses: Sequence[ArchivedResponse]) -> None:
        """Add what is not there yet, all or nothing; after this returns it is committed."""
        columns = (
            [response.tenant for response in responses],
            [response.request_id for response in responses],
            [response.expires_at for response in responses],
            [response.routed for response in responses],
            [response.ended for response in responses],
            [response.deleted for response in responses],
        )
        async with self._rows_of(_EVERY_TENANT) as connection:
            await connection.execute(_KEEP, *columns)

    async def prune(self, now: datetime, limit: int) -> int:
        """Remove at most `limit` that have expired, tombstones among them; how many it were."""
        async with self._rows_of(_EVERY_TENANT) as connection:
            done: str = await connection.execute(_PRUNE, now, limit)
        return int(done.rpartition(" ")[2])

    async def get(self, tenant: str, request_id: str) -> ResponseFacts | None:
        """One that is kept and not deleted."""
        async with self._rows_of(tenant) as connection:
            row = await connection.fetchrow(_GET, tenant, request_id)
        if row is None:
            return None
        ended = row["ended"]
        try:
            return ResponseFacts(
                routed=RequestRouted.model_validate_json(row["routed"]),
                ended=None if ended is None else RequestEnded.model_validate_json(ended),
            )
        except ValidationError as error:
            msg = "This response was kept by a newer release: update this instance."
            raise UnavailableError(msg, code="fact_unreadable") from error

    @contextlib.asynccontextmanager
    async def _rows_of(self, tenant: str) -> AsyncIterator[Any]:
        """A transaction in which only this tenant's rows exist."""
        try:
            with translated():
                async with self._postgres.acquire() as connection, connection.transaction():
                    await connection.execute(_NAME_TENANT, tenant)
                    yield connection
        except asyncpg.UndefinedTableError as error:
            msg = "The store of responses is being set up: try again."
            raise UnavailableError(msg, code="postgres_unavailable") from error
        except PermanentError as error:  # an operator's matter: to a client it is away
            msg = "The store of responses is not available: try again later."
            raise UnavailableError(msg, code="postgres_unavailable") from error
