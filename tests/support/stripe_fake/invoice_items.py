"""Invoice items (https://docs.stripe.com/api/invoiceitems): pending until an invoice takes them."""

from __future__ import annotations

from typing import Any, Final

from stripe import params
from tests.support.stripe_fake.account import Account, public
from tests.support.stripe_fake.bills import add_items, cents, pricing, set_lines
from tests.support.stripe_fake.call import Call, Rule
from tests.support.stripe_fake.customers import payer
from tests.support.stripe_fake.failures import Failure, invalid, refused
from tests.support.stripe_fake.listing import page
from tests.support.stripe_fake.store import Object, merge_metadata


def create(account: Account, call: Call) -> Object:
    """For an invoice that is still a draft, or pending for the customer's next."""
    given = call.params
    customer = payer(account, given)
    invoice = _draft(account, customer, given.get("invoice"))
    if subscription := given.get("subscription"):
        account.store.get("subscription", subscription, "subscription")
    now = account.now(customer["test_clock"])
    item = account.store.put(
        {
            "id": account.store.new_id("ii"),
            "object": "invoiceitem",
            "customer": customer["id"],
            "date": now,
            "description": given.get("description"),
            "discountable": False,
            "discounts": [],
            "invoice": None,
            "livemode": False,
            "metadata": merge_metadata({}, given.get("metadata", {})),
            "parent": None,
            "period": given.get("period", {"start": now, "end": now}),
            "proration": False,
            "tax_rates": [],
            "test_clock": customer["test_clock"],
            "_subscription": subscription,
            **_amount(account, given),
        }
    )
    if invoice is not None:
        add_items(account, invoice, [item])
        account.emit("invoice.updated", invoice, {})
    account.emit("invoiceitem.created", item)
    return public(item)


def pending(account: Account, customer: str, subscription: str | None = None) -> list[Object]:
    """What the next invoice of a customer takes: its own items, and those of the subscription."""
    return [
        item
        for item in account.store.all("invoiceitem")
        if item["customer"] == customer
        and item["invoice"] is None
        and item["_subscription"] in {None, subscription}
    ]


def update(account: Account, call: Call) -> Object:
    """Until the invoice that has it is finalized."""
    item = account.store.get("invoiceitem", call.id)
    _check_editable(account, item)
    given = dict(call.params)
    given.pop("expand", None)
    if "metadata" in given:
        given["metadata"] = merge_metadata(item["metadata"], given["metadata"])
    item.update(given)
    _replace(account, item, [item])
    return public(item)


def delete(account: Account, call: Call) -> Object:
    """Only while no finalized invoice has it."""
    item = account.store.get("invoiceitem", call.id)
    _check_editable(account, item)
    _replace(account, item, [])
    account.store.drop(item["id"])
    account.emit("invoiceitem.deleted", item)
    return {"id": item["id"], "object": "invoiceitem", "deleted": True}


def retrieve(account: Account, call: Call) -> Object:
    """One item."""
    return public(account.store.get("invoiceitem", call.id))


def list_all(account: Account, call: Call) -> Object:
    """All, or those of a customer or an invoice, or those that wait."""
    items = account.store.all("invoiceitem")
    if (waiting := call.params.get("pending")) is not None:
        items = (item for item in items if (item["invoice"] is None) == waiting)
    return page(call, items, handled=["pending"])


def _draft(account: Account, customer: Object, identity: str | None) -> Object | None:
    if identity is None:
        return None
    invoice = account.store.get("invoice", identity, "invoice")
    if invoice["customer"] != customer["id"]:
        raise refused("The invoice does not belong to this customer.", param="invoice")
    if invoice["status"] != "draft":
        message = "This invoice is no longer editable: only drafts take invoice items."
        raise refused(message, code="invoice_not_editable", param="invoice")
    return invoice


def _check_editable(account: Account, item: Object) -> None:
    invoice = account.store.any(item["invoice"] or "")
    if invoice is not None and invoice["status"] != "draft":
        message = "You cannot change or delete an invoice item that is attached to an invoice that "
        message += "is no longer editable."
        raise refused(message, code="invoice_not_editable")


def _replace(account: Account, item: Object, by: list[Object]) -> None:
    """Take an item's line out of its draft, and put the new one there."""
    if item["invoice"] is None:
        return
    invoice = account.store.get("invoice", item["invoice"])
    rest = [
        line
        for line in invoice["lines"]["data"]
        if (line["parent"]["invoice_item_details"] or {}).get("invoice_item") != item["id"]
    ]
    set_lines(invoice, rest)
    add_items(account, invoice, by)


def _amount(account: Account, given: dict[str, Any]) -> Object:
    quantity = given.get("quantity", 1)
    if given.get("currency", "usd") != "usd":
        raise Failure(501, "The fake models invoice items in usd only.")
    if "amount" in given:
        if "quantity" in given:
            raise invalid("You may only specify one of these parameters: amount, quantity.")
        return {"amount": given["amount"], "currency": "usd", "pricing": None, "quantity": 1}
    if price := given.get("pricing", {}).get("price"):
        found = account.store.get("price", price, "pricing[price]")
        amount = cents(found["unit_amount_decimal"], quantity)
        return {
            "amount": amount,
            "currency": "usd",
            "pricing": pricing(found),
            "quantity": quantity,
        }
    if unit := given.get("unit_amount_decimal"):
        return {
            "amount": cents(unit, quantity),
            "currency": "usd",
            "pricing": None,
            "quantity": quantity,
        }
    message = "One of the following params should be provided for this request: amount, "
    message += "unit_amount_decimal or pricing."
    raise invalid(message, code="parameter_missing", param="amount")


_ITEMS: Final = "/v1/invoiceitems"
_SET: Final = "amount currency customer description metadata period quantity invoice subscription"
RULES: Final = (
    Rule(
        "POST",
        _ITEMS,
        create,
        params.InvoiceItemCreateParams,
        f"{_SET} pricing unit_amount_decimal discountable",
    ),
    Rule("GET", _ITEMS, list_all, params.InvoiceItemListParams),
    Rule("GET", _ITEMS + "/{id}", retrieve, params.InvoiceItemRetrieveParams),
    Rule(
        "POST",
        _ITEMS + "/{id}",
        update,
        params.InvoiceItemUpdateParams,
        "amount description metadata period",
    ),
    Rule("DELETE", _ITEMS + "/{id}", delete, params.InvoiceItemDeleteParams),
)
