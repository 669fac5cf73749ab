"""One Stripe account in test mode: its objects, its clock and the events that tell of both."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from stripe import api_version as _package_version
from tests.support.stripe_fake.store import Object, Store
from tests.support.stripe_fake.webhooks import Webhooks
from tests.support.vendor_clock import Clock

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
    moment: int | None = None
    """While something that fell due earlier is done: when that was."""
    identifiers: dict[str, Object] = field(default_factory=dict)
    """The last meter event of each identifier."""
    received: list[Object] = field(default_factory=list)
    """Meter events that were not processed yet."""
    cancelled: set[str] = field(default_factory=set)
    """Identifiers of meter events that were taken back."""
    metering_lag_s: int = 0
    """How long meter events are not processed: "summaries might not immediately reflect" them."""

    def now(self, test_clock: str | None = None) -> int:
        """The time of an object: a test clock's, if it stands on one.

        https://docs.stripe.com/billing/testing/test-clocks
        """
        if self.moment is not None:
            return self.moment
        if test_clock is None:
            return self.clock.now()
        frozen: int = self.store.get("test_helpers.test_clock", test_clock)["frozen_time"]
        return frozen

    def now_of(self, customer: str | None) -> int:
        """The time of a customer, known or not."""
        found = self.store.any(customer or "") or {}
        return self.now(found.get("test_clock"))

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
                "created": self.now(about.get("test_clock")),
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
    copied: Object = _copy(about)
    return copied


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copy(one) for name, one in value.items() if not name.startswith("_")}
    return [_copy(one) for one in value] if isinstance(value, list) else value


def changes(before: Object, after: Object) -> dict[str, Any]:
    """`previous_attributes`: the old values of what changed."""
    return {
        name: before.get(name)
        for name in before.keys() | after.keys()
        if before.get(name) != after.get(name)
    }
