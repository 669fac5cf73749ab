"""Trains a classifier: a kernel ridge regression with its exact leave-one-out predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse
from sklearn.linear_model import LogisticRegression

from penstock_router.domain.classifier import (
    HASHED,
    Curve,
    Floats,
    Landmarks,
    Sight,
    Weights,
    hashed_words,
)
from penstock_router.domain.features import Features
from penstock_router.domain.text_build import BUILD_DIMS
from penstock_router.evaluate.routing_measures import Numbers

MOST_TEXTS: Final = 8_000
"""Training takes memory and time with the square and the cube of the texts: more are sampled."""
_RIDGE: Final = 25.0
_WORDS: Final = 1.0
_LANDMARKS: Final = 256
_LEAST_SPREAD: Final = 0.02
"""What hardly varied in training tells nothing when it does later."""
_JITTER: Final = 1e-4
_LOOSE: Final = 1_000.0
_HALF: Final = 0.5
_UNFAMILIAR: Final = 0.002
"""The share of training texts that would themselves pass for out of depth."""


class _Shape(NamedTuple):
    """One kernel: its weight among the others, and how fast it falls."""

    weight: float
    build: float
    text: float


_KERNELS: Final = (_Shape(2.0, 0.01, 0.0), _Shape(2.0, 0.005, 0.5))


class Trained(NamedTuple):
    """Weights, and what they say of each training text when it is left out."""

    weights: Weights
    scores: Numbers
    """(texts, models), not calibrated."""
    right: Numbers
    """(texts, models), of the texts that were trained on."""


def train(
    features: Sequence[Features], right: Numbers, models: Mapping[str, str], seed: int = 0
) -> Trained:
    """Train on texts and on which of `models` (name to version) answered each correctly.

    `right` is (texts, models), 0 to 1. The ridge's leave-one-out residuals are exact: alpha over
    the diagonal of the inverse (Cawley and Talbot 2003), so calibration needs no second fit.
    """
    rng = np.random.default_rng(seed)
    kept = np.sort(rng.permutation(len(features))[:MOST_TEXTS])
    features, right = [features[at] for at in kept], right[kept]
    sight = _sight(features)
    words = _words(sight, features)
    seen = np.stack([sight.seen(each) for each in features])
    # The other half tells how far from a landmark a text may be.
    chosen = rng.permutation(len(seen))[: min(_LANDMARKS, len(seen) // 2)]
    rates = np.array([(shape.build, shape.text) for shape in _KERNELS], np.float32)
    landmarks = Landmarks.of(seen[chosen], rates)
    near = np.moveaxis(landmarks.near(seen), -2, 0)
    inner = [_inverse(each[chosen]) for each in near]
    gram = _WORDS * (words @ words.T).toarray().astype(np.float64)
    for shape, each, within in zip(_KERNELS, near, inner, strict=True):
        gram += shape.weight * (each @ within @ each.T)
    base = right.mean(0)
    gram[np.diag_indices_from(gram)] += _RIDGE
    inverse = linalg.inv(gram, overwrite_a=True, check_finite=False)
    alpha = inverse @ (right - base)
    left_out = right - alpha / np.diag(inverse)[:, None]
    nearest = np.delete(near[-1], chosen, axis=0).max(1)
    weights = Weights(
        models=models,
        sight=sight,
        words=_WORDS * (words.T @ alpha).astype(np.float32),
        landmarks=landmarks,
        near=np.concatenate(
            [
                (shape.weight * within @ (each.T @ alpha)).astype(np.float32)
                for shape, each, within in zip(_KERNELS, near, inner, strict=True)
            ]
        ),
        base=base.astype(np.float32),
        curves=tuple(_curve(left_out[:, at], right[:, at]) for at in range(right.shape[1])),
        least_familiar=float(np.quantile(nearest, _UNFAMILIAR)),
    )
    return Trained(weights, left_out, right)


def _sight(features: Sequence[Features]) -> Sight:
    seen = np.stack([np.concatenate((each.build, each.text)) for each in features])
    spread = np.maximum(seen.std(0), _LEAST_SPREAD)
    spread[BUILD_DIMS:] = 1
    found = np.bincount(np.concatenate([hashed_words(each) for each in features]), minlength=HASHED)
    rarity = np.where(found > 1, np.log((len(features) + 1) / (found + 1)) + 1, 0)
    return Sight(seen.mean(0), spread, rarity.astype(np.float32))


def _words(sight: Sight, features: Sequence[Features]) -> sparse.csr_array:
    rows = [sight.words(each) for each in features]
    ends = np.cumsum([0, *(len(places) for places, _ in rows)])
    columns = np.concatenate([places for places, _ in rows])
    values = np.concatenate([weight for _, weight in rows])
    return sparse.csr_array((values, columns, ends), shape=(len(rows), HASHED))


def _inverse(near: Floats) -> NDArray[np.float64]:
    within = near.astype(np.float64)
    within[np.diag_indices_from(within)] += _JITTER
    inverse: NDArray[np.float64] = linalg.inv(within)
    return inverse


def _curve(scores: Numbers, right: Numbers) -> Curve:
    """Fitted with one right and one wrong answer more, so that neither is ever impossible."""
    low, high = scores.min(), scores.max()
    seen = np.append(scores, (low, high))[:, np.newaxis]
    fitted = LogisticRegression(C=_LOOSE).fit(seen, np.append(right, (0.0, 1.0)) >= _HALF)
    return Curve(float(fitted.coef_[0, 0]), float(fitted.intercept_[0]))
