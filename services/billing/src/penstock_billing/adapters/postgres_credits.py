"""Credit and corrections in PostgreSQL."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import date
from typing import Any, Final

from penstock_billing.adapters.postgres_accounts import account_transaction
from penstock_billing.adapters.postgres_ledger import post
from penstock_billing.ports.accounts import AccountTransaction
from penstock_billing.ports.credits import CreditTransaction
from penstock_billing.ports.ledger import Transfer
from penstock_shared.contracts.credits import AdjustmentMade, CreditGrant, PrepaidState
from penstock_shared.contracts.invoices import first_day
from penstock_shared.runtime.postgres import Postgres, translated

_GRANTS: Final = """
select g.grant_id::text, g.tenant, g.kind, g.microusd, g.priority, g.expires_on, g.reference,
       g.granted_at, g.used - u.expired as spent_microusd, u.expired as expired_microusd
from billing.grants g
cross join lateral (
    select coalesce(sum(e.microusd), 0)::bigint as expired from billing.grant_uses e
    where e.grant_id = g.grant_id and e.kind = 'expired') as u
where ($1::text is null or g.tenant = $1) and ($2::text is null or g.reference = $2)
order by g.tenant, g.priority, g.expires_on nulls last, g.granted_at, g.grant_id"""
_ADD_GRANT: Final = """
insert into billing.grants
    (grant_id, tenant, kind, microusd, priority, expires_on, reference, granted_at)
values ($1, $2, $3, $4, $5, $6, $7, $8)"""
_ADJUSTMENT: Final = """
select tenant, to_char(period, 'YYYY-MM') as month, microusd, reason, reference, made_at
from billing.adjustments where tenant = $1 and reference = $2"""
_ADD_ADJUSTMENT: Final = """
insert into billing.adjustments
    (adjustment_id, tenant, period, microusd, reason, reference, made_at)
values (billing.new_id(), $1, $2, $3, $4, $5, $6)"""
_OPEN_MONTH: Final = """
select greatest(date_trunc('month', $2::date::timestamp), max(period) + interval '1 month')::date
from billing.periods where tenant = $1"""
_PREPAID: Final = """
select t.tenant, c.most::bigint as covered_microusd, c.settled::bigint as settled_microusd,
       c.reserved::bigint as reserved_microusd,
       greatest(c.most - c.settled - c.reserved, 0)::bigint as left_microusd
from billing.tenants t cross join lateral billing.credit_state(t.tenant, $2) c
where ($1::text is null or t.tenant = $1) order by t.tenant"""


def credit_transaction(connection: Any) -> CreditTransaction:
    """Changes to credit in the transaction that `connection` is in."""
    return _Transaction(connection)


class PostgresCredits:
    """A `CreditStore`."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[CreditTransaction]:
        """Commits at the end, or changes nothing."""
        with translated():
            async with self._postgres.acquire() as connection, connection.transaction():
                yield _Transaction(connection)

    async def grants(self, tenant: str | None) -> list[CreditGrant]:
        """One tenant's, or everybody's, in the order of use."""
        rows = await self._postgres.fetch(_GRANTS, tenant, None)
        return [CreditGrant(**dict(row)) for row in rows]

    async def prepaid(self, tenant: str | None, day: date) -> list[PrepaidState]:
        """How far those may go on a day whose plan then allows no overage."""
        rows = await self._postgres.fetch(_PREPAID, tenant, day)
        return [PrepaidState(**dict(row)) for row in rows]


class _Transaction:
    """A `CreditTransaction` on one connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @property
    def accounts(self) -> AccountTransaction:
        return account_transaction(self._connection)

    async def grant(self, tenant: str, reference: str) -> CreditGrant | None:
        row = await self._connection.fetchrow(_GRANTS, tenant, reference)
        return None if row is None else CreditGrant(**dict(row))

    async def add_grant(self, grant: CreditGrant) -> None:
        await self._connection.execute(
            _ADD_GRANT,
            grant.grant_id,
            grant.tenant,
            grant.kind.value,
            grant.microusd,
            grant.priority,
            grant.expires_on,
            grant.reference,
            grant.granted_at,
        )

    async def adjustment(self, tenant: str, reference: str) -> AdjustmentMade | None:
        row = await self._connection.fetchrow(_ADJUSTMENT, tenant, reference)
        return None if row is None else AdjustmentMade(**dict(row))

    async def add_adjustment(self, adjustment: AdjustmentMade) -> None:
        await self._connection.execute(
            _ADD_ADJUSTMENT,
            adjustment.tenant,
            first_day(adjustment.month),
            adjustment.microusd,
            adjustment.reason,
            adjustment.reference,
            adjustment.made_at,
        )

    async def open_month(self, tenant: str, since: date) -> date:
        month: date = await self._connection.fetchval(_OPEN_MONTH, tenant, since)
        return month

    async def post(self, transfers: Sequence[Transfer]) -> None:
        await post(self._connection, transfers)
