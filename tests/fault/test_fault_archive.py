"""The archive dies at any moment: what is to be stored is, once, and nothing else is (I2)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import random
import secrets
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from tests.support.response_store import ResponseStore

from penstock_realtime.adapters.postgres_responses import PostgresResponses
from penstock_realtime.ports import Archive, ArchivedResponse
from penstock_realtime.serving.archiving import CREDIT, Archiving, wanted
from penstock_shared.contracts import subjects
from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.contracts.requests import (
    Decision,
    RequestEnded,
    RequestRouted,
    Sampling,
    Status,
    routed_id,
    terminal_id,
    terminal_type,
)
from penstock_shared.contracts.stored import ResponseDeleted, deleted_id
from penstock_shared.contracts.streams import ARCHIVE_CONSUMER, EVENTS
from penstock_shared.contracts.subjects import Lane
from penstock_shared.contracts.usage import Price
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.clock import SystemClock
from penstock_shared.runtime.consumer import DurableConsumer, rewind_consumer
from penstock_shared.runtime.postgres import Postgres

SEED = int(os.environ.get("PENSTOCK_FAULT_SEED", "20260501"))
PRICE = Price(input_microusd_per_1k=1, output_microusd_per_1k=1)
Row = tuple[str, str, bytes | None, bytes | None, bool]


class Log:
    """Writes EVENTS, and knows what the store must hold of it."""

    def __init__(self, broker: Broker, rng: random.Random) -> None:
        self._broker = broker
        self._rng = rng
        self.expected: list[Row] = []

    async def publish(self, count: int) -> None:
        """`count` requests of two tenants; most are stored, some are deleted, some still run."""
        for _ in range(count):
            await self._request(self._rng.choice(("acme", "globex")))

    async def _request(self, tenant: str) -> None:
        rng = self._rng
        request_id = f"0190e0f0-0000-7000-8000-{rng.getrandbits(48):012x}"
        store, deleted, runs = (rng.random() < share for share in (0.7, 0.2, 0.1))
        now = datetime.now(UTC)
        routed = RequestRouted(
            request_id=request_id,
            tenant=tenant,
            key_id="key_1",
            data_subject="somebody",
            lane=Lane.STANDARD,
            attempt=1,
            decision=Decision(policy="p", model="m", probability=1.0, reason="r", features={}),
            price=PRICE,
            sampling=Sampling(),
            content="1.c2VhbGVk",
            accepted_at=now,
            deadline=now,
            store=store,
        )
        ended = RequestEnded.unstarted(routed, now, status=Status.FAILED, reason="expired")
        gone = ResponseDeleted(request_id=request_id, tenant=tenant, key_id="key_1", deleted_at=now)
        facts = [
            (RequestRouted.TYPE, routed_id(request_id), routed),
            *(
                []
                if runs
                else [(terminal_type(ended.status), terminal_id(request_id, 1, None), ended)]
            ),
        ]
        if store and deleted:  # while it runs, or afterwards
            facts.insert(rng.randint(1, len(facts)), (gone.TYPE, deleted_id(request_id), gone))
        for kind, event_id, fact in facts:
            place = subjects.response_event if fact is gone else subjects.request_event
            await self._broker.publish(
                place(tenant, request_id),
                fact.model_dump_json().encode(),
                Envelope(id=event_id, source="/test", type=kind),
            )
        if store:
            told = [
                None if deleted else fact.model_dump_json().encode() for fact in (routed, ended)
            ]
            self.expected.append((tenant, request_id, told[0], None if runs else told[1], deleted))

    async def is_kept(self, store: ResponseStore, within_s: float) -> None:
        """Wait until the store holds exactly that."""
        expected = sorted(self.expected)

        def told(rows: list[Any]) -> list[Row]:
            return [
                (r["tenant"], str(r["request_id"]), r["routed"], r["ended"], r["deleted"])
                for r in rows
            ]

        await store.until(lambda rows: told(rows) == expected, within_s)


@contextlib.asynccontextmanager
async def realtime(env: dict[str, str]) -> AsyncIterator[None]:
    """An instance as its own process, killed without warning at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "penstock_realtime", env=env, stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
    finally:
        process.kill()
        await process.wait()


async def test_instances_die_again_and_again(
    broker: Broker, nats_url: str, postgres_dsn: str, tmp_path: Path
) -> None:
    """`kill -9` of two instances at seeded moments while facts come in: nothing lost, or twice."""
    print(f"PENSTOCK_FAULT_SEED={SEED}")
    rng = random.Random(SEED)
    root_key = tmp_path / "root.key"
    root_key.write_text(base64.b64encode(secrets.token_bytes(32)).decode())
    env = {
        **os.environ,
        "PENSTOCK_NATS_URL": nats_url,
        "PENSTOCK_POSTGRES_DSN": postgres_dsn,
        "PENSTOCK_ROOT_KEY_FILE": str(root_key),
        "PENSTOCK_HTTP_PORT": "0",
    }
    log = Log(broker, rng)
    for _ in range(2):
        async with realtime(env), realtime(env):
            publishing = asyncio.create_task(log.publish(120))
            await asyncio.sleep(rng.uniform(1.5, 3))
        await publishing
    async with realtime(env):
        # What the dead ones held comes back when AckWait is over.
        await log.is_kept(ResponseStore(postgres_dsn), within_s=60)


class Unlucky:
    """Postgres that loses the connection before, or after, every second commit."""

    def __init__(self, real: PostgresResponses, rng: random.Random) -> None:
        self._real = real
        self._rng = rng
        self.failures = 0

    async def prepare(self) -> bool:
        return await self._real.prepare()

    async def rebuild_begun(self) -> None:
        await self._real.rebuild_begun()

    async def prune(self, now: datetime, limit: int) -> int:
        return await self._real.prune(now, limit)

    async def keep(self, responses: Sequence[ArchivedResponse]) -> None:
        late, fails = self._rng.random() < 0.5, self._rng.random() < 0.5
        if late or not fails:
            await self._real.keep(responses)
        if fails:
            self.failures += 1
            raise UnavailableError("The connection was lost.")


@contextlib.asynccontextmanager
async def archiving(broker: Broker, archive: Archive, rng: random.Random) -> AsyncIterator[None]:
    """An archive at work, cancelled wherever it is at the end of the block."""
    source = DurableConsumer(broker, ARCHIVE_CONSUMER, credit=CREDIT, wanted=wanted)
    work = Archiving(
        archive=archive,
        source=source,
        rewind=lambda: rewind_consumer(broker, ARCHIVE_CONSUMER),
        clock=SystemClock(),
        rng=rng,
        retention=timedelta(days=30),
    )
    task = asyncio.create_task(work.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await source.stop()
        await source.close()


async def acknowledged(broker: Broker) -> None:
    """Wait until nothing is left of EVENTS, what is passed over included."""
    async with asyncio.timeout(30):
        while True:
            info = await broker.jetstream.consumer_info(EVENTS, ARCHIVE_CONSUMER.durable)
            if not info.num_pending and not info.num_ack_pending:
                return
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("copies", [1, 3])
async def test_an_archive_that_is_cut_off_mid_batch(
    broker: Broker, postgres_dsn: str, copies: int
) -> None:
    """Commits whose answer is lost, cancelled batches that come again, and several at work."""
    print(f"PENSTOCK_FAULT_SEED={SEED}")
    rng = random.Random(SEED + copies)
    log = Log(broker, rng)
    await log.publish(150)
    postgres = await Postgres.prepare(SecretStr(postgres_dsn), name="test", connections=8)
    unlucky = [Unlucky(PostgresResponses(postgres), rng) for _ in range(copies)]
    for _ in range(6):
        async with contextlib.AsyncExitStack() as stack:
            for archive in unlucky:
                await stack.enter_async_context(archiving(broker, archive, rng))
            await asyncio.sleep(rng.uniform(0.2, 1))
        await log.publish(20)
    assert any(archive.failures for archive in unlucky)
    async with archiving(broker, PostgresResponses(postgres), rng):
        await log.is_kept(ResponseStore(postgres_dsn), within_s=30)
        await acknowledged(broker)
    await postgres.close()
