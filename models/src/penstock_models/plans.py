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
class Phase:
    """Training up to step `until` with `workers` processes, one thread and one batch each."""

    until: int
    workers: int


@dataclass(frozen=True)
class Plan:
    """How one model is trained; `batch_tokens` is what each worker reads per step."""

    identity: Identity
    shape: DecoderShape
    diet: Diet
    batch_tokens: int
    learning_rate: float
    phases: tuple[Phase, ...]
    warmup_steps: int = 100
    decay_share: float = 0.3

    @property
    def steps(self) -> int:
        """All steps of all phases."""
        return self.phases[-1].until

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
    phases=(Phase(until=7000, workers=1),),
)
LARGE = Plan(
    Identity("penstock-large", VERSION, 200, 800),
    DecoderShape(VOCABULARY, hidden=320, layers=6, heads=5, feed_forward=896),
    Diet(tool_share=0.12),
    batch_tokens=4800,
    learning_rate=3e-3,
    phases=(Phase(until=1000, workers=1), Phase(until=3200, workers=2)),
)
PLANS = {plan.identity.name: plan for plan in (SMALL, LARGE)}
