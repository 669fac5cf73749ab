"""`kill -9` of the broker under running requests, with a stack of the test's own."""

from __future__ import annotations

import asyncio
import base64
import os
from pathlib import Path

from tests.support.realtime import Edge, add_account
from tests.support.realtime_backend import PRICE, Backend, new_run, split
from tests.support.stack import Stack

from penstock_realtime.app import create_app
from penstock_realtime.settings import Settings
from penstock_shared.contracts.errors import PenstockError
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.models import ModelRecord
from penstock_shared.contracts.streams import Bucket
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.clock import SystemClock
from penstock_shared.runtime.keyring import Keyring
from penstock_shared.runtime.kv import BucketStore, put
from penstock_shared.runtime.provision import provision


async def test_the_broker_dies_under_running_streams(tmp_path: Path) -> None:
    """Deltas and subscriptions are lost with it; every accepted request still ends (I1, I6)."""
    root_key = os.urandom(32)
    key_file = tmp_path / "root.key"
    key_file.write_text(base64.b64encode(root_key).decode())
    with Stack(tmp_path / "data", services="") as stack:
        url = stack.addresses["nats_url"]
        behind = await Broker.connect(url, name="test")
        await provision(behind, 1)
        model = ModelRecord(name="echo", version="1", parameters=0, context_tokens=64, price=PRICE)
        await put(behind, Bucket.MODELS, "echo", model.model_dump_json().encode())
        account = await add_account(behind, "acme")
        app = create_app(
            Settings(
                nats_url=url,
                redis_url=stack.addresses["redis"],
                http_port=0,
                root_key_file=key_file,
            )
        )
        await app.start()
        keyring = Keyring(root_key, BucketStore(behind, Bucket.DATA_KEYS), SystemClock())
        edge = Edge(app, Backend(behind, keyring, generate=_stubborn), behind, account)
        await edge.backend.start()
        running = [asyncio.create_task(_text(edge, f"request number {n}")) for n in range(8)]
        await asyncio.sleep(0.7)
        stack.kill("nats")
        texts = await asyncio.wait_for(asyncio.gather(*running), 60)
        assert texts == [f"request number {n}" for n in range(8)]
        assert await _text(edge, "and after") == "and after"
        await app.stop()
        await behind.close()


async def _stubborn(backend: Backend, job: Job, prompt: str) -> None:
    """Speak slowly, and write the fact until it is stored, as a worker does."""
    run, pieces = new_run(), split(prompt)
    for n, piece in enumerate(pieces):
        await backend.delta(job, run, n, piece)
        await asyncio.sleep(0.3)
    while True:
        try:
            await backend.end(job, run, pieces)
        except PenstockError:
            if await backend.ended(job):
                return
            await asyncio.sleep(0.2)
        else:
            return


async def _text(edge: Edge, prompt: str) -> str:
    async with edge.client() as client:
        events = await client.responses.create(input=prompt, stream=True)
        return "".join(
            [event.delta async for event in events if event.type == "response.output_text.delta"]
        )
