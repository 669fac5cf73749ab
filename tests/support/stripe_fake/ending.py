"""The end of a subscription: by a cancellation, or with its customer."""

from __future__ import annotations

from tests.support.stripe_fake.account import Account
from tests.support.stripe_fake.store import Object


def end(account: Account, subscription: Object) -> None:
    """It is over (https://docs.stripe.com/billing/subscriptions/cancel)."""
    now = account.now(subscription["test_clock"])
    subscription.update(status="canceled", canceled_at=now, ended_at=now)
    account.emit("customer.subscription.deleted", subscription)


def end_all(account: Account, customer: str) -> None:
    """Those of a customer."""
    for subscription in account.store.all("subscription"):
        if subscription["customer"] == customer and subscription["status"] != "canceled":
            end(account, subscription)
