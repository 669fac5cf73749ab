"""What the streaming benchmark computes, and its WebSocket clients against a server."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from benchmarks.harness import random_llama
from benchmarks.harness.load import LoadError
from benchmarks.harness.plain_engine import Setting, Speed, loaded, measure
from benchmarks.harness.sockets import stream
from benchmarks.streaming import Subject
from websockets.asyncio.server import ServerConnection, serve

KEY = "sk-test"


def _event(kind: str, **fields: Any) -> str:
    return json.dumps({"type": kind, **fields}, separators=(",", ":"))


async def _answer(socket: ServerConnection) -> None:
    assert socket.request is not None
    assert socket.request.headers["Authorization"] == f"Bearer {KEY}"
    async for message in socket:
        body = json.loads(message)
        await socket.ping()
        await socket.send(_event("response.created"))
        if body["model"] == "broken":
            await socket.send(_event("response.failed"))
            return
        for _ in range(3):
            await socket.send(_event("response.output_text.delta", delta="a"))
        usage = {"output_tokens": body["max_output_tokens"]}
        await socket.send(_event("response.incomplete", response={"usage": usage}))


async def _stream(clients: int, bodies: list[dict[str, Any]]) -> Any:
    async with serve(_answer, "127.0.0.1", 0, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        url = f"ws://127.0.0.1:{port}/v1/responses"
        with ThreadPoolExecutor(1) as pool:  # the clients have a loop of their own
            return await asyncio.get_running_loop().run_in_executor(
                pool, stream, url, KEY, clients, bodies
            )


async def test_every_request_is_sent_once_and_its_usage_counted() -> None:
    """Pings, and events that are neither delta nor end, count for nothing."""
    bodies = [{"model": "m", "max_output_tokens": n} for n in range(1, 8)]
    seen = await _stream(3, bodies)
    assert (seen.tokens, seen.deltas, len(seen.first_token_s)) == (28, 21, 7)
    assert all(0 < value <= seen.duration_s for value in seen.first_token_s)


async def test_a_failed_response_ends_the_measurement() -> None:
    """A figure of answers that failed would be none."""
    with pytest.raises(LoadError, match=r"response\.failed"):
        await _stream(1, [{"model": "broken"}])


def test_the_share_compares_medians_with_the_best_setting() -> None:
    """A setting that was fast once is not the best; added time is taken prompt by prompt."""
    steady, lucky = Setting(2, 1, 8), Setting(2, 1, 32)
    subject = Subject(
        Path("model"),
        plain={
            steady: [Speed(n, 1.0) for n in (900.0, 1000.0, 1100.0)],
            lucky: [Speed(n, 1.0) for n in (100.0, 200.0, 9000.0)],
        },
        delivered=[700.0, 800.0, 10.0],
        plain_first_ms=[10.0, 20.0],
        idle_first_ms=[13.0, 22.0],
    )
    assert subject.best == steady
    assert subject.share == pytest.approx(0.7)
    assert subject.added_ms == [3.0, 2.0]


def test_the_random_model_is_a_llama_of_its_size_that_does_not_end() -> None:
    """CTranslate2 loads it, every prompt gets as many tokens as allowed, and it says its size."""
    directory = random_llama.directory()
    manifest = json.loads((directory / "penstock.json").read_text())
    assert 29e6 < manifest["parameters"] < 31e6
    with loaded(directory, 1, 1) as generator:
        prompts = Subject(directory).prompts(4)
        found = generator.generate_batch(prompts, max_length=6, include_prompt_in_result=False)
    assert [len(one.sequences_ids[0]) for one in found] == [6] * 4
    assert measure(directory, prompts, Setting(1, 1, 4), 6).tokens_per_s > 0
