"""What Stripe is known to have, in PostgreSQL."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Final

import asyncpg

from penstock_billing.ports.mirror import Catalogue, CustomerClaim, EmptyMonth, MirroredTenant
from penstock_shared.contracts.errors import NotFoundError
from penstock_shared.runtime.postgres import Postgres, translated

# Whoever pays through another provider is none of Stripe's.
_TENANTS: Final = """
select t.tenant, t.name, c.customer_id as customer, c.told_name, c.subscription_id as subscription
from billing.tenants t
left join billing.stripe_customers c using (tenant)
left join billing.payers p using (tenant)
where p.provider is null or p.provider = 'stripe'
order by t.tenant"""
_BEGIN: Final = """
insert into billing.stripe_customers (tenant, begun_at) values ($1, $2)
on conflict (tenant) do nothing"""
_CLAIM: Final = """
select customer_id, begun_at from billing.stripe_customers where tenant = $1 for update"""
_KEEP: Final = """
update billing.stripe_customers c set customer_id = $2, told_name = $3,
    subscription_id = case when c.customer_id = $2 then c.subscription_id end,
    subscribed_at = case when c.customer_id = $2 then c.subscribed_at end
where tenant = $1"""
_SUBSCRIBED: Final = """
update billing.stripe_customers set subscription_id = $2, subscribed_at = $3 where tenant = $1"""
_CATALOGUE: Final = "select name, stripe_id from billing.stripe_catalogue"
_KEEP_CATALOGUE: Final = """
insert into billing.stripe_catalogue (name, stripe_id) values ('meter', $1), ('price', $2)
on conflict (name) do update set stripe_id = excluded.stripe_id"""

_EMPTY_MONTHS: Final = """
select i.tenant, s.customer_id as customer, i.period, i.number
from billing.collections c
join billing.invoices i using (tenant, period)
join billing.stripe_customers s using (tenant)
where c.cents = 0 and s.subscribed_at < (c.period + interval '1 month') at time zone 'UTC'
  and not exists (select from billing.stripe_empty_months e
                  where e.tenant = c.tenant and e.period = c.period)
order by i.period, i.tenant"""
_KEEP_EMPTY: Final = """
insert into billing.stripe_empty_months (tenant, period) values ($1, $2) on conflict do nothing"""


class PostgresMirror:
    """A `MirrorBook`."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def tenants(self) -> list[MirroredTenant]:
        """All that pay through Stripe, or may."""
        return [MirroredTenant(**dict(row)) for row in await self._postgres.fetch(_TENANTS)]

    @contextlib.asynccontextmanager
    async def claim(self, tenant: str, at: datetime) -> AsyncIterator[CustomerClaim]:
        """Hold a tenant's customer until the block ends."""
        try:
            await self._postgres.fetch(_BEGIN, tenant, at)
        except asyncpg.ForeignKeyViolationError as error:
            msg = f"There is no tenant '{tenant}'."
            raise NotFoundError(msg, code="tenant_not_found", param="tenant") from error
        with translated():
            async with self._postgres.acquire() as connection, connection.transaction():
                yield _Claim(connection, tenant, await connection.fetchrow(_CLAIM, tenant))

    async def keep_subscription(self, tenant: str, subscription: str, at: datetime) -> None:
        """The customer's usage is on this subscription from then on."""
        await self._postgres.fetch(_SUBSCRIBED, tenant, subscription, at)

    async def empty_months(self) -> list[EmptyMonth]:
        """Those that Stripe has not closed yet, as far as is known."""
        return [EmptyMonth(**dict(row)) for row in await self._postgres.fetch(_EMPTY_MONTHS)]

    async def keep_empty(self, month: EmptyMonth) -> None:
        """Stripe has closed it."""
        await self._postgres.fetch(_KEEP_EMPTY, month.tenant, month.period)

    async def catalogue(self) -> Catalogue | None:
        """What was found or made of it."""
        rows = await self._postgres.fetch(_CATALOGUE)
        return Catalogue(**{row["name"]: row["stripe_id"] for row in rows}) if rows else None

    async def keep_catalogue(self, catalogue: Catalogue) -> None:
        """Stripe has these."""
        await self._postgres.fetch(_KEEP_CATALOGUE, catalogue.meter, catalogue.price)


class _Claim:
    """A `CustomerClaim` on one connection, whose transaction holds the row."""

    def __init__(self, connection: Any, tenant: str, row: Any) -> None:
        self._connection = connection
        self._tenant = tenant
        self.customer: str | None = row["customer_id"]
        self.begun_at: datetime = row["begun_at"]

    async def keep(self, customer: str, name: str) -> None:
        """Stripe has this customer, under this name."""
        await self._connection.execute(_KEEP, self._tenant, customer, name)
