"""Which model serves a request, with which probability, and who tries next if it fails its check.

A named model is obeyed. `auto` is decided by the tenant's rules: by what was learned, or by one of
three plain ways. Where nothing is known of any model, because there is no classifier for it, or
none that knows such texts, and no answer was judged, the plain rule decides. Nothing here is I/O,
and two routers that know the same decide the same.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from penstock_router.domain.breakers import Breakers
from penstock_router.domain.candidates import named_model, tiers
from penstock_router.domain.choice import Option, choose, draw_of
from penstock_router.domain.classifier import Classifier
from penstock_router.domain.confidence import Confidences
from penstock_router.domain.experiments import arm_of
from penstock_router.domain.features import Features
from penstock_router.domain.learned import TenantLearned
from penstock_router.domain.modes import Modes
from penstock_router.domain.outcome import Arm
from penstock_router.domain.plan import NO_CHECK, Plan, PlanOption, plans_for, schema_check
from penstock_router.domain.queue_load import QueueLoad
from penstock_router.domain.rule import HARD_AT, difficulty, presumed_p_correct
from penstock_shared.contracts.models import ModelRecord
from penstock_shared.contracts.requests import AUTO_MODEL, Content, Decision
from penstock_shared.contracts.routing import Candidate, Choose, Mode, PolicyRules
from penstock_shared.contracts.subjects import Lane

NAMED: Final = "named"
LEARNED: Final = "learned-v1"
RULE: Final = "rule-v1"
_LANES: Final = {lane: number for number, lane in enumerate(Lane)}
_OUTPUT_TOKENS: Final = 64
"""Of an answer, before any was seen."""
_CHARS_PER_TOKEN: Final = 4
"""Of what the features do not read: instructions, and earlier answers."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, as far as the decision looks at it."""

    tenant: str
    request_id: str
    data_subject: str
    key_id: str
    model: str
    content: Content
    features: Features
    lane: Lane
    max_output_tokens: int | None
    deadline_s: float
    now: datetime

    @property
    def checked(self) -> bool:
        """Whether the client asked for an output of a given form."""
        return self.content.output_schema is not None or self.content.must_call

    def prompt_tokens(self) -> float:
        """Of the whole conversation, estimated without any model's own tokenizer."""
        others = (turn.content for turn in self.content.messages if turn.role != "user")
        return self.features.token_count + sum(map(len, others)) / _CHARS_PER_TOKEN


@dataclass(frozen=True, slots=True)
class Platform:
    """What decisions for all tenants share."""

    models: Collection[ModelRecord]
    classifier: Classifier
    confidences: Confidences
    breakers: Breakers
    modes: Modes
    loads: Mapping[str, QueueLoad]
    """Of the models' queues; one that was never read has none."""
    queue_limit: float = math.inf
    """Jobs that may wait for a model whose record sets no limit of its own."""

    def limit_of(self, model: ModelRecord) -> float:
        """How many jobs may wait for the model."""
        return model.limits.queue or self.queue_limit


@dataclass(frozen=True, slots=True)
class Decided:
    """The decision, and the models that carry it out."""

    decision: Decision
    models: tuple[ModelRecord, ...]
    """That try one after the other, until an answer passes its check."""
    min_confidence: float | None = None
    """Of all but the last one's answer."""


@dataclass(frozen=True, slots=True)
class _Prospect:
    """What is expected of one model."""

    option: PlanOption
    prior: float
    """P(correct) before anything was learned of the tenant: what learning is relative to."""
    is_known: bool
    """By the classifier, or from experience: else the estimate is a guess."""


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
    prospects = _prospects(asked, platform, learned, able, rules.min_confidence)
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
        expected_cost_microusd=_expected_costs(asked, learned, (model,))[0],
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


def _prospects(
    asked: Asked,
    platform: Platform,
    learned: TenantLearned,
    able: Sequence[ModelRecord],
    min_confidence: float | None,
) -> list[_Prospect]:
    """What is expected of each model: by the classifier, or else by the rule, and by experience."""
    x = asked.features.vector()
    shape = asked.features.shape()
    prospects = []
    costs = _expected_costs(asked, learned, able)
    for rank, (model, cost_microusd) in enumerate(zip(able, costs, strict=True)):
        prior_p = classified_p = platform.classifier.p_correct(asked.features, model)
        if prior_p is None:
            prior_p = presumed_p_correct(asked.features, rank, len(able))
        estimate = learned.estimate(model.name, x, prior_p)
        check = NO_CHECK
        if asked.checked:
            check = schema_check(
                failure_rate=learned.failure_rate(shape, model.name),
                observations=learned.attempts(shape, model.name),
                p_correct=estimate.p_correct,
            )
        if min_confidence is not None:
            check = check.and_also(platform.confidences.check(model, min_confidence))
        # Without a check nothing follows, however long it takes.
        latency_ms = None if check is NO_CHECK else learned.latency_ms(shape, model.name)
        option = PlanOption(model, estimate, cost_microusd, check, latency_ms)
        is_known = classified_p is not None or estimate.observations > 0
        prospects.append(_Prospect(option, prior_p, is_known))
    return prospects


def _choose(
    asked: Asked, prospects: Sequence[_Prospect], rules: PolicyRules, learned: TenantLearned
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
    prospects: Sequence[_Prospect], plans: Sequence[Plan], index: int, policy: str, reason: str
) -> _Chosen:
    probabilities = [float(place == index) for place in range(len(plans))]
    return _Chosen(policy, reason, plans[index], _candidates(prospects, probabilities))


def _candidates(
    prospects: Sequence[_Prospect], probabilities: Sequence[float]
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


def _expected_costs(
    asked: Asked, learned: TenantLearned, models: Sequence[ModelRecord]
) -> list[float]:
    """Micro-dollars, of one answer of each model: the input as read here, the output as so far.

    A model that has answered no such task yet is taken to be as long as those that have: else what
    is not known would look dear, and would never be tried.
    """
    told = [learned.output_tokens(asked.features.shape(), model.name) for model in models]
    known = [tokens for tokens in told if tokens is not None]
    typical = sum(known) / len(known) if known else _OUTPUT_TOKENS
    prompt_tokens = asked.prompt_tokens()
    return [
        _cost_microusd(asked, model, prompt_tokens, typical if tokens is None else tokens)
        for model, tokens in zip(models, told, strict=True)
    ]


def _cost_microusd(
    asked: Asked, model: ModelRecord, prompt_tokens: float, output_tokens: float
) -> float:
    most = asked.max_output_tokens or model.context_tokens
    return (
        prompt_tokens * model.price.input_microusd_per_1k
        + min(output_tokens, most) * model.price.output_microusd_per_1k
    ) / 1000


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
