"""Embeddings over a whole stack: a real sentence encoder, added by the operator's command."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import time
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from tests.e2e.conftest import ENCODER as MODEL
from tests.support.minilm import DIMENSIONS, LONGEST
from tests.support.operator import operate
from tests.support.stack import Stack

pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.usefixtures("encoder")]
_GOLDEN = Path(__file__).parents[1] / "data" / "embeddings" / "golden.json"
_TOLERANCE = 1e-3


async def test_vectors_are_the_reference_implementations(client: AsyncOpenAI) -> None:
    """In the order of the texts, over HTTP as the encoder made them; tokens are counted."""
    golden = [row for row in json.loads(_GOLDEN.read_text("utf-8")) if row["text"].strip()]
    made = await client.embeddings.create(
        model=MODEL, input=[row["text"] for row in golden], dimensions=DIMENSIONS
    )
    assert [item.index for item in made.data] == list(range(len(golden)))
    for item, row in zip(made.data, golden, strict=True):
        expected = struct.unpack(f"<{DIMENSIONS}f", base64.b64decode(row["vector"]))
        assert max(abs(a - b) for a, b in zip(item.embedding, expected, strict=True)) < _TOLERANCE
    assert made.usage.total_tokens == sum(row["tokens"] for row in golden)
    assert made.model == MODEL


async def test_both_formats_are_the_same_numbers(client: AsyncOpenAI) -> None:
    """Base64 is float32, little endian; `auto` finds the only model that embeds."""
    given: dict[str, Any] = {"model": "auto", "input": "The weather is lovely today."}
    floats = await client.embeddings.create(**given, encoding_format="float")
    raw = await client.embeddings.with_raw_response.create(**given, encoding_format="base64")
    packed = base64.b64decode(json.loads(raw.content)["data"][0]["embedding"])
    whole = floats.data[0].embedding
    assert list(struct.unpack(f"<{DIMENSIONS}f", packed)) == pytest.approx(whole, abs=1e-6)
    assert sum(number * number for number in whole) == pytest.approx(1, abs=1e-4)


async def test_a_vector_is_not_judged(client: AsyncOpenAI) -> None:
    """Feedback is for answers in words: an embedding, whose id a header tells, has none."""
    raw = await client.embeddings.with_raw_response.create(model=MODEL, input="x")
    place = f"/responses/{raw.headers['x-request-id']}/feedback"
    with pytest.raises(openai.BadRequestError) as refused:
        await client.post(place, body={"score": 1}, cast_to=dict[str, object])
    assert refused.value.code == "no_answer"


async def test_the_largest_batch_in_one_request(client: AsyncOpenAI) -> None:
    """As many texts as a request may have; each vector is its own text's."""
    texts = [f"text number {n}" for n in range(256)]
    made = await client.embeddings.create(model=MODEL, input=texts)
    assert len(made.data) == len(texts)
    for n in (0, 128, 255):
        alone = await client.embeddings.create(model=MODEL, input=texts[n])
        assert alone.data[0].embedding == pytest.approx(made.data[n].embedding, abs=_TOLERANCE)


@pytest.mark.parametrize(
    ("given", "code", "param"),
    [
        ({"input": "word " * 400}, "context_length_exceeded", "input"),
        ({"dimensions": 128}, "invalid_value", "dimensions"),
        ({"model": "penstock-small"}, "wrong_model_kind", "model"),
        ({"input": ["x"] * 257}, "invalid_value", "input"),
    ],
)
async def test_what_the_encoder_cannot_take(
    client: AsyncOpenAI, given: dict[str, Any], code: str, param: str
) -> None:
    """A 400 that names the field, from the edge or from the worker's own fact."""
    with pytest.raises(openai.BadRequestError) as caught:
        await client.embeddings.create(**{"model": MODEL, "input": "x", **given})
    assert (caught.value.code, caught.value.param) == (code, param)


async def test_an_encoder_does_not_chat(client: AsyncOpenAI) -> None:
    """Neither in a chat nor as a response: 400 with `model`."""
    for refused in (
        client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Hello."}]
        ),
        client.responses.create(model=MODEL, input="Hello."),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            await refused
        assert (caught.value.code, caught.value.param) == ("wrong_model_kind", "model")


async def test_vectors_are_cut_where_the_operator_says_so(
    client: AsyncOpenAI, stack: Stack, encoder: Path
) -> None:
    """Their beginning at length 1; and with two such models `auto` asks which."""
    allowed = ("--context-tokens", str(LONGEST), "--shortest-dimensions", "64")
    await operate(stack, "models", "add", str(encoder), "--name", "elastic", *allowed)
    try:
        whole = await client.embeddings.create(model="elastic", input="Hello.")
        short = await client.embeddings.create(model="elastic", input="Hello.", dimensions=64)
        with pytest.raises(openai.BadRequestError) as caught:
            await client.embeddings.create(model="auto", input="Hello.")
    finally:
        await operate(stack, "models", "remove", "elastic")
    first = whole.data[0].embedding[:64]
    length = sum(number * number for number in first) ** 0.5
    expected = [number / length for number in first]
    assert short.data[0].embedding == pytest.approx(expected, abs=_TOLERANCE)
    assert caught.value.param == "model"
    assert f"{MODEL}, elastic" in caught.value.message


async def test_the_encoder_is_listed(client: AsyncOpenAI) -> None:
    """With its kind and its dimensions, beside the vendor's fields."""
    found = await client.models.retrieve(MODEL)
    assert found.owned_by == "operator"
    assert found.created > 1_700_000_000
    told = found.to_dict()
    assert (told["kind"], told["dimensions"]) == ("embedding", DIMENSIONS)


async def test_embeddings_are_counted_apart(client: AsyncOpenAI, stack: Stack) -> None:
    """From the worker's fact to the organization usage API: as embeddings, not as text (I3)."""
    tenant = stack.ready["tenant"]
    made = await operate(stack, "keys", "create", tenant, "--name", "usage", "--role", "admin")
    usage = client.with_options(
        admin_api_key=made["secret"], max_retries=4
    ).admin.organization.usage
    today = int(time.time()) // 86_400 * 86_400

    async def counted() -> int:
        page = await usage.embeddings(start_time=today, group_by=["model"], models=[MODEL])
        results = [result.to_dict() for bucket in page.data for result in bucket.results]
        return sum(int(str(result["num_model_requests"])) for result in results)

    before = await counted()
    for _ in range(3):
        await client.embeddings.create(model=MODEL, input="Hello.")
    async with asyncio.timeout(10):
        while await counted() < before + 3:  # metered within moments
            await asyncio.sleep(0.1)
    texts = await usage.completions(start_time=today, models=[MODEL])
    assert [bucket.results for bucket in texts.data] == [[]] * len(texts.data)
