"""What waits to be written of sessions: bounded, the latest only, and never lost to a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import pytest

from penstock_realtime.ports import RunningResponse, SessionState
from penstock_realtime.serving.session_writer import SessionWriter
from penstock_shared.contracts.errors import UnavailableError

STATE = SessionState("acme", "s1", "i/1", 1, "block", {})
RUNS = replace(STATE, responses={"r1": RunningResponse(None, kept=False)})


class Recorder:
    """As much of a store as the writer sees; it can be away, or slow."""

    def __init__(self) -> None:
        self.away = False
        self.refuses: list[SessionState] = []
        self.open = asyncio.Event()
        self.open.set()
        self.written: list[SessionState] = []

    async def put(self, states: Sequence[tuple[SessionState, float]]) -> Sequence[SessionState]:
        await self.open.wait()
        if self.away:
            raise UnavailableError("away")
        self.written += [state for state, _ in states]
        return self.refuses


@pytest.fixture
def store() -> Recorder:
    return Recorder()


@pytest.fixture
def refused() -> list[SessionState]:
    return []


@pytest.fixture
def writer(store: Recorder, refused: list[SessionState]) -> SessionWriter:
    return SessionWriter(store, refused.append)  # type: ignore[arg-type] # what the writer needs


async def test_the_latest_state_is_written_once(writer: SessionWriter, store: Recorder) -> None:
    """However often it changed while it waited; what is written already is not written again."""
    for state in (STATE, RUNS, STATE):
        writer.put(state, 1)
    await writer.flush()
    writer.put(RUNS, 1)
    writer.put(STATE, 1)
    await writer.flush()
    assert store.written == [STATE]
    writer.put(STATE, 1, urgent=True)
    await writer.flush()
    assert store.written == [STATE, STATE]


async def test_a_failure_loses_nothing(writer: SessionWriter, store: Recorder) -> None:
    """What could not be written waits on, unless something newer does."""
    other = replace(STATE, session_id="s2")
    writer.put(STATE, 1)
    writer.put(other, 1)
    store.away = True
    with pytest.raises(UnavailableError):
        await writer.flush()
    writer.put(RUNS, 1)
    assert writer.owes("acme", "s2")
    store.away = False
    await writer.flush()
    assert sorted(state.session_id for state in store.written) == ["s1", "s2"]
    assert RUNS in store.written
    assert not writer.owes("acme", "s2")


async def test_a_change_during_a_write_is_not_taken_for_written(
    writer: SessionWriter, store: Recorder
) -> None:
    """A, then B is on its way, then A again: the store ends with A."""
    writer.put(STATE, 1)
    await writer.flush()
    store.open.clear()
    writer.put(RUNS, 1)
    flushing = asyncio.create_task(writer.flush())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert writer.owes("acme", "s1")
    writer.put(STATE, 1)
    store.open.set()
    await flushing
    assert store.written == [STATE, RUNS, STATE]


async def test_who_is_refused_is_told(
    writer: SessionWriter, store: Recorder, refused: list[SessionState]
) -> None:
    """Somebody has claimed the session in a later term."""
    store.refuses = [STATE]
    writer.put(STATE, 1)
    await writer.flush()
    assert refused == [STATE]


async def test_the_last_state_is_not_remembered(writer: SessionWriter) -> None:
    """Sockets that were lost cost an instance nothing once it is written."""
    writer.put(STATE, 1)
    await writer.flush()
    writer.put(RUNS, 1, urgent=True, last=True)
    await writer.flush()
    assert writer._written == {}  # what a leak would fill


async def test_it_writes_by_itself_and_tries_again(writer: SessionWriter, store: Recorder) -> None:
    """In the background, with the store away at first."""
    store.away = True
    running = asyncio.create_task(writer.run())
    writer.put(RUNS, 1, urgent=True)
    await asyncio.sleep(0.1)
    assert store.written == []
    store.away = False
    async with asyncio.timeout(5):
        while store.written != [RUNS]:
            await asyncio.sleep(0.01)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
