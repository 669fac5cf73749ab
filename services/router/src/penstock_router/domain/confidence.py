"""What a threshold on a model's confidence finds: measured offline, one curve for each model."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from penstock_router.domain.plan import Check
from penstock_shared.contracts.models import ModelRecord

THRESHOLDS: Final = (
    *(0.5, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99),
    *(0.993, 0.995, 0.997, 0.998, 0.999, 0.9995, 0.9999),
)
_UNMEASURED: Final = Check(catches=0.5, false_alarms=0.1)
"""Of a model that was never measured: until experience says otherwise."""


@dataclass(frozen=True, slots=True)
class ConfidenceCurve:
    """For ascending thresholds: the shares of wrong and of right answers that stay below."""

    thresholds: tuple[float, ...]
    catches: tuple[float, ...]
    false_alarms: tuple[float, ...]

    @classmethod
    def of(cls, answers: Sequence[tuple[float, bool]]) -> Self:
        """From the confidences of answers, and whether each was right.

        Each share is that of one answer more, below and above (Laplace's rule of succession).
        """
        wrong = [confidence for confidence, right in answers if not right]
        sure = [confidence for confidence, right in answers if right]

        def below(threshold: float, confidences: Sequence[float]) -> float:
            fewer = sum(confidence < threshold for confidence in confidences)
            return round((fewer + 1) / (len(confidences) + 2), 4)

        return cls(
            THRESHOLDS,
            tuple(below(threshold, wrong) for threshold in THRESHOLDS),
            tuple(below(threshold, sure) for threshold in THRESHOLDS),
        )

    def check(self, least: float) -> Check:
        """What asking for a confidence of `least` finds; between two thresholds interpolated."""
        xs = (0.0, *self.thresholds, 1.0)
        place = min(bisect_right(xs, least), len(xs) - 1)
        share = (least - xs[place - 1]) / (xs[place] - xs[place - 1])
        low, high = (
            Check(*(([0.0, *curve, 1.0])[at] for curve in (self.catches, self.false_alarms)))
            for at in (place - 1, place)
        )
        return Check(
            low.catches + share * (high.catches - low.catches),
            low.false_alarms + share * (high.false_alarms - low.false_alarms),
        )


class Confidences:
    """The curves of the models that were measured, by name and version."""

    def __init__(self, curves: Mapping[tuple[str, str], ConfidenceCurve]) -> None:
        self._curves = curves

    def check(self, model: ModelRecord, least: float) -> Check:
        """What asking this model for a confidence of `least` finds."""
        curve = self._curves.get((model.name, model.version))
        return _UNMEASURED if curve is None else curve.check(least)
