"""The generic cell rate algorithm: one timestamp per tenant, no counters, no windows.

Source: ITU-T I.371, annex A (virtual scheduling). The same arithmetic runs in Redis
(adapters/redis_rate_limit.lua) and here, for when Redis is away; a test holds them equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from penstock_realtime.ports import Allowance

MINUTE_US: Final = 60_000_000


@dataclass(frozen=True, slots=True)
class Taken:
    """How many of the wanted requests fit, and the state after them."""

    count: int
    room: int
    """How many more would fit now."""
    ahead_us: int
    """How far the theoretical arrival time lies ahead of now."""


def take(ahead_us: int, per_minute: int, wanted: int) -> Taken:
    """Take up to `wanted` requests; the burst is one minute's worth.

    `ahead_us` is how far the theoretical arrival time lay ahead, never negative.
    """
    interval_us = interval(per_minute)
    room = max(0, (per_minute * interval_us - ahead_us) // interval_us)
    count = min(room, wanted)
    return Taken(count=count, room=room - count, ahead_us=ahead_us + count * interval_us)


def interval(per_minute: int) -> int:
    """Microseconds between two requests at the full rate."""
    return max(1, MINUTE_US // max(1, per_minute))


def allowance(taken: Taken, per_minute: int, index: int) -> Allowance:
    """What the result means for the request number `index` (from 0) of those that asked."""
    interval_us = interval(per_minute)
    allowed = index < taken.count
    wait_us = taken.ahead_us + interval_us - per_minute * interval_us
    return Allowance(
        allowed=allowed,
        limit=per_minute,
        remaining=taken.room + max(0, taken.count - index - 1),
        reset_s=taken.ahead_us / 1e6,
        retry_after_s=0.0 if allowed else max(wait_us, interval_us) / 1e6,
    )
