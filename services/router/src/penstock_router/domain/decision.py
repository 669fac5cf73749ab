"""Which model serves a request. A plain rule for now: cheapest unless the message looks hard."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from penstock_router.domain.features import Features
from penstock_shared.contracts.errors import NotFoundError, UnavailableError
from penstock_shared.contracts.models import Engine, ModelRecord
from penstock_shared.contracts.requests import AUTO_MODEL, Decision

POLICY: Final = "rule-v1"
NAMED: Final = "named"
HARD_AT: Final = 1.0

_WEIGHTS: Final = {"words": 0.012, "sentences": 0.08, "listed": 0.1, "revisions": 0.35}


def difficulty(features: Features) -> float:
    """A weighted count: at `HARD_AT` and above a message is taken for hard."""
    numbers = features.as_numbers()
    return sum(weight * numbers[name] for name, weight in _WEIGHTS.items())


def decide(
    requested: str, models: Collection[ModelRecord], features: Features
) -> tuple[Decision, ModelRecord]:
    """Choose a model.

    Raises:
        NotFoundError: the client named a model that does not exist.
        UnavailableError: no model is registered (yet).
    """
    by_name = {model.name: model for model in models}
    if requested != AUTO_MODEL:
        if requested not in by_name:
            known = ", ".join(sorted(by_name)) or "none yet"
            msg = f"There is no model {requested!r}. Choose 'auto' or one of: {known}."
            raise NotFoundError(msg, code="model_not_found", param="model")
        return _decision(NAMED, by_name[requested], "the client named it", features)
    tiers = sorted(
        (model for model in models if model.engine is not Engine.ECHO),
        key=lambda model: (model.price.output_microusd_per_1k, model.name),
    )
    if not tiers:
        msg = "No model is ready yet: start a worker, or see 'penstock ps'."
        raise UnavailableError(msg, code="no_model", retry_after_s=2.0)
    score = difficulty(features)
    chosen = tiers[-1] if score >= HARD_AT else tiers[0]
    reason = f"difficulty {score:.2f} {'>=' if score >= HARD_AT else '<'} {HARD_AT}"
    return _decision(POLICY, chosen, reason, features)


def _decision(
    policy: str, model: ModelRecord, reason: str, features: Features
) -> tuple[Decision, ModelRecord]:
    decision = Decision(
        policy=policy,
        model=model.name,
        probability=1.0,
        reason=reason,
        features=features.as_numbers(),
    )
    return decision, model
