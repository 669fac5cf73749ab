"""Collecting invoices on a real PostgreSQL: once each, to the cent, and what failures lead to."""

from __future__ import annotations

import asyncio
import contextlib
import random
import uuid
from collections.abc import AsyncIterator
from datetime import date, timedelta

import pytest
from tests.support.payments import JULY, PaymentRig, payment_rig

from penstock_billing.handlers import collecting
from penstock_billing.ports.payment_book import PaymentTransaction
from penstock_billing.ports.payments import (
    Charge,
    Notice,
    PaymentState,
    PaymentStatus,
    Provider,
    RefundState,
)
from penstock_shared.contracts.accounts import SuspensionReason, TenantStatus
from penstock_shared.contracts.errors import ConflictError, NotFoundError, UnavailableError
from penstock_shared.contracts.payments import PaymentList, Standing, StandingRecord

FAILED, PENDING, SUCCEEDED = PaymentStatus.FAILED, PaymentStatus.PENDING, PaymentStatus.SUCCEEDED


@pytest.fixture
async def rig(postgres_dsn: str) -> AsyncIterator[PaymentRig]:
    """A tenant that pays, in a database of its own."""
    async with payment_rig(postgres_dsn) as made:
        await made.tenant()
        yield made


async def _listed(rig: PaymentRig) -> PaymentList:
    answer = await rig.ask("list-payments", tenant="acme")
    assert isinstance(answer, PaymentList)
    return answer


@pytest.mark.parametrize("seed", range(3))
async def test_cents_and_what_is_carried_are_what_was_due(rig: PaymentRig, seed: int) -> None:
    """Over any row of invoices nothing is rounded away: cents and remainder are the sum (I2)."""
    rng = random.Random(seed)
    dues = [rng.choice((0, 1, 9_999, 10_000, rng.randrange(10**7))) for _ in range(24)]
    for month, due in enumerate(dues):
        await rig.issue(due, date(2024 + month // 12, month % 12 + 1, 1))
    await rig.collector.look()
    collections = (await _listed(rig)).collections
    cents = sum(one.cents for one in collections)
    assert cents * 10_000 + collections[0].carried_microusd == sum(dues)
    assert sum(state.cents for state in rig.provider.payments.values()) == cents
    assert await rig.balance("payments") == cents * 10_000
    assert all(one.cents == one.paid_cents for one in collections)


async def test_an_invoice_is_collected_once_whatever_is_lost_and_whoever_looks(
    rig: PaymentRig,
) -> None:
    """Answers lost after the effect, replicas side by side, looks without end: one payment (I2)."""
    await rig.issue(12_345_678)
    rig.provider.loses_answers = 3
    for _ in range(6):
        await asyncio.gather(*(rig.another_replica().look() for _ in range(4)))
        rig.clock.advance(minutes=3)
    assert [state.cents for state in rig.provider.payments.values()] == [1_234]
    assert await rig.balance("payments") == 12_340_000
    assert await rig.balance("receivable") == -12_340_000
    told = await rig.facts("penstock.billing.payment_succeeded.v1")
    assert [(fact["cents"], fact["owed_cents"]) for fact in told] == [(1_234, 0)]


async def test_an_attempt_that_was_only_written_down_is_made_by_whoever_comes_next(
    rig: PaymentRig,
) -> None:
    """Dying between the row and the call loses nothing; a provider that is away is asked again."""
    await rig.issue(500_000)
    await rig.collector.begin("acme", JULY)
    rig.provider.is_away = True
    await rig.collector.look()
    assert rig.provider.payments == {}
    rig.provider.is_away = False
    await rig.collector.look()
    assert rig.provider.payments == {}, "the claim of the one that may still be asking holds"
    rig.clock.advance(minutes=3)
    await rig.collector.look()
    assert await rig.balance("payments") == 500_000


async def test_while_one_attempt_is_open_there_is_no_other(rig: PaymentRig) -> None:
    """A pending payment is waited for, also by commands and by the database itself (I2)."""
    rig.provider.outcome = PENDING
    await rig.issue(700_000)
    await rig.collector.look()
    with pytest.raises(ConflictError, match="on its way"):
        await rig.ask("collect-invoice", tenant="acme", month="2026-07")
    for _ in range(50):
        rig.clock.advance(hours=1)
        await rig.collector.look()
    assert len(rig.provider.payments) == 1
    assert await rig.balance("payments") == 0
    assert rig.provider.calls <= 60, "asked often at first, every hour in the end"
    rig.provider.becomes("tx_1", SUCCEEDED)
    rig.clock.advance(hours=1)
    await rig.collector.look()
    assert await rig.balance("payments") == 700_000


async def test_from_the_first_failure_to_suspension_and_back(rig: PaymentRig) -> None:
    """Past due, grace, suspended, restored: each told once, each visible in the tenant's record."""
    rig.provider.outcome = FAILED
    await rig.issue(2_000_000)
    await rig.issue(1_000_000, date(2026, 8, 1))
    for _ in range(16 * 4):
        await rig.collector.look()
        rig.clock.advance(hours=6)
    assert await rig.standings() == ["past_due", "grace", "suspended"]
    record = await rig.record()
    assert record.status is TenantStatus.SUSPENDED
    assert record.suspended_reason is SuspensionReason.PAST_DUE
    assert len(rig.provider.payments) == 2 * 5, "the first attempt, and four more"
    rig.provider.outcome = SUCCEEDED
    await rig.ask("collect-invoice", tenant="acme", month="2026-08")
    await rig.collector.look()
    assert (await rig.record()).status is TenantStatus.SUSPENDED, "July is still unpaid"
    await rig.ask("set-payer", tenant="acme", provider="braintree", token="nonce-2")
    await rig.collector.look()
    assert (await rig.record()).status is TenantStatus.ACTIVE
    assert (await rig.record()).suspended_reason is None
    assert await rig.standings() == ["past_due", "grace", "suspended", "restored"]
    assert await rig.balance("payments") == 3_000_000
    updates = await rig.facts("penstock.account.tenant_updated.v1")
    assert [update["record"]["status"] for update in updates] == ["suspended", "active"]


async def test_a_payment_never_lifts_an_operators_suspension(rig: PaymentRig) -> None:
    """Whoever was suspended by an operator stays out, before and after paying."""
    suspended = (await rig.record()).model_copy(
        update={
            "status": TenantStatus.SUSPENDED,
            "suspended_reason": SuspensionReason.OPERATOR,
        }
    )
    await rig.change(suspended)
    rig.provider.outcome = FAILED
    await rig.issue(2_000_000)
    for _ in range(16):
        await rig.collector.look()
        rig.clock.advance(days=1)
    assert await rig.record() == suspended
    rig.provider.outcome = SUCCEEDED
    await rig.ask("collect-invoice", tenant="acme", month="2026-07")
    await rig.collector.look()
    assert await rig.standings() == ["past_due", "grace", "suspended", "restored"]
    assert await rig.record() == suspended


async def test_an_operator_can_be_more_patient(rig: PaymentRig) -> None:
    """Extended grace lets a suspended tenant in again until then; merely resuming it does not."""
    rig.provider.outcome = FAILED
    await rig.issue(2_000_000)
    for _ in range(15):
        await rig.collector.look()
        rig.clock.advance(days=1)
    await rig.collector.look()
    assert (await rig.record()).status is TenantStatus.SUSPENDED
    resumed = {"status": TenantStatus.ACTIVE, "suspended_reason": None}
    await rig.change((await rig.record()).model_copy(update=resumed))
    await rig.collector.look()
    assert (await rig.record()).status is TenantStatus.SUSPENDED
    until = rig.clock.at + timedelta(days=5)
    answer = await rig.ask("extend-grace", tenant="acme", until=until.isoformat())
    assert isinstance(answer, StandingRecord)
    assert (answer.standing, answer.suspends_at) == (Standing.GRACE, until)
    assert (await rig.record()).status is TenantStatus.ACTIVE
    rig.clock.advance(days=5)
    await rig.collector.look()
    assert (await rig.record()).status is TenantStatus.SUSPENDED
    assert await rig.standings() == ["past_due", "grace", "suspended", "grace", "suspended"]


@pytest.mark.parametrize("seed", range(3))
async def test_notices_in_any_order_twice_and_late_end_in_the_same(
    rig: PaymentRig, seed: int
) -> None:
    """What a notice says is never believed: the provider is asked, so the end is its end (I2)."""
    rng = random.Random(seed)
    rig.provider.outcome = PENDING
    await rig.issue(2_000_000)
    await rig.collector.look()
    notices = [
        rig.provider.becomes("tx_1", PENDING),
        rig.provider.becomes("tx_1", FAILED),
        rig.provider.becomes("tx_1", SUCCEEDED),
        Notice(Provider.BRAINTREE, "evt_x", "check", None, rig.clock.at),
        Notice(Provider.BRAINTREE, "evt_y", "transaction_settled", "tx_of_others", rig.clock.at),
    ] * 2
    rng.shuffle(notices)
    await asyncio.gather(*map(rig.collector.on_notice, notices[:5]))
    for notice in notices[5:]:
        await rig.collector.on_notice(notice)
    assert await rig.balance("payments") == 2_000_000
    assert len(await rig.facts("penstock.billing.payment_succeeded.v1")) == 1
    assert await rig.standings() == []


async def test_success_after_a_failure_counts_once_under_two_attempts(rig: PaymentRig) -> None:
    """Stripe's invoice is one object under all attempts of ours: paid by hand, it is paid once."""
    rig.provider.outcome = FAILED
    await rig.issue(2_000_000)
    await rig.collector.look()
    await rig.ask("collect-invoice", tenant="acme", month="2026-07")
    second = (await _listed(rig)).payments[0].payment_id
    rig.provider.charges = {str(second): "tx_1"}
    await rig.collector.on_notice(rig.provider.becomes("tx_1", SUCCEEDED))
    await rig.collector.look()
    listed = await _listed(rig)
    assert [one.progress.value for one in listed.payments] == ["succeeded", "succeeded"]
    assert [one.paid_cents for one in listed.collections] == [200]
    assert await rig.balance("payments") == 2_000_000


async def test_nobody_pays_for_a_tenant_without_a_payer(rig: PaymentRig) -> None:
    """It is invoiced, nothing is tried, and its standing does not suffer."""
    await rig.tenant("globex", pays=False)
    await rig.issue(2_000_000, tenant="globex")
    for _ in range(30):
        await rig.collector.look()
        rig.clock.advance(days=1)
    assert rig.provider.calls == 0
    assert await rig.standings() == []
    with pytest.raises(ConflictError, match="set a payer"):
        await rig.ask("collect-invoice", tenant="globex", month="2026-07")
    with pytest.raises(NotFoundError):
        await rig.ask("collect-invoice", tenant="globex", month="2026-06")
    with pytest.raises(ConflictError, match="not set up"):
        await rig.ask("set-payer", tenant="globex", provider="stripe", token="pm_1")
    with pytest.raises(NotFoundError):
        await rig.ask("set-payer", tenant="nobody", provider="braintree", token="n")


async def test_a_refund_is_given_once_and_never_more_than_was_paid(rig: PaymentRig) -> None:
    """Asked twice, with the answer lost, by two replicas: once; the sum of refunds is bounded."""
    await rig.issue(2_000_000)
    await rig.collector.look()
    payment_id = (await _listed(rig)).payments[0].payment_id
    asked = {
        "tenant": "acme",
        "payment_id": payment_id,
        "refund_id": uuid.uuid4(),
        "cents": 150,
        "reason": "asked for",
    }
    await rig.ask("refund-payment", **asked)
    await rig.ask("refund-payment", **asked)
    rig.provider.loses_answers = 1
    for _ in range(3):
        await asyncio.gather(*(rig.another_replica().look() for _ in range(3)))
        rig.clock.advance(minutes=3)
    assert await rig.balance("payments") == 500_000
    with pytest.raises(ConflictError, match="50 cents are left"):
        await rig.ask("refund-payment", **asked | {"refund_id": uuid.uuid4()})
    with pytest.raises(NotFoundError):
        await rig.ask("refund-payment", **asked | {"payment_id": uuid.uuid4()})
    await rig.ask("refund-payment", **asked | {"refund_id": uuid.uuid4(), "cents": None})
    await rig.collector.look()
    assert await rig.balance("payments") == 0
    told = await rig.facts("penstock.billing.payment_refunded.v1")
    assert [fact["cents"] for fact in told] == [150, 50]


async def test_refunds_made_at_the_providers_desk_and_those_that_come_back(
    rig: PaymentRig,
) -> None:
    """A refund that we did not ask for is found; one that a bank sends back is taken back."""
    await rig.issue(2_000_000)
    await rig.collector.look()
    theirs = RefundState("re_desk", None, SUCCEEDED, 40)
    notice = rig.provider.becomes("tx_1", SUCCEEDED)
    for status, left in ((PENDING, 2_000_000), (SUCCEEDED, 1_600_000), (FAILED, 2_000_000)):
        refunds = (RefundState("re_desk", None, status, theirs.cents),)
        state = rig.provider.payments["tx_1"]
        rig.provider.payments["tx_1"] = type(state)(
            state.reference, state.status, state.cents, None, refunds
        )
        for _ in range(2):
            await rig.collector.on_notice(notice)
        assert await rig.balance("payments") == left
    refunds_listed = (await _listed(rig)).payments[0].refunds
    assert [one.progress.value for one in refunds_listed] == ["failed"]


@pytest.mark.parametrize("breaks_at", range(1, 6))
async def test_postgres_away_at_any_step_costs_no_second_payment(
    rig: PaymentRig, monkeypatch: pytest.MonkeyPatch, breaks_at: int
) -> None:
    """A transaction that fails before or after the provider has acted is done again (I2)."""
    await rig.issue(3_000_000)
    real, count = rig.book.transaction, 0

    @contextlib.asynccontextmanager
    async def failing() -> AsyncIterator[PaymentTransaction]:
        nonlocal count
        count += 1
        async with real() as transaction:
            yield transaction
            if count == breaks_at:
                msg = "Postgres does not answer"
                raise UnavailableError(msg)

    monkeypatch.setattr(rig.book, "transaction", failing)
    for _ in range(4):
        with contextlib.suppress(UnavailableError):
            await rig.collector.look()
        rig.clock.advance(minutes=3)
    assert [state.cents for state in rig.provider.payments.values()] == [300]
    assert await rig.balance("payments") == 3_000_000


async def test_a_provider_that_hangs_holds_nothing_up(
    rig: PaymentRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look goes on; the attempt is asked for again once its claim has ended, and is one."""
    await rig.tenant("globex")
    await rig.issue(1_000_000)
    await rig.issue(2_000_000, tenant="globex")
    collect = rig.provider.collect

    async def hang(charge: Charge) -> PaymentState:
        state = await collect(charge)
        if charge.payer.tenant == "acme":
            await asyncio.Event().wait()
        return state

    monkeypatch.setattr(collecting, "_PATIENCE_S", 0.1)
    monkeypatch.setattr(rig.provider, "collect", hang)
    await rig.collector.look()
    assert await rig.balance("payments") == 2_000_000
    monkeypatch.undo()
    rig.clock.advance(minutes=3)
    await rig.collector.look()
    assert await rig.balance("payments") == 3_000_000
    assert len(rig.provider.payments) == 2
