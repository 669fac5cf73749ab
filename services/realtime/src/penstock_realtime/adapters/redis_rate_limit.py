"""Rate limits in Redis: GCRA in one script, and alone when Redis is away.

Requests of one tenant that arrive while its previous step is on the wire share the next one: at
one request a time that changes nothing, at thousands a second it is one call for dozens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib.resources import files
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from penstock_realtime import metrics
from penstock_realtime.domain.gcra import Taken, allowance, interval, take
from penstock_realtime.ports import Allowance
from penstock_shared.runtime.telemetry import log

_RETRY_AFTER_S: Final = 1.0
"""How long Redis is left alone after it failed: a dead one then costs one request a second."""
_MAX_LOCAL_TENANTS: Final = 100_000

Waiters = list[asyncio.Future[Allowance]]


class RedisRateLimiter:
    """`RateLimiter` over Redis."""

    def __init__(
        self, redis: Redis | None, timeout_s: float, monotonic_s: Callable[[], float]
    ) -> None:
        script = files("penstock_realtime.adapters").joinpath("redis_rate_limit.lua").read_text()
        self._script = None if redis is None else redis.register_script(script)
        self._timeout_s = timeout_s
        self._monotonic_s = monotonic_s
        self._away_until_s = 0.0
        self._local: dict[str, float] = {}
        """Theoretical arrival time per tenant, in local seconds."""
        self._waiting: dict[str, Waiters] = {}
        self._steps: set[asyncio.Task[None]] = set()

    async def take(self, tenant: str, per_minute: int) -> Allowance:
        """Count one request if it fits."""
        waiters = self._waiting.get(tenant)
        mine: asyncio.Future[Allowance] = asyncio.get_running_loop().create_future()
        if waiters is not None:
            waiters.append(mine)
        else:
            self._waiting[tenant] = [mine]
            step = asyncio.create_task(self._drain(tenant, per_minute))
            self._steps.add(step)
            step.add_done_callback(self._steps.discard)
        return await mine

    async def _drain(self, tenant: str, per_minute: int) -> None:
        waiters: Waiters = []
        try:
            while waiters := self._waiting[tenant]:
                self._waiting[tenant] = []
                taken = await self._take(tenant, per_minute, len(waiters))
                for index, waiter in enumerate(waiters):
                    if not waiter.done():
                        waiter.set_result(allowance(taken, per_minute, index))
        finally:
            for waiter in (*waiters, *self._waiting.pop(tenant)):
                waiter.cancel()  # only a bug or a shutdown leaves any: nobody may wait for ever

    async def _take(self, tenant: str, per_minute: int, wanted: int) -> Taken:
        now_s = self._monotonic_s()
        if self._script is not None and now_s >= self._away_until_s:
            try:
                async with asyncio.timeout(self._timeout_s):
                    result: Any = await self._script(
                        keys=[f"penstock:rate:{tenant}"],
                        args=[interval(per_minute), per_minute, wanted],
                    )
                return Taken(count=result[0], room=result[1], ahead_us=result[2])
            except (RedisError, TimeoutError, OSError) as error:
                self._away_until_s = now_s + _RETRY_AFTER_S
                log().warning("redis.away", kind=type(error).__name__)
        if self._script is not None:
            metrics.RATE_LIMIT_FALLBACKS.inc(wanted)
        return self._take_alone(tenant, per_minute, wanted, now_s)

    def _take_alone(self, tenant: str, per_minute: int, wanted: int, now_s: float) -> Taken:
        if len(self._local) > _MAX_LOCAL_TENANTS:
            self._local.clear()
        ahead_us = max(0, round((self._local.get(tenant, now_s) - now_s) * 1e6))
        taken = take(ahead_us, per_minute, wanted)
        self._local[tenant] = now_s + taken.ahead_us / 1e6
        return taken
