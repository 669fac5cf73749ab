"""What the router has learned of each tenant: a fold over EVENTS, in the order of the log."""

from __future__ import annotations

from collections.abc import Collection

from penstock_router.domain.bandit import Vector
from penstock_router.domain.experiments import Trial
from penstock_router.domain.outcome import Estimate, Outcome
from penstock_shared.contracts.feedback import ResponseFeedback
from penstock_shared.contracts.requests import AttemptFailed, Decision, RequestEnded, RequestRouted
from penstock_shared.contracts.routing import LearnedModel, PolicyRules, PolicySet


class TenantLearned:
    """Everything learned of one tenant (I8): nothing of it is shared."""

    seq: int
    """How far the event log is folded in."""
    policy: PolicySet | None
    policy_seq: int
    """Of the fact that set it; 0: none has."""
    trial: Trial | None
    """The running experiment's outcomes. A policy with an experiment of another id begins a new one,
    a policy without one ends it. `trial.ended` hears the end of every request whose decision names
    the experiment, cancelled ones left out; `trial.judged` hears its feedback."""

    @property
    def rules(self) -> PolicyRules:
        """The rules in force; the defaults where none were set."""
        raise NotImplementedError

    @property
    def exploration_budget_microusd(self) -> float:
        """What the next decision may spend on exploring: for `choose`."""
        raise NotImplementedError

    def estimate(self, model: str, x: Vector, prior_p: float | None) -> Estimate:
        """What is expected of the model's answer."""
        raise NotImplementedError

    def failure_rate(self, shape: str, model: str) -> float:
        """The share of this model's attempts at such tasks that gave no usable answer, decayed."""
        raise NotImplementedError

    def output_tokens(self, shape: str, model: str) -> float | None:
        """Of an answer of this model to such a task, decayed mean; None: never seen."""
        raise NotImplementedError

    def novelty(self, text_vector: Vector) -> float:
        """Distance to what the tenant has asked before, 0 to 1."""
        raise NotImplementedError

    def models(self) -> tuple[LearnedModel, ...]:
        """What an operator is shown."""
        raise NotImplementedError


class Learned:
    """The fold over all tenants; a fact at or before a tenant's `seq` changes nothing."""

    def of(self, tenant: str) -> TenantLearned:
        """What is known of this tenant."""
        raise NotImplementedError

    def tenants(self) -> Collection[str]:
        """Those of whom anything was folded in or loaded: what snapshots are made of."""
        raise NotImplementedError

    def fold_policy(self, fact: PolicySet, seq: int) -> None:
        """A policy was set."""
        raise NotImplementedError

    def fold_routed(self, fact: RequestRouted, seq: int) -> None:
        """A request was routed: novelty and the exploration account."""
        raise NotImplementedError

    def fold_attempt_failed(
        self, fact: AttemptFailed, decision: Decision, seq: int
    ) -> Outcome | None:
        """An answer failed its check; returns what was learned, None if it was known."""
        raise NotImplementedError

    def fold_ended(self, fact: RequestEnded, decision: Decision, seq: int) -> Outcome | None:
        """A request ended; None also where nobody ran it."""
        raise NotImplementedError

    def fold_feedback(self, fact: ResponseFeedback, decision: Decision, seq: int) -> Outcome | None:
        """A client judged an answer."""
        raise NotImplementedError

    def dump(self, tenant: str) -> bytes:
        """The tenant's state, versioned and checksummed."""
        raise NotImplementedError

    def load(self, tenant: str, data: bytes) -> None:
        """Replace the tenant's state by what was dumped; raises `CorruptSnapshotError`."""
        raise NotImplementedError


class CorruptSnapshotError(Exception):
    """A snapshot that cannot be used: rebuild from the log."""
