"""A closed month as an invoice of Stripe's: its draft, its items, its total, its payment.

The draft is the one that the tenant's subscription made for the month, with what the meter counted
on it; where there is none (a tenant that was not subscribed then), one is made. Items bring it to
exactly the cents that are collected, and only then it is finalised. Whatever call fails or dies:
the next attempt finds what there is by its metadata, and goes on from there.
"""

from __future__ import annotations

from datetime import date
from typing import Any, Final

import stripe

from penstock_billing import metrics
from penstock_billing.adapters.stripe_client import StripeConnection, plain
from penstock_billing.adapters.stripe_mirror import TENANT
from penstock_billing.domain.charge_items import ChargeItem, charge_items
from penstock_billing.domain.pushing import month_end, month_start
from penstock_billing.ports.payments import Charge
from penstock_shared.contracts.errors import PermanentError, UnavailableError
from penstock_shared.contracts.invoices import Invoice
from penstock_shared.runtime.telemetry import log

_NUMBER: Final = "penstock_invoice"
_ITEM: Final = "penstock_item"
_PAYMENT: Final = "penstock_payment"
_BEFORE: Final = "penstock_charge_before"
_ATTEMPTS: Final = 3
_NONE: Final = "none"


class StripeInvoices:
    """Finds, fills and pays Stripe's invoices. Stripe's errors come out as they are."""

    def __init__(self, connection: StripeConnection) -> None:
        self._v1 = connection.client.v1

    async def find(self, customer: str, number: str, period: date) -> dict[str, Any] | None:
        """The invoice that has our number, or the draft that the subscription made for the month.

        A subscription's invoice tells its usage in arrears: its `period_end` is the month's end
        (docs.stripe.com/api/invoices/object#invoice_object-period_end).
        """
        since = int(month_start(period).timestamp())
        ends_at = int(month_end(period).timestamp())
        found = await self._v1.invoices.list_async(
            {"customer": customer, "created": {"gte": since}, "limit": 100}
        )
        drafts = []
        async for one in found.auto_paging_iter():
            invoice = plain(one)
            if invoice["metadata"].get(_NUMBER) == number:
                return invoice
            cycle = invoice["billing_reason"] == "subscription_cycle"
            if cycle and invoice["status"] == "draft" and invoice["period_end"] == ends_at:
                drafts.append(invoice)
        return drafts[0] if drafts else None

    async def take(self, charge: Charge, draft: dict[str, Any] | None) -> dict[str, Any]:
        """The draft under our number, or a new one."""
        metadata = {_NUMBER: charge.number, TENANT: charge.payer.tenant}
        if draft is not None:
            ours: Any = {"metadata": metadata, "auto_advance": False}
            return plain(await self._v1.invoices.update_async(draft["id"], ours))
        made = await self._v1.invoices.create_async(
            {
                "customer": charge.payer.customer,
                "currency": "usd",
                "auto_advance": False,
                "collection_method": "charge_automatically",
                "pending_invoice_items_behavior": "exclude",
                "metadata": metadata,
            }
        )
        return plain(made)

    async def fill(
        self, draft: dict[str, Any], ours: Invoice, cents: int, taken: int, *, patient: bool
    ) -> None:
        """Bring the draft to `cents`; `taken` is what the meter is known to have of the month.

        It counts later than it takes: `patient` waits for that, since what is counted between the
        last look at the total and the finalising would be in the invoice.

        Raises:
            UnavailableError: the meter's sum moves under our hands.
        """
        for _ in range(_ATTEMPTS):
            present = await self._items(draft["id"])
            added = sum(item["amount"] for item in present)
            metered = draft["total"] - added
            if patient and metered < taken:
                break
            await self._amend(draft, present, charge_items(ours, metered, cents))
            draft = plain(await self._v1.invoices.retrieve_async(draft["id"]))
            if draft["total"] == cents:
                self._compare(draft["id"], metered, taken)
                return
        msg = "The meter is still counting: the invoice is drawn up when it has all of the month."
        raise UnavailableError(msg, code="stripe_still_counting")

    async def finalise(self, draft: dict[str, Any]) -> dict[str, Any]:
        """After this nothing of it can change. It is not sent or collected by Stripe's schedule."""
        done = await self._v1.invoices.finalize_invoice_async(draft["id"], {"auto_advance": False})
        return plain(done)

    async def pay(
        self, invoice: dict[str, Any], charge: Charge
    ) -> tuple[dict[str, Any], str | None]:
        """Try it, once for each payment id; with why it could not even be tried.

        The invoice says for which payment it was tried last, and which charge was its last before
        that: another charge since then is the one that was made. Stripe pays no invoice twice.
        """
        if invoice["total"] != charge.cents:
            msg = f"Stripe's invoice {invoice['id']} is not over what is owed: look at both."
            raise PermanentError(msg, code="stripe_total_differs")
        last = await self.last_charge(invoice["id"]) or _NONE
        metadata = invoice["metadata"]
        if metadata.get(_PAYMENT) != charge.payment_id:
            mark = {_PAYMENT: charge.payment_id, _BEFORE: last}
            await self._v1.invoices.update_async(invoice["id"], {"metadata": mark})
        elif metadata.get(_BEFORE) != last:
            return invoice, None
        try:
            paid = await self._v1.invoices.pay_async(
                invoice["id"], {"payment_method": charge.payer.method, "off_session": True}
            )
        except stripe.CardError as error:  # a decline: the invoice stays open, and says why
            log().info("stripe.declined", invoice=invoice["id"], code=error.code)
            return plain(await self._v1.invoices.retrieve_async(invoice["id"])), None
        except stripe.InvalidRequestError as error:
            if error.param != "payment_method":
                raise
            # Taken away at Stripe: it is the tenant's to give another one.
            return invoice, error.code or "payment_method_refused"
        return plain(paid), None

    async def intent(self, invoice_id: str) -> dict[str, Any] | None:
        """What moves an invoice's money (docs.stripe.com/api/invoice-payment).

        The one that paid it, else the one that is tried by default.
        """
        found = await self._v1.invoice_payments.list_async({"invoice": invoice_id, "limit": 100})
        payments = [plain(one) for one in found.data]
        payments.sort(key=lambda one: (one["status"] != "paid", not one["is_default"]))
        for payment in payments:
            if intent := payment["payment"].get("payment_intent"):
                return plain(await self._v1.payment_intents.retrieve_async(intent))
        return None

    async def last_charge(self, invoice_id: str) -> str | None:
        """The last charge that was tried for an invoice."""
        intent = await self.intent(invoice_id)
        return None if intent is None else intent["latest_charge"]

    async def _items(self, invoice_id: str) -> list[dict[str, Any]]:
        found = await self._v1.invoice_items.list_async({"invoice": invoice_id, "limit": 100})
        items = [plain(one) async for one in found.auto_paging_iter()]
        return [item for item in items if _ITEM in item["metadata"]]

    async def _amend(
        self, draft: dict[str, Any], present: list[dict[str, Any]], wanted: list[ChargeItem]
    ) -> None:
        """Make the items on the draft those that are wanted."""
        left = {item.key: item for item in wanted}
        for item in present:
            wants = left.pop(item["metadata"][_ITEM], None)
            if wants is None or wants.cents != item["amount"]:
                await self._v1.invoice_items.delete_async(item["id"])
                if wants is not None:
                    left[wants.key] = wants
        for missing in left.values():
            await self._v1.invoice_items.create_async(
                {
                    "customer": draft["customer"],
                    "invoice": draft["id"],
                    "currency": "usd",
                    "amount": missing.cents,
                    "description": missing.description,
                    "metadata": {_ITEM: missing.key},
                }
            )

    def _compare(self, invoice_id: str, metered: int, taken: int) -> None:
        """The invoice is right whatever the meter says; that it says something else is not."""
        if metered != taken:
            metrics.STRIPE_METER_DIFFERS.inc(abs(metered - taken))
            log().error(
                "stripe.meter_differs", invoice=invoice_id, metered=metered, acknowledged=taken
            )
