"""What one tenant's answers have taught about one model: Bayesian logistic regression, online."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_router.domain.outcome import Estimate

Vector = NDArray[np.float64]

NEUTRAL_P: Final = 0.5
"""What is expected of a model of which nothing is known."""


class Belief:
    """P(this model answers this tenant's request correctly | context), relative to a prior."""

    def __init__(self, dims: int) -> None:
        self.dims = dims

    def estimate(self, x: Vector, prior_p: float | None) -> Estimate:
        """What is expected of an answer to a request with the context `x`."""
        raise NotImplementedError

    def update(self, x: Vector, prior_p: float | None, correct: float, weight: float = 1.0) -> None:
        """Take in that an answer was `correct` (0 to 1)."""
        raise NotImplementedError
