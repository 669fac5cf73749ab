"""A run in line for the model that it holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from penstock_shared.contracts.subjects import Lane
from penstock_worker.domain.batching import Size
from penstock_worker.domain.ending import Run
from penstock_worker.domain.generation import Generation, Stop
from penstock_worker.domain.resident import Resident


@dataclass(slots=True, eq=False)
class Ticket:
    """A run in line; `done` resolves when its work has ended."""

    run: Run
    resident: Resident
    alone: bool
    since_s: float
    on_start: Callable[[], None]
    done: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    boarded: bool = field(default=False, init=False)
    """In a batch now."""
    size: Size = field(init=False)
    """What it was charged for, as of the last time that it got in line."""

    def __post_init__(self) -> None:
        self.size = self.size_now()

    def size_now(self) -> Size:
        """What it asks of its next batch."""
        work = self.run.work
        if not isinstance(work, Generation):
            return Size(length=work.input_tokens, expected=0)
        done = len(work.tokens)
        return Size(
            length=len(work.prompt) + len(work.begun) + done,
            expected=max(1, self.resident.expected_output(work.limit) - done),
        )

    @property
    def lane(self) -> Lane:
        """Its lane; who was cut out of a running batch goes first."""
        return self.run.job.lane if self.run.started_at is None else Lane.INTERACTIVE

    @property
    def tenant(self) -> str:
        """Whose share it takes."""
        return self.run.job.tenant

    @property
    def weight(self) -> int:
        """The tenant's share, relative to the others'."""
        return self.run.job.weight

    @property
    def company(self) -> Hashable:
        """Only equals share a batch."""
        work = self.run.work
        return id(self.resident), work.options if isinstance(work, Generation) else None

    def cancel(self) -> None:
        """Stop it with its next token, or take it out of the line at once."""
        self.stop(Stop.CANCELLED)

    def give_up_if_late(self, now_s: float) -> None:
        """Take it out of the line when there is no time left to run it."""
        if now_s >= self.run.work.stop_at_s:
            self.stop(Stop.EXPIRED)

    def stop(self, why: Stop) -> None:
        """End it: in line now, in a batch with its next token."""
        self.run.work.request_stop(why)
        if not self.boarded:
            self.finish()

    def finish(self) -> None:
        """Its work has ended."""
        if not self.done.done():
            self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        """Its work was lost."""
        if not self.done.done():
            self.done.set_exception(error)
