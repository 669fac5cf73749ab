"""A tenant's experiment: who is on which side, what is counted of each, and when that is enough.

Both decisions are sequential tests by betting (Ramdas, Grünwald, Vovk and Shafer, "Game-theoretic
statistics and safe anytime-valid inference", 2023): each keeps an e-process, which starts at 1 and,
while its null hypothesis holds, is expected never to grow. By Ville's inequality it ever exceeds
1/α with a probability of at most α, whenever and however often one looks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from penstock_router.domain.outcome import Arm
from penstock_shared.contracts.routing import Experiment


def arm_of(experiment: Experiment, data_subject: str) -> Arm:
    """On which side a user is: the same one for as long as the experiment's id and share last."""
    raise NotImplementedError


@dataclass(slots=True)
class ArmStats:
    """What is counted of one side; integers, so that the order in which they came is no matter."""

    requests: int = 0
    """That ended."""
    failures: int = 0
    """Of those without a usable answer, and of answers that were judged wrong later."""


@dataclass(slots=True)
class Trial:
    """The outcomes of one experiment, folded in the order of the log; bounded in size."""

    experiment: str
    """Its id: outcomes of others are none of its."""
    baseline: ArmStats = field(default_factory=ArmStats)
    candidate: ArmStats = field(default_factory=ArmStats)

    def ended(self, arm: Arm, *, failed: bool, cost_microusd: int, latency_ms: float) -> None:
        """A request came to its end, with all its attempts; one that was cancelled tells nothing.

        Args:
            arm: On which side it was.
            failed: It gave no usable answer.
            cost_microusd: Of all its attempts.
            latency_ms: From `routed` to the terminal.
        """
        raise NotImplementedError

    def judged(self, arm: Arm, *, wrong: bool) -> None:
        """A client said of an answer, which `ended` has counted, whether it was right."""
        raise NotImplementedError

    def dump(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        raise NotImplementedError

    @classmethod
    def load(cls, data: dict[str, Any]) -> Trial:
        """What `dump` gave; raises `ValueError` for anything else."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Verdict:
    """An experiment's end."""

    reason: Literal["promoted", "rolled-back"]
    evidence: dict[str, float]
    """The numbers behind it."""


def verdict(trial: Trial, experiment: Experiment) -> Verdict | None:
    """What the outcomes so far say; None: not enough, or a split that is only compared."""
    raise NotImplementedError
