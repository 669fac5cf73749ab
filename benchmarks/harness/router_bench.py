"""A router on one core, the bus and its clients on the others: what the router itself costs.

The bus is the embedded one with fsync on every write; the router is `python -m penstock_router`.
Clients are this process: they ask as realtime does, sealed. If asked to, they write the end of each
accepted request, without waiting, as a worker would: the router reads it and learns from it. Jobs
are left where they lie. Requests are sealed before the clock starts.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import random
import secrets
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count, cycle, islice
from pathlib import Path
from time import perf_counter
from typing import Final

from examples.demo.messages import MESSAGES

from benchmarks.harness import service, stack
from benchmarks.harness.edge_bench import pin
from benchmarks.harness.processes import cpu_seconds
from penstock_shared.contracts import subjects
from penstock_shared.contracts.accounts import TenantRecord
from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.models import ModelLimits, ModelRecord
from penstock_shared.contracts.quotas import Quota
from penstock_shared.contracts.requests import (
    Accepted,
    Admission,
    AdmissionReply,
    ChatMessage,
    Content,
    RequestEnded,
    RequestRouted,
    Status,
    terminal_id,
    terminal_type,
)
from penstock_shared.contracts.streams import EVENTS, Bucket
from penstock_shared.contracts.usage import Price, Usage
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.clock import IdSource, SystemClock
from penstock_shared.runtime.keyring import Keyring, read_root_key
from penstock_shared.runtime.kv import BucketStore, put
from penstock_shared.runtime.provision import provision

TENANTS: Final = tuple(f"bench{number}" for number in range(16))
LIMITED_TENANT: Final = "limited"
"""Has quotas, none of which is ever reached."""
_PLENTY: Final = 10**12
_SUBJECT: Final = "user"
_SOURCE: Final = "/penstock/benchmark"
_RUN: Final = "0190e0f0-0000-7000-8000-000000000000"
_ANSWER_TIMEOUT_S: Final = 20.0
_SETTLE_S: Final = 1.0
_SEED: Final = 7


class RouterBenchError(Exception):
    """The router refused what it should have taken."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, ready to be sent."""

    tenant: str
    request_id: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of requests took."""

    took_s: tuple[float, ...]
    """Of each request, from its sending to the answer."""
    lasted_s: float
    cpu_s: dict[str, float]
    """Of the router and of the bus, and of the clients ("clients")."""


@dataclass(frozen=True, slots=True)
class RouterBench:
    """A router that is ready, and a client."""

    broker: Broker
    keyring: Keyring
    pids: dict[str, int]

    async def prepare(self, number: int, tenants: Sequence[str] = TENANTS) -> list[Asked]:
        """So many requests, each of another length, of these tenants in turn."""
        ids, texts = IdSource(SystemClock()), messages(random.Random(_SEED))
        return [
            await self._asked(ids.new(), tenant, text)
            for tenant, text in islice(zip(cycle(tenants), texts, strict=False), number)
        ]

    async def _asked(self, request_id: str, tenant: str, text: str) -> Asked:
        content = Content(messages=(ChatMessage(role="user", content=text),)).to_seal()
        admission = Admission(
            request_id=request_id,
            key_id="benchmark",
            data_subject=_SUBJECT,
            content=await self.keyring.seal(tenant, _SUBJECT, request_id, "content", content),
            deadline_s=3600,
        )
        return Asked(tenant, request_id, admission.model_dump_json().encode())

    async def run(self, requests: Sequence[Asked], at_once: int, *, end: bool = False) -> Load:
        """Send them all, `at_once` of them unanswered at any time; `end` each once accepted."""

        async def ask(asked: Asked) -> None:
            reply = await self.broker.client.request(
                subjects.admitted(asked.tenant), asked.payload, timeout=_ANSWER_TIMEOUT_S
            )
            answer = AdmissionReply.model_validate_json(reply.data).reply
            if not isinstance(answer, Accepted):
                raise RouterBenchError(answer.error.message)
            if end:
                await self._end(asked, answer.model)

        return await self._timed(requests, at_once, ask)

    async def write(self, requests: Sequence[Asked], like: Asked, at_once: int) -> Load:
        """Write what `like` left on disk, `routed` and its job, for each of these requests."""
        subject = subjects.request_event(like.tenant, like.request_id)
        stored = await self.broker.jetstream.get_msg(EVENTS, seq=1, subject=subject, next=True)
        routed = RequestRouted.model_validate_json(stored.data or b"")
        job = Job.from_routed(routed, stored.seq or 0)
        as_job, as_routed = (fact.model_dump_json().encode() for fact in (job, routed))

        async def write(asked: Asked) -> None:
            envelope = Envelope(id=asked.request_id, source=_SOURCE, type="benchmark")
            event = subjects.request_event(asked.tenant, asked.request_id)
            await self.broker.publish(event, as_routed, envelope, expected_last_seq=0)
            queue = subjects.job(asked.tenant, routed.model, routed.lane)
            await self.broker.publish(queue, as_job, envelope, deduplicate=True)

        return await self._timed(requests, at_once, write)

    async def _timed(
        self, requests: Sequence[Asked], at_once: int, do: Callable[[Asked], Awaitable[None]]
    ) -> Load:
        await asyncio.sleep(_SETTLE_S)  # what the run before left to be read
        took_s: list[float] = []
        waiting = iter(requests)

        async def do_each() -> None:
            for asked in waiting:
                began_s = perf_counter()
                await do(asked)
                took_s.append(perf_counter() - began_s)

        before, began_s = self._cpu_s(), perf_counter()
        await asyncio.gather(*(do_each() for _ in range(at_once)))
        lasted_s, after = perf_counter() - began_s, self._cpu_s()
        return Load(tuple(took_s), lasted_s, {name: after[name] - before[name] for name in after})

    async def _end(self, asked: Asked, model: str) -> None:
        """The terminal fact; without a reply subject, so that nothing is waited for."""
        ended = _END[model].replace(_ID, asked.request_id.encode())
        await self.broker.client.publish(
            subjects.request_event(asked.tenant, asked.request_id),
            ended.replace(_NAME, asked.tenant.encode()),
            headers=Envelope(
                id=terminal_id(asked.request_id, 1, _RUN),
                source=_SOURCE,
                type=terminal_type(Status.COMPLETED),
            ).headers(),
        )

    def _cpu_s(self) -> dict[str, float]:
        return {**cpu_seconds(self.pids), "clients": sum(os.times()[:2])}


def messages(rng: random.Random) -> Iterator[str]:
    """Texts without end: the demo's messages, their words going on in another one's."""
    said = [word for message in MESSAGES for word in message.text.split()]
    for _ in count():
        begin = rng.randrange(len(said))
        yield " ".join(islice(cycle(said), begin, begin + rng.randrange(10, 80)))


@contextlib.asynccontextmanager
async def running(
    command: Sequence[str] = ("penstock_router",), *, quotas: Sequence[Quota] = ()
) -> AsyncIterator[RouterBench]:
    """Bus and router, and billing's tables where there are `quotas` (of `LIMITED_TENANT`)."""
    cores = os.sched_getaffinity(0)
    others = cores - {min(cores)} or cores
    with (
        tempfile.TemporaryDirectory(prefix="penstock-bench-router-") as scratch,
        stack.running({"PENSTOCK_SERVICES": "billing" if quotas else ""}) as servers,
    ):
        addresses = json.loads((servers.data_dir / "run.json").read_text())["addresses"]
        root_key_file = Path(scratch) / "root.key"
        root_key_file.write_text(base64.b64encode(secrets.token_bytes(32)).decode())
        broker = await Broker.connect(servers.bus_url, name="bench")
        await provision(broker, 1)
        await _catalogue(broker, quotas)
        env = {
            "PENSTOCK_NATS_URL": servers.bus_url,
            "PENSTOCK_REDIS_URL": str(addresses["redis"]),
            "PENSTOCK_POSTGRES_DSN": str(addresses["postgres"]),
            "PENSTOCK_ROOT_KEY_FILE": str(root_key_file),
        }
        with service.running(command, env, Path(scratch)) as router:
            for pid in (os.getpid(), *servers.ready["pids"].values()):
                pin(int(pid), others)
            pin(router.pid, {min(cores)})
            keyring = Keyring(
                read_root_key(root_key_file), BucketStore(broker, Bucket.DATA_KEYS), SystemClock()
            )
            pids = {"router": router.pid, "bus": int(servers.ready["pids"]["nats"])}
            try:
                yield RouterBench(broker, keyring, pids)
            finally:
                pin(os.getpid(), cores)
                await broker.close()


async def _catalogue(broker: Broker, quotas: Sequence[Quota]) -> None:
    now = datetime.now(UTC)
    for record in MODELS:
        await put(broker, Bucket.MODELS, record.name, record.model_dump_json().encode())
    for name in (*TENANTS, LIMITED_TENANT):
        limits = tuple(quotas) if name == LIMITED_TENANT else ()
        tenant = TenantRecord(tenant=name, name=name, quotas=limits, created_at=now)
        await put(broker, Bucket.TENANTS, name, tenant.model_dump_json().encode())


def _model(name: str, price: int) -> ModelRecord:
    return ModelRecord(
        name=name,
        version="1.0.0",
        parameters=0,
        context_tokens=4096,
        price=Price(input_microusd_per_1k=price, output_microusd_per_1k=4 * price),
        limits=ModelLimits(queue=_PLENTY),
    )


MODELS: Final = (_model("penstock-small", 25), _model("penstock-large", 200))
_ID, _NAME = b"@request@", b"@tenant@"


def _ended(model: ModelRecord) -> bytes:
    """A terminal with marks for what differs from request to request."""
    now = datetime.now(UTC)
    fact = RequestEnded(
        request_id=_RUN,
        tenant="tenant",
        key_id="benchmark",
        data_subject=_SUBJECT,
        model=model.name,
        attempt=1,
        run=_RUN,
        status=Status.COMPLETED,
        reason="stop",
        usage=Usage(input_tokens=60, output_tokens=21),
        price=model.price,
        output="x" * 200,
        confidence=0.99,
        routed_at=now,
        ended_at=now + timedelta(milliseconds=20),
    )
    told = fact.model_copy(update={"request_id": _ID.decode(), "tenant": _NAME.decode()})
    return told.model_dump_json().encode()


_END: Final = {model.name: _ended(model) for model in MODELS}
