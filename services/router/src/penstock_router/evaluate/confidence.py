"""Fits the curves of confidence to outcomes with runs, such as `models/outcomes`.

`python -m penstock_router.evaluate.confidence --outcomes FILE --models DIR --out FILE`
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from penstock_router.adapters.confidence_file import ConfidenceFile, MeasuredCurve
from penstock_router.domain.confidence import ConfidenceCurve
from penstock_shared.contracts.models import ModelManifest

_MODELS: Final = {"weak": "penstock-small", "strong": "penstock-large"}


def fit(rows: Sequence[dict[str, Any]], versions: dict[str, str]) -> ConfidenceFile:
    """The curves of both models; `versions` are those whose answers the rows hold."""
    return ConfidenceFile(curves=tuple(_curves(rows, versions)))


def _curves(rows: Sequence[dict[str, Any]], versions: dict[str, str]) -> Iterator[MeasuredCurve]:
    for side, model in _MODELS.items():
        answers = [(row[f"{side}_run"]["confidence"] or 0.0, bool(row[side])) for row in rows]
        curve = ConfidenceCurve.of(answers)
        yield MeasuredCurve(
            model=model,
            version=versions[model],
            answers=len(answers),
            thresholds=curve.thresholds,
            catches=curve.catches,
            false_alarms=curve.false_alarms,
        )


def _version(models: Path, name: str) -> str:
    manifest = (models / name / "penstock.json").read_bytes()
    return ModelManifest.model_validate_json(manifest).version


def main() -> None:
    """Read the outcomes, write the curves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--outcomes", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True, help="holds each model's manifest")
    parser.add_argument("--out", type=Path, required=True)
    told = parser.parse_args()
    with gzip.open(told.outcomes, "rt") as lines:
        rows = [json.loads(line) for line in lines]
    versions = {name: _version(told.models, name) for name in _MODELS.values()}
    told.out.write_text(fit(rows, versions).model_dump_json(indent=1) + "\n")


if __name__ == "__main__":
    main()
