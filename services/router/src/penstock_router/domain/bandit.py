"""What one tenant's answers have taught about one model: Bayesian logistic regression, online.

The model is P(correct | x) = sigmoid(offset + w·x) with w ~ N(mean, covariance): what the tenant's
answers say beyond the offline prior, which is right on the average of all tenants. So the offset is
such that before the first answer, when w has its prior variance, P(correct) is the prior.

An answer moves both in O(d²) by one step of the extended Kalman filter, which is the online Laplace
approximation (Spiegelhalter and Lauritzen, "Sequential updating of conditional probabilities on
directed graphical structures", 1990; the moderated output is MacKay's, "The evidence framework
applied to classification networks", 1992).

Two things keep it from believing for ever. Between answers, w returns to the prior as an
Ornstein-Uhlenbeck process does, by how many answers of the tenant were judged: a model that is
not asked any more becomes unknown again. And a test for a change of level (Page's CUSUM, 1954)
lets the level be learned anew when answers are much worse, or much better, than was believed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_router.domain.outcome import Estimate

Vector = NDArray[np.float64]

MEMORY: Final = 20_000
"""Judged answers of the tenant after which what was learned counts 1/e."""
_NEUTRAL_P: Final = 0.75
"""Of a model of which nothing is known: hopeful, so that it is tried."""
_LEVEL_VARIANCE: Final = 0.7**2
"""Of a model's level beside its prior, in logits."""
_SLOPE_VARIANCE: Final = 0.2**2
"""Of every other weight: most say little, and there are many."""
_SHIFT: Final = 1.5
"""Logits by which a level that has changed is taken to differ."""
_ALARM: Final = 8.0
"""Log-likelihood ratio at which it is believed: about one false alarm in exp(8) = 3,000 answers."""
_ANEW: Final = 1.5**2
"""Variance that a level gets back then: hardly anything is out of reach."""
_LEAST_P: Final = 0.01
_LEAST_INFORMATION: Final = 1e-4


@dataclass(slots=True, eq=False)
class Belief:
    """P(this model answers this tenant's request correctly | context), relative to a prior.

    `tick` counts the tenant's judged answers, whichever model gave them; it never falls.
    """

    mean: Vector
    covariance: NDArray[np.float64]
    observations: float = 0.0
    """Judged answers of this model, decayed."""
    right: float = 0.0
    """Of those, decayed alike."""
    tick: int = 0
    """Of the last answer that was taken in."""
    worse: float = 0.0
    """Evidence that the level has fallen: the running log-likelihood ratio, from 0 up."""
    better: float = 0.0
    """The same for that it has risen."""

    @classmethod
    def unknown(cls, dims: int) -> Belief:
        """Of a model that this tenant has not tried, for contexts of so many numbers."""
        return cls(np.zeros(dims), np.diag(_prior_variance(dims)))

    def logit(self, x: Vector, tick: int) -> float:
        """w·x: how it differs from the prior."""
        return math.sqrt(self._keep(tick)) * float(self.mean @ x)

    def slopes(self, x: Vector, tick: int) -> float:
        """The same without the level."""
        return math.sqrt(self._keep(tick)) * float(self.mean @ x - self.mean[0])

    def estimate(self, x: Vector, prior_p: float | None, tick: int, shift: float = 0.0) -> Estimate:
        """What is expected of an answer to a request with the context `x`.

        `shift`: what is known from elsewhere, in logits.
        """
        keep = self._keep(tick)
        unlearned = _unlearned(x)
        logit = _offset(prior_p, unlearned) + shift + self.logit(x, tick)
        variance = keep * float(x @ self.covariance @ x) + (1 - keep) * unlearned
        p, slope = _moderated(logit, variance)
        return Estimate(p, slope * math.sqrt(variance), keep * self.observations)

    def update(
        self, x: Vector, prior_p: float | None, correct: float, tick: int, shift: float = 0.0
    ) -> None:
        """Take in how right an answer was, 0 to 1; `shift` as in `estimate`."""
        self._age(tick)
        spread = self.covariance @ x
        variance = float(x @ spread)
        logit = _offset(prior_p, _unlearned(x)) + shift + float(self.mean @ x)
        p, _ = _moderated(logit, variance)
        self._watch(_logit(p), correct)
        information = max(p * (1 - p), _LEAST_INFORMATION)
        shrink = 1 + information * variance
        self.mean += spread * ((correct - p) / shrink)
        # The product of one vector with itself is symmetric to the last bit: half of it is stored.
        step = spread * math.sqrt(information / shrink)
        self.covariance -= np.outer(step, step)
        self.observations += 1
        self.right += correct

    def _keep(self, tick: int) -> float:
        return (1 - 1 / MEMORY) ** max(0, tick - self.tick)

    def _age(self, tick: int) -> None:
        keep = self._keep(tick)
        self.mean *= math.sqrt(keep)
        self.covariance *= keep
        self._widen((1 - keep) * _prior_variance(len(self.mean)))
        self.observations *= keep
        self.right *= keep
        self.tick = max(tick, self.tick)

    def _watch(self, logit: float, correct: float) -> None:
        self.worse = max(0.0, self.worse + _evidence(logit, logit - _SHIFT, correct))
        self.better = max(0.0, self.better + _evidence(logit, logit + _SHIFT, correct))
        if max(self.worse, self.better) >= _ALARM:
            self.worse = self.better = 0.0
            level = np.zeros(len(self.mean))
            level[0] = _ANEW
            self._widen(level)

    def _widen(self, variance: Vector) -> None:
        self.covariance.flat[:: len(variance) + 1] += variance


def _prior_variance(dims: int) -> Vector:
    variance = np.full(dims, _SLOPE_VARIANCE)
    variance[0] = _LEVEL_VARIANCE
    return variance


def _logit(prior_p: float | None) -> float:
    p = _NEUTRAL_P if prior_p is None else min(max(prior_p, _LEAST_P), 1 - _LEAST_P)
    return math.log(p / (1 - p))


def _unlearned(x: Vector) -> float:
    """The variance of w·x before the first answer; the first number of `x` is 1."""
    return _LEVEL_VARIANCE + _SLOPE_VARIANCE * (float(x @ x) - 1)


def _offset(prior_p: float | None, unlearned: float) -> float:
    """What `_moderated` makes the prior of, under the prior's variance."""
    return _logit(prior_p) * math.sqrt(1 + math.pi * unlearned / 8)


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-max(-500.0, min(500.0, logit))))


def _moderated(logit: float, variance: float) -> tuple[float, float]:
    """The mean of sigmoid(N(logit, variance)), and its slope in the logit."""
    flattened = 1 / math.sqrt(1 + math.pi * variance / 8)
    p = _sigmoid(logit * flattened)
    return p, p * (1 - p) * flattened


def _evidence(believed: float, other: float, correct: float) -> float:
    """Log-likelihood ratio of an answer for `other` against `believed`, both logits."""
    p, q = _sigmoid(believed), _sigmoid(other)
    return correct * math.log(q / p) + (1 - correct) * math.log((1 - q) / (1 - p))
