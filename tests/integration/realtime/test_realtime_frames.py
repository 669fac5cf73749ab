"""Frames of one request over a real server: live ones, bounded, and those that are kept."""

from __future__ import annotations

import asyncio
import time

import pytest

from penstock_realtime.adapters.nats_frames import NatsFrames
from penstock_realtime.ports import Budget, Policy
from penstock_shared.contracts import subjects
from penstock_shared.contracts.responses import decode_delta, encode_delta
from penstock_shared.contracts.streams import RESPONSES
from penstock_shared.runtime.broker import Broker

REQUEST_ID = "0190e0f0-0000-7000-8000-000000000001"
OTHER_ID = "0190e0f0-0000-7000-8000-000000000002"
RUN = "0190e0f0-0000-7000-8000-00000000000a"
SUBJECT = subjects.responses("acme", REQUEST_ID)
DELTA = encode_delta(1, RUN, 0, "a")
FINAL = b'{"t":"final"}'


@pytest.fixture
def frames(broker: Broker) -> NatsFrames:
    return NatsFrames(broker, 64 * 1024)


async def test_whoever_wants_the_end_is_not_woken_by_deltas(
    broker: Broker, frames: NatsFrames
) -> None:
    """Deltas wait for the final frame, and only the last of them: it has all the text."""
    feed = await frames.open("acme", REQUEST_ID)
    waiting = asyncio.create_task(feed.get(10, until_final=True))
    await asyncio.sleep(0)
    for _ in range(3):
        await broker.publish_core(SUBJECT, DELTA)
    await broker.flush()
    assert not waiting.done()
    await broker.publish_core(SUBJECT, FINAL)
    assert await asyncio.wait_for(waiting, 5) == [DELTA, FINAL]
    await feed.close()


async def test_deltas_are_no_silence(broker: Broker, frames: NatsFrames) -> None:
    """Only when nothing at all was heard, the log is asked: deltas come back at the timeout."""
    feed = await frames.open("acme", REQUEST_ID)
    await broker.publish_core(SUBJECT, DELTA)
    await broker.flush()
    started_s = time.monotonic()
    assert await feed.get(0.1, until_final=True) == [DELTA]
    assert time.monotonic() - started_s >= 0.09
    assert await feed.get(0.1, until_final=True) == []
    await feed.close()


async def test_a_final_frame_that_was_taken_is_not_waited_for_again(
    broker: Broker, frames: NatsFrames
) -> None:
    """After an unreadable final frame the feed waits: no loop that spins."""
    feed = await frames.open("acme", REQUEST_ID)
    await broker.publish_core(SUBJECT, FINAL)
    assert await feed.get(5, until_final=True) == [FINAL]
    assert await feed.get(0.05, until_final=True) == []
    await broker.publish_core(SUBJECT, DELTA)
    assert await feed.get(5) == [DELTA]
    await feed.close()


async def test_two_readers_of_one_session_share_its_bytes(
    broker: Broker, frames: NatsFrames
) -> None:
    """However many responses wait on one slow socket: the bound is the session's."""
    budget = Budget(10 * len(DELTA))
    feeds = [await frames.open("acme", id_, budget) for id_ in (REQUEST_ID, OTHER_ID)]
    for _ in range(30):
        for id_ in (REQUEST_ID, OTHER_ID):
            await broker.publish_core(subjects.responses("acme", id_), DELTA)
    await broker.flush()
    assert budget.used == budget.limit
    taken = [await feed.get(1) for feed in feeds]
    assert sum(map(len, taken)) == 10
    assert all(feed.overflowed() for feed in feeds)
    assert not any(feed.overflowed() for feed in feeds)
    assert budget.used == 0
    for feed in feeds:
        await feed.close()


async def test_what_was_refused_is_read_again_page_by_page(
    broker: Broker, frames: NatsFrames
) -> None:
    """More than a page, with another request's frames in between: all of it, in order (I6)."""
    expected = [encode_delta(1, RUN, n, "x" * 300) for n in range(1200)]
    for frame in expected:
        await broker.publish_core(SUBJECT, frame)
        await broker.publish_core(subjects.responses("acme", OTHER_ID), frame)
    while (await broker.jetstream.stream_info(RESPONSES)).state.messages < 2 * len(expected):
        await asyncio.sleep(0.01)
    kept, position, pages, more = [], 0, 0, True
    while more:
        page = await frames.kept("acme", REQUEST_ID, position)
        kept += page.frames
        position, more, pages = page.position, page.more, pages + 1
    assert kept == expected
    assert pages > 1
    last = await frames.kept("acme", REQUEST_ID, position)
    assert (last.frames, last.more) == ([], False)


async def test_nothing_is_kept_of_what_never_was(broker: Broker, frames: NatsFrames) -> None:
    """An unknown request, and a stream that a restart has taken, have no frames: no error."""
    assert (await frames.kept("acme", REQUEST_ID)).frames == []
    assert (await broker.jetstream.stream_info(RESPONSES)).state.messages == 0


async def test_a_policy_that_drops_keeps_the_latest(broker: Broker, frames: NatsFrames) -> None:
    """The numbers show what is missing; the final frame is never what is dropped for a delta."""
    budget = Budget(4 * 100)
    feed = await frames.open("acme", REQUEST_ID, budget, Policy.DROP_OLDEST)
    assert feed.lossy
    for n in range(50):
        await broker.publish_core(SUBJECT, encode_delta(1, RUN, n, "a"))
    await broker.flush()
    taken = [decode_delta(frame) for frame in await feed.get(1)]
    numbers = [delta.n for delta in taken if delta is not None]
    assert numbers == list(range(50 - len(numbers), 50))
    assert 0 < len(numbers) < 50
    await feed.close()
