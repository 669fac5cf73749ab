"""The ledger in PostgreSQL. Metering posts by a trigger of its own (migration 0006)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any, Final

from penstock_billing.ports.ledger import Account, Balance, Transfer
from penstock_shared.contracts.errors import ConflictError

_POST: Final = """
insert into billing.transfers
    (id, tenant, period, kind, debit, credit, microusd, reference, at)
select * from unnest($1::uuid[], $2::text[], $3::date[], $4::text[], $5::text[], $6::text[],
                     $7::bigint[], $8::text[], $9::timestamptz[]) order by 1
on conflict (id) do nothing"""
_OTHERWISE: Final = """
select t.kind, t.reference
from billing.transfers t
join unnest($1::uuid[], $2::date[], $3::text[], $4::text[], $5::bigint[])
    as g (id, period, debit, credit, microusd) using (id)
where (t.period, t.debit, t.credit, t.microusd) <> (g.period, g.debit, g.credit, g.microusd)
limit 1"""
_BALANCES: Final = """
select account, debit, credit from billing.balances
where tenant = $1 and period = $2 order by account"""


async def post(connection: Any, transfers: Sequence[Transfer]) -> None:
    """Write these in the transaction on `connection`; those that are there already stay.

    Raises:
        ConflictError: one of them is there with another amount, period or account.
    """
    ids = [transfer.id for transfer in transfers]
    periods = [transfer.period for transfer in transfers]
    debits = [transfer.debit.value for transfer in transfers]
    credits_ = [transfer.credit.value for transfer in transfers]
    amounts = [transfer.microusd for transfer in transfers]
    await connection.execute(
        _POST,
        ids,
        [transfer.tenant for transfer in transfers],
        periods,
        [transfer.kind for transfer in transfers],
        debits,
        credits_,
        amounts,
        [transfer.reference for transfer in transfers],
        [transfer.at for transfer in transfers],
    )
    row = await connection.fetchrow(_OTHERWISE, ids, periods, debits, credits_, amounts)
    if row is not None:
        msg = (
            f"The ledger has another {row['kind']} under '{row['reference']}': "
            "post a transfer that corrects it."
        )
        raise ConflictError(msg, code="posted_otherwise")


async def balances(connection: Any, tenant: str, period: date) -> list[Balance]:
    """What stands on a tenant's accounts of a period; those that were never used are not there."""
    return [
        Balance(Account(row["account"]), int(row["debit"]), int(row["credit"]))
        for row in await connection.fetch(_BALANCES, tenant, period)
    ]
