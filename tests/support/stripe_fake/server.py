"""The fake put together, and listening."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import stripe
from stripe._base_address import BaseAddresses
from tests.support.stripe_fake import (
    cards,
    catalog,
    customer_clocks,
    customers,
    events,
    invoice_items,
    invoices,
    meter_events,
    meters,
    payments,
    refunds,
    subscriptions,
    thin,
)
from tests.support.stripe_fake.account import Account
from tests.support.stripe_fake.call import STREAM
from tests.support.stripe_fake.front import Front
from tests.support.stripe_fake.idempotency import Keys
from tests.support.stripe_fake.limits import Limits
from tests.support.stripe_fake.reading import Reader
from tests.support.stripe_fake.refunds import settle
from tests.support.stripe_fake.schedule import catch_up
from tests.support.stripe_fake.store import Store
from tests.support.stripe_fake.webhooks import Webhooks
from tests.support.vendor_clock import Clock
from tests.support.vendor_faults import Faults
from tests.support.vendor_server import listening

API_KEY: Final = "sk_test_of_the_fake"
_PARTS: Final = (
    cards,
    catalog,
    customer_clocks,
    customers,
    events,
    invoice_items,
    invoices,
    meter_events,
    meters,
    payments,
    refunds,
    subscriptions,
    thin,
)
_RULES: Final = tuple(rule for part in _PARTS for rule in part.RULES)


@dataclass
class StripeFake:
    """A running fake and the test's hands on it."""

    account: Account
    front: Front
    lock: threading.RLock
    url: str = ""

    @property
    def clock(self) -> Clock:
        """The account's time."""
        return self.account.clock

    @property
    def webhooks(self) -> Webhooks:
        """What is owed to endpoints; sending is the test's."""
        return self.account.webhooks

    @property
    def faults(self) -> Faults:
        """Faults to come."""
        return self.front.faults

    @property
    def limits(self) -> Limits:
        """Rates and lanes."""
        return self.front.limits

    @property
    def addresses(self) -> BaseAddresses:
        """For `StripeClient(base_addresses=...)`."""
        return {"api": self.url, "files": self.url, "meter_events": self.url + STREAM}

    def catch_up(self) -> None:
        """Do what has fallen due, which otherwise the next request does."""
        with self.lock:
            catch_up(self.account)

    def settle_refunds(self) -> None:
        """Let the banks answer for refunds."""
        with self.lock:
            settle(self.account)

    def client(self, retries: int = 0) -> stripe.StripeClient:
        """A client of the real package; asynchronous calls go through httpx."""
        return stripe.StripeClient(
            API_KEY,
            base_addresses=self.addresses,
            max_network_retries=retries,
            http_client=stripe.HTTPXClient(timeout=5, allow_sync_methods=True),
        )


def build(seed: int = 0) -> StripeFake:
    """An empty account, not yet listening."""
    clock, lock = Clock(), threading.RLock()
    account = Account(clock, Store(seed), Webhooks(clock))
    front = Front(account, Reader(_RULES, API_KEY), Faults(), Keys(), Limits(), lock)
    return StripeFake(account, front, lock)


@contextlib.contextmanager
def running(seed: int = 0) -> Iterator[StripeFake]:
    """A fake that listens on a free port of loopback until the block ends."""
    fake = build(seed)
    with listening(fake.front) as url:
        fake.url = url
        yield fake
    if fake.front.defects:
        raise ExceptionGroup("the fake of Stripe's API is broken", fake.front.defects)
