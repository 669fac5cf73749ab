"""One job, from its delivery to its terminal fact."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from pydantic import ValidationError

from penstock_shared.contracts import subjects
from penstock_shared.contracts.envelope import TRACEPARENT
from penstock_shared.contracts.errors import (
    POISON_AFTER_DELIVERIES,
    ErasedError,
    PenstockError,
    SchemaError,
)
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.requests import Content, RequestEnded
from penstock_shared.contracts.streams import JOBS
from penstock_shared.runtime.clock import Clock, IdSource
from penstock_shared.runtime.consumer import Delivery
from penstock_shared.runtime.dead import DeadLetters
from penstock_shared.runtime.keyring import Keyring
from penstock_worker import metrics
from penstock_worker.domain.ending import (
    Run,
    cancelled_unstarted,
    end_of_run,
    expired_unstarted,
    failed_unstarted,
)
from penstock_worker.domain.generation import Generation, Stop
from penstock_worker.errors import ContextLengthError, ConversationError, HandedBackError
from penstock_worker.handlers.runner import ModelRunner
from penstock_worker.handlers.terminals import Terminals
from penstock_worker.ports import Cancellations, SamplingOptions, TextEngine

WRITE_MARGIN: Final = timedelta(seconds=0.5)
"""A run stops so long before its deadline: the fact must be written within it."""
_LONG_BYTES: Final = 8 * 1024
_AT_ONCE_S: Final = 0.001
_REQUEST_FAULTS: Final = (ContextLengthError, ConversationError, ErasedError)
"""Errors that concern one request's client and nobody else: a terminal, but no dead letter."""


class JobHandler:
    """Runs the jobs of one model."""

    def __init__(
        self,
        model: str,
        engine: TextEngine,
        runner: ModelRunner,
        terminals: Terminals,
        cancellations: Cancellations,
        keyring: Keyring,
        dead: DeadLetters,
        clock: Clock,
        ids: IdSource,
    ) -> None:
        self._model = model
        self._engine = engine
        self._runner = runner
        self._terminals = terminals
        self._cancellations = cancellations
        self._keyring = keyring
        self._dead = dead
        self._clock = clock
        self._ids = ids

    async def on_job(self, delivery: Delivery, on_start: Callable[[], None]) -> None:
        """Run a job and write how it ended. Returns when the delivery may be acknowledged.

        `on_start` is called when the job leaves the line for a slot.
        """
        job = job_of(delivery)
        if delivery.deliveries > 1 and await self._is_over(job):
            return
        try:
            ended, text = await self._outcome(job, delivery.deliveries, on_start)
        except HandedBackError:
            metrics.HANDED_BACK.labels(self._model).inc()
            await delivery.nak(_AT_ONCE_S)
            return
        if await self._terminals.write(job, ended, text, delivery.headers.get(TRACEPARENT)):
            _count(job, ended)

    async def reject(self, delivery: Delivery, error: PenstockError) -> None:
        """Tell the client, if the job says who that is, then bury the message."""
        try:
            job = job_of(delivery)
        except SchemaError:
            job = None
        if job is not None:
            ended = failed_unstarted(job, self._clock.now(), error)
            parent = delivery.headers.get(TRACEPARENT)
            if await self._terminals.write(job, ended, "", parent):
                _count(job, ended)
        await self._dead.bury(JOBS, delivery, error)

    async def _is_over(self, job: Job) -> bool:
        """Whether an earlier delivery came as far as the fact: its ack was lost, or it died.

        It may have died before its final frame, so that is shown again.
        """
        over, ended = await self._terminals.standing(job)
        if ended is not None:
            with contextlib.suppress(ErasedError):  # then there is nothing left to show
                await self._terminals.show(job, ended, await self._output(job, ended))
        return over

    async def _output(self, job: Job, ended: RequestEnded) -> str:
        if ended.output is None:
            return ""
        return (await self._open(job, "output", ended.output)).decode()

    async def _outcome(
        self, job: Job, deliveries: int, on_start: Callable[[], None]
    ) -> tuple[RequestEnded, str]:
        now = self._clock.now()
        if self._cancelled(job):
            return cancelled_unstarted(job, now), ""
        if now >= job.deadline - WRITE_MARGIN:
            return expired_unstarted(job, now), ""
        try:
            run = await self._prepare(job, alone=deliveries > 1)
        except _REQUEST_FAULTS as error:
            return failed_unstarted(job, self._clock.now(), error), ""
        if deliveries > POISON_AFTER_DELIVERIES:
            msg = f"The request was begun {deliveries - 1} times and never ended: it was given up."
            raise PenstockError(msg, code="poison")
        await self._generate(run, on_start)
        if run.started_at is None:
            late = run.generation.stop is Stop.EXPIRED
            end_unstarted = expired_unstarted if late else cancelled_unstarted
            return end_unstarted(job, self._clock.now()), ""
        return await self._sealed(run)

    async def _generate(self, run: Run, on_start: Callable[[], None]) -> None:
        job = run.job
        ticket = self._runner.enter(run, on_start)
        with self._cancellations.watching(job.tenant, job.request_id, ticket.cancel):
            if self._cancelled(job):  # it came while we prepared
                ticket.cancel()
            await ticket.done

    def _cancelled(self, job: Job) -> bool:
        return self._cancellations.cancelled(job.tenant, job.request_id)

    async def _prepare(self, job: Job, *, alone: bool) -> Run:
        """Open the content, render and tokenise it.

        Raises:
            ContextLengthError: the prompt leaves no room for an answer.
            ConversationError: the model's template refuses it.
            ErasedError: the content's key was destroyed.
            TransientError: the key is not there yet.
        """
        prompt = await self._prompt(await self._open(job, "content", job.content))
        room = self._engine.context_tokens - len(prompt)
        if room <= 0:
            msg = (
                f"The input has {len(prompt)} tokens, and {self._model} takes "
                f"{self._engine.context_tokens} with the answer: shorten it."
            )
            raise ContextLengthError(msg, param="input")
        sampling, remaining = job.sampling, job.deadline - WRITE_MARGIN - self._clock.now()
        return Run(
            job=job,
            run_id=self._ids.new(),
            subject=subjects.responses(job.tenant, job.request_id),
            generation=Generation(
                prompt=prompt,
                options=(
                    SamplingOptions(sampling.temperature, sampling.top_p)
                    if sampling.temperature
                    else SamplingOptions()
                ),
                lane=job.lane,
                limit=min(sampling.max_output_tokens or room, room),
                stop_at_s=self._clock.monotonic_s() + remaining.total_seconds(),
                detokenizer=self._engine.detokenizer(),
                alone=alone,
            ),
        )

    async def _prompt(self, content: bytes) -> list[str]:
        messages = Content.model_validate_json(content).messages
        if len(content) > _LONG_BYTES:  # tokenising it here would hold up every stream
            return await asyncio.to_thread(self._engine.encode, messages)
        return self._engine.encode(messages)

    async def _open(self, job: Job, field: str, sealed: str) -> bytes:
        return await self._keyring.open(job.tenant, job.data_subject, job.request_id, field, sealed)

    async def _sealed(self, run: Run) -> tuple[RequestEnded, str]:
        """The fact of a run with its answer sealed; without it when the key was destroyed."""
        job, text = run.job, run.generation.text
        metrics.PROMPT_TOKENS.labels(self._model).inc(run.generation.prompt_tokens)
        metrics.OUTPUT_TOKENS.labels(self._model).inc(len(run.generation.tokens))
        try:
            output = await self._keyring.seal(
                job.tenant, job.data_subject, job.request_id, "output", text
            )
        except ErasedError as error:
            return end_of_run(run, self._clock.now(), None, error), ""
        return end_of_run(run, self._clock.now(), output), text


def job_of(delivery: Delivery) -> Job:
    """The job of a delivery.

    Raises:
        SchemaError: it is none, or it lies under a subject that is not its own (I8).
    """
    try:
        job = Job.model_validate_json(delivery.data)
    except ValidationError as error:
        raise SchemaError("This is no job.", code="job_invalid") from error
    if subjects.job(job.tenant, job.model, job.lane) != delivery.subject:
        raise SchemaError("This job lies under another's subject.", code="job_misplaced")
    return job


def _count(job: Job, ended: RequestEnded) -> None:
    lane = job.lane.value
    metrics.ENDED.labels(job.model, lane, ended.status.value).inc()
    if ended.run is not None and ended.timings is not None:
        metrics.QUEUED_MS.labels(job.model, lane).observe(ended.timings.queued_ms)
        if ended.timings.first_token_ms is not None:
            metrics.FIRST_TOKEN_MS.labels(job.model, lane).observe(ended.timings.first_token_ms)
