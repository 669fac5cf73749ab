"""Frames on `v1.<tenant>.responses.<request>`: deltas while it runs, one final frame.

A delta is valid JSON, and its text stands last, so that the edge passes the bytes of the JSON
string through without parsing them:

    {"t":"delta","attempt":1,"run":"…","n":0,"delta":"Hel"}

`n` counts the deltas of a run, from 0 for a job's first holder and from the next multiple of
`RUN_NUMBERS` for each holder after it. So no number is used twice, and a number names the same text
on every instance. A run begins with all of the text: one that goes on after an earlier run repeats
in its first delta what was shown already (`RequestEnded.delta_numbers`). An answer that is checked
has no frame before its fact stands: the final frame alone brings it, and an attempt that failed its
check has none. The final frame repeats what the terminal fact says, with the text in the clear:
RESPONSES lives in memory, for minutes, under the tenant's own subject.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from penstock_shared.contracts.errors import ErrorBody
from penstock_shared.contracts.ids import RunId
from penstock_shared.contracts.requests import RequestEnded, Status
from penstock_shared.contracts.usage import Usage

_MARK: Final = b',"delta":'
RUN_NUMBERS: Final = 1 << 20
"""How many numbers each holder of a job has for its deltas."""
DELTA_START: Final = b'{"t":"delta","attempt":'
"""How every delta frame begins, and no final frame."""


@dataclass(frozen=True, slots=True)
class Delta:
    """One delta; `text_json` is the JSON string literal as it goes to the client."""

    attempt: int
    run: str
    n: int
    text_json: bytes

    @property
    def text(self) -> str:
        """The decoded text."""
        return str(json.loads(self.text_json))


def encode_delta(attempt: int, run: str, n: int, text: str) -> bytes:
    """One delta frame."""
    text_json = json.dumps(text, ensure_ascii=False)
    return f'{{"t":"delta","attempt":{attempt},"run":"{run}","n":{n},"delta":{text_json}}}'.encode()


def decode_delta(frame: bytes) -> Delta | None:
    """Take a delta frame apart without parsing its text; None when it is a final frame."""
    if not frame.startswith(DELTA_START):
        return None
    head, _, tail = frame.partition(_MARK)
    attempt, run, n = head[len(DELTA_START) :].split(b",")
    return Delta(
        attempt=int(attempt),
        run=run[7:-1].decode(),  # "run":"…"
        n=int(n[4:]),  # "n":…
        text_json=tail[:-1],
    )


class FinalFrame(BaseModel):
    """The last frame; whoever writes the terminal fact publishes it, after the fact."""

    model_config = ConfigDict(frozen=True)

    t: Literal["final"] = "final"
    request_id: str
    status: Status
    reason: str
    model: str
    attempt: int
    run: str | None
    deltas: int
    """How many deltas the text has: a lost tail is visible (I6)."""
    delta_ends: tuple[int, ...]
    delta_numbers: tuple[int, ...] = ()
    called: int | None = None
    text: str
    usage: Usage
    """Of all attempts: what is billed."""
    error: ErrorBody | None = None

    @classmethod
    def from_terminal(cls, ended: RequestEnded, text: str) -> FinalFrame:
        """The frame that goes with a terminal fact whose sealed output is `text`."""
        return cls(
            request_id=ended.request_id,
            status=ended.status,
            reason=ended.reason,
            model=ended.model,
            attempt=ended.attempt,
            run=ended.run,
            deltas=len(ended.delta_ends),
            delta_ends=ended.delta_ends,
            delta_numbers=ended.delta_numbers,
            called=ended.called,
            text=text,
            usage=ended.total_usage,
            error=ended.error,
        )

    @property
    def numbers(self) -> Sequence[int]:
        """The deltas' numbers, one for each of `delta_ends`."""
        return self.delta_numbers or range(len(self.delta_ends))

    @property
    def end_number(self) -> int:
        """The number after the last delta's; 0 when there is none."""
        return self.numbers[-1] + 1 if self.delta_ends else 0

    def offset_after(self, number: int) -> int | None:
        """How much text, in code points, somebody has who has all deltas up to `number`.

        -1 is before the first. None: no delta of this answer has that number.
        """
        if number < 0:
            return 0
        place = bisect.bisect_left(self.numbers, number)
        found = place < len(self.delta_ends) and self.numbers[place] == number
        return self.delta_ends[place] if found else None


class Cancel(BaseModel):
    """What `v1.<tenant>.control.<request>` carries."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    t: Literal["cancel"] = "cancel"


class RequestGet(BaseModel):
    """A question on `v1.<tenant>.requests.get`.

    Whoever lost its subscription subscribes again, then asks with the number of the last delta it
    has. Live and replayed frames are merged by `n`: the one with the next number, or with a
    multiple of `RUN_NUMBERS`, which begins the text anew. A number left out means asking again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    request_id: str
    after_delta: Annotated[int, Field(ge=-1)] | None = None
    """Also answer with the deltas after this one; -1 for all of them."""


class DeltaFrame(BaseModel):
    """A delta frame as JSON, field by field as `encode_delta` makes it."""

    model_config = ConfigDict(frozen=True)

    t: Literal["delta"] = "delta"
    attempt: int
    run: RunId
    n: int
    delta: str


class RequestState(BaseModel):
    """Its answer: `final` is there once the request has ended."""

    model_config = ConfigDict(frozen=True)

    request_id: str
    status: Literal["in_progress", "ended"]
    model: str
    """That answered; while it runs, that of the first attempt."""
    final: FinalFrame | None = None
    deltas: tuple[DeltaFrame, ...] = ()
    """While it runs: those after `after_delta` that are still kept, in their order, as many as fit.
    What is missing before the first will not come any more, except in `final`."""
    more: bool = False
    """There are more: ask again with the last one's number."""
