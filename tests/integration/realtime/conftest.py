"""The edge in this process against real servers, with a router and a worker that live here."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from nats.aio.msg import Msg
from openai import AsyncOpenAI

from penstock_realtime.app import App, create_app
from penstock_realtime.settings import Settings
from penstock_shared.contracts import subjects
from penstock_shared.contracts.accounts import (
    KeyRecord,
    TenantRecord,
    TenantStatus,
    hash_api_key,
    make_api_key,
)
from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.errors import ErrorBody, PenstockError
from penstock_shared.contracts.ids import uuid7
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.models import ModelRecord
from penstock_shared.contracts.requests import (
    Accepted,
    Admission,
    AdmissionReply,
    Content,
    Decision,
    Rejected,
    RequestEnded,
    RequestRouted,
    Status,
    routed_id,
    terminal_id,
    terminal_type,
)
from penstock_shared.contracts.responses import FinalFrame, encode_delta
from penstock_shared.contracts.streams import EVENTS, Bucket
from penstock_shared.contracts.usage import Price, Usage
from penstock_shared.runtime.broker import Broker, SequenceConflictError
from penstock_shared.runtime.clock import SystemClock
from penstock_shared.runtime.keyring import Keyring
from penstock_shared.runtime.kv import BucketStore, put

PRICE = Price(input_microusd_per_1k=100, output_microusd_per_1k=200)


def new_run() -> str:
    """A run id, as a worker makes it."""
    return uuid7(int(datetime.now(UTC).timestamp() * 1000), os.urandom)


@dataclass
class Account:
    """A tenant with one key."""

    tenant: TenantRecord
    record: KeyRecord
    secret: str


Generate = Callable[["Backend", Job, str], Awaitable[None]]


@dataclass
class Backend:
    """A router and a worker after the contracts, small enough to be told what to do wrong."""

    broker: Broker
    keyring: Keyring
    generate: Generate | None = None
    """What the worker does with a job; echo when None."""
    rejection: Rejected | None = None
    lose_replies: int = 0
    """How many admissions are made durable without an answer, as when a router dies."""
    jobs: list[Job] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self) -> None:
        await self.broker.client.subscribe(
            subjects.EVERY_ADMITTED, queue="router", cb=self._on_admitted
        )
        await self.broker.client.flush()

    async def _on_admitted(self, msg: Msg) -> None:
        tenant = subjects.parse(msg.subject).tenant
        if self.rejection is not None:
            await msg.respond(AdmissionReply(reply=self.rejection).model_dump_json().encode())
            return
        admission = Admission.model_validate_json(msg.data)
        accepted = await self._route(tenant, admission)
        if self.lose_replies:
            self.lose_replies -= 1
            return
        await msg.respond(AdmissionReply(reply=accepted).model_dump_json().encode())

    async def _route(self, tenant: str, admission: Admission) -> Accepted:
        now = datetime.now(UTC)
        model = "echo" if admission.model == "auto" else admission.model
        routed = RequestRouted(
            request_id=admission.request_id,
            tenant=tenant,
            key_id=admission.key_id,
            data_subject=admission.data_subject,
            lane=admission.lane,
            attempt=1,
            decision=Decision(
                policy="test", model=model, probability=1.0, reason="test", features={}
            ),
            price=PRICE,
            sampling=admission.sampling,
            content=admission.content,
            accepted_at=now,
            deadline=now + timedelta(seconds=admission.deadline_s or 120),
        )
        subject = subjects.request_event(tenant, admission.request_id)
        try:
            sequence = await self.broker.publish(
                subject,
                routed.model_dump_json().encode(),
                Envelope(id=routed_id(routed.request_id), source="/t", type=RequestRouted.TYPE),
                expected_last_seq=0,
            )
        except SequenceConflictError:
            last = await self.broker.last_message(EVENTS, subject)
            assert last is not None
            ended = last.event_type != RequestRouted.TYPE
            return Accepted(request_id=routed.request_id, model=model, accepted_at=now, ended=ended)
        job = Job.from_routed(routed, sequence)
        self.jobs.append(job)
        task = asyncio.create_task(self._work(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return Accepted(request_id=routed.request_id, model=model, accepted_at=now)

    async def _work(self, job: Job) -> None:
        plain = await self.keyring.open(
            job.tenant, job.data_subject, job.request_id, "content", job.content
        )
        prompt = Content.model_validate_json(plain).messages[-1].content
        self.prompts.append(prompt)
        await (self.generate or echo)(self, job, prompt)

    async def delta(self, job: Job, run: str, n: int, text: str) -> None:
        await self.broker.publish_core(
            subjects.responses(job.tenant, job.request_id), encode_delta(1, run, n, text)
        )

    async def end(
        self,
        job: Job,
        run: str,
        pieces: list[str],
        *,
        status: Status = Status.COMPLETED,
        reason: str = "stop",
        error: ErrorBody | None = None,
        frame: bool = True,
    ) -> RequestEnded:
        """Write the terminal; `frame` False dies before the final frame."""
        text = "".join(pieces)
        ends, position = [], 0
        for piece in pieces:
            position += len(piece)
            ends.append(position)
        sealed = await self.keyring.seal(
            job.tenant, job.data_subject, job.request_id, "output", text
        )
        now = datetime.now(UTC)
        ended = RequestEnded(
            request_id=job.request_id,
            tenant=job.tenant,
            key_id=job.key_id,
            data_subject=job.data_subject,
            model=job.model,
            attempt=job.attempt,
            run=run,
            status=status,
            reason=reason,
            usage=Usage(input_tokens=3, output_tokens=len(pieces)),
            price=job.price,
            output=sealed,
            delta_ends=tuple(ends),
            error=error,
            routed_at=job.routed_at,
            ended_at=now,
        )
        await self.broker.publish(
            subjects.request_event(job.tenant, job.request_id),
            ended.model_dump_json().encode(),
            Envelope(
                id=terminal_id(job.request_id, job.attempt, run),
                source="/t",
                type=terminal_type(status),
            ),
            expected_last_seq=job.expected_seq,
        )
        if frame:
            final = FinalFrame.from_terminal(ended, text).model_dump_json().encode()
            await self.broker.publish_core(subjects.responses(job.tenant, job.request_id), final)
        return ended

    async def ended(self, job: Job) -> bool:
        """Whether the job's fact stands, though its acknowledgement was lost."""
        subject = subjects.request_event(job.tenant, job.request_id)
        with contextlib.suppress(PenstockError):
            last = await self.broker.last_message(EVENTS, subject)
            return last is not None and last.event_type != RequestRouted.TYPE
        return False

    async def cancelled(self, job: Job) -> None:
        """Wait until somebody commands the job's cancellation."""
        subject = subjects.control(job.tenant, job.request_id)
        while await self.broker.last_message("CONTROL", subject) is None:
            await asyncio.sleep(0.01)


def split(text: str) -> list[str]:
    """A text as a worker streams it."""
    return [text[i : i + 3] for i in range(0, len(text), 3)]


async def echo(backend: Backend, job: Job, prompt: str) -> None:
    """Answer with the prompt."""
    run, pieces = new_run(), split(prompt)
    for n, piece in enumerate(pieces):
        await backend.delta(job, run, n, piece)
    await backend.end(job, run, pieces)


async def until_cancelled(backend: Backend, job: Job, _: str) -> None:
    """Say one thing, then wait to be cancelled, and end so."""
    run = new_run()
    await backend.delta(job, run, 0, "Hel")
    await backend.cancelled(job)
    await backend.end(job, run, ["Hel"], status=Status.CANCELLED, reason="cancelled")


@dataclass
class Edge:
    """A running edge and what stands behind it."""

    app: App
    backend: Backend
    broker: Broker
    account: Account

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.app.http_port}/v1"

    def client(self, secret: str | None = None) -> Any:
        """The official SDK, unchanged; its unions of some 60 event types help nobody here."""
        return AsyncOpenAI(
            base_url=self.base_url, api_key=secret or self.account.secret, max_retries=0
        )

    def http(self, secret: str | None = None) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {secret or self.account.secret}"}
        return httpx.AsyncClient(base_url=f"{self.base_url}/", headers=headers, timeout=30)

    async def add_account(self, tenant: str, per_minute: int = 60_000) -> Account:
        return await add_account(self.broker, tenant, per_minute)


async def add_account(broker: Broker, tenant: str, per_minute: int = 60_000) -> Account:
    """What billing writes to the buckets."""
    now = datetime.now(UTC)
    record = TenantRecord(
        tenant=tenant, name=tenant, requests_per_minute=per_minute, created_at=now
    )
    secret = make_api_key(os.urandom)
    key = KeyRecord(
        key_id=f"key_{os.urandom(4).hex()}",
        tenant=tenant,
        name="test",
        hint=secret[-4:],
        created_at=now,
    )
    await put(broker, Bucket.TENANTS, tenant, record.model_dump_json().encode())
    await put(broker, Bucket.KEYS, hash_api_key(secret), key.model_dump_json().encode())
    return Account(record, key, secret)


async def revoke(broker: Broker, account: Account) -> None:
    """What billing writes when a key is revoked."""
    gone = account.record.model_copy(update={"revoked_at": datetime.now(UTC)})
    await put(broker, Bucket.KEYS, hash_api_key(account.secret), gone.model_dump_json().encode())


async def suspend(broker: Broker, account: Account) -> None:
    """What an operator's suspension writes."""
    gone = account.tenant.model_copy(update={"status": TenantStatus.SUSPENDED})
    await put(broker, Bucket.TENANTS, gone.tenant, gone.model_dump_json().encode())


StartEdge = Callable[..., Awaitable["Edge"]]


@pytest.fixture
async def start_edge(
    broker: Broker, nats_url: str, redis_url: str, tmp_path: Path
) -> AsyncIterator[StartEdge]:
    """Start an edge with settings of the test's own."""
    root_key = os.urandom(32)
    key_file = tmp_path / "root.key"
    key_file.write_text(base64.b64encode(root_key).decode())
    model = ModelRecord(name="echo", version="1", parameters=0, context_tokens=4096, price=PRICE)
    await put(broker, Bucket.MODELS, "echo", model.model_dump_json().encode())

    async with AsyncExitStack() as stack:

        async def start(
            *,
            router: bool = True,
            tenant: str | None = None,
            per_minute: int = 60_000,
            **given: object,
        ) -> Edge:
            values = {"nats_url": nats_url, "redis_url": redis_url, **given}
            settings = Settings(http_port=0, root_key_file=key_file, **values)  # type: ignore[arg-type]
            app = create_app(settings)
            stack.push_async_callback(app.stop)
            # Rate limits live in Redis, which outlives the test: a tenant of its own each time.
            account = await add_account(broker, tenant or f"t{os.urandom(4).hex()}", per_minute)
            await app.start()
            behind = await stack.enter_async_context(_connected(nats_url))
            keyring = Keyring(root_key, BucketStore(behind, Bucket.DATA_KEYS), SystemClock())
            backend = Backend(behind, keyring)
            if router:
                await backend.start()
            return Edge(app, backend, broker, account)

        yield start


@asynccontextmanager
async def _connected(nats_url: str) -> AsyncIterator[Broker]:
    broker = await Broker.connect(nats_url, name="test-backend")
    yield broker
    await broker.close()


@pytest.fixture
async def edge(start_edge: StartEdge) -> Edge:
    """An edge with its usual settings."""
    return await start_edge()
