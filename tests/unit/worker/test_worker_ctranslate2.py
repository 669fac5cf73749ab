"""The engine's adapter against CTranslate2 itself, with the committed reference model."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock_shared.contracts.errors import PermanentError
from penstock_shared.contracts.requests import ChatMessage
from penstock_worker.adapters.ctranslate2_engine import CTranslate2Engine
from penstock_worker.errors import EngineError
from penstock_worker.ports import BatchObserver, SamplingOptions

_REFERENCE = Path(__file__).parents[3] / "models" / "penstock-small"


class Watch(BatchObserver):
    """Keeps what it hears; stops each item at its limit."""

    def __init__(self, limits: list[int]) -> None:
        self.limits = limits
        self.tokens: list[list[int]] = [[] for _ in limits]
        self.ended = [False] * len(limits)
        self.after_the_end = 0
        self.steps = 0

    def on_token(self, index: int, token: int) -> bool:
        self.after_the_end += self.ended[index]
        self.tokens[index].append(token)
        self.ended[index] = len(self.tokens[index]) >= self.limits[index]
        return self.ended[index]

    def on_end(self, index: int) -> None:
        self.ended[index] = True

    def on_step(self) -> None:
        self.steps += 1


@pytest.fixture(scope="module")
def engine() -> Iterator[CTranslate2Engine]:
    loaded = CTranslate2Engine(_REFERENCE, context_tokens=1024, slots=1, max_batch=8)
    yield loaded
    loaded.close()


def prompt(engine: CTranslate2Engine, text: str) -> list[str]:
    return engine.encode((ChatMessage(role="user", content=text),))


def test_items_of_one_batch_stop_at_their_own_limits(engine: CTranslate2Engine):
    """Lengths are mixed, limits differ: each item gets its own tokens and not one more (I3)."""
    texts = ["hi", "a much longer message with many words in it", "2 hats", "hello there"]
    limits = [3, 7, 1, 5]
    watch = Watch(limits)
    engine.generate([prompt(engine, t) for t in texts], SamplingOptions(), max(limits), watch)
    assert watch.after_the_end == 0
    for index, (text, limit) in enumerate(zip(texts, limits, strict=True)):
        alone = Watch([limit])
        engine.generate([prompt(engine, text)], SamplingOptions(), limit, alone)
        assert watch.tokens[index] == alone.tokens[0]
        assert watch.ended[index] or len(watch.tokens[index]) <= limit


def test_every_step_is_told_while_the_batch_runs(engine: CTranslate2Engine):
    """One hand-over per step is possible, whoever ends first."""
    watch = Watch([4, 12])
    engine.generate([prompt(engine, "hi"), prompt(engine, "ho")], SamplingOptions(), 12, watch)
    assert watch.steps >= max(len(tokens) for tokens in watch.tokens)


def test_sampling_options_reach_the_engine(engine: CTranslate2Engine):
    """Greedy answers are all alike; hot samples of the same prompt are not."""
    prompts = [prompt(engine, "Please send me 3 red hats and 12 blue socks to Berlin")] * 8
    greedy, hot = Watch([32] * 8), Watch([32] * 8)
    engine.generate(prompts, SamplingOptions(), 32, greedy)
    engine.generate(prompts, SamplingOptions(2.0, 1.0), 32, hot)
    assert len({tuple(tokens) for tokens in greedy.tokens}) == 1
    assert len({tuple(tokens) for tokens in hot.tokens}) > 1


def test_what_the_engine_refuses_is_an_engine_error(engine: CTranslate2Engine):
    """Its own exception types stay inside the adapter."""
    with pytest.raises(EngineError):
        engine.generate([prompt(engine, "hi")], SamplingOptions(1.0, 5.0), 4, Watch([4]))


def test_a_directory_without_weights_is_refused_with_a_sentence(tmp_path: Path):
    """A permanent error that names the directory."""
    shutil.copytree(_REFERENCE, tmp_path / "m")
    (tmp_path / "m" / "model.bin").unlink()
    with pytest.raises(PermanentError, match="Export the model again"):
        CTranslate2Engine(tmp_path / "m", context_tokens=16, slots=1, max_batch=1)
