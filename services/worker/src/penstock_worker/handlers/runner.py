"""One model's slots: who waits, what flies, and what comes out of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from penstock_shared.contracts.subjects import Lane
from penstock_shared.runtime.clock import Clock
from penstock_worker import metrics
from penstock_worker.domain.batching import batch_size, pick
from penstock_worker.domain.ending import Run
from penstock_worker.domain.generation import Generation, Stop
from penstock_worker.errors import EngineError, HandedBackError
from penstock_worker.handlers.flight import Flight
from penstock_worker.ports import ResponseSink, SamplingOptions, TextEngine


@dataclass(slots=True, eq=False)
class Ticket:
    """A run in line; `done` resolves when its generation has ended."""

    run: Run
    done: asyncio.Future[None]
    on_start: Callable[[], None]

    @property
    def lane(self) -> Lane:
        """Its lane."""
        return self.run.generation.lane

    @property
    def prompt_tokens(self) -> int:
        """Its prompt's length."""
        return self.run.generation.prompt_tokens

    @property
    def options(self) -> SamplingOptions:
        """How it samples."""
        return self.run.generation.options

    @property
    def alone(self) -> bool:
        """Whether it may have company."""
        return self.run.generation.alone

    def cancel(self) -> None:
        """Stop it with its next token, or take it out of the line at once."""
        self._stop(Stop.CANCELLED)

    def give_up_if_late(self, now_s: float) -> None:
        """Take it out of the line when there is no time left to run it."""
        if now_s >= self.run.generation.stop_at_s:
            self._stop(Stop.EXPIRED)

    def _stop(self, why: Stop) -> None:
        self.run.generation.request_stop(why)
        if self.run.started_at is None and not self.done.done():
            self.done.set_result(None)


class ModelRunner:
    """Batches runs of one model into its engine's slots.

    A thread per slot waits for the engine; everything else happens on the event loop.
    """

    def __init__(
        self,
        model: str,
        engine: TextEngine,
        sink: ResponseSink,
        clock: Clock,
        *,
        batch_window_s: float,
        delta_interval_s: float,
    ) -> None:
        self._model = model
        self._engine = engine
        self._sink = sink
        self._clock = clock
        self._batch_window_s = batch_window_s
        self._delta_interval_s = delta_interval_s
        self._waiting: list[Ticket] = []
        self._flying: dict[asyncio.Task[None], list[Ticket]] = {}
        self._departure: asyncio.Handle | None = None
        self._closed = False
        self._threads = ThreadPoolExecutor(engine.slots, thread_name_prefix=f"engine-{model}")
        self._running_gauge = metrics.RUNNING.labels(model)
        self._items_histogram = metrics.BATCH_ITEMS.labels(model)
        self._deltas_counter = metrics.DELTAS.labels(model)

    def enter(self, run: Run, on_start: Callable[[], None]) -> Ticket:
        """Get in line.

        Raises:
            HandedBackError: the worker takes nothing new.
        """
        if self._closed:
            raise HandedBackError("This worker is draining.")
        ticket = Ticket(run, asyncio.get_running_loop().create_future(), on_start)
        self._waiting.append(ticket)
        self._schedule()
        return ticket

    def hand_back_waiting(self) -> None:
        """Take nothing new; whoever waits hears HandedBackError."""
        self._closed = True
        for ticket in self._waiting:
            _fail(ticket, HandedBackError("This worker is draining."))
        self._waiting.clear()

    async def stop(self) -> None:
        """Hand back what still runs: the engine gives up with its next token."""
        self.hand_back_waiting()
        for tickets in self._flying.values():
            for ticket in tickets:
                ticket.run.generation.request_stop(Stop.ABANDONED)
                _fail(ticket, HandedBackError("This worker stops."))
        if self._flying:
            await asyncio.wait(self._flying)
        self._threads.shutdown()
        self._engine.close()

    def _schedule(self) -> None:
        """Depart once what has arrived together is in line; linger only beside another batch."""
        if self._departure is not None or not self._waiting or self._free_slots() <= 0:
            return
        loop = asyncio.get_running_loop()
        if self._flying and self._batch_window_s:
            self._departure = loop.call_later(self._batch_window_s, self._depart)
        else:
            self._departure = loop.call_soon(self._depart)

    def _free_slots(self) -> int:
        return self._engine.slots - len(self._flying)

    def _depart(self) -> None:
        self._departure = None
        now_s = self._clock.monotonic_s()
        for ticket in self._waiting:
            ticket.give_up_if_late(now_s)
        self._waiting = [ticket for ticket in self._waiting if not ticket.done.done()]
        while self._waiting and (free := self._free_slots()) > 0:
            size = batch_size(len(self._waiting), free, self._engine.max_batch)
            batch = pick(self._waiting, size)
            self._board(batch)
            task = asyncio.create_task(self._fly(batch), name=f"batch-{self._model}")
            self._flying[task] = batch
            task.add_done_callback(self._landed)

    def _landed(self, task: asyncio.Task[None]) -> None:
        del self._flying[task]
        self._schedule()

    def _board(self, batch: list[Ticket]) -> None:
        """From here on a cancellation stops the engine instead of the waiting."""
        now = self._clock.now()
        for ticket in batch:
            ticket.run.started_at = now
            ticket.on_start()
        taken = set(batch)
        self._waiting = [ticket for ticket in self._waiting if ticket not in taken]

    async def _fly(self, batch: list[Ticket]) -> None:
        self._running_gauge.inc(len(batch))
        self._items_histogram.observe(len(batch))
        try:
            await self._generate(batch)
        except Exception as error:  # noqa: BLE001  a bug must not hold jobs for ever
            for ticket in batch:
                ticket.run.generation.request_stop(Stop.ABANDONED)
                _fail(ticket, error)
        finally:
            self._running_gauge.dec(len(batch))

    async def _generate(self, batch: list[Ticket]) -> None:
        generations = [ticket.run.generation for ticket in batch]
        loop = asyncio.get_running_loop()
        flight = Flight(generations, self._clock.monotonic_s, self._delta_interval_s, loop)
        engine = loop.run_in_executor(
            self._threads,
            self._engine.generate,
            [one.prompt for one in generations],
            generations[0].options,
            max(one.limit for one in generations),
            flight,
        )
        engine.add_done_callback(flight.landed)
        aboard = batch
        while aboard:
            await flight.progress()
            if engine.done():
                _settle(generations, aboard, engine.exception())
            aboard = [ticket for ticket in aboard if not await self._pass_on(ticket)]
        await asyncio.wait([engine])  # the slot is free when the engine has returned

    async def _pass_on(self, ticket: Ticket) -> bool:
        """Publish what is new of one run; True once it is over."""
        if ticket.done.done():  # failed, or handed back
            return True
        run = ticket.run
        text, ended = run.generation.take()
        if run.first_token_at is None and run.generation.tokens:
            run.first_token_at = self._clock.now()
        if text:
            n = len(run.generation.delta_ends) - 1
            await self._sink.delta(run.subject, run.job.attempt, run.run_id, n, text)
            self._deltas_counter.inc()
        if ended and not ticket.done.done():
            ticket.done.set_result(None)
        return ended


def _settle(
    generations: Sequence[Generation], aboard: Sequence[Ticket], error: BaseException | None
) -> None:
    """The engine has returned: whoever had not ended has now, or is lost with it."""
    if error is None:
        for one in generations:
            one.ended = True
        return
    known = error if isinstance(error, EngineError) else EngineError(type(error).__name__)
    for ticket in aboard:
        if not ticket.run.generation.ended:
            _fail(ticket, known)


def _fail(ticket: Ticket, error: Exception) -> None:
    if not ticket.done.done():
        ticket.done.set_exception(error)
