"""How far a request is from what its tenant has asked before: a few centroids of text vectors."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

CENTROIDS: Final = 32
_FAR: Final = 0.3
"""Distance from which a text begins a centroid of its own."""
_MEMORY: Final = 100
"""Texts after which a centroid has moved on."""


class Novelty:
    """Directions of what was asked, and how much was; sequential k-means (MacQueen, 1967)."""

    def __init__(
        self,
        centroids: NDArray[np.float64] | None = None,
        weights: NDArray[np.float64] | None = None,
    ) -> None:
        """Both together: what an earlier one had, or nothing."""
        self.centroids = centroids
        """(at most CENTROIDS, dimensions), each of length 1."""
        self.weights = np.zeros(0) if weights is None else weights
        """How many texts each stands for, decayed."""

    def distance(self, text: NDArray[np.float64]) -> float:
        """1 - cosine to the nearest centroid, 0 to 1; 0 too for a text without a direction."""
        direction = _direction(text)
        if direction is None:
            return 0.0
        if self.centroids is None:
            return 1.0
        return _distance(float((self.centroids @ direction).max()))

    def add(self, text: NDArray[np.float64]) -> None:
        """The tenant asked this."""
        direction = _direction(text)
        if direction is None:
            return
        if self.centroids is None:
            self.centroids, self.weights = direction[None, :].copy(), np.ones(1)
            return
        near = self.centroids @ direction
        nearest = int(near.argmax())
        self.weights *= 1 - 1 / (_MEMORY * CENTROIDS)
        if _distance(float(near[nearest])) <= _FAR:
            self._move(nearest, direction)
        elif len(self.weights) < CENTROIDS:
            self.centroids = np.vstack((self.centroids, direction))
            self.weights = np.append(self.weights, 1.0)
        else:
            least = int(self.weights.argmin())
            self.centroids[least], self.weights[least] = direction, 1.0

    def _move(self, which: int, direction: NDArray[np.float64]) -> None:
        assert self.centroids is not None  # noqa: S101  there is a nearest one
        self.weights[which] += 1
        step = 1 / min(self.weights[which], _MEMORY)
        moved = _direction(self.centroids[which] * (1 - step) + direction * step)
        if moved is not None:
            self.centroids[which] = moved


def _direction(text: NDArray[np.float64]) -> NDArray[np.float64] | None:
    length = float(np.sqrt(text @ text))
    return text / length if length > 0 else None


def _distance(cosine: float) -> float:
    return min(1.0, max(0.0, 1 - cosine))
