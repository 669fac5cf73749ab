"""Writing down what a provider says: payment, ledger, standing and facts in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from penstock_billing import metrics
from penstock_billing.domain.announcements import Act, tell_fact, tell_tenant_updated
from penstock_billing.domain.dunning import DunningTerms, obeyed, situation, suspends_at
from penstock_billing.domain.payments import (
    Settled,
    found_refund,
    next_look,
    refund_settled,
    settled,
)
from penstock_billing.ports.payment_book import (
    Payment,
    PaymentBook,
    PaymentTransaction,
    Refund,
    Situation,
)
from penstock_billing.ports.payments import PaymentState, RefundState
from penstock_shared.contracts.accounts import TenantRecord
from penstock_shared.contracts.billing_facts import (
    BillingFact,
    PaymentFailed,
    PaymentRefunded,
    PaymentSucceeded,
    StandingChanged,
)
from penstock_shared.contracts.invoices import MICROUSD_PER_CENT
from penstock_shared.contracts.payments import PaymentProgress, Standing
from penstock_shared.runtime.telemetry import log

NewAct = Callable[[], Act]
_OPEN: Final = frozenset({PaymentProgress.STARTED, PaymentProgress.PENDING})


class Settling:
    """Every method may be repeated: what is known already changes nothing (I2)."""

    def __init__(self, book: PaymentBook, terms: DunningTerms, new_act: NewAct) -> None:
        self._book = book
        self._terms = terms
        self.new_act = new_act

    async def payment(self, payment_id: str, tenant: str, state: PaymentState) -> None:
        """What the provider says of an attempt. Raises UnavailableError."""
        act = self.new_act()
        async with self._book.transaction() as transaction:
            record = await transaction.lock_tenant(tenant)
            payment = await _known(transaction, payment_id)
            payment = await self._settle(transaction, payment, state, act)
            for one in state.refunds:
                await self._refund(transaction, payment, one, act)
            await self.judge(transaction, record, act)

    async def refund(self, refund: Refund, state: RefundState) -> None:
        """What the provider says of a refund of ours. Raises UnavailableError."""
        act = self.new_act()
        async with self._book.transaction() as transaction:
            await transaction.lock_tenant(refund.payment.payer.tenant)
            known = replace(state, refund_id=refund.refund_id)
            await self._refund(transaction, refund.payment, known, act)

    async def standings(self) -> None:
        """What the passing of time has made of everybody's standing. Raises UnavailableError."""
        act = self.new_act()
        for debtor in await self._book.debtors():
            now = situation(debtor.situation, debtor.arrears, self._terms, act.at)
            let_in = debtor.is_active and now.standing is Standing.SUSPENDED
            if now is not debtor.situation or let_in:
                async with self._book.transaction() as transaction:
                    record = await transaction.lock_tenant(debtor.tenant)
                    await self.judge(transaction, record, act)

    async def judge(
        self, transaction: PaymentTransaction, record: TenantRecord, act: Act
    ) -> Situation:
        """How the tenant stands now, and what the other services must know of it."""
        before = await transaction.situation(record.tenant)
        arrears = await transaction.arrears(record.tenant)
        now = situation(before, arrears, self._terms, act.at)
        if now is not before:
            await transaction.save_situation(record.tenant, now)
        after = obeyed(record, now.standing)
        if after != record:
            await transaction.change_tenant(after)
            changed = ("status", "suspended_reason")
            await transaction.enqueue(tell_tenant_updated(after, changed, act))
        if now.standing is not before.standing:
            fact = StandingChanged(
                tenant=record.tenant,
                before=before.standing,
                standing=now.standing,
                failing_since=now.failing_since,
                suspends_at=suspends_at(now, self._terms),
                changed_at=act.at,
            )
            await transaction.enqueue([tell_fact(fact, act)])
            metrics.STANDING_CHANGES.labels(now.standing.value).inc()
            log().warning("standing.changed", tenant=record.tenant, standing=now.standing.value)
        return now

    async def _settle(
        self, transaction: PaymentTransaction, payment: Payment, state: PaymentState, act: Act
    ) -> Payment:
        collection = await transaction.collection(payment.payer.tenant, payment.period)
        if collection is None:  # the payment's row refers to it
            msg = f"The payment {payment.payment_id} has no invoice."
            raise RuntimeError(msg)
        payments = await transaction.payments(payment.payer.tenant, payment.period)
        change = settled(payments, payment, collection, state, self._terms, act.at)
        if change is None:
            if payment.progress in _OPEN:
                again = next_look(payment.started_at, act.at)
                await transaction.save_payment(payment, None, again)
            return payment
        ended = None if change.payment.progress in _OPEN else act.at
        look = next_look(payment.started_at, act.at) if ended is None else None
        await transaction.save_payment(change.payment, ended, look)
        await transaction.save_collection(change.collection)
        await transaction.post(change.transfers)
        await transaction.enqueue([tell_fact(fact, act) for fact in _facts(change, act)])
        provider = payment.payer.provider.value
        metrics.PAYMENTS.labels(provider, change.payment.progress.value).inc()
        return change.payment

    async def _refund(
        self, transaction: PaymentTransaction, payment: Payment, state: RefundState, act: Act
    ) -> None:
        known = await transaction.refunds(payment.payment_id)
        refund = _same(known, state) or found_refund(payment, state, act.at)
        change = refund_settled(refund, state, act.at)
        if change is None:
            if refund.progress in _OPEN:
                again = next_look(refund.started_at, act.at)
                await transaction.save_refund(refund, None, again)
            return
        after, transfers = change
        ended = None if after.progress in _OPEN else act.at
        look = next_look(refund.started_at, act.at) if ended is None else None
        await transaction.save_refund(after, ended, look)
        await transaction.post(transfers)
        provider = payment.payer.provider.value
        metrics.REFUNDS.labels(provider, after.progress.value).inc()
        if after.progress is PaymentProgress.SUCCEEDED:
            await transaction.enqueue([tell_fact(_refunded(after, act), act)])


async def _known(transaction: PaymentTransaction, payment_id: str) -> Payment:
    payment = await transaction.payment(payment_id)
    if payment is None:  # only ids that were written down come here
        msg = f"The payment {payment_id} is unknown."
        raise RuntimeError(msg)
    return payment


def _same(known: Sequence[Refund], state: RefundState) -> Refund | None:
    ours = (one for one in known if one.refund_id == state.refund_id)
    return next(ours, next((one for one in known if one.reference == state.reference), None))


def _facts(change: Settled, act: Act) -> list[BillingFact]:
    payment, collection = change.payment, change.collection
    month = f"{payment.period:%Y-%m}"
    if payment.progress is PaymentProgress.FAILED:
        return [
            PaymentFailed(
                tenant=collection.tenant,
                month=month,
                payment_id=payment.payment_id,
                provider=payment.payer.provider.value,
                attempt=payment.attempt,
                cents=payment.cents,
                failure=payment.failure,
                next_try_at=collection.next_try_at,
                failed_at=act.at,
            )
        ]
    return [
        PaymentSucceeded(
            tenant=collection.tenant,
            month=month,
            payment_id=payment.payment_id,
            provider=payment.payer.provider.value,
            cents=receipt.microusd // MICROUSD_PER_CENT,
            owed_cents=collection.owed_cents,
            succeeded_at=act.at,
        )
        for receipt in change.transfers
    ]


def _refunded(refund: Refund, act: Act) -> PaymentRefunded:
    payment = refund.payment
    return PaymentRefunded(
        tenant=payment.payer.tenant,
        month=f"{payment.period:%Y-%m}",
        payment_id=payment.payment_id,
        refund_id=refund.refund_id,
        provider=payment.payer.provider.value,
        cents=refund.cents,
        refunded_at=act.at,
    )
