"""What is kept back while an answer may turn out to be a function call."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_realtime.domain.renderer import CallHold, Gap, Piece
from penstock_realtime.domain.rendering import EventStream, Framing
from penstock_realtime.domain.response_object import ResponseHead
from penstock_shared.contracts.requests import Status
from penstock_shared.contracts.responses import FinalFrame
from penstock_shared.contracts.usage import Usage

TEXTS = st.lists(st.text(alphabet='{} \n\t\r"\\aü\u000b', min_size=1, max_size=3), max_size=8)


def pieces_of(texts: list[str]) -> list[Piece]:
    literals = [json.dumps(text, ensure_ascii=False).encode() for text in texts]
    return [Piece(n, n, literal) for n, literal in enumerate(literals)]


@given(TEXTS)
def test_everything_is_told_once_and_in_order(texts: list[str]) -> None:
    """Held or not, nothing is lost and nothing is repeated (I6); an object is held to the end."""
    hold: CallHold[Piece] = CallHold(may_call=True)
    told: list[Piece] = []
    for piece in pieces_of(texts):
        told += hold.pass_on([piece])
        begin = "".join(texts[: piece.last + 1]).lstrip(" \n\t\r")
        assert bool(told) == (begin != "" and not begin.startswith("{"))
        assert told in ([], pieces_of(texts)[: piece.last + 1])
    assert told + hold.release() == pieces_of(texts)


@pytest.mark.parametrize("texts", [["{"], ["a"], [" "]])
def test_without_functions_nothing_is_held(texts: list[str]) -> None:
    """A response without functions on offer streams as ever."""
    hold: CallHold[Piece] = CallHold(may_call=False)
    assert hold.pass_on(pieces_of(texts)) == pieces_of(texts)


class Counted(bytes):
    """A literal that knows how often it was read."""

    reads = 0

    def __getitem__(self, key: Any) -> Any:
        type(self).reads += 1
        return super().__getitem__(key)


@pytest.mark.parametrize("begin", ["{", " "])
def test_a_long_answer_is_not_read_again_for_each_delta(begin: str) -> None:
    """The event loop serves others meanwhile: the work grows with the answer, not its square."""
    hold: CallHold[Piece] = CallHold(may_call=True)
    count = 1_000
    Counted.reads = 0
    for piece in pieces_of([begin] * count):
        assert hold.pass_on([piece._replace(literal=Counted(piece.literal))]) == []
    assert Counted.reads <= count


ID = "0190e0f0-0000-7000-8000-000000000001"


def told_with_gap(texts: list[str], lost: int, called: int | None) -> list[tuple[int, str]]:
    """Number and type of every event of an answer that lacks one delta on its way."""
    stream = EventStream(
        ResponseHead(ID, "m", datetime(2026, 1, 2, tzinfo=UTC), {}, ("f",)),
        Framing(server_sent=False),
    )
    events = stream.opening()
    for piece in pieces_of(texts):
        gap = piece.first == lost
        events += stream.gap(Gap(lost, lost, "expired")) if gap else stream.deltas([piece])
    final = FinalFrame(
        request_id=ID,
        status=Status.COMPLETED,
        reason="stop",
        model="m",
        attempt=1,
        run=ID,
        deltas=len(texts),
        delta_ends=tuple(len("".join(texts[: n + 1])) for n in range(len(texts))),
        text="".join(texts),
        called=called,
        usage=Usage(input_tokens=1, output_tokens=1),
    )
    parsed = [json.loads(event) for event in events + stream.closing(final)]
    return [(event["sequence_number"], event["type"]) for event in parsed]


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_call_lacks_nothing_where_a_delta_was_lost(lost: int) -> None:
    """Its arguments are told at the end, whole: no gap, and no message that was begun (I6)."""
    told = told_with_gap(["{", '"a":1', "}"], lost, called=0)
    assert [kind for _, kind in told] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [number for number, _ in told] == list(range(7))


@pytest.mark.parametrize("texts", [["{", '"a":1', "}"], ["one", " two", " three"], [" ", "a", "b"]])
@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_message_tells_its_gap_in_order(texts: list[str], lost: int) -> None:
    """Whether it was held or not: each number once, ascending, and the gap in its place (I6)."""
    told = told_with_gap(texts, lost, called=None)
    assert [number for number, _ in told] == list(range(11))
    assert [kind for _, kind in told[4:7]] == [
        "penstock.gap" if n == lost else "response.output_text.delta" for n in range(3)
    ]
