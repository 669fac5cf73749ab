"""The whole stack with two workers, one killed and one frozen under load (I1, I2, I3, I5, I6)."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path

import pytest
from tests.support.ledger import (
    assert_audited,
    assert_billed_is_generated,
    assert_once,
    wait_until_ended,
)
from tests.support.load import Load
from tests.support.stack import Stack

from penstock_shared.contracts.streams import JOB_ACK_WAIT_S
from penstock_shared.runtime.broker import Broker

ENV = {
    "PENSTOCK_ECHO_MODEL": "1",
    "PENSTOCK_ECHO_TOKENS_PER_S": "8",  # up to five seconds each
    "PENSTOCK_REQUEST_DEADLINE_S": "60",
    "PENSTOCK_SWEEP_GRACE_S": "2",
}


async def harm(stack: Stack, load: Load, rng: random.Random) -> None:
    """Kill one worker; freeze the other until its jobs have gone to the first; let it go on."""
    await asyncio.sleep(rng.uniform(2.0, 4.0))
    frozen = int(stack.ready["pids"]["worker-2"])
    assert load.running > 0
    stack.kill("worker-1")
    await asyncio.sleep(rng.uniform(1.0, 3.0))
    assert load.running > 0
    os.kill(frozen, signal.SIGSTOP)
    try:
        await asyncio.sleep(JOB_ACK_WAIT_S + rng.uniform(1.0, 4.0))
    finally:
        os.kill(frozen, signal.SIGCONT)


@pytest.mark.timeout(300)
async def test_clients_see_one_stream_whoever_dies(tmp_path: Path) -> None:
    """Plain, SSE, WebSocket and NATS clients get each answer whole, in order, and once.

    A client whose stream was cut off asks again with its key; none sees a wrong text.
    """
    seed = int(os.environ.get("PENSTOCK_FAULT_SEED") or random.SystemRandom().randrange(2**31))
    print(f"PENSTOCK_FAULT_SEED={seed}")
    with Stack(tmp_path / "data", env=ENV, workers=2) as stack:
        load = Load(stack, seed)
        await asyncio.gather(load.run(120, concurrency=24), harm(stack, load, random.Random(seed)))
        print("clients were told:", dict(load.told.outcomes))
        assert not load.told.wrong, load.told.wrong[:5]
        broker = await Broker.connect(stack.addresses["nats_url"], name="check")
        found = await wait_until_ended(broker)
        await broker.close()
        assert_once(found, load.told.accepted)
        await assert_billed_is_generated(stack, found)
        await assert_audited(stack)
        assert stack.stop() == 0
