"""The `stripe` package: one client, its API version pinned, and what its errors mean to us."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final

import stripe
from pydantic import SecretStr
from stripe._base_address import BaseAddresses

from penstock_shared.contracts.errors import PermanentError, UnavailableError

API_VERSION: Final = "2026-10-28.endive"
"""Answers keep this shape whatever the account's default is (docs.stripe.com/api/versioning)."""
_TIMEOUT_S: Final = 15.0
_RETRIES: Final = 2
"""Of one call, under one idempotency key that the package makes for it."""
_BUSY_STATUSES: Final = frozenset({409, 429})
_SERVER_ERROR: Final = 500


class StripeConnection:
    """The client, and the connections that it holds."""

    def __init__(
        self, api_key: SecretStr, *, api_base: str | None = None, events_base: str | None = None
    ) -> None:
        """Other addresses than Stripe's are for tests."""
        self._http = stripe.HTTPXClient(timeout=_TIMEOUT_S)
        self._bases: BaseAddresses = {}
        if api_base is not None:
            self._bases["api"] = api_base
        if events_base is not None:
            self._bases["meter_events"] = events_base
        self.client = self.client_with(api_key.get_secret_value())

    def client_with(self, key: str) -> stripe.StripeClient:
        """A client that authenticates otherwise, over the same connections."""
        return stripe.StripeClient(
            key,
            stripe_version=API_VERSION,
            base_addresses=self._bases,
            http_client=self._http,
            max_network_retries=_RETRIES,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close_async()  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn what may pass by itself into UnavailableError, and refusals into PermanentError.

    docs.stripe.com/error-low-level: 429 and 409 are to be tried again, 5xx and network errors
    leave open whether there was an effect, every other 4xx had none.

    Raises:
        UnavailableError: Stripe does not answer, or is busy.
        PermanentError: it refuses the request; `code` is Stripe's.
    """
    try:
        yield
    except stripe.StripeError as error:
        if passes_by_itself(error):
            msg = f"Stripe does not answer ({_named(error)}): what waits for it is tried again."
            raise UnavailableError(msg, code="stripe_unavailable") from error
        if isinstance(error, stripe.AuthenticationError | stripe.PermissionError):
            msg = "Stripe refuses the key: correct PENSTOCK_STRIPE_API_KEY."
            raise PermanentError(msg, code="stripe_key_refused") from error
        msg = f"Stripe refuses this ({_named(error)}): see the request in its dashboard's log."
        raise PermanentError(msg, code=error.code or "stripe_refused") from error


def passes_by_itself(error: stripe.StripeError) -> bool:
    """Whether the same call may succeed later."""
    if isinstance(error, stripe.APIConnectionError | stripe.RateLimitError):
        return True
    status = error.http_status
    return status is None or status >= _SERVER_ERROR or status in _BUSY_STATUSES


def _named(error: stripe.StripeError) -> str:
    """Ids and codes only: messages may quote what was sent."""
    parts = (type(error).__name__, error.code, error.request_id)
    return ", ".join(part for part in parts if part)


def plain(answer: stripe.StripeObject) -> dict[str, Any]:
    """An answer of Stripe's as dictionaries and lists."""
    found: dict[str, Any] = answer.to_dict()
    return found
