"""One run of one job: its tokens, its text, and why it stopped.

Two threads meet here without a lock. The engine's thread appends tokens and sets `ended`; the
event loop's thread reads behind it and sets `stop`. Each field has one writer, except `stop`,
where either outcome is true; `ended` is set after the last token, and read before the tokens.
Between two batches of one run (after a cut) only the loop's thread is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from penstock_worker.ports import Delivered, Detokenizer, Prompt, SamplingOptions


class Stop(Enum):
    """Why a run was stopped from outside; a run that ended by itself has none."""

    LIMIT = "limit"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    ABANDONED = "abandoned"


@dataclass(slots=True, eq=False)
class Generation:
    """The state of one run. `stop_at_s` is on the monotonic clock."""

    prompt: list[str]
    options: SamplingOptions
    limit: int
    """How many tokens this run may still generate when it begins."""
    stop_at_s: float
    detokenizer: Detokenizer
    shown: Delivered = field(default_factory=Delivered)
    """What earlier runs of the attempt delivered: this one goes on after it."""
    first_number: int = 0
    """Of this run's own deltas (`contracts.responses`)."""
    begun: list[str] = field(default_factory=list)
    """The same in tokens. They count towards the limit, and are not billed again."""
    withheld: bool = False
    """The text is shown only once it has passed its check, and its fact stands: before that a
    second holder, or the next attempt, may still answer otherwise."""

    tokens: list[int] = field(default_factory=list)
    log_prob: float = 0.0
    """Sum over the tokens."""
    stop: Stop | None = None
    ended: bool = False
    cut: bool = False
    """Set by the loop: leave this batch with the next token, and go on in another one."""
    delta_ends: list[int] = field(default_factory=list)
    delta_numbers: list[int] = field(default_factory=list)
    _parts: list[str] = field(default_factory=list)
    _length: int = 0
    """Of the text, in code points."""
    _read: int = 0
    _flushed: bool = False

    def __post_init__(self) -> None:
        self.delta_ends += self.shown.ends
        self.delta_numbers += self.shown.numbers
        if self.shown.text:
            self._parts.append(self.shown.text)
            self._length = len(self.shown.text)

    @property
    def input_tokens(self) -> int:
        """The prompt's length."""
        return len(self.prompt)

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self._parts)

    @property
    def left(self) -> int:
        """How many more tokens it may generate."""
        return self.limit - len(self.tokens)

    def start_from(self, names: Sequence[str]) -> Prompt:
        """What the next batch gets; `names` are this run's tokens as prompts have them."""
        return Prompt(self.prompt, [*self.begun, *names])

    def accept(self, token: int, log_prob: float, now_s: float) -> bool:
        """Engine's thread: one more token; True when the batch shall stop this run with it.

        The token counts whatever stopped the run: it was generated (I3).
        """
        self.tokens.append(token)
        self.log_prob += log_prob
        if self.stop is None:
            if len(self.tokens) >= self.limit:
                self.stop = Stop.LIMIT
            elif now_s >= self.stop_at_s:
                self.stop = Stop.EXPIRED
            else:
                return self.cut
        self.ended = True
        return True

    def request_stop(self, why: Stop) -> None:
        """Loop's thread: stop with the next token."""
        if not self.ended and self.stop is None:
            self.stop = why

    def end_at_limit(self) -> None:
        """There is nothing left to generate: what was delivered before is the whole answer."""
        self.stop, self.ended = Stop.LIMIT, True
        self.take()

    def take(self) -> tuple[str, bool]:
        """Loop's thread: the text since the last call, and whether it was the last.

        The first call of a run that goes on begins with what was delivered before.
        """
        ended = self.ended
        fresh = self.tokens[self._read :]
        self._read += len(fresh)
        text = self.detokenizer.feed(fresh) if fresh else ""
        if ended and not self._flushed:
            self._flushed = True
            text += self.detokenizer.finish()
        if not text:
            return "", ended
        self._parts.append(text)
        self._length += len(text)
        if not self.withheld:
            if self.next_number == self.first_number:
                text = self.shown.text + text
            self._mark()
        return text, ended

    def release(self) -> None:
        """It was withheld and has passed: all of it is one delta, which the final frame brings."""
        if self.text:
            self._mark()

    @property
    def next_number(self) -> int:
        """Of this run's next delta."""
        return self.first_number + len(self.delta_ends) - len(self.shown.ends)

    def _mark(self) -> None:
        self.delta_numbers.append(self.next_number)
        self.delta_ends.append(self._length)
