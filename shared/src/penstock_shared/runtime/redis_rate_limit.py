"""Rate limits in Redis: one script decides all tiers, and alone when Redis is away.

Requests that arrive while a step is on the wire share the next one: at one request a time that
changes nothing, at thousands a second it is one call for dozens. What is given back goes along.
"""

from __future__ import annotations

import asyncio
import hashlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError

from penstock_shared.runtime.gcra import returnable
from penstock_shared.runtime.local_rate_limit import LocalBuckets
from penstock_shared.runtime.rate_limit import Allowance, Demand
from penstock_shared.runtime.rate_tiers import Limit, PlatformLimits, allowance, limits_of
from penstock_shared.runtime.settings import LimitSettings
from penstock_shared.runtime.telemetry import log

_SCRIPT: Final = files("penstock_shared.runtime").joinpath("redis_rate_limit.lua").read_text()
_SHA: Final = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()
_PROBE_EVERY_S: Final = 1.0
"""How long Redis is left alone after it failed."""
_MOST_PER_STEP: Final = 64
"""Requests that one step decides: Redis serves nobody else meanwhile."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    limits: list[Limit]
    answer: asyncio.Future[Allowance]


def _connection(settings: LimitSettings) -> AbstractConnection | None:
    """One that opens itself when it is used, gives up soon, and once."""
    if settings.redis_url is None:
        return None
    pool = ConnectionPool.from_url(
        settings.redis_url.get_secret_value(),
        socket_timeout=settings.redis_timeout_s,
        socket_connect_timeout=settings.redis_timeout_s,
        retry=Retry(NoBackoff(), 0),
    )
    connection: AbstractConnection = pool.connection_class(**pool.connection_kwargs)
    return connection


class RedisRateLimiter:
    """`RateLimiter` over Redis; without its address every limit is this instance's alone."""

    def __init__(
        self,
        settings: LimitSettings,
        monotonic_s: Callable[[], float],
        on_alone: Callable[[], None],
    ) -> None:
        """`on_alone` is told of each decision that Redis should have taken and did not."""
        # One connection of its own: steps come one after the other, and the client's pool, retries
        # and hooks cost as much processor time as all the rest of a step.
        self._connection = _connection(settings)
        self._platform = PlatformLimits(
            global_requests=settings.global_requests_per_minute,
            global_tokens=settings.global_tokens_per_minute,
            address_requests=settings.address_requests_per_minute,
            address_tokens=settings.address_tokens_per_minute,
        )
        self._timeout_s = settings.redis_timeout_s
        self._monotonic_s = monotonic_s
        self._on_alone = on_alone
        self._local = LocalBuckets()
        self._waiting: list[_Waiting] = []
        self._unsettled: dict[tuple[str, int], int] = {}
        """Units to give back, by key and limit."""
        self._steps: asyncio.Task[None] | None = None
        self._away = False
        self._probe_at_s = 0.0
        self._alone_at_s = float("-inf")
        """When Redis last failed: what was charged before then may lie nowhere."""

    async def take(self, demand: Demand) -> Allowance:
        """Count a request in every tier if it fits in all, else in none."""
        limits = limits_of(demand, self._platform)
        if self._connection is None:
            return self._take_alone(limits)
        if self._away:
            # Nobody waits to learn whether it has come back.
            if self._monotonic_s() >= self._probe_at_s:
                self._go_on()
            return self._take_alone(limits)
        mine = _Waiting(limits, asyncio.get_running_loop().create_future())
        self._waiting.append(mine)
        self._go_on()
        return await mine.answer

    def settle(self, demand: Demand, used_tokens: int, held_s: float) -> None:
        """Correct the charge of `demand.tokens`, taken `held_s` ago, to what was used."""
        if self._away or self._monotonic_s() - held_s <= self._alone_at_s:
            return
        unused = demand.tokens - used_tokens
        for limit in limits_of(demand, self._platform):
            if limit.unit != "tokens":
                continue
            back = returnable(unused, limit.per_minute, int(held_s * 1e6))
            if not back:
                continue
            if self._connection is None:
                self._local.settle(limit, back, self._now_us())
            else:
                place = limit.key, limit.per_minute
                self._unsettled[place] = self._unsettled.get(place, 0) + back
        if self._unsettled:
            self._go_on()

    async def close(self) -> None:
        """Close the connection; the next step opens it again."""
        if self._connection is not None:
            await self._connection.disconnect(nowait=True)

    def _go_on(self) -> None:
        if self._steps is None:
            self._steps = asyncio.create_task(self._step_on(), name="rate-limits")

    async def _step_on(self) -> None:
        """Step until nobody waits; while Redis is away, one step that asks nothing probes it."""
        try:
            while True:
                batch = self._waiting[:_MOST_PER_STEP]
                del self._waiting[:_MOST_PER_STEP]
                settled, self._unsettled = self._unsettled, {}
                try:
                    await self._step(batch, settled)
                finally:
                    for waiting in batch:  # only a bug or a shutdown leaves any without an answer
                        waiting.answer.cancel()
                if not self._waiting and not self._unsettled:
                    return
        finally:
            self._steps = None

    async def _step(self, batch: Sequence[_Waiting], settled: dict[tuple[str, int], int]) -> None:
        decided = await self._decide(batch, settled)
        if decided is None:
            # Those that would share the next step do not wait for Redis to fail once more.
            for waiting in (*batch, *self._waiting):
                _answer(waiting, self._take_alone(waiting.limits))
            self._waiting.clear()
            self._unsettled.clear()  # nobody knows any more where those charges lie
            return
        for waiting in batch:
            fits, levels = decided[0], decided[1 : 1 + len(waiting.limits)]
            decided = decided[1 + len(waiting.limits) :]
            _answer(waiting, allowance(waiting.limits, levels, fits=bool(fits)))

    async def _decide(
        self, batch: Sequence[_Waiting], settled: dict[tuple[str, int], int]
    ) -> Sequence[int] | None:
        """What the script returns; None when Redis does not answer."""
        keys = [key for key, _ in settled]
        numbers = [len(settled)]
        for (_, per_minute), units in settled.items():
            numbers += per_minute, units
        numbers.append(len(batch))
        for waiting in batch:
            numbers.append(len(waiting.limits))
            for limit in waiting.limits:
                keys.append(limit.key)
                numbers += limit.per_minute, limit.cost
        packed = struct.pack(f"<{len(numbers)}d", *numbers)
        try:
            async with asyncio.timeout(self._timeout_s):
                raw = await self._run_script(keys, packed)
            decided = [int(number) for (number,) in struct.iter_unpack("<d", raw)]
        except Exception as error:  # noqa: BLE001  whatever it is, no client may feel it
            await self._failed(error)
            return None
        if self._away:
            self._away = False
            log().info("redis.back")
        return decided

    async def _run_script(self, keys: list[str], packed: bytes) -> bytes:
        connection = self._connection
        assert connection is not None  # noqa: S101  without it nobody comes here
        try:
            await connection.send_command("EVALSHA", _SHA, len(keys), *keys, packed)
            raw: bytes = await connection.read_response()
        except NoScriptError:  # flushed, or restarted
            await connection.send_command("EVAL", _SCRIPT, len(keys), *keys, packed)
            raw = await connection.read_response()
        return raw

    async def _failed(self, error: Exception) -> None:
        await self.close()  # an answer that comes late would be taken for the next one's
        self._alone_at_s = self._monotonic_s()
        self._probe_at_s = self._alone_at_s + _PROBE_EVERY_S
        if not self._away:
            self._away = True
            log().warning("redis.away", kind=type(error).__name__)

    def _take_alone(self, limits: list[Limit]) -> Allowance:
        if self._connection is not None:
            self._on_alone()
        fits, levels = self._local.take(limits, self._now_us())
        return allowance(limits, levels, fits=fits)

    def _now_us(self) -> int:
        return int(self._monotonic_s() * 1e6)


def _answer(waiting: _Waiting, answer: Allowance) -> None:
    if not waiting.answer.done():  # whoever asked may have gone
        waiting.answer.set_result(answer)
