"""Embeddings and models: the official SDK, unchanged, against the edge."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from typing import Any, Literal

import openai
import pytest
from openai.types import CreateEmbeddingResponse, Model
from tests.support.encoder import embed, register_encoder
from tests.support.realtime import Edge
from tests.support.realtime_backend import PRICE
from tests.support.sdk_types import conforming

from penstock_shared.contracts.models import ModelRecord
from penstock_shared.contracts.streams import Bucket
from penstock_shared.runtime.kv import put


async def test_embeddings_in_both_formats(edge: Edge) -> None:
    """The same numbers, in the order of the texts; the SDK's own default is base64."""
    await register_encoder(edge, "mini")
    edge.backend.generate = embed
    async with edge.client() as client:
        formats: tuple[Literal["float", "base64"], ...] = ("float", "base64")
        bodies = {
            how: await client.embeddings.with_raw_response.create(
                model="mini", input=["b", "aa"], encoding_format=how
            )
            for how in formats
        }
        default = await client.embeddings.create(model="auto", input="b")
    made = conforming(CreateEmbeddingResponse, json.loads(bodies["float"].content))
    assert [item.embedding for item in made.data] == [[1, 98, 1], [2, 97, 1]]
    packed = [
        base64.b64decode(i["embedding"]) for i in json.loads(bodies["base64"].content)["data"]
    ]
    assert [list(struct.unpack("<3f", vector)) for vector in packed] == [[1, 98, 1], [2, 97, 1]]
    assert default.data[0].embedding == [1, 98, 1]
    assert (default.model, default.usage.total_tokens) == ("mini", 3)


async def test_shorter_vectors_where_the_model_allows_it(edge: Edge) -> None:
    """`dimensions` cuts and normalises; a model that was not trained for it says so."""
    await register_encoder(edge, "elastic", shortest=2)
    edge.backend.generate = embed
    async with edge.client() as client:
        made = await client.embeddings.create(model="elastic", input="x", dimensions=2)
        with pytest.raises(openai.BadRequestError) as caught:
            await client.embeddings.create(model="elastic", input="x", dimensions=1)
    assert made.data[0].embedding == pytest.approx([1 / 14401**0.5, 120 / 14401**0.5])
    assert (caught.value.code, caught.value.param) == ("invalid_value", "dimensions")


@pytest.mark.parametrize(
    ("given", "raised", "code", "param"),
    [
        ({"input": [1, 2]}, openai.BadRequestError, "unsupported_parameter", "input[0]"),
        ({"input": ["x"] * 257}, openai.BadRequestError, "invalid_value", "input"),
        ({"model": "echo"}, openai.BadRequestError, "wrong_model_kind", "model"),
        ({"model": "a/b"}, openai.NotFoundError, "model_not_found", "model"),
    ],
)
async def test_what_cannot_be_embedded_is_a_typed_error(
    edge: Edge, given: Any, raised: type[openai.APIStatusError], code: str, param: str
) -> None:
    """The SDK's exception carries code and parameter; nothing has been run."""
    await register_encoder(edge, "mini")
    async with edge.client() as client:
        with pytest.raises(raised) as caught:
            await client.embeddings.create(**{"model": "mini", "input": "x", **given})
    assert (caught.value.code, caught.value.param) == (code, param)
    assert edge.backend.jobs == []


async def test_a_key_used_for_another_api_is_a_conflict(edge: Edge) -> None:
    """The request that the key names has an answer, which is no embedding: 409, never a 500."""
    await register_encoder(edge, "mini")
    key = {"Idempotency-Key": "mixed"}
    async with edge.client() as client:
        await client.chat.completions.create(
            model="echo", messages=[{"role": "user", "content": "Hello"}], extra_headers=key
        )
        with pytest.raises(openai.ConflictError) as caught:
            await client.embeddings.create(model="mini", input="x", extra_headers=key)
    assert caught.value.code == "idempotency_key_reused"


async def test_models_say_what_they_are_for(edge: Edge) -> None:
    """The vendor's fields are of the SDK's types; a name with odd characters is a 404."""
    await register_encoder(edge, "mini")
    async with edge.client() as client:
        listed = {model.id: model async for model in client.models.list()}
        assert {"auto", "echo", "mini"} <= listed.keys()
        for model in listed.values():
            Model.model_validate(model.to_dict(), strict=True)
        assert listed["mini"].to_dict()["kind"] == "embedding"
        assert listed["mini"].to_dict()["dimensions"] == 3
        for name in ("nobody", "ft:org/model:7", "../keys", "a b\n", "ü", "a%2Fb", "x" * 3000):
            with pytest.raises(openai.NotFoundError) as caught:
                await client.models.retrieve(name)
            assert caught.value.code in {"model_not_found", "not_found"}


async def test_a_model_in_quarantine_is_not_offered(edge: Edge) -> None:
    """It is left out of the list, and says why when it is asked for by name."""
    await register_encoder(edge, "mini")
    record = ModelRecord(
        name="broken",
        version="1",
        parameters=1,
        context_tokens=1,
        price=PRICE,
        crashed_on=("a", "b", "c"),
    )
    await put(edge.broker, Bucket.MODELS, "broken", record.model_dump_json().encode())
    async with edge.client() as client, asyncio.timeout(10):
        while True:
            try:
                found = await client.models.retrieve("broken")
                break
            except openai.NotFoundError:
                await asyncio.sleep(0.01)
        listed = {model.id async for model in client.models.list()}
    assert found.to_dict()["status"] == "quarantined"
    assert "broken" not in listed
