"""Router and client in one, as cheap as they can be: writes `routed` and jobs, reads frames.

It shares the cores with the worker that it measures. So everything that can be done before the
clock starts is: contents are sealed, `routed` is in the log, the job's bytes are ready. While the
clock runs it publishes those bytes without waiting for an ack (a job that was lost would never
end, and the run with it), and notes when a frame came; what was in it is read afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from time import perf_counter, process_time
from typing import Final, Self

from nats.aio.msg import Msg
from pydantic import SecretStr

from benchmarks.harness.heard import Fed, FeedError
from benchmarks.harness.worker_bench import WorkerBench
from benchmarks.harness.workload import Work
from penstock_shared.contracts import subjects
from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.requests import (
    Content,
    Decision,
    RequestEnded,
    RequestRouted,
    Sampling,
    routed_id,
)
from penstock_shared.contracts.responses import DELTA_START
from penstock_shared.contracts.streams import EVENTS, Bucket
from penstock_shared.contracts.subjects import Lane
from penstock_shared.contracts.usage import Price
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.clock import IdSource, SystemClock
from penstock_shared.runtime.keyring import Keyring, read_root_key
from penstock_shared.runtime.kv import BucketStore
from penstock_shared.runtime.provision import provision

DEADLINE_S: Final = 3000.0
STALL_S: Final = 60.0
"""Nothing was heard for so long: the run has failed."""
_AT_ONCE: Final = 64
_SOURCE: Final = "/penstock/benchmark"
_JOB_TYPE: Final = "penstock.job.run.v1"
_PRICE: Final = Price(input_microusd_per_1k=0, output_microusd_per_1k=0)


class JobFeed:
    """Feeds one worker through one connection; use `connected`."""

    def __init__(self, broker: Broker, keyring: Keyring, model: str) -> None:
        self._broker = broker
        self._keyring = keyring
        self._model = model
        self._ids = IdSource(SystemClock())
        self._open: dict[str, Fed] = {}
        self._on_end: Callable[[Fed], None] = _nothing
        self._heard = asyncio.Event()

    @classmethod
    @contextlib.asynccontextmanager
    async def connected(cls, bench: WorkerBench, model: str) -> AsyncIterator[Self]:
        """A feed that hears every response."""
        broker = await Broker.connect(SecretStr(bench.bus_url), name="benchmark")
        try:
            await provision(broker, 1)
            keyring = Keyring(
                read_root_key(bench.root_key_file),
                BucketStore(broker, Bucket.DATA_KEYS),
                SystemClock(),
            )
            feed = cls(broker, keyring, model)
            await broker.client.listen(subjects.EVERY_RESPONSE, feed._on_frame)
            await broker.flush()
            yield feed
        finally:
            await broker.close()

    async def prepare(
        self, works: Sequence[Work], *, tenant: str = "bench", lane: Lane = Lane.STANDARD
    ) -> list[Fed]:
        """Seal contents, write `routed`, and make the jobs' bytes: everything but publish."""
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(work: Work) -> Fed:
            async with gate:
                return await self._prepare(work, tenant, lane)

        return list(await asyncio.gather(*map(one, works)))

    async def closed_loop(self, jobs: Sequence[Fed], streams: int) -> float:
        """Every stream sends its next job when its last one has ended; returns our CPU seconds.

        Raises:
            FeedError: nothing was heard for a minute.
        """
        following = iter(jobs)

        def next_job(_: Fed) -> None:
            job = next(following, None)
            if job is not None:
                self._send(job)

        self._on_end = next_job
        before_s = process_time()
        for job in list(islice(following, streams)):
            self._send(job)
        await self._until_all_ended(jobs)
        return process_time() - before_s

    async def open_loop(self, arrivals: Sequence[tuple[float, Fed]]) -> float:
        """Send each job at its time (seconds from now), ready or not; returns our CPU seconds.

        Raises:
            FeedError: nothing was heard for a minute.
        """
        self._on_end = _nothing
        before_s, started_s = process_time(), perf_counter()
        for at_s, job in sorted(arrivals, key=lambda one: one[0]):
            await asyncio.sleep(max(started_s + at_s - perf_counter(), 0))
            self._send(job)
        await self._until_all_ended([job for _, job in arrivals])
        return process_time() - before_s

    async def queued_s(self, job: Fed) -> float:
        """How long a job waited for a slot, by its terminal fact, from when it was sent.

        The fact counts from `routed`, which here was written long before.

        Raises:
            FeedError: there is no such fact.
        """
        stored = await self._broker.last_message(
            EVENTS, subjects.request_event(job.tenant, job.request_id)
        )
        timings = stored and RequestEnded.model_validate_json(stored.data).timings
        if not timings:
            msg = f"the fact of {job.request_id} says nothing of time"
            raise FeedError(msg)
        return max(timings.queued_ms / 1000 - (job.sent_unix_s - job.routed_unix_s), 0.0)

    async def _prepare(self, work: Work, tenant: str, lane: Lane) -> Fed:
        request_id, subject, now = self._ids.new(), "benchmark", datetime.now(UTC)
        content = Content(messages=work.messages).to_seal()
        routed = RequestRouted(
            request_id=request_id,
            tenant=tenant,
            key_id="benchmark",
            data_subject=subject,
            lane=lane,
            attempt=1,
            decision=Decision(
                policy="benchmark", model=self._model, probability=1, reason="", features={}
            ),
            price=_PRICE,
            sampling=Sampling(max_output_tokens=work.limit),
            content=await self._keyring.seal(tenant, subject, request_id, "content", content),
            accepted_at=now,
            deadline=now + timedelta(seconds=DEADLINE_S),
        )
        sequence = await self._broker.publish(
            subjects.request_event(tenant, request_id),
            routed.model_dump_json().encode(),
            Envelope(id=routed_id(request_id), source=_SOURCE, type=RequestRouted.TYPE),
            expected_last_seq=0,
        )
        job = Job.from_routed(routed, sequence)
        return Fed(
            request_id=request_id,
            tenant=tenant,
            limit=work.limit,
            subject=subjects.job(tenant, self._model, lane),
            payload=job.model_dump_json().encode(),
            headers=Envelope(id=job.id, source=_SOURCE, type=_JOB_TYPE).headers(),
            routed_unix_s=now.timestamp(),
        )

    def _send(self, job: Fed) -> None:
        self._open[job.request_id] = job
        job.sent_s, job.sent_unix_s = perf_counter(), time.time()
        asyncio.ensure_future(  # noqa: RUF006  the job's end is awaited, which comes later
            self._broker.client.publish(job.subject, job.payload, headers=job.headers)
        )

    def _on_frame(self, msg: Msg) -> None:
        now_s = perf_counter()
        job = self._open.get(msg.subject.rpartition(".")[2])
        if job is None:
            return
        if msg.data.startswith(DELTA_START):
            job.frames_s.append(now_s)
            return
        job.ended_s, job.final = now_s, msg.data
        del self._open[job.request_id]
        self._heard.set()
        self._on_end(job)

    async def _until_all_ended(self, jobs: Sequence[Fed]) -> None:
        while self._open:
            self._heard.clear()
            try:
                await asyncio.wait_for(self._heard.wait(), STALL_S)
            except TimeoutError:
                msg = f"{len(self._open)} of {len(jobs)} jobs have not ended, and nothing happens"
                raise FeedError(msg) from None


def _nothing(_: Fed) -> None:
    """An ended job calls for nothing."""
