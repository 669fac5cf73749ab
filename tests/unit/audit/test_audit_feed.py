"""The feed: repeated messages are dropped, lost ones read again, missing ones an error (I5)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import nats.errors
import nats.js.errors
import pytest
from nats.js.api import RawStreamMsg

from penstock_audit.adapters import nats_events
from penstock_audit.adapters.nats_events import NatsEventFeed
from penstock_audit.errors import EventLogError
from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.runtime.broker import Broker, StoredMessage

STORED_AT = datetime(2026, 5, 1, 12, 0, 0, 123456, tzinfo=UTC)


class EventLog:
    """What EVENTS holds, and what a reader of it delivers, start by start."""

    def __init__(self, *deliveries: list[int]) -> None:
        self.deliveries = list(deliveries)
        self.stored = {seq for delivery in deliveries for seq in delivery}
        self.starts: list[int] = []
        self.failing = False

    @property
    def jetstream(self) -> EventLog:
        return self

    async def get_msg(self, _stream: str, *, seq: int, direct: bool) -> RawStreamMsg:
        assert direct
        if seq not in self.stored:
            raise nats.js.errors.NotFoundError
        return RawStreamMsg(subject="v1.acme.events.test.happened", seq=seq)


class Reader:
    """Stands in for the ordered reader."""

    def __init__(self, log: EventLog, _stream: str, _filter: str, *, start_seq: int, **_: Any):
        self._log, self._start = log, start_seq
        self._queue: list[int] = []

    async def start(self) -> None:
        if self._log.failing:
            raise nats.errors.TimeoutError
        self._log.starts.append(self._start)
        self._queue = self._log.deliveries.pop(0)

    async def stop(self) -> None:
        self._queue = []

    async def get(self) -> StoredMessage:
        return self._message(self._queue.pop(0))

    def get_nowait(self) -> StoredMessage | None:
        return self._message(self._queue.pop(0)) if self._queue else None

    @staticmethod
    def _message(seq: int) -> StoredMessage:
        return StoredMessage("v1.acme.events.test.happened", seq, {}, b"", STORED_AT)


async def start(monkeypatch: pytest.MonkeyPatch, log: EventLog, next_seq: int) -> NatsEventFeed:
    monkeypatch.setattr(nats_events, "OrderedReader", Reader)
    feed = NatsEventFeed(cast("Broker", log))
    await feed.start(next_seq)
    return feed


async def test_repeated_messages_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Delivered twice or late, each event comes out once and in order."""
    feed = await start(monkeypatch, EventLog([3, 4, 4, 3, 5, 6, 6, 5, 7]), 4)
    assert [(await feed.get()).seq for _ in range(2)] == [4, 5]
    there = [event.seq for event in iter(feed.get_nowait, None)]
    assert there == [6, 7]


async def test_lost_messages_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hole in what arrives, which EVENTS does not have, is read anew from there."""
    log = EventLog([1, 2, 5, 6], [3, 4, 5])
    feed = await start(monkeypatch, log, 1)
    assert (await feed.get()).seq == 1
    assert [event.seq for event in iter(feed.get_nowait, None)] == [2]
    assert [(await feed.get()).seq for _ in range(3)] == [3, 4, 5]
    assert log.starts == [1, 3]


async def test_a_missing_event_is_never_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """EVENTS lacks it: an error each time one asks, until it is there."""
    log = EventLog([1, 3], [2, 3])
    log.stored.discard(2)
    feed = await start(monkeypatch, log, 1)
    assert (await feed.get()).seq == 1
    for _ in range(2):
        with pytest.raises(EventLogError, match="lacks 2"):
            await feed.get()
        assert feed.get_nowait() is None
    log.stored.add(2)
    assert (await feed.get()).seq == 2


async def test_reading_again_is_tried_until_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """NATS goes away while a hole is being looked into: nothing is forgotten."""
    log = EventLog([1, 3], [2, 3])
    feed = await start(monkeypatch, log, 1)
    assert (await feed.get()).seq == 1
    log.failing = True
    for _ in range(2):
        with pytest.raises(UnavailableError):
            await feed.get()
    log.failing = False
    assert (await feed.get()).seq == 2


async def test_times_are_whole_microseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time that EVENTS stored an event, exactly, whoever reads it and when."""
    feed = await start(monkeypatch, EventLog([1]), 1)
    assert (await feed.get()).time_us == 1_777_636_800_123_456
