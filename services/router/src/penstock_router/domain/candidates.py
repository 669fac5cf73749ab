"""Which models may serve a request at all: the named one, or those that `auto` chooses among."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from penstock_router.domain.modes import text_models
from penstock_shared.contracts.errors import NotFoundError, PermanentError, UnavailableError
from penstock_shared.contracts.models import ModelKind, ModelRecord
from penstock_shared.contracts.requests import AUTO_MODEL, Content

_QUARANTINE_RETRY_S: Final = 60.0
_TAKES: Final = {
    ModelKind.TEXT: "messages",
    ModelKind.EMBEDDING: "a string or a list of strings",
    ModelKind.TRANSLATION: "one string",
}


def kind_asked_for(requested: str, models: Collection[ModelRecord]) -> ModelKind:
    """The kind of model that a request is for: `auto` means text.

    Raises:
        NotFoundError: the client named a model that does not exist.
    """
    return ModelKind.TEXT if requested == AUTO_MODEL else _named(requested, models).kind


def named_model(requested: str, models: Collection[ModelRecord], content: Content) -> ModelRecord:
    """The model that the client named.

    Raises:
        NotFoundError: it does not exist.
        PermanentError: its kind does not fit what was sent.
        UnavailableError: it is quarantined.
    """
    model = _named(requested, models)
    _refuse_misfit(model.kind, content, f"The model {model.name!r}")
    if model.quarantined:
        msg = (
            f"The model {model.name!r} is in quarantine: its process died on several requests. "
            "Choose another one; an operator brings it back with "
            f"'penstock models promote {model.name}'."
        )
        raise UnavailableError(msg, code="model_quarantined", retry_after_s=_QUARANTINE_RETRY_S)
    return model


def tiers(
    models: Collection[ModelRecord],
    content: Content,
    wanted: Collection[str],
    *preferred: Callable[[ModelRecord], bool],
) -> list[ModelRecord]:
    """The models that `auto` may choose, cheapest first.

    Of the `wanted` ones (empty: of all); when none of those can serve, of all: a policy that names
    a removed model costs money, not answers. Then those that are `preferred`, by one test after the
    other, the most important one first: what fails it serves only when nothing passes.

    Raises:
        PermanentError: `auto` does not take what was sent.
        UnavailableError: no model is registered (yet).
    """
    _refuse_misfit(ModelKind.TEXT, content, "'auto', which chooses among text models,")
    serving = [model for model in text_models(models) if not model.quarantined]
    if not serving:
        msg = "No model is ready yet: start a worker, or see 'penstock models list'."
        raise UnavailableError(msg, code="no_model", retry_after_s=2.0)
    chosen = [model for model in serving if model.name in wanted] or serving
    for passes in preferred:
        chosen = [model for model in chosen if passes(model)] or chosen
    return chosen


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
