"""Which model: the least expected loss, and bounded exploration with exact probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Option:
    """One model that could serve."""

    model: str
    p_correct: float
    deviation: float
    """Standard deviation of `p_correct`."""
    cost_microusd: float
    observations: float


@dataclass(frozen=True, slots=True)
class Choice:
    """Which option was drawn, and how."""

    index: int
    probabilities: tuple[float, ...]
    """Of the options, in their order; they sum to one."""
    exploration_microusd: float
    """What exploring is expected to cost here, more than the best known choice."""
    loss_microusd: float
    """What the best known choice is expected to cost: money and error penalty."""


def choose(
    options: Sequence[Option],
    *,
    penalty_microusd: float,
    exploration_budget_microusd: float,
    u: float,
) -> Choice:
    """Choose one of `options` (at least one); `u` in [0, 1) decides the draw."""
    raise NotImplementedError


def draw_of(request_id: str) -> float:
    """The `u` of a request, in [0, 1): the same in every replica."""
    raise NotImplementedError
