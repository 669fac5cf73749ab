"""Collecting what is owed: attempts are written down, then made, then looked after to their end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date, datetime
from typing import Final, Protocol, TypeVar

from prometheus_client import Counter

from penstock_billing import metrics
from penstock_billing.domain.payments import CLAIM, next_attempt
from penstock_billing.handlers.settling import Settling
from penstock_billing.ports.payment_book import Payment, PaymentBook, PaymentTransaction, Refund
from penstock_billing.ports.payments import (
    Charge,
    Notice,
    PaymentGateway,
    PaymentState,
    PaymentStatus,
    Provider,
    RefundOrder,
    RefundState,
)
from penstock_shared.contracts.errors import (
    ConflictError,
    NotFoundError,
    PermanentError,
    TransientError,
)
from penstock_shared.contracts.payments import PaymentProgress
from penstock_shared.runtime.telemetry import log

_AT_ONCE: Final = 8
"""Calls to providers on their way: Braintree's each hold a thread."""

_PATIENCE_S: Final = 60
"""With a provider: the call that is on its way then ends within the claim (`CLAIM`), so that
nobody sells what somebody else is only about to sell."""

T = TypeVar("T")
R = TypeVar("R")


class Relay(Protocol):
    """Publishes what the outbox holds."""

    async def flush(self) -> None:
        """After this returns everything committed before is published."""
        ...


class Collector:
    """Collects issued invoices from the tenants that have a payer. Also a `NoticeHandler`.

    What is in doubt after a crash or a timeout is asked for again under the same id once its claim
    has ended; the gateways make that take effect once (I2).
    """

    def __init__(
        self,
        book: PaymentBook,
        gateways: Mapping[Provider, PaymentGateway],
        settling: Settling,
        relay: Relay,
    ) -> None:
        self._book = book
        self._gateways = gateways
        self._settling = settling
        self._relay = relay

    async def look(self) -> None:
        """Begin what is due, look after what is open, and see how everybody stands now.

        Raises:
            UnavailableError: Postgres does not answer.
        """
        while due := await self._book.due(self._settling.new_act().at, _AT_ONCE):
            for tenant, period in due:
                with contextlib.suppress(ConflictError):  # another replica has begun it
                    await self.begin(tenant, period)
            await self._advance()
        await self._advance()
        await self._settling.standings()
        await self._relay.flush()

    async def begin(self, tenant: str, period: date) -> None:
        """Write the next attempt to collect an invoice down; the next look makes it.

        Raises:
            NotFoundError: there is no such invoice.
            ConflictError: nothing is owed, nobody pays, or an attempt is open.
        """
        at = self._settling.new_act().at
        async with self._book.transaction() as transaction:
            await transaction.lock_tenant(tenant)
            payment = await _next(transaction, tenant, period, at)
            await transaction.save_payment(payment, None, next_look_at=at)

    async def on_notice(self, notice: Notice) -> None:
        """Ask the provider and write down what it says; again: the same.

        Raises:
            UnavailableError: the provider or Postgres does not answer; try the notice again.
        """
        if notice.reference is None:
            return
        payment = await self._book.payment_of(notice.provider, notice.reference)
        if payment is None or payment.reference is None:
            log().info("notice.of_no_payment", notice_id=notice.notice_id, kind=notice.kind)
            return
        state = await self._gateway(notice.provider).refetch(payment.reference)
        await self._settling.payment(payment.payment_id, payment.payer.tenant, state)
        await self._relay.flush()

    async def _advance(self) -> None:
        """What is due now, each once: what a slow provider leaves open waits for the next look."""
        at = self._settling.new_act().at
        while payments := await self._claimed(self._book.claim_payments, at):
            await _together([self._make(payment) for payment in payments])
        while refunds := await self._claimed(self._book.claim_refunds, at):
            await _together([self._give_back(refund) for refund in refunds])

    async def _make(self, payment: Payment) -> None:
        ask = _collect(payment) if payment.progress is PaymentProgress.STARTED else _look(payment)
        provider = payment.payer.provider
        state = await self._asked(metrics.PAYMENTS, provider, payment.payment_id, ask)
        if state is not None:
            await self._settling.payment(payment.payment_id, payment.payer.tenant, state)

    async def _give_back(self, refund: Refund) -> None:
        payment = refund.payment
        provider = payment.payer.provider
        if refund.progress is PaymentProgress.STARTED:
            given = await self._asked(metrics.REFUNDS, provider, refund.refund_id, _refund(refund))
            if given is not None:
                await self._settling.refund(refund, given)
        else:
            state = await self._asked(metrics.REFUNDS, provider, refund.refund_id, _look(payment))
            if state is not None:
                await self._settling.payment(payment.payment_id, payment.payer.tenant, state)

    async def _asked(
        self,
        counter: Counter,
        provider: Provider,
        row_id: str,
        ask: Callable[[PaymentGateway], Awaitable[T]],
    ) -> T | None:
        """The provider's answer; None: there is none yet, and the row's claim says when to ask."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await ask(self._gateway(provider))
        except (TransientError, TimeoutError) as error:
            counter.labels(provider.value, "unanswered").inc()
            code = getattr(error, "code", "too_slow")
            log().warning("provider.unanswered", id=row_id, code=code)
        except PermanentError as error:
            # Wrong keys or a bug of ours: no reason to hold it against the tenant.
            counter.labels(provider.value, "refused").inc()
            log().error("provider.refused", id=row_id, code=error.code)
        return None

    async def _claimed(
        self, claim: Callable[[datetime, datetime, int], Awaitable[list[R]]], at: datetime
    ) -> list[R]:
        return await claim(at, self._settling.new_act().at + CLAIM, _AT_ONCE)

    def _gateway(self, provider: Provider) -> PaymentGateway:
        return gateway_of(self._gateways, provider)


def gateway_of(gateways: Mapping[Provider, PaymentGateway], provider: Provider) -> PaymentGateway:
    """The provider's gateway.

    Raises:
        ConflictError: this platform has none.
    """
    gateway = gateways.get(provider)
    if gateway is None:
        msg = f"Payments through '{provider.value}' are not set up: set its PENSTOCK_* variables."
        raise ConflictError(msg, code="provider_not_configured", param="provider")
    return gateway


async def _next(
    transaction: PaymentTransaction, tenant: str, period: date, at: datetime
) -> Payment:
    collection = await transaction.collection(tenant, period)
    payer = await transaction.payer(tenant)
    if collection is None:
        msg = f"There is no invoice of '{tenant}' for {period:%Y-%m}."
        raise NotFoundError(msg, code="invoice_not_found", param="month")
    if payer is None:
        msg = f"Nobody pays for '{tenant}': set a payer first."
        raise ConflictError(msg, code="no_payer", param="tenant")
    payments = await transaction.payments(tenant, period)
    return next_attempt(collection, payments, payer, at)


def _collect(payment: Payment) -> Callable[[PaymentGateway], Awaitable[PaymentState]]:
    charge = Charge(
        payment_id=payment.payment_id,
        payer=payment.payer,
        period=payment.period,
        number=payment.number,
        cents=payment.cents,
    )
    return lambda gateway: gateway.collect(charge)


def _look(payment: Payment) -> Callable[[PaymentGateway], Awaitable[PaymentState]]:
    return lambda gateway: gateway.refetch(payment.reference or "")


def _refund(refund: Refund) -> Callable[[PaymentGateway], Awaitable[RefundState]]:
    order = RefundOrder(refund.refund_id, refund.payment.reference or "", refund.cents)

    async def ask(gateway: PaymentGateway) -> RefundState:
        try:
            return await gateway.refund(order)
        except ConflictError as error:
            log().warning("refund.impossible", id=order.refund_id, code=error.code)
            return RefundState("", order.refund_id, PaymentStatus.FAILED, order.cents)

    return ask


async def _together(work: Sequence[Awaitable[None]]) -> None:
    """All of them, and the first failure only after the last has ended."""
    for outcome in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
