"""How many workers the queue asks for. Pure.

The formula is KEDA's for its `nats-jetstream` scaler (https://keda.sh/docs/scalers/nats-jetstream/):
a consumer's lag is what it has pending plus what it has delivered and not seen acknowledged, and
each `lag_per_worker` of it is worth one worker; of several consumers the greediest decides.
Going down waits as the Horizontal Pod Autoscaler does: the highest wish of the last minute counts.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WorkerRange:
    """How many workers may run; equal bounds mean a fixed number."""

    least: int
    most: int

    @property
    def is_elastic(self) -> bool:
        """Whether there is anything to decide."""
        return self.least < self.most

    def clamp(self, wish: int) -> int:
        """Bring a wish within the bounds."""
        return max(self.least, min(self.most, wish))


def workers_for(lags: Iterable[int], lag_per_worker: int) -> int:
    """Return the workers that the consumers' lags ask for; 0 when nothing waits."""
    return max((math.ceil(lag / lag_per_worker) for lag in lags), default=0)


class Stabilizer:
    """Follows a rising wish at once, a falling one only when it has lasted."""

    def __init__(self, window_s: float) -> None:
        """Look back over `window_s` seconds."""
        self._window_s = window_s
        self._wishes: deque[tuple[float, int]] = deque()

    def settle(self, wish: int, now_s: float) -> int:
        """Take in the wish of this moment and return the highest of the window."""
        self._wishes.append((now_s, wish))
        while self._wishes[0][0] <= now_s - self._window_s:
            self._wishes.popleft()
        return max(seen for _, seen in self._wishes)
