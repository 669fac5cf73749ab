"""The lexicon from the package's own data."""

from __future__ import annotations

import io
from importlib.resources import files
from typing import Final

import numpy as np

from penstock_router.domain.lexicon import Lexicon

PACKAGE: Final = "penstock_router"
FILE: Final = "data/lexicon.npz"


def load_lexicon() -> Lexicon:
    """Pieces and vectors of the package: made by `python -m penstock_models.lexicon_vectors`."""
    with np.load(io.BytesIO((files(PACKAGE) / FILE).read_bytes()), allow_pickle=False) as archive:
        pieces = archive["pieces"].tobytes().decode().split("\n")
        vectors = archive["vectors"].astype(np.float32) * archive["scales"][:, None]
    return Lexicon({piece: number for number, piece in enumerate(pieces)}, vectors)
