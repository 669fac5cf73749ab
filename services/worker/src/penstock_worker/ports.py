"""What the worker needs from outside: an engine, a place for frames, a place for the fact."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from penstock_shared.contracts.requests import ChatMessage, RequestEnded


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """How the next token is chosen; one batch shares them. Temperature 0 is greedy."""

    temperature: float = 0.0
    top_p: float = 1.0


class BatchObserver(Protocol):
    """Hears what a running batch does, in the engine's thread: cheap, and never raising."""

    def on_token(self, index: int, token: int) -> bool:
        """Item `index` has generated `token`; True stops this item only."""
        ...

    def on_end(self, index: int) -> None:
        """Item `index` has ended by itself: its end token came."""
        ...

    def on_step(self) -> None:
        """Every running item has had its token of this step."""
        ...


class Detokenizer(Protocol):
    """Turns one answer's tokens into text, piece by piece.

    What was returned, joined, is what decoding all tokens at once gives. A character is held
    back until it is whole.
    """

    def feed(self, tokens: Sequence[int]) -> str:
        """The text that these tokens complete."""
        ...

    def finish(self) -> str:
        """What was held back; a cut-off character becomes U+FFFD."""
        ...


class TextEngine(Protocol):
    """One loaded model."""

    @property
    def slots(self) -> int:
        """How many batches it runs side by side."""
        ...

    @property
    def max_batch(self) -> int:
        """How many items of one batch pay off."""
        ...

    @property
    def context_tokens(self) -> int:
        """Prompt and answer together may have so many tokens."""
        ...

    def encode(self, messages: Sequence[ChatMessage]) -> list[str]:
        """The prompt's tokens. Nothing inside a message can become a control token.

        Raises:
            ConversationError: the model's template refuses the conversation.
        """
        ...

    def detokenizer(self) -> Detokenizer:
        """A fresh one for one answer."""
        ...

    def generate(
        self,
        prompts: list[list[str]],
        options: SamplingOptions,
        max_tokens: int,
        observer: BatchObserver,
    ) -> None:
        """Run one batch to its end; blocks, and is called from one thread per slot.

        Raises:
            EngineError: the engine failed; items that had not ended are lost.
        """
        ...

    def close(self) -> None:
        """Free the model; no batch runs any more."""
        ...


class ResponseSink(Protocol):
    """Frames for whoever listens right now. Losing one breaks no promise (I6)."""

    async def delta(self, subject: str, attempt: int, run: str, n: int, text: str) -> None:
        """Delta number `n` of a run."""
        ...

    async def final(self, subject: str, ended: RequestEnded, text: str) -> None:
        """The final frame, after the fact."""
        ...


class Cancellations(Protocol):
    """Which requests their tenants have cancelled."""

    def cancelled(self, tenant: str, request_id: str) -> bool:
        """Whether the tenant has cancelled this request of its own."""
        ...

    def watching(
        self, tenant: str, request_id: str, notify: Callable[[], None]
    ) -> AbstractContextManager[None]:
        """Call `notify` if the request is cancelled meanwhile."""
        ...
