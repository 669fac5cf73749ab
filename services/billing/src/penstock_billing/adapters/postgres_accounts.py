"""Accounts in PostgreSQL."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg

from penstock_billing.adapters.postgres_outbox import enqueue
from penstock_billing.ports.accounts import AccountTransaction, StoredKey
from penstock_billing.ports.outbox import OutboxEntry
from penstock_shared.contracts.account_commands import KeyUse, ListedKey, ListKeys
from penstock_shared.contracts.accounts import KeyRecord, TenantRecord
from penstock_shared.contracts.errors import ConflictError, NotFoundError
from penstock_shared.contracts.quotas import QuotaPeriod, QuotaState, period_end, period_start
from penstock_shared.runtime.postgres import Postgres, translated

_TENANT_COLUMNS: Final = (
    "tenant, name, status, suspended_reason, requests_per_minute, tokens_per_minute, "
    "user_requests_per_minute, user_tokens_per_minute, max_connections, weight, "
    "identity_providers, quotas, limited_from, created_at"
)
_TENANT_VALUES: Final = ", ".join(f"${n + 1}" for n in range(len(_TENANT_COLUMNS.split(", "))))
_AS_JSON: Final = {"identity_providers", "quotas"}
_KEY_COLUMNS: Final = (
    "sha256, key_id, tenant, name, hint, role, created_at, lifetime_s, expires_at, revoked_at"
)
# ruff: noqa: S608  nothing but constants is put together
_TENANTS: Final = f"""
select {_TENANT_COLUMNS} from billing.tenants
where $1::text is null or tenant = $1 order by tenant"""
_LOCK_TENANT: Final = f"select {_TENANT_COLUMNS} from billing.tenants where tenant = $1 for update"
_ADD_TENANT: Final = f"""
insert into billing.tenants ({_TENANT_COLUMNS}) values ({_TENANT_VALUES})"""
_CHANGE_TENANT: Final = f"""
update billing.tenants set ({_TENANT_COLUMNS}) = ({_TENANT_VALUES}) where tenant = $1"""
_FORGET_AUDIENCES: Final = "delete from billing.token_audiences where tenant = $1"
_ADD_AUDIENCE: Final = """
insert into billing.token_audiences (issuer, audience, tenant) values ($1, $2, $3)"""
_RECOUNT: Final = "select billing.recount($1, $2)"
_QUOTAS: Final = """
select t.tenant, q.* from billing.tenants t cross join lateral billing.quota_state(t.tenant, $2) q
where $1::text is null or t.tenant = $1 order by t.tenant, q.unit, q.period, q.soft, q.most"""
_KEYS: Final = f"select {_KEY_COLUMNS} from billing.api_keys"
_PAGE: Final = f"""
select {_KEY_COLUMNS}, last_used_at from billing.api_keys
where ($1::text is null or tenant = $1)
  and ($2::text is null or (created_at, key_id) >
      (select created_at, key_id from billing.api_keys
       where key_id = $2 and ($1::text is null or tenant = $1)))
order by created_at, key_id limit $3"""
_WORKING_KEYS: Final = """
select count(*) from billing.api_keys
where tenant = $1 and revoked_at is null and (expires_at is null or expires_at > $2)"""
_ADD_KEY: Final = f"""
insert into billing.api_keys ({_KEY_COLUMNS}) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"""
_LOCK_KEY: Final = f"select {_KEY_COLUMNS} from billing.api_keys where key_id = $1 for update"
_CHANGE_KEY: Final = """
update billing.api_keys set expires_at = $2, revoked_at = $3 where key_id = $1"""
# Locked in one order, whatever the reports say: two of them that overlap never deadlock.
_NOTE_USES: Final = """
with used as (
    select key_id, max(least(at, $3)) as at
    from unnest($1::text[], $2::timestamptz[]) as report (key_id, at) group by key_id
), held as (
    select key_id from billing.api_keys where key_id in (select key_id from used)
    order by key_id for no key update
)
update billing.api_keys k set last_used_at = used.at
from used join held using (key_id)
where k.key_id = used.key_id and (k.last_used_at is null or k.last_used_at < used.at)
returning 1"""


class PostgresAccounts:
    """An `AccountStore`, and `AccountRecords`."""

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
        return [_tenant(row) for row in await self._postgres.fetch(_TENANTS, tenant)]

    async def keys(self) -> list[StoredKey]:
        """Every key."""
        return [_stored_key(row) for row in await self._postgres.fetch(_KEYS)]

    async def quotas(self, tenant: str | None, at: datetime) -> list[QuotaState]:
        """How the quotas of one tenant, or of all, stand in the periods that hold `at`."""
        rows = await self._postgres.fetch(_QUOTAS, tenant, at.astimezone(UTC).date())
        return [_quota_state(row, at) for row in rows]

    async def page(self, query: ListKeys) -> list[ListedKey]:
        """A page of keys with their last uses: one more than asked for, where there are more."""
        rows = await self._postgres.fetch(_PAGE, query.tenant, query.after, query.limit + 1)
        return [ListedKey(**dict(row)) for row in rows]

    async def note_uses(self, uses: Sequence[KeyUse], now: datetime) -> int:
        """Keep each key's latest use, none later than now; how many keys that moved forward."""
        keys, times = [use.key_id for use in uses], [use.at for use in uses]
        return len(await self._postgres.fetch(_NOTE_USES, keys, times, now))


def account_transaction(connection: Any) -> AccountTransaction:
    """Changes to accounts within the transaction that is open on `connection`."""
    return _Transaction(connection)


class _Transaction:
    """An `AccountTransaction` on one connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def add_tenant(self, record: TenantRecord) -> None:
        try:
            await self._connection.execute(_ADD_TENANT, *_tenant_values(record))
        except asyncpg.UniqueViolationError as error:
            msg = f"The tenant '{record.tenant}' exists already."
            raise ConflictError(msg, code="already_exists", param="tenant") from error
        await self._add_audiences(record)

    async def lock_tenant(self, tenant: str) -> TenantRecord:
        row = await self._connection.fetchrow(_LOCK_TENANT, tenant)
        if row is None:
            msg = f"There is no tenant '{tenant}': create it first."
            raise NotFoundError(msg, code="tenant_not_found", param="tenant")
        return _tenant(row)

    async def change_tenant(self, record: TenantRecord) -> None:
        await self._connection.execute(_CHANGE_TENANT, *_tenant_values(record))
        await self._connection.execute(_FORGET_AUDIENCES, record.tenant)
        await self._add_audiences(record)

    async def recount_quotas(self, tenant: str, at: datetime) -> None:
        since = period_start(QuotaPeriod.MONTH, at).date()
        await self._connection.execute(_RECOUNT, tenant, since)

    async def _add_audiences(self, record: TenantRecord) -> None:
        for provider in record.identity_providers:
            for audience in provider.audiences:
                try:
                    await self._connection.execute(
                        _ADD_AUDIENCE, provider.issuer, audience, record.tenant
                    )
                except asyncpg.UniqueViolationError as error:
                    msg = (
                        f"Tokens of '{provider.issuer}' for '{audience}' are taken already:"
                        " ask the provider for an audience of this tenant's own."
                    )
                    raise ConflictError(
                        msg, code="audience_taken", param="identity_providers"
                    ) from error

    async def working_keys(self, tenant: str, at: datetime) -> int:
        return int(await self._connection.fetchval(_WORKING_KEYS, tenant, at))

    async def add_key(self, key: StoredKey) -> None:
        fields = {"sha256": key.sha256, **key.record.model_dump()}
        values = [fields[name] for name in _KEY_COLUMNS.split(", ")]
        await self._connection.execute(_ADD_KEY, *values)

    async def lock_key(self, key_id: str) -> StoredKey | None:
        row = await self._connection.fetchrow(_LOCK_KEY, key_id)
        return None if row is None else _stored_key(row)

    async def change_key(self, key: StoredKey) -> None:
        record = key.record
        await self._connection.execute(
            _CHANGE_KEY, record.key_id, record.expires_at, record.revoked_at
        )

    async def enqueue(self, entries: Sequence[OutboxEntry]) -> None:
        await enqueue(self._connection, entries)


def _tenant_values(record: TenantRecord) -> list[Any]:
    fields = record.model_dump() | {
        name: json.dumps(value)
        for name, value in record.model_dump(mode="json", include=_AS_JSON).items()
    }
    return [fields[name] for name in _TENANT_COLUMNS.split(", ")]


def _tenant(row: Any) -> TenantRecord:
    fields = dict(row)
    return TenantRecord(**fields | {name: json.loads(fields[name]) for name in _AS_JSON})


def _quota_state(row: Any, at: datetime) -> QuotaState:
    most, settled, reserved = row["most"], int(row["settled"]), int(row["reserved"])
    return QuotaState(
        tenant=row["tenant"],
        unit=row["unit"],
        period=row["period"],
        limit=most,
        soft=row["soft"],
        settled=settled,
        reserved=reserved,
        left=max(0, most - settled - reserved),
        resets_at=period_end(QuotaPeriod(row["period"]), at),
    )


def _stored_key(row: Any) -> StoredKey:
    fields = dict(row)
    return StoredKey(sha256=fields.pop("sha256"), record=KeyRecord(**fields))
