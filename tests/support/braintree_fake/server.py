"""The fake put together, and listening."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlsplit

import braintree
from tests.support.braintree_fake import transactions
from tests.support.braintree_fake.books import Books
from tests.support.braintree_fake.front import Front
from tests.support.braintree_fake.notices import Notice, notice
from tests.support.braintree_fake.wire import Members
from tests.support.vendor_clock import Clock
from tests.support.vendor_faults import Faults
from tests.support.vendor_server import listening

MERCHANT_ID: Final = "merchant_of_the_fake"
PUBLIC_KEY: Final = "public_key_of_the_fake"
PRIVATE_KEY: Final = "private_key_of_the_fake"


@dataclass
class BraintreeFake:
    """A running fake and the test's hands on it."""

    books: Books
    front: Front
    url: str = ""

    @property
    def clock(self) -> Clock:
        """The gateway's time."""
        return self.books.clock

    @property
    def faults(self) -> Faults:
        """Faults to come; paths are below the merchant: `/transactions`."""
        return self.front.faults

    def gateway(self, timeout_s: float = 5) -> Any:
        """The real package's gateway object, which blocks."""
        parts = urlsplit(self.url)
        environment = braintree.Environment(
            "fake", parts.hostname, str(parts.port), "", is_ssl=False, ssl_certificate=None
        )
        return braintree.BraintreeGateway(
            braintree.Configuration(
                environment=environment,
                merchant_id=MERCHANT_ID,
                public_key=PUBLIC_KEY,
                private_key=PRIVATE_KEY,
                timeout=timeout_s,
                wrap_http_exceptions=True,
            )
        )

    def nonce(self, *, decline: str | None = None) -> str:
        """What the form in a browser returns for a card; it can be used once.

        `decline` is the code with which the processor declines the card's sales, such as `2001`.
        """
        with self.front.lock:
            made = f"tokencc_{self.books.new_id(24)}"
            self.books.nonces[made] = ("1111", decline)
        return made

    def set_decline(self, token: str, code: str | None) -> None:
        """From now on a payment method's sales are declined with `code`; None: they succeed."""
        with self.front.lock:
            self.books.declines.pop(token, None)
            if code is not None:
                self.books.declines[token] = code

    def settle(self, identity: str | None = None, status: str = "settled") -> list[Members]:
        """The night's settlement: of one transaction, or of all that were submitted."""
        with self.front.lock:
            due = [
                one["id"]
                for one in self.books.transactions.values()
                if one["status"] == "submitted_for_settlement" and identity in {None, one["id"]}
            ]
            return [transactions.move(self.books, one, status)["transaction"] for one in due]

    def notice(self, kind: str, identity: str, *, late_s: float = 0) -> Notice:
        """A signed notice about a transaction, of a kind such as `transaction_settled`."""
        with self.front.lock:
            at = self.books.now() - timedelta(seconds=late_s)
            subject = {"transaction": self.books.transaction(identity)}
            return notice(kind, subject, at, self.front.keys)

    def check_notice(self) -> Notice:
        """What the control panel's button "Check URL" sends."""
        with self.front.lock:
            return notice("check", {"check": True}, self.books.now(), self.front.keys)


@contextlib.contextmanager
def running(seed: int = 0) -> Iterator[BraintreeFake]:
    """A fake that listens on a free port of loopback until the block ends."""
    books = Books(Clock(), seed, MERCHANT_ID)
    front = Front(books, {PUBLIC_KEY: PRIVATE_KEY})
    with listening(front) as url:
        yield BraintreeFake(books, front, url)
    if front.defects:
        raise ExceptionGroup("the fake of Braintree's gateway is broken", front.defects)
