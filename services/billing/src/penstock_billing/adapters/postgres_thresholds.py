"""Which quotas have reached which share, in PostgreSQL.

Metering marks the tenants and days of which something was settled (migration 0009), under the
tenant's lock. Here the same lock is held while the marks are taken away and the sums are read, so
no settlement falls in between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, time
from typing import Any, Final

from penstock_billing.adapters.postgres_outbox import enqueue
from penstock_billing.ports.outbox import OutboxEntry
from penstock_shared.contracts.billing_facts import QuotaReached
from penstock_shared.contracts.quotas import Quota, QuotaPeriod, period_end
from penstock_shared.runtime.postgres import Postgres, translated

_AT_ONCE: Final = 100
"""Tenants that one transaction looks at: their locks are held for its time."""
_MOVED: Final = "select distinct tenant from billing.quota_moved limit $1"
_LOCK: Final = "select billing.lock_quotas($1)"
_REACHED: Final = """
with moved as (
    delete from billing.quota_moved where tenant = any ($1) returning tenant, day
), reached as (
    select distinct m.tenant, q.unit, q.period,
           date_trunc(q.period, m.day::timestamp)::date as begins_on, q.most, q.soft, p.percent,
           q.settled
    from moved m
    cross join lateral billing.quota_state(m.tenant, m.day) q
    cross join unnest($2::integer[]) as p (percent)
    where q.most > 0 and q.settled * 100 >= q.most::numeric * p.percent
), told as (
    insert into billing.quota_alerts
        (tenant, unit, period, begins_on, most, soft, percent, reached_at)
    select tenant, unit, period, begins_on, most, soft, percent, $3 from reached
    on conflict do nothing
    returning tenant, unit, period, begins_on, most, soft, percent
)
select * from told join reached using (tenant, unit, period, begins_on, most, soft, percent)
order by tenant, unit, period, soft, percent"""


class PostgresThresholds:
    """A `QuotaWatch`."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def reached(
        self, percents: Sequence[int], at: datetime, tell: Callable[[QuotaReached], OutboxEntry]
    ) -> int:
        """Tell of what was reached, each once; returns how many tenants were looked at."""
        with translated():
            async with self._postgres.acquire() as connection, connection.transaction():
                tenants = [row["tenant"] for row in await connection.fetch(_MOVED, _AT_ONCE)]
                if tenants:
                    await connection.execute(_LOCK, tenants)
                    rows = await connection.fetch(_REACHED, tenants, percents, at)
                    await enqueue(connection, [tell(_fact(row, at)) for row in rows])
                return len(tenants)


def _fact(row: Any, at: datetime) -> QuotaReached:
    period = QuotaPeriod(row["period"])
    begin = datetime.combine(row["begins_on"], time(tzinfo=UTC))
    return QuotaReached(
        tenant=row["tenant"],
        quota=Quota(unit=row["unit"], period=period, limit=row["most"], soft=row["soft"]),
        percent=row["percent"],
        settled=int(row["settled"]),
        begins_on=row["begins_on"],
        resets_at=period_end(period, begin),
        reached_at=at,
    )
