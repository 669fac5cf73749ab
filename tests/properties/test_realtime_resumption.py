"""Whoever comes back, to whatever instance, gets the rest: no loss, no repetition, no reordering.

What the instance has to work with is drawn: which frames RESPONSES still keeps, whether the end is
known, and where the client stopped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import accumulate, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_realtime.domain.continuation import Continuation
from penstock_realtime.domain.frame_queue import FrameQueue
from penstock_realtime.domain.renderer import Gap, Piece, Told
from penstock_realtime.domain.rendering import EventStream, Framing, delta_before
from penstock_realtime.domain.response_object import ResponseHead
from penstock_realtime.ports import Budget, Policy
from penstock_shared.contracts.requests import Status
from penstock_shared.contracts.responses import (
    RUN_NUMBERS,
    Delta,
    FinalFrame,
    decode_delta,
    encode_delta,
)
from penstock_shared.contracts.usage import Usage
from penstock_worker.domain.shown import Shown

REQUEST_ID = "0190e0f0-0000-7000-8000-000000000001"
RUNS = ("0190e0f0-0000-7000-8000-00000000000a", "0190e0f0-0000-7000-8000-00000000000b")
PIECES = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=3),
    min_size=1,
    max_size=8,
)


def delta(run: str, n: int, text: str) -> Delta:
    made = decode_delta(encode_delta(1, run, n, text))
    assert made is not None
    return made


def final_of(text: str, ends: list[int], numbers: list[int], **given: Any) -> FinalFrame:
    fields: dict[str, Any] = {"status": Status.COMPLETED, "reason": "stop", **given}
    return FinalFrame(
        request_id=REQUEST_ID,
        model="m",
        attempt=1,
        run=RUNS[0],
        deltas=len(ends),
        delta_ends=tuple(ends),
        delta_numbers=tuple(numbers) if numbers != list(range(len(ends))) else (),
        text=text,
        usage=Usage(input_tokens=1, output_tokens=len(ends)),
        **fields,
    )


class Answer:
    """What a worker, and after its death another one, published and wrote."""

    def __init__(self, pieces: list[str], died_after: int | None) -> None:
        self.text = "".join(pieces)
        shown = Shown()
        first = pieces if died_after is None else pieces[:died_after]
        self.frames = [delta(RUNS[0], n, piece) for n, piece in enumerate(first)]
        for frame in self.frames:
            shown.feed(frame)
        if died_after is not None:
            rest = pieces[died_after:]
            if rest:
                rest[0] = shown.delivered.text + rest[0]  # a run begins with all of the text
            frames = [delta(RUNS[1], RUN_NUMBERS + n, piece) for n, piece in enumerate(rest)]
            for frame in frames:
                shown.feed(frame)
            self.frames += frames
        self.ends = list(accumulate(map(len, pieces)))
        self.numbers = shown.delivered.numbers
        self.final = final_of(self.text, self.ends, self.numbers)

    def text_after(self, number: int) -> str:
        """What a client lacks that has everything up to this number."""
        offset = self.final.offset_after(number)
        assert offset is not None
        return self.text[offset:]


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    pieces = draw(PIECES)
    return Answer(pieces, draw(st.none() | st.integers(0, len(pieces))))


def text_of(told: Told) -> str:
    return "".join(json.loads(one.literal) for one in told if isinstance(one, Piece))


def assert_in_order(told: Told, after: int) -> None:
    """Each number once, upwards, from the one after `after` on."""
    firsts = [one.first for one in told]
    lasts = [after, *(one.last for one in told)]
    assert firsts == [last + 1 for last in lasts[:-1]]
    assert all(first <= last for first, last in pairwise([*firsts, *lasts[-1:]]))


@given(answers(), st.data())
def test_everything_kept_continues_exactly(answer: Answer, data: st.DataObject) -> None:
    """RESPONSES has it all: the rest comes at once, whether or not the end is known (I6)."""
    after = data.draw(st.sampled_from([-1, *answer.numbers]))
    known = data.draw(st.integers(0, len(answer.frames)))
    text = Continuation(after)
    told = [one for frame in answer.frames[:known] for one in text.feed(frame, "expired")]
    told += text.finish(answer.final)
    assert not [one for one in told if isinstance(one, Gap)]
    assert text_of(told) == answer.text_after(after)
    assert_in_order(told, after)


@given(answers(), st.data())
def test_what_has_expired_is_a_gap_or_comes_from_the_end(
    answer: Answer, data: st.DataObject
) -> None:
    """Text and gaps together cover every number once, and the text is in its place (I6)."""
    after = data.draw(st.sampled_from([-1, *answer.numbers]))
    begin = data.draw(st.integers(0, len(answer.frames)))
    end = data.draw(st.integers(begin, len(answer.frames)))
    text = Continuation(after)
    told = [one for frame in answer.frames[begin:end] for one in text.feed(frame, "expired")]
    told += text.finish(answer.final)
    assert_in_order(told, after)
    position = after
    for one in told:
        if isinstance(one, Piece):
            missing = answer.text_after(position)
            assert missing.startswith(json.loads(one.literal))
            assert answer.text_after(one.last) == missing[len(json.loads(one.literal)) :]
        position = one.last
    if answer.frames:
        assert answer.text_after(max(position, after)) == ""


def events_of(answer: Answer, after: int, known: int, status: Status) -> Iterator[dict[str, Any]]:
    head = ResponseHead(REQUEST_ID, "m", datetime(2026, 5, 1, tzinfo=UTC))
    stream = EventStream(head, Framing(server_sent=False), after)
    text = Continuation(delta_before(after))
    final = answer.final.model_copy(update={"status": status})
    raw = stream.opening()
    for frame in answer.frames[:known]:
        raw += stream.deltas([one for one in text.feed(frame) if isinstance(one, Piece)])
    raw += stream.deltas([one for one in text.finish(final) if isinstance(one, Piece)])
    raw += stream.closing(final)
    return map(json.loads, raw)


@given(answers(), st.data(), st.sampled_from([Status.COMPLETED, Status.INCOMPLETE]))
def test_the_events_after_any_number_are_the_same_on_every_instance(
    answer: Answer, data: st.DataObject, status: Status
) -> None:
    """A stream that is resumed after any of its events goes on with the next one (I6)."""
    live = list(events_of(answer, -1, len(answer.frames), status))
    numbers = [event["sequence_number"] for event in live]
    assert numbers == sorted(set(numbers))
    cut = data.draw(st.integers(0, len(live)))
    after = live[cut - 1]["sequence_number"] if cut else -1
    known = data.draw(st.sampled_from([0, len(answer.frames)]))
    resumed = list(events_of(answer, after, known, status))
    assert resumed == live[cut:]


@given(answers(), st.data())
def test_a_call_goes_on_after_any_of_its_events(answer: Answer, data: st.DataObject) -> None:
    """Its numbers are also a message's first: nothing of its text is told as deltas (I6)."""
    head = ResponseHead(REQUEST_ID, "m", datetime(2026, 5, 1, tzinfo=UTC), tools=("f",))
    final = answer.final.model_copy(update={"called": 0})

    def after(number: int) -> list[dict[str, Any]]:
        stream = EventStream(head, Framing(server_sent=False), number)
        raw = stream.opening()
        told = Continuation(delta_before(number)).finish(final)
        raw += stream.deltas([one for one in told if isinstance(one, Piece)])
        return [json.loads(event) for event in raw + stream.closing(final)]

    live = after(-1)
    cut = data.draw(st.integers(0, len(live)))
    assert after(live[cut - 1]["sequence_number"] if cut else -1) == live[cut:]


@pytest.mark.parametrize("policy", list(Policy))
@given(st.lists(st.integers(1, 400), max_size=60), st.integers(100, 2_000), st.data())
def test_a_queue_keeps_its_bound_and_its_order(
    policy: Policy, sizes: list[int], limit: int, data: st.DataObject
) -> None:
    """Never more bytes than the budget; what is taken is in order; a policy tells what it drops."""
    budget = Budget(limit)
    queue = FrameQueue(budget, policy)
    taken: list[int] = []
    dropped = 0
    for n, size in enumerate(sizes):
        before = queue.dropped
        queue.push(encode_delta(1, RUNS[0], n, "x" * size))
        dropped += queue.dropped - before
        assert 0 <= budget.used <= limit
        if data.draw(st.booleans()) and data.draw(st.booleans()):
            taken += numbers_of(queue.take())
            queue.overflowed = False
    taken += numbers_of(queue.take())
    assert budget.used == 0
    assert taken == sorted(set(taken))
    assert len(taken) + dropped == len(sizes) or policy is Policy.BLOCK


def test_drop_intermediate_keeps_the_first_and_the_latest() -> None:
    """A reader that comes back sees how it began and where it is."""
    frames = [encode_delta(1, RUNS[0], n, "x" * 20) for n in range(100)]
    queue = FrameQueue(Budget(10 * len(frames[50])), Policy.DROP_INTERMEDIATE)
    for frame in frames:
        queue.push(frame)
    taken = numbers_of(queue.take())
    assert taken[:3] == [0, 1, 2]
    assert taken[-3:] == [97, 98, 99]
    assert len(taken) < 100


def numbers_of(frames: list[bytes]) -> list[int]:
    return [found.n for frame in frames if (found := decode_delta(frame)) is not None]
