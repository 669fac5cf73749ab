"""What became of an attempt, and what is expected of one: the words that the learners share."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

Arm: TypeAlias = Literal["baseline", "candidate"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One attempt that ended, or an answer that was judged."""

    tenant: str
    request_id: str
    model: str
    attempt: int
    shape: str
    """Of the task: requests of one shape are alike (`Features.shape`)."""
    context: str
    """As packed in the decision."""
    correct: float | None
    """How right the answer was, 0 to 1; None: nobody knows (yet)."""
    failed: bool
    """It gave no answer that could be used."""
    cost_microusd: int
    latency_ms: float
    output_tokens: int
    at: datetime
    experiment: str | None = None
    arm: Arm | None = None
    passed: bool = False
    """It has the form that was asked for. That is no proof that it is right."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is believed of one model's answer to one request."""

    p_correct: float
    deviation: float
    """Standard deviation of `p_correct`: how little is known."""
    observations: float
    """How many judged answers stand behind it, decayed; 0: the prior alone."""
