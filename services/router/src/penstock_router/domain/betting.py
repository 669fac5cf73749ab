"""Sequential tests by betting: two streams of failures are compared, after every one of them.

A bet against a null hypothesis starts with a wealth of 1, which, while the hypothesis holds, is
expected never to grow. So (Ville's inequality) the probability that it ever reaches 1/a is at most
a, whenever and however often one looks, and whatever the failure rates are.

The bets are those of Turner, Ly and Grünwald, "Generic E-variables for exact sequential k-sample
tests that allow for optional stopping" (2024, arXiv:2106.02693). Outcomes are taken in blocks that
hold some of both sides. Before a block is looked at, two pairs of failure rates (baseline,
candidate) are fixed: (b, c), which the bet believes in, and (x, y), the nearest to it for which the
null hypothesis still holds. The wealth is then multiplied by the likelihood of the block under the
one, divided by that under the other. Let the truth be (x + u, y + v) in a block of n and m
outcomes; the expected factor is (1 + u g)^n (1 + v h)^m with g = (b - x) / x(1 - x) and
h = (c - y) / y(1 - y). Nearest means n g + m h = 0, on the null hypothesis's side the factor of v
is at most that of u, and by the inequality of the means the product is at most
(1 + u (n g + m h) / (n + m))^(n + m) = 1. A poor estimate of b makes a bet weak, never wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

BLOCK: Final = 4
"""Outcomes of either side that make a block."""
_BISECTIONS: Final = 40
_EPSILON: Final = 1e-9
_PRIOR_FAILURES: Final = 0.5
_PRIOR_OUTCOMES: Final = 10.0


@dataclass(slots=True)
class Tally:
    """Outcomes and failures of both sides."""

    baseline: int = 0
    baseline_failures: int = 0
    candidate: int = 0
    candidate_failures: int = 0

    @property
    def is_block(self) -> bool:
        """Whether there is enough of both to compare."""
        return min(self.baseline, self.candidate) >= BLOCK

    @property
    def baseline_rate(self) -> float:
        """An estimate of the baseline's failure rate, never 0 or 1."""
        return (self.baseline_failures + _PRIOR_FAILURES) / (self.baseline + _PRIOR_OUTCOMES)

    def __add__(self, other: Tally) -> Tally:
        """The outcomes of both."""
        return Tally(
            self.baseline + other.baseline,
            self.baseline_failures + other.baseline_failures,
            self.candidate + other.candidate,
            self.candidate_failures + other.candidate_failures,
        )


@dataclass(frozen=True, slots=True)
class Belief:
    """The candidate's odds of failing, as a multiple of the baseline's, and what is bet on it."""

    odds: float
    stake: float

    def of(self, baseline_rate: float) -> float:
        """The candidate's failure rate that goes with the baseline's."""
        odds = self.odds * baseline_rate / (1 - baseline_rate)
        return odds / (1 + odds)


@dataclass(slots=True)
class Bet:
    """A bet against: the candidate's failure rate is on the null side of baseline + `margin`."""

    margin: float
    beliefs: Sequence[Belief]
    wealths: list[float] = field(default_factory=list)
    """Logarithms, one for each belief."""

    def __post_init__(self) -> None:
        """Stake everything, once."""
        self.wealths = self.wealths or [math.log(belief.stake) for belief in self.beliefs]

    @property
    def log_wealth(self) -> float:
        """The natural logarithm of the wealth in all."""
        most = max(self.wealths)
        return most + math.log(sum(math.exp(wealth - most) for wealth in self.wealths))

    def resume(self, wealths: list[float]) -> None:
        """Go on from earlier.

        Raises:
            ValueError: they are not those of these beliefs.
        """
        if len(wealths) != len(self.beliefs) or not all(map(math.isfinite, wealths)):
            msg = "These are wealths of other bets."
            raise ValueError(msg)
        self.wealths = list(wealths)

    def settle(self, block: Tally, baseline_rate: float) -> None:
        """Pay out a block; `baseline_rate` was estimated without it."""
        for place, belief in enumerate(self.beliefs):
            b, c = baseline_rate, belief.of(baseline_rate)
            x = _nearest(b, c, block.baseline, block.candidate, self.margin)
            self.wealths[place] += _log_ratio(
                block.baseline, block.baseline_failures, b, x
            ) + _log_ratio(block.candidate, block.candidate_failures, c, x + self.margin)


def _nearest(b: float, c: float, n: int, m: int, margin: float) -> float:
    """The x for which (x, x + margin) is nearest to (b, c): the least relative entropy.

    Its derivative grows with x and is 0 between b and c - margin.
    """
    low, high = sorted((b, c - margin))
    low, high = max(low, _EPSILON), min(high, 1 - margin - _EPSILON)
    for _ in range(_BISECTIONS):
        x = (low + high) / 2
        y = x + margin
        if n * (x - b) / (x * (1 - x)) + m * (y - c) / (y * (1 - y)) > 0:
            high = x
        else:
            low = x
    return (low + high) / 2


def _log_ratio(outcomes: int, failures: int, believed: float, null: float) -> float:
    """The logarithm of the likelihood ratio of that many failures."""
    return failures * math.log(believed / null) + (outcomes - failures) * math.log(
        (1 - believed) / (1 - null)
    )


def fisher_tail(tally: Tally) -> float:
    """How likely so many of all failures fall on the candidate when both sides fail alike.

    The one-sided p-value of Fisher's exact test ("The Design of Experiments", 1935): valid for a
    look that was planned before, and for one only.
    """
    outcomes = tally.baseline + tally.candidate
    failures = tally.baseline_failures + tally.candidate_failures
    whole = _log_choose(outcomes, failures)
    return min(
        1.0,
        sum(
            math.exp(
                _log_choose(tally.candidate, k) + _log_choose(tally.baseline, failures - k) - whole
            )
            for k in range(tally.candidate_failures, min(failures, tally.candidate) + 1)
            if failures - k <= tally.baseline
        ),
    )


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
