"""Confidence, and what a client is told of an answer that failed its check."""

from __future__ import annotations

import math

import pytest

from penstock_worker.domain.flaw import TRUNCATED, Flaw, confidence, unsure


def test_confidence_is_the_geometric_mean() -> None:
    """Two tokens of 0.5 and 0.125 give 0.25; no token gives no figure."""
    assert confidence(math.log(0.5) + math.log(0.125), 2) == pytest.approx(0.25)
    assert confidence(0.0, 0) is None


@pytest.mark.parametrize("log_prob_sum", [-1e9, -math.inf, 1e-9, 0.0])
def test_confidence_stays_in_its_range(log_prob_sum: float) -> None:
    """Rounding brings it neither to 0 nor above 1."""
    measured = confidence(log_prob_sum, 3)
    assert measured is not None
    assert 0 < measured <= 1


def test_the_threshold_itself_passes_and_below_it_does_not() -> None:
    """`min_confidence` is the least that passes; what was not measured does not."""
    assert unsure(0.5, 0.5) is None
    assert unsure(None, None) is None
    for measured in (0.49, None):
        flaw = unsure(measured, 0.5)
        assert flaw is not None
        assert flaw.reason == "confidence"


@pytest.mark.parametrize(
    ("flaw", "code"),
    [
        (Flaw("schema", "'Ada' is too short", "minLength"), "output_invalid"),
        (Flaw("schema", "'Ada' is cut off", TRUNCATED), "output_truncated"),
        (Flaw("confidence", "'Ada' is doubtful"), "low_confidence"),
    ],
)
def test_a_final_failure_has_its_own_code_and_quotes_nothing(flaw: Flaw, code: str) -> None:
    """I10: the error lands unsealed in the log, so the detail is not in it."""
    body = flaw.error().body()
    assert body.code == code
    assert "Ada" not in body.message
