"""Which model serves a request. A plain rule for now: cheapest unless the message looks hard."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from penstock_router.domain.features import Features
from penstock_shared.contracts.errors import NotFoundError, PermanentError, UnavailableError
from penstock_shared.contracts.models import Engine, ModelKind, ModelRecord
from penstock_shared.contracts.requests import AUTO_MODEL, Content, Decision

POLICY: Final = "rule-v1"
NAMED: Final = "named"
HARD_AT: Final = 1.0

_WEIGHTS: Final = {"words": 0.012, "sentences": 0.08, "listed": 0.1, "revisions": 0.35}
_QUARANTINE_RETRY_S: Final = 60.0
_TAKES: Final = {
    ModelKind.TEXT: "messages",
    ModelKind.EMBEDDING: "a string or a list of strings",
    ModelKind.TRANSLATION: "one string",
}


def difficulty(features: Features) -> float:
    """A weighted count: at `HARD_AT` and above a message is taken for hard."""
    numbers = features.as_numbers()
    return sum(weight * numbers[name] for name, weight in _WEIGHTS.items())


def kind_asked_for(requested: str, models: Collection[ModelRecord]) -> ModelKind:
    """The kind of model that a request is for: `auto` means text.

    Raises:
        NotFoundError: the client named a model that does not exist.
    """
    return ModelKind.TEXT if requested == AUTO_MODEL else _named(requested, models).kind


def decide(
    requested: str, models: Collection[ModelRecord], content: Content, features: Features
) -> tuple[Decision, ModelRecord]:
    """Choose a model: the named one, or one of the text models.

    Raises:
        NotFoundError: the client named a model that does not exist.
        PermanentError: the model's kind does not fit what was sent.
        UnavailableError: the model is quarantined, or none is registered (yet).
    """
    if requested != AUTO_MODEL:
        model = _named(requested, models)
        _refuse_misfit(model.kind, content, f"The model {model.name!r}")
        _refuse_quarantined(model)
        return _decision(NAMED, model, "the client named it", features)
    _refuse_misfit(ModelKind.TEXT, content, "'auto', which chooses among text models,")
    tiers = _tiers(models)
    score = difficulty(features)
    chosen = tiers[-1] if score >= HARD_AT else tiers[0]
    reason = f"difficulty {score:.2f} {'>=' if score >= HARD_AT else '<'} {HARD_AT}"
    return _decision(POLICY, chosen, reason, features)


def _tiers(models: Collection[ModelRecord]) -> list[ModelRecord]:
    """The models that `auto` may choose, cheapest first."""
    tiers = sorted(
        (
            model
            for model in models
            if model.kind is ModelKind.TEXT
            and model.engine is not Engine.ECHO
            and not model.quarantined
        ),
        key=lambda model: (model.price.output_microusd_per_1k, model.name),
    )
    if not tiers:
        msg = "No model is ready yet: start a worker, or see 'penstock models list'."
        raise UnavailableError(msg, code="no_model", retry_after_s=2.0)
    return tiers


def _named(requested: str, models: Collection[ModelRecord]) -> ModelRecord:
    by_name = {model.name: model for model in models}
    if requested not in by_name:
        known = ", ".join(sorted(by_name)) or "none yet"
        msg = f"There is no model {requested!r}. Choose 'auto' or one of: {known}."
        raise NotFoundError(msg, code="model_not_found", param="model")
    return by_name[requested]


def _refuse_misfit(kind: ModelKind, content: Content, who: str) -> None:
    fits = {
        ModelKind.TEXT: bool(content.messages),
        ModelKind.EMBEDDING: bool(content.texts),
        ModelKind.TRANSLATION: len(content.texts) == 1,
    }
    if not fits[kind]:
        msg = f"{who} takes {_TAKES[kind]}: send that, or name another model."
        raise PermanentError(msg, code="input_not_for_model", param="input")
    if content.output_schema is not None and kind is not ModelKind.TEXT:
        msg = f"{who} generates no text that could follow a schema: leave 'output_schema' out."
        raise PermanentError(msg, code="input_not_for_model", param="output_schema")


def _refuse_quarantined(model: ModelRecord) -> None:
    if not model.quarantined:
        return
    msg = (
        f"The model {model.name!r} is in quarantine: its process died on several requests. Choose "
        f"another one; an operator brings it back with 'penstock models promote {model.name}'."
    )
    raise UnavailableError(msg, code="model_quarantined", retry_after_s=_QUARANTINE_RETRY_S)


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
