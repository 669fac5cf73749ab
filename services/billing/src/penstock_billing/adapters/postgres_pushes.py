"""What Stripe's meter was told, in PostgreSQL."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any, Final

from penstock_billing.ports.pushing import Backlog, Push, PushOutcome
from penstock_shared.contracts.invoices import MICROUSD_PER_CENT
from penstock_shared.runtime.postgres import Postgres

# What the ledger has of each month that the meter still takes, what was pushed of it, and when the
# usage is said to have been: now, or the last second of a month that is over. A month whose pushes
# keep being refused is left to the invoice, which has an item for what the meter lacks; and three
# days after its end nothing waits for the meter any more.
_MONTHS: Final = f"""
select b.tenant, b.period, c.customer_id,
       div(b.credit - b.debit, {MICROUSD_PER_CENT})::bigint - coalesce(p.cents, 0) as cents,
       coalesce(p.last, 0) as last, coalesce(p.refused, 0) < 5 as takes,
       exists (select from billing.meter_pushes m where (m.tenant, m.period) = (b.tenant, b.period)
               and m.ended_at is null) as open,
       $1 < ends.at + interval '3 days' as waits,
       greatest(c.subscribed_at, least($1, ends.at - interval '1 second')) as used_at
from billing.balances b
join billing.stripe_customers c on c.tenant = b.tenant and c.subscription_id is not null
cross join lateral (
    select (b.period + interval '1 month') at time zone 'UTC' as at) ends
left join billing.meter_totals p on (p.tenant, p.period) = (b.tenant, b.period)
where b.account = 'usage' and ends.at > greatest(c.subscribed_at, $1 - interval '34 days')
  and not exists (
    select from billing.payers y where y.tenant = b.tenant and y.provider <> 'stripe')"""  # noqa: S608  constants only
_PLAN: Final = f"""
insert into billing.meter_pushes (tenant, period, number, cents, customer_id, used_at)
select tenant, period, last + 1, cents, customer_id, used_at from ({_MONTHS}) as month
where cents > 0 and takes and not open and used_at > $1 - interval '34 days'
order by tenant, period  -- replicas that plan at once meet in one order
on conflict do nothing
returning 1"""  # noqa: S608
_COMPLETE: Final = f"""
select not exists (select from ({_MONTHS}) as month
                   where tenant = $2 and period = $3 and waits
                     and (open or (cents > 0 and takes)))"""  # noqa: S608
_COLUMNS: Final = "tenant, period, number, cents, customer_id, used_at, first_sent_at"
_UNSETTLED: Final = f"""
select {_COLUMNS} from billing.meter_pushes where ended_at is null
order by used_at, tenant limit $1"""  # noqa: S608
_SENDING: Final = """
update billing.meter_pushes m set first_sent_at = $4
from unnest($1::text[], $2::date[], $3::integer[]) as s (tenant, period, number)
where (m.tenant, m.period, m.number) = (s.tenant, s.period, s.number) and m.first_sent_at is null"""
_SETTLE: Final = """
update billing.meter_pushes set outcome = $4, ended_at = $5
where tenant = $1 and period = $2 and number = $3 and ended_at is null"""
_REFUSE: Final = """
update billing.meter_pushes m set outcome = 'refused', ended_at = $2
from unnest($1::text[], $3::date[], $4::integer[]) as s (tenant, period, number)
where (m.tenant, m.period, m.number) = (s.tenant, s.period, s.number)
  and coalesce(m.outcome, '') not in ('absent', 'refused')
returning 1"""
_IDENTIFIER: Final = re.compile(r"(.+):(\d{4}-(?:0[1-9]|1[0-2])):(\d{1,9})")
"""As `Push.identifier` makes it: reports name other people's events, too."""
_TAKEN: Final = """
select coalesce(sum(cents), 0)::bigint from billing.meter_pushes
where tenant = $1 and period = $2 and outcome in ('accepted', 'duplicate', 'summed')"""
_BACKLOG: Final = """
select count(*) as pushes, min(used_at) as oldest_used_at from billing.meter_pushes
where ended_at is null"""


class PostgresPushes:
    """A `PushBook`."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def plan(self, at: datetime) -> int:
        """Write down what the ledger has beyond what was pushed; how many pushes that makes."""
        return len(await self._postgres.fetch(_PLAN, at))

    async def unsettled(self, limit: int) -> list[Push]:
        """Pushes whose end is not known, oldest first."""
        return [_push(row) for row in await self._postgres.fetch(_UNSETTLED, limit)]

    async def sending(self, pushes: Sequence[Push], at: datetime) -> None:
        """After this returns nobody can think that these were never sent."""
        await self._postgres.fetch(
            _SENDING,
            [push.tenant for push in pushes],
            [push.period for push in pushes],
            [push.number for push in pushes],
            at,
        )

    async def settle(self, push: Push, outcome: PushOutcome, at: datetime) -> None:
        """How it ended; a second end changes nothing."""
        await self._postgres.fetch(
            _SETTLE, push.tenant, push.period, push.number, outcome.value, at
        )

    async def refuse(self, identifiers: Sequence[str], at: datetime) -> int:
        """The meter has dropped these after it took them; how many had counted till now."""
        named = [found for found in map(_IDENTIFIER.fullmatch, identifiers) if found]
        rows = await self._postgres.fetch(
            _REFUSE,
            [found[1] for found in named],
            at,
            [date.fromisoformat(f"{found[2]}-01") for found in named],
            [int(found[3]) for found in named],
        )
        return len(rows)

    async def taken_cents(self, tenant: str, period: date) -> int:
        """What the meter has of a tenant's month, as far as it has told."""
        return int(await self._postgres.fetchval(_TAKEN, tenant, period))

    async def complete(self, tenant: str, period: date, at: datetime) -> bool:
        """Whether the meter has all of a month that it can get, or has had its time for it."""
        return bool(await self._postgres.fetchval(_COMPLETE, at, tenant, period))

    async def backlog(self) -> Backlog:
        """What is not settled yet."""
        row = (await self._postgres.fetch(_BACKLOG))[0]
        return Backlog(pushes=row["pushes"], oldest_used_at=row["oldest_used_at"])


def _push(row: Any) -> Push:
    return Push(
        tenant=row["tenant"],
        period=row["period"],
        number=row["number"],
        cents=row["cents"],
        customer=row["customer_id"],
        used_at=row["used_at"],
        first_sent_at=row["first_sent_at"],
    )
