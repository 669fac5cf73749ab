"""The live feed of one request's frames, over a real server."""

from __future__ import annotations

import asyncio
import time

from penstock_realtime.adapters.nats_frames import NatsFrames
from penstock_shared.contracts import subjects
from penstock_shared.contracts.responses import encode_delta
from penstock_shared.runtime.broker import Broker

REQUEST_ID = "0190e0f0-0000-7000-8000-000000000001"
RUN = "0190e0f0-0000-7000-8000-00000000000a"
SUBJECT = subjects.responses("acme", REQUEST_ID)
DELTA = encode_delta(1, RUN, 0, "a")
FINAL = b'{"t":"final"}'


async def test_whoever_wants_the_end_is_not_woken_by_deltas(broker: Broker) -> None:
    """Deltas wait for the final frame, and both come at once."""
    feed = await NatsFrames(broker).open("acme", REQUEST_ID)
    waiting = asyncio.create_task(feed.get(10, until_final=True))
    await broker.publish_core(SUBJECT, DELTA)
    await broker.flush()
    assert not waiting.done()
    await broker.publish_core(SUBJECT, FINAL)
    assert await asyncio.wait_for(waiting, 5) == [DELTA, FINAL]
    await feed.close()


async def test_deltas_are_no_silence(broker: Broker) -> None:
    """Only when nothing at all was heard, the log is asked: deltas come back at the timeout."""
    feed = await NatsFrames(broker).open("acme", REQUEST_ID)
    await broker.publish_core(SUBJECT, DELTA)
    await broker.flush()
    started_s = time.monotonic()
    assert await feed.get(0.1, until_final=True) == [DELTA]
    assert time.monotonic() - started_s >= 0.09
    assert await feed.get(0.1, until_final=True) == []
    await feed.close()


async def test_a_final_frame_that_was_taken_is_not_waited_for_again(broker: Broker) -> None:
    """After an unreadable final frame the feed waits: no loop that spins."""
    feed = await NatsFrames(broker).open("acme", REQUEST_ID)
    await broker.publish_core(SUBJECT, FINAL)
    assert await feed.get(5, until_final=True) == [FINAL]
    assert await feed.get(0.05, until_final=True) == []
    await broker.publish_core(SUBJECT, DELTA)
    assert await feed.get(5) == [DELTA]
    await feed.close()
