"""What an attempt's outcome and a refund change: the cases that hardly ever come."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from penstock_billing.domain.dunning import DunningTerms
from penstock_billing.domain.payments import (
    CLAIM,
    new_refund,
    next_attempt,
    next_look,
    refund_settled,
    settled,
)
from penstock_billing.ports.payment_book import Collection, Payment
from penstock_billing.ports.payments import (
    Payer,
    PaymentState,
    PaymentStatus,
    Provider,
    RefundState,
)
from penstock_shared.contracts.errors import ConflictError
from penstock_shared.contracts.payments import PaymentProgress, RefundPayment

NOW = datetime(2026, 8, 1, 3, tzinfo=UTC)
TERMS = DunningTerms(grace_after=timedelta(days=7), suspend_after=timedelta(days=14))
PAYER = Payer("acme", Provider.STRIPE, "cus_1", "pm_1")
OPEN = Collection("acme", date(2026, 7, 1), "acme-2026-07", cents=500)
PAID = replace(OPEN, paid_cents=500)


def _attempt(number: int = 1) -> Payment:
    earlier = [replace(_attempt(one), progress=PaymentProgress.FAILED) for one in range(1, number)]
    return next_attempt(OPEN, earlier, PAYER, NOW)


def _state(status: PaymentStatus, cents: int = 500) -> PaymentState:
    return PaymentState("in_1", status, cents)


def test_a_failure_after_the_invoice_was_paid_otherwise_is_held_against_nobody() -> None:
    """An attempt that fails beside a success starts no dunning (I2)."""
    change = settled([], _attempt(2), PAID, _state(PaymentStatus.FAILED), TERMS, NOW)
    assert change is not None
    assert change.payment.progress is PaymentProgress.FAILED
    assert change.collection == PAID


def test_what_is_paid_in_part_is_owed_in_part() -> None:
    """The rest is tried at once, as an attempt of its own; then it is whole."""
    part = settled([], _attempt(), OPEN, _state(PaymentStatus.SUCCEEDED, 200), TERMS, NOW)
    assert part is not None
    assert (part.collection.owed_cents, part.collection.next_try_at) == (300, NOW)
    assert [one.microusd for one in part.transfers] == [2_000_000]
    rest = next_attempt(part.collection, [part.payment], PAYER, NOW)
    assert (rest.cents, rest.attempt) == (300, 2)
    with pytest.raises(ConflictError, match="Nothing is owed"):
        next_attempt(PAID, [], PAYER, NOW)


@pytest.mark.parametrize("before", list(PaymentProgress))
@pytest.mark.parametrize("status", list(PaymentStatus))
def test_money_that_has_moved_stays_moved(before: PaymentProgress, status: PaymentStatus) -> None:
    """Success is final, failure may turn into success only, and what is known changes nothing."""
    payment = replace(_attempt(), progress=before, reference="in_1")
    change = settled([payment], payment, OPEN, _state(status), TERMS, NOW)
    after = before if change is None else change.payment.progress
    if before is PaymentProgress.SUCCEEDED:
        assert change is None
    elif before is PaymentProgress.FAILED:
        assert after in {PaymentProgress.FAILED, PaymentProgress.SUCCEEDED}
    else:
        assert after.value == status.value
    assert bool(change and change.transfers) == (
        status is PaymentStatus.SUCCEEDED and before is not PaymentProgress.SUCCEEDED
    )


def test_the_same_attempt_has_the_same_id_and_another_another() -> None:
    """Whoever begins it, and however often: the provider sees one id per attempt (I2)."""
    assert _attempt().payment_id == _attempt().payment_id
    assert _attempt().payment_id != _attempt(2).payment_id
    other = next_attempt(replace(OPEN, tenant="globex"), [], PAYER, NOW)
    assert other.payment_id != _attempt().payment_id


def test_only_money_that_came_in_is_given_back() -> None:
    """Not of an attempt that is pending or failed; and a refund's own failure is final."""
    command = RefundPayment(
        tenant="acme", payment_id=uuid.uuid4(), refund_id=uuid.uuid4(), reason="because"
    )
    with pytest.raises(ConflictError, match="not succeeded"):
        new_refund(_attempt(), [], command, NOW)
    paid = replace(_attempt(), progress=PaymentProgress.SUCCEEDED, reference="in_1")
    refund = new_refund(paid, [], command, NOW)
    assert refund.cents == 500
    failed = refund_settled(refund, RefundState("re", None, PaymentStatus.FAILED, 500), NOW)
    assert failed is not None
    assert failed[1] == ()
    late = RefundState("re", None, PaymentStatus.SUCCEEDED, 500)
    assert refund_settled(failed[0], late, NOW) is None
    assert new_refund(paid, [failed[0]], command, NOW).cents == 500, "a failed one counts not"


def test_looks_become_rare_and_never_stop() -> None:
    """At first after the time that a claim lasts, in the end every hour."""
    waits = [next_look(NOW, NOW + timedelta(minutes=age)) for age in (0, 60, 10_000)]
    assert waits == [
        NOW + CLAIM,
        NOW + timedelta(minutes=75),
        NOW + timedelta(minutes=10_060),
    ]
