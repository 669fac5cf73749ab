"""A router starts without a classifier."""

from __future__ import annotations

from pathlib import Path

from penstock_router import metrics
from penstock_router.app import _classifier
from penstock_router.domain.classifier import Classifier


def test_a_classifier_that_cannot_be_read_is_missed_and_told(tmp_path: Path) -> None:
    """The plain rule decides then; the metric and the log say that it does."""
    damaged = tmp_path / "classifier.npz"
    damaged.write_bytes(b"PK\x03\x04 cut off")
    for path in (damaged, tmp_path / "nothing.npz"):
        metrics.CLASSIFIER_MISSING.set(0)
        assert isinstance(_classifier(path), Classifier)
        assert metrics.CLASSIFIER_MISSING._value.get() == 1
