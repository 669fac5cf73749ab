"""Signed webhooks, sent when the test says so: out of order, twice, late, or forged.

The signature is `t=<seconds>,v1=<hex HMAC-SHA256 of "<t>.<body>">`, with one `v1` for each secret
that is valid while an endpoint's secret is rolled
(https://docs.stripe.com/webhooks#verify-manually). Deliveries are unordered and can come more than
once (https://docs.stripe.com/webhooks#event-ordering); they are repeated for up to three days until
a 2xx answers (https://docs.stripe.com/webhooks#retries).
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from tests.support.vendor_clock import Clock

_USER_AGENT: Final = "Stripe/1.0 (+https://stripe.com/docs/webhooks)"


def sign(body: bytes, secrets: Iterable[str], at: int) -> str:
    """The value of `Stripe-Signature`."""
    signed = f"{at}.".encode() + body
    marks = [hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest() for secret in secrets]
    return ",".join([f"t={at}", *(f"v1={mark}" for mark in marks)])


@dataclass
class Endpoint:
    """Where events go. `thin` ones are told of thin events only, others of snapshots only."""

    url: str
    secrets: list[str]
    enabled: tuple[str, ...] = ("*",)
    thin: bool = False

    def wants(self, event: dict[str, Any]) -> bool:
        """Whether this event is for it."""
        is_thin = event["object"] == "v2.core.event"
        return is_thin == self.thin and ("*" in self.enabled or event["type"] in self.enabled)


@dataclass
class Delivery:
    """One event for one endpoint, and how it fared: statuses in order, 0 for no answer."""

    endpoint: Endpoint
    event: dict[str, Any]
    outcomes: list[int] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """A 2xx answered."""
        return any(200 <= status < 300 for status in self.outcomes)

    @property
    def body(self) -> bytes:
        """What is sent."""
        return json.dumps(self.event, indent=2).encode()


class Webhooks:
    """What is owed to whom. Nothing is sent before a test asks for it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.endpoints: list[Endpoint] = []
        self.deliveries: list[Delivery] = []

    def register(
        self, url: str, *secrets: str, enabled: tuple[str, ...] = ("*",), thin: bool = False
    ) -> Endpoint:
        """An endpoint for the events from now on."""
        endpoint = Endpoint(url, list(secrets or ("whsec_fake",)), enabled, thin)
        self.endpoints.append(endpoint)
        return endpoint

    def owe(self, event: dict[str, Any]) -> None:
        """Every endpoint that wants it shall have it."""
        due = [Delivery(endpoint, event) for endpoint in self.endpoints if endpoint.wants(event)]
        if event["object"] == "event":
            event["pending_webhooks"] = len(due)
        self.deliveries += due

    @property
    def pending(self) -> list[Delivery]:
        """Not yet taken, oldest first."""
        return [delivery for delivery in self.deliveries if not delivery.done]

    def undelivered(self, event: dict[str, Any]) -> bool:
        """Whether an endpoint still lacks it (`delivery_success=false` when events are listed)."""
        return any(due.event["id"] == event["id"] for due in self.pending)

    async def send(
        self,
        deliveries: Iterable[Delivery] | None = None,
        *,
        order: Callable[[list[Delivery]], Iterable[Delivery]] = iter,
        copies: int = 1,
        late_s: float = 0,
    ) -> list[int]:
        """Post what is owed (or what is given), and return the answers' statuses in order.

        `order` rearranges (`reversed`, a seeded shuffle); each is sent `copies` times; `late_s`
        ages the signature, as a message that was recorded and is replayed has it.
        """
        due = list(self.pending if deliveries is None else deliveries)
        sends = [delivery for delivery in order(due) for _ in range(copies)]
        async with httpx.AsyncClient(timeout=10) as client:
            return [await self._post(client, delivery, late_s) for delivery in sends]

    async def _post(self, client: httpx.AsyncClient, delivery: Delivery, late_s: float) -> int:
        body = delivery.body
        signature = sign(body, delivery.endpoint.secrets, int(self._clock.exactly() - late_s))
        headers = {
            "content-type": "application/json; charset=utf-8",
            "user-agent": _USER_AGENT,
            "stripe-signature": signature,
        }
        try:
            answer = await client.post(delivery.endpoint.url, content=body, headers=headers)
            status = answer.status_code
        except httpx.HTTPError:
            status = 0
        delivery.outcomes.append(status)
        if delivery.event["object"] == "event":
            left = [due for due in self.pending if due.event["id"] == delivery.event["id"]]
            delivery.event["pending_webhooks"] = len(left)
        return status
