"""What one merchant has at Braintree."""

from __future__ import annotations

import random
import string
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from tests.support.braintree_fake.refusals import not_found
from tests.support.braintree_fake.wire import Members
from tests.support.vendor_clock import Clock

_LETTERS: Final = string.ascii_lowercase + string.digits


@dataclass
class Books:
    """State. Touched under the fake's lock only."""

    clock: Clock
    seed: int
    merchant_id: str
    customers: dict[str, Members] = field(default_factory=dict)
    cards: dict[str, Members] = field(default_factory=dict)
    transactions: dict[str, Members] = field(default_factory=dict)
    nonces: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    """Nonces that a form made: last four digits and the code of the card's decline. Used once."""
    used_nonces: set[str] = field(default_factory=set)
    declines: dict[str, str] = field(default_factory=dict)
    """By the token of the payment method: the code with which its sales are declined."""
    search_lag_s: float = 0
    """How long a new transaction is not found by a search."""
    duplicate_window_s: float = 30
    """Of duplicate checking; set by the merchant in the control panel."""

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def now(self) -> datetime:
        """The present."""
        return datetime.fromtimestamp(self.clock.now(), UTC)

    def new_id(self, length: int) -> str:
        """A fresh id of Braintree's form."""
        return "".join(self._random.choices(_LETTERS, k=length))

    def customer(self, identity: str) -> Members:
        """One customer, or 404."""
        if identity not in self.customers:
            raise not_found()
        return self.customers[identity]

    def card(self, token: str) -> Members:
        """One payment method, or 404."""
        if token not in self.cards:
            raise not_found()
        return self.cards[token]

    def transaction(self, identity: str) -> Members:
        """One transaction, or 404."""
        if identity not in self.transactions:
            raise not_found()
        return self.transactions[identity]
