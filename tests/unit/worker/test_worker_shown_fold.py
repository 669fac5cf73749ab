"""The fold of what was shown agrees with what the edge shows (I6)."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from penstock_realtime.domain.continuation import Continuation
from penstock_realtime.domain.renderer import Piece, Told
from penstock_shared.contracts.responses import RUN_NUMBERS, Delta, decode_delta, encode_delta
from penstock_worker.domain.shown import Shown


def delta(run: str, n: int, text: str) -> Delta:
    made = decode_delta(encode_delta(1, run, n, text))
    assert made is not None
    return made


def text_of(told: Told) -> str:
    return "".join(json.loads(one.literal) for one in told if isinstance(one, Piece))


_FRAMES = st.lists(
    st.tuples(st.sampled_from("xyz"), st.integers(0, 3), st.sampled_from(["a", "ab", "b", "🙂"])),
    max_size=12,
)


@given(_FRAMES)
def test_worker_and_edge_agree_on_what_clients_have(frames: list[tuple[str, int, str]]):
    """For any frames of any runs in any order: same text, so a successor fits on to it."""
    edge, shown, sent = Continuation(), Shown(), ""
    for frame in frames:
        sent += text_of(edge.feed(delta(*frame)))
        shown.feed(delta(*frame))
        assert shown.delivered.text == sent == edge.delivered


@given(st.lists(st.sampled_from(["a", "bc", " ", "é"]), min_size=1), st.integers(0, 40))
def test_a_successor_that_begins_with_it_reaches_the_client_seamlessly(
    pieces: list[str], died_after: int
):
    """One run dies after any delta; the next begins with the fold's text: nothing twice."""
    edge, shown, sent = Continuation(), Shown(), ""
    for n, piece in enumerate(pieces[:died_after]):
        sent += text_of(edge.feed(delta("first", n, piece)))
        shown.feed(delta("first", n, piece))
    again = [shown.delivered.text + "".join(pieces[died_after:])]
    for n, piece in enumerate(again):
        sent += text_of(edge.feed(delta("second", RUN_NUMBERS + n, piece)))
    assert sent == "".join(pieces)
