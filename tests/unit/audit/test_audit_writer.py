"""The writer between a feed, a disk and a board that all may fail."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest
from tests.support.audit_log import SIGNER, FragileDisk, event, events

from penstock_audit.adapters.tile_log import TileLog
from penstock_audit.domain.checkpoint import encode_root
from penstock_audit.errors import EventLogError, FencedError, ForkError
from penstock_audit.handlers import AuditWriter, BatchPolicy
from penstock_audit.ports import StreamEvent
from penstock_shared.contracts.audit import AuditCheckpointed
from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.runtime.clock import SystemClock


class Feed:
    """Events by hand."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[StreamEvent] = asyncio.Queue()
        self.error: Exception | None = None

    def put(self, *given: StreamEvent) -> None:
        for one in given:
            self.queue.put_nowait(one)

    async def get(self) -> StreamEvent:
        if self.error is not None:
            raise self.error
        return await self.queue.get()

    def get_nowait(self) -> StreamEvent | None:
        return None if self.queue.empty() else self.queue.get_nowait()


@dataclass
class Board:
    """What was published."""

    facts: list[AuditCheckpointed] = field(default_factory=list)
    before: AuditCheckpointed | None = None
    error: Exception | None = None

    async def latest(self) -> AuditCheckpointed | None:
        return self.before

    async def publish(self, fact: AuditCheckpointed) -> None:
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        self.facts.append(fact)


@dataclass
class Bench:
    """A writer with everything around it."""

    feed: Feed
    board: Board
    disk: FragileDisk
    log: TileLog
    writer: AuditWriter

    @property
    def sizes(self) -> list[int]:
        return [fact.tree_size for fact in self.board.facts]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr("penstock_audit.handlers._RETRY_S", 0.005)
    made = make_bench()
    await made.writer.start()
    yield made
    await made.writer.stop()


def make_bench(board: Board | None = None, size: int = 0, max_bytes: int = 1_000) -> Bench:
    feed, disk, board = Feed(), FragileDisk(random.Random(1)), board or Board()
    log = TileLog(disk, SIGNER)
    log.open()
    if size:
        log.append(events(1, size))
    policy = BatchPolicy(max_events=10, linger_s=0.002, max_bytes=max_bytes)
    return Bench(feed, board, disk, log, AuditWriter(log, feed, board, policy, SystemClock()))


async def test_batches_are_bounded_and_published(bench: Bench) -> None:
    """25 events at once: three checkpoints, each published after it was signed."""
    bench.feed.put(*events(1, 25))
    await until(lambda: bench.sizes == [10, 20, 25])
    assert bench.board.facts[-1].checkpoint == bench.log.checkpoint.note
    assert bench.board.facts[-1].root_hash == encode_root(bench.log.root_at(25))


async def test_batches_of_large_events_are_bounded_by_bytes() -> None:
    """A flood of large events must not fill the memory: 3 of 9 bytes make a batch of 20."""
    bench = make_bench(max_bytes=20)
    bench.feed.put(*[event(seq, data=b"x" * 9) for seq in range(1, 8)])
    await bench.writer.start()
    await until(lambda: bench.sizes == [3, 6, 7])
    await bench.writer.stop()


async def test_own_facts_wait_for_others(bench: Bench) -> None:
    """A checkpoint fact alone makes no batch, or it would go on for ever; so do nine of them."""
    bench.feed.put(*[event(seq, event_type=AuditCheckpointed.TYPE) for seq in range(1, 10)])
    await asyncio.sleep(0.05)
    assert bench.sizes == []
    bench.feed.put(event(10))
    await until(lambda: bench.sizes == [10])


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
async def test_a_full_disk(bench: Bench, code: int) -> None:
    """It is said aloud, nothing is published, and all of it is logged once there is room (I1)."""
    bench.disk.failing = code
    bench.feed.put(*events(1, 5))
    await until(lambda: bench.writer.problem is not None)
    assert errno.errorcode[code] in (bench.writer.problem or "")
    bench.feed.put(*events(6, 8))
    await asyncio.sleep(0.05)
    assert bench.sizes == []
    assert bench.log.size == 0
    bench.disk.failing = None
    await until(lambda: bench.sizes[-1:] == [8] and bench.writer.problem is None)


async def test_events_away(bench: Bench) -> None:
    """A checkpoint that could not be published is published when EVENTS is back."""
    bench.board.error = UnavailableError("EVENTS does not answer.")
    bench.feed.put(*events(1, 3))
    await until(lambda: bench.writer.problem == "EVENTS does not answer.")
    assert bench.log.size == 3
    bench.board.error = None
    await until(lambda: bench.sizes == [3] and bench.writer.problem is None)


async def test_a_fenced_writer_stops(bench: Bench) -> None:
    """Somebody else has published: nothing more is written, and it stays said."""
    bench.board.error = FencedError("Another audit writer has published.")
    bench.feed.put(*events(1, 3))
    await until(lambda: bench.writer.problem is not None)
    bench.feed.put(*events(4, 6))
    await asyncio.sleep(0.05)
    assert bench.log.size == 3
    assert bench.writer.problem == "Another audit writer has published."


async def test_a_halted_writer_stays_halted(bench: Bench) -> None:
    """What a reconnect found is not forgotten by a batch that was on its way."""
    bench.feed.put(*events(1, 3))
    bench.writer.halt(EventLogError("EVENTS was replaced."))
    bench.feed.put(*events(4, 6))
    await asyncio.sleep(0.05)
    assert bench.writer.problem == "EVENTS was replaced."


async def test_a_bug_is_seen_and_does_not_end_the_log(bench: Bench) -> None:
    """An error that nobody expected is a problem until it is gone."""
    bench.feed.error = RuntimeError("surprise")
    bench.feed.put(event(1))
    await until(lambda: bench.log.size == 1)  # the wait for it had begun before
    await until(lambda: bench.writer.problem == "The audit writer failed (RuntimeError).")
    bench.feed.error = None
    bench.feed.put(event(2))
    await until(lambda: bench.log.size == 2 and bench.writer.problem is None)


async def test_a_checkpoint_that_the_last_process_did_not_publish() -> None:
    """It died between signing and publishing: the next one publishes."""
    bench = make_bench(size=7)
    await bench.writer.start()
    await until(lambda: bench.sizes == [7])
    await bench.writer.stop()


async def test_published_roots_are_compared_before_going_on() -> None:
    """Another root at a size that the log has: refused at the start."""
    told = AuditCheckpointed(tree_size=5, root_hash="x", events_seq=5, checkpoint="")
    bench = make_bench(Board(before=told), size=7)
    with pytest.raises(ForkError):
        await bench.writer.start()
    await bench.writer.stop()


@pytest.mark.parametrize("honest", [True, False])
async def test_an_older_copy_publishes_only_what_agrees(*, honest: bool) -> None:
    """Behind what was published it keeps silent until it has caught up, and then compares."""
    whole = make_bench(size=9)
    root = whole.log.checkpoint.root_base64 if honest else encode_root(bytes(32))
    told = AuditCheckpointed(tree_size=9, root_hash=root, events_seq=9, checkpoint="")
    bench = make_bench(Board(before=told), size=4)
    await bench.writer.start()
    bench.feed.put(*events(5, 7))
    await until(lambda: bench.log.size == 7)
    assert bench.sizes == []
    bench.feed.put(*events(8, 11))
    await until(lambda: bench.sizes == [11] if honest else bench.writer.problem is not None)
    assert ("another root" in (bench.writer.problem or "")) is not honest
    for one in (bench, whole):
        await one.writer.stop()


async def test_drain_at_any_moment() -> None:
    """Whenever it comes, it ends, and what was signed was published (seeded)."""
    rng = random.Random(3)
    for _ in range(60):
        bench = make_bench()
        await bench.writer.start()
        feeding = asyncio.create_task(_feed_slowly(bench.feed))
        await asyncio.sleep(rng.random() * 0.02)
        async with asyncio.timeout(2):
            await bench.writer.drain()
        assert bench.sizes[-1:] == ([bench.log.size] if bench.log.size else [])
        feeding.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await feeding
        await bench.writer.stop()


async def _feed_slowly(feed: Feed) -> None:
    for seq in range(1, 200):
        feed.put(event(seq))
        await asyncio.sleep(0.0005)
