"""A classifier's weights as a file: NumPy arrays, and nothing that would be run."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np

from penstock_router.domain.classifier import (
    HASHED,
    SEEN_DIMS,
    Classifier,
    Curve,
    Floats,
    Landmarks,
    Sight,
    Weights,
)
from penstock_shared.contracts.errors import PermanentError

PACKAGED: Final = "data/classifier.npz"
_FORMAT: Final = 2


def load_classifier(path: Path | None = None) -> Classifier:
    """The classifier in `path`, or the package's own, for the reference models.

    Raises:
        PermanentError: it is no such file, or was made for other features than this version's.
    """
    source = files("penstock_router").joinpath(PACKAGED) if path is None else path
    try:
        with np.load(io.BytesIO(source.read_bytes()), allow_pickle=False) as arrays:
            return Classifier(_weights(arrays))
    except Exception as error:  # damaged files fail in as many ways as they can be damaged
        msg = f"{source} is no classifier that this version reads ({error}): train it again."
        raise PermanentError(msg, code="classifier_unreadable") from error


def save_classifier(path: Path, weights: Weights) -> None:
    """Write the file; numbers that only weigh are kept in 16 bits."""
    arrays: dict[str, Any] = {
        "format": np.array([_FORMAT, HASHED, SEEN_DIMS]),
        "models": np.frombuffer(json.dumps(dict(weights.models)).encode(), np.uint8),
        "centre": weights.sight.centre,
        "spread": weights.sight.spread,
        "rarity": weights.sight.rarity.astype(np.float16),
        "words": weights.words.astype(np.float16),
        "base": weights.base,
        "curves": np.array([(curve.slope, curve.offset) for curve in weights.curves]),
        "least_familiar": np.array(weights.least_familiar),
        "landmarks": weights.landmarks.seen.astype(np.float16),
        "rates": weights.landmarks.rates,
        "near": weights.near,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)


def _weights(arrays: Mapping[str, Any]) -> Weights:
    made_for = tuple(arrays["format"].tolist())
    if made_for != (_FORMAT, HASHED, SEEN_DIMS):
        msg = f"it is for format, places and numbers {made_for}"
        raise ValueError(msg)
    models = dict(json.loads(arrays["models"].tobytes()))
    landmarks, kernels = len(arrays["landmarks"]), len(arrays["rates"])
    curves = _sound(arrays, "curves", (len(models), 2))
    return Weights(
        models=models,
        sight=Sight(
            _sound(arrays, "centre", (SEEN_DIMS,)),
            _sound(arrays, "spread", (SEEN_DIMS,)),
            _sound(arrays, "rarity", (HASHED,)),
        ),
        words=_sound(arrays, "words", (HASHED, len(models))),
        landmarks=Landmarks.of(
            _sound(arrays, "landmarks", (landmarks, SEEN_DIMS)),
            _sound(arrays, "rates", (kernels, 2)),
        ),
        near=_sound(arrays, "near", (kernels * landmarks, len(models))),
        base=_sound(arrays, "base", (len(models),)),
        curves=tuple(Curve(*curve) for curve in curves.tolist()),
        least_familiar=float(_sound(arrays, "least_familiar", ())),
    )


def _sound(arrays: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> Floats:
    """An array that decisions can be made with: else every one of them would fail."""
    array: Floats = arrays[name].astype(np.float32)
    if array.shape != shape or not np.isfinite(array).all():
        msg = f"its {name} is not of finite numbers, {shape}"
        raise ValueError(msg)
    return array
