"""The one writer: takes events in order, appends them in batches, publishes each checkpoint."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol

from penstock_audit import metrics
from penstock_audit.domain.checkpoint import Checkpoint, encode_root
from penstock_audit.errors import AuditError, DiskRefusedError, EventLogError, ForkError
from penstock_audit.ports import CheckpointBoard, EventFeed, StreamEvent
from penstock_shared.contracts.audit import AuditCheckpointed
from penstock_shared.contracts.errors import TransientError
from penstock_shared.runtime.clock import Clock
from penstock_shared.runtime.telemetry import log

_RETRY_S: Final = 1.0


class EventLog(Protocol):
    """The log as its writer sees it."""

    @property
    def checkpoint(self) -> Checkpoint:
        """The latest signed checkpoint."""
        ...

    def append(self, events: Sequence[StreamEvent]) -> Checkpoint:
        """Append and sign; after an OSError nothing has changed."""
        ...

    def root_at(self, size: int) -> bytes:
        """The root that the tree had at `size`."""
        ...


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """When a checkpoint is due."""

    max_events: int
    linger_s: float
    max_bytes: int = 16 * 1024 * 1024
    """Of event data: a batch of large events must fit into memory, several times."""


class Batch:
    """Events that wait to be signed."""

    def __init__(self, policy: BatchPolicy) -> None:
        self.events: list[StreamEvent] = []
        self._policy = policy
        self._bytes = 0
        self._foreign = False

    def add(self, event: StreamEvent) -> None:
        """Take one more, behind the others."""
        self.events.append(event)
        self._bytes += len(event.data)
        self._foreign = self._foreign or event.event_type != AuditCheckpointed.TYPE

    @property
    def is_full(self) -> bool:
        """Whether it must be signed before it takes more."""
        return len(self.events) >= self._policy.max_events or self._bytes >= self._policy.max_bytes

    @property
    def is_due(self) -> bool:
        """Whether to sign it at all: own checkpoint facts alone would lead to one another."""
        return self._foreign or self.is_full


class AuditWriter:
    """Appends batches for ever. What it is stopped by is in `problem`."""

    def __init__(
        self,
        event_log: EventLog,
        feed: EventFeed,
        board: CheckpointBoard,
        policy: BatchPolicy,
        clock: Clock,
    ) -> None:
        self.problem: str | None = None
        self.signed_at_s = clock.monotonic_s()
        """When the last checkpoint was signed (monotonic), or when this process began."""
        self._log = event_log
        self._feed = feed
        self._board = board
        self._policy = policy
        self._clock = clock
        self._batch = Batch(policy)
        self._announced_size = 0
        self._foretold: AuditCheckpointed | None = None
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="audit-disk")
        self._task: asyncio.Task[None] | None = None
        self._waiting = False
        self._draining = False
        self._phase = ""
        self._troubled_phase: str | None = None
        """Where `problem` arose: only success there ends it."""

    async def start(self) -> None:
        """Compare the log with what was published, then begin to write.

        Raises:
            ForkError: a published checkpoint contradicts the log.
            UnavailableError: EVENTS does not answer.
        """
        published = await self._board.latest()
        if published is not None:
            self._announced_size = published.tree_size
            self._foretold = published
            self._check_foretold()
        metrics.TREE_SIZE.set(self._log.checkpoint.size)
        self._task = asyncio.create_task(self._run(), name="audit-writer")

    async def drain(self) -> None:
        """Finish the batch that is being written, and publish its checkpoint.

        Events that wait for their batch stay in EVENTS: the next start reads them again.
        """
        self._draining = True
        if self._task is not None:
            if self._waiting:
                self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self.problem is None:
            with contextlib.suppress(TransientError, AuditError):
                await self._announce()

    async def stop(self) -> None:
        """Stop at once; a batch that is being written is not torn."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._disk.shutdown(wait=True)

    def halt(self, error: AuditError) -> None:
        """Write nothing more until an operator has looked."""
        metrics.FAILURES.labels(error.code).inc()
        log().error("audit.halted", code=error.code, message=error.message)
        self.problem = error.message
        self._draining = True
        if self._waiting and self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while not self._draining:
            try:
                await self._step()
            except (EventLogError, TransientError) as error:
                await self._pause(error.message)
            except AuditError as error:
                self.halt(error)
            except Exception as error:  # noqa: BLE001  a bug must be seen, not end the log
                log().error("audit.failed", kind=type(error).__name__, exc_info=error)
                await self._pause(f"The audit writer failed ({type(error).__name__}).")

    async def _step(self) -> None:
        for phase in (self._announce, self._collect, self._commit):
            if self._draining:  # whoever drains waits for us, and no event may come any more
                return
            self._phase = phase.__name__
            await phase()
            if self._troubled_phase == self._phase and not self._draining:
                self.problem = self._troubled_phase = None

    async def _pause(self, problem: str) -> None:
        if problem != self.problem:
            log().error("audit.stalled", problem=problem)
        self.problem, self._troubled_phase = problem, self._phase
        self._waiting = True
        await asyncio.sleep(_RETRY_S)
        self._waiting = False

    async def _collect(self) -> None:
        """Fill the batch until it is due, then give others a moment to join."""
        self._waiting = True
        while not self._batch.is_due:
            self._batch.add(await self._feed.get())
            self._take_what_is_here()
        if not self._batch.is_full:
            await asyncio.sleep(self._policy.linger_s)
            self._take_what_is_here()
        self._waiting = False

    def _take_what_is_here(self) -> None:
        while not self._batch.is_full and (event := self._feed.get_nowait()) is not None:
            self._batch.add(event)

    async def _commit(self) -> None:
        """Append the batch in a thread: it hashes, writes and syncs."""
        batch = self._batch.events
        loop = asyncio.get_running_loop()
        try:
            with metrics.APPEND_SECONDS.time():
                checkpoint = await loop.run_in_executor(self._disk, self._log.append, batch)
        except OSError as error:
            metrics.WRITE_ERRORS.inc()
            reason = errno.errorcode.get(error.errno or 0, "unknown")
            msg = f"The disk refuses the audit log ({reason})."
            raise DiskRefusedError(msg) from error
        self._batch = Batch(self._policy)
        self.signed_at_s = self._clock.monotonic_s()
        metrics.ENTRIES.inc(len(batch))
        metrics.CHECKPOINTS.inc()
        metrics.TREE_SIZE.set(checkpoint.size)
        log().debug("batch.signed", size=checkpoint.size, events=len(batch))

    async def _announce(self) -> None:
        """Publish the latest checkpoint if it was not, by this process or the one before."""
        self._check_foretold()
        checkpoint = self._log.checkpoint
        if self._foretold is not None or checkpoint.size <= self._announced_size:
            return
        await self._board.publish(
            AuditCheckpointed(
                tree_size=checkpoint.size,
                root_hash=checkpoint.root_base64,
                events_seq=checkpoint.size,
                checkpoint=checkpoint.note,
            )
        )
        self._announced_size = checkpoint.size

    def _check_foretold(self) -> None:
        """A checkpoint of this log may be published that its files lack: an older copy runs.

        The same events must lead to the same root, so the copy catches up before it publishes.
        """
        told = self._foretold
        if told is None or self._log.checkpoint.size < told.tree_size:
            return
        root = encode_root(self._log.root_at(told.tree_size))
        if root != told.root_hash:
            msg = (
                f"The checkpoint that was published for {told.tree_size} entries has another root "
                "than this log: one of the two was forged or restored wrongly."
            )
            raise ForkError(msg)
        self._foretold = None
