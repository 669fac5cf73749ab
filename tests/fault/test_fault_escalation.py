"""Requests of two attempts under `kill -9` of every process: only checked answers are seen.

`PENSTOCK_FAULT_SEED=<n>` replays a run's choices: who asks how, and the order and times of kills.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import openai
import pytest
from openai import AsyncOpenAI
from tests.support.escalating import FORMAT, HARD, cautious_key, checked
from tests.support.ledger import (
    Requests,
    assert_audited,
    assert_billed_is_generated,
    assert_no_plaintext,
    assert_once,
    wait_until_ended,
)
from tests.support.stack import Stack

from penstock_shared.contracts.ids import parse_request_id
from penstock_shared.contracts.requests import Status
from penstock_shared.contracts.usage import NOTHING_USED
from penstock_shared.runtime.broker import Broker

VICTIMS: Final = ("nats", "router", "worker-1", "worker-2", "billing", "realtime")
ENV: Final = {"PENSTOCK_SWEEP_GRACE_S": "2", "PENSTOCK_REQUEST_DEADLINE_S": "60"}
REQUESTS: Final = 120
AT_ONCE: Final = 6


@dataclass
class Clients:
    """Ask until they are answered, each with a key of its own; they keep all that they see."""

    client: AsyncOpenAI
    rng: random.Random
    texts: set[str] = field(default_factory=set)
    """Every text that was shown, also by a stream that was cut off then."""
    ended: dict[str, str] = field(default_factory=dict)
    """Status by request id."""
    outcomes: Counter[str] = field(default_factory=Counter)
    left: int = REQUESTS

    async def run(self) -> None:
        room = asyncio.Semaphore(AT_ONCE)

        async def one(number: int, ask: Any) -> None:
            async with room, asyncio.timeout(150):
                while True:
                    try:
                        await ask(f"escalated-{number}")
                    except (openai.APIError, OSError) as error:
                        self.outcomes[type(error).__name__] += 1
                        await asyncio.sleep(0.2)
                    else:
                        self.left -= 1
                        return

        ways = [self.rng.choice((self._plain, self._streamed)) for _ in range(REQUESTS)]
        await asyncio.gather(*(one(number, way) for number, way in enumerate(ways)))

    async def _plain(self, key: str) -> None:
        self._note(
            await self.client.responses.create(
                input=HARD, text=FORMAT, extra_headers={"Idempotency-Key": key}
            )
        )

    async def _streamed(self, key: str) -> None:
        stream = await self.client.responses.create(
            input=HARD, text=FORMAT, stream=True, extra_headers={"Idempotency-Key": key}
        )
        text = ""
        async for event in stream:
            if event.type == "response.output_text.delta":
                text += event.delta
                self.texts.add(text)
            elif event.type in {"response.completed", "response.failed"}:
                return self._note(event.response)
        raise ConnectionError("The stream was cut off.")

    def _note(self, response: Any) -> None:
        self.outcomes[response.status] += 1
        self.ended[parse_request_id(response.id)] = response.status
        if response.output_text:
            self.texts.add(response.output_text)


async def kill_in_turn(stack: Stack, clients: Clients, rng: random.Random) -> None:
    for victim in rng.sample(VICTIMS, len(VICTIMS)):
        await asyncio.sleep(rng.uniform(0.5, 2.0))
        assert clients.left > 0, f"nothing was asked any more when {victim} was due"
        stack.kill(victim)


def assert_sums(found: Requests) -> None:
    """What a request's last fact says of its earlier attempts is what their own facts say (I3)."""
    for request_id, (ended,) in found.ended.items():
        used = NOTHING_USED
        for failed in found.failed[request_id]:
            assert failed.used_before == used
            used += failed.usage
        assert ended.used_before == used
        assert ended.attempt == len(found.failed[request_id]) + 1 <= 2


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_clients_see_checked_answers_whoever_dies(tmp_path: Path) -> None:
    """One checked answer or none, both attempts billed once, one end (I1, I2, I3, I5)."""
    seed = int(os.environ.get("PENSTOCK_FAULT_SEED") or random.SystemRandom().randrange(2**31))
    print(f"PENSTOCK_FAULT_SEED={seed}")
    rng = random.Random(seed)
    with Stack(tmp_path / "data", env=ENV, workers=2) as stack:
        key = await cautious_key(stack, "cautious")
        base_url = stack.ready["http"] + "/v1"
        async with AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0, timeout=20) as client:
            clients = Clients(client, rng)
            await asyncio.gather(clients.run(), kill_in_turn(stack, clients, rng))
        print("clients were told:", dict(clients.outcomes))
        assert clients.texts
        for text in clients.texts:
            checked(text)
        broker = await Broker.connect(stack.addresses["nats_url"], name="check")
        found = await wait_until_ended(broker)
        await broker.close()
        assert_once(found, set(clients.ended))
        assert {one: found.ended[one][0].status.value for one in clients.ended} == clients.ended
        assert any(ended.status is Status.COMPLETED for (ended,) in found.ended.values())
        assert len(found.failed) > REQUESTS / 2
        assert_sums(found)
        await assert_billed_is_generated(stack, found)
        await assert_audited(stack)
        assert_no_plaintext(stack.data_dir, [b"seven hundred forty-five"])
        assert stack.stop() == 0
