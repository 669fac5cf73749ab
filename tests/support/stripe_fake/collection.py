"""Finalizing an invoice and collecting it.

https://docs.stripe.com/invoicing/integration/workflow-transitions and
https://docs.stripe.com/invoicing/integration/automatic-advancement-collection.
"""

from __future__ import annotations

from typing import Final

from tests.support.stripe_fake.account import Account, changes, public
from tests.support.stripe_fake.bills import refresh, subscription_of
from tests.support.stripe_fake.cards import known
from tests.support.stripe_fake.customers import living
from tests.support.stripe_fake.failures import Failure, refused
from tests.support.stripe_fake.payments import LEAST_CENTS, confirm, new_intent
from tests.support.stripe_fake.store import Object

_DAY: Final = 86_400
RETRY_DAYS: Final = (3, 5, 7)
"""Days between attempts, as a schedule of one's own sets them
(https://docs.stripe.com/billing/revenue-recovery/smart-retries)."""


def finalize(account: Account, invoice: Object) -> None:
    """Draft → open, or paid at once if nothing is due.

    What is due is the total with the customer's balance. Below the least charge nothing is
    collected: the balance takes it over to the next invoice
    (https://docs.stripe.com/billing/customer/balance, `amount_due` of the invoice).
    """
    if invoice["status"] != "draft":
        message = "This invoice is already finalized, you can't re-finalize a non-draft invoice."
        raise refused(message, code="invoice_not_editable")
    customer = living(account, invoice["customer"])
    invoice["starting_balance"] = customer["balance"]
    refresh(account, invoice)
    now = account.now(invoice["test_clock"])
    owed = invoice["total"] + invoice["starting_balance"]
    due = owed if owed >= LEAST_CENTS else 0
    sequence = customer["next_invoice_sequence"]
    invoice.update(
        number=f"{customer['invoice_prefix']}-{sequence:04d}",
        status="open",
        amount_due=due,
        amount_remaining=due,
        ending_balance=owed - due,
        effective_at=now,
        automatically_finalizes_at=None,
    )
    invoice["status_transitions"]["finalized_at"] = now
    customer.update(balance=owed - due, next_invoice_sequence=sequence + 1)
    if invoice["collection_method"] == "send_invoice" and invoice["due_date"] is None:
        invoice["due_date"] = now + invoice["_days_until_due"] * _DAY
    if due:
        _open_payment(account, invoice)
        if invoice["auto_advance"] and invoice["collection_method"] == "charge_automatically":
            invoice["next_payment_attempt"] = now
    account.emit("invoice.finalized", invoice)
    if not due:
        _paid(account, invoice)


def pay(account: Account, invoice: Object, method: str | None = None) -> None:
    """Charge it now.

    Raises:
        Failure: 402, declined; 400, it cannot be paid or nothing can be charged.
    """
    check_payable(invoice)
    identity = method or _method(account, invoice)
    if identity is None:
        message = "There is no `default_payment_method` set on this Customer or Invoice. Please "
        message += "set either prior to calling pay on this invoice."
        raise refused(message, code="missing")
    intent = account.store.get("payment_intent", invoice["_intent"])
    intent["payment_method"] = known(account, identity)["id"]
    invoice.update(attempted=True, attempt_count=invoice["attempt_count"] + 1)
    try:
        confirm(account, intent)
    except Failure:
        _failed(account, invoice)
        raise
    payment = account.store.get("invoice_payment", invoice["_payment"])
    payment.update(status="paid", amount_paid=invoice["amount_due"])
    payment["status_transitions"]["paid_at"] = account.now(invoice["test_clock"])
    account.emit("invoice_payment.paid", payment)
    _paid(account, invoice)


def pay_outside(account: Account, invoice: Object) -> None:
    """Marked as paid: no money moves through Stripe (`paid_out_of_band`)."""
    check_payable(invoice)
    give_up(account, invoice)
    _paid(account, invoice)


def check_payable(invoice: Object) -> None:
    """Open or uncollectible."""
    if invoice["status"] == "paid":
        raise refused("Invoice is already paid")
    if invoice["status"] not in {"open", "uncollectible"}:
        raise refused(f"This invoice is {invoice['status']} and cannot be paid.")


def give_up(account: Account, invoice: Object) -> None:
    """Its payment will never be tried again."""
    if payment := account.store.any(invoice.get("_payment", "")):
        payment["status"] = "canceled"
        account.store.get("payment_intent", invoice["_intent"])["status"] = "canceled"
    invoice["next_payment_attempt"] = None


def set_status(account: Account, subscription: Object, status: str) -> None:
    """Of a subscription, with its event."""
    before = public(subscription)
    subscription["status"] = status
    if previous := changes(before, public(subscription)):
        account.emit("customer.subscription.updated", subscription, previous)


def _open_payment(account: Account, invoice: Object) -> None:
    intent = new_intent(account, amount=invoice["amount_due"], customer=invoice["customer"])
    payment = account.store.put(
        {
            "id": account.store.new_id("inpay"),
            "object": "invoice_payment",
            "amount_paid": None,
            "amount_requested": invoice["amount_due"],
            "created": account.now(invoice["test_clock"]),
            "currency": "usd",
            "invoice": invoice["id"],
            "is_default": True,
            "livemode": False,
            "payment": {"type": "payment_intent", "payment_intent": intent["id"]},
            "status": "open",
            "status_transitions": {"canceled_at": None, "paid_at": None},
        }
    )
    invoice.update(_intent=intent["id"], _payment=payment["id"])


def _method(account: Account, invoice: Object) -> str | None:
    """The invoice's, then its subscription's, then the customer's default."""
    customer = account.store.get("customer", invoice["customer"])
    subscription = account.store.any(subscription_of(invoice) or "") or {}
    found: str | None = (
        invoice["default_payment_method"]
        or subscription.get("default_payment_method")
        or customer["invoice_settings"]["default_payment_method"]
    )
    return found


def _paid(account: Account, invoice: Object) -> None:
    now = account.now(invoice["test_clock"])
    invoice.update(
        status="paid",
        amount_paid=invoice["amount_due"],
        amount_remaining=0,
        next_payment_attempt=None,
    )
    invoice["status_transitions"]["paid_at"] = now
    account.emit("invoice.paid", invoice)
    account.emit("invoice.payment_succeeded", invoice)
    subscription = account.store.any(subscription_of(invoice) or "")
    account.store.get("customer", invoice["customer"])["delinquent"] = False
    if (
        subscription is not None
        and subscription["latest_invoice"] == invoice["id"]
        and subscription["status"] == "past_due"
    ):
        set_status(account, subscription, "active")


def _failed(account: Account, invoice: Object) -> None:
    tries = invoice["attempt_count"]
    again = invoice["auto_advance"] and tries <= len(RETRY_DAYS)
    now = account.now(invoice["test_clock"])
    invoice["next_payment_attempt"] = now + RETRY_DAYS[tries - 1] * _DAY if again else None
    account.store.get("customer", invoice["customer"])["delinquent"] = True
    account.emit("invoice.payment_failed", invoice)
    subscription = account.store.any(subscription_of(invoice) or "")
    if subscription is not None and subscription["status"] == "active":
        set_status(account, subscription, "past_due")
