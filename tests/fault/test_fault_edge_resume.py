"""Resume fuzz: a network that cuts, delays and throttles at random, and clients that come back.

`PENSTOCK_FAULT_SEED=<n>` replays prompts, cuts and the edges that are chosen.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from contextlib import AsyncExitStack

import pytest
from tests.support.edges import Edges
from tests.support.resuming_client import ResumingClient, assert_honest
from tests.support.tcp_proxy import Chaos, TcpProxy
from tests.support.trickle import ask_all, chosen_rng, trickle

EDGES = 3
CLIENTS = 5


async def fuzz(edges: Edges, responses: int) -> None:
    rng = chosen_rng()
    edges.backend.generate = trickle
    chaos = Chaos(rng, bytes_until_cut=(2_000, 60_000))
    async with AsyncExitStack() as stack:
        ports = []
        for _ in range(EDGES):
            edge = await edges.start()
            proxy = await stack.enter_async_context(TcpProxy("127.0.0.1", edge.http_port, chaos))
            ports.append(proxy.port)
        secret = edges.account.secret
        clients = [ResumingClient(lambda: rng.choice(ports), secret) for _ in range(CLIENTS)]
        seen = await asyncio.gather(
            *(ask_all(one, random.Random(rng.random()), responses // CLIENTS) for one in clients)
        )
    for one in itertools.chain(*seen):
        assert_honest(one)
        assert not one.gaps
    reconnects = sum(client.reconnects for client in clients)
    print(f"{responses} responses, {reconnects} reconnects")
    assert reconnects > responses // 5, "the network was too good: cut earlier"
    assert not any(client.expired for client in clients)


async def test_fifty_responses_over_a_bad_network(edges: Edges) -> None:
    """Whatever the network does, the text is the worker's and no number repeats (I6)."""
    await fuzz(edges, 50)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_a_thousand_responses_over_a_bad_network(edges: Edges) -> None:
    """The same, twenty times as often."""
    await fuzz(edges, 1_000)
