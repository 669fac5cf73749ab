"""What is counted of one side of an experiment, and how far the sides may be apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

_MILLI: Final = 1_000
_NORMAL_FROM: Final = 100
"""Requests before a mean is taken for normally distributed."""
_TIGHTEST_AT: Final = 1_000
"""Requests at which the confidence bound is tightest for its level."""


@dataclass(slots=True)
class ArmStats:
    """What is counted of one side; integers, so that the order in which they came is no matter."""

    requests: int = 0
    """That ended."""
    failures: int = 0
    """Of those without a usable answer, and of answers that were judged wrong later."""
    answered: int = 0
    latency_us: int = 0
    """Of those that were answered, as the following two."""
    log_latency: int = 0
    """Sum of ln(1 + ms), in thousandths."""
    log_latency_squares: int = 0
    cost_microusd: int = 0
    cost_squares: int = 0

    @property
    def mean_latency_ms(self) -> float | None:
        """Of what was answered."""
        return self.latency_us / self.answered / _MILLI if self.answered else None

    @property
    def mean_cost_microusd(self) -> float | None:
        """Of a request with all its attempts."""
        return self.cost_microusd / self.requests if self.requests else None

    def ended(self, *, failed: bool, cost_microusd: int, latency_ms: float) -> None:
        """A request came to its end."""
        self.requests += 1
        self.cost_microusd += cost_microusd
        self.cost_squares += cost_microusd**2
        if not failed:
            log_latency = round(_MILLI * math.log1p(max(0.0, latency_ms)))
            self.answered += 1
            self.latency_us += round(latency_ms * _MILLI)
            self.log_latency += log_latency
            self.log_latency_squares += log_latency**2


def latency_ratio_bound(candidate: ArmStats, baseline: ArmStats, level: float) -> float:
    """The most that candidate / baseline is likely to be, of the geometric means of latencies.

    It is more with a probability of at most `level`, whenever and however often one looks.
    """
    most, least = (
        _mean_bound(arm.answered, arm.log_latency, arm.log_latency_squares, sign, level / 2)
        for arm, sign in ((candidate, 1), (baseline, -1))
    )
    return math.exp((most - least) / _MILLI)


def cost_ratio_bound(candidate: ArmStats, baseline: ArmStats, level: float) -> float:
    """The same of the mean costs."""
    most, least = (
        _mean_bound(arm.requests, arm.cost_microusd, arm.cost_squares, sign, level / 2)
        for arm, sign in ((candidate, 1), (baseline, -1))
    )
    if most <= 0:  # it costs nothing
        return 0.0
    return most / least if least > 0 else math.inf


def _mean_bound(count: int, total: int, squares: int, sign: int, level: float) -> float:
    """The most (`sign` 1) or the least (-1) that a mean is likely to be, at any time.

    An asymptotic confidence sequence: Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas,
    "Time-uniform central limit theory and asymptotic confidence sequences" (2024), theorem 2.2.
    """
    if count < _NORMAL_FROM:
        return sign * math.inf
    mean = total / count
    deviation = math.sqrt(count * squares - total**2) / count
    tuning = -2 * math.log(level)
    spread = count * (tuning + math.log1p(tuning)) / _TIGHTEST_AT + 1
    radius = math.sqrt(2 * spread / (count * (spread - 1)) * math.log(math.sqrt(spread) / level))
    return mean + sign * deviation * radius
