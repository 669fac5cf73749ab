"""Accounts in PostgreSQL."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, Final

import asyncpg

from penstock_billing.ports import AccountTransaction, OutboxEntry, StoredKey
from penstock_shared.contracts.accounts import KeyRecord, TenantRecord, TenantStatus
from penstock_shared.contracts.errors import ConflictError, NotFoundError
from penstock_shared.runtime.postgres import Postgres, translated

_KEY_COLUMNS: Final = "sha256, key_id, tenant, name, hint, created_at, revoked_at"
_TENANTS: Final = """
select tenant, name, status, requests_per_minute, weight, created_at
from billing.tenants where $1::text is null or tenant = $1 order by tenant"""
_ADD_TENANT: Final = """
insert into billing.tenants (tenant, name, status, requests_per_minute, weight, created_at)
values ($1, $2, $3, $4, $5, $6)"""
_KEYS: Final = f"""
select {_KEY_COLUMNS} from billing.api_keys
where $1::text is null or tenant = $1 order by created_at, key_id"""  # noqa: S608  constants
_LOCK_KEY: Final = f"select {_KEY_COLUMNS} from billing.api_keys where key_id = $1 for update"  # noqa: S608
_ENQUEUE: Final = """
insert into billing.outbox (event_id, kind, key, event_type, payload, traceparent, created_at)
values ($1, $2, $3, $4, $5, $6, $7)"""


class PostgresAccounts:
    """An `AccountStore`."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[AccountTransaction]:
        """Commits at the end, or changes nothing."""
        with translated():
            async with self._postgres.acquire() as connection, connection.transaction():
                yield _Transaction(connection)

    async def tenants(self, tenant: str | None = None) -> list[TenantRecord]:
        """One tenant, or all."""
        return [
            TenantRecord(
                tenant=row["tenant"],
                name=row["name"],
                status=TenantStatus(row["status"]),
                requests_per_minute=row["requests_per_minute"],
                weight=row["weight"],
                created_at=row["created_at"],
            )
            for row in await self._postgres.fetch(_TENANTS, tenant)
        ]

    async def keys(self, tenant: str | None = None) -> list[StoredKey]:
        """The keys of one tenant, or all, in the order of their making."""
        return [_stored_key(row) for row in await self._postgres.fetch(_KEYS, tenant)]


class _Transaction:
    """An `AccountTransaction` on one connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def add_tenant(self, record: TenantRecord) -> None:
        try:
            await self._connection.execute(
                _ADD_TENANT,
                record.tenant,
                record.name,
                record.status.value,
                record.requests_per_minute,
                record.weight,
                record.created_at,
            )
        except asyncpg.UniqueViolationError as error:
            msg = f"The tenant '{record.tenant}' exists already."
            raise ConflictError(msg, code="already_exists", param="tenant") from error

    async def add_key(self, key: StoredKey) -> None:
        record = key.record
        try:
            await self._connection.execute(
                f"insert into billing.api_keys ({_KEY_COLUMNS})"  # noqa: S608  constants
                " values ($1, $2, $3, $4, $5, $6, null)",
                key.sha256,
                record.key_id,
                record.tenant,
                record.name,
                record.hint,
                record.created_at,
            )
        except asyncpg.ForeignKeyViolationError as error:
            msg = f"There is no tenant '{record.tenant}': create it first."
            raise NotFoundError(msg, code="tenant_not_found", param="tenant") from error

    async def lock_key(self, key_id: str) -> StoredKey | None:
        row = await self._connection.fetchrow(_LOCK_KEY, key_id)
        return None if row is None else _stored_key(row)

    async def mark_revoked(self, key_id: str, revoked_at: datetime) -> None:
        await self._connection.execute(
            "update billing.api_keys set revoked_at = $2 where key_id = $1", key_id, revoked_at
        )

    async def enqueue(self, entries: Sequence[OutboxEntry]) -> None:
        for entry in entries:
            await self._connection.execute(
                _ENQUEUE,
                entry.event_id,
                entry.kind.value,
                entry.key,
                entry.event_type,
                entry.payload,
                entry.traceparent,
                entry.created_at,
            )


def _stored_key(row: Any) -> StoredKey:
    fields = dict(row)
    return StoredKey(sha256=fields.pop("sha256"), record=KeyRecord(**fields))
