"""Payments through Stripe: an invoice of ours is an invoice of Stripe's, to the cent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any, Final

import stripe

from penstock_billing.adapters.stripe_client import StripeConnection, plain, translated
from penstock_billing.adapters.stripe_invoices import StripeInvoices
from penstock_billing.adapters.stripe_notices import StripeNoticeReader
from penstock_billing.domain.plans import next_month
from penstock_billing.domain.pushing import month_end
from penstock_billing.ports.invoices import InvoiceBook
from penstock_billing.ports.mirror import EmptyMonth, Mirror
from penstock_billing.ports.payments import (
    Charge,
    Notice,
    Payer,
    PaymentState,
    PaymentStatus,
    Provider,
    RefundOrder,
    RefundState,
)
from penstock_billing.ports.pushing import PushBook
from penstock_shared.contracts.errors import (
    ConflictError,
    NotFoundError,
    PermanentError,
    SchemaError,
    UnavailableError,
)
from penstock_shared.contracts.invoices import Invoice
from penstock_shared.runtime.clock import Clock

_REFUND: Final = "penstock_refund"
_REFUND_STATES: Final = {
    "succeeded": PaymentStatus.SUCCEEDED,
    "failed": PaymentStatus.FAILED,
    "canceled": PaymentStatus.FAILED,
}
_NOT_FOUND: Final = 404
_COUNTED_WITHIN: Final = timedelta(days=3)
"""Of a month's end: what has no draft, or is not in the meter's sum by then, will not be."""


class StripeGateway:
    """A `PaymentGateway`, and `EmptyMonths`."""

    provider = Provider.STRIPE

    def __init__(
        self,
        connection: StripeConnection,
        mirror: Mirror,
        pushes: PushBook,
        ours: InvoiceBook,
        notices: StripeNoticeReader,
        clock: Clock,
    ) -> None:
        self._v1 = connection.client.v1
        self._invoices = StripeInvoices(connection)
        self._mirror = mirror
        self._pushes = pushes
        self._ours = ours
        self._notices = notices
        self._clock = clock

    async def add_customer(self, tenant: str, name: str) -> str:
        """The tenant's customer, which is made if there is none."""
        return await self._mirror.put_customer(tenant, name)

    async def add_method(self, customer: str, token: str) -> str:
        """Keep a payment method, and make it the customer's default.

        docs.stripe.com/api/payment_methods/attach.
        """
        with translated():
            try:
                method = await self._v1.payment_methods.attach_async(token, {"customer": customer})
            except (stripe.InvalidRequestError, stripe.CardError) as error:
                msg = f"Stripe does not take this payment method ({error.code or 'unknown'}): "
                msg += "give the id that its form returned, pm_…."
                raise SchemaError(msg, code="payment_method_refused", param="token") from error
            default: Any = {"invoice_settings": {"default_payment_method": method.id}}
            await self._v1.customers.update_async(customer, default)
        return method.id

    async def collect(self, charge: Charge) -> PaymentState:
        """Collect an invoice. A decline is a state, not an error."""
        with translated():
            invoice = await self._invoices.find(charge.payer.customer, charge.number, charge.period)
        if invoice is None or invoice["status"] == "draft":
            try:
                invoice = await self._issue(charge, invoice)
            except PermanentError:
                if not await self._is_deleted(charge.payer.customer):
                    raise
                # Nobody was charged: another payer may be.
                return _customer_deleted(charge)
        failure = None
        if invoice["status"] == "open":
            with translated():
                invoice, failure = await self._invoices.pay(invoice, charge)
        state = await self._state(invoice)
        if failure is None:
            return state
        return replace(state, status=PaymentStatus.FAILED, failure=failure)

    async def refetch(self, reference: str) -> PaymentState:
        """How a payment stands now, with its refunds."""
        with translated():
            try:
                invoice = plain(await self._v1.invoices.retrieve_async(reference))
            except stripe.InvalidRequestError as error:
                if error.http_status != _NOT_FOUND:
                    raise
                msg = f"Stripe has no invoice '{reference}'."
                raise NotFoundError(msg, code="payment_not_found") from error
        return await self._state(invoice)

    async def refund(self, order: RefundOrder) -> RefundState:
        """Give money back. It is looked for first: a refund that was made is not made again."""
        with translated():
            intent = await self._invoices.intent(order.reference)
        if intent is None:
            msg = "Nothing was paid through Stripe for this invoice: there is nothing to refund."
            raise ConflictError(msg, code="not_refundable")
        for refund in await self._refunds(intent["id"]):
            if refund.refund_id == order.refund_id:
                return refund
        with translated():
            try:
                made = await self._v1.refunds.create_async(
                    {
                        "payment_intent": intent["id"],
                        "amount": order.cents,
                        "metadata": {_REFUND: order.refund_id},
                    },
                    {"idempotency_key": f"refund:{order.refund_id}"},
                )
            except stripe.InvalidRequestError as error:
                msg = f"Stripe does not refund this ({error.code or 'refused'}): look there."
                raise ConflictError(msg, code="not_refundable") from error
        return _refund_state(plain(made))

    async def close_empty(self, month: EmptyMonth) -> None:
        """Bring the month's draft to nothing: Stripe takes an invoice over nothing for paid."""
        with translated():
            draft = await self._invoices.find(month.customer, month.number, month.period)
        identity = month.tenant, month.period
        nothing = draft is None and not await self._pushes.taken_cents(*identity)
        if nothing and await self._pushes.complete(*identity, self._clock.now()):
            return
        if draft is None or draft["status"] == "draft":
            payer = Payer(month.tenant, Provider.STRIPE, month.customer, method="")
            await self._issue(Charge("", payer, month.period, month.number, cents=0), draft)

    def read_notice(self, headers: Mapping[str, str], body: bytes, at: datetime) -> Notice:
        """Verify a webhook."""
        return self._notices.read(headers, body, at)

    async def _issue(self, charge: Charge, draft: dict[str, Any] | None) -> dict[str, Any]:
        """The month's invoice at Stripe, finalised over exactly what is collected."""
        tenant, period = charge.payer.tenant, charge.period
        if not await self._pushes.complete(tenant, period, self._clock.now()):
            msg = f"The meter has not taken all of {tenant}'s {period:%Y-%m} yet."
            raise UnavailableError(msg, code="stripe_still_counting")
        taken = await self._pushes.taken_cents(tenant, period)
        patient = self._clock.now() < month_end(period) + _COUNTED_WITHIN
        if taken and draft is None and patient:
            msg = f"Stripe has not made {tenant}'s invoice for {period:%Y-%m} yet."
            raise UnavailableError(msg, code="stripe_still_counting")
        ours = await self._issued(tenant, period)
        with translated():
            draft = await self._invoices.take(charge, draft)
            await self._invoices.fill(draft, ours, charge.cents, taken, patient=patient)
            return await self._invoices.finalise(draft)

    async def _is_deleted(self, customer: str) -> bool:
        """A deleted one is still told of; another account's is unknown, which is our fault.

        docs.stripe.com/api/customers/retrieve.
        """
        with translated():
            found = plain(await self._v1.customers.retrieve_async(customer))
        return bool(found.get("deleted"))

    async def _issued(self, tenant: str, period: date) -> Invoice:
        async with self._ours.reading(tenant) as months:
            found = await months.issued(next_month(period), 1)
        return found[0]

    async def _state(self, invoice: dict[str, Any]) -> PaymentState:
        """An invoice as a payment.

        Its cents are the total: what is below the least that can be charged is carried in the
        customer's balance at Stripe, and its invoice is paid by that
        (docs.stripe.com/billing/customer/balance).
        """
        reference, status = invoice["id"], invoice["status"]
        if status == "draft":
            return PaymentState(reference, PaymentStatus.PENDING, invoice["total"])
        with translated():
            intent = await self._invoices.intent(reference)
        refunds = () if intent is None else tuple(await self._refunds(intent["id"]))
        cents = invoice["total"]
        if status == "paid":
            return PaymentState(reference, PaymentStatus.SUCCEEDED, cents, refunds=refunds)
        if status != "open":  # void, uncollectible: closed at Stripe's own desk
            return PaymentState(reference, PaymentStatus.FAILED, cents, f"invoice_{status}")
        failure = _failure(intent)
        known = PaymentStatus.PENDING if failure is None else PaymentStatus.FAILED
        return PaymentState(reference, known, cents, failure, refunds)

    async def _refunds(self, intent: str) -> list[RefundState]:
        with translated():
            found = await self._v1.refunds.list_async({"payment_intent": intent, "limit": 100})
            return [_refund_state(plain(one)) async for one in found.auto_paging_iter()]


def _customer_deleted(charge: Charge) -> PaymentState:
    why = "customer_deleted"
    return PaymentState(charge.payment_id, PaymentStatus.FAILED, charge.cents, why)


def _failure(intent: dict[str, Any] | None) -> str | None:
    """Why an open invoice was not paid; None: it is being tried, or was not tried yet.

    docs.stripe.com/payments/paymentintents/lifecycle. Nobody is there to authenticate: what asks
    for it has failed.
    """
    if intent is None or intent["status"] in {"processing", "requires_capture"}:
        return None
    if intent["status"] == "requires_action":
        return "authentication_required"
    error = intent.get("last_payment_error")
    return None if error is None else str(error.get("code") or error.get("type") or "failed")


def _refund_state(refund: dict[str, Any]) -> RefundState:
    """docs.stripe.com/api/refunds/object#refund_object-status."""
    return RefundState(
        reference=refund["id"],
        refund_id=(refund.get("metadata") or {}).get(_REFUND),
        status=_REFUND_STATES.get(refund["status"], PaymentStatus.PENDING),
        cents=refund["amount"],
    )
