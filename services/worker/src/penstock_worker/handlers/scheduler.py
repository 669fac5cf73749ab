"""All slots of the process: who waits, what flies, and where it lands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, Protocol

from penstock_shared.contracts.models import ModelKind
from penstock_shared.runtime.clock import Clock
from penstock_worker import metrics
from penstock_worker.domain.batching import Room, alike, batch_size, batch_window_s
from penstock_worker.domain.generation import Generation, Stop
from penstock_worker.domain.line import Line, LinePolicy
from penstock_worker.domain.resident import Resident
from penstock_worker.errors import EngineMemoryError, HandedBackError
from penstock_worker.handlers.tickets import Ticket

_MOST_THREADS: Final = 4096


class Batches(Protocol):
    """How a batch of one kind is run."""

    async def run(
        self,
        resident: Resident,
        batch: list[Ticket],
        threads: Executor,
        company: Callable[[Sequence[Ticket]], int],
    ) -> list[Ticket]:
        """Run it to its end; returns those that shall go on in another one."""
        ...


@dataclass(frozen=True, slots=True)
class SchedulerPolicy:
    """How the slots are filled."""

    processors: int
    """Threads that may compute at once, over all models."""
    window_s: float = 0.002
    """How long a free slot waits for companions at most, while another batch runs."""
    line: LinePolicy = field(default_factory=LinePolicy)


class Scheduler:
    """Batches runs of every loaded model into the machine's slots.

    A thread per running batch waits for the engine; everything else is on the event loop.
    """

    def __init__(
        self, batches: Mapping[ModelKind, Batches], clock: Clock, policy: SchedulerPolicy
    ) -> None:
        self._batches = batches
        self._clock = clock
        self._policy = policy
        self._line: Line[Ticket] = Line(policy.line)
        self._flying: dict[asyncio.Task[None], list[Ticket]] = {}
        self._busy_threads = 0
        self._departure: asyncio.Handle | None = None
        self._departs_at_s = 0.0
        self._closed = False
        # The slots bound the threads; the pool's own default would end at 32.
        self._threads = ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix="engine")

    def enter(self, ticket: Ticket) -> None:
        """Get in line; `ticket.done` says when the work has ended.

        Raises:
            HandedBackError: the worker takes nothing new.
        """
        if self._closed:
            raise HandedBackError("This worker is draining.")
        self._line.enter(ticket)
        self._schedule()

    def waiting(self) -> Sequence[Ticket]:
        """Who is in line."""
        return tuple(self._line)

    def running(self) -> Sequence[Ticket]:
        """Who is in a batch."""
        return [one for batch in self._flying.values() for one in batch if one.boarded]

    def hand_back_waiting(self) -> None:
        """Take nothing new; whoever waits for a first batch hears HandedBackError.

        Who was cut out of one has been generating, and is finished like those in the air.
        """
        self._closed = True
        for ticket in self._line:
            if ticket.run.started_at is None:
                ticket.fail(HandedBackError("This worker is draining."))
                self._line.leave(ticket)

    async def stop(self) -> None:
        """Hand back what still runs: the engine gives up with its next token."""
        self.hand_back_waiting()
        flying = [ticket for tickets in self._flying.values() for ticket in tickets]
        for ticket in (*flying, *self._line):
            ticket.run.work.request_stop(Stop.ABANDONED)
            ticket.fail(HandedBackError("This worker stops."))
        self._line.clear()
        while self._flying:
            await asyncio.wait(self._flying)
        self._threads.shutdown()

    def _schedule(self) -> None:
        """Depart once what has arrived together is in line; linger only beside another batch."""
        if not len(self._line) or self._busy_threads >= self._policy.processors:
            return  # whoever lands comes here again
        window_s = batch_window_s(
            self._policy.window_s,
            running=len(self._flying),
            waiting=len(self._line),
            max_batch=max(ticket.resident.layout.max_batch for ticket in self._line),
        )
        loop = asyncio.get_running_loop()
        if self._departure is not None:
            if loop.time() + window_s >= self._departs_at_s:
                return
            self._departure.cancel()
        self._departs_at_s = loop.time() + window_s
        self._departure = loop.call_at(self._departs_at_s, self._depart)

    def _free_slots(self, resident: Resident) -> int:
        """How many batches of a model may start now.

        A model whose batch takes more threads than there are runs alone; one that does not
        compute (`threads` 0) is bounded by its own slots only.
        """
        layout = resident.layout
        free = layout.slots - resident.flying
        if not layout.threads:
            return free
        by_machine = (self._policy.processors - self._busy_threads) // layout.threads
        return min(free, by_machine if self._flying else max(1, by_machine))

    def _may_lead(self, ticket: Ticket, now_s: float) -> bool:
        """Whether the next batch may be its own.

        Who needs more threads than are free is passed by at first. One that has waited long leads
        all the same: then nobody starts before it, and the threads come free.
        """
        resident = ticket.resident
        if self._free_slots(resident) > 0:
            return True
        long = now_s - ticket.since_s >= self._policy.line.promote_after_s
        return long and resident.flying < resident.layout.slots

    def _room(self, leader: Ticket) -> Room:
        """What the batch that `leader` leads may hold."""
        resident = leader.resident
        free = self._free_slots(resident)
        friends = self._line.count(lambda one: one.company == leader.company)
        items = batch_size(friends, free, resident.layout.max_batch) if free > 0 else 0
        return Room(items, resident.context_budget_tokens)

    def _company(self, tickets: Sequence[Ticket]) -> int:
        """How many in line would share a batch with all of these as they are now."""
        if not tickets[0].resident.layout.threads:
            return 0  # what does not compute loses nothing by running alone
        sizes = [ticket.size_now() for ticket in tickets]
        return self._line.count(
            lambda one: (
                not one.alone
                and one.company == tickets[0].company
                and all(alike(size, one.size) for size in sizes)
            )
        )

    def _depart(self) -> None:
        self._departure = None
        now_s = self._clock.monotonic_s()
        for ticket in self._line:
            ticket.give_up_if_late(now_s)
            if ticket.done.done():
                self._line.leave(ticket)
        while batch := self._line.next_batch(
            now_s, self._room, lambda one: self._may_lead(one, now_s)
        ):
            self._board(batch)
            task = asyncio.create_task(self._fly(batch), name=f"batch-{batch[0].resident.name}")
            self._flying[task] = batch
            task.add_done_callback(self._landed)

    def _board(self, batch: list[Ticket]) -> None:
        """From here on a cancellation stops the engine instead of the waiting."""
        resident, now = batch[0].resident, self._clock.now()
        resident.flying += 1
        self._busy_threads += resident.layout.threads
        for ticket in batch:
            ticket.boarded = True
            if ticket.run.started_at is None:
                ticket.run.started_at = now
                ticket.on_start()

    def _landed(self, task: asyncio.Task[None]) -> None:
        resident = self._flying.pop(task)[0].resident
        resident.flying -= 1
        self._busy_threads -= resident.layout.threads
        self._schedule()

    async def _fly(self, batch: list[Ticket]) -> None:
        resident = batch[0].resident
        generated = [ticket.run.output_tokens for ticket in batch]
        metrics.RUNNING.labels(resident.name).inc(len(batch))
        metrics.BATCH_ITEMS.labels(resident.name).observe(len(batch))
        try:
            cut = await self._batches[resident.kind].run(
                resident, batch, self._threads, self._company
            )
        except Exception as error:  # noqa: BLE001  a bug must not hold jobs for ever
            cut = []
            for ticket in batch:
                ticket.run.work.request_stop(Stop.ABANDONED)
                ticket.fail(error)
        finally:
            metrics.RUNNING.labels(resident.name).dec(len(batch))
        for ticket, before in zip(batch, generated, strict=True):
            self._settle(ticket, ticket.run.output_tokens - before)
        if any(_out_of_memory(ticket) for ticket in batch):
            metrics.OUT_OF_MEMORY.labels(resident.name).inc()
            resident.ran_out_of_memory(len(batch))
        else:
            resident.ran_well()
        metrics.ITEMS_MOVED.labels(resident.name).inc(len(cut))
        for ticket in cut:
            if ticket.run.work.stop is not None:  # it was cancelled while it left its batch
                ticket.finish()
                continue
            ticket.size = ticket.size_now()
            self._line.enter(ticket)

    def _settle(self, ticket: Ticket, generated: int) -> None:
        """Charge what it took; what a later batch reads again is charged there."""
        ticket.boarded = False
        self._line.settle(ticket, ticket.size.length + generated)
        work = ticket.run.work
        if isinstance(work, Generation) and work.ended and work.stop in (None, Stop.LIMIT):
            ticket.resident.learn_output(len(work.tokens))


def _out_of_memory(ticket: Ticket) -> bool:
    done = ticket.done
    return done.done() and not done.cancelled() and isinstance(done.exception(), EngineMemoryError)
