"""Two thousand sockets on one instance, some of which read nothing."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from tests.support.edges import EdgeProcess, Edges
from tests.support.realtime_backend import Backend, new_run
from tests.support.websocket_wire import CLOSE, HANDSHAKE, TEXT, Wire

from penstock_shared.contracts.jobs import Job
from penstock_shared.runtime.broker import Broker

SOCKETS, SLOW = 2000, 50
USUAL_FILES = 1024
DELTAS, SLOW_DELTAS = 10, 130
SLOW_TEXT = "s" * 4096
"""A slow reader's answer has 0.5 MB: twice what kernel and server take before `send` waits."""
SLOW_READER_TIMEOUT_S = 2.0
TRY_AGAIN_LATER = 1013
CUT = 0
"""No close frame was read: who comes later than ten seconds after it finds the socket gone."""
BOUND_PER_SOCKET_BYTES = 64 * 1024
BOUND_PER_SLOW_READER_BYTES = 1024 * 1024
BOUND_BYTES = SOCKETS * BOUND_PER_SOCKET_BYTES + SLOW * BOUND_PER_SLOW_READER_BYTES
"""Of growth in resident memory: 175 MiB for 2,000 sockets with a response each, 50 of them stuck.

A stuck one holds the session's buffer (256 KiB), uvicorn's (64 KiB) and one page of frames that
were read again (128 KiB), each about twice as objects; the kernel's buffers are not the process's.
"""


@pytest.fixture
def hard_limit() -> Iterator[int]:
    """A shell's usual 1,024 files while the edge starts, which has to ask for more itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard == resource.RLIM_INFINITY or hard >= 2 * SOCKETS, f"the hard limit is {hard} files"
    resource.setrlimit(resource.RLIMIT_NOFILE, (USUAL_FILES, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
async def edges(
    broker: Broker, nats_url: str, redis_url: str, tmp_path: Path
) -> AsyncIterator[Edges]:
    async with Edges(broker, nats_url, redis_url, tmp_path) as made:
        yield made


async def _answer(backend: Backend, job: Job, prompt: str) -> None:
    """Numbered words to those who read, over a second; all at once to those who do not."""
    slow = prompt == "slow"
    pieces = [SLOW_TEXT] * SLOW_DELTAS if slow else [f"{prompt}.{n} " for n in range(DELTAS)]
    run = new_run()
    for n, piece in enumerate(pieces):
        await backend.delta(job, run, n, piece)
        await asyncio.sleep(0.02 if slow else 0.1)
    await backend.end(job, run, pieces)


async def _open(edges: Edges, port: int, prompt: str) -> Wire:
    wire = await Wire.connect(port)
    wire.wait_s = 90.0  # two thousand at once, and the test's own processor is the slower one
    if prompt == "slow":
        connected = wire.writer.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    headers = HANDSHAKE | {"Authorization": f"Bearer {edges.account.secret}"}
    answer = await wire.handshake("/v1/responses", headers)
    assert answer.status == 101, answer
    return wire


async def _ask(wire: Wire, prompt: str) -> None:
    wire.send(TEXT, json.dumps({"type": "response.create", "input": prompt}).encode())
    await wire.writer.drain()
    if prompt == "slow":
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]


async def _read(wire: Wire, prompt: str) -> None:
    """Every delta in order, and the end; asserts on numbers and text."""
    async with asyncio.timeout(100):
        expected, text = 0, ""
        while True:
            event = json.loads(await wire.message())
            assert event["type"] != "error", event
            first = event.get("first_sequence_number", event["sequence_number"])
            assert first == expected, event
            expected = event["sequence_number"] + 1
            if event["type"] == "response.output_text.delta":
                text += event["delta"]
            elif event["type"] == "response.completed":
                assert text == "".join(f"{prompt}.{n} " for n in range(DELTAS))
                return


async def _read_late(wire: Wire) -> int:
    """What is still there for a slow reader, in order; the close code."""
    wire.writer.transport.resume_reading()  # type: ignore[attr-defined]
    expected, code = 0, 0
    while (frame := await wire.receive()) is not None:
        if frame.opcode == CLOSE:
            code = int.from_bytes(frame.payload[:2], "big")
        elif frame.opcode == TEXT:
            event = json.loads(frame.payload)
            assert event.get("first_sequence_number", event["sequence_number"]) == expected
            expected = event["sequence_number"] + 1
    return code


@pytest.mark.timeout(170)
async def test_two_thousand_sockets_and_fifty_slow_readers(edges: Edges, hard_limit: int) -> None:
    """Those who read get everything in order and at once; those who do not are closed with 1013.

    The edge's memory stays below a bound that does not depend on how much is sent (I6).
    """
    edges.backend.generate = _answer
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        ops_port = int(probe.getsockname()[1])
    edge = await edges.start_process(
        max_sockets_per_address=2 * SOCKETS,
        slow_reader_timeout_s=SLOW_READER_TIMEOUT_S,
        ops_port=ops_port,
        admission_timeout_s=100,  # the router is this process, which has two thousand to admit
    )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))  # ours, as the client
    before = _rss_bytes(edge)
    prompts = ["slow" if n < SLOW else f"s{n}" for n in range(SOCKETS)]
    wires = [await _open(edges, edge.port, prompt) for prompt in prompts]
    samples: list[int] = []
    watch = asyncio.create_task(_watch(edge, samples))
    for wire, prompt in zip(wires, prompts, strict=True):
        await _ask(wire, prompt)
    await asyncio.gather(
        *(
            _read(wire, prompt)
            for wire, prompt in zip(wires, prompts, strict=True)
            if prompt != "slow"
        )
    )
    await _until_closed(ops_port)
    codes = await asyncio.gather(*(_read_late(wire) for wire in wires[:SLOW]))
    assert set(codes) <= {TRY_AGAIN_LATER, CUT}
    watch.cancel()
    grown = max(samples) - before
    print(f"grown by {grown / 2**20:.0f} MiB, {grown / SOCKETS / 1024:.0f} KiB a socket")
    assert grown < BOUND_BYTES
    for wire in wires:
        async with wire:
            pass


async def _watch(edge: EdgeProcess, samples: list[int]) -> None:
    while True:
        samples.append(_rss_bytes(edge))
        await asyncio.sleep(0.1)


async def _until_closed(ops_port: int) -> None:
    """The edge has closed every slow reader's socket, and no other."""
    closed = f'penstock_realtime_ws_closed_total{{code="{TRY_AGAIN_LATER}"}} {SLOW}.0'
    async with asyncio.timeout(60), httpx.AsyncClient() as client:
        while closed not in (await client.get(f"http://127.0.0.1:{ops_port}/metrics")).text:
            await asyncio.sleep(0.2)


def _rss_bytes(edge: EdgeProcess) -> int:
    pages = int(Path(f"/proc/{edge.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
