"""What is wrong with an answer that had to pass a check."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

from penstock_shared.contracts.errors import PenstockError

TRUNCATED: Final = "truncated"
"""Stands for the keyword where the answer was cut off: what is missing could break any rule."""
UNCALLED: Final = "uncalled"
"""Stands for the keyword where the answer had to call a function and calls none."""


@dataclass(frozen=True, slots=True)
class Flaw:
    """Why an answer does not count."""

    reason: Literal["schema", "confidence"]
    detail: str
    """May quote the answer: to be sealed (I10)."""
    keyword: str | None = None

    def error(self) -> PenstockError:
        """As the client sees it. It lands unsealed in the log, so it quotes nothing (I10)."""
        if self.reason == "confidence":
            return PenstockError(
                "The model's confidence in its answer is below what was asked for.",
                code="low_confidence",
            )
        if self.keyword == TRUNCATED:
            return PenstockError(
                "The answer reached its token limit before it satisfied 'output_schema', or called "
                "the function that it had to: raise 'max_output_tokens'.",
                code="output_truncated",
            )
        if self.keyword == UNCALLED:
            return PenstockError(
                "The answer had to call a function, and is no arguments of any that may be called: "
                "leave 'tool_choice' out, or relax the functions' parameters.",
                code="tool_not_called",
            )
        return PenstockError(
            f"The answer does not satisfy 'output_schema' ('{self.keyword}').",
            code="output_invalid",
        )


def confidence(log_prob_sum: float, tokens: int) -> float | None:
    """The geometric mean of the generated tokens' probabilities, in (0, 1]; None without tokens.

    exp(mean log-probability), the inverse of perplexity: the length-normalised likelihood of
    Murray and Chiang, "Correcting Length Bias in Neural Machine Translation" (2018). Rounding
    can bring a log-probability above 0, or the mean below the smallest double.
    """
    if not tokens:
        return None
    return max(math.exp(min(log_prob_sum / tokens, 0.0)), math.ulp(0.0))


def unsure(measured: float | None, least: float | None) -> Flaw | None:
    """The flaw of an answer whose confidence is below `least`.

    What was not measured cannot pass a threshold above 0.
    """
    if least is None or (measured or 0.0) >= least:
        return None
    shown = "not measured" if measured is None else f"{measured:.3g}"
    return Flaw("confidence", f"The confidence is {shown}; at least {least:.3g} is asked for.")
