"""What becomes of a message whose handler failed, and whose rejection fails, too."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import cast

import pytest

from penstock_shared.contracts.errors import (
    PenstockError,
    PermanentError,
    RateLimitedError,
    TransientError,
)
from penstock_shared.runtime.consumer import Delivery
from penstock_shared.runtime.settlement import settle


@dataclass
class FakeDelivery:
    """Notes how it was settled."""

    deliveries: int = 1
    sequence: int = 1
    failures: int | None = None
    settled: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    outcomes: list[str] = field(default_factory=list)
    delay_s: float = 0.0

    async def ack(self) -> None:
        self.outcomes.append("ack")

    async def nak(self, delay_s: float, *, failed: bool = False) -> None:
        assert delay_s > 0
        self.delay_s = delay_s
        self.outcomes.append("nak, failed" if failed else "nak")

    async def term(self) -> None:
        self.outcomes.append("term")


@pytest.mark.parametrize(
    "error", [TransientError("the log is away"), ValueError("a bug")], ids=["transient", "bug"]
)
async def test_a_rejection_that_fails_gives_the_message_back(error: Exception):
    """Nobody has told the client yet: held on to, the message would be kept alive for ever (I2)."""
    delivery = FakeDelivery()

    async def handler(_: Delivery) -> None:
        raise PermanentError("this can never work")

    async def reject(_: Delivery, __: PenstockError) -> None:
        raise error

    await settle(cast("Delivery", delivery), handler, reject, random.Random(1))
    assert delivery.outcomes == ["nak, failed"]


@pytest.mark.parametrize(("retry_after_s", "least_s"), [(42.0, 42.0), (30 * 86_400.0, 3600.0)])
async def test_what_is_over_a_limit_comes_back_when_it_may_fit(
    retry_after_s: float, least_s: float
) -> None:
    """Not before the given time, however often it came, and never as a failure of its own.

    A limit that lasts for days may be raised before it is over: every hour it is asked again.
    """
    for deliveries in (1, 3, 50):
        delivery = FakeDelivery(deliveries=deliveries)

        async def handler(_: Delivery) -> None:
            raise RateLimitedError("full", retry_after_s=retry_after_s)

        async def reject(_: Delivery, __: PenstockError) -> None:
            pytest.fail("It is not the message's fault.")

        await settle(cast("Delivery", delivery), handler, reject, random.Random(1))
        assert delivery.outcomes == ["nak"]
        assert least_s < delivery.delay_s <= least_s + 30.0
