"""What an attempt to collect, its outcome and a refund change. Nothing here waits for anybody."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from penstock_billing.domain.dunning import DunningTerms, next_try
from penstock_billing.ports.ledger import Account, Transfer
from penstock_billing.ports.payment_book import Collection, Payment, Refund
from penstock_billing.ports.payments import Payer, PaymentState, RefundState
from penstock_shared.contracts.errors import ConflictError
from penstock_shared.contracts.invoices import MICROUSD_PER_CENT
from penstock_shared.contracts.payments import PaymentProgress, RefundPayment

_PAYMENTS: Final = uuid.UUID("9d1f2c37-6a0e-5d0b-8b55-3f6f0a2b7c11")
CLAIM: Final = timedelta(minutes=2)
"""Longer than the slowest call to a provider: who claims a row is alone with it."""
_SLOWEST_LOOK: Final = timedelta(hours=1)
_OPEN: Final = frozenset({PaymentProgress.STARTED, PaymentProgress.PENDING})


@dataclass(frozen=True, slots=True)
class Settled:
    """What an attempt's outcome changes; the collection and the payment as they are then."""

    payment: Payment
    collection: Collection
    transfers: tuple[Transfer, ...] = ()


def next_attempt(
    collection: Collection, earlier: list[Payment], payer: Payer, at: datetime
) -> Payment:
    """The attempt that follows those.

    Raises:
        ConflictError: nothing is owed, or an attempt is still open.
    """
    if collection.owed_cents == 0:
        msg = f"Nothing is owed for {collection.period:%Y-%m}."
        raise ConflictError(msg, code="nothing_owed", param="month")
    if any(payment.progress in _OPEN for payment in earlier):
        msg = f"A payment for {collection.period:%Y-%m} is on its way: wait for its end."
        raise ConflictError(msg, code="payment_pending", param="month")
    attempt = len(earlier) + 1
    name = f"{collection.tenant}\n{collection.period}\n{attempt}"
    return Payment(
        payment_id=str(uuid.uuid5(_PAYMENTS, name)),
        payer=payer,
        period=collection.period,
        number=collection.number,
        attempt=attempt,
        cents=collection.owed_cents,
        progress=PaymentProgress.STARTED,
        started_at=at,
    )


def settled(
    payments: list[Payment],
    payment: Payment,
    collection: Collection,
    state: PaymentState,
    terms: DunningTerms,
    at: datetime,
) -> Settled | None:
    """What it changes that the provider says this of one of the invoice's payments; None: nothing.

    Money that has moved stays moved: what comes back of it is a refund. A failure may still be
    followed by success, where the provider's customer pays there by hand.
    """
    progress = PaymentProgress(state.status.value)
    if not _follows(payment.progress, progress):
        return None
    after = replace(payment, progress=progress, reference=state.reference, failure=state.failure)
    if progress is PaymentProgress.SUCCEEDED:
        # Told of under two attempts of ours, such as an invoice of Stripe's, it is one payment.
        if any(_is_same_money(other, after) for other in payments):
            return Settled(after, collection)
        after = replace(after, cents=state.cents)
        return Settled(after, _paid(collection, state.cents, at), (_receipt(after, state, at),))
    if progress is PaymentProgress.FAILED and collection.owed_cents:
        since = collection.failing_since or at
        again = next_try(since, terms, at)
        return Settled(after, replace(collection, failing_since=since, next_try_at=again))
    return Settled(after, collection)


def next_look(started_at: datetime, at: datetime) -> datetime:
    """When to ask the provider again: often at first, every hour in the end."""
    return at + min(max((at - started_at) / 4, CLAIM), _SLOWEST_LOOK)


def new_refund(
    payment: Payment, earlier: list[Refund], command: RefundPayment, at: datetime
) -> Refund:
    """The refund that `command` asks for.

    Raises:
        ConflictError: no money has come in, or not so much is left of it.
    """
    given = sum(one.cents for one in earlier if one.progress is not PaymentProgress.FAILED)
    cents = payment.cents - given if command.cents is None else command.cents
    if payment.progress is not PaymentProgress.SUCCEEDED or payment.reference is None:
        msg = "The payment has not succeeded: there is nothing to give back."
        raise ConflictError(msg, code="not_paid", param="payment_id")
    if cents <= 0 or given + cents > payment.cents:
        msg = f"Of the payment {payment.cents - given} cents are left: refund no more."
        raise ConflictError(msg, code="refund_too_large", param="cents")
    return Refund(
        refund_id=str(command.refund_id),
        payment=payment,
        cents=cents,
        reason=command.reason,
        progress=PaymentProgress.STARTED,
        started_at=at,
    )


def found_refund(payment: Payment, state: RefundState, at: datetime) -> Refund:
    """A refund that was made at the provider's own desk."""
    return Refund(
        refund_id=str(uuid.uuid5(_PAYMENTS, f"{payment.payment_id}\n{state.reference}")),
        payment=payment,
        cents=state.cents,
        reason="made at the provider",
        progress=PaymentProgress.STARTED,
        started_at=at,
    )


def refund_settled(
    refund: Refund, state: RefundState, at: datetime
) -> tuple[Refund, tuple[Transfer, ...]] | None:
    """What it changes that the provider says this of a refund; None: nothing.

    A bank may send a refund back after it was reported as done: the ledger then takes it back.
    """
    if refund.progress is PaymentProgress.FAILED:
        return None
    progress = PaymentProgress(state.status.value)
    was_given = refund.progress is PaymentProgress.SUCCEEDED
    if progress is refund.progress or (was_given and progress is PaymentProgress.PENDING):
        return None
    after = replace(refund, progress=progress, reference=state.reference or refund.reference)
    if progress is PaymentProgress.SUCCEEDED:
        return after, (_given_back(after, at),)
    return after, (_sent_back(after, at),) if was_given else ()


def _follows(before: PaymentProgress, after: PaymentProgress) -> bool:
    if before is PaymentProgress.FAILED:
        return after is PaymentProgress.SUCCEEDED
    return before not in {PaymentProgress.SUCCEEDED, after}


def _is_same_money(other: Payment, payment: Payment) -> bool:
    return (
        other.payment_id != payment.payment_id
        and other.progress is PaymentProgress.SUCCEEDED
        and (other.payer.provider, other.reference) == (payment.payer.provider, payment.reference)
    )


def _paid(collection: Collection, cents: int, at: datetime) -> Collection:
    after = replace(collection, paid_cents=collection.paid_cents + cents)
    if after.owed_cents:
        return replace(after, next_try_at=at)
    return replace(after, failing_since=None, next_try_at=None)


def _receipt(payment: Payment, state: PaymentState, at: datetime) -> Transfer:
    return Transfer(
        tenant=payment.payer.tenant,
        period=payment.period,
        kind="payment",
        debit=Account.PAYMENTS,
        credit=Account.RECEIVABLE,
        microusd=state.cents * MICROUSD_PER_CENT,
        reference=f"{payment.payer.provider.value} {state.reference}",
        at=at,
    )


def _given_back(refund: Refund, at: datetime) -> Transfer:
    return Transfer(
        tenant=refund.payment.payer.tenant,
        period=refund.payment.period,
        kind="refund",
        debit=Account.RECEIVABLE,
        credit=Account.PAYMENTS,
        microusd=refund.cents * MICROUSD_PER_CENT,
        reference=refund.refund_id,
        at=at,
    )


def _sent_back(refund: Refund, at: datetime) -> Transfer:
    return replace(
        _given_back(refund, at),
        kind="refund-failed",
        debit=Account.PAYMENTS,
        credit=Account.RECEIVABLE,
    )
