"""Usage over time from the read models of a real database, page by page, as billing's roles."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from pydantic import SecretStr
from tests.support.invoicing import metered

from penstock_billing.adapters.postgres_reads import PostgresUsageReads
from penstock_billing.adapters.postgres_roles import (
    TenantPostgres,
    connect_platform,
    migrate_billing,
)
from penstock_billing.adapters.postgres_usage import PostgresUsage
from penstock_billing.domain.usage_pages import usage_page, window
from penstock_billing.ports.usage import MeteredUsage
from penstock_shared.contracts.models import ModelKind
from penstock_shared.contracts.usage_queries import BucketWidth, QueryUsage, UsageGroup

START: Final = datetime(2026, 11, 1, tzinfo=UTC)
NOW: Final = START + timedelta(days=3)
NAMES: Final = ("ann", "Ann", "änn", "a nn", "a-nn", "a'nn", "~", "a" * 256)
"""Which collations put in different orders."""
FIELDS: Final = {
    UsageGroup.TENANT: "tenant",
    UsageGroup.MODEL: "model",
    UsageGroup.KEY: "key_id",
    UsageGroup.USER: "data_subject",
}


def some_usage(seed: int) -> list[MeteredUsage]:
    rng = random.Random(seed)
    return [
        metered(
            START + timedelta(seconds=rng.randrange(3 * 86_400)),
            rng.randrange(1_000),
            tenant=rng.choice(("acme", "globex")),
            seq=number + 1,
            model=rng.choice(("small", "large", "minilm")),
            kind=rng.choice(("text", "embedding")),
            key_id=rng.choice(("key_1", "key_2")),
            data_subject=rng.choice(NAMES),
        )
        for number in range(400)
    ]


@pytest.fixture
async def reads(postgres_dsn: str) -> AsyncIterator[tuple[PostgresUsageReads, list[MeteredUsage]]]:
    """What two tenants used, metered as billing meters it."""
    dsn = SecretStr(postgres_dsn)
    await migrate_billing(dsn)
    platform = await connect_platform(dsn, 2)
    tenants = await TenantPostgres.connect(dsn, 1)
    usage = some_usage(20261121)
    await PostgresUsage(platform).record(usage)
    yield PostgresUsageReads(tenants, platform), usage
    await tenants.close()
    await platform.close()


async def every_page(
    reads: PostgresUsageReads, query: QueryUsage, most: int
) -> Counter[tuple[Any, ...]]:
    """Micro-dollars by bucket and groups; no page says anything twice."""
    found: Counter[tuple[Any, ...]] = Counter()
    while True:
        asked = window(query, NOW)
        page = usage_page(query, asked, await reads.groups(query, asked, most + 1), most, NOW)
        for bucket in page.buckets:
            for sums in bucket.results:
                place = bucket.start, sums.tenant, sums.model, sums.key_id, sums.user
                assert place not in found
                found[place] = sums.cost_microusd
        if page.next_page is None:
            return found
        query = query.model_copy(update={"page": page.next_page})


@pytest.mark.parametrize("tenant", ["acme", None])
async def test_sums_are_those_of_the_rows(
    reads: tuple[PostgresUsageReads, list[MeteredUsage]], tenant: str | None
) -> None:
    """Each read model and width, any size of page: what was metered, of nobody else (I8)."""
    source, usage = reads
    ways: list[tuple[BucketWidth, tuple[UsageGroup, ...]]] = [
        (BucketWidth.DAY, ()),
        (BucketWidth.DAY, tuple(UsageGroup)),
        (BucketWidth.DAY, (UsageGroup.USER,)),
        (BucketWidth.HOUR, (UsageGroup.MODEL,)),
        (BucketWidth.MINUTE, (UsageGroup.TENANT, UsageGroup.KEY)),
    ]
    for width, groups in ways:
        query = QueryUsage(
            tenant=tenant,
            start=START,
            width=width,
            kinds=(ModelKind.TEXT,),
            group_by=groups,
            models=("small", "large"),
            limit=1_000,
        )
        wanted: Counter[tuple[Any, ...]] = Counter()
        for row in usage:
            if row.kind == "text" and row.model != "minilm" and tenant in {None, row.tenant}:
                bucket = row.accepted_at - (row.accepted_at - START) % width.span
                shown = (getattr(row, FIELDS[g]) if g in groups else None for g in UsageGroup)
                wanted[bucket, *shown] += row.cost_microusd
        for most in (3, 10_000):
            assert await every_page(source, query, most) == wanted, (width, groups, most)


async def test_a_tenants_question_needs_no_filter(
    reads: tuple[PostgresUsageReads, list[MeteredUsage]],
) -> None:
    """The statement names no tenant: it is PostgreSQL that keeps the others' rows away (I8)."""
    source, usage = reads
    query = QueryUsage(tenant="nobody", start=START, end=NOW)
    assert await every_page(source, query, 100) == {}
    everything = await every_page(source, query.model_copy(update={"tenant": None}), 100)
    assert everything.total() == sum(row.cost_microusd for row in usage)
