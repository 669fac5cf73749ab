"""A classifier's weights as a file: NumPy arrays, and nothing that would be run."""

from __future__ import annotations

import io
import json
import zipfile
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
    Kernel,
    Sight,
    Weights,
)
from penstock_shared.contracts.errors import PermanentError

PACKAGED: Final = "data/classifier.npz"
_FORMAT: Final = 1


def load_classifier(path: Path | None = None) -> Classifier:
    """The classifier in `path`, or the package's own, for the reference models.

    Raises:
        PermanentError: it is no such file, or was made for other features than this version's.
    """
    source = files("penstock_router").joinpath(PACKAGED) if path is None else path
    try:
        with np.load(io.BytesIO(source.read_bytes()), allow_pickle=False) as arrays:
            return Classifier(_weights(arrays))
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
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
        "kernels": np.array(len(weights.kernels)),
    }
    for at, kernel in enumerate(weights.kernels):
        arrays[f"scale_{at}"] = kernel.scale
        arrays[f"landmarks_{at}"] = kernel.landmarks.astype(np.float16)
        arrays[f"weights_{at}"] = kernel.weights
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)


def _weights(arrays: Mapping[str, Any]) -> Weights:
    made_for = tuple(arrays["format"].tolist())
    if made_for != (_FORMAT, HASHED, SEEN_DIMS):
        msg = f"it is for format, places and numbers {made_for}"
        raise ValueError(msg)
    return Weights(
        models=json.loads(arrays["models"].tobytes()),
        sight=Sight(arrays["centre"], arrays["spread"], arrays["rarity"].astype(np.float32)),
        words=arrays["words"].astype(np.float32),
        kernels=tuple(
            Kernel.of(
                arrays[f"scale_{at}"],
                arrays[f"landmarks_{at}"].astype(np.float32),
                arrays[f"weights_{at}"],
            )
            for at in range(int(arrays["kernels"]))
        ),
        base=arrays["base"],
        curves=tuple(Curve(*curve) for curve in arrays["curves"].tolist()),
        least_familiar=float(arrays["least_familiar"]),
    )
