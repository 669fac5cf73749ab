"""The standing reconciliation finds what is wrong, wherever it was made wrong, and nothing else."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import asyncpg
import pytest
from tests.integration.billing.test_billing_commands import Terminal
from tests.support.billing import (
    Operator,
    StartBilling,
    failed_attempt,
    terminal,
    terminals,
)
from tests.support.router import model_record

from penstock_shared.contracts import subjects
from penstock_shared.contracts.account_commands import CreateTenant
from penstock_shared.contracts.credits import CreditKind, GrantCredit
from penstock_shared.contracts.plan_commands import AssignPlan, PublishPlan
from penstock_shared.contracts.plans import Meter, PlanTerms, Tier, TieredCharge
from penstock_shared.contracts.reconciliation import Check, Reconcile, ReconciliationReport
from penstock_shared.contracts.streams import EVENTS, Bucket
from penstock_shared.runtime import kv
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.provision import provision

NOW = datetime.now(UTC)
TIERED = PlanTerms(
    title="Tiered",
    fee_microusd=20_000_000,
    included_microusd=1_000,
    minimum_microusd=30_000_000,
    tiers=(
        TieredCharge(
            model="small",
            meter=Meter.OUTPUT_TOKENS,
            tiers=(Tier(up_to=5_000, microusd=900), Tier(microusd=300, flat_microusd=7)),
        ),
    ),
)


async def reconcile(operator: Operator, since: str | None = None) -> ReconciliationReport:
    """Once all that is in EVENTS has been metered and compared, or comparing has stopped."""
    await operator.caught_up()
    compared = -1
    while True:
        answer = await operator.ask(subjects.billing("reconcile"), Reconcile(since=since))
        report = ReconciliationReport.model_validate_json(answer)
        if report.behind == 0 or report.events_seq == compared:
            return report
        compared = report.events_seq


@pytest.fixture
async def books(
    operator: Operator, start_billing: StartBilling, broker: Broker, postgres_dsn: str
) -> AsyncIterator[asyncpg.Connection]:
    """Billing with two tenants, one of which has tiers, and an owner's connection to its tables."""
    await provision(broker, 1)
    await kv.put(broker, Bucket.MODELS, "small", model_record("small").model_dump_json().encode())
    async with start_billing():
        for tenant in ("acme", "globex"):
            await operator.command("create-tenant", CreateTenant(tenant=tenant, name=tenant))
        publish = PublishPlan(plan="tiered", terms=TIERED)
        await operator.ask(subjects.billing("publish-plan"), publish)
        assign = AssignPlan(tenant="acme", plan="tiered")
        await operator.ask(subjects.billing("assign-plan"), assign)
        grant = GrantCredit(
            tenant="acme", kind=CreditKind.PREPAID, microusd=3_000_000, reference="bought"
        )
        await operator.ask(subjects.billing("grant-credit"), grant)
        connection = await asyncpg.connect(postgres_dsn)
        yield connection
        await connection.close()


async def use_something(operator: Operator, count: int = 60) -> None:
    """Requests of both tenants, some with an attempt that failed, each fact up to three times."""
    rng = random.Random(1)
    for ended in terminals(rng, count):
        fact = ended.model_copy(update={"routed_at": NOW, "ended_at": NOW})
        if rng.random() < 0.3:
            fact = fact.model_copy(update={"attempt": 2})
            failed = failed_attempt(fact, (3, 4))
            await operator.publish_failed(failed.model_copy(update={"routed_at": NOW}))
        for _ in range(rng.randint(1, 3)):
            await operator.publish(fact)


async def test_nothing_differs_where_nothing_is_wrong(
    books: asyncpg.Connection, operator: Operator
) -> None:
    """Duplicates, retries, tiers, a fee and what is malformed: explained or equal (I2)."""
    await use_something(operator)
    await operator.publish_raw(subjects.request_event("acme", terminal().request_id), b"{}")
    report = await reconcile(operator)
    assert (report.differences, report.behind, report.months) == ((), 0, 2)
    assert await books.fetchval("select events_seq from billing.reconciled") == report.events_seq
    assert (await reconcile(operator)).differences == ()


async def test_what_lies_in_dead_needs_no_row(
    books: asyncpg.Connection, operator: Operator
) -> None:
    """A fact that can be read and not be stored: it ended at a time that no database knows."""
    await use_something(operator, 10)
    fact = terminal(routed_at=NOW)
    never = fact.model_dump_json(exclude={"ended_at"})[:-1]
    never += ', "ended_at": "9999-12-31T23:59:59-12:00"}'
    await operator.publish_raw(subjects.request_event("acme", fact.request_id), never.encode())
    report = await reconcile(operator)
    assert (report.differences, report.behind) == ((), 0)
    stored = "select count(*) from billing.usage where request_id = $1"
    assert await books.fetchval(stored, fact.request_id) == 0


async def test_it_goes_on_where_it_ended(
    books: asyncpg.Connection, operator: Operator, broker: Broker
) -> None:
    """What was compared is not read again, and sums of both parts are one sum."""
    await use_something(operator)
    first = await reconcile(operator)
    await use_something(operator, 20)  # the same ones again, and nothing new
    await operator.publish(terminal(routed_at=NOW))
    second = await reconcile(operator)
    assert (second.differences, second.behind) == ((), 0)
    assert second.events_seq > first.events_seq
    attempts = await books.fetchval("select sum(attempts) from billing.reconciled_usage")
    assert attempts == await books.fetchval("select count(*) from billing.usage")
    await broker.jetstream.purge_stream(EVENTS, seq=second.events_seq + 1)
    assert (await reconcile(operator)).differences == ()


async def test_what_has_left_the_log_is_taken_as_it_is(
    books: asyncpg.Connection,
    operator: Operator,
    broker: Broker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Some rows at a time: a statement over all of them would take longer than it may."""
    monkeypatch.setattr("penstock_billing.handlers.reconciliation._GONE_AT_ONCE", 7)
    await use_something(operator)
    last = (await operator.caught_up()).events_seq
    await broker.jetstream.purge_stream(EVENTS, seq=last)
    report = await reconcile(operator)
    assert (report.differences, report.events_seq) == ((), last)
    attempts = await books.fetchval("select sum(attempts) from billing.reconciled_usage")
    assert attempts == await books.fetchval("select count(*) from billing.usage") > 0


# ruff: noqa: S608  nothing but constants is put together
_POST = """
insert into billing.transfers (tenant, period, kind, debit, credit, microusd, reference)
select tenant, period, '{kind}', 'receivable', '{credit}', 7, 'nothing'
from billing.balances limit 1"""
_ONE_ROW = "where event_seq = (select event_seq from billing.usage order by 1 offset {n} limit 1)"
WRONG = (
    ("delete from billing.usage " + _ONE_ROW.format(n=0), Check.FACTS, "attempt 1: rows"),
    (
        """
        insert into billing.usage (tenant, request_id, attempt, event_seq, model, key_id, status,
                                   input_tokens, output_tokens, cost_microusd, ended_at)
        select tenant, gen_random_uuid(), 1, event_seq, model, key_id, status, 1, 1, 1, ended_at
        from billing.usage limit 1""",
        Check.FACTS,
        "rows without a fact",
    ),
    (
        "update billing.usage set cost_microusd = cost_microusd + 1 " + _ONE_ROW.format(n=1),
        Check.FACTS,
        ": cost_microusd",
    ),
    (
        "update billing.usage set model = 'other' " + _ONE_ROW.format(n=2),
        Check.FACTS,
        "the same model",
    ),
    (
        "update billing.usage set period = '2020-01-01' " + _ONE_ROW.format(n=3),
        Check.FACTS,
        "its month is",
    ),
    (
        "update billing.usage_days set tool_calls = tool_calls + 1",
        Check.SUMS,
        "tool_calls of the days",
    ),
    ("delete from billing.usage_minutes", Check.SUMS, "output_tokens of the minutes"),
    (
        "update billing.usage_users set cost_microusd = cost_microusd - 1",
        Check.SUMS,
        "cost_microusd of the users",
    ),
    (_POST.format(kind="odd", credit="adjustments"), Check.INVOICE, "what the preview has due"),
    (_POST.format(kind="usage", credit="usage"), Check.LEDGER, "usage"),
    (
        """
        alter table billing.transfers disable trigger append_only;
        delete from billing.transfers
        where id = (select id from billing.transfers where kind = 'usage' limit 1)""",
        Check.LEDGER,
        "the balance of receivable",
    ),
    (
        "update billing.balances set credit = credit + 5 where account = 'credits'",
        Check.LEDGER,
        "credit that is left",
    ),
    (
        """
        insert into billing.reservations (
            tenant, request_id, attempt, tokens, microusd, model, key_id, data_subject,
            input_microusd_per_1k, output_microusd_per_1k, accepted_at, deadline)
        values ('acme', gen_random_uuid(), 1, 9, 9, 'small', 'key_1', 'somebody', 1, 1, now(),
                now())""",
        Check.LEDGER,
        "what is reserved",
    ),
    (
        "update billing.balances set debit = debit + 5 where account = 'usage'",
        Check.LEDGER,
        "all accounts",
    ),
)


async def test_whatever_is_wrong_is_found(books: asyncpg.Connection, operator: Operator) -> None:
    """A hand in the tables: each slip is found where it was made, and told until put right."""
    await use_something(operator, 20)
    await operator.caught_up()
    for statement, check, what in WRONG:
        await books.execute(statement)
        report = await reconcile(operator, f"{NOW:%Y-%m}")
        found = [one for one in report.differences if one.check is check and what in one.what]
        assert found, (what, report.differences)
        assert all(one.explained is None for one in found)
    told = [(one.check, one.what) for one in report.differences]
    assert all(any(c is check and what in w for c, w in told) for _, check, what in WRONG)
    assert report.behind > 0  # the log is compared up to the first fact that differs


async def test_what_was_compared_and_then_changed_is_found(
    books: asyncpg.Connection, operator: Operator
) -> None:
    """Rows that agreed with their facts are not looked at again, but all that adds them up is."""
    await use_something(operator)
    assert (await reconcile(operator)).differences == ()
    await books.execute("update billing.usage_days set cost_microusd = cost_microusd + 1")
    found = {one.check for one in (await reconcile(operator)).differences}
    assert {Check.SUMS, Check.LEDGER} <= found


async def test_what_was_summed_is_read_again_for_an_operator(
    books: asyncpg.Connection, operator: Operator
) -> None:
    """A look costs what is new; who names a month has all of it read, rows and transfers."""
    await use_something(operator)
    assert (await reconcile(operator)).differences == ()
    summed = "select coalesce(sum(microusd), 0) from billing.reconciled_transfers"
    assert await books.fetchval(summed) > 0
    await books.execute("alter table billing.transfers disable trigger append_only")
    await books.execute("delete from billing.transfers where kind = 'usage'")
    await books.execute("delete from billing.usage " + _ONE_ROW.format(n=0))
    assert (await reconcile(operator)).differences == ()
    found = {one.what for one in (await reconcile(operator, f"{NOW:%Y-%m}")).differences}
    assert {"the balance of receivable", "output_tokens of the days"} <= found


HELD_AND_RELEASED = """
insert into billing.transfers (tenant, period, kind, debit, credit, microusd, reference)
select 'acme', date_trunc('month', now())::date, kind, debit, credit, 5, 'reservations'
from (values ('hold', 'commitments', 'reservations'),
             ('release', 'reservations', 'commitments')) as v (kind, debit, credit)"""


SUMMED = """
select (select sum(microusd) from billing.reconciled_transfers),
       (select sum(microusd) from billing.transfers, billing.reconciled
        where xid < transfers_xid)"""


async def test_each_transfer_is_summed_once(
    books: asyncpg.Connection, operator: Operator, start_billing: StartBilling
) -> None:
    """While others are written, by two replicas, and on a server that counts transactions anew."""
    async with start_billing():
        for number in range(6):
            await use_something(operator, 5 * number)
            looks = (operator.ask(subjects.billing("reconcile"), Reconcile()) for _ in range(6))
            for answer in await asyncio.gather(*looks):
                assert ReconciliationReport.model_validate_json(answer).drift == 0
    async with books.transaction():  # which ends after others that began later were summed
        await books.execute(HELD_AND_RELEASED)
        for _ in range(2):
            await operator.publish(terminal(routed_at=NOW))
            assert (await reconcile(operator)).differences == ()
    assert (await reconcile(operator)).differences == ()
    assert len(set(await books.fetchrow(SUMMED))) == 1
    await books.execute("update billing.reconciled set transfers_xid = 1::bigint << 60")
    assert (await reconcile(operator)).differences == ()
    assert await books.fetchval("select transfers_xid from billing.reconciled") == 0
    assert (await reconcile(operator)).differences == ()
    assert len(set(await books.fetchrow(SUMMED))) == 1


async def test_an_operator_sees_it_at_the_terminal(
    books: asyncpg.Connection, operator: Operator, nats_url: str
) -> None:
    """Reconciled, and where it is not: which figure, of whom, and status 1."""
    terminal_ = Terminal(nats_url)
    await use_something(operator, 10)
    await operator.caught_up()
    status, out, _ = await terminal_.run("billing", "reconcile")
    assert (status, "reconciled" in out) == (0, True)
    await books.execute("update billing.usage_users set output_tokens = output_tokens + 1")
    status, out, _ = await terminal_.run("billing", "reconcile")
    assert (status, "output_tokens of the users" in out) == (1, True)
    status, out, _ = await terminal_.run("billing", "reconcile", "--json")
    assert (status, ReconciliationReport.model_validate_json(out).drift > 0) == (1, True)
    status, _, error = await terminal_.run("billing", "reconcile", "--since", "May")
    assert (status, "since" in error) == (1, True)


async def test_usage_of_no_tenant_is_found(books: asyncpg.Connection, operator: Operator) -> None:
    """Nobody would ever be asked to pay it."""
    await operator.publish(terminal(tenant="nobody", routed_at=NOW))
    (difference,) = (await reconcile(operator)).differences
    assert (difference.check, difference.tenant) == (Check.INVOICE, "nobody")


async def test_two_replicas_compare_at_once(
    books: asyncpg.Connection, operator: Operator, start_billing: StartBilling
) -> None:
    """Each part of the log is summed once, whoever is faster."""
    await use_something(operator, 200)
    await operator.caught_up()
    async with start_billing():
        answers = await asyncio.gather(
            *(operator.ask(subjects.billing("reconcile"), Reconcile()) for _ in range(8))
        )
    for answer in answers:
        assert ReconciliationReport.model_validate_json(answer).drift == 0
    assert (await reconcile(operator)).differences == ()


async def test_rows_that_are_read_again_are_compared_again(
    operator: Operator, start_billing: StartBilling, postgres_dsn: str
) -> None:
    """After a truncation nothing is compared until the log was read, and then all of it (I9)."""
    async with start_billing():
        await operator.command("create-tenant", CreateTenant(tenant="acme", name="Acme"))
        for _ in range(9):
            await operator.publish(terminal(routed_at=NOW))
        assert (await reconcile(operator)).events_seq > 0
        connection = await asyncpg.connect(postgres_dsn)
        await connection.execute("truncate billing.usage")
        assert await connection.fetchval("select events_seq from billing.reconciled") == 0
        await connection.close()
        refused = await operator.ask(subjects.billing("reconcile"), Reconcile())
        assert b"rebuilding" in refused
    async with start_billing(position_interval_s=0.1):
        await operator.caught_up()
        async with asyncio.timeout(10):
            while b"rebuilding" in await operator.ask(subjects.billing("reconcile"), Reconcile()):
                await asyncio.sleep(0.1)
        report = await reconcile(operator)
    assert (report.differences, report.behind, report.months) == ((), 0, 1)
