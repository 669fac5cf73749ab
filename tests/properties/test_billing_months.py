"""Laws of months in the database: nothing is billed twice or never, whatever happens when."""

from __future__ import annotations

import random
from datetime import date, datetime, timedelta

import pytest
from tests.support.invoicing import BORN, InvoiceRig, invoice_rig, metered
from tests.support.rating import charge

from penstock_billing.domain.plans import next_month
from penstock_billing.ports.usage import MeteredUsage
from penstock_shared.contracts.invoices import Invoice, first_day

STEPS = 40


class Life:
    """A tenant's months, as chance has it; everything is replayed from the seed."""

    def __init__(self, rig: InvoiceRig, rng: random.Random) -> None:
        self.rig, self.rng = rig, rng
        self.metered: list[MeteredUsage] = []

    async def step(self) -> None:
        """Anything that may happen; what is closed then is what was previewed just before."""
        actions = (self.use, self.use, self.use, self.again, self.wait, self.correct, self.credit)
        await self.rng.choice((*actions, self.change_plan))()
        open_months = [f"{month:%Y-%m}" for month in await self.open_months()]
        previewed = [await self.rig.preview(month) for month in open_months]
        await self.rig.closing.look()
        for before in previewed:
            after = await self.rig.preview(before.month)
            if after.number is not None:
                assert after.model_copy(update={"number": None, "issued_at": None}) == before
            elif first_day(before.month) not in await self.open_months():
                assert before.lines == ()

    async def open_months(self) -> list[date]:
        async with self.rig.book.reading("acme") as months:
            return await months.open_months(next_month(self.rig.clock.at.date()))

    async def use(self) -> None:
        """Now, or some hours or weeks ago: late, often enough."""
        ago = self.rng.choice((0, 0, 1, 1, 30, 700))
        self.rig.log.end += 1
        row = metered(
            max(BORN, self.rig.clock.at - timedelta(hours=ago)),
            self.rng.randrange(1_000),
            seq=self.rig.log.end,
            model=self.rng.choice(("small", "large")),
        )
        self.metered.append(row)
        await self.rig.usage.record([row])
        self.rig.log.read_up_to = self.rig.log.end

    async def again(self) -> None:
        """Copies, whatever month is closed by now."""
        await self.rig.usage.record(self.rng.sample(self.metered, min(3, len(self.metered))))

    async def wait(self) -> None:
        self.rig.clock.at += timedelta(hours=self.rng.randrange(1, 900))

    async def correct(self) -> None:
        month = (await self.open_months())[0]
        amount = self.rng.choice((-900, -5, 70))
        await self.rig.adjust(amount, f"{month:%Y-%m}", f"No. {self.rng.random()}")

    async def credit(self) -> None:
        ends = self.rig.clock.at.date() + timedelta(days=self.rng.randrange(40))
        await self.rig.grant(self.rng.randrange(1, 2_000), ends, f"No. {self.rng.random()}")

    async def change_plan(self) -> None:
        await self.rig.subscribe(
            self.rig.clock.at.date(),
            fee_microusd=self.rng.randrange(500),
            included_microusd=self.rng.randrange(500),
            minimum_microusd=self.rng.randrange(900),
            tiers=(charge((3, 100), (None, 10)),) if self.rng.random() < 0.5 else (),
        )


async def invoices(rig: InvoiceRig) -> list[Invoice]:
    async with rig.book.reading("acme") as months:
        return await months.issued(date(9999, 1, 1), 1_000)


async def live(dsn: str, seed: int) -> None:
    async with invoice_rig(dsn) as rig:
        await rig.create()
        life = Life(rig, random.Random(seed))
        rig.clock.at = datetime(2026, 11, 20, tzinfo=BORN.tzinfo)
        for _ in range(STEPS):
            await life.step()
        issued = await invoices(rig)
        for invoice in issued:
            assert await rig.receivable(first_day(invoice.month)) == invoice.due_microusd
        last = [await rig.preview(f"{month:%Y-%m}") for month in await life.open_months()]
        told = sum(one.usage_microusd for one in (*issued, *last))
        assert told == sum(row.cost_microusd for row in life.metered)
        assert await rig.balanced()
        spent = await rig.postgres.fetchval(
            "select coalesce(sum(microusd), 0) from billing.grant_uses where kind = 'paid'"
        )
        assert spent == sum(invoice.credit_microusd for invoice in issued)


@pytest.mark.parametrize("seed", range(2))
async def test_months_hold_everything_once(postgres_dsn: str, seed: int) -> None:
    """Late, copied, corrected, under changing plans: every cost is in one month, and paid once.

    The preview at the end is the invoice; the ledger owes what invoices say, and balances (I2).
    """
    await live(postgres_dsn, seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 40))
async def test_months_hold_everything_once_long(postgres_dsn: str, seed: int) -> None:
    """The same for many more lives."""
    await live(postgres_dsn, seed)
