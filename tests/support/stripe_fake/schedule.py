"""What falls due by itself: renewals, finalizing, collecting, and what is found wrong later."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from tests.support.stripe_fake import collection
from tests.support.stripe_fake.account import Account
from tests.support.stripe_fake.failures import Failure
from tests.support.stripe_fake.metering import process
from tests.support.stripe_fake.store import Object
from tests.support.stripe_fake.subscriptions import GRACE_S, period_end, renew

__all__ = ["GRACE_S", "catch_up"]

Act = Callable[[Account, Object], None]


def catch_up(account: Account, test_clock: str | None = None, until: int | None = None) -> None:
    """Do what is due, in the order in which it fell due.

    Everything of one clock: the account's, or a test clock that is advanced.
    """
    process(account)
    limit = account.now(test_clock) if until is None else until
    while (due := min(_all_due(account, test_clock), key=lambda one: one[0], default=None)) and (
        due[0] <= limit
    ):
        account.moment = due[0]
        try:
            due[1](account, due[2])
        finally:
            account.moment = None


def _all_due(account: Account, test_clock: str | None) -> Iterator[tuple[int, Act, Object]]:
    for subscription in account.store.all("subscription"):
        if subscription["test_clock"] == test_clock and subscription["status"] != "canceled":
            yield period_end(subscription), renew, subscription
    for invoice in account.store.all("invoice"):
        payer = account.store.any(invoice["customer"]) or {}
        if invoice["test_clock"] == test_clock and not payer.get("deleted"):
            yield from _due_of(invoice)


def _due_of(invoice: Object) -> Iterator[tuple[int, Act, Object]]:
    if not invoice["auto_advance"]:
        return
    if invoice["status"] == "draft" and invoice["automatically_finalizes_at"] is not None:
        yield invoice["automatically_finalizes_at"], collection.finalize, invoice
    if invoice["status"] == "open" and invoice["next_payment_attempt"] is not None:
        yield invoice["next_payment_attempt"], _collect, invoice
    if invoice["status"] == "open" and invoice["due_date"] and not invoice.get("_overdue"):
        yield invoice["due_date"], _overdue, invoice


def _collect(account: Account, invoice: Object) -> None:
    """A decline is told by events; without a payment method nothing is tried again."""
    invoice["next_payment_attempt"] = None
    with contextlib.suppress(Failure):
        collection.pay(account, invoice)


def _overdue(account: Account, invoice: Object) -> None:
    """Of an invoice that was sent (https://docs.stripe.com/api/events/types#event_types-invoice.overdue)."""
    invoice["_overdue"] = True
    account.emit("invoice.overdue", invoice)
