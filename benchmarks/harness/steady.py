"""What a contender reached while it was neither ramping up nor running out of work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

RAMP_SHARE: Final = 10
"""One job in so many has ended before the measurement begins."""


@dataclass(frozen=True, slots=True)
class Produced:
    """Useful tokens that were made evenly between two times, which may be the same."""

    begin_s: float
    end_s: float
    tokens: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run of one contender gave; waits and totals count from a job's arrival."""

    tokens_per_s: float
    cpu_us_per_token: float
    first_s: tuple[float, ...] = ()
    total_s: tuple[float, ...] = ()


def tokens_per_s(produced: Iterable[Produced], begin_s: float, end_s: float) -> float:
    """The rate between two times.

    Raises:
        ValueError: the times are not in order: the run was too short to have a steady part.
    """
    if end_s <= begin_s:
        msg = "the run was too short to have a steady part"
        raise ValueError(msg)
    return sum(_within(one, begin_s, end_s) for one in produced) / (end_s - begin_s)


def ramp_end_s(ended_s: Sequence[float]) -> float:
    """When the first tenth of the jobs had ended."""
    return sorted(ended_s)[len(ended_s) // RAMP_SHARE]


def _within(one: Produced, begin_s: float, end_s: float) -> float:
    if one.begin_s == one.end_s:
        return one.tokens if begin_s <= one.end_s <= end_s else 0.0
    shared_s = min(one.end_s, end_s) - max(one.begin_s, begin_s)
    return one.tokens * max(shared_s, 0.0) / (one.end_s - one.begin_s)
