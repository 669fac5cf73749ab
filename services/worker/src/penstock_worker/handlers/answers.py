"""From a run that has ended to the fact that says how."""

from __future__ import annotations

import asyncio

from penstock_shared.contracts.errors import ErasedError
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.requests import AttemptFailed, RequestEnded
from penstock_shared.runtime.clock import Clock
from penstock_shared.runtime.keyring import Keyring
from penstock_worker.domain.ending import Run, end_of_run, failed_attempt
from penstock_worker.domain.flaw import TRUNCATED, UNCALLED, Flaw, confidence, unsure
from penstock_worker.domain.generation import Generation, Stop
from penstock_worker.handlers.preparation import Prepared


class Answers:
    """Checks what was generated, and seals it."""

    def __init__(self, keyring: Keyring, clock: Clock) -> None:
        self._keyring = keyring
        self._clock = clock

    async def conclude(self, prepared: Prepared) -> tuple[RequestEnded | AttemptFailed, str]:
        """The fact of a run, and the text that goes with its final frame.

        A run that did not end by itself (cancelled, expired) is not checked, and shows nothing
        that was withheld.
        """
        run, work = prepared.run, prepared.run.work
        sure = _confidence(run)
        called = await _called(prepared)
        text = work.text
        if isinstance(work, Generation) and work.withheld:
            if work.stop not in (None, Stop.LIMIT):
                text = ""
            elif (flaw := await _flaw(prepared, sure, called)) is not None:
                return await self._flawed(run, flaw, sure)
            else:
                work.release()
        return await self._sealed(run, text, sure, called)

    async def _sealed(
        self, run: Run, text: str, sure: float | None, called: int | None
    ) -> tuple[RequestEnded, str]:
        """The fact with its answer sealed; without it when the key was destroyed."""
        try:
            output = await self._seal(run.job, "output", text)
        except ErasedError as error:
            return end_of_run(run, self._clock.now(), None, error=error), ""
        now = self._clock.now()
        return end_of_run(run, now, output, confidence=sure, called=called), text

    async def _flawed(
        self, run: Run, flaw: Flaw, sure: float | None
    ) -> tuple[RequestEnded | AttemptFailed, str]:
        """An answer that failed its check ends the request, or only this attempt."""
        now = self._clock.now()
        if run.job.final_attempt:
            return end_of_run(run, now, None, confidence=sure, error=flaw.error()), ""
        try:
            detail = await self._seal(run.job, "check", flaw.detail)
            output = await self._seal(run.job, "output", run.work.text)
        except ErasedError as error:
            return end_of_run(run, now, None, error=error), ""
        return (
            failed_attempt(
                run,
                now,
                reason=flaw.reason,
                keyword=flaw.keyword,
                sealed_detail=detail,
                sealed=output,
                confidence=sure,
            ),
            "",
        )

    async def _seal(self, job: Job, field: str, text: str) -> str:
        return await self._keyring.seal(job.tenant, job.data_subject, job.request_id, field, text)

    async def text_of(self, job: Job, ended: RequestEnded) -> str:
        """The answer of a fact that stands already.

        Raises:
            ErasedError: its key was destroyed.
        """
        if ended.output is None:
            return ""
        opened = await self._keyring.open(
            job.tenant, job.data_subject, job.request_id, "output", ended.output
        )
        return opened.decode()


def _confidence(run: Run) -> float | None:
    work = run.work
    return confidence(work.log_prob, len(work.tokens)) if isinstance(work, Generation) else None


async def _called(prepared: Prepared) -> int | None:
    work = prepared.run.work
    if work.stop is not None or not prepared.functions.parameters:
        return None
    return await asyncio.to_thread(prepared.functions.called, work.text)


async def _flaw(prepared: Prepared, sure: float | None, called: int | None) -> Flaw | None:
    """What is wrong with an answer; a call satisfies its function, and no other schema."""
    job, work = prepared.run.job, prepared.run.work
    cut_off = work.stop is Stop.LIMIT
    if called is None and prepared.functions.must_call:
        keyword = TRUNCATED if cut_off else UNCALLED
        return Flaw("schema", "The answer calls no function.", keyword)
    if called is None and prepared.schema is not None:
        if cut_off:
            return Flaw("schema", "The answer was cut off at its token limit.", TRUNCATED)
        # In a thread however short it is: a short answer to a wide schema takes as long.
        failure = await asyncio.to_thread(prepared.schema.check, work.text)
        if failure is not None:
            return Flaw("schema", failure.detail, failure.keyword)
    return unsure(sure, job.min_confidence)
