"""What is kept back while an answer may turn out to be a function call."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_realtime.domain.renderer import CallHold, Piece

TEXTS = st.lists(st.text(alphabet='{} \n\t\r"\\aü\u000b', min_size=1, max_size=3), max_size=8)


def pieces_of(texts: list[str]) -> list[Piece]:
    literals = [json.dumps(text, ensure_ascii=False).encode() for text in texts]
    return [Piece(n, n, literal) for n, literal in enumerate(literals)]


@given(TEXTS)
def test_everything_is_told_once_and_in_order(texts: list[str]) -> None:
    """Held or not, nothing is lost and nothing is repeated (I6); an object is held to the end."""
    hold = CallHold(may_call=True)
    told = []
    for piece in pieces_of(texts):
        told += hold.pass_on([piece])
        begin = "".join(texts[: piece.last + 1]).lstrip(" \n\t\r")
        assert bool(told) == (begin != "" and not begin.startswith("{"))
        assert told in ([], pieces_of(texts)[: piece.last + 1])
    assert told + hold.release() == pieces_of(texts)


@pytest.mark.parametrize("texts", [["{"], ["a"], [" "]])
def test_without_functions_nothing_is_held(texts: list[str]) -> None:
    """A response without functions on offer streams as ever."""
    assert CallHold(may_call=False).pass_on(pieces_of(texts)) == pieces_of(texts)


class Counted(bytes):
    """A literal that knows how often it was read."""

    reads = 0

    def __getitem__(self, key: Any) -> Any:
        type(self).reads += 1
        return super().__getitem__(key)


@pytest.mark.parametrize("begin", ["{", " "])
def test_a_long_answer_is_not_read_again_for_each_delta(begin: str) -> None:
    """The event loop serves others meanwhile: the work grows with the answer, not its square."""
    hold, count = CallHold(may_call=True), 1_000
    Counted.reads = 0
    for piece in pieces_of([begin] * count):
        assert hold.pass_on([piece._replace(literal=Counted(piece.literal))]) == []
    assert Counted.reads <= count
