"""I1, I2, I3, I5 under `kill -9`: requests in flight while each process in turn is killed.

`PENSTOCK_FAULT_SEED=<n>` replays a run's choices: doors, lengths, the order and times of kills.
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest
from tests.support.ledger import (
    assert_audited,
    assert_billed_is_generated,
    assert_no_plaintext,
    assert_once,
    assert_reconciled,
    wait_until_ended,
)
from tests.support.load import Load
from tests.support.stack import Stack

from penstock_shared.runtime.broker import Broker

VICTIMS = ("nats", "postgres", "redis", "billing", "audit", "router", "worker-1", "realtime")
ENV = {
    "PENSTOCK_ECHO_MODEL": "1",
    "PENSTOCK_ECHO_TOKENS_PER_S": "15",  # slow enough that kills meet running requests
    "PENSTOCK_REQUEST_DEADLINE_S": "25",
    "PENSTOCK_SWEEP_GRACE_S": "2",
}


async def kill_in_turn(stack: Stack, load: Load, rng: random.Random, rounds: int) -> list[str]:
    """Kill every process once per round, in a random order, a random moment apart."""
    killed = []
    for _ in range(rounds):
        for victim in rng.sample(VICTIMS, len(VICTIMS)):
            await asyncio.sleep(rng.uniform(0.5, 2.0))
            assert load.running > 0, f"nothing was in flight any more when {victim} was due"
            stack.kill(victim)
            killed.append(f"{victim} ({load.running} in flight)")
    return killed


async def run_under_kills(place: Path, seed: int, requests: int, rounds: int) -> None:
    """The load, the kills, and afterwards every invariant from the stack's own records."""
    print(f"PENSTOCK_FAULT_SEED={seed}")
    rng = random.Random(seed)
    with Stack(place / "data", env=ENV) as stack:
        load = Load(stack, seed)
        _, killed = await asyncio.gather(
            load.run(requests, concurrency=24), kill_in_turn(stack, load, rng, rounds)
        )
        print("killed:", ", ".join(killed))
        print("clients were told:", dict(load.told.outcomes))
        assert not load.told.wrong, load.told.wrong[:5]
        broker = await Broker.connect(stack.addresses["nats_url"], name="check")
        found = await wait_until_ended(broker)
        await broker.close()
        assert_once(found, load.told.accepted)
        assert len(found.routed) >= requests
        await assert_billed_is_generated(stack, found)
        await assert_reconciled(stack)
        await assert_audited(stack)
        assert_no_plaintext(stack.data_dir, [b"w11 w12 w13 w14"])
        assert stack.stop() == 0


def chosen_seed() -> int:
    return int(os.environ.get("PENSTOCK_FAULT_SEED") or random.SystemRandom().randrange(2**31))


@pytest.mark.timeout(300)
async def test_every_process_killed_under_300_requests(tmp_path: Path) -> None:
    """300 requests through all four doors, eight kills: every promise holds (I1, I2, I3, I5)."""
    await run_under_kills(tmp_path, chosen_seed(), requests=300, rounds=1)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(4))
async def test_many_rounds_of_kills(tmp_path: Path, seed: int) -> None:
    """The full count: 1,500 requests and 40 kills for each of four fixed seeds."""
    await run_under_kills(tmp_path, seed, requests=1_500, rounds=5)
