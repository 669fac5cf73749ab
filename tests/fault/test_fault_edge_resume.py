"""Resume fuzz: a network that cuts, delays and throttles at random, and clients that come back.

`PENSTOCK_FAULT_SEED=<n>` replays prompts, cuts and the edges that are chosen.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.support.edges import Edges
from tests.support.realtime_backend import Backend, new_run, split
from tests.support.resuming_client import ResumingClient, Seen
from tests.support.tcp_proxy import Chaos, TcpProxy
from tests.support.worker_rig import seeded

from penstock_shared.contracts.jobs import Job
from penstock_shared.runtime.broker import Broker

SIDE_BY_SIDE = 4
CLIENTS = 5
WORDS = ("salt", "tide", "oak", "Übermut", "水車", "gear", "weir", "🙂", "sluice")


@pytest.fixture
def rng() -> random.Random:
    return seeded(
        int(os.environ.get("PENSTOCK_FAULT_SEED") or random.SystemRandom().getrandbits(31))
    )


@pytest.fixture
async def edges(
    broker: Broker, nats_url: str, redis_url: str, tmp_path: Path
) -> AsyncIterator[Edges]:
    async with Edges(broker, nats_url, redis_url, tmp_path) as made:
        yield made


def prompts(rng: random.Random, count: int) -> dict[str, str]:
    """Prompts by stream id; an answer is its prompt."""
    return {f"s{n}": " ".join(rng.choices(WORDS, k=rng.randint(1, 150))) for n in range(count)}


async def trickle(backend: Backend, job: Job, prompt: str) -> None:
    """Echo in bursts, for up to a second or so."""
    run, pieces = new_run(), split(prompt)
    rng = random.Random(prompt)
    for n, piece in enumerate(pieces):
        if rng.random() < 0.1:
            await asyncio.sleep(rng.uniform(0, 0.06))
        await backend.delta(job, run, n, piece)
    await backend.end(job, run, pieces)


async def ask_all(client: ResumingClient, rng: random.Random, count: int) -> list[Seen]:
    """So many responses, a few side by side at a time, on one session."""
    given = list(prompts(rng, count).items())
    seen: list[Seen] = []
    for start in range(0, count, SIDE_BY_SIDE):
        seen += await client.ask(dict(given[start : start + SIDE_BY_SIDE]))
    return seen


def assert_whole(seen: list[Seen]) -> None:
    """Every answer is the worker's, with nothing left out (I6)."""
    for one in seen:
        assert one.end is not None
        assert one.end["type"] == "response.completed", one.end
        assert one.text == one.prompt
        assert one.end["response"]["output"][0]["content"][0]["text"] == one.prompt
        assert not one.gaps


async def fuzz(edges: Edges, rng: random.Random, responses: int) -> None:
    edges.backend.generate = trickle
    chaos = Chaos(rng, bytes_until_cut=(2_000, 60_000))
    async with AsyncExitStack() as stack:
        ports = []
        for _ in range(3):
            edge = await edges.start()
            proxy = await stack.enter_async_context(TcpProxy("127.0.0.1", edge.http_port, chaos))
            ports.append(proxy.port)
        secret = edges.account.secret
        clients = [ResumingClient(lambda: rng.choice(ports), secret) for _ in range(CLIENTS)]
        seen = await asyncio.gather(
            *(
                ask_all(client, random.Random(rng.random()), responses // CLIENTS)
                for client in clients
            )
        )
    for one in seen:
        assert_whole(one)
    reconnects = sum(client.reconnects for client in clients)
    print(f"{responses} responses, {reconnects} reconnects")
    assert reconnects > responses // 5, "the network was too good: cut earlier"
    assert not any(client.expired for client in clients)


async def test_fifty_responses_over_a_bad_network(edges: Edges, rng: random.Random) -> None:
    """Whatever the network does, the text is the worker's and no number repeats (I6)."""
    await fuzz(edges, rng, 50)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_a_thousand_responses_over_a_bad_network(edges: Edges, rng: random.Random) -> None:
    """The same, twenty times as often."""
    await fuzz(edges, rng, 1_000)
