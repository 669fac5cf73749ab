"""Whatever arrives in whatever order: the client's text is the answer's, or the edge says not."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_realtime.domain.continuation import Continuation
from penstock_realtime.domain.create_request import parse_create
from penstock_realtime.domain.renderer import Piece, Told
from penstock_realtime.domain.rendering import EventStream, Framing
from penstock_realtime.domain.response_object import ResponseHead
from penstock_realtime.errors import DivergedError
from penstock_shared.contracts.errors import PermanentError
from penstock_shared.contracts.requests import Content, Sampling, Status
from penstock_shared.contracts.responses import Delta, FinalFrame, decode_delta, encode_delta
from penstock_shared.contracts.usage import Usage

REQUEST_ID = "0190e0f0-0000-7000-8000-000000000001"
RUNS = ("0190e0f0-0000-7000-8000-00000000000a", "0190e0f0-0000-7000-8000-00000000000b")
# Anything a tokenizer can produce; a lone surrogate is no text.
TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), max_size=6)


def deltas(run: str, pieces: list[str]) -> list[Delta]:
    """A run as it comes off the wire."""
    frames = [encode_delta(1, run, n, piece) for n, piece in enumerate(pieces)]
    return [delta for frame in frames if (delta := decode_delta(frame)) is not None]


def final_of(pieces: list[str], status: Status = Status.COMPLETED) -> FinalFrame:
    ends, position = [], 0
    for piece in pieces:
        position += len(piece)
        ends.append(position)
    return FinalFrame(
        request_id=REQUEST_ID,
        status=status,
        reason="stop",
        model="m",
        attempt=1,
        run=RUNS[0],
        deltas=len(pieces),
        delta_ends=tuple(ends),
        text="".join(pieces),
        usage=Usage(input_tokens=1, output_tokens=len(pieces)),
    )


def text_of(told: Told) -> str:
    return "".join(json.loads(one.literal) for one in told if isinstance(one, Piece))


def covered(told: Told) -> list[int]:
    """Every number that was told, as text or as a gap."""
    return [number for one in told for number in range(one.first, one.last + 1)]


@st.composite
def arrivals(draw: st.DrawFn) -> tuple[list[Delta], FinalFrame]:
    """Two runs, cut short, repeated, shuffled a little, and the end that one of them wrote."""
    winner = draw(TEXTS)
    same = draw(st.booleans())
    other = ["".join(winner)] if same else draw(TEXTS)
    frames = deltas(RUNS[0], winner) + deltas(RUNS[1], other)
    kept = [frame for frame in frames if draw(st.integers(0, 9)) > 1]
    kept += draw(st.lists(st.sampled_from(frames), max_size=3)) if frames else []
    order = draw(st.permutations(kept)) if draw(st.booleans()) else kept
    return list(order), final_of(winner)


@given(arrivals())
def test_the_text_is_the_answers_or_an_error(given_: tuple[list[Delta], FinalFrame]) -> None:
    """No interleaving of runs, duplicates and losses makes a wrong text without an error (I6)."""
    frames, final = given_
    continuation = Continuation()
    told = [one for frame in frames for one in continuation.feed(frame)]
    try:
        told += continuation.finish(final)
    except DivergedError:
        assert not final.text.startswith(text_of(told))
    else:
        assert text_of(told) == final.text
        assert covered(told) == list(range(told[-1].last + 1 if told else 0))


@given(TEXTS, st.data())
def test_one_run_with_losses_never_diverges(pieces: list[str], data: st.DataObject) -> None:
    """One run alone, with whatever lost or repeated, always ends as the full text (I6)."""
    frames = deltas(RUNS[0], pieces)
    arrived = data.draw(st.lists(st.sampled_from(frames), max_size=12)) if frames else []
    continuation = Continuation()
    told = [one for frame in arrived for one in continuation.feed(frame)]
    told += continuation.finish(final_of(pieces))
    assert text_of(told) == "".join(pieces)


@given(TEXTS)
def test_a_rerun_with_other_cuts_adds_nothing_twice(pieces: list[str]) -> None:
    """A second run of the same text, cut otherwise, is recognised whatever the cuts (I2)."""
    text = "".join(pieces)
    continuation = Continuation()
    arrived = deltas(RUNS[0], pieces)[:2] + deltas(RUNS[1], list(text))
    told = [one for frame in arrived for one in continuation.feed(frame)]
    told += continuation.finish(final_of(pieces))
    assert text_of(told) == text


@given(TEXTS, st.booleans(), st.sampled_from(list(Status)))
def test_events_are_valid_json_numbered_without_a_gap(
    pieces: list[str],
    server_sent: bool,  # noqa: FBT001
    status: Status,
) -> None:
    """Bytes built by hand are JSON all the same, in order, with one end."""
    head = ResponseHead(REQUEST_ID, "m", datetime(2026, 5, 1, tzinfo=UTC))
    lane = None if server_sent else 'a"b'
    stream = EventStream(head, Framing(server_sent=server_sent, stream_id=lane))
    told = [Piece(delta.n, delta.n, delta.text_json) for delta in deltas(RUNS[0], pieces)]
    raw = stream.opening() + stream.deltas(told) + stream.closing(final_of(pieces, status))
    events = [json.loads(_payload(event, server_sent=server_sent)) for event in raw]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [e["delta"] for e in events if e["type"] == "response.output_text.delta"] == pieces
    assert events[0]["type"] == "response.created"
    assert events[-1]["response"]["status"] == status.value
    assert all(event.get("stream_id") == lane for event in events)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["model", "input", "role", "content", "type", "text", "tools", "x"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_a_request_or_a_clear_error(value: object) -> None:
    """No body makes the parser fail in a way of its own, and errors say what was wrong."""
    with contextlib.suppress(PermanentError):
        request = parse_create(json.dumps(value))
        assert Content.model_validate_json(request.content()).messages
        assert isinstance(request.sampling, Sampling)


@given(st.binary(max_size=40))
def test_any_bytes_are_refused_politely(raw: bytes) -> None:
    """Hostile bytes are a client's error, never a bug."""
    with pytest.raises(PermanentError):
        parse_create(raw)


def _payload(event: bytes, *, server_sent: bool) -> bytes:
    if not server_sent:
        return event
    assert event.endswith(b"\n\n")
    kind, _, data = event.partition(b"\n")
    assert kind.startswith(b"event: response.")
    assert b"\n" not in data.strip()
    return data.strip().removeprefix(b"data: ")
