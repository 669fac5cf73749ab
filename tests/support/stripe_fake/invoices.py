"""Invoices (https://docs.stripe.com/api/invoices)."""

from __future__ import annotations

from typing import Any, Final

from stripe import params
from tests.support.stripe_fake import collection
from tests.support.stripe_fake.account import Account, changes, public
from tests.support.stripe_fake.bills import add_items, new_invoice, refresh, subscription_of
from tests.support.stripe_fake.call import Call, Rule
from tests.support.stripe_fake.customers import payer
from tests.support.stripe_fake.failures import invalid, refused
from tests.support.stripe_fake.invoice_items import pending
from tests.support.stripe_fake.listing import page
from tests.support.stripe_fake.schedule import GRACE_S
from tests.support.stripe_fake.store import Object, merge_metadata
from tests.support.stripe_fake.subscriptions import upcoming

_ALWAYS: Final = frozenset({"metadata", "auto_advance", "default_payment_method", "expand"})
"""What may change after the draft."""


def create(account: Account, call: Call) -> Object:
    """A draft. It takes pending items only if it is told to, and waits unless it may advance.

    `pending_invoice_items_behavior` defaults to `exclude`, `auto_advance` to false.
    """
    given = call.params
    customer = payer(account, given)
    _check_terms(given)
    invoice = account.store.put(new_invoice(account, customer, "manual"))
    _assign(account, invoice, given)
    if given.get("pending_invoice_items_behavior") == "include":
        add_items(account, invoice, pending(account, customer["id"]))
    account.emit("invoice.created", invoice)
    return public(invoice)


def update(account: Account, call: Call) -> Object:
    """A draft's members; afterwards only what collecting it needs."""
    invoice = account.store.get("invoice", call.id)
    if invoice["status"] != "draft" and (fixed := call.params.keys() - _ALWAYS):
        message = f"Finalized invoices can't be updated in this way: {', '.join(sorted(fixed))}"
        raise refused(message, code="invoice_not_editable")
    before = public(invoice)
    _assign(account, invoice, call.params)
    if previous := changes(before, public(invoice)):
        account.emit("invoice.updated", invoice, previous)
    return public(invoice)


def delete(account: Account, call: Call) -> Object:
    """A draft, with its items. One of a subscription stays: it can be voided once finalized."""
    invoice = account.store.get("invoice", call.id)
    if invoice["status"] != "draft" or subscription_of(invoice):
        message = "You can only delete draft invoices that no subscription made."
        raise refused(message, code="invoice_not_editable")
    for item in list(account.store.all("invoiceitem")):
        if item["invoice"] == invoice["id"]:
            account.store.drop(item["id"])
    account.store.drop(invoice["id"])
    account.emit("invoice.deleted", invoice)
    return {"id": invoice["id"], "object": "invoice", "deleted": True}


def finalize(account: Account, call: Call) -> Object:
    """Draft → open."""
    invoice = account.store.get("invoice", call.id)
    invoice["auto_advance"] = call.params.get("auto_advance", invoice["auto_advance"])
    collection.finalize(account, invoice)
    return public(invoice)


def pay(account: Account, call: Call) -> Object:
    """Charge it at once, or mark it as paid elsewhere."""
    invoice = account.store.get("invoice", call.id)
    if call.params.get("paid_out_of_band"):
        collection.pay_outside(account, invoice)
    else:
        collection.pay(account, invoice, call.params.get("payment_method"))
    return public(invoice)


def void(account: Account, call: Call) -> Object:
    """It was a mistake: nothing is owed; it stays on record."""
    invoice = _unpaid(account, call, {"open", "uncollectible"})
    collection.give_up(account, invoice)
    invoice.update(status="void", amount_remaining=0)
    invoice["status_transitions"]["voided_at"] = account.now(invoice["test_clock"])
    account.emit("invoice.voided", invoice)
    return public(invoice)


def mark_uncollectible(account: Account, call: Call) -> Object:
    """It is owed and nobody hopes for it; it can be paid yet."""
    invoice = _unpaid(account, call, {"open"})
    invoice.update(status="uncollectible", next_payment_attempt=None)
    invoice["status_transitions"]["marked_uncollectible_at"] = account.now(invoice["test_clock"])
    account.emit("invoice.marked_uncollectible", invoice)
    return public(invoice)


def send(account: Account, call: Call) -> Object:
    """By email, where the customer pays by itself."""
    invoice = _unpaid(account, call, {"open"})
    if invoice["collection_method"] != "send_invoice":
        raise refused("You can only send an invoice whose collection method is 'send_invoice'.")
    account.emit("invoice.sent", invoice)
    return public(invoice)


def retrieve(account: Account, call: Call) -> Object:
    """One, with a draft's usage as it stands."""
    return public(refresh(account, account.store.get("invoice", call.id)))


def list_all(account: Account, call: Call) -> Object:
    """All, or by customer, status, subscription."""
    invoices = [refresh(account, one) for one in account.store.all("invoice")]
    if wanted := call.params.get("subscription"):
        invoices = [one for one in invoices if subscription_of(one) == wanted]
    return page(call, invoices, handled=["subscription"])


def list_lines(account: Account, call: Call) -> Object:
    """Its lines."""
    invoice = refresh(account, account.store.get("invoice", call.id))
    return page(call, reversed(invoice["lines"]["data"]))


def preview(account: Account, call: Call) -> Object:
    """What a subscription's next invoice would be now (https://docs.stripe.com/invoicing/preview)."""
    given = call.params
    if "subscription" not in given:
        raise refused("No upcoming invoices for customer", code="invoice_upcoming_none")
    subscription = account.store.get("subscription", given["subscription"], "subscription")
    if subscription["status"] == "canceled":
        raise refused("No upcoming invoices for customer", code="invoice_upcoming_none")
    return public(upcoming(account, subscription))


def list_payments(account: Account, call: Call) -> Object:
    """How invoices are paid, by invoice or payment intent."""
    payments = account.store.all("invoice_payment")
    if wanted := call.params.get("payment"):
        payments = (one for one in payments if wanted.items() <= one["payment"].items())
    return page(call, payments, handled=["payment"])


def _unpaid(account: Account, call: Call, states: set[str]) -> Object:
    invoice = account.store.get("invoice", call.id)
    if invoice["status"] not in states:
        raise refused(f"This invoice is {invoice['status']}: it must be {' or '.join(states)}.")
    return invoice


def _check_terms(given: dict[str, Any]) -> None:
    by_mail = given.get("collection_method") == "send_invoice"
    if by_mail and not given.keys() & {"days_until_due", "due_date"}:
        message = "If invoice.collection_method=send_invoice, you must specify either "
        message += "`days_until_due` or `due_date`."
        raise invalid(message, param="days_until_due")
    if not by_mail and given.keys() & {"days_until_due", "due_date"}:
        message = "You may only specify `days_until_due` or `due_date` with send_invoice."
        raise invalid(message, param="days_until_due")


def _assign(account: Account, invoice: Object, given: dict[str, Any]) -> None:
    for name in ("description", "collection_method", "due_date", "auto_advance"):
        if name in given:
            invoice[name] = given[name]
    if "days_until_due" in given:
        invoice["_days_until_due"] = given["days_until_due"]
    if "metadata" in given:
        invoice["metadata"] = merge_metadata(invoice["metadata"], given["metadata"])
    if method := given.get("default_payment_method"):
        account.store.get("payment_method", method, "default_payment_method")
        invoice["default_payment_method"] = method
    if invoice["status"] == "draft":
        now = account.now(invoice["test_clock"])
        due = invoice["automatically_finalizes_at"] or now + GRACE_S
        invoice["automatically_finalizes_at"] = due if invoice["auto_advance"] else None


_INVOICES: Final = "/v1/invoices"
_ONE: Final = _INVOICES + "/{id}"
_SET: Final = "auto_advance collection_method days_until_due due_date default_payment_method"
RULES: Final = (
    Rule(
        "POST",
        _INVOICES,
        create,
        params.InvoiceCreateParams,
        f"{_SET} customer description metadata currency pending_invoice_items_behavior",
    ),
    Rule("GET", _INVOICES, list_all, params.InvoiceListParams),
    Rule(
        "POST",
        _INVOICES + "/create_preview",
        preview,
        params.InvoiceCreatePreviewParams,
        "customer subscription",
    ),
    Rule("GET", _ONE, retrieve, params.InvoiceRetrieveParams),
    Rule("POST", _ONE, update, params.InvoiceUpdateParams, f"{_SET} description metadata"),
    Rule("DELETE", _ONE, delete, params.InvoiceDeleteParams),
    Rule("GET", _ONE + "/lines", list_lines, params.InvoiceLineItemListParams),
    Rule("POST", _ONE + "/finalize", finalize, params.InvoiceFinalizeInvoiceParams),
    Rule(
        "POST",
        _ONE + "/pay",
        pay,
        params.InvoicePayParams,
        "paid_out_of_band payment_method off_session",
    ),
    Rule("POST", _ONE + "/void", void, params.InvoiceVoidInvoiceParams),
    Rule(
        "POST",
        _ONE + "/mark_uncollectible",
        mark_uncollectible,
        params.InvoiceMarkUncollectibleParams,
    ),
    Rule("POST", _ONE + "/send", send, params.InvoiceSendInvoiceParams),
    Rule("GET", "/v1/invoice_payments", list_payments, params.InvoicePaymentListParams),
)
