"""What is wrong with an answer that had to pass a check."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from penstock_shared.contracts.errors import PenstockError


@dataclass(frozen=True, slots=True)
class Flaw:
    """Why an answer does not count."""

    reason: Literal["schema", "confidence"]
    detail: str
    keyword: str | None = None

    def error(self) -> PenstockError:
        """As the client sees it."""
        return PenstockError("The answer failed its check.", code="output_invalid")


def confidence(log_prob_sum: float, tokens: int) -> float | None:
    """The geometric mean of the tokens' probabilities."""
    return math.exp(log_prob_sum / tokens) if tokens else None
