"""Trains the classifier that the router serves with, from outcomes of its models.

`python -m penstock_router.evaluate.classifier --outcomes FILE --models DIR --out FILE`
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import numpy as np

from penstock_router.adapters.classifier_file import save_classifier
from penstock_router.adapters.lexicon_file import load_lexicon
from penstock_router.evaluate.outcomes import features_of_prompts, read_outcomes
from penstock_router.evaluate.training import train
from penstock_shared.contracts.models import ModelManifest

_MODELS: Final = ("penstock-small", "penstock-large")


def main() -> None:
    """Read the outcomes, train, write the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--outcomes", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True, help="holds each model's manifest")
    parser.add_argument("--out", type=Path, required=True)
    told = parser.parse_args()
    rows = read_outcomes(told.outcomes)
    right = np.array([(row.weak, row.strong) for row in rows], np.float64)
    versions = {name: _version(told.models / name) for name in _MODELS}
    trained = train(features_of_prompts(rows, load_lexicon()), right, versions)
    save_classifier(told.out, trained.weights)


def _version(model: Path) -> str:
    manifest = (model / "penstock.json").read_bytes()
    return ModelManifest.model_validate_json(manifest).version


if __name__ == "__main__":
    main()
