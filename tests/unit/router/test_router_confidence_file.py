"""The packaged curves: measured with the bundled models, and refused for any other version."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from tests.support.router import model_record

from penstock_router.adapters.confidence_file import load_confidences
from penstock_router.domain.confidence import Confidences
from penstock_router.evaluate.confidence import fit
from penstock_shared.contracts.errors import PermanentError

REPOSITORY = Path(__file__).parents[3]
SMALL = model_record("penstock-small").model_copy(update={"version": "1.0.0"})


def test_the_packaged_file_is_fitted_to_the_recorded_outcomes() -> None:
    """Whoever changes the outcomes without fitting anew is told."""
    with gzip.open(REPOSITORY / "models/outcomes/reference.jsonl.gz", "rt") as lines:
        rows = [json.loads(line) for line in lines]
    versions = {"penstock-small": "1.0.0", "penstock-large": "1.0.0"}
    packaged = REPOSITORY / "services/router/src/penstock_router/data/confidence.json"
    assert json.loads(packaged.read_text()) == json.loads(fit(rows, versions).model_dump_json())


def test_the_small_models_confidence_finds_most_of_its_mistakes() -> None:
    """At 0.97 two thirds of the wrong answers at least, and at most one right answer in twenty."""
    check = load_confidences().check(SMALL, 0.97)
    assert check.catches > 2 / 3
    assert check.false_alarms < 0.05


def test_another_version_is_a_model_that_was_never_measured() -> None:
    """A curve says nothing of other weights under the same name."""
    other = SMALL.model_copy(update={"version": "2.0.0"})
    known = load_confidences()
    assert known.check(other, 0.97) == Confidences({}).check(other, 0.97)
    assert known.check(other, 0.97) != known.check(SMALL, 0.97)


@pytest.mark.parametrize("data", ["", "{}", '{"curves": [{"model": "x"}]}'])
def test_a_file_of_something_else_is_refused(tmp_path: Path, data: str) -> None:
    """A typed error that names the file."""
    path = tmp_path / "curves.json"
    path.write_text(data)
    with pytest.raises(PermanentError, match=r"curves\.json"):
        load_confidences(path)
