"""What is asked of the rate limits, and what they say: four tiers, requests and tokens."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from penstock_shared.contracts.accounts import TenantRecord
from penstock_shared.contracts.errors import RateLimitedError, TooLargeError

DEFAULT_OUTPUT_TOKENS: Final = 1024
"""What an answer without `max_output_tokens` is charged until it is known what it used."""
_BYTES_PER_TOKEN: Final = 4


@dataclass(frozen=True, slots=True)
class Demand:
    """One request, as the limits see it."""

    tenant: TenantRecord
    user: str
    """The caller's key id, or that of a subject of the tenant's identity provider."""
    address: str | None = None
    """Of the client; None where it is not known, as over NATS."""
    tokens: int = 0
    """The most that the request may use, as far as that is known when it comes in."""


@dataclass(frozen=True, slots=True)
class Budget:
    """One limit after a decision."""

    limit: int
    remaining: int
    reset_s: float
    """Seconds until the whole limit is free again."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What the limits say of one request."""

    allowed: bool
    requests: Budget
    """The tightest of the tenant's and the user's for requests. Those of the platform and of an
    address are shared with other tenants, whose use nobody may infer (I8)."""
    tokens: Budget | None = None
    """The same for tokens; None where there is none."""
    retry_after_s: float = 0.0
    """Seconds until it would fit; 0 when it fits now."""
    limit_name: str | None = None
    """Which limit refused it, for people: "60 requests per minute of this tenant"."""
    too_large: bool = False
    """It is more than that limit allows in a whole minute: waiting does not help."""

    def require(self) -> None:
        """Refuse what was not allowed.

        Raises:
            RateLimitedError: it carries when the request would fit.
            TooLargeError: it never will.
        """
        if self.too_large:
            msg = (
                f"This request may use more tokens than the {self.limit_name} ever allow: "
                "lower 'max_output_tokens', or shorten the input."
            )
            raise TooLargeError(msg, code="tokens_over_limit", param="max_output_tokens")
        if not self.allowed:
            msg = f"Over the {self.limit_name}: come back after the given time."
            raise RateLimitedError(msg, retry_after_s=self.retry_after_s)


class RateLimiter(Protocol):
    """Counts requests and tokens across all instances."""

    async def take(self, demand: Demand) -> Allowance:
        """Count a request in every tier if it fits in all, else in none.

        Never raises: without the store each instance decides alone.
        """
        ...

    def settle(self, demand: Demand, used_tokens: int, held_s: float) -> None:
        """Correct the charge of `demand.tokens`, taken `held_s` ago, to what was used.

        Returns at once. One that is lost makes the limit stricter, for a minute at most.
        """
        ...


def most_tokens(texts: Iterable[str], output_tokens: int) -> int:
    """The most that a request is expected to use: four bytes a token, and all of its output."""
    size = sum(len(text) if text.isascii() else len(text.encode()) for text in texts)
    return -(-size // _BYTES_PER_TOKEN) + output_tokens
