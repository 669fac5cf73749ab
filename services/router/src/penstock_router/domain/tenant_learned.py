"""What the router has learned of one tenant; nothing of it comes from, or goes to, another (I8)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from penstock_router.domain.bandit import Vector
from penstock_router.domain.beliefs import Beliefs
from penstock_router.domain.experiments import Trial
from penstock_router.domain.exploration import ExplorationAccount
from penstock_router.domain.features import CONTEXT_TEXT_DIMS, unpack_context
from penstock_router.domain.novelty import Novelty
from penstock_router.domain.outcome import Estimate, Outcome
from penstock_router.domain.tallies import Tallies
from penstock_shared.contracts.feedback import GOOD_FROM
from penstock_shared.contracts.requests import FIRST_ATTEMPT, Decision
from penstock_shared.contracts.routing import Candidate, LearnedModel, PolicyRules, PolicySet

_OPEN_ESCALATIONS: Final = 1_024
"""Requests of the experiment whose earlier attempts' costs are remembered."""
_DEFAULTS: Final = PolicyRules()


@dataclass(slots=True, eq=False)
class TenantLearned:
    """Read by every decision, changed by `Learned` alone."""

    tenant: str
    seq: int = 0
    """How far the event log is folded in."""
    policy: PolicySet | None = None
    policy_seq: int = 0
    """Of the fact that set it; 0: none has."""
    foreseen: PolicySet | None = None
    """A later one, known before the fold has come to it: it rules what is decided, and nothing of
    what is learned, which must not depend on who knew it when."""
    foreseen_seq: int = 0
    trial: Trial | None = None
    """Of the policy's experiment."""
    beliefs: Beliefs = field(default_factory=Beliefs)
    tallies: Tallies = field(default_factory=Tallies)
    asked: Novelty = field(default_factory=Novelty)
    account: ExplorationAccount = field(default_factory=ExplorationAccount)
    spent_microusd: dict[str, int] = field(default_factory=dict)
    """By open request of the experiment: what its failed attempts have cost."""

    @property
    def rules(self) -> PolicyRules:
        """The rules in force outside of an experiment; the defaults where none were set."""
        return _rules(self.in_force)

    @property
    def in_force(self) -> PolicySet | None:
        """By which decisions are made."""
        return self.foreseen or self.policy

    @property
    def exploration_budget_microusd(self) -> float:
        """What the next decision may spend on exploring: for `choose`."""
        return self.account.budget_microusd

    def estimate(self, model: str, x: Vector, prior_p: float | None) -> Estimate:
        """What is expected of the model's answer to a request with the context `x`.

        An answer is right if the model does not break down, and what it says is right: what
        breaks is known of every attempt, what is right only of those that were judged.
        """
        judged = self.beliefs.estimate(model, x, prior_p)
        works = 1 - self.tallies.breakdown_rate(model)
        return Estimate(judged.p_correct * works, judged.deviation * works, judged.observations)

    def failure_rate(self, shape: str, model: str) -> float:
        """The share of this model's attempts at such tasks that gave no usable answer, decayed."""
        return self.tallies.failure_rate(shape, model)

    def attempts(self, shape: str, model: str) -> float:
        """How many attempts stand behind `failure_rate`, decayed; 0: it is a guess."""
        return self.tallies.attempts(shape, model)

    def output_tokens(self, shape: str, model: str) -> float | None:
        """Of an answer of this model to such a task, decayed mean; None: never seen."""
        return self.tallies.output_tokens(shape, model)

    def latency_ms(self, shape: str, model: str) -> float | None:
        """Of a first attempt at such a task, from `routed` to its end; None: never seen."""
        return self.tallies.latency_ms(shape, model)

    def novelty(self, x: Vector) -> float:
        """Distance of a request with the context `x` to what was asked before, 0 to 1."""
        return self.asked.distance(x[-CONTEXT_TEXT_DIMS:])

    def models(self) -> tuple[LearnedModel, ...]:
        """What an operator is shown."""
        names = sorted({*self.beliefs.by_model, *self.tallies.models()})
        return tuple(self._shown(name) for name in names)

    def set_policy(self, fact: PolicySet, seq: int) -> None:
        """Take it over if it is newer; another experiment begins with nothing counted."""
        if seq <= self.policy_seq:
            return
        before = None if self.policy is None else self.policy.experiment
        if fact.experiment != before:
            self.trial = None if fact.experiment is None else Trial(fact.experiment.id)
            self.spent_microusd.clear()
        self.policy, self.policy_seq = fact, seq
        if seq >= self.foreseen_seq:
            self.foreseen = None

    def foresee_policy(self, fact: PolicySet, seq: int) -> None:
        """Decide by it from now on, until the fold has come to it, or further."""
        if seq > max(self.policy_seq, self.foreseen_seq):
            self.foreseen, self.foreseen_seq = fact, seq

    def decided(self, decision: Decision) -> None:
        """A request was routed."""
        x = _vector(decision)
        if x is not None:
            self.asked.add(x[-CONTEXT_TEXT_DIMS:])
        if not decision.candidates:
            return
        rules = self._rules_of(decision)
        penalty = rules.error_penalty_microusd
        self.account.decided(
            loss_microusd=min(_loss(each, penalty) for each in decision.candidates),
            share=rules.exploration_share,
            spent_microusd=decision.exploration_microusd,
        )

    def attempted(self, outcome: Outcome, decision: Decision, *, checked: bool) -> None:
        """An attempt ended; `checked`: what is known of it was found by looking at the answer."""
        broken = outcome.failed and not checked and outcome.correct is not None
        self.tallies.add(
            outcome.shape,
            outcome.model,
            failed=outcome.failed,
            broken=broken,
            output_tokens=outcome.output_tokens,
            latency_ms=outcome.latency_ms if outcome.attempt == FIRST_ATTEMPT else None,
        )
        if not broken:
            self._judge(outcome, decision)

    def escalated(self, outcome: Outcome) -> None:
        """A failed attempt is not the end of its request; what it cost counts with the end."""
        if self._on_trial(outcome) is None:
            return
        before = self.spent_microusd.pop(outcome.request_id, 0)
        self.spent_microusd[outcome.request_id] = before + outcome.cost_microusd
        if len(self.spent_microusd) > _OPEN_ESCALATIONS:
            del self.spent_microusd[next(iter(self.spent_microusd))]

    def ended(self, outcome: Outcome) -> None:
        """For the experiment: a request came to its end."""
        trial = self._on_trial(outcome)
        before = self.spent_microusd.pop(outcome.request_id, 0)
        if trial is not None and outcome.arm is not None:
            trial.ended(
                outcome.arm,
                failed=outcome.failed,
                cost_microusd=before + outcome.cost_microusd,
                latency_ms=outcome.latency_ms,
            )

    def judged(self, outcome: Outcome, decision: Decision) -> None:
        """A client said how right an answer was."""
        self._judge(outcome, decision)
        trial = self._on_trial(outcome)
        if trial is not None and outcome.arm is not None and outcome.correct is not None:
            trial.judged(outcome.arm, wrong=outcome.correct < GOOD_FROM)

    def _judge(self, outcome: Outcome, decision: Decision) -> None:
        """Only of models that the decision weighed: of others no prior was logged."""
        candidate = next((c for c in decision.candidates if c.model == outcome.model), None)
        x = _vector(decision)
        if candidate is None or x is None:
            return
        correct = outcome.correct
        if correct is None and outcome.passed:
            correct = self._p_correct_if_passed(outcome, candidate)
        if outcome.correct is not None:
            self.account.judged()
        if correct is not None:
            self.beliefs.learn(outcome.model, x, candidate.prior, correct)

    def _p_correct_if_passed(self, outcome: Outcome, candidate: Candidate) -> float:
        """Bayes: P(right) / P(passes), since right answers pass.

        Together with the answers that fail, and count as wrong, this moves no belief for as long
        as as many fail as did before: that a form is easy to keep says nothing of what is in it.
        """
        passes = 1 - self.tallies.failure_rate(outcome.shape, outcome.model)
        return min(1.0, candidate.p_correct / passes) if passes > 0 else 1.0

    def _on_trial(self, outcome: Outcome) -> Trial | None:
        trial = self.trial
        return trial if trial is not None and trial.experiment == outcome.experiment else None

    def _rules_of(self, decision: Decision) -> PolicyRules:
        experiment = None if self.policy is None else self.policy.experiment
        if experiment is not None and decision.arm == "candidate":
            return experiment.candidate
        return _rules(self.policy)

    def _shown(self, model: str) -> LearnedModel:
        belief = self.beliefs.by_model.get(model)
        observed = 0.0 if belief is None else belief.observations
        return LearnedModel(
            model=model,
            observations=round(observed),
            success_rate=None if belief is None or not observed else belief.right / observed,
            output_tokens=self.tallies.output_tokens("", model),
        )


def _rules(policy: PolicySet | None) -> PolicyRules:
    return _DEFAULTS if policy is None else policy.rules


def _vector(decision: Decision) -> Vector | None:
    """The context that was decided on; None: it was logged by a release with other features."""
    try:
        return unpack_context(decision.context)
    except ValueError:
        return None


def _loss(candidate: Candidate, penalty_microusd: float) -> float:
    loss = candidate.cost_microusd + penalty_microusd * (1 - candidate.p_correct)
    return loss if math.isfinite(loss) else 0.0
