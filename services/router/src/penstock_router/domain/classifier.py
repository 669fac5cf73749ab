"""P(a model answers correctly | features), trained offline and calibrated: the shared prior.

A ridge regression of "it was right" on three things: the words of a text (tf-idf,
hashed), how near the text is in its build to each of some training texts, and how near it
is in build and meaning at once (Gaussian kernels on landmarks, the Nyström method: Williams and
Seeger 2001). All models share these; each has its own weights and its own calibration curve.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from penstock_router.domain.features import Features
from penstock_router.domain.lexicon import TEXT_DIMS
from penstock_router.domain.text_build import BUILD_DIMS
from penstock_shared.contracts.models import ModelRecord

SEEN_DIMS: Final = BUILD_DIMS + TEXT_DIMS
"""What kernels compare: the text's build and its vector."""
HASHED: Final = 1 << 16
"""Places for words."""
_FARTHEST: Final = 4.0
"""Standard deviations, beyond which a number of the build tells nothing more."""
_PARTS: Final = (0, BUILD_DIMS)
"""Where build and text begin in what is seen."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Landmarks:
    """Training texts, and Gaussian kernels over them: exp(-(rate |x - y|^2 of build + of text)).

    All kernels weigh the same two distances, so each text is compared with a landmark once.
    """

    build: Floats
    """(landmarks, BUILD_DIMS)"""
    text: Floats
    """(landmarks, TEXT_DIMS)"""
    squares: Floats
    """(2, landmarks): squared lengths of both."""
    rates: Floats
    """(kernels, 2): how fast each kernel falls with the distance in build, and in text."""

    @classmethod
    def of(cls, seen: Floats, rates: Floats) -> Self:
        """With `seen`, (landmarks, SEEN_DIMS), of the texts."""
        squares = np.add.reduceat(np.square(seen), _PARTS, -1).T
        build, text = seen[:, :BUILD_DIMS].copy(), seen[:, BUILD_DIMS:].copy()
        return cls(build, text, squares.copy(), rates)

    @property
    def seen(self) -> Floats:
        """What `of` took."""
        return np.concatenate((self.build, self.text), -1)

    def near(self, seen: Floats) -> Floats:
        """Each one's nearness, (…, kernels, landmarks), to what was seen, (…, SEEN_DIMS)."""
        both = np.empty((*seen.shape[:-1], 2, len(self.build)), np.float32)
        both[..., 0, :] = seen[..., :BUILD_DIMS] @ self.build.T
        both[..., 1, :] = seen[..., BUILD_DIMS:] @ self.text.T
        own = np.add.reduceat(np.square(seen), _PARTS, -1)
        near: Floats = np.exp(self.rates @ (2 * both - self.squares - own[..., np.newaxis]))
        return near


@dataclass(frozen=True, slots=True)
class Sight:
    """How features become the numbers that weights are for: learned once, for all models."""

    centre: Floats
    """(SEEN_DIMS,): the training texts' mean."""
    spread: Floats
    """(SEEN_DIMS,): their standard deviation; 1 for the vector's numbers."""
    rarity: Floats
    """(HASHED,): inverse document frequency; 0 for what at most one training text has."""

    def seen(self, features: Features) -> Floats:
        """Build and vector, (SEEN_DIMS,), each about as large as in training."""
        seen = (np.concatenate((features.build, features.text)) - self.centre) / self.spread
        vector = seen[BUILD_DIMS:]
        norm = float(np.sqrt(vector @ vector))
        if norm > 0:
            vector /= norm
        clipped: Floats = np.minimum(np.maximum(seen, -_FARTHEST), _FARTHEST)
        return clipped

    def words(self, features: Features) -> tuple[NDArray[np.intp], Floats]:
        """Places of the words in a text, and their weights in it (of length 1)."""
        places = hashed_words(features)
        weight = self.rarity.take(places)
        norm = float(np.sqrt(weight @ weight))
        return places, weight / norm if norm > 0 else weight


@dataclass(frozen=True, slots=True)
class Curve:
    """Calibration: 1 / (1 + exp(-(slope score + offset))).

    Temperature scaling with an offset (Platt 1999): no two scores become equal, as they would on
    the steps of an isotonic curve, and routing lives from the order (ADR 17 compares them).
    """

    slope: float
    offset: float

    def __call__(self, scores: NDArray[np.floating]) -> NDArray[np.float64]:
        """The probabilities that belong to scores."""
        p: NDArray[np.float64] = 1 / (1 + np.exp(-(self.slope * scores + self.offset)))
        return p


@dataclass(frozen=True, slots=True)
class Weights:
    """What training leaves."""

    models: Mapping[str, str]
    """Name and version of each model, in the order of the weights' columns."""
    sight: Sight
    words: Floats
    """(HASHED, models)"""
    landmarks: Landmarks
    near: Floats
    """(kernels * landmarks, models)"""
    base: Floats
    """(models,): the score of a text of which nothing is known."""
    curves: tuple[Curve, ...]
    least_familiar: float
    """Nearness to the nearest landmark, in the last kernel, below which a text is out of depth."""


class Classifier:
    """Estimates for some versions of some models; silent about all others."""

    def __init__(self, weights: Weights | None = None) -> None:
        self._weights = weights
        self._columns = (
            {} if weights is None else {name: at for at, name in enumerate(weights.models)}
        )
        self._last: tuple[Features, Floats | None] | None = None

    def p_correct(self, features: Features, model: ModelRecord) -> float | None:
        """The calibrated probability that this model's answer to this request is right.

        None where nothing is known: no weights for this model, weights for another version of
        it (stale), or a text unlike all those it was trained on (out of its depth).
        """
        weights, column = self._weights, self._columns.get(model.name)
        if weights is None or column is None or weights.models[model.name] != model.version:
            return None
        scores = self._scores(weights, features)
        return None if scores is None else float(weights.curves[column](scores[column]))

    def _scores(self, weights: Weights, features: Features) -> Floats | None:
        """All models' scores; remembered, since one request asks for every model's in turn."""
        if self._last is None or self._last[0] is not features:
            self._last = (features, scores_of(weights, features))
        return self._last[1]


def scores_of(weights: Weights, features: Features) -> Floats | None:
    """(models,), not calibrated; None for a text that is out of depth."""
    seen = weights.sight.seen(features)
    near = weights.landmarks.near(seen)
    if near[-1].max() < weights.least_familiar:
        return None
    places, weight = weights.sight.words(features)
    scores: Floats = weights.base + weight @ weights.words.take(places, 0)
    return scores + near.reshape(-1) @ weights.near


def hashed_words(features: Features) -> NDArray[np.intp]:
    """Where a text's words stand, each once, in order."""
    places = features.terms.astype(np.uint16)  # the lowest bits; short numbers are sorted faster
    places.sort()
    first = np.ones(len(places), bool)
    np.not_equal(places[1:], places[:-1], out=first[1:])
    return places[first].astype(np.intp)
