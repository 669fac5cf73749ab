"""Audit and its servers are killed; the log stays whole (I5)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.audit_service import Publish, StartAudit, covered, eventually, size_of, vkey_of
from tests.support.stack import Stack

from penstock_audit.errors import VerificationError
from penstock_audit.verification import verify_log
from penstock_shared.contracts.streams import EVENTS
from penstock_shared.runtime.broker import Broker


@contextlib.contextmanager
def running(nats_url: str, state_dir: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m penstock_audit`, as in production; gone when the block is left."""
    process = subprocess.Popen(
        [sys.executable, "-m", "penstock_audit"],
        env={
            **os.environ,
            "PENSTOCK_NATS_URL": nats_url,
            "PENSTOCK_STATE_DIR": str(state_dir),
            "PENSTOCK_AUDIT_LINGER_MS": "5",
        },
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def test_killed_again_and_again(
    broker: Broker, nats_url: str, publish: Publish, state_dir: Path
) -> None:
    """`kill -9` at random moments under load: no loss, no fork, and it verifies in between."""
    seed = 20261120
    rng = random.Random(seed)
    print(f"seed {seed}")
    for _ in range(5):
        with running(nats_url, state_dir) as process:
            writing = asyncio.create_task(publish(300))
            await covered(state_dir, size_of(state_dir) + 1)
            await asyncio.sleep(rng.random() * 0.1)
            process.kill()
            await writing
        verify_log(state_dir, vkey_of(state_dir))
    with running(nats_url, state_dir) as process:
        await publish(100)
        verified = await covered(state_dir, 1_600)
        assert verified.unsigned_events == 0
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 15) == 0
    last = (await broker.jetstream.stream_info(EVENTS)).state.last_seq
    assert last >= verify_log(state_dir, vkey_of(state_dir)).tree_size >= 1_600


async def test_the_server_is_killed(
    servers: Stack, start_audit: StartAudit, publish: Publish, state_dir: Path
) -> None:
    """`kill -9` of nats-server in mid-run: audit says so, and goes on when it is back."""
    async with start_audit() as app:
        await publish(200)
        await covered(state_dir, 200)
        servers.kill("nats")
        await eventually(lambda: app.problems() != [])
        await eventually(lambda: app.problems() == [], timeout_s=30)
        await publish(200)
        await covered(state_dir, 400)
        await eventually(lambda: app.problems() == [])


async def test_verifying_while_it_is_written(
    start_audit: StartAudit, publish: Publish, state_dir: Path
) -> None:
    """A log that grows all the time verifies as of its checkpoint, each time anew."""
    async with start_audit():
        await publish(10)
        await covered(state_dir, 10)
        writing = asyncio.create_task(publish(2_000))
        sizes = []
        while not writing.done():
            try:
                verified = await asyncio.to_thread(verify_log, state_dir, vkey_of(state_dir))
            except VerificationError as error:
                pytest.fail(f"a log that nobody touched: {error}")
            sizes.append(verified.tree_size)
        assert sizes == sorted(sizes)
        assert len(set(sizes)) > 1
