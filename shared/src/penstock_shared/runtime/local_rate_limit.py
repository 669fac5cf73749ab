"""The limits of this instance alone, for when Redis is away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from penstock_shared.runtime.gcra import UNIT, drained, fits
from penstock_shared.runtime.rate_tiers import Limit

_MAX_BUCKETS: Final = 100_000


class LocalBuckets:
    """A bucket for every limit that was used lately."""

    def __init__(self) -> None:
        self._buckets: dict[str, tuple[int, int]] = {}
        """Level, and when it was that (microseconds); the longest unused come first."""

    def take(self, limits: Sequence[Limit], now_us: int) -> tuple[bool, list[int]]:
        """Whether it fits, and the levels after: all or nothing."""
        levels = [self._level(limit, now_us) for limit in limits]
        fit = all(
            fits(level, limit.per_minute, limit.cost)
            for level, limit in zip(levels, limits, strict=True)
        )
        if fit:
            levels = [
                level + limit.cost * UNIT for level, limit in zip(levels, limits, strict=True)
            ]
            for level, limit in zip(levels, limits, strict=True):
                self._write(limit, level, now_us)
        return fit, levels

    def settle(self, limit: Limit, units: int, now_us: int) -> None:
        """Give back so many units, or charge more when they are below 0."""
        self._write(limit, max(0, self._level(limit, now_us) - units * UNIT), now_us)

    def _write(self, limit: Limit, level: int, now_us: int) -> None:
        self._buckets.pop(limit.key, None)
        self._buckets[limit.key] = level, now_us
        while len(self._buckets) > _MAX_BUCKETS:  # addresses are the client's choice
            del self._buckets[next(iter(self._buckets))]

    def _level(self, limit: Limit, now_us: int) -> int:
        level, at_us = self._buckets.get(limit.key, (0, now_us))
        return drained(level, limit.per_minute, now_us - at_us)
