"""What is trained and how: the two models' sizes, data, steps and prices."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_models.architecture import DecoderShape
from penstock_models.export import Identity
from penstock_models.samples import Diet
from penstock_models.vocabulary_corpus import VOCABULARY

SEED = 2026
VERSION = "1.0.0"


@dataclass(frozen=True)
class Plan:
    """How one model is trained; `batch_tokens` is what each worker reads per step."""

    identity: Identity
    shape: DecoderShape
    diet: Diet
    batch_tokens: int
    learning_rate: float
    steps: int
    workers: int
    grown_from: str | None = None  # the model whose weights this one begins with
    warmup_steps: int = 100
    decay_share: float = 0.3

    def rate(self, step: int, steps: int) -> float:
        """Learning rate: warm up, stay, fall linearly to nothing over the last `decay_share`."""
        rising = (step + 1) / self.warmup_steps
        falling = (steps - step) / max(1.0, self.decay_share * steps)
        return self.learning_rate * min(1.0, rising, falling)


SMALL = Plan(
    Identity("penstock-small", VERSION, 25, 100),
    DecoderShape(VOCABULARY, hidden=128, layers=4, heads=4, feed_forward=384),
    Diet(tool_share=0.0, last_grades=(0.3, 0.35, 0.35)),
    batch_tokens=4800,
    learning_rate=4e-3,
    steps=3000,
    workers=1,
)
LARGE = Plan(
    Identity("penstock-large", VERSION, 200, 800),
    DecoderShape(VOCABULARY, hidden=256, layers=6, heads=8, feed_forward=768),
    Diet(
        tool_share=0.1,
        last_grades=(0.05, 0.5, 0.45),
        tasks=(5, 58, 11, 4, 22),
        medium_changes=1.0,
        easy_start=0.0,
    ),
    batch_tokens=4800,
    learning_rate=2e-3,
    steps=5000,
    workers=2,
    grown_from="penstock-small",
    decay_share=0.4,
)
PLANS = {plan.identity.name: plan for plan in (SMALL, LARGE)}
