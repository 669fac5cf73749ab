"""A router and a worker after the contracts, small enough to be told what to do wrong."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from nats.aio.msg import Msg

from penstock_shared.contracts import subjects
from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.errors import ErrorBody, PenstockError
from penstock_shared.contracts.ids import uuid7
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.requests import (
    TERMINAL_TYPES,
    Accepted,
    Admission,
    AdmissionReply,
    AttemptFailed,
    Content,
    Decision,
    NextAttempt,
    Rejected,
    RequestEnded,
    RequestRouted,
    Status,
    Timings,
    attempt_failed_id,
    routed_id,
    terminal_id,
    terminal_type,
)
from penstock_shared.contracts.responses import FinalFrame, encode_delta
from penstock_shared.contracts.streams import EVENTS
from penstock_shared.contracts.usage import Price, Usage
from penstock_shared.runtime.broker import Broker, SequenceConflictError
from penstock_shared.runtime.keyring import Keyring

PRICE = Price(input_microusd_per_1k=100, output_microusd_per_1k=200)


def new_run() -> str:
    """A run id, as a worker makes it."""
    return uuid7(int(datetime.now(UTC).timestamp() * 1000), os.urandom)


Generate = Callable[["Backend", Job, str], Awaitable[None]]


@dataclass
class Backend:
    """A router and a worker after the contracts, small enough to be told what to do wrong."""

    broker: Broker
    keyring: Keyring
    generate: Generate | None = None
    """What the worker does with a job; echo when None."""
    rejection: Rejected | None = None
    plan: tuple[NextAttempt, ...] = ()
    """Who tries after the first attempt."""
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
            final_attempt=not self.plan,
            plan=self.plan,
            store=admission.store,
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
            ended = last.event_type in TERMINAL_TYPES
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
        content = Content.model_validate_json(plain)
        prompt = content.messages[-1].content if content.messages else "\n".join(content.texts)
        self.prompts.append(prompt)
        await (self.generate or echo)(self, job, prompt)

    async def delta(self, job: Job, run: str, n: int, text: str) -> None:
        await self.broker.publish_core(
            subjects.responses(job.tenant, job.request_id), encode_delta(job.attempt, run, n, text)
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
        called: int | None = None,
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
            used_before=job.used_before,
            price=job.price,
            output=sealed,
            delta_ends=tuple(ends),
            called=called,
            error=error,
            store=job.store,
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

    async def fail(self, job: Job, run: str, text: str) -> Job:
        """Write that the answer failed its check; returns the job that follows by the plan."""
        sealed = await self.keyring.seal(
            job.tenant, job.data_subject, job.request_id, "output", text
        )
        now = datetime.now(UTC)
        failed = AttemptFailed(
            request_id=job.request_id,
            tenant=job.tenant,
            key_id=job.key_id,
            data_subject=job.data_subject,
            model=job.model,
            attempt=job.attempt,
            run=run,
            reason="schema",
            keyword="required",
            detail=sealed,
            usage=Usage(input_tokens=3, output_tokens=len(split(text))),
            used_before=job.used_before,
            price=job.price,
            output=sealed,
            timings=Timings(queued_ms=0, first_token_ms=0, total_ms=0),
            store=job.store,
            routed_at=job.routed_at,
            failed_at=now,
        )
        subject = subjects.request_event(job.tenant, job.request_id)
        sequence = await self.broker.publish(
            subject,
            failed.model_dump_json().encode(),
            Envelope(
                id=attempt_failed_id(job.request_id, job.attempt, run),
                source="/t",
                type=AttemptFailed.TYPE,
            ),
            expected_last_seq=job.expected_seq,
        )
        first = await self.broker.first_message(EVENTS, subject)
        assert first is not None
        following = Job.after(RequestRouted.model_validate_json(first.data), failed, sequence)
        assert following is not None
        return following

    async def ended(self, job: Job) -> bool:
        """Whether the job's fact stands, though its acknowledgement was lost."""
        subject = subjects.request_event(job.tenant, job.request_id)
        with contextlib.suppress(PenstockError):
            last = await self.broker.last_message(EVENTS, subject)
            return last is not None and last.event_type in TERMINAL_TYPES
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
