"""What every API's way of telling a response has in common."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Generic, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

from penstock_shared.contracts.errors import ErrorBody
from penstock_shared.contracts.responses import FinalFrame


class Piece(NamedTuple):
    """Text on its way to the client: one delta, or several that were joined for a slow reader."""

    first: int
    """The number of the first delta in it."""
    last: int
    literal: bytes
    """The text as a JSON string literal."""


def joined_literal(literals: Iterable[bytes]) -> bytes:
    """One JSON string of several: each is whole code points, so their insides join."""
    return b'"%b"' % b"".join([literal[1:-1] for literal in literals])


GapReason: TypeAlias = Literal["expired", "slow_reader"]
"""They were kept no longer, or the session's policy dropped them."""


class Gap(NamedTuple):
    """Deltas that will not come (I6)."""

    first: int
    last: int
    reason: GapReason


Told: TypeAlias = list[Piece | Gap]


class Passage(Protocol):
    """A way to the client that may be taken at once, past every task and queue."""

    def ready(self) -> bool:
        """Whether the client has read enough, and nothing else is on its way to it."""
        ...

    def tell(self, told: Told) -> None:
        """Tell it now; only when `ready`."""
        ...


class Renderer(Protocol):
    """Turns what happens to one response into the bytes of one API. Each item is one event."""

    def opening(self) -> list[bytes]:
        """It is accepted, durably (I1)."""
        ...

    def deltas(self, pieces: list[Piece]) -> list[bytes]:
        """More text, in order."""
        ...

    def gap(self, gap: Gap) -> list[bytes]:
        """Some text will not come."""
        ...

    def closing(self, final: FinalFrame) -> list[bytes]:
        """How it ended; all text was told before, save the gaps."""
        ...

    def failure(self, error: ErrorBody, status: int) -> list[bytes]:
        """The edge itself cannot go on. The response may still end well: retrieve it."""
        ...


_WHITE_SPACE: Final = re.compile(rb"\A(?: |\\[ntr])+")
"""JSON's (RFC 8259 §2) at the beginning of a text, as its literal writes it."""


_T = TypeVar("_T", bound=Piece | Gap)


class CallHold(Generic[_T]):
    """Keeps back text that may turn out to be the arguments of a function call.

    An answer is a call if it is valid arguments of a function, which only its end shows; but then
    it is a JSON object. So text that begins otherwise passes at once. Where a gap hides how it
    begins, or what an object says, only the end shows whether the gap was one in a message.
    """

    def __init__(self, *, may_call: bool) -> None:
        self._undecided = may_call
        self._until_end = False
        self._held: list[_T] = []

    def pass_on(self, told: list[_T]) -> list[_T]:
        """What may be told now."""
        if not self._undecided:
            return told
        self._held += told
        if self._until_end:
            return []
        begin = next(filter(None, map(_begin, told)), b"")
        self._until_end = begin.startswith(b"{")
        return self.release() if begin and not self._until_end else []

    def release(self) -> list[_T]:
        """It is no call: all that was held."""
        self._undecided = False
        held, self._held = self._held, []
        return held


def _begin(one: Piece | Gap) -> bytes:
    """The text without the white space that it begins with; a gap may have been an object."""
    return b"{" if isinstance(one, Gap) else _WHITE_SPACE.sub(b"", one.literal[1:-1])
