"""Circuit breakers: models whose machinery fails are left alone, and tried now and then.

After M. Nygard, Release It! (2018), chapter 5. They count what went wrong on the platform's side,
never wrong answers. A fold over the facts of requests in log order: replicas agree.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from penstock_shared.contracts.requests import RequestFact


class BreakerState(StrEnum):
    """What a breaker lets through."""

    CLOSED = "closed"  # everything
    HALF_OPEN = "half-open"  # a few requests, to see
    OPEN = "open"  # nothing


def broke(fact: RequestFact) -> bool | None:
    """Whether the platform failed at this attempt; None where the fact does not tell."""
    raise NotImplementedError


class Breakers:
    """Each tenant's own breaker of each model, and the one for all that follows from them."""

    def observe(self, fact: RequestFact, at: datetime) -> None:
        """Fold the next fact of the log; `at` is the time it was stored."""
        raise NotImplementedError

    def allows(self, tenant: str, model: str, request_id: str, now: datetime) -> bool:
        """Whether this request may go to `model`; `auto` passes over one that it may not."""
        raise NotImplementedError

    def require(self, tenant: str, model: str, request_id: str, now: datetime) -> None:
        """Refuse a request that named a model behind an open breaker.

        Raises:
            UnavailableError: `model_failing`; `retry_after_s` is when the next ones are let
                through to see.
        """
        raise NotImplementedError

    def state(self, model: str, now: datetime) -> BreakerState:
        """Of the breaker for all tenants."""
        raise NotImplementedError
