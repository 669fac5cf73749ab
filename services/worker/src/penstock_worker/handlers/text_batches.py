"""Runs a batch of generations: engine, deltas, and stragglers that go on in another batch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import cast

from penstock_shared.runtime.clock import Clock
from penstock_worker import metrics
from penstock_worker.domain.batching import CutRule, worth_cutting
from penstock_worker.domain.generation import Generation
from penstock_worker.domain.resident import Resident
from penstock_worker.errors import EngineError, EngineMemoryError
from penstock_worker.handlers.flight import Flight
from penstock_worker.handlers.tickets import Ticket
from penstock_worker.ports import Prompt, ResponseSink, TextEngine

Company = Callable[[Sequence[Ticket]], int]
"""How many in line would share a batch with these tickets, as long as they are now."""


class TextBatches:
    """What the scheduler's slots do with generations."""

    def __init__(
        self, sink: ResponseSink, clock: Clock, *, delta_interval_s: float, cut: CutRule
    ) -> None:
        self._sink = sink
        self._clock = clock
        self._delta_interval_s = delta_interval_s
        self._cut = cut

    async def run(
        self, resident: Resident, batch: list[Ticket], threads: Executor, company: Company
    ) -> list[Ticket]:
        """Run one batch to its end; returns those that were cut, to go on in another one."""
        engine = cast("TextEngine", resident.engine)  # its kind was checked at the door
        generations = [_generation(ticket) for ticket in batch]
        loop = asyncio.get_running_loop()
        flight = Flight(generations, self._clock.monotonic_s, self._delta_interval_s, loop)
        work = loop.run_in_executor(
            threads,
            engine.generate,
            [_prompt(engine, one) for one in generations],
            generations[0].options,
            max(one.left for one in generations),
            flight,
        )
        work.add_done_callback(flight.landed)
        aboard = batch
        while aboard and not work.done():
            await flight.progress()
            aboard = [ticket for ticket in aboard if not await self._pass_on(ticket)]
            enough = len(batch) > self._cut.stragglers
            if enough and not work.done() and self._worth_cutting(aboard, company):
                for ticket in aboard:
                    _generation(ticket).cut = True
        await asyncio.wait([work])  # the slot is free when the engine has returned
        return await self._land(aboard, work.exception())

    def _worth_cutting(self, aboard: Sequence[Ticket], company: Company) -> bool:
        if not 0 < len(aboard) <= self._cut.stragglers:
            return False
        left = [ticket.size_now() for ticket in aboard]
        return worth_cutting(self._cut, left, company(aboard))

    async def _land(self, aboard: Sequence[Ticket], error: BaseException | None) -> list[Ticket]:
        """The engine has returned: whoever was cut goes on, the others have ended or are lost."""
        cut = []
        for ticket in aboard:
            one = _generation(ticket)
            if error is not None and not one.ended:
                ticket.fail(_known(error))
            elif one.cut and not one.ended:
                one.cut = False
                await self._pass_on(ticket)
                cut.append(ticket)
            else:
                one.ended = True  # it came to its end without saying so
                await self._pass_on(ticket)
        return [ticket for ticket in cut if not ticket.done.done()]

    async def _pass_on(self, ticket: Ticket) -> bool:
        """Publish what is new of one run; True once it is over."""
        if ticket.done.done():  # failed, or handed back
            return True
        run, one = ticket.run, _generation(ticket)
        text, ended = one.take()
        if run.first_token_at is None and one.tokens:
            run.first_token_at = self._clock.now()
        if text and not one.withheld:
            n = one.delta_numbers[-1]
            await self._sink.delta(run.subject, run.job.attempt, run.run_id, n, text)
            metrics.DELTAS.labels(run.job.model).inc()
        if ended:
            ticket.finish()
        return ended


def _generation(ticket: Ticket) -> Generation:
    return cast("Generation", ticket.run.work)


def _prompt(engine: TextEngine, one: Generation) -> Prompt:
    return one.start_from(engine.token_names(one.tokens) if one.tokens else ())


def _known(error: BaseException) -> Exception:
    known = isinstance(error, (EngineError, EngineMemoryError))
    return error if known else EngineError(type(error).__name__)  # type: ignore[return-value]
