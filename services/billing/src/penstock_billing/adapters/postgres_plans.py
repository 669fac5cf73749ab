"""Plans and subscriptions in PostgreSQL."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from datetime import date, datetime
from typing import Any, Final

from penstock_billing.adapters.postgres_accounts import account_transaction
from penstock_billing.domain.plans import month_start
from penstock_billing.ports.accounts import AccountTransaction
from penstock_billing.ports.plans import PlanTransaction
from penstock_shared.contracts.errors import NotFoundError
from penstock_shared.contracts.plans import PlanVersion, Subscription, TenantPrices
from penstock_shared.runtime.postgres import Postgres, translated

_LOCK: Final = "select pg_advisory_xact_lock(hashtextextended('penstock.plan.' || $1, 0))"
_VERSION: Final = """
select plan, version, terms, published_at from billing.plan_versions
where plan = $1 and ($2::integer is null or version = $2) order by version desc limit 1"""
_LAST_VERSIONS: Final = """
select distinct on (plan) plan, version, terms, published_at
from billing.plan_versions order by plan, version desc"""
_ADD_VERSION: Final = """
insert into billing.plan_versions (plan, version, terms, published_at) values ($1, $2, $3, $4)"""
_SUBSCRIPTIONS: Final = """
select tenant, from_day, plan, version, terms from billing.subscriptions
where $1::text is null or tenant = $1 order by tenant, from_day"""
_PUT_SUBSCRIPTION: Final = """
insert into billing.subscriptions (tenant, from_day, plan, version, terms, assigned_at)
values ($1, $2, $3, $4, $5, $6)
on conflict (tenant, from_day) do update
set plan = excluded.plan, version = excluded.version, terms = excluded.terms,
    assigned_at = excluded.assigned_at"""
_CLOSED_MONTH: Final = """
select max(period) from billing.periods where tenant = $1 and period >= $2"""
_PUT_PRICES: Final = """
insert into billing.tenant_prices (tenant, record) values ($1, $2)
on conflict (tenant) do update set record = excluded.record"""
_PRICES: Final = "select tenant, record from billing.tenant_prices"


async def read_timeline(connection: Any, tenant: str | None) -> list[Subscription]:
    """Subscriptions as the transaction on `connection` sees them: one tenant's, or everybody's."""
    return [_subscription(row) for row in await connection.fetch(_SUBSCRIPTIONS, tenant)]


class PostgresPlans:
    """A `PlanStore`, and `PriceRecords`."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[PlanTransaction]:
        """Commits at the end, or changes nothing."""
        with translated():
            async with self._postgres.acquire() as connection, connection.transaction():
                yield _Transaction(connection)

    async def plans(self) -> list[PlanVersion]:
        """The last version of each."""
        return [_version(row) for row in await self._postgres.fetch(_LAST_VERSIONS)]

    async def plan(self, plan: str, version: int | None) -> PlanVersion:
        """That version, or the last."""
        return _found(await self._postgres.fetch(_VERSION, plan, version), plan, version)

    async def subscriptions(self, tenant: str | None) -> list[Subscription]:
        """One tenant's, or everybody's, by tenant and day."""
        return [_subscription(row) for row in await self._postgres.fetch(_SUBSCRIPTIONS, tenant)]

    async def prices(self) -> dict[str, str]:
        """The records by tenant."""
        return {row["tenant"]: row["record"] for row in await self._postgres.fetch(_PRICES)}


class _Transaction:
    """A `PlanTransaction` on one connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @property
    def accounts(self) -> AccountTransaction:
        return account_transaction(self._connection)

    async def last_version(self, plan: str) -> PlanVersion | None:
        await self._connection.execute(_LOCK, plan)
        rows = await self._connection.fetch(_VERSION, plan, None)
        return _version(rows[0]) if rows else None

    async def add_version(self, version: PlanVersion) -> None:
        await self._connection.execute(
            _ADD_VERSION,
            version.plan,
            version.version,
            version.terms.model_dump_json(),
            version.published_at,
        )

    async def version(self, plan: str, version: int | None) -> PlanVersion:
        return _found(await self._connection.fetch(_VERSION, plan, version), plan, version)

    async def closed_month(self, tenant: str, since: date) -> date | None:
        month: date | None = await self._connection.fetchval(
            _CLOSED_MONTH, tenant, month_start(since)
        )
        return month

    async def timeline(self, tenant: str) -> list[Subscription]:
        return await read_timeline(self._connection, tenant)

    async def put_subscription(self, subscription: Subscription, at: datetime) -> None:
        await self._connection.execute(
            _PUT_SUBSCRIPTION,
            subscription.tenant,
            subscription.from_day,
            subscription.plan,
            subscription.version,
            subscription.terms.model_dump_json(),
            at,
        )

    async def put_prices(self, prices: TenantPrices) -> None:
        await self._connection.execute(_PUT_PRICES, prices.tenant, prices.model_dump_json())


def _found(rows: list[Any], plan: str, version: int | None) -> PlanVersion:
    if rows:
        return _version(rows[0])
    named = f"version {version} of the plan" if version else "plan"
    msg = f"There is no {named} '{plan}': 'penstock plans list' shows what there is."
    raise NotFoundError(msg, code="plan_not_found", param="version" if version else "plan")


def _version(row: Any) -> PlanVersion:
    return PlanVersion(**dict(row) | {"terms": json.loads(row["terms"])})


def _subscription(row: Any) -> Subscription:
    return Subscription(**dict(row) | {"terms": json.loads(row["terms"])})
