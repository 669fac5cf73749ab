"""An invoice's make-up: its lines and what they come to (https://docs.stripe.com/api/invoices)."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

from tests.support.stripe_fake.account import Account
from tests.support.stripe_fake.failures import refused
from tests.support.stripe_fake.listing import sublist
from tests.support.stripe_fake.metering import usage
from tests.support.stripe_fake.store import Object

_MOST_ITEMS: Final = 250
"""Of an invoice and of a customer's pending ones (https://docs.stripe.com/api/invoiceitems)."""


def new_invoice(account: Account, customer: Object, reason: str, **members: Any) -> Object:
    """A draft without lines."""
    now = account.now(customer["test_clock"])
    identity = account.store.new_id("in")
    return {
        "id": identity,
        "object": "invoice",
        "amount_due": 0,
        "amount_overpaid": 0,
        "amount_paid": 0,
        "amount_remaining": 0,
        "attempt_count": 0,
        "attempted": False,
        "auto_advance": False,
        "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
        "automatically_finalizes_at": None,
        "billing_reason": reason,
        "collection_method": "charge_automatically",
        "created": now,
        "currency": "usd",
        "customer": customer["id"],
        "customer_email": customer["email"],
        "customer_name": customer["name"],
        "default_payment_method": None,
        "description": None,
        "due_date": None,
        "effective_at": None,
        "ending_balance": None,
        "hosted_invoice_url": None,
        "invoice_pdf": None,
        "lines": sublist([], f"/v1/invoices/{identity}/lines"),
        "livemode": False,
        "metadata": {},
        "next_payment_attempt": None,
        "number": None,
        "parent": None,
        "period_end": now,
        "period_start": now,
        "starting_balance": customer["balance"],
        "status": "draft",
        "status_transitions": {
            "finalized_at": None,
            "marked_uncollectible_at": None,
            "paid_at": None,
            "voided_at": None,
        },
        "subtotal": 0,
        "test_clock": customer["test_clock"],
        "total": 0,
        **members,
    }


def subscription_of(invoice: Object) -> str | None:
    """The subscription that made it."""
    if invoice["parent"] is None:
        return None
    identity: str = invoice["parent"]["subscription_details"]["subscription"]
    return identity


def add_items(account: Account, invoice: Object, items: list[Object]) -> None:
    """Turn invoice items into lines."""
    if len(invoice["lines"]["data"]) + len(items) > _MOST_ITEMS:
        raise refused("An invoice can have up to 250 invoice items.", code="invoice_too_many_items")
    for item in items:
        item["invoice"] = invoice["id"]
    set_lines(invoice, invoice["lines"]["data"] + [_item_line(account, item) for item in items])


def set_lines(invoice: Object, lines: list[Object]) -> None:
    """Give it these lines and add them up."""
    invoice["lines"] = sublist(lines, invoice["lines"]["url"])
    for line in lines:
        line["invoice"] = invoice["id"]
    total = sum(line["amount"] for line in lines)
    due = max(0, total + invoice["starting_balance"])
    invoice.update(subtotal=total, total=total, amount_due=due, amount_remaining=due)


def refresh(account: Account, invoice: Object) -> Object:
    """A draft counts usage that is reported until it is finalized.

    "During the grace period you can still report usage" of the period
    (https://docs.stripe.com/billing/subscriptions/usage-based/configure-grace-period).
    """
    if invoice["status"] == "draft":
        for line in invoice["lines"]["data"]:
            parent = line["parent"]
            if parent["type"] == "subscription_item_details" and line["_meter"]:
                _meter_line(account, invoice["customer"], line)
        set_lines(invoice, invoice["lines"]["data"])
    return invoice


def cycle_line(
    account: Account, item: Object, customer: str, start: int, end: int, *, usage_counts: bool
) -> Object:
    """What one item of a subscription costs for a period. Metered ones are billed in arrears."""
    price = item["price"]
    meter = (price["recurring"] or {}).get("meter")
    line = {
        "id": account.store.new_id("il"),
        "object": "line_item",
        "amount": 0,
        "currency": price["currency"],
        "description": item["metadata"].get("description"),
        "livemode": False,
        "metadata": {},
        "parent": {
            "type": "subscription_item_details",
            "invoice_item_details": None,
            "subscription_item_details": {
                "invoice_item": None,
                "proration": False,
                "subscription": item["subscription"],
                "subscription_item": item["id"],
            },
        },
        "period": {"start": start, "end": end},
        "pricing": pricing(price),
        "quantity": 0 if meter else item.get("quantity", 1),
        "subscription": item["subscription"],
        "_meter": meter,
    }
    if meter and usage_counts:
        _meter_line(account, customer, line)
    elif not meter:
        line["amount"] = cents(price["unit_amount_decimal"], line["quantity"])
    return line


def pricing(price: Object) -> Object:
    """How a line names its price."""
    return {
        "type": "price_details",
        "price_details": {"price": price["id"], "product": price["product"]},
        "unit_amount_decimal": price["unit_amount_decimal"],
    }


def cents(unit_amount: str, quantity: int) -> int:
    """Rounded half up to whole cents, line by line (https://docs.stripe.com/products-prices)."""
    return int((Decimal(unit_amount) * quantity).to_integral_value(ROUND_HALF_UP))


def _meter_line(account: Account, customer: str, line: Object) -> None:
    """Negative usage is billed as none (recording-usage-api, "Usage values")."""
    meter = account.store.get("billing.meter", line["_meter"])
    period = line["period"]
    line["quantity"] = max(0, usage(account, meter, customer, period["start"], period["end"]))
    line["amount"] = cents(line["pricing"]["unit_amount_decimal"], line["quantity"])


def _item_line(account: Account, item: Object) -> Object:
    return {
        "id": account.store.new_id("il"),
        "object": "line_item",
        "amount": item["amount"],
        "currency": item["currency"],
        "description": item["description"],
        "livemode": False,
        "metadata": dict(item["metadata"]),
        "parent": {
            "type": "invoice_item_details",
            "invoice_item_details": {
                "invoice_item": item["id"],
                "proration": False,
                "proration_details": None,
                "subscription": item["_subscription"],
            },
            "subscription_item_details": None,
        },
        "period": dict(item["period"]),
        "pricing": item["pricing"],
        "quantity": item["quantity"],
        "subscription": item["_subscription"],
    }
