"""What a slow reader gets under each policy: everything, or all but what its gaps name (I6)."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.support.edges import Edges
from tests.support.realtime_backend import Backend, new_run
from tests.support.websocket_wire import HANDSHAKE, TEXT, Wire

from penstock_shared.contracts.jobs import Job
from penstock_shared.runtime.broker import Broker

FIRST_DELTA = 4
WHILE_ASLEEP, AWAKE = 130, 10
TEXT_BYTES = 4096
BUFFER_BYTES = 32 * 1024
PIECES = [f"{n:06d}".ljust(TEXT_BYTES, ".") for n in range(WHILE_ASLEEP + AWAKE)]
LAST_ASLEEP = WHILE_ASLEEP - 1


@dataclass
class Turns:
    """A worker that says most while the reader sleeps, and the rest when it is awake again."""

    asleep: asyncio.Event = field(default_factory=asyncio.Event)
    awake: asyncio.Event = field(default_factory=asyncio.Event)

    async def generate(self, backend: Backend, job: Job, _: str) -> None:
        run = new_run()
        for n, piece in enumerate(PIECES):
            if n == WHILE_ASLEEP:
                self.asleep.set()
                await self.awake.wait()
            await backend.delta(job, run, n, piece)
            await asyncio.sleep(0.005)  # faster than the reader, not faster than the edge
        await backend.end(job, run, PIECES)


@dataclass
class Read:
    """What the reader was told, by the deltas' own numbers."""

    told: list[tuple[int, int]] = field(default_factory=list)
    gaps: list[tuple[int, int]] = field(default_factory=list)
    reasons: set[str] = field(default_factory=set)
    final: str = ""

    def take(self, event: dict[str, Any]) -> None:
        """One event; a delta's text must be that of its numbers."""
        last = event["sequence_number"] - FIRST_DELTA
        first = event.get("first_sequence_number", event["sequence_number"]) - FIRST_DELTA
        assert event["type"] != "error", event
        if event["type"] == "response.output_text.delta":
            assert event["delta"] == "".join(PIECES[first : last + 1])
            self.told.append((first, last))
        elif event["type"] == "penstock.gap":
            self.gaps.append((first, last))
            self.reasons.add(event["reason"])
        elif event["type"] == "response.completed":
            self.final = event["response"]["output"][0]["content"][0]["text"]

    def was_told(self, number: int) -> bool:
        """Whether its text came."""
        return any(first <= number <= last for first, last in self.told)


@pytest.fixture
async def edges(
    broker: Broker, nats_url: str, redis_url: str, tmp_path: Path
) -> AsyncIterator[Edges]:
    async with Edges(broker, nats_url, redis_url, tmp_path) as made:
        yield made


async def _read_asleep(edges: Edges, policy: str) -> Read:
    """A response to a reader that sleeps through most of it."""
    turns, read = Turns(), Read()
    edges.backend.generate = turns.generate
    edge = await edges.start(session_buffer_bytes=BUFFER_BYTES)
    async with await Wire.connect(edge.http_port) as wire, asyncio.timeout(60):
        connected = wire.writer.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        headers = HANDSHAKE | {"Authorization": f"Bearer {edges.account.secret}"}
        assert (await wire.handshake("/v1/responses", headers)).status == 101
        wire.send(TEXT, json.dumps({"type": "session.start", "policy": policy}).encode())
        started = json.loads(await wire.message())
        assert (started["type"], started["session"]["policy"]) == ("session.started", policy)
        wire.send(TEXT, b'{"type":"response.create","input":"x"}')
        await wire.writer.drain()
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await turns.asleep.wait()
        await asyncio.sleep(0.3)  # so that all of it has arrived at the edge
        wire.writer.transport.resume_reading()  # type: ignore[attr-defined]
        pending = asyncio.ensure_future(wire.message())
        while not read.final:
            # A second of silence: it has read what there was.
            done, _ = await asyncio.wait({pending}, timeout=None if turns.awake.is_set() else 1.0)
            if done:
                read.take(json.loads(pending.result()))
                pending = asyncio.ensure_future(wire.message())
            else:
                turns.awake.set()
        pending.cancel()
    return read


@pytest.mark.parametrize("policy", ["block", "drop_oldest", "drop_newest", "drop_intermediate"])
async def test_every_number_is_told_or_missing_once(edges: Edges, policy: str) -> None:
    """Texts and gaps, in the order in which they came, cover every delta exactly once."""
    read = await _read_asleep(edges, policy)
    ranges = sorted([*read.told, *read.gaps])
    assert ranges[0][0] == 0
    assert ranges[-1][1] == len(PIECES) - 1
    for (_, last), (first, _) in itertools.pairwise(ranges):
        assert first == last + 1
    assert read.told == sorted(read.told)
    assert read.final == "".join(PIECES)
    assert read.was_told(0)
    assert all(read.was_told(n) for n in range(WHILE_ASLEEP, len(PIECES)))
    if policy == "block":
        assert not read.gaps
    else:
        assert read.gaps
        assert read.reasons == {"slow_reader"}
        assert read.was_told(LAST_ASLEEP) == (policy != "drop_newest")
