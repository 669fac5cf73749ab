"""Laws of the ledger on a real PostgreSQL: figures are a function of the log and of the cuts (I2).

Whatever order facts are read in, however often, in whichever batches, by how many at once, and
whenever months are cut meanwhile: each attempt is in one month, and the ledger balances.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import pytest
from pydantic import SecretStr
from tests.support.billing import terminals

from penstock_billing.adapters.postgres_ledger import balances, post
from penstock_billing.adapters.postgres_roles import migrate_billing
from penstock_billing.adapters.postgres_usage import PostgresUsage
from penstock_billing.domain.metering import distinct, meter
from penstock_billing.ports.ledger import Account, Transfer
from penstock_billing.ports.usage import MeteredUsage
from penstock_shared.contracts import subjects
from penstock_shared.contracts.errors import ConflictError
from penstock_shared.contracts.requests import terminal_type
from penstock_shared.runtime.postgres import Postgres

TENANTS: Final = ("acme", "globex")
LEAP_YEAR: Final = datetime(2028, 1, 1, tzinfo=UTC)
EDGES: Final = (
    timedelta(days=31, microseconds=-1),  # the end of January
    timedelta(days=31),
    timedelta(days=59, hours=23, minutes=59, seconds=59, microseconds=999_999),  # leap day
    timedelta(days=60),
    timedelta(days=75),
)
Cuts = dict[str, list[tuple[date, int]]]
CUT: Final = """
insert into billing.periods (tenant, period, status, cut_seq, cut_at)
values ($1, $2, 'closing', $3, now())"""


@pytest.fixture
async def postgres(postgres_dsn: str) -> AsyncIterator[Postgres]:
    """A migrated database, as its owner."""
    await migrate_billing(SecretStr(postgres_dsn))
    connected = await Postgres.connect(SecretStr(postgres_dsn), name="test", connections=8)
    yield connected
    await connected.close()


def attempts(rng: random.Random, count: int, after: int = 0) -> list[MeteredUsage]:
    """Of different requests, at the edges of months, each at its own place in the log."""
    rows = []
    for sequence, fact in enumerate(terminals(rng, count, TENANTS), after + 1):
        at = LEAP_YEAR + rng.choice(EDGES)
        told = fact.model_copy(update={"routed_at": at, "data_subject": f"u{rng.randrange(3)}"})
        rows.append(
            meter(
                terminal_type(told.status),
                subjects.request_event(told.tenant, told.request_id),
                sequence,
                at,
                told.model_dump_json().encode(),
            )
        )
    return rows


def month_of(row: MeteredUsage, cuts: Cuts) -> date:
    """The rule: that of acceptance, or the first after the last that was cut before its fact."""
    month = row.accepted_at.date().replace(day=1)
    passed = [period for period, cut_seq in cuts[row.tenant] if cut_seq < row.event_seq]
    return max([month, *((period + timedelta(days=32)).replace(day=1) for period in passed)])


async def read(ledger: PostgresUsage, rng: random.Random, rows: Sequence[MeteredUsage]) -> int:
    """In any order, some more than once, in any batches, by three at once; how many are late."""
    copies = [*rows, *rng.sample(rows, len(rows) // 3)]
    rng.shuffle(copies)
    room = asyncio.Semaphore(3)

    async def write(batch: list[MeteredUsage]) -> int:
        async with room:
            return sum(model.late for model in await ledger.record(distinct(batch)))

    batches = []
    while copies:
        size = rng.randrange(1, 20)
        batches.append(copies[:size])
        copies = copies[size:]
    return sum(await asyncio.gather(*map(write, batches)))


async def check(postgres: Postgres, rows: Iterable[MeteredUsage], cuts: Cuts) -> None:
    """Rows, sums and ledger hold what the log says, and the ledger balances."""
    rows = list(rows)
    months = await postgres.fetch("select request_id::text, period from billing.usage")
    expected = {row.request_id: month_of(row, cuts) for row in rows}
    assert {row["request_id"]: row["period"] for row in months} == expected
    for table, place in (
        ("usage_days", lambda r: (month_of(r, cuts), r.accepted_at.date())),
        ("usage_minutes", lambda r: (r.accepted_at.replace(second=0, microsecond=0), r.key_id)),
        ("usage_users", lambda r: (r.accepted_at.date(), r.key_id, r.data_subject)),
    ):
        sums: defaultdict[Any, Counter[str]] = defaultdict(Counter)
        for row in rows:
            sums[row.tenant, *place(row), row.kind, row.model].update(
                requests=bool(row.input_tokens + row.output_tokens),
                input_tokens=row.input_tokens,
                output_tokens=row.output_tokens,
                cost_microusd=row.cost_microusd,
            )
        assert await sums_in(postgres, table) == sums
    owed: Counter[tuple[str, date]] = Counter()
    for row in rows:
        owed[row.tenant, month_of(row, cuts)] += row.cost_microusd
    for (tenant, month), amount in owed.items():
        stand = {one.account: one for one in await _balances(postgres, tenant, month)}
        usage, receivable = stand[Account.USAGE], stand[Account.RECEIVABLE]
        assert usage.credit - usage.debit == receivable.debit - receivable.credit == amount
    await check_balanced(postgres)


async def sums_in(postgres: Postgres, table: str) -> dict[Any, Counter[str]]:
    places = {
        "usage_days": ("period", "day"),
        "usage_minutes": ("minute", "key_id"),
        "usage_users": ("day", "key_id", "data_subject"),
    }[table]
    figures = ("requests", "input_tokens", "output_tokens", "cost_microusd")
    rows = await postgres.fetch(f"select * from billing.{table}")  # noqa: S608
    return {
        (row["tenant"], *(row[name] for name in places), row["kind"], row["model"]): Counter(
            {name: row[name] for name in figures}
        )
        for row in rows
    }


async def check_balanced(postgres: Postgres) -> None:
    """Debits and credits are equal in every month, and the balances are those of the transfers."""
    kept = await postgres.fetch(
        "select tenant, period, account, debit, credit from billing.balances order by 1, 2, 3"
    )
    again = await postgres.fetch("""
        select t.tenant, t.period, s.account, sum(s.debit) as debit, sum(s.credit) as credit
        from billing.transfers t cross join lateral (values
            (t.debit, t.microusd, 0), (t.credit, 0, t.microusd)) as s (account, debit, credit)
        group by 1, 2, 3 order by 1, 2, 3""")
    assert [tuple(row) for row in kept] == [tuple(row) for row in again]
    totals: Counter[tuple[str, date]] = Counter()
    for row in kept:
        totals[row["tenant"], row["period"]] += row["debit"] - row["credit"]
    assert not any(totals.values())


async def _balances(postgres: Postgres, tenant: str, month: date) -> list[Any]:
    async with postgres.acquire() as connection:
        return await balances(connection, tenant, month)


@pytest.mark.parametrize(
    "seed", [*range(6), *(pytest.param(n, marks=pytest.mark.long) for n in range(6, 200))]
)
async def test_figures_are_a_function_of_the_log_and_the_cuts(
    postgres: Postgres, seed: int
) -> None:
    """Months are cut while facts come late, twice and out of order; then all is read again.

    What is read before a cut and after it, and what is only read later: the same month for each.
    """
    rng = random.Random(seed)
    ledger = PostgresUsage(postgres)
    log: list[MeteredUsage] = []
    cuts: Cuts = {tenant: [] for tenant in TENANTS}
    unread: list[MeteredUsage] = []
    for _ in range(rng.randrange(3, 8)):
        unread += (new := attempts(rng, rng.randrange(1, 25), len(log)))
        log += new
        now = rng.sample(unread, rng.randrange(len(unread) + 1))
        await read(ledger, rng, now)
        unread = [row for row in unread if row not in now]
        if rng.random() < 0.6:
            tenant = rng.choice(TENANTS)
            month = LEAP_YEAR.date().replace(month=len(cuts[tenant]) + 1)
            await postgres.fetch(CUT, tenant, month, len(log))
            cuts[tenant].append((month, len(log)))
    await read(ledger, rng, unread)
    await check(postgres, log, cuts)
    before = await sums_in(postgres, "usage_days")
    await ledger.empty()
    assert not await sums_in(postgres, "usage_days")
    await check_balanced(postgres)
    late = sum(month_of(row, cuts) > row.accepted_at.date() for row in log)
    assert await read(ledger, rng, log) == late
    assert await sums_in(postgres, "usage_days") == before
    await check(postgres, log, cuts)


async def test_a_cut_among_batches_that_are_being_written(postgres: Postgres) -> None:
    """Whoever cuts holds metering first and looks at the log then: nobody misses the cut.

    Batches are written by four at once while every month is cut; each attempt is on the side of
    each cut on which its place in the log is.
    """
    rng = random.Random(11)
    rows = attempts(rng, 600)
    ledger = PostgresUsage(postgres)
    written = 0  # the log's end: nothing is metered that is not in it
    cuts: Cuts = {tenant: [] for tenant in TENANTS}
    todo = [rows[start : start + 5] for start in range(0, len(rows), 5)]

    async def write() -> None:
        nonlocal written
        while todo:
            batch = todo.pop(0)
            written = max(written, batch[-1].event_seq)
            await ledger.record(distinct(batch))

    async def cut() -> None:
        for month in (1, 2, 3):
            for tenant in TENANTS:
                await asyncio.sleep(rng.random() / 50)
                period = LEAP_YEAR.date().replace(month=month)
                async with postgres.acquire() as connection, connection.transaction():
                    await connection.execute("select billing.hold_metering()")
                    cut_seq = written
                    await connection.execute(CUT, tenant, period, cut_seq)
                cuts[tenant].append((period, cut_seq))

    await asyncio.gather(*(write() for _ in range(4)), cut())
    assert any(0 < cut_seq < len(rows) for made in cuts.values() for _, cut_seq in made)
    await check(postgres, rows, cuts)


@pytest.mark.parametrize("seed", range(4))
async def test_the_ledger_balances_after_any_sequence(postgres: Postgres, seed: int) -> None:
    """Metering, transfers of all sorts, again and again, emptying and reading again.

    A transfer that is repeated changes nothing; the same one with another amount is refused, and
    the transaction that tried it leaves nothing.
    """
    rng = random.Random(seed)
    ledger = PostgresUsage(postgres)
    rows = attempts(rng, 30)
    posted: list[Transfer] = []

    async def some_transfers() -> None:
        debit, credit = rng.sample(list(Account), 2)
        new = Transfer(
            tenant=rng.choice(TENANTS),
            period=date(2028, rng.randrange(1, 4), 1),
            kind="test",
            debit=debit,
            credit=credit,
            microusd=rng.randrange(1, 10**12),
            reference=str(len(posted)),
            at=LEAP_YEAR,
        )
        posted.append(new)
        async with postgres.acquire() as connection, connection.transaction():
            await post(connection, [new, *rng.sample(posted, len(posted) // 2)])

    async def another_amount() -> None:
        if not posted:
            return
        one = rng.choice(posted)
        other = Transfer(**{**_fields(one), "microusd": one.microusd + 1})
        with pytest.raises(ConflictError, match="under"):
            async with postgres.acquire() as connection, connection.transaction():
                await post(connection, [other])

    for _ in range(15):
        step = rng.choice(("meter", "post", "post", "otherwise", "empty"))
        if step == "meter":
            await read(ledger, rng, rng.sample(rows, rng.randrange(1, len(rows))))
        elif step == "post":
            await some_transfers()
        elif step == "otherwise":
            await another_amount()
        else:
            await ledger.empty()
        await check_balanced(postgres)
    count = await postgres.fetchval("select count(*) from billing.transfers where kind = 'test'")
    assert count == len(posted)


def _fields(transfer: Transfer) -> dict[str, Any]:
    return {name: getattr(transfer, name) for name in transfer.__slots__}
