"""Stands in for router and client around a real worker: publishes `routed` and the job by hand."""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import random
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from nats.aio.msg import Msg
from pydantic import SecretStr

from penstock_shared.contracts import subjects
from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.requests import (
    ChatMessage,
    Content,
    Decision,
    NextAttempt,
    RequestEnded,
    RequestRouted,
    Sampling,
    Tool,
    routed_id,
)
from penstock_shared.contracts.responses import Cancel, Delta, FinalFrame, decode_delta
from penstock_shared.contracts.streams import CONTROL, EVENTS, Bucket, job_consumer
from penstock_shared.contracts.subjects import Lane
from penstock_shared.contracts.usage import Price
from penstock_shared.runtime.broker import Broker, StoredMessage
from penstock_shared.runtime.clock import IdSource, SystemClock
from penstock_shared.runtime.consumer import ensure_consumer
from penstock_shared.runtime.keyring import Keyring, read_root_key
from penstock_shared.runtime.kv import BucketStore
from penstock_shared.runtime.request_log import DEADLINE_HEADER
from penstock_worker.app import App, create_app
from penstock_worker.settings import Settings

TENANT = "acme"
SUBJECT = "user-1"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PRICE = Price(input_microusd_per_1k=10, output_microusd_per_1k=20)


@dataclass
class Listener:
    """What a client of one request sees."""

    deltas: list[Delta] = field(default_factory=list)
    finals: list[FinalFrame] = field(default_factory=list)
    first_delta: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def receive(self, msg: Msg) -> None:
        delta = decode_delta(msg.data)
        if delta is None:
            self.finals.append(FinalFrame.model_validate_json(msg.data))
            self.ended.set()
        else:
            self.deltas.append(delta)
            self.first_delta.set()

    async def final(self, timeout_s: float = 20.0) -> FinalFrame:
        async with asyncio.timeout(timeout_s):
            await self.ended.wait()
        return self.finals[0]


@dataclass
class WorkerRig:
    """One broker, one keyring, and any number of workers."""

    broker: Broker
    nats_url: str
    directory: Path
    workers: list[App] = field(default_factory=list)
    _numbers: Any = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.root_key_file = self.directory / "root.key"
        self.root_key_file.write_text(base64.b64encode(os.urandom(32)).decode())
        clock = SystemClock()
        self.ids = IdSource(clock)
        self.keyring = Keyring(
            read_root_key(self.root_key_file), BucketStore(self.broker, Bucket.DATA_KEYS), clock
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self.workers:
            await worker.stop()

    def settings(self, **options: Any) -> Settings:
        return Settings(
            nats_url=SecretStr(self.nats_url),
            instance=f"w{next(self._numbers)}",
            root_key_file=self.root_key_file,
            **{"echo_model": True, **options},
        )

    async def start_worker(self, **options: Any) -> App:
        app = create_app(self.settings(**options))
        self.workers.append(app)
        await app.start()
        return app

    async def listen(self, request_id: str) -> Listener:
        listener = Listener()
        await self.broker.client.subscribe(
            subjects.responses(TENANT, request_id), cb=listener.receive
        )
        await self.broker.client.flush()
        return listener

    async def route(
        self,
        text: str,
        *,
        model: str = "echo",
        lane: Lane = Lane.STANDARD,
        deadline_s: float = 30.0,
        request_id: str | None = None,
        sampling: Sampling | None = None,
        data_subject: str = SUBJECT,
        output_schema: dict[str, Any] | None = None,
        tools: tuple[Tool, ...] = (),
        must_call: bool = False,
        final_attempt: bool = True,
        min_confidence: float | None = None,
        tenant: str = TENANT,
        plan: tuple[NextAttempt, ...] = (),
        source: str = "/t",
    ) -> Job:
        """Write `routed` and return the job that the router would publish."""
        request_id = request_id or self.ids.new()
        now = datetime.now(UTC)
        content = Content(
            messages=(ChatMessage(role="user", content=text),),
            output_schema=output_schema,
            tools=tools,
            must_call=must_call,
        )
        routed = RequestRouted(
            request_id=request_id,
            tenant=tenant,
            key_id="k1",
            data_subject=data_subject,
            lane=lane,
            attempt=1,
            decision=Decision(policy="t", model=model, probability=1, reason="t", features={}),
            price=PRICE,
            sampling=sampling or Sampling(),
            content=await self.keyring.seal(
                tenant, data_subject, request_id, "content", content.to_seal()
            ),
            accepted_at=now,
            deadline=now + timedelta(seconds=deadline_s),
            final_attempt=final_attempt and not plan,
            min_confidence=min_confidence,
            plan=plan,
        )
        sequence = await self.broker.publish(
            subjects.request_event(tenant, request_id),
            routed.model_dump_json().encode(),
            Envelope(id=routed_id(request_id), source=source, type=RequestRouted.TYPE),
            expected_last_seq=0,
            extra_headers={DEADLINE_HEADER: str(routed.deadline.timestamp())},
        )
        return Job.from_routed(routed, sequence)

    async def publish(self, job: Job) -> int:
        return await self.broker.publish(
            subjects.job(job.tenant, job.model, job.lane),
            job.model_dump_json().encode(),
            Envelope(id=job.id, source="/t", type="penstock.job.run.v1", traceparent=TRACE),
        )

    async def submit(self, text: str, **options: Any) -> tuple[Job, Listener]:
        """Route, listen, publish: what router and client do."""
        job = await self.route(text, **options)
        listener = await self.listen(job.request_id)
        await self.publish(job)
        return job, listener

    async def cancel(self, job: Job, tenant: str = TENANT) -> None:
        await self.broker.publish_silent(
            CONTROL,
            subjects.control(tenant, job.request_id),
            Cancel().model_dump_json().encode(),
            Envelope(id=f"{job.request_id}/cancel", source="/client", type="penstock.cancel"),
        )

    async def last_fact(self, job: Job) -> StoredMessage:
        message = await self.broker.last_message(
            EVENTS, subjects.request_event(job.tenant, job.request_id)
        )
        assert message is not None
        return message

    async def terminal(self, job: Job) -> RequestEnded:
        return RequestEnded.model_validate_json((await self.last_fact(job)).data)

    async def output(self, ended: RequestEnded) -> str:
        assert ended.output is not None
        plain = await self.keyring.open(
            ended.tenant, ended.data_subject, ended.request_id, "output", ended.output
        )
        return plain.decode()

    async def facts(self, job: Job) -> int:
        """How many facts the request has."""
        subject = subjects.request_event(job.tenant, job.request_id)
        info = await self.broker.jetstream.stream_info(EVENTS, subjects_filter=subject)
        return int((info.state.subjects or {}).get(subject, 0))

    async def lag(self, model: str = "echo", lane: Lane = Lane.STANDARD) -> tuple[int, int]:
        """Jobs that wait, and jobs that somebody holds."""
        spec = job_consumer(model, lane)
        await ensure_consumer(self.broker, spec)
        info = await self.broker.jetstream.consumer_info(spec.stream, spec.durable)
        return info.num_pending or 0, info.num_ack_pending or 0

    async def settled(self, model: str = "echo", lane: Lane = Lane.STANDARD) -> None:
        """Wait until no job waits and nobody holds one."""
        await until(lambda: self._is_settled(model, lane))

    async def _is_settled(self, model: str, lane: Lane) -> bool:
        return await self.lag(model, lane) == (0, 0)


async def until(condition: Any, timeout_s: float = 15.0) -> None:
    """Poll `condition` (a coroutine function) until it holds."""
    limit = time.monotonic() + timeout_s
    while not await condition():
        assert time.monotonic() < limit, "it never came true"
        await asyncio.sleep(0.02)


def seeded(seed: int) -> random.Random:
    """A generator whose seed is in the output if the test fails."""
    print(f"seed {seed}")
    return random.Random(seed)
