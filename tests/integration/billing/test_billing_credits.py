"""Prepaid credit on a real PostgreSQL: a bound that no concurrency passes (I4), and its ledger."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from pydantic import BaseModel
from tests.support.billing import Operator, StartBilling, terminal
from tests.support.credits import (
    ByHand,
    NoRelay,
    asked,
    at_noon,
    cost,
    days,
    grant,
    left,
    prepaid,
    subscribe,
)
from tests.support.quotas import QuotaRig, metered, quota_rig, tenant

from penstock_billing import metrics
from penstock_billing.adapters.postgres_credits import PostgresCredits
from penstock_billing.adapters.postgres_invoices import PostgresInvoices
from penstock_billing.adapters.postgres_ledger import balances
from penstock_billing.adapters.postgres_months import PostgresMonths
from penstock_billing.adapters.postgres_outbox import PostgresOutbox
from penstock_billing.adapters.postgres_roles import TenantPostgres
from penstock_billing.adapters.postgres_thresholds import PostgresThresholds
from penstock_billing.domain.announcements import Act
from penstock_billing.domain.invoicing import DrawnUp, draw_up
from penstock_billing.domain.plans import month_start, next_month
from penstock_billing.handlers.closing import Closing
from penstock_billing.handlers.credits import CreditCommands
from penstock_billing.handlers.thresholds import Thresholds
from penstock_billing.ports.credits import Grant
from penstock_billing.ports.ledger import Account
from penstock_billing.ports.usage import Position
from penstock_shared.contracts import subjects
from penstock_shared.contracts.account_commands import CreateTenant, UpdateTenant
from penstock_shared.contracts.accounts import SuspensionReason, TenantRecord, TenantStatus
from penstock_shared.contracts.credits import (
    Adjust,
    AdjustmentMade,
    CreditGrant,
    CreditKind,
    CreditList,
    GrantCredit,
)
from penstock_shared.contracts.errors import (
    ConflictError,
    PenstockError,
    RateLimitedError,
    SchemaError,
)
from penstock_shared.contracts.quotas import Quota
from penstock_shared.contracts.reservations import reservations_json
from penstock_shared.runtime.clock import IdSource, SystemClock

TODAY = datetime.now(UTC).date()
MONTH = date(2026, 3, 1)


@pytest.fixture
async def rig(postgres_dsn: str) -> AsyncIterator[QuotaRig]:
    """Billing's database, and a router's gate to it."""
    async with quota_rig(postgres_dsn) as made:
        yield made
        await made.check_sums()
        await _check_memorandum(made)


async def _check_memorandum(rig: QuotaRig) -> None:
    """The ledger's `reservations` are what open reservations add up to, month by month."""
    rows = await rig.postgres.fetch(
        """select tenant, period, sum(credit - debit) as amount from billing.balances
           where account = 'reservations' group by 1, 2 having sum(credit - debit) <> 0"""
    )
    held = await rig.postgres.fetch(
        """select tenant, date_trunc('month', accepted_on::timestamp)::date as period,
                  sum(microusd) as amount from billing.reservations group by 1, 2
           having sum(microusd) > 0"""
    )
    assert sorted(map(tuple, rows)) == sorted(map(tuple, held))


async def _account(rig: QuotaRig, account: Account, of: str = "acme") -> int:
    """What stands on an account in the month of today: credit less debit."""
    async with rig.postgres.acquire() as connection:
        found = await balances(connection, of, month_start(TODAY))
    return sum(one.credit - one.debit for one in found if one.account is account)


async def _do(rig: QuotaRig, verb: str, command: BaseModel, at: datetime | None = None) -> Any:
    act = Act(at or datetime.now(UTC), None, IdSource(SystemClock()).new)
    desk = CreditCommands(PostgresCredits(rig.postgres), NoRelay())
    return await desk.verbs[verb](command.model_dump_json().encode(), act)


async def test_200_submitters_use_credit_up_and_not_one_micro_dollar_more(rig: QuotaRig) -> None:
    """Included and two grants together are the bound, at every instant; all of it is used (I4)."""
    acme = await prepaid(rig, included=300)
    covered = await left(rig) + 400 + 300
    await grant(rig, 400)
    await grant(rig, 300, expires_on=TODAY)
    full = asyncio.Event()
    most = 0

    async def watch() -> None:
        nonlocal most
        store = PostgresCredits(rig.postgres)
        while not full.is_set():
            (state,) = await store.prepaid("acme", TODAY)
            most = max(most, state.settled_microusd + state.reserved_microusd)
            await asyncio.sleep(0.005)

    async def submit(number: int) -> int:
        used = 0
        while True:
            request = asked(10)
            try:
                await rig.gate.reserve(acme, request)
            except RateLimitedError as error:
                if error.retry_after_s > 1:
                    full.set()
                    return used
                await asyncio.sleep(0.005)
                continue
            await rig.end(cost(request, spent := 1 + number % 10))
            used += spent

    watcher = asyncio.create_task(watch())
    used = sum(await asyncio.gather(*map(submit, range(200))))
    await watcher
    assert most <= covered
    assert covered - 10 < used <= covered
    last = asked(covered - used)
    await rig.gate.reserve(acme, last)
    await rig.end(cost(last, covered - used))
    assert await left(rig) == 0
    drawn = await _drawn_up(rig)
    assert (drawn.invoice.usage_microusd, drawn.invoice.due_microusd) == (covered, 0)


async def _drawn_up(rig: QuotaRig) -> DrawnUp:
    """This month of acme's, as it is previewed."""
    async with rig.postgres.acquire() as connection:
        month = PostgresMonths(connection, "acme")
        return draw_up(await month.records(month_start(TODAY)), await month.grants(), 0)


@pytest.mark.parametrize("seed", range(6))
async def test_the_bound_is_what_can_still_be_paid(rig: QuotaRig, seed: int) -> None:
    """Against a sum by hand: two months, plans that change, grants that expire in between (I4).

    To the micro-dollar as long as all is paid; where more was used than can be paid (a plan that
    had allowed it), nothing makes it worse.
    """
    rng = random.Random(seed)
    horizon = days(MONTH + timedelta(days=rng.randrange(24)), 14)
    acme = await prepaid(rig, on=MONTH, included=rng.choice((0, 31 * 4)))
    await subscribe(rig, "acme", rng.choice(horizon), included=rng.choice((0, 30 * 31)))
    plans = await rig.postgres.fetch(
        "select from_day, (terms ->> 'included_microusd')::bigint as included"
        " from billing.subscriptions order by 1"
    )
    hand = ByHand()
    for month in {month_start(day) for day in horizon}:
        hand.included[month] = _included(month, [(row[0], row[1]) for row in plans])
    for number in range(30):
        if number % 6 == 0:
            made = await grant(
                rig,
                rng.randrange(1, 120),
                expires_on=rng.choice([None, *horizon]),
                priority=rng.randrange(2),
                at=at_noon(MONTH),
            )
            hand.grants.append(
                Grant(made.grant_id, made.microusd, made.priority, made.expires_on, made.granted_at)
            )
        day = rng.choice(horizon)
        room = await left(rig, day)
        assert hand.unpaid(room, day) == hand.unpaid() == 0
        assert hand.unpaid(room + 1, day) == 1
        wanted = asked(rng.randrange(1, 60), on=day)
        amount = wanted.reserves[0].microusd
        if amount > room:
            with pytest.raises(RateLimitedError, match="credit") as refused:
                await rig.gate.reserve(acme, wanted)
            assert refused.value.code == "insufficient_credit"
            continue
        await rig.gate.reserve(acme, wanted)
        if rng.random() < 0.7:
            used = rng.randrange(amount + 1)
            await rig.end(cost(wanted, used))
            hand.use(day, used)
        else:
            hand.use(day, amount)
    # Somebody else's use, which nothing had held back.
    beyond = asked(1, on=horizon[3]), 10_000
    await rig.ledger.record([metered(cost(beyond[0], beyond[1]))])
    hand.use(horizon[3], beyond[1])
    for day in horizon:
        room = await left(rig, day)
        assert hand.unpaid(room, day) == hand.unpaid()


def _included(month: date, plans: list[tuple[date, int]]) -> int:
    """By hand: each plan's amount by its days, at most a micro-dollar lower than exactly."""
    ends = [day for day, _ in plans[1:]] + [next_month(month)]
    total, length = 0, (next_month(month) - month).days
    for (start, amount), end in zip(plans, ends, strict=True):
        first, last = max(start, month), min(end, next_month(month))
        if first < last:
            through, before = (last - month).days, (first - month).days
            total += amount * through // length - amount * before // length
    return total


async def test_credit_that_expires_while_it_is_held_still_pays(rig: QuotaRig) -> None:
    """The day of acceptance counts, not that of the end; for the next day it is gone."""
    acme = await prepaid(rig)
    yesterday = TODAY - timedelta(days=1)
    await grant(rig, 100, expires_on=yesterday, at=at_noon(yesterday))
    held = asked(60, on=yesterday)
    await rig.gate.reserve(acme, held)
    assert (await left(rig, yesterday), await left(rig)) == (40, 0)
    with pytest.raises(RateLimitedError, match="add credit"):
        await rig.gate.reserve(acme, asked(1))
    await rig.end(cost(held, 60))
    assert (await left(rig, yesterday), await left(rig)) == (40, 0)


class _WholeLog:
    """All of the event log is read."""

    async def read(self) -> Position:
        return Position(events_seq=10, lag=0)

    async def last_seq(self) -> int:
        return 10


async def test_a_month_waits_for_what_is_held_in_it(rig: QuotaRig) -> None:
    """Credit that ends with the month pays for what was let in on its last day, then is gone."""
    last = month_start(TODAY) - timedelta(days=1)
    acme = await prepaid(rig)
    made = await grant(rig, 100, expires_on=last, at=at_noon(last))
    held = asked(60, on=last)
    await rig.gate.reserve(acme, held)
    clock = SystemClock()
    book = PostgresInvoices(rig.postgres, TenantPostgres(rig.postgres))
    closing = Closing(book, _WholeLog(), clock, IdSource(clock).new, timedelta(0))
    assert await closing.look() == 0
    assert metrics.PERIODS_HELD._value.get() == 1
    await rig.end(cost(held, 45))
    assert await closing.look() == 1
    assert metrics.PERIODS_HELD._value.get() == 0
    (row,) = await rig.postgres.fetch("select * from billing.invoices")
    assert (row["period"], row["credit_microusd"], row["due_microusd"]) == (
        month_start(last),
        45,
        0,
    )
    listed = await _do(rig, "list-credits", CreditListQuery())
    assert [(g.grant_id, g.spent_microusd, g.expired_microusd) for g in listed.credits] == [
        (made.grant_id, 45, 55)
    ]
    assert await left(rig) == 0
    (row,) = await rig.postgres.fetch(
        "select sum(credit - debit) as there from billing.balances where account = 'credits'"
    )
    assert row["there"] == 0


async def test_whoever_cuts_a_month_waits_for_who_reserves_in_it(rig: QuotaRig) -> None:
    """Either the cut sees what is held, or who reserves sees the cut: credit is promised once."""
    last = month_start(TODAY) - timedelta(days=1)
    acme = await prepaid(rig)
    await grant(rig, 100, expires_on=last, at=at_noon(last))
    held = asked(60, on=last)
    book = PostgresInvoices(rig.postgres, TenantPostgres(rig.postgres))

    def cut() -> asyncio.Task[int]:
        return asyncio.create_task(
            book.cut(month_start(TODAY), at_noon(TODAY), _WholeLog().last_seq, None)
        )

    async with rig.postgres.acquire() as connection:
        async with connection.transaction():
            await connection.fetch("select billing.reserve($1)", reservations_json([held]))
            cutting = cut()
            await asyncio.sleep(0.2)
            assert not cutting.done()
        assert await cutting == 0
    await rig.end(cost(held, 45))
    assert await cut() == 1
    assert await left(rig, last) == 0
    with pytest.raises(RateLimitedError, match="add credit"):
        await rig.gate.reserve(acme, asked(1, on=last))


async def test_closed_months_have_taken_theirs(rig: QuotaRig) -> None:
    """What an invoice took counts once; what comes late, credit pays, and nothing included."""
    acme = await prepaid(rig, included=310)
    february, march = date(2026, 2, 1), MONTH
    made = await grant(rig, 100, at=at_noon(february))
    late = asked(20, on=date(2026, 2, 28))
    for request in (asked(330, on=date(2026, 2, 10)), late):
        await rig.gate.reserve(acme, request)
        if request is not late:
            await rig.end(cost(request, 330))
    await rig.postgres.fetch(
        """insert into billing.periods (tenant, period, status, cut_seq, cut_at, closed_at)
           values ('acme', $1, 'closed', 1, now(), now())""",
        february,
    )
    await rig.postgres.fetch(
        "insert into billing.grant_uses values ($1, 'acme', $2, 'paid', 20)",
        made.grant_id,
        february,
    )
    assert await left(rig, march) == 310 + 80 - 20
    await rig.ledger.record([metered(cost(late, 20))._replace(event_seq=2)])
    assert await left(rig, march) == 310 + 80 - 20
    with pytest.raises(asyncpg.CheckViolationError):
        await rig.postgres.fetch(
            "insert into billing.grant_uses values ($1, 'acme', $2, 'paid', 81)",
            made.grant_id,
            march,
        )


async def test_whoever_may_go_over_is_not_held_back(rig: QuotaRig) -> None:
    """From the day on which its plan allows overage; a quota besides it holds all the same."""
    acme = await prepaid(rig, quotas="microusd/day=50")
    with pytest.raises(RateLimitedError, match="credit"):
        await rig.gate.reserve(acme, asked(10))
    await subscribe(rig, "acme", TODAY, overage=True)
    await rig.gate.reserve(acme, asked(10))
    with pytest.raises(RateLimitedError, match="50 microusd per day"):
        await rig.gate.reserve(acme, asked(41))


async def test_a_plans_quotas_hold_from_its_first_day(rig: QuotaRig) -> None:
    """Besides the tenant's own."""
    acme = await prepaid(rig, quotas="requests/day=9")
    terms = {"title": "Small", "overage": True, "quotas": [json.loads(_tokens(30))]}
    await rig.postgres.fetch(
        "update billing.subscriptions set from_day = $1, terms = $2", TODAY, json.dumps(terms)
    )
    await rig.gate.reserve(acme, asked(31, on=TODAY - timedelta(days=1)))
    await rig.gate.reserve(acme, asked(30))
    with pytest.raises(RateLimitedError, match="30 tokens per day is held"):
        await rig.gate.reserve(acme, asked(1))
    states = await rig.accounts.quotas("acme", datetime.now(UTC))
    assert [(s.unit.value, s.limit, s.reserved) for s in states] == [
        ("requests", 9, 1),
        ("tokens", 30, 30),
    ]


def _tokens(limit: int) -> str:
    return Quota(unit="tokens", period="day", limit=limit).model_dump_json()


async def test_granting_twice_is_granting_once(rig: QuotaRig) -> None:
    """By its reference; the ledger has one transfer, and another amount is refused."""
    await rig.set_quotas(tenant("acme"))
    command = GrantCredit(
        tenant="acme", kind=CreditKind.PREPAID, microusd=500, reference="order 17"
    )
    first, again = [await _do(rig, "grant-credit", command) for _ in range(2)]
    assert first == again
    with pytest.raises(ConflictError) as other:
        await _do(rig, "grant-credit", command.model_copy(update={"microusd": 501}))
    assert (other.value.code, other.value.param) == ("reference_taken", "reference")
    assert await _account(rig, Account.CREDITS) == 500
    assert await _account(rig, Account.PAYMENTS) == -500
    gift = GrantCredit(
        tenant="acme",
        kind=CreditKind.PROMOTIONAL,
        microusd=70,
        priority=1,
        expires_on=TODAY,
        reference="welcome",
    )
    await _do(rig, "grant-credit", gift)
    assert await _account(rig, Account.ADJUSTMENTS) == -70
    listed = await _do(rig, "list-credits", CreditListQuery())
    assert isinstance(listed, CreditList)
    assert [one.reference for one in listed.credits] == ["welcome", "order 17"]
    assert listed.prepaid == ()
    for wrong, code in (
        (gift.model_copy(update={"tenant": "nobody"}), "tenant_not_found"),
        (
            gift.model_copy(update={"expires_on": TODAY - timedelta(days=1), "reference": "x"}),
            "day_out_of_range",
        ),
    ):
        with pytest.raises(PenstockError) as refused:
            await _do(rig, "grant-credit", wrong)
        assert refused.value.code == code


class CreditListQuery(BaseModel):
    """All tenants'."""


async def test_a_correction_is_on_the_next_open_invoice(rig: QuotaRig) -> None:
    """Once by its reference; a month that was cut takes none any more."""
    await rig.set_quotas(tenant("acme"))
    command = Adjust(tenant="acme", microusd=-40, reason="outage on the 3rd", reference="case 9")
    made, again = [await _do(rig, "adjust", command) for _ in range(2)]
    assert isinstance(made, AdjustmentMade)
    assert made == again
    assert made.month == f"{TODAY:%Y-%m}"
    assert await _account(rig, Account.RECEIVABLE) == 40
    assert await _account(rig, Account.ADJUSTMENTS) == -40
    await rig.postgres.fetch(
        """insert into billing.periods (tenant, period, status, cut_seq, cut_at)
           values ('acme', $1, 'closing', 1, now())""",
        month_start(TODAY),
    )
    after = await _do(rig, "adjust", command.model_copy(update={"reference": "case 10"}))
    assert after.month == f"{next_month(TODAY):%Y-%m}"
    with pytest.raises(ConflictError):
        await _do(rig, "adjust", command.model_copy(update={"microusd": -41}))
    # That of the closing itself: were it taken, the month could never be closed.
    reserved = command.model_copy(update={"reference": f"Carried from {TODAY:%Y-%m}"})
    with pytest.raises(SchemaError) as carried:
        await _do(rig, "adjust", reserved)
    assert carried.value.param == "reference"


async def test_thresholds_are_told_once_and_soft_quotas_refuse_nothing(rig: QuotaRig) -> None:
    """At 50, 80 and 100 %, of hard and soft ones; again only for another limit."""
    soft = Quota(unit="tokens", period="month", limit=50, soft=True)
    hard = Quota(unit="tokens", period="day", limit=100)
    acme = await rig.set_quotas(tenant("acme").model_copy(update={"quotas": (hard, soft)}))
    clock = SystemClock()
    thresholds = Thresholds(PostgresThresholds(rig.postgres), clock, IdSource(clock))

    async def told(tokens: int) -> list[tuple[str, bool, int, int]]:
        request = asked(tokens)
        await rig.gate.reserve(acme, request)
        await rig.end(cost(request, tokens))
        await asyncio.gather(*(thresholds.look() for _ in range(3)))
        facts = []
        outbox = PostgresOutbox(rig.postgres)
        while await outbox.backlog():
            async with outbox.first() as entry:
                assert entry is not None
                fact = json.loads(entry.payload)
                quota = fact["quota"]
                share = fact["percent"], fact["settled"]
                facts.append((quota["period"], quota.get("soft", False), *share))
        return facts

    assert await told(24) == []
    assert await told(26) == [
        ("day", False, 50, 50),
        ("month", True, 50, 50),
        ("month", True, 80, 50),
        ("month", True, 100, 50),
    ]
    assert await told(10) == []
    assert await told(40) == [("day", False, 80, 100), ("day", False, 100, 100)]
    await rig.set_quotas(
        acme.model_copy(update={"quotas": (hard.model_copy(update={"limit": 200}), soft)})
    )
    acme = acme.model_copy(update={"quotas": (hard, soft)})
    assert await told(1) == [("day", False, 50, 101)]


async def test_operators_word_on_a_suspension_holds(
    start_billing: StartBilling, operator: Operator
) -> None:
    """Suspended tenants carry the reason, and resumed ones none."""
    async with start_billing():
        await operator.command("create-tenant", CreateTenant(tenant="acme", name="Acme"))
        for status, reason in (
            (TenantStatus.SUSPENDED, SuspensionReason.OPERATOR),
            (TenantStatus.ACTIVE, None),
        ):
            answer = await operator.command(
                "update-tenant", UpdateTenant(tenant="acme", status=status)
            )
            assert TenantRecord.model_validate_json(answer).suspended_reason is reason


async def test_commands_about_credit_are_served(
    start_billing: StartBilling, operator: Operator
) -> None:
    """Over NATS, with their facts in the event log; what is wrong names the field."""
    async with start_billing():
        await operator.command("create-tenant", CreateTenant(tenant="acme", name="Acme"))
        command = GrantCredit(
            tenant="acme", kind=CreditKind.PREPAID, microusd=500, reference="order 17"
        )
        answer = await operator.ask(subjects.billing("grant-credit"), command)
        assert CreditGrant.model_validate_json(answer).microusd == 500
        wrong = await operator.ask(subjects.billing("adjust"), terminal())
        assert json.loads(wrong)["error"]["code"] == "invalid_schema"
