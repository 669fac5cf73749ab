"""How often and how many at once (https://docs.stripe.com/rate-limits)."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.support.stripe_fake.failures import too_many


@dataclass
class Limits:
    """A bucket for all requests, and lanes in which one goes at a time.

    `per_second` is unlimited until a test sets it: 100 in live mode, 25 in test mode. It counts
    real seconds, as the clients that back off do.
    """

    per_second: float | None = None
    monotonic: Callable[[], float] = time.monotonic
    _level: float = 0.0
    _at: float = 0.0
    _busy: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def admit(self) -> None:
        """Count one request.

        Raises:
            Failure: 429.
        """
        with self._lock:
            if self.per_second is None:
                return
            now = self.monotonic()
            self._level = max(0.0, self._level - (now - self._at) * self.per_second)
            self._at = now
            if self._level + 1 > self.per_second:
                raise too_many("global-rate")
            self._level += 1

    @contextlib.contextmanager
    def lane(self, name: str) -> Iterator[None]:
        """Be the only one.

        Raises:
            Failure: 429, another is in it.
        """
        with self._lock:
            if name in self._busy:
                raise too_many("resource-specific", "lock_timeout")
            self._busy.add(name)
        try:
            yield
        finally:
            with self._lock:
                self._busy.discard(name)
