"""An embedding model as the edge sees one, and a worker that makes its vectors."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from typing import Any

import httpx
from tests.support.realtime import Edge
from tests.support.realtime_backend import PRICE, Backend, new_run

from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.models import EmbeddingOptions, ModelKind, ModelRecord
from penstock_shared.contracts.streams import Bucket
from penstock_shared.runtime.kv import put


async def register_encoder(edge: Edge, name: str, **given: Any) -> None:
    """Announce an embedding model, and wait until the edge knows it."""
    record = ModelRecord(
        name=name,
        version="1",
        kind=ModelKind.EMBEDDING,
        parameters=1,
        context_tokens=256,
        embedding=EmbeddingOptions(dimensions=3, **given),
        price=PRICE,
    )
    await put(edge.broker, Bucket.MODELS, name, record.model_dump_json().encode())
    async with edge.http() as http, asyncio.timeout(10):
        while (await http.get(f"models/{name}")).status_code != httpx.codes.OK:
            await asyncio.sleep(0.01)


async def embed(backend: Backend, job: Job, prompt: str) -> None:
    """A vector of three numbers for each text: its length, its first character, and 1."""
    vectors = [struct.pack("<3f", len(t), ord(t[0]), 1) for t in prompt.split("\n")]
    packed = [base64.b64encode(vector).decode() for vector in vectors]
    text = json.dumps({"dimensions": 3, "embeddings": packed})
    await backend.end(job, new_run(), [text])
