"""One circuit breaker (M. Nygard, Release It!, 2018, chapter 5), and the counts that open it."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

OPEN_S: Final = 5.0
"""How long a breaker stays open at first; twice as long each time a probe fails."""
LONGEST_OPEN_S: Final = 160.0
PROBES: Final = 3
"""Requests that a half-open breaker lets through in `OPEN_S`, as far as the log has been read."""
FAILED: Final = 3.0
"""So many failures open a breaker, if they are half of what is remembered: four in a row."""
_FIRST_SHARE: Final = 1 / 8
"""Of the request ids that may be probes: what the log does not tell yet stays few. It doubles in
every `OPEN_S`, for models that are rarely asked for."""
_DOUBLINGS: Final = 3
_KEEP: Final = 0.9
"""Of the counts, with each new one: about the last ten are remembered."""
_MEMORY_S: Final = 60.0
"""Time constant in which they fade as well."""


class BreakerState(StrEnum):
    """What a breaker lets through."""

    CLOSED = "closed"  # everything
    HALF_OPEN = "half-open"  # a few requests, to see
    OPEN = "open"  # nothing


@dataclass(slots=True)
class Breaker:
    """Closed, or open until a time and half-open from there on. Times are Unix seconds."""

    _until_s: float | None = None
    _open_s: float = OPEN_S
    _period: int = -1
    _probes: int = 0

    def state(self, now_s: float) -> BreakerState:
        """What it lets through at that time."""
        if self._until_s is None:
            return BreakerState.CLOSED
        return BreakerState.HALF_OPEN if now_s >= self._until_s else BreakerState.OPEN

    def trip(self, now_s: float) -> None:
        """Open; for longer than before if a probe has failed."""
        if self._until_s is not None:
            self._open_s = min(2 * self._open_s, LONGEST_OPEN_S)
        self._until_s = now_s + self._open_s
        self._period = -1

    def close(self) -> None:
        """It works again."""
        self._until_s, self._open_s = None, OPEN_S

    def routed(self, now_s: float) -> None:
        """A request goes to the model: while half-open that is a probe."""
        if self.state(now_s) is BreakerState.HALF_OPEN:
            period = self._period_at(now_s)
            self._probes = self._probes + 1 if period == self._period else 1
            self._period = period

    def allows(self, request_id: str, now_s: float) -> bool:
        """Whether this request may pass; of a half-open breaker's the same few everywhere."""
        state = self.state(now_s)
        if state is not BreakerState.HALF_OPEN:
            return state is BreakerState.CLOSED
        period = self._period_at(now_s)
        if period == self._period and self._probes >= PROBES:
            return False
        share = _FIRST_SHARE * 2.0 ** min(period, _DOUBLINGS)
        return zlib.crc32(request_id.encode()) < share * 2**32

    def retry_after_s(self, now_s: float) -> float:
        """Until it lets the next requests through, to see; 0 while it is closed."""
        if self._until_s is None:
            return 0.0
        if now_s < self._until_s:
            return self._until_s - now_s
        return OPEN_S - (now_s - self._until_s) % OPEN_S

    def _period_at(self, now_s: float) -> int:
        return 0 if self._until_s is None else int((now_s - self._until_s) / OPEN_S)


@dataclass(slots=True)
class Tally:
    """Fading counts of what failed and what worked."""

    failed: float = 0.0
    worked: float = 0.0
    _counted_s: float = 0.0

    def count(self, now_s: float, *, failed: bool) -> None:
        """One more request has ended."""
        self.fade(now_s)
        self.failed = _KEEP * self.failed + failed
        self.worked = _KEEP * self.worked + (not failed)

    def fade(self, now_s: float) -> None:
        """Bring the counts up to that time; an earlier one changes nothing."""
        kept = math.exp(-max(0.0, now_s - self._counted_s) / _MEMORY_S)
        self.failed *= kept
        self.worked *= kept
        self._counted_s = max(now_s, self._counted_s)

    @property
    def total(self) -> float:
        """How much is remembered."""
        return self.failed + self.worked

    @property
    def fails(self) -> bool:
        """Whether so much has failed that a breaker opens."""
        return self.failed >= FAILED and self.failed >= self.worked
