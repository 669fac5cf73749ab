"""Laws of the confidence curves: shares that grow with the threshold, and what they say holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_router.domain.confidence import THRESHOLDS, ConfidenceCurve

ANSWERS = st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=200)


@given(ANSWERS, st.floats(0, 1), st.floats(0, 1))
def test_a_higher_threshold_stops_more(
    answers: list[tuple[float, bool]], one: float, other: float
) -> None:
    """Both shares are probabilities and grow with the threshold; 0 stops nothing, 1 everything."""
    curve = ConfidenceCurve.of(answers)
    low, high = curve.check(min(one, other)), curve.check(max(one, other))
    assert 0 <= low.catches <= high.catches + 1e-12
    assert 0 <= low.false_alarms <= high.false_alarms + 1e-12
    assert max(high.catches, high.false_alarms) <= 1 + 1e-12
    assert (curve.check(0).catches, curve.check(0).false_alarms) == (0, 0)
    assert curve.check(1).catches == curve.check(1).false_alarms == pytest.approx(1)


@given(ANSWERS, st.sampled_from(THRESHOLDS))
def test_the_shares_are_those_of_the_answers(
    answers: list[tuple[float, bool]], least: float
) -> None:
    """With one answer more above and one below, so that few answers promise little."""
    wrong = [confidence for confidence, right in answers if not right]
    expected = (sum(each < least for each in wrong) + 1) / (len(wrong) + 2)
    assert ConfidenceCurve.of(answers).check(least).catches == pytest.approx(expected, abs=1e-4)
