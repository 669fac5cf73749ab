"""A model that is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from penstock_shared.contracts.models import ModelKind, ModelLayout
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
