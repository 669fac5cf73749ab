"""Laws of metering: order and repetition of facts change nothing (I2)."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from tests.support.billing import STORED_AT, terminals

from penstock_billing.adapters.postgres_roles import connect_platform, migrate_billing
from penstock_billing.adapters.postgres_usage import PostgresUsage
from penstock_billing.domain.metering import distinct, meter
from penstock_billing.ports.usage import Added, MeteredUsage
from penstock_shared.contracts import subjects
from penstock_shared.contracts.requests import terminal_type
from penstock_shared.runtime.postgres import Postgres

Totals = dict[tuple[str, str], Counter[str]]


def usages(seed: int, count: int) -> list[MeteredUsage]:
    """Different attempts, each at its own place in the log."""
    return [
        meter(
            terminal_type(fact.status),
            subjects.request_event(fact.tenant, fact.request_id),
            sequence,
            STORED_AT,
            fact.model_dump_json().encode(),
        )
        for sequence, fact in enumerate(terminals(random.Random(seed), count), 1)
    ]


def totals(rows: Iterable[MeteredUsage]) -> Totals:
    sums: Totals = {}
    for row in rows:
        sums.setdefault((row.tenant, row.model), Counter()).update(
            rows=1, input=row.input_tokens, output=row.output_tokens, cost=row.cost_microusd
        )
    return sums


@given(seed=st.integers(0, 2**32), count=st.integers(1, 30), data=st.data())
def test_the_fold_ignores_order_and_repetition(seed: int, count: int, data: st.DataObject) -> None:
    """Any shuffling of any multiset of the facts folds to the same rows."""
    rows = usages(seed, count)
    copies = data.draw(st.permutations(rows + data.draw(st.lists(st.sampled_from(rows)))))
    assert distinct(copies) == distinct(rows)
    assert totals(distinct(copies)) == totals(rows)


@pytest.fixture
async def postgres(postgres_dsn: str) -> Postgres:
    """A migrated database."""
    await migrate_billing(SecretStr(postgres_dsn))
    return await connect_platform(SecretStr(postgres_dsn), 4)


@pytest.mark.parametrize("seed", range(12))
async def test_postgres_ignores_order_repetition_and_batching(
    postgres: Postgres, seed: int
) -> None:
    """Shuffled copies, cut into batches of any size, written by three at once: the same sums.

    What the batches say they added is what is there: metrics do not count copies either.
    """
    rng = random.Random(seed)
    rows = usages(seed, rng.randrange(1, 60))
    copies = rows * rng.randrange(1, 4) + rng.sample(rows, len(rows) // 2)
    rng.shuffle(copies)
    batches: list[list[MeteredUsage]] = []
    while copies:
        size = rng.randrange(1, 25)
        batches.append(copies[:size])
        copies = copies[size:]
    ledger = PostgresUsage(postgres)
    room = asyncio.Semaphore(3)

    async def write(batch: list[MeteredUsage]) -> list[Added]:
        async with room:
            return await ledger.record(distinct(batch))

    added = await asyncio.gather(*(write(batch) for batch in batches))
    sums = {
        (row.tenant, row.model): Counter(
            rows=row.requests,
            input=row.input_tokens,
            output=row.output_tokens,
            cost=row.cost_microusd,
        )
        for row in await ledger.totals()
    }
    assert sums == totals(rows)
    assert sum(model.cost_microusd for batch in added for model in batch) == sum(
        row.cost_microusd for row in rows
    )
    await postgres.close()
