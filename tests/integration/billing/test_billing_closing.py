"""Months are closed once, at their cut, as they were previewed, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta

import asyncpg
import pytest
from tests.support.invoicing import BORN, HandClock, InvoiceRig, invoice_rig, metered
from tests.support.rating import charge

from penstock_billing.adapters.postgres_invoices import PostgresInvoices
from penstock_billing.domain.announcements import Act
from penstock_billing.handlers.closing import Closing
from penstock_shared.contracts.errors import ConflictError, NotFoundError, UnavailableError
from penstock_shared.contracts.invoice_commands import (
    ClosePeriod,
    InvoiceList,
    ListInvoices,
    ShowInvoice,
)
from penstock_shared.contracts.invoices import Invoice

NOVEMBER, DECEMBER = date(2026, 11, 1), date(2026, 12, 1)
END = datetime(2026, 12, 1, tzinfo=UTC)
AFTER_GRACE = END + timedelta(hours=2, minutes=1)
LAST_MOMENT = END - timedelta(microseconds=1)


@pytest.fixture
async def rig(postgres_dsn: str) -> AsyncIterator[InvoiceRig]:
    """A database in which acme was created as November began."""
    async with invoice_rig(postgres_dsn) as made:
        await made.create()
        yield made


async def everything(rig: InvoiceRig) -> None:
    """A plan that changes, tiers, credits that end within the month and after it, corrections."""
    await rig.subscribe(
        NOVEMBER, fee_microusd=30_000, included_microusd=3_000, tiers=(charge((10, 5), (None, 3)),)
    )
    await rig.subscribe(date(2026, 11, 21), fee_microusd=60_000, minimum_microusd=300_000)
    await rig.grant(400, date(2026, 11, 3), "ends")
    await rig.grant(700, None, "stays")
    await rig.adjust(-50)
    await rig.usage.record(
        [
            *(metered(BORN + timedelta(days=day), 300) for day in range(12)),
            *(metered(BORN + timedelta(days=day), 900, model="large") for day in range(12)),
            metered(LAST_MOMENT, 77),
        ]
    )


async def test_the_preview_at_the_end_is_the_invoice(rig: InvoiceRig) -> None:
    """Line by line; the ledger owes the same; everybody learns of it (I2, I3)."""
    await everything(rig)
    rig.clock.at, rig.log.end, rig.log.read_up_to = AFTER_GRACE, 9, 9
    preview = await rig.preview("2026-11")
    assert preview.number is None
    assert {line.kind.value for line in preview.lines} == {
        *("fee", "usage", "tiered", "included", "minimum", "adjustment", "credit")
    }
    assert await rig.closing.look() == 1
    [invoice] = (await rig.ask("list-invoices", ListInvoices(tenant="acme"), InvoiceList)).invoices
    final = {"number": "acme-2026-11", "issued_at": AFTER_GRACE}
    assert invoice == preview.model_copy(update=final)
    shown = await rig.ask("show-invoice", ShowInvoice(tenant="acme", month="2026-11"), Invoice)
    assert shown == invoice == await rig.preview("2026-11")
    assert await rig.receivable(NOVEMBER) == invoice.due_microusd > 0
    assert await rig.balanced()
    told = await rig.postgres.fetch(
        "select key, payload from billing.outbox where event_type like '%invoice_issued%'"
    )
    assert [row["key"] for row in told] == ["v1.acme.events.billing.invoice-issued"]
    assert json.loads(told[0]["payload"])["due_microusd"] == invoice.due_microusd


async def test_closing_again_changes_nothing(rig: InvoiceRig) -> None:
    """By the schedule, by an operator, by replicas at once: one invoice, one set of transfers."""
    await everything(rig)
    rig.clock.at, rig.log.end, rig.log.read_up_to = AFTER_GRACE, 9, 9
    first = await asyncio.gather(*(rig.closing.look() for _ in range(3)))
    assert sum(first) >= 1
    transfers = await rig.postgres.fetch("select id from billing.transfers order by id")
    again = [await rig.close("2026-11") for _ in range(2)]
    assert [one.closed for one in again] == [True, True]
    assert await rig.closing.look() == 0
    assert await rig.postgres.fetch("select id from billing.transfers order by id") == transfers
    assert await rig.postgres.fetchval("select count(*) from billing.invoices") == 1


async def test_a_month_waits_for_its_grace_and_for_its_cut_to_be_read(rig: InvoiceRig) -> None:
    """Not closed a moment early, nor before all that lies before the cut is metered (I2)."""
    rig.clock.at = END + timedelta(hours=2) - timedelta(microseconds=1)
    rig.log.end = 5
    assert await rig.closing.look() == 0
    assert await rig.book.cuts(None) == []
    rig.clock.at = END + timedelta(hours=2)
    rig.log.read_up_to = 4
    assert await rig.closing.look() == 0
    [cut] = await rig.book.cuts(None)
    assert (cut.period, cut.cut_seq) == (NOVEMBER, 5)
    rig.log.end = 90
    await rig.usage.record([metered(LAST_MOMENT, 10, seq=5)])
    rig.log.read_up_to = 5
    assert await rig.closing.look() == 1
    assert (await rig.preview("2026-11")).due_microusd == 10


async def test_what_comes_late_is_on_the_next_invoice(rig: InvoiceRig) -> None:
    """Facts beyond the cut are lines of the next month; the closed one stays as it is."""
    rig.clock.at, rig.log.end, rig.log.read_up_to = AFTER_GRACE, 9, 9
    await rig.usage.record([metered(LAST_MOMENT, 10, seq=9)])
    assert await rig.closing.look() == 1
    closed = await rig.preview("2026-11")
    await rig.usage.record([metered(LAST_MOMENT, 7, seq=10), metered(AFTER_GRACE, 5, seq=11)])
    await rig.usage.record([metered(LAST_MOMENT, 0, seq=8)])
    december = await rig.preview()
    assert [(line.kind.value, line.amount_microusd) for line in december.lines] == [
        ("usage", 5),
        ("late", 7),
    ]
    assert (december.month, december.lines[1].from_day) == ("2026-12", date(2026, 11, 30))
    assert await rig.preview("2026-11") == closed
    assert await rig.receivable(NOVEMBER) == 10


async def test_nothing_is_metered_between_the_end_of_the_log_and_the_cut(rig: InvoiceRig) -> None:
    """Whoever meters while a month is being cut either is within the cut or sees it (I2)."""
    rig.clock.at = AFTER_GRACE
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow_end() -> int:
        asked.set()
        await answer.wait()
        return 5

    cutting = asyncio.create_task(rig.book.cut(DECEMBER, AFTER_GRACE, slow_end, None))
    await asked.wait()
    metering = asyncio.create_task(rig.usage.record([metered(LAST_MOMENT, 3, seq=6)]))
    await asyncio.sleep(0.1)
    assert not metering.done()
    answer.set()
    assert await cutting == 1
    await metering
    [row] = await rig.postgres.fetch("select period from billing.usage_days")
    assert row["period"] == DECEMBER


async def test_a_month_without_anything_has_no_invoice(rig: InvoiceRig) -> None:
    """It is closed; there is no invoice of nothing, and none to show."""
    rig.clock.at = AFTER_GRACE
    assert await rig.closing.look() == 1
    assert (await rig.close("2026-11")).invoice is None
    assert (await rig.preview("2026-11")).lines == ()
    with pytest.raises(NotFoundError, match="preview"):
        await rig.ask("show-invoice", ShowInvoice(tenant="acme", month="2026-11"), Invoice)


async def test_usage_that_costs_nothing_has_an_invoice_of_nothing(rig: InvoiceRig) -> None:
    """What was used is told, also where all of it is free."""
    await rig.usage.record([metered(BORN, 0)])
    rig.clock.at, rig.log.read_up_to = AFTER_GRACE, 1
    assert await rig.closing.look() == 1
    closed = (await rig.close("2026-11")).invoice
    assert closed is not None
    assert (len(closed.lines), closed.due_microusd) == (1, 0)


async def test_months_that_nobody_closed_are_closed_one_after_the_other(rig: InvoiceRig) -> None:
    """After a long outage every month has its own invoice; the year's end is no exception."""
    await rig.subscribe(NOVEMBER, fee_microusd=100)
    rig.clock.at = datetime(2027, 3, 1, 3, tzinfo=UTC)
    assert await rig.closing.look() == 4
    listed = await rig.ask("list-invoices", ListInvoices(tenant="acme"), InvoiceList)
    months = [invoice.month for invoice in listed.invoices]
    assert months == ["2027-02", "2027-01", "2026-12", "2026-11"]
    assert {invoice.due_microusd for invoice in listed.invoices} == {100}
    page = ListInvoices(tenant="acme", before="2027-01", limit=1)
    [last] = (await rig.ask("list-invoices", page, InvoiceList)).invoices
    assert last.month == "2026-12"


async def test_months_of_many_tenants_are_cut_some_at_a_time(rig: InvoiceRig) -> None:
    """Metering does not wait until the months of everybody are cut; one look leaves none out."""
    await rig.postgres.fetch(
        "insert into billing.tenants (tenant, name, status, requests_per_minute, created_at)"
        " select 'many-' || n, 'x', 'active', 60, '2026-11-01' from generate_series(1, 1500) as n"
    )
    rig.clock.at, rig.log.end = AFTER_GRACE, 5
    assert await rig.book.cut(DECEMBER, AFTER_GRACE, rig.log.last_seq, None) == 1_000
    assert await rig.closing.look() == 0
    assert len(await rig.book.cuts(None)) == 1_501


async def test_months_before_one_that_was_cut_are_closed_too(rig: InvoiceRig) -> None:
    """Their facts stand before the cut and were read after it: no month is left out."""
    rig.log.end = rig.log.read_up_to = 9
    await rig.usage.record([metered(BORN - timedelta(days=1), 5, seq=9)])
    rig.clock.at = BORN + timedelta(days=1)
    assert await rig.closing.look() == 1
    early = (datetime(2026, month, 5, tzinfo=UTC) for month in (8, 9))
    await rig.usage.record([metered(at, 7, seq=1) for at in early])
    rig.clock.at = AFTER_GRACE
    await rig.closing.look()
    closed = await rig.postgres.fetch(
        "select period from billing.periods where status = 'closed' order by 1"
    )
    assert [row["period"].month for row in closed] == [8, 9, 10, 11]


async def test_credit_pays_and_what_has_expired_is_gone(rig: InvoiceRig) -> None:
    """A grant pays for usage up to its last day, at midnight; what is left then is posted (I2)."""
    ends = await rig.grant(1_000, date(2026, 11, 30), "ends")
    await rig.grant(1_000, date(2026, 12, 1), "later")
    await rig.usage.record([metered(LAST_MOMENT, 300)])
    rig.clock.at, rig.log.read_up_to = AFTER_GRACE, 1
    await rig.closing.look()
    november = await rig.preview("2026-11")
    assert (november.credit_microusd, november.due_microusd) == (300, 0)
    uses = await rig.postgres.fetch(
        "select grant_id::text, kind, microusd from billing.grant_uses order by kind desc"
    )
    assert [tuple(row) for row in uses] == [(ends, "paid", 300), (ends, "expired", 700)]
    await rig.usage.record([metered(END, 50), metered(END + timedelta(days=1), 60)])
    december = await rig.preview("2026-12")
    assert (december.credit_microusd, december.due_microusd) == (50, 60)
    assert await rig.receivable(NOVEMBER) == 0
    assert await rig.balanced()


async def test_what_a_month_owes_the_tenant_is_carried_to_the_next(rig: InvoiceRig) -> None:
    """No invoice is negative, and no correction is lost; previewed before and after the same."""
    await rig.adjust(-1_000)
    await rig.usage.record([metered(BORN, 300), metered(END, 40)])
    rig.clock.at, rig.log.read_up_to = AFTER_GRACE, 1
    before = await rig.preview("2026-12")
    await rig.closing.look()
    november, december = await rig.preview("2026-11"), await rig.preview("2026-12")
    assert (november.subtotal_microusd, november.due_microusd) == (0, 0)
    assert [line.amount_microusd for line in november.lines] == [300, -1_000, 700]
    assert december == before
    assert [line.amount_microusd for line in december.lines] == [40, -700, 660]
    assert await rig.receivable(NOVEMBER) == 0
    assert await rig.balanced()


async def test_one_tenants_trouble_keeps_no_other_month_open(rig: InvoiceRig) -> None:
    """A ledger that says something else than the invoice stops that month alone."""
    await rig.create("globex")
    await rig.usage.record([metered(BORN, 10), metered(BORN, 20, tenant="globex")])
    await rig.postgres.fetch(
        "insert into billing.transfers (tenant, period, kind, debit, credit, microusd, reference)"
        " values ('acme', '2026-11-01', 'odd', 'receivable', 'payments', 1, 'nobody knows')"
    )
    rig.clock.at, rig.log.read_up_to = AFTER_GRACE, 1
    assert await rig.closing.look() == 1
    assert (await rig.preview("2026-11", "globex")).number == "globex-2026-11"
    with pytest.raises(ConflictError, match="reconcile") as refused:
        await rig.close("2026-11")
    assert refused.value.code == "ledger_disagrees"
    assert await rig.postgres.fetchval("select count(*) from billing.invoices") == 1


async def test_nothing_is_closed_while_the_log_is_read_again(rig: InvoiceRig) -> None:
    """Usage that is not there yet would be missing for ever (I9)."""
    await rig.postgres.fetch("insert into billing.rebuild default values")
    rig.clock.at = AFTER_GRACE
    with pytest.raises(UnavailableError) as postponed:
        await rig.closing.look()
    assert postponed.value.code == "rebuilding"
    await rig.postgres.fetch("delete from billing.rebuild")
    assert await rig.closing.look() == 1


async def test_an_operator_closes_what_is_over_and_in_order(rig: InvoiceRig) -> None:
    """Without waiting for the grace; not a month that is not over, nor one before its turn."""
    rig.clock.at = LAST_MOMENT
    with pytest.raises(ConflictError) as refused:
        await rig.close("2026-11")
    assert refused.value.code == "month_not_over"
    rig.clock.at = datetime(2027, 1, 1, tzinfo=UTC)
    with pytest.raises(ConflictError, match="2026-11 first"):
        await rig.close("2026-12")
    rig.log.end = 3
    assert not (await rig.close("2026-11")).closed
    rig.log.read_up_to = 3
    assert (await rig.close("2026-11")).closed
    assert (await rig.close("2026-12")).closed


async def test_a_clock_that_is_ahead_closes_no_month(postgres_dsn: str) -> None:
    """A cut stays for good: neither a replica's clock nor the database's makes it alone (I2)."""
    now = datetime.now(UTC)
    ahead = HandClock(now + timedelta(days=400))
    async with invoice_rig(postgres_dsn) as rig:
        await rig.create(at=now)
        book = PostgresInvoices(rig.postgres, rig.tenants)
        closing = Closing(book, rig.log, ahead, rig.new_id, timedelta(0))
        assert await closing.look() == 0
        command = ClosePeriod(tenant="acme", month=f"{now:%Y-%m}").model_dump_json()
        with pytest.raises(ConflictError) as refused:
            await closing.verbs["close-period"](command.encode(), Act(ahead.at, None, rig.new_id))
        assert refused.value.code == "month_not_over"
        rig.clock.at, rig.book.clock = now, ahead
        assert await rig.closing.look() == 0
        assert await rig.postgres.fetchval("select count(*) from billing.periods") == 0
        rig.clock.at = ahead.at
        assert await rig.closing.look() > 12


async def test_questions_about_months_that_cannot_be(rig: InvoiceRig) -> None:
    """Unknown tenants, months to come: refused; a month before the tenant was there: empty."""
    with pytest.raises(NotFoundError) as unknown:
        await rig.preview(tenant="nobody")
    assert unknown.value.code == "tenant_not_found"
    with pytest.raises(ConflictError) as early:
        await rig.preview("2026-12")
    assert early.value.code == "month_not_begun"
    assert (await rig.preview("2020-02")).lines == ()


async def test_a_plan_that_is_changed_during_closing_waits_or_counts(rig: InvoiceRig) -> None:
    """Whoever holds the tenant's terms is waited for: closing sees what was committed."""
    rig.clock.at = AFTER_GRACE
    await rig.book.cut(DECEMBER, AFTER_GRACE, rig.log.last_seq, None)
    async with rig.postgres.acquire() as connection:
        async with connection.transaction():
            await connection.execute("select from billing.tenants where tenant = 'acme' for update")
            closing = asyncio.create_task(rig.closing.look())
            await asyncio.sleep(0.1)
            assert not closing.done()
            await connection.execute(
                "insert into billing.subscriptions values ('acme', '2026-11-30', 'pay-as-you-go',"
                """ 1, '{"title": "Team", "fee_microusd": 3000}', now())"""
            )
        assert await closing == 1
    assert (await rig.preview("2026-11")).due_microusd == 100


@pytest.mark.parametrize("timezone", ["Pacific/Auckland", "Pacific/Pago_Pago"])
async def test_months_end_in_utc_wherever_the_server_is(postgres_dsn: str, timezone: str) -> None:
    """Thirteen hours ahead or eleven behind: the same days, months and cuts."""
    async with invoice_rig(postgres_dsn, timezone) as rig:
        assert await rig.postgres.fetchval("show timezone") == "UTC"
        await rig.create()
        await rig.grant(50, date(2026, 11, 30))
        await rig.usage.record([metered(BORN, 1), metered(LAST_MOMENT, 20), metered(END, 300)])
        rig.clock.at, rig.log.read_up_to = END + timedelta(hours=1), 1
        assert await rig.closing.look() == 0
        rig.clock.at = AFTER_GRACE
        assert await rig.closing.look() == 1
        november, december = await rig.preview("2026-11"), await rig.preview("2026-12")
        assert (november.credit_microusd, november.due_microusd) == (21, 0)
        assert november.lines[0].to_day == date(2026, 11, 30)
        assert (december.credit_microusd, december.due_microusd) == (0, 300)


async def test_an_invoice_is_never_changed(rig: InvoiceRig) -> None:
    """Not by the service's role, and lines that do not add up are refused."""
    await everything(rig)
    rig.clock.at, rig.log.end, rig.log.read_up_to = AFTER_GRACE, 9, 9
    await rig.closing.look()
    one_more = (
        "insert into billing.invoice_lines"
        " select tenant, period, 99, 'fee', 'more', from_day, to_day, null, null, null, null, 1"
        " from billing.invoice_lines limit 1"
    )
    for statement in (
        one_more,
        "update billing.invoices set due_microusd = 0",
        "delete from billing.invoice_lines",
        "update billing.periods set cut_seq = 1",
    ):
        with pytest.raises(asyncpg.PostgresError):
            await rig.postgres.fetch(statement)
