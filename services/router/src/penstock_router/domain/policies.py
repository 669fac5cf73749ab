"""From one of a tenant's policies to the next: by an operator, or by an experiment's end."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from penstock_router.domain.arm_stats import ArmStats
from penstock_router.domain.experiments import Trial, Verdict
from penstock_router.domain.outcome import Arm
from penstock_shared.contracts.errors import ConflictError
from penstock_shared.contracts.routing import (
    ArmState,
    Experiment,
    PolicyRules,
    PolicySet,
    SetPolicy,
)

_IDS_KEPT: Final = 256


def set_by_operator(
    command: SetPolicy, current: PolicySet | None, now: datetime
) -> PolicySet | None:
    """The policy that follows; None: it is in force already, as after a repeated command.

    Raises:
        ConflictError: the experiment's id was used before.
    """
    experiment = command.experiment
    if command.rules == rules_of(current) and experiment == experiment_of(current):
        return None
    if experiment is not None and experiment.id in _used(current):
        msg = (
            f"The experiment {experiment.id!r} has begun already, and neither it nor the rules it "
            "is compared with can change: give the new one another id, or end the one that runs "
            "with 'penstock router policy rollback'."
        )
        raise ConflictError(msg, code="experiment_exists", param="experiment.id")
    return _next(command.tenant, current, now, rules=command.rules, experiment=experiment)


def rolled_back(tenant: str, current: PolicySet | None, now: datetime) -> PolicySet:
    """The running experiment's end without promotion; without one, the rules of before.

    Raises:
        ConflictError: there is nothing to go back to.
    """
    if current is not None and current.experiment is not None:
        return _next(tenant, current, now, rules=current.rules)
    if current is None or current.previous is None:
        msg = f"The tenant {tenant!r} has no earlier rules: set the ones you want."
        raise ConflictError(msg, code="nothing_to_roll_back", param="tenant")
    return _next(tenant, current, now, rules=current.previous)


def concluded(
    current: PolicySet, experiment: Experiment, verdict: Verdict, now: datetime
) -> PolicySet:
    """What follows when the test has decided."""
    promoted = verdict.reason == "promoted"
    rules = experiment.candidate if promoted else current.rules
    following = _next(current.tenant, current, now, rules=rules)
    return following.model_copy(update={"reason": verdict.reason, "evidence": verdict.evidence})


def rules_of(policy: PolicySet | None) -> PolicyRules:
    """The rules in force."""
    return PolicyRules() if policy is None else policy.rules


def experiment_of(policy: PolicySet | None) -> Experiment | None:
    """The one that runs."""
    return None if policy is None else policy.experiment


def arm_states(experiment: Experiment | None, trial: Trial | None) -> tuple[ArmState, ...]:
    """How both sides stand; a trial of another experiment is not yet, or no more, this one's."""
    if experiment is None:
        return ()
    if trial is None or trial.experiment != experiment.id:
        trial = Trial(experiment.id)
    return (_arm("baseline", trial.baseline), _arm("candidate", trial.candidate))


def _arm(arm: Arm, stats: ArmStats) -> ArmState:
    return ArmState(
        arm=arm,
        requests=stats.requests,
        failures=stats.failures,
        mean_latency_ms=stats.mean_latency_ms,
        mean_cost_microusd=stats.mean_cost_microusd,
    )


def _next(
    tenant: str,
    current: PolicySet | None,
    now: datetime,
    *,
    rules: PolicyRules,
    experiment: Experiment | None = None,
) -> PolicySet:
    before = rules_of(current)
    kept = None if current is None else current.previous
    return PolicySet(
        tenant=tenant,
        rules=rules,
        experiment=experiment,
        reason="operator",
        previous=kept if rules == before else before,
        past_experiments=_used(current)[-_IDS_KEPT:],
        set_at=now,
    )


def _used(current: PolicySet | None) -> tuple[str, ...]:
    """Ids of experiments that have begun, oldest first."""
    if current is None:
        return ()
    running = () if current.experiment is None else (current.experiment.id,)
    return (*current.past_experiments, *running)
