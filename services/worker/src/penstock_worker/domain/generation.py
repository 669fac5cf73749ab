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

from penstock_worker.ports import Detokenizer, Prompt, SamplingOptions


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
    begun_text: str = ""
    """What an earlier run of the attempt delivered: this one goes on after it."""
    begun: list[str] = field(default_factory=list)
    """The same in tokens. They count towards the limit, and are not billed again."""
    withheld: bool = False
    """The text is shown only once it has passed its check."""

    tokens: list[int] = field(default_factory=list)
    log_prob: float = 0.0
    """Sum over the tokens."""
    stop: Stop | None = None
    ended: bool = False
    cut: bool = False
    """Set by the loop: leave this batch with the next token, and go on in another one."""
    delta_ends: list[int] = field(default_factory=list)
    _parts: list[str] = field(default_factory=list)
    _read: int = 0
    _flushed: bool = False

    def __post_init__(self) -> None:
        if self.begun_text:
            self._parts.append(self.begun_text)

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
        self._parts.append(text)
        if not self.delta_ends and (text or ended):
            text = self.begun_text + text
        if text and not self.withheld:
            self._mark(text)
        return text, ended

    def show_all(self) -> str:
        """Everything in one delta: of a run that was withheld, once it has passed."""
        if self.text:
            self._mark(self.text)
        return self.text

    def _mark(self, text: str) -> None:
        self.delta_ends.append((self.delta_ends[-1] if self.delta_ends else 0) + len(text))
