"""Subscriptions by the month (https://docs.stripe.com/billing/subscriptions/overview)."""

from __future__ import annotations

from typing import Any, Final

from stripe import params
from tests.support.stripe_fake import collection
from tests.support.stripe_fake.account import Account, changes, public
from tests.support.stripe_fake.bills import add_items, cycle_line, new_invoice, set_lines
from tests.support.stripe_fake.call import Call, Rule
from tests.support.stripe_fake.customers import payer
from tests.support.stripe_fake.cycles import first_period, next_end
from tests.support.stripe_fake.ending import end
from tests.support.stripe_fake.failures import Failure, invalid, refused
from tests.support.stripe_fake.invoice_items import pending
from tests.support.stripe_fake.listing import page, sublist
from tests.support.stripe_fake.store import Object, merge_metadata

GRACE_S: Final = 3_600
"""A renewal's draft is finalized about an hour after its making
(https://docs.stripe.com/billing/invoices/subscription#subscription-lifecycle)."""


def create(account: Account, call: Call) -> Object:
    """Starts now. Metered items cost nothing in advance: the first invoice is paid at once."""
    given = call.params
    customer = payer(account, given)
    now = account.now(customer["test_clock"])
    identity = account.store.new_id("sub")
    anchor, end = first_period(given, now)
    subscription: Object = {
        "id": identity,
        "object": "subscription",
        "automatic_tax": {"enabled": False, "disabled_reason": None, "liability": None},
        "billing_cycle_anchor": anchor,
        "billing_mode": {"type": "flexible"},
        "cancel_at": None,
        "cancel_at_period_end": False,
        "canceled_at": None,
        "collection_method": "charge_automatically",
        "created": now,
        "currency": "usd",
        "customer": customer["id"],
        "days_until_due": None,
        "default_payment_method": None,
        "description": None,
        "discounts": [],
        "ended_at": None,
        "items": sublist([], f"/v1/subscription_items?subscription={identity}"),
        "latest_invoice": None,
        "livemode": False,
        "metadata": {},
        "pause_collection": None,
        "start_date": now,
        "status": "active",
        "test_clock": customer["test_clock"],
        "trial_end": None,
    }
    items = [_item(account, identity, one, now, end) for one in given.get("items", [])]
    if not items:
        raise invalid("Missing required param: items.", code="parameter_missing", param="items")
    subscription["items"] = sublist(items, subscription["items"]["url"])
    _assign(account, subscription, given)
    account.store.put(subscription)
    account.emit("customer.subscription.created", subscription)
    _first_invoice(account, subscription, customer, now, end)
    return public(subscription)


def update(account: Account, call: Call) -> Object:
    """Metadata, terms, and whether it ends with the period; its items stay as they are."""
    subscription = _living(account, call.id)
    before = public(subscription)
    _assign(account, subscription, call.params)
    if previous := changes(before, public(subscription)):
        account.emit("customer.subscription.updated", subscription, previous)
    return public(subscription)


def cancel(account: Account, call: Call) -> Object:
    """At once; `invoice_now` bills the usage so far."""
    subscription = _living(account, call.id)
    if call.params.get("invoice_now"):
        invoice = account.store.put(upcoming(account, subscription))
        account.emit("invoice.created", invoice)
        collection.finalize(account, invoice)
    end(account, subscription)
    return public(subscription)


def renew(account: Account, subscription: Object) -> None:
    """A period is over: a draft bills it, and the next one begins."""
    invoice = account.store.put(upcoming(account, subscription))
    add_items(account, invoice, pending(account, invoice["customer"], subscription["id"]))
    now = account.now(subscription["test_clock"])
    if subscription["pause_collection"]:  # "invoices remain in draft and auto_advance is false"
        invoice["auto_advance"] = False
    else:
        invoice["automatically_finalizes_at"] = now + GRACE_S
    subscription["latest_invoice"] = invoice["id"]
    account.emit("invoice.created", invoice)
    if subscription["cancel_at_period_end"]:
        end(account, subscription)
        return
    start, until = period_end(subscription), next_end(subscription["billing_cycle_anchor"], now)
    for item in subscription["items"]["data"]:
        item.update(current_period_start=start, current_period_end=until)
    account.emit("customer.subscription.updated", subscription, {"latest_invoice": None})


def upcoming(account: Account, subscription: Object) -> Object:
    """The invoice of the current period as it stands, not kept and without pending items."""
    customer = account.store.get("customer", subscription["customer"])
    invoice = new_invoice(
        account,
        customer,
        "subscription_cycle",
        auto_advance=True,
        collection_method=subscription["collection_method"],
        parent=_parent(subscription),
        period_start=subscription["items"]["data"][0]["current_period_start"],
        period_end=period_end(subscription),
        _days_until_due=subscription["days_until_due"],
    )
    span = invoice["period_start"], invoice["period_end"]
    lines = [
        cycle_line(account, item, customer["id"], *span, usage_counts=True)
        for item in subscription["items"]["data"]
    ]
    set_lines(invoice, lines)
    return invoice


def period_end(subscription: Object) -> int:
    """When the current period ends: all items have one, since all prices are monthly."""
    found: int = subscription["items"]["data"][0]["current_period_end"]
    return found


def retrieve(account: Account, call: Call) -> Object:
    """One, a cancelled one included."""
    return public(account.store.get("subscription", call.id))


def list_all(account: Account, call: Call) -> Object:
    """All that are not cancelled, unless a status (or `all`) is named."""
    wanted = call.params.get("status")
    found = [
        one
        for one in account.store.all("subscription")
        if wanted in {"all", one["status"]} or (wanted is None and one["status"] != "canceled")
    ]
    return page(call, found, handled=["status"])


def _first_invoice(
    account: Account, subscription: Object, customer: Object, start: int, until: int
) -> None:
    lines = [
        cycle_line(account, item, customer["id"], start, until, usage_counts=False)
        for item in subscription["items"]["data"]
    ]
    invoice = new_invoice(
        account, customer, "subscription_create", parent=_parent(subscription), auto_advance=True
    )
    set_lines(invoice, lines)
    if invoice["total"]:
        raise Failure(501, "The fake models subscriptions of metered prices only.")
    account.store.put(invoice)
    subscription["latest_invoice"] = invoice["id"]
    account.emit("invoice.created", invoice)
    collection.finalize(account, invoice)


def _item(
    account: Account, subscription: str, given: dict[str, Any], start: int, until: int
) -> Object:
    price = account.store.get("price", given.get("price", ""), "items[0][price]")
    if price["type"] != "recurring":
        message = "The price specified is set to `type=one_time` but this field only accepts "
        message += "prices with `type=recurring`."
        raise refused(message, param="items[0][price]")
    metered = price["recurring"]["usage_type"] == "metered"
    if metered and "quantity" in given:
        message = "You cannot set the quantity for metered plans."
        raise invalid(message, param="items[0][quantity]")
    quantity = {} if metered else {"quantity": given.get("quantity", 1)}
    return account.store.put(
        {
            "id": account.store.new_id("si", 14),
            "object": "subscription_item",
            "created": start,
            "current_period_end": until,
            "current_period_start": start,
            "discounts": [],
            "metadata": merge_metadata({}, given.get("metadata", {})),
            "price": public(price),
            "subscription": subscription,
            "tax_rates": [],
            **quantity,
        }
    )


def _assign(account: Account, subscription: Object, given: dict[str, Any]) -> None:
    for name in ("description", "collection_method", "days_until_due", "cancel_at_period_end"):
        if name in given:
            subscription[name] = given[name]
    if "metadata" in given:
        subscription["metadata"] = merge_metadata(subscription["metadata"], given["metadata"])
    if "pause_collection" in given:
        subscription["pause_collection"] = _paused(given["pause_collection"])
    if method := given.get("default_payment_method"):
        account.store.get("payment_method", method, "default_payment_method")
        subscription["default_payment_method"] = method
    by_mail = subscription["collection_method"] == "send_invoice"
    if by_mail and subscription["days_until_due"] is None:
        message = "You must pass `days_until_due` with `collection_method=send_invoice`."
        raise invalid(message, code="parameter_missing", param="days_until_due")


def _paused(given: Any) -> Object | None:
    """https://docs.stripe.com/billing/subscriptions/pause-payment; an empty value resumes."""
    if not given:
        return None
    if given["behavior"] != "keep_as_draft" or "resumes_at" in given:
        raise Failure(501, "The fake models `pause_collection` that keeps drafts for ever only.")
    return {"behavior": given["behavior"], "resumes_at": None}


def _living(account: Account, identity: str) -> Object:
    subscription = account.store.get("subscription", identity)
    if subscription["status"] == "canceled":
        return account.store.get("", identity)
    return subscription


def _parent(subscription: Object) -> Object:
    return {
        "type": "subscription_details",
        "quote_details": None,
        "subscription_details": {
            "metadata": dict(subscription["metadata"]),
            "subscription": subscription["id"],
        },
    }


_SUBSCRIPTIONS: Final = "/v1/subscriptions"
_SET: Final = "description collection_method days_until_due cancel_at_period_end metadata"
RULES: Final = (
    Rule(
        "POST",
        _SUBSCRIPTIONS,
        create,
        params.SubscriptionCreateParams,
        f"{_SET} customer items default_payment_method billing_cycle_anchor proration_behavior "
        "billing_cycle_anchor_config off_session currency",
    ),
    Rule("GET", _SUBSCRIPTIONS, list_all, params.SubscriptionListParams),
    Rule("GET", _SUBSCRIPTIONS + "/{id}", retrieve, params.SubscriptionRetrieveParams),
    Rule(
        "POST",
        _SUBSCRIPTIONS + "/{id}",
        update,
        params.SubscriptionUpdateParams,
        f"{_SET} default_payment_method pause_collection",
    ),
    Rule(
        "DELETE",
        _SUBSCRIPTIONS + "/{id}",
        cancel,
        params.SubscriptionCancelParams,
        "invoice_now prorate",
    ),
)
