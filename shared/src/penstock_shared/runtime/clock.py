"""Time and randomness are handed in; these are the real ones."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from penstock_shared.contracts.ids import uuid7


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> datetime:
        """Wall-clock time, UTC."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that only go forward."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Wall-clock time, UTC."""
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        """Seconds that only go forward."""
        return time.monotonic()


class IdSource:
    """Makes UUIDv7 from a clock and a source of random bytes."""

    def __init__(self, clock: Clock, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._clock = clock
        self._random_bytes = random_bytes

    def new(self) -> str:
        """A new UUIDv7."""
        return uuid7(int(self._clock.now().timestamp() * 1000), self._random_bytes)
