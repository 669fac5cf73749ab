"""What is expected of each model for one request: P(correct), cost, and what a check finds."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from penstock_router.domain.breakers import Breakers
from penstock_router.domain.classifier import Classifier
from penstock_router.domain.confidence import Confidences
from penstock_router.domain.features import Features
from penstock_router.domain.learned import TenantLearned
from penstock_router.domain.modes import Modes
from penstock_router.domain.plan import NO_CHECK, PlanOption, schema_check
from penstock_router.domain.queue_load import QueueLoad
from penstock_router.domain.rule import presumed_p_correct
from penstock_shared.contracts.models import ModelRecord
from penstock_shared.contracts.requests import Content
from penstock_shared.contracts.subjects import Lane

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
class Prospect:
    """What is expected of one model."""

    option: PlanOption
    prior: float
    """P(correct) before anything was learned of the tenant: what learning is relative to."""
    is_known: bool
    """By the classifier, or from experience: else the estimate is a guess."""


def prospects_of(
    asked: Asked,
    platform: Platform,
    learned: TenantLearned,
    able: Sequence[ModelRecord],
    min_confidence: float | None,
) -> list[Prospect]:
    """What is expected of each model: by the classifier, or else by the rule, and by experience."""
    x = asked.features.vector()
    shape = asked.features.shape()
    prospects = []
    costs = expected_costs(asked, learned, able)
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
        prospects.append(Prospect(option, prior_p, is_known))
    return prospects


def expected_costs(
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
