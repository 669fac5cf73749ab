"""Limits of what comes over NATS: the same buckets as at the HTTP edge, in the same Redis.

The broker names the tenant and not the key, so all of a tenant's NATS clients are one user; there
is no address. A tenant's or user's tokens are given back when the request ends, by the replica
that charged them: if it dies first, they drain like any others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from penstock_router.ports import RequestLog
from penstock_shared.contracts import subjects
from penstock_shared.contracts.accounts import TenantRecord
from penstock_shared.contracts.errors import TransientError
from penstock_shared.contracts.requests import RequestEnded
from penstock_shared.contracts.submissions import NATS_KEY
from penstock_shared.runtime.clock import Clock
from penstock_shared.runtime.rate_limit import Demand, RateLimiter, most_tokens

_MOST_CHARGED: Final = 100_000
"""Charges that are remembered; an older one drains."""


class SubmissionLimits:
    """Takes before a submission is admitted, and settles when its request ends."""

    def __init__(self, limiter: RateLimiter, log: RequestLog, clock: Clock) -> None:
        self._limiter = limiter
        self._log = log
        self._clock = clock
        self._charged: dict[str, tuple[Demand, float]] = {}
        """By the request's subject: until its terminal, which the sweeper sees to."""
        self._settling: set[asyncio.Task[None]] = set()

    async def take(
        self, tenant: TenantRecord, subject: str, texts: Sequence[str], output_tokens: int
    ) -> None:
        """Count a submission.

        Raises:
            RateLimitedError: over a limit; it carries when the submission would fit.
            TooLargeError: it never will.
        """
        demand = Demand(tenant, NATS_KEY, tokens=most_tokens(texts, output_tokens))
        allowance = await self._limiter.take(demand)
        allowance.require()
        if allowance.tokens is not None:
            if len(self._charged) >= _MOST_CHARGED:
                del self._charged[next(iter(self._charged))]
            self._charged[subject] = demand, self._clock.monotonic_s()

    async def take_repeated(self, tenant: TenantRecord) -> None:
        """Count one that brings no new request: it uses no tokens.

        Raises:
            RateLimitedError: over a limit; it carries when the submission would fit.
        """
        (await self._limiter.take(Demand(tenant, NATS_KEY))).require()

    def give_back(self, subject: str) -> None:
        """It brings no new request, and will use nothing."""
        charged = self._charged.pop(subject, None)
        if charged is not None:
            self._limiter.settle(charged[0], 0, self._clock.monotonic_s() - charged[1])

    def on_ended(self, subject: str) -> None:
        """The log holds the request's terminal."""
        charged = self._charged.pop(subject, None)
        if charged is not None:
            task = asyncio.create_task(self._settle(subject, *charged))
            self._settling.add(task)
            task.add_done_callback(self._settling.discard)

    async def _settle(self, subject: str, demand: Demand, since_s: float) -> None:
        try:
            found = await self._log.last_fact(
                demand.tenant.tenant, subjects.parse(subject).rest[-1]
            )
        except TransientError:
            return  # the charge stays, and drains
        if found is not None and isinstance(found[1], RequestEnded):
            usage = found[1].total_usage
            used = usage.input_tokens + usage.output_tokens
            self._limiter.settle(demand, used, self._clock.monotonic_s() - since_s)
