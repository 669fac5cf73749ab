"""A model that answers with the last user message, one word per token: measures the platform.

Everything around it is the same as for a real model. Its vocabulary is unbounded: a token's id
is the word's own bytes, read as a number.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Final

from penstock_shared.contracts.models import Engine, ModelLayout, ModelRecord
from penstock_shared.contracts.requests import Content
from penstock_shared.contracts.usage import Price
from penstock_worker.errors import ContextLengthError
from penstock_worker.ports import BatchObserver, Prompt, SamplingOptions

ECHO_RECORD: Final = ModelRecord(
    name="echo",
    version="1",
    engine=Engine.ECHO,
    parameters=0,
    context_tokens=262_144,
    price=Price(input_microusd_per_1k=0, output_microusd_per_1k=0),
)
_WORD: Final = re.compile(r"\s*\S+(?:\s+\Z)?|\s+\Z")
_SLOTS: Final = 4
_BATCH: Final = 64
_CERTAIN: Final = 0.0
"""The log-probability of every word."""
_GUARD: Final = b"\x01"  # keeps leading zero bytes


class EchoDetokenizer:
    """Words back from their ids."""

    def feed(self, tokens: Sequence[int]) -> str:
        """The text of these tokens."""
        return "".join([_word_of(token) for token in tokens])

    def finish(self) -> str:
        """Nothing is ever held back."""
        return ""


class EchoEngine:
    """`tokens_per_s` paces each answer; 0 is as fast as it goes."""

    layout = ModelLayout(compute_type="none", slots=_SLOTS, threads=0, max_batch=_BATCH)

    def __init__(self, *, tokens_per_s: float = 0.0) -> None:
        self._step_s = 1 / tokens_per_s if tokens_per_s else 0.0

    def encode(self, content: Content) -> list[str]:
        """The words last said to it, by a user or a tool; each brings its white space along."""
        said = (m.content for m in reversed(content.messages) if m.role in ("user", "tool"))
        words: list[str] = _WORD.findall(next(said, ""))
        if len(words) > ECHO_RECORD.context_tokens // 2:
            msg = f"The input has {len(words)} words: the echo takes half its context."
            raise ContextLengthError(msg, param="input")
        return words

    def room(self, prompt: Sequence[str]) -> int:
        """What the prompt leaves of the context."""
        return ECHO_RECORD.context_tokens - len(prompt)

    def encode_answer(self, text: str) -> list[str]:
        """The words of an answer's beginning."""
        return _WORD.findall(text)

    def token_names(self, tokens: Sequence[int]) -> list[str]:
        """Words back from their ids."""
        return [_word_of(token) for token in tokens]

    def detokenizer(self, begun: Sequence[str]) -> EchoDetokenizer:  # noqa: ARG002  words are whole
        """A fresh one for one answer."""
        return EchoDetokenizer()

    def generate(
        self,
        prompts: Sequence[Prompt],
        options: SamplingOptions,  # noqa: ARG002  an echo has no choice
        max_tokens: int,
        observer: BatchObserver,
    ) -> None:
        """Say each prompt again, word by word, from where it was left."""
        words = [prompt.tokens[len(prompt.begun) :] for prompt in prompts]
        running = list(range(len(words)))
        for step in range(max_tokens):
            if self._step_s:
                time.sleep(self._step_s)
            running = [index for index in running if _say(index, words[index], step, observer)]
            observer.on_step()
            if not running:
                return

    def close(self) -> None:
        """There is nothing to free."""


def _say(index: int, prompt: list[str], step: int, observer: BatchObserver) -> bool:
    """One step of one item; False once it has ended."""
    if step >= len(prompt):
        observer.on_end(index)
        return False
    return not observer.on_token(index, _id_of(prompt[step]), _CERTAIN)


def _id_of(word: str) -> int:
    return int.from_bytes(_GUARD + word.encode(), "big")


def _word_of(token: int) -> str:
    size = (token.bit_length() + 7) // 8
    return token.to_bytes(size, "big")[1:].decode()
