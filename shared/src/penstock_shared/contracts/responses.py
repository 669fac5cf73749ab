"""Frames on `v1.<tenant>.responses.<request>`: deltas while it runs, one final frame.

A delta is valid JSON, and its text stands last, so that the edge passes the bytes of the JSON
string through without parsing them:

    {"t":"delta","attempt":1,"run":"…","n":0,"delta":"Hel"}

`n` counts the deltas of a run from 0. The final frame repeats what the terminal fact says, with
the text in the clear: RESPONSES lives in memory, for minutes, under the tenant's own subject.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from penstock_shared.contracts.errors import ErrorBody
from penstock_shared.contracts.requests import RequestEnded, Status
from penstock_shared.contracts.usage import Usage

_MARK: Final = b',"delta":'
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
    """How many deltas the run published: a lost tail is visible (I6)."""
    delta_ends: tuple[int, ...]
    text: str
    usage: Usage
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
            text=text,
            usage=ended.usage,
            error=ended.error,
        )

    def delta_texts(self, start: int = 0) -> list[str]:
        """The texts of the deltas from number `start` on: fills what a client missed (I6)."""
        bounds = itertools.pairwise((0, *self.delta_ends))
        return [self.text[begin:end] for begin, end in itertools.islice(bounds, start, None)]


class Cancel(BaseModel):
    """What `v1.<tenant>.control.<request>` carries."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    t: Literal["cancel"] = "cancel"


class RequestGet(BaseModel):
    """A question on `v1.<tenant>.requests.get`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    request_id: str


class RequestState(BaseModel):
    """Its answer: `final` is there once the request has ended."""

    model_config = ConfigDict(frozen=True)

    request_id: str
    status: Literal["in_progress", "ended"]
    model: str
    final: FinalFrame | None = None
