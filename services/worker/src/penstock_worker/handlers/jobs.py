"""One job, from its delivery to its terminal fact."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, Protocol

from pydantic import ValidationError

from penstock_shared.contracts import subjects
from penstock_shared.contracts.envelope import TRACEPARENT
from penstock_shared.contracts.errors import (
    POISON_AFTER_DELIVERIES,
    ErasedError,
    PenstockError,
    PermanentError,
    SchemaError,
)
from penstock_shared.contracts.jobs import Job, JobAddress
from penstock_shared.contracts.requests import AttemptFailed, RequestEnded, Status
from penstock_shared.contracts.streams import JOBS
from penstock_shared.runtime.clock import Clock
from penstock_shared.runtime.consumer import Delivery
from penstock_shared.runtime.dead import DeadLetters
from penstock_worker import metrics
from penstock_worker.domain.ending import (
    cancelled_unstarted,
    expired_unstarted,
    failed_unstarted,
)
from penstock_worker.domain.generation import Generation, Stop
from penstock_worker.domain.resident import Resident
from penstock_worker.errors import EngineError, HandedBackError, PoisonError, UnwantedError
from penstock_worker.handlers.answers import Answers
from penstock_worker.handlers.preparation import WRITE_MARGIN, Preparation, Prepared
from penstock_worker.handlers.residents import Residents
from penstock_worker.handlers.scheduler import Scheduler
from penstock_worker.handlers.terminals import Terminals
from penstock_worker.handlers.tickets import Ticket
from penstock_worker.ports import Cancellations

_AT_ONCE_S: Final = 0.001
_BURIED: Final = frozenset({PoisonError.default_code, EngineError.default_code})
"""Failures whose jobs lie in DEAD, too: the fact was written when they had failed three times."""
Fact = RequestEnded | AttemptFailed


class Returns(Protocol):
    """Tells jobs that killed their holders from jobs that were handed back."""

    async def crashes(self, delivery: Delivery) -> int:
        """How many processes have died on it so far; from now on this one counts, too."""
        ...


class ModelCrashes(Protocol):
    """What models are remembered for."""

    async def blame(self, model: str, request_id: str) -> bool:
        """A request was given up after its holders had died; True if that quarantines it."""
        ...


class JobHandler:
    """Runs jobs, of whichever model."""

    def __init__(
        self,
        *,
        residents: Residents,
        scheduler: Scheduler,
        preparation: Preparation,
        answers: Answers,
        terminals: Terminals,
        cancellations: Cancellations,
        returns: Returns,
        model_crashes: ModelCrashes,
        dead: DeadLetters,
        clock: Clock,
    ) -> None:
        self._residents = residents
        self._scheduler = scheduler
        self._preparation = preparation
        self._answers = answers
        self._terminals = terminals
        self._cancellations = cancellations
        self._returns = returns
        self._model_crashes = model_crashes
        self._dead = dead
        self._clock = clock

    async def on_job(self, delivery: Delivery, on_start: Callable[[], None]) -> None:
        """Run a job and write how it ended. Returns when the delivery may be acknowledged.

        `on_start` is called when the job leaves the line for a slot.
        """
        job = job_of(delivery)
        if delivery.deliveries > 1 and await self._is_over(job, delivery):
            return
        crashes = await self._returns.crashes(delivery)
        if crashes >= POISON_AFTER_DELIVERIES:
            msg = f"{crashes} workers died while they ran this request: it was given up."
            raise PoisonError(msg)
        try:
            fact, text = await self._outcome(job, delivery, crashes, on_start)
        except HandedBackError:
            metrics.HANDED_BACK.labels(job.model).inc()
            await delivery.nak(_AT_ONCE_S)
            return
        await self._write(job, fact, text, delivery.headers.get(TRACEPARENT))

    async def reject(self, delivery: Delivery, error: PenstockError) -> None:
        """Tell the client, if the job says who that is, then bury the message.

        The model is blamed first: once the fact stands, nobody comes this way again.
        """
        job = _address_of(delivery)
        if job is not None:
            if isinstance(error, PoisonError):
                await self._model_crashes.blame(job.model, job.request_id)
            ended = failed_unstarted(job, self._clock.now(), error)
            await self._write(job, ended, "", delivery.headers.get(TRACEPARENT))
        await self._dead.bury(JOBS, delivery, error)

    async def _write(self, job: JobAddress, fact: Fact, text: str, parent: str | None) -> None:
        if isinstance(fact, AttemptFailed):
            if await self._terminals.write_failed_attempt(job, fact, parent):
                metrics.ATTEMPTS_FAILED.labels(job.model, fact.reason).inc()
        elif await self._terminals.write(job, fact, text, parent):
            _count(job, fact)

    async def _is_over(self, job: Job, delivery: Delivery) -> bool:
        """Whether an earlier delivery came as far as the fact: its ack was lost, or it died.

        It may have died before its final frame, so that is shown again; and, where it gave the
        job up, before DEAD had it.
        """
        over, ended = await self._terminals.standing(job)
        if ended is not None:
            with contextlib.suppress(ErasedError):  # then there is nothing left to show
                await self._terminals.show(job, ended, await self._answers.text_of(job, ended))
            if ended.error is not None and ended.error.code in _BURIED:
                given_up = PenstockError(ended.error.message, code=ended.error.code)
                await self._dead.bury(JOBS, delivery, given_up)
        return over

    async def _outcome(
        self, job: Job, delivery: Delivery, crashes: int, on_start: Callable[[], None]
    ) -> tuple[Fact, str]:
        if not self._is_wanted(job):
            return self._unwanted(job), ""
        try:
            resident = await self._residents.acquire(job.model, lambda: self._is_wanted(job))
        except UnwantedError:
            return self._unwanted(job), ""
        except PermanentError as error:
            return failed_unstarted(job, self._clock.now(), error), ""
        try:
            prepared = await self._preparation.prepare(job, resident, holder=delivery.deliveries)
            await self._run(prepared, resident, on_start, alone=crashes > 0)
        except PermanentError as error:  # concerns this request's client and nobody else
            return failed_unstarted(job, self._clock.now(), error), ""
        finally:
            self._residents.release(resident)
        return await self._conclusion(prepared)

    async def _run(
        self, prepared: Prepared, resident: Resident, on_start: Callable[[], None], *, alone: bool
    ) -> None:
        run = prepared.run
        if isinstance(run.work, Generation) and run.work.left <= 0:
            run.work.end_at_limit()  # an earlier run delivered everything, and died before its fact
            run.started_at = self._clock.now()
            return
        ticket = Ticket(run, resident, alone, self._clock.monotonic_s(), on_start)
        self._scheduler.enter(ticket)
        job = run.job
        with self._cancellations.watching(job.tenant, job.request_id, ticket.cancel):
            if self._cancelled(job):  # it came while we prepared
                ticket.cancel()
            try:
                await ticket.done
            except asyncio.CancelledError:
                ticket.stop(Stop.ABANDONED)
                raise

    async def _conclusion(self, prepared: Prepared) -> tuple[Fact, str]:
        run = prepared.run
        if run.started_at is None:
            late = run.work.stop is Stop.EXPIRED
            end_unstarted = expired_unstarted if late else cancelled_unstarted
            return end_unstarted(run.job, self._clock.now()), ""
        metrics.PROMPT_TOKENS.labels(run.job.model).inc(run.work.input_tokens)
        metrics.OUTPUT_TOKENS.labels(run.job.model, run.job.lane.value).inc(run.output_tokens)
        return await self._answers.conclude(prepared)

    def _is_wanted(self, job: Job) -> bool:
        return not self._cancelled(job) and self._clock.now() < job.deadline - WRITE_MARGIN

    def _unwanted(self, job: Job) -> RequestEnded:
        end = cancelled_unstarted if self._cancelled(job) else expired_unstarted
        return end(job, self._clock.now())

    def _cancelled(self, job: Job) -> bool:
        return self._cancellations.cancelled(job.tenant, job.request_id)


def job_of(delivery: Delivery) -> Job:
    """The job of a delivery.

    Raises:
        SchemaError: it is none, or it lies under a subject that is not its own (I8).
    """
    try:
        job = Job.model_validate_json(delivery.data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        msg = f"This is no job that can be run: {field}: {first['msg']}."
        raise SchemaError(msg, code="job_invalid", param=field) from error
    if not _is_own(job, delivery):
        raise SchemaError("This job lies under another's subject.", code="job_misplaced")
    return job


def _address_of(delivery: Delivery) -> JobAddress | None:
    """Whose job it is, as far as it can be read; None for what lies under another's subject."""
    try:
        job = JobAddress.model_validate_json(delivery.data)
    except ValidationError:
        return None
    return job if _is_own(job, delivery) else None


def _is_own(job: JobAddress, delivery: Delivery) -> bool:
    return subjects.job(job.tenant, job.model, job.lane) == delivery.subject


def _count(job: JobAddress, ended: RequestEnded) -> None:
    lane = job.lane.value
    metrics.ENDED.labels(job.model, lane, ended.status.value).inc()
    if ended.run is not None and ended.timings is not None:
        metrics.QUEUED_MS.labels(job.model, lane).observe(ended.timings.queued_ms)
        first_ms, tokens = ended.timings.first_token_ms, ended.usage.output_tokens
        if first_ms is not None:
            metrics.FIRST_TOKEN_MS.labels(job.model, lane).observe(first_ms)
            if tokens > 1:
                per_token_ms = (ended.timings.total_ms - first_ms) / (tokens - 1)
                metrics.INTER_TOKEN_MS.labels(job.model, lane).observe(per_token_ms)
    if ended.status is Status.CANCELLED:
        if ended.run is None:
            stage = "queued"
        else:
            stage = "running" if ended.usage.output_tokens else "before first token"
        metrics.CANCELLED.labels(job.model, stage).inc()
