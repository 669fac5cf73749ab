"""Which model serves a request, with which probability, and who tries next if it fails its check.

A named model is obeyed. `auto` is decided by the tenant's rules: by what was learned, or by one of
three plain ways. Where nothing is known of any model, because there is no classifier for it, or
none that knows such texts, and no answer was judged, the plain rule decides. Nothing here is I/O,
and two routers that know the same decide the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from penstock_router.domain.candidates import named_model, tiers
from penstock_router.domain.choice import Option, choose, draw_of
from penstock_router.domain.experiments import arm_of
from penstock_router.domain.learned import TenantLearned
from penstock_router.domain.outcome import Arm
from penstock_router.domain.plan import Plan, plans_for
from penstock_router.domain.prospects import (
    Asked,
    Platform,
    Prospect,
    expected_costs,
    prospects_of,
)
from penstock_router.domain.rule import HARD_AT, difficulty
from penstock_shared.contracts.models import ModelRecord
from penstock_shared.contracts.requests import AUTO_MODEL, Decision
from penstock_shared.contracts.routing import Candidate, Choose, Mode, PolicyRules
from penstock_shared.contracts.subjects import Lane

NAMED: Final = "named"
LEARNED: Final = "learned-v1"
RULE: Final = "rule-v1"
_LANES: Final = {lane: number for number, lane in enumerate(Lane)}


@dataclass(frozen=True, slots=True)
class Decided:
    """The decision, and the models that carry it out."""

    decision: Decision
    models: tuple[ModelRecord, ...]
    """That try one after the other, until an answer passes its check."""
    min_confidence: float | None = None
    """Of all but the last one's answer."""


@dataclass(frozen=True, slots=True)
class _Chosen:
    """What one of the ways to choose came to."""

    policy: str
    reason: str
    plan: Plan
    candidates: tuple[Candidate, ...]
    probability: float = 1.0
    exploration_microusd: float = 0.0


def decide(asked: Asked, platform: Platform, learned: TenantLearned) -> Decided:
    """Choose a model: the named one, or one of the text models.

    Raises:
        NotFoundError: the client named a model that does not exist.
        PermanentError: the model's kind does not fit what was sent.
        UnavailableError: the model is quarantined or fails, or none is registered (yet).
    """
    if asked.model != AUTO_MODEL:
        return _as_named(asked, platform, learned)
    rules, experiment, arm = _rules_for(asked, platform, learned)
    prompt_tokens = asked.prompt_tokens()
    able = tiers(
        platform.models,
        asked.content,
        rules.models,
        lambda model: prompt_tokens < model.context_tokens,
        lambda model: _can_serve(model, asked, platform),
    )
    if rules.models and not any(model.name in rules.models for model in able):
        experiment = arm = None  # what becomes of it says nothing of rules that it did not follow
    prospects = prospects_of(asked, platform, learned, able, rules.min_confidence)
    chosen = _choose(asked, prospects, rules, learned)
    first = chosen.plan.models[0]
    return Decided(
        decision=Decision(
            policy=chosen.policy,
            model=first.name,
            probability=chosen.probability,
            reason=chosen.reason,
            features=_numbers(asked, platform, learned, first),
            context=asked.features.context(),
            shape=asked.features.shape(),
            candidates=chosen.candidates,
            experiment=experiment,
            arm=arm,
            expected_cost_microusd=chosen.plan.expected_cost_microusd,
            exploration_microusd=chosen.exploration_microusd,
            learned_seq=learned.seq,
        ),
        models=chosen.plan.models,
        min_confidence=chosen.plan.min_confidence,
    )


def _can_serve(model: ModelRecord, asked: Asked, platform: Platform) -> bool:
    """Whether the model's machinery works, and its queue has room and leaves the request time."""
    load = platform.loads.get(model.name)
    if load is not None:
        wait_s = load.wait_s(asked.lane)
        if wait_s is not None and wait_s > asked.deadline_s:
            return False
        if load.ahead_of(asked.lane) >= platform.limit_of(model):
            return False
    return platform.breakers.allows(asked.tenant, model.name, asked.request_id, asked.now)


def _as_named(asked: Asked, platform: Platform, learned: TenantLearned) -> Decided:
    model = named_model(asked.model, platform.models, asked.content)
    platform.breakers.require(asked.tenant, model.name, asked.request_id, asked.now)
    decision = Decision(
        policy=NAMED,
        model=model.name,
        probability=1.0,
        reason="the client named it",
        features=_numbers(asked, platform, learned, model),
        context=asked.features.context(),
        shape=asked.features.shape(),
        expected_cost_microusd=expected_costs(asked, learned, (model,))[0],
        learned_seq=learned.seq,
    )
    return Decided(decision, (model,))


def _rules_for(
    asked: Asked, platform: Platform, learned: TenantLearned
) -> tuple[PolicyRules, str | None, Arm | None]:
    """The rules of the request's side of the tenant's experiment, where there is one.

    While the platform does less than everything, both sides would be treated alike: none is
    compared then.
    """
    experiment = None if learned.in_force is None else learned.in_force.experiment
    if experiment is None or platform.modes.mode is not Mode.FULL:
        return platform.modes.rules(learned.rules), None, None
    arm = arm_of(experiment, asked.data_subject, key_id=asked.key_id, request_id=asked.request_id)
    rules = experiment.candidate if arm == "candidate" else learned.rules
    return rules, experiment.id, arm


def _choose(
    asked: Asked, prospects: Sequence[Prospect], rules: PolicyRules, learned: TenantLearned
) -> _Chosen:
    plans = plans_for(
        [prospect.option for prospect in prospects],
        rules,
        checked=asked.checked,
        deadline_ms=asked.deadline_s * 1000,
    )
    if rules.choose is Choose.CHEAPEST:
        return _certain(prospects, plans, 0, rules.choose.value, "the cheapest")
    if rules.choose is Choose.STRONGEST:
        return _certain(prospects, plans, len(plans) - 1, rules.choose.value, "the dearest")
    if rules.choose is Choose.RULE or not any(prospect.is_known for prospect in prospects):
        score = difficulty(asked.features)
        index, sign = (len(plans) - 1, ">=") if score >= HARD_AT else (0, "<")
        return _certain(prospects, plans, index, RULE, f"difficulty {score:.2f} {sign} {HARD_AT}")
    choice = choose(
        [_option(plan) for plan in plans],
        penalty_microusd=rules.error_penalty_microusd,
        exploration_budget_microusd=(
            learned.exploration_budget_microusd if rules.exploration_share else 0.0
        ),
        u=draw_of(asked.request_id),
    )
    plan = plans[choice.index]
    loss = plan.loss_microusd(rules.error_penalty_microusd)
    return _Chosen(
        LEARNED,
        f"expected loss {loss:.1f} against {choice.loss_microusd:.1f} microusd of the best",
        plan,
        _candidates(prospects, choice.probabilities),
        choice.probabilities[choice.index],
        choice.exploration_microusd,
    )


def _option(plan: Plan) -> Option:
    return Option(
        model=plan.models[0].name,
        p_correct=plan.p_correct,
        deviation=plan.deviation,
        cost_microusd=plan.expected_cost_microusd,
        observations=plan.observations,
    )


def _certain(
    prospects: Sequence[Prospect], plans: Sequence[Plan], index: int, policy: str, reason: str
) -> _Chosen:
    probabilities = [float(place == index) for place in range(len(plans))]
    return _Chosen(policy, reason, plans[index], _candidates(prospects, probabilities))


def _candidates(
    prospects: Sequence[Prospect], probabilities: Sequence[float]
) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(
            model=prospect.option.model.name,
            p_correct=prospect.option.estimate.p_correct,
            prior=prospect.prior,
            cost_microusd=prospect.option.cost_microusd,
            probability=probability,
        )
        for prospect, probability in zip(prospects, probabilities, strict=True)
    )


def _numbers(
    asked: Asked, platform: Platform, learned: TenantLearned, model: ModelRecord
) -> dict[str, float]:
    """What is logged of the request: numbers only."""
    features, load = asked.features, platform.loads.get(model.name)
    return {
        **features.as_numbers(),
        "novelty_score": round(learned.novelty(features.vector()), 4),
        "historical_failure_rate": round(learned.failure_rate(features.shape(), model.name), 4),
        "checked": float(asked.checked),
        "lane": _LANES[asked.lane],
        "queue_ahead": 0 if load is None else load.ahead_of(asked.lane),
    }
