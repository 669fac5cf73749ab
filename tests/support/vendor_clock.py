"""The time by which the fake lives: windows, expiries and month ends without waiting."""

from __future__ import annotations

import time
from datetime import UTC, datetime


class Clock:
    """Runs on from where it was set; `freeze` stops it. Seconds since the epoch."""

    def __init__(self) -> None:
        self._ahead_s = 0.0
        self._frozen: float | None = None

    def now(self) -> int:
        """The present second: Stripe's v1 timestamps are whole."""
        return int(self.exactly())

    def exactly(self) -> float:
        """With fractions."""
        return time.time() + self._ahead_s if self._frozen is None else self._frozen

    def freeze(self, at: datetime | float | None = None) -> None:
        """Stand still, now or at a given time."""
        self._frozen = self.exactly() if at is None else _seconds(at)

    def advance(self, seconds: float) -> None:
        """Go ahead, or back with a negative number."""
        if self._frozen is None:
            self._ahead_s += seconds
        else:
            self._frozen += seconds


def iso(seconds: float) -> str:
    """v2's timestamps: RFC 3339 with milliseconds (https://docs.stripe.com/api-v2-overview)."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def _seconds(at: datetime | float) -> float:
    return at.timestamp() if isinstance(at, datetime) else at
