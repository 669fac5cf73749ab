"""The body of `POST /v1/embeddings`, as the SDK 3.54 has it, parsed and judged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from penstock_realtime.domain.generation_request import GenerationRequest
from penstock_realtime.domain.parameters import (
    Name,
    Parameters,
    invalid,
    missing,
    parse_object,
    unsupported,
    wrong_type,
    wrong_value,
)
from penstock_shared.contracts.errors import NotFoundError, PermanentError
from penstock_shared.contracts.ids import DataSubject
from penstock_shared.contracts.models import EmbeddingOptions, ModelKind, ModelRecord
from penstock_shared.contracts.requests import AUTO_MODEL, MAX_TEXTS


class EmbeddingBody(BaseModel):
    """The scalar parameters; null means "not given"."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: Name | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None
    encoding_format: Literal["float", "base64"] | None = None
    user: DataSubject | None = None


EMBEDDING_PARAMETERS: Final = Parameters(
    served={"input", *EmbeddingBody.model_fields}, asks_for_nothing={}
)


def parse_embedding(raw: bytes) -> GenerationRequest:
    """Parse a body; `echo` holds its `dimensions` and `encoding_format`.

    Raises:
        PermanentError: it is no JSON object, or a parameter is unknown, unsupported or wrong.
        TooLargeError: the texts are over the limit.
    """
    scalars = EMBEDDING_PARAMETERS.served_of(parse_object(raw))
    texts = _texts(scalars.pop("input", None))
    try:
        body = EmbeddingBody.model_validate(scalars)
    except ValidationError as error:
        raise invalid(error) from error
    request = GenerationRequest(
        model=body.model or AUTO_MODEL,
        kind=ModelKind.EMBEDDING,
        texts=texts,
        safety_identifier=body.user,
        echo={"dimensions": body.dimensions, "encoding_format": body.encoding_format or "float"},
    )
    request.content()  # one that is too large is refused before anything is counted
    return request


def for_models(request: GenerationRequest, models: Iterable[ModelRecord]) -> GenerationRequest:
    """The request with its model: `auto` is the one that embeds, where there is just one.

    A name that is nobody's, or that of a model of another kind, is for the admission to refuse.

    Raises:
        NotFoundError: no model embeds.
        PermanentError: several do, or the model's vectors cannot have so many dimensions.
    """
    embedding = {
        model.name: model
        for model in models
        if model.kind is ModelKind.EMBEDDING and not model.quarantined
    }
    if request.model == AUTO_MODEL:
        request = replace(request, model=_only(sorted(embedding)))
    record = embedding.get(request.model)
    if record is not None and record.embedding is not None:
        _refuse_dimensions(request.echo["dimensions"], record.embedding)
    return request


def _only(names: list[str]) -> str:
    if not names:
        msg = "No model here makes embeddings: an operator registers one."
        raise NotFoundError(msg, code="model_not_found", param="model")
    if len(names) > 1:
        msg = f"Several models make embeddings: name one of {', '.join(names)}."
        raise PermanentError(msg, code="missing_required_parameter", param="model")
    return names[0]


def _refuse_dimensions(asked: int | None, options: EmbeddingOptions) -> None:
    native = options.dimensions
    least = options.shortest or native
    if asked is not None and not least <= asked <= native:
        expected = (
            f"{native}, as this model has them" if least == native else f"{least} to {native}"
        )
        raise wrong_value("dimensions", expected)


def _texts(value: Any) -> tuple[str, ...]:
    if value is None:
        raise missing("input")
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list):
        raise wrong_type("input", "a string or a list of strings")
    if not 0 < len(texts) <= MAX_TEXTS:
        raise wrong_value("input", f"1 to {MAX_TEXTS} texts, and more in further requests")
    if isinstance(value, str):
        return (_text(value, "input"),)
    return tuple(_text(text, f"input[{index}]") for index, text in enumerate(texts))


def _text(value: Any, where: str) -> str:
    if isinstance(value, int | list) and not isinstance(value, bool):
        raise unsupported(where, value, "tokens are each model's own, so send text")
    if not isinstance(value, str):
        raise wrong_type(where, "a string")
    if not value.strip():
        raise PermanentError(
            f"'{where}' is empty: send at least a word.", code="empty_input", param=where
        )
    return value
