"""The list of `embedding` objects of OpenAI's Embeddings API."""

from __future__ import annotations

import math
import sys
from array import array
from base64 import b64decode, b64encode
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from penstock_realtime.domain.generation_request import GenerationRequest
from penstock_realtime.errors import FailedError
from penstock_shared.contracts.errors import ConflictError
from penstock_shared.contracts.requests import Status
from penstock_shared.contracts.responses import FinalFrame

_FLOAT32: Final = "f"


class _Vectors(BaseModel):
    """An embedding model's answer."""

    model_config = ConfigDict(frozen=True)

    dimensions: int
    embeddings: tuple[str, ...]
    """Base64 of each text's vector: float32, little endian, as `encoding_format` has it."""


def embedding_list(request: GenerationRequest, final: FinalFrame) -> dict[str, Any]:
    """The vectors, in the order of the texts.

    Raises:
        FailedError: the request has not been completed.
        ConflictError: the answer is to another request, made with the same idempotency key.
    """
    if final.status is not Status.COMPLETED:
        raise FailedError(final)
    try:
        vectors = _vectors(_Vectors.model_validate_json(final.text), request.echo)
    except ValueError as error:
        msg = "The answer under this key is no embedding: use a key of its own."
        raise ConflictError(msg, code="idempotency_key_reused", param="Idempotency-Key") from error
    tokens = final.usage.input_tokens
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": vector}
            for index, vector in enumerate(vectors)
        ],
        "model": final.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _vectors(answer: _Vectors, asked: dict[str, Any]) -> list[Any]:
    dimensions = asked["dimensions"] or answer.dimensions
    as_floats = asked["encoding_format"] == "float"
    if not as_floats and dimensions >= answer.dimensions:
        return list(answer.embeddings)  # not even decoded
    decoded = [shortened(floats(vector), dimensions) for vector in answer.embeddings]
    return [vector.tolist() for vector in decoded] if as_floats else list(map(encoded, decoded))


def floats(vector: str) -> array[float]:
    """A vector out of its base64."""
    numbers = array(_FLOAT32, b64decode(vector))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def encoded(numbers: array[float]) -> str:
    """A vector as base64."""
    if sys.byteorder == "big":
        numbers.byteswap()
    return b64encode(numbers.tobytes()).decode()


def shortened(numbers: array[float], dimensions: int) -> array[float]:
    """Its first numbers, at length 1 again.

    It keeps its meaning where the model was trained so: Kusupati et al., "Matryoshka
    Representation Learning" (2022), https://arxiv.org/abs/2205.13147.
    """
    if len(numbers) <= dimensions:
        return numbers
    first = numbers[:dimensions]
    length = math.hypot(*first)
    return array(_FLOAT32, [number / length for number in first]) if length else first
