"""Which embeddings are asked for, which model makes them, and how they are given."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import CreateEmbeddingResponse
from tests.support.sdk_types import conforming

from penstock_realtime.domain.embedding_object import embedding_list, encoded, floats, shortened
from penstock_realtime.domain.embedding_request import for_models, parse_embedding
from penstock_realtime.domain.generation_request import GenerationRequest
from penstock_realtime.errors import FailedError
from penstock_shared.contracts.errors import (
    ConflictError,
    NotFoundError,
    PermanentError,
    TooLargeError,
)
from penstock_shared.contracts.models import EmbeddingOptions, ModelKind, ModelRecord
from penstock_shared.contracts.requests import Content, Status
from penstock_shared.contracts.responses import FinalFrame
from penstock_shared.contracts.usage import Price, Usage

REQUEST = "0198a1b2-0000-7000-8000-000000000001"
numbers = st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-4, max_value=4)


def parse(**fields: Any) -> GenerationRequest:
    return parse_embedding(json.dumps({"input": "x", **fields}).encode())


def model(
    name: str = "mini",
    kind: ModelKind = ModelKind.EMBEDDING,
    *,
    dimensions: int = 384,
    shortest: int | None = None,
    crashed_on: tuple[str, ...] = (),
) -> ModelRecord:
    return ModelRecord(
        name=name,
        version="1",
        kind=kind,
        parameters=1,
        context_tokens=256,
        embedding=EmbeddingOptions(dimensions=dimensions, shortest=shortest),
        price=Price(input_microusd_per_1k=1, output_microusd_per_1k=0),
        crashed_on=crashed_on,
    )


def answer(*vectors: list[float], **given: Any) -> FinalFrame:
    packed = [base64.b64encode(struct.pack(f"<{len(v)}f", *v)).decode() for v in vectors]
    values: dict[str, Any] = {
        "request_id": REQUEST,
        "status": Status.COMPLETED,
        "reason": "stop",
        "model": "mini",
        "attempt": 1,
        "run": None,
        "deltas": 0,
        "delta_ends": (),
        "text": json.dumps({"dimensions": len(vectors[0]), "embeddings": packed}),
        "usage": Usage(input_tokens=7, output_tokens=0),
    }
    return FinalFrame(**values | given)


def test_a_text_or_several_to_embed() -> None:
    """Their order is kept; the user is the data subject; no model sees the other parameters."""
    request = parse(input=["b", "a"], model="mini", user="u", dimensions=3)
    content = Content.model_validate_json(request.content())
    assert content.texts == ("b", "a")
    assert content.messages == ()
    assert content.request == {"dimensions": 3, "encoding_format": "float"}
    assert (request.kind, request.safety_identifier) == (ModelKind.EMBEDDING, "u")
    assert parse(input="one").texts == ("one",)
    assert len(parse(input=["x"] * 256).texts) == 256


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"input": None}, "missing_required_parameter", "input"),
        ({"input": []}, "invalid_value", "input"),
        ({"input": ["x"] * 257}, "invalid_value", "input"),
        ({"input": 7}, "invalid_type", "input"),
        ({"input": {"a": 1}}, "invalid_type", "input"),
        ({"input": ""}, "empty_input", "input"),
        ({"input": ["x", " "]}, "empty_input", "input[1]"),
        ({"input": [1, 2]}, "unsupported_parameter", "input[0]"),
        ({"input": [[1, 2]]}, "unsupported_parameter", "input[0]"),
        ({"input": ["x", 3]}, "unsupported_parameter", "input[1]"),
        ({"input": [None]}, "invalid_type", "input[0]"),
        ({"input": [True]}, "invalid_type", "input[0]"),
        ({"input": [{"text": "x"}]}, "invalid_type", "input[0]"),
        ({"model": 7}, "invalid_type", "model"),
        ({"dimensions": 0}, "invalid_value", "dimensions"),
        ({"dimensions": 1.5}, "invalid_type", "dimensions"),
        ({"dimensions": "3"}, "invalid_type", "dimensions"),
        ({"encoding_format": "hex"}, "invalid_value", "encoding_format"),
        ({"user": ""}, "invalid_value", "user"),
        ({"stream": True}, "unknown_parameter", "stream"),
    ],
)
def test_the_error_names_what_cannot_be_embedded(
    fields: dict[str, Any], code: str, param: str
) -> None:
    """An error says which field was wrong; tokens are refused by name, not misread."""
    with pytest.raises(PermanentError) as caught:
        parse(**fields)
    assert (caught.value.code, caught.value.param) == (code, param)


def test_texts_have_a_limit_of_bytes_too() -> None:
    """Together, as JSON."""
    with pytest.raises(TooLargeError):
        parse(input=["x" * 2_000] * 256)


def test_auto_is_the_one_model_that_embeds() -> None:
    """With none or several the error names `model`, and what there is to choose."""
    text = model("text", ModelKind.TEXT)
    broken = model("broken", crashed_on=("a", "b", "c"))
    assert for_models(parse(), [text, model(), broken]).model == "mini"
    with pytest.raises(NotFoundError) as none:
        for_models(parse(), [text, broken])
    with pytest.raises(PermanentError, match="a, b") as several:
        for_models(parse(), [model("b"), model("a")])
    assert {none.value.param, several.value.param} == {"model"}
    assert for_models(parse(model="text"), [text]).model == "text"  # refused by the admission


def test_dimensions_are_what_the_model_was_trained_for() -> None:
    """A model is cut only where its manifest says that it may be."""
    fixed, elastic = model(), model(shortest=64)
    assert for_models(parse(dimensions=384), [fixed]).model == "mini"
    for asked in (64, 100, 384):
        assert for_models(parse(dimensions=asked), [elastic]).model == "mini"
    for asked, record in ((383, fixed), (385, fixed), (63, elastic), (385, elastic)):
        with pytest.raises(PermanentError) as caught:
            for_models(parse(dimensions=asked), [record])
        assert caught.value.param == "dimensions"


def test_base64_is_passed_on_and_floats_are_the_same_numbers() -> None:
    """Both are what the SDK's types say, in the order of the texts."""
    final = answer([1.0, -0.5, 0.1], [0.0, 2.0, 3.0])
    as_floats = conforming(CreateEmbeddingResponse, embedding_list(parse(), final))
    raw = embedding_list(parse(encoding_format="base64"), final)
    assert [item["embedding"] for item in raw["data"]] == json.loads(final.text)["embeddings"]
    for index, item in enumerate(as_floats.data):
        assert item.index == index == raw["data"][index]["index"]
        assert item.embedding == list(floats(raw["data"][index]["embedding"]))
    assert (as_floats.usage.prompt_tokens, as_floats.usage.total_tokens) == (7, 7)
    assert as_floats.model == "mini"


@given(st.lists(numbers, min_size=1, max_size=40), st.data())
def test_a_shortened_vector_is_the_beginning_at_length_one(
    values: list[float], data: st.DataObject
) -> None:
    """Its direction is that of the first numbers; what is not cut stays to the last bit."""
    whole = floats(base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode())
    assert floats(encoded(whole)) == whole
    assert shortened(whole, len(values)) == whole
    dimensions = data.draw(st.integers(1, len(values)))
    cut = shortened(whole, dimensions)
    assert len(cut) == dimensions
    length = sum(value * value for value in values[:dimensions]) ** 0.5
    if dimensions < len(values) and length > 1e-6:
        assert sum(value * value for value in cut) == pytest.approx(1, abs=1e-5)
        assert [value * length for value in cut] == pytest.approx(values[:dimensions], abs=1e-5)


def test_shortened_vectors_come_in_both_formats() -> None:
    """Asked for fewer dimensions, both formats give the same ones."""
    final = answer([3.0, 4.0, 12.0])
    short = embedding_list(parse(dimensions=2), final)["data"][0]["embedding"]
    packed = embedding_list(parse(dimensions=2, encoding_format="base64"), final)
    assert short == pytest.approx([0.6, 0.8])
    assert list(floats(packed["data"][0]["embedding"])) == short


def test_what_is_no_embedding_is_an_error() -> None:
    """A failed or cancelled request has no vectors; a key used elsewhere has another answer."""
    for status in (Status.FAILED, Status.CANCELLED, Status.INCOMPLETE):
        with pytest.raises(FailedError):
            embedding_list(parse(), answer([1.0], status=status, reason="error"))
    others = ('{"dimensions":1,"embeddings":"x"}', '{"dimensions":1,"embeddings":["x"]}')
    for text in ("Hello", "{}", *others):
        with pytest.raises(ConflictError) as caught:
            embedding_list(parse(), answer([1.0], text=text))
        assert caught.value.param == "Idempotency-Key"
