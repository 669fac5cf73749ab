"""One Stripe account in test mode: its objects, its clock and the events that tell of both."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, Final

from stripe import api_version as _package_version
from tests.support.stripe_fake.clock import Clock
from tests.support.stripe_fake.store import Object, Store
from tests.support.stripe_fake.webhooks import Webhooks

API_VERSION: Final[str] = _package_version
"""The one version whose shapes are modelled: that which the installed package pins."""


@dataclass(frozen=True)
class Cause:
    """The request that an event tells of; nothing when time caused it."""

    request_id: str | None = None
    idempotency_key: str | None = None


@dataclass
class Account:
    """State. Every member is touched under the fake's lock only."""

    clock: Clock
    store: Store
    webhooks: Webhooks
    cause: Cause = field(default_factory=Cause)
    identifiers: dict[str, Object] = field(default_factory=dict)
    """The last meter event of each identifier."""

    def now(self, test_clock: str | None = None) -> int:
        """The time of an object: a test clock's, if it stands on one.

        https://docs.stripe.com/billing/testing/test-clocks
        """
        if test_clock is None:
            return self.clock.now()
        frozen: int = self.store.get("test_helpers.test_clock", test_clock)["frozen_time"]
        return frozen

    def emit(self, kind: str, about: Object, previous: dict[str, Any] | None = None) -> None:
        """Record an event with a snapshot of the object and owe it to the endpoints.

        https://docs.stripe.com/api/events/object
        """
        data: dict[str, Any] = {"object": public(about)}
        if previous is not None:
            data["previous_attributes"] = previous
        event = self.store.put(
            {
                "id": self.store.new_id("evt"),
                "object": "event",
                "api_version": API_VERSION,
                "created": self.clock.now(),
                "data": data,
                "livemode": False,
                "pending_webhooks": 0,
                "request": {
                    "id": self.cause.request_id,
                    "idempotency_key": self.cause.idempotency_key,
                },
                "type": kind,
            }
        )
        self.webhooks.owe(event)


def public(about: Object) -> Object:
    """As it is sent: a copy without the fake's own members."""
    return {
        name: public(value) if isinstance(value, dict) else copy.deepcopy(value)
        for name, value in about.items()
        if not name.startswith("_")
    }


def changes(before: Object, after: Object) -> dict[str, Any]:
    """`previous_attributes`: the old values of what changed."""
    return {
        name: before.get(name)
        for name in before.keys() | after.keys()
        if before.get(name) != after.get(name)
    }
