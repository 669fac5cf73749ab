"""How long a model's queue is and how fast it drains; refuses what would wait in vain."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.contracts.requests import MAX_DEADLINE_S
from penstock_shared.contracts.subjects import Lane

SMOOTHING_S: Final = 10.0
"""Time constant of the drain rate: after so long a change is seen to 63 %."""
_KNOWN_AFTER_S: Final = 5.0
"""How long a rate is measured before it decides: a worker's first second says little."""
_LEAST_RETRY_S: Final = 1.0
_RETRY_UNKNOWN_S: Final = 5.0
_UP_TO: Final = {lane: tuple(Lane)[: place + 1] for place, lane in enumerate(Lane)}
# No counts in the messages: how much other tenants have waiting is theirs to know (I8).
_FULL: Final = "The queue of the model {model!r} is full: try again later."
_TOO_LATE: Final = (
    "The wait for the model {model!r} is about {wait_s:.0f} s, and the request's deadline is "
    "{deadline_s:.0f} s: try again later, or allow more time."
)


@dataclass(frozen=True, slots=True)
class LaneReading:
    """One lane's consumer, read once."""

    unfetched: int
    """Jobs that no worker holds (num_pending)."""
    held: int
    """Jobs that some worker holds (num_ack_pending)."""
    delivered: int
    """Deliveries ever made (the consumer's own sequence)."""


class QueueLoad:
    """One model's queue: read now and then, and what this router has added since.

    The rate counts deliveries that are no longer held: a job that was handed back and delivered
    again counts twice, so for some seconds after a worker leaves the queue looks faster than it
    is. It is known only while jobs wait that no worker holds: otherwise it would tell how much is
    asked for, not how much could be done.
    """

    def __init__(self) -> None:
        self._depths = dict.fromkeys(Lane, 0)
        self._done = 0
        self._read_at_s: float | None = None
        self._was_waiting = False
        self._rate_per_s = 0.0
        self._measured_s = 0.0

    @property
    def rate_per_s(self) -> float | None:
        """Jobs that leave the queue per second; None while that is not known."""
        return self._rate_per_s if self._measured_s >= _KNOWN_AFTER_S else None

    @property
    def depth(self) -> int:
        """Jobs in all lanes, held ones included."""
        return sum(self._depths.values())

    def ahead_of(self, lane: Lane) -> int:
        """Jobs that come before a new one: those of its own lane and of the more urgent ones.

        `Lane` names the most urgent one first. What ageing lets pass is left out of account.
        """
        return sum(self._depths[each] for each in _UP_TO[lane])

    def read(self, lanes: Mapping[Lane, LaneReading], now_s: float) -> None:
        """Take in a reading of every lane; `now_s` comes from a monotonic clock."""
        for lane, reading in lanes.items():
            self._depths[lane] = reading.unfetched + reading.held
        waiting = any(reading.unfetched for reading in lanes.values())
        done = sum(reading.delivered - reading.held for reading in lanes.values())
        if self._read_at_s is not None:
            self._measure(done - self._done, now_s - self._read_at_s, waiting=waiting)
        self._done, self._read_at_s, self._was_waiting = done, now_s, waiting

    def admitted(self, lane: Lane) -> None:
        """This router is about to publish one more job; the next reading tells whether it did."""
        self._depths[lane] += 1

    def withdrawn(self, lane: Lane) -> None:
        """It did not: the request was known already."""
        self._depths[lane] = max(0, self._depths[lane] - 1)

    def wait_s(self, lane: Lane) -> float | None:
        """How long a new job would wait, up to two hours; None: not known."""
        return self._time_for(self.ahead_of(lane))

    def refuse_if_overloaded(
        self, model: str, lane: Lane, *, limit: float, deadline_s: float
    ) -> None:
        """Refuse what finds the queue full, or would expire in it.

        Raises:
            UnavailableError: `overloaded`; `retry_after_s` is when it would be admitted if
                nothing else came, as far as the rate is known.
        """
        ahead = self.ahead_of(lane)
        if ahead >= limit:
            msg = _FULL.format(model=model)
            raise _overloaded(msg, self._time_for(ahead - limit + 1))
        wait_s = self.wait_s(lane)
        if wait_s is not None and wait_s > deadline_s:
            msg = _TOO_LATE.format(model=model, wait_s=wait_s, deadline_s=deadline_s)
            raise _overloaded(msg, wait_s - deadline_s)

    def _measure(self, done: int, elapsed_s: float, *, waiting: bool) -> None:
        if not (waiting and self._was_waiting) or done < 0 or elapsed_s <= 0:
            self._rate_per_s = self._measured_s = 0.0
            return
        if not done and not self._measured_s:
            return  # nothing done says nothing yet: perhaps the first worker still loads the model
        self._measured_s += elapsed_s
        # The mean at first, which forgets exponentially once it is older than the time constant.
        weight = max(1 - math.exp(-elapsed_s / SMOOTHING_S), elapsed_s / self._measured_s)
        self._rate_per_s += weight * (done / elapsed_s - self._rate_per_s)

    def _time_for(self, jobs: float) -> float | None:
        rate_per_s = self.rate_per_s
        if rate_per_s is None:
            return None
        return min(jobs / max(rate_per_s, 1e-9), 2 * MAX_DEADLINE_S)


def _overloaded(message: str, retry_after_s: float | None) -> UnavailableError:
    after_s = _RETRY_UNKNOWN_S if retry_after_s is None else max(retry_after_s, _LEAST_RETRY_S)
    return UnavailableError(message, code="overloaded", retry_after_s=min(after_s, MAX_DEADLINE_S))
