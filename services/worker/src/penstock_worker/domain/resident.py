"""A model that is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from penstock_shared.contracts.models import ModelKind, ModelLayout
from penstock_worker.domain.tuning import REGROW_AFTER_BATCHES, halved, regrown
from penstock_worker.ports import EmbeddingEngine, TextEngine

_WEIGHT_OF_THE_LATEST: Final = 0.05


@dataclass(slots=True, eq=False)
class Resident:
    """One loaded version of a model."""

    name: str
    version: str
    kind: ModelKind
    engine: TextEngine | EmbeddingEngine
    layout: ModelLayout
    memory_bytes: int
    context_budget_tokens: int | None = None
    """Of all items of a batch; see `Room`."""
    users: int = 0
    """Jobs that hold it: while there is one it stays."""
    flying: int = 0
    """Batches in the air."""
    loaded_at_s: float = 0.0
    last_used_s: float = 0.0
    mean_output_tokens: float | None = None
    tuned: ModelLayout = field(init=False)
    """What `layout` is while there is memory enough."""
    good_batches: int = field(default=0, init=False)
    """Since `layout` last changed, while it is less than `tuned`."""

    def __post_init__(self) -> None:
        self.tuned = self.layout

    def ran_out_of_memory(self, items: int) -> None:
        """A batch of `items` did not fit: smaller ones from now on."""
        self.layout = halved(self.layout, items)
        self.good_batches = 0

    def ran_well(self) -> None:
        """A batch did fit: after many of them larger ones are tried again."""
        if self.layout == self.tuned:
            return
        self.good_batches += 1
        if self.good_batches >= REGROW_AFTER_BATCHES:
            self.layout = regrown(self.layout, self.tuned)
            self.good_batches = 0

    def learn_output(self, tokens: int) -> None:
        """One more answer has ended by itself: what to expect of the next ones."""
        mean = self.mean_output_tokens
        self.mean_output_tokens = (
            float(tokens) if mean is None else mean + _WEIGHT_OF_THE_LATEST * (tokens - mean)
        )

    def expected_output(self, limit: int) -> int:
        """How many tokens an answer with this limit will have, as far as one can know."""
        mean = self.mean_output_tokens
        return limit if mean is None else min(limit, max(1, round(mean)))
