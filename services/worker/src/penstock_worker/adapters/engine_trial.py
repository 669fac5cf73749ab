"""A loaded model on the bench: what the tuner measures."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from penstock_shared.contracts.models import ModelKind
from penstock_shared.contracts.requests import ChatMessage, Content
from penstock_worker.ports import EmbeddingEngine, Prompt, SamplingOptions, TextEngine

_SAMPLE: Final = "We need four more of these by Friday, please, and one less of the others. "


class TextTrial:
    """Generates a fixed number of tokens, whatever the model has to say."""

    def __init__(self, engine: TextEngine, kind: ModelKind) -> None:
        self._engine = engine
        content = (
            Content(messages=(ChatMessage(role="user", content=_SAMPLE),))
            if kind is ModelKind.TEXT
            else Content(texts=(_SAMPLE,))
        )
        self._prompt = Prompt(engine.encode(content), [])
        self._threads = ThreadPoolExecutor(engine.layout.slots)

    def run(self, batch: int, tokens: int) -> None:
        """As many batches side by side as there are slots, to `tokens` tokens for each item."""
        prompts = [self._prompt] * batch
        slots = range(self._engine.layout.slots)
        list(self._threads.map(lambda _: self._generate(prompts, tokens), slots))

    def _generate(self, prompts: Sequence[Prompt], tokens: int) -> None:
        """Items that end early are begun again: the others must not get faster by it."""
        left = [tokens] * len(prompts)
        while running := [number for number, count in enumerate(left) if count > 0]:
            counter = _Counter(left, running)
            self._engine.generate(
                [prompts[number] for number in running], SamplingOptions(), max(left), counter
            )
            counter.at_least_one()

    def close(self) -> None:
        """Free the model."""
        self._threads.shutdown()
        self._engine.close()


class _Counter:
    """A `BatchObserver` that counts down."""

    def __init__(self, left: list[int], running: Sequence[int]) -> None:
        self._left = left
        self._running = running

    def on_token(self, index: int, token: int, log_prob: float) -> bool:  # noqa: ARG002
        number = self._running[index]
        self._left[number] -= 1
        return self._left[number] <= 0

    def on_end(self, index: int) -> None:
        self._left[self._running[index]] -= 1  # the end was a token, too

    def on_step(self) -> None:
        pass

    def at_least_one(self) -> None:
        """A model that says nothing at all would be asked for ever."""
        for number in self._running:
            self._left[number] -= 1


class EmbeddingTrial:
    """Reads texts of a fixed length."""

    def __init__(self, engine: EmbeddingEngine) -> None:
        self._engine = engine
        self._tokens = engine.tokenize([_SAMPLE])[0]
        self._threads = ThreadPoolExecutor(engine.layout.slots)

    def run(self, batch: int, tokens: int) -> None:
        """As many batches side by side as there are slots."""
        repeated = self._tokens * -(-tokens // len(self._tokens))
        texts = [repeated[:tokens]] * batch
        list(
            self._threads.map(lambda _: self._engine.embed(texts), range(self._engine.layout.slots))
        )

    def close(self) -> None:
        """Free the model."""
        self._threads.shutdown()
        self._engine.close()
