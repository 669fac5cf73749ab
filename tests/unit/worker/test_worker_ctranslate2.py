"""The engine's adapter against CTranslate2 itself, with the committed reference model."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock_shared.contracts.errors import PermanentError
from penstock_shared.contracts.models import ModelLayout
from penstock_shared.contracts.requests import ChatMessage, Content
from penstock_shared.runtime.model_catalog import read_manifest
from penstock_worker.adapters.ctranslate2_engine import CTranslate2Engine
from penstock_worker.errors import ContextLengthError, EngineError
from penstock_worker.ports import BatchObserver, Prompt, SamplingOptions

_REFERENCE = Path(__file__).parents[3] / "models" / "penstock-small"
_LAYOUT = ModelLayout(compute_type="int8", slots=1, threads=1, max_batch=8)


class Watch(BatchObserver):
    """Keeps what it hears; stops each item at its limit."""

    def __init__(self, limits: list[int]) -> None:
        self.limits = limits
        self.tokens: list[list[int]] = [[] for _ in limits]
        self.log_probs: list[list[float]] = [[] for _ in limits]
        self.ended = [False] * len(limits)
        self.after_the_end = 0
        self.steps = 0

    def on_token(self, index: int, token: int, log_prob: float) -> bool:
        self.after_the_end += self.ended[index]
        self.tokens[index].append(token)
        self.log_probs[index].append(log_prob)
        self.ended[index] = len(self.tokens[index]) >= self.limits[index]
        return self.ended[index]

    def on_end(self, index: int) -> None:
        self.ended[index] = True

    def on_step(self) -> None:
        self.steps += 1


@pytest.fixture(scope="module")
def engine() -> Iterator[CTranslate2Engine]:
    loaded = CTranslate2Engine(_REFERENCE, read_manifest(_REFERENCE), _LAYOUT)
    yield loaded
    loaded.close()


def prompt(engine: CTranslate2Engine, text: str, begun: list[str] | None = None) -> Prompt:
    content = Content(messages=(ChatMessage(role="user", content=text),))
    return Prompt(engine.encode(content), begun or [])


def answer(engine: CTranslate2Engine, start: Prompt, limit: int) -> list[int]:
    """What greedy decoding says, alone in its batch."""
    watch = Watch([limit])
    engine.generate([start], SamplingOptions(), limit, watch)
    return watch.tokens[0]


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
        CTranslate2Engine(tmp_path / "m", read_manifest(_REFERENCE), _LAYOUT)


def test_each_token_comes_with_its_log_probability(engine: CTranslate2Engine):
    """A greedy choice is the likeliest one: what cold sampling draws is as sure, hot is less."""
    asked = [prompt(engine, "Please send me 3 red hats and 12 blue socks to Berlin")] * 8
    cold, hot = Watch([24] * 8), Watch([24] * 8)
    engine.generate(asked, SamplingOptions(), 24, cold)
    engine.generate(asked, SamplingOptions(3.0, 1.0), 24, hot)
    for watch in (cold, hot):
        assert [len(one) for one in watch.log_probs] == [len(one) for one in watch.tokens]
        assert all(log_prob <= 0 for one in watch.log_probs for log_prob in one)
    assert _mean(cold.log_probs) > _mean(hot.log_probs)
    greedy = cold.log_probs[0]
    assert all(one == pytest.approx(greedy, abs=1e-3) for one in cold.log_probs)


def _mean(log_probs: list[list[float]]) -> float:
    flat = [log_prob for one in log_probs for log_prob in one]
    return sum(flat) / len(flat)


@pytest.mark.parametrize("begun_tokens", [1, 2, 5, 11])
def test_an_answer_goes_on_after_what_was_begun(engine: CTranslate2Engine, begun_tokens: int):
    """A greedy answer is the same in one batch and in two; nothing begun is told again (I3)."""
    asked = prompt(engine, "Please send me 3 red hats and 12 blue socks to Berlin")
    whole = answer(engine, asked, 24)
    begun = engine.token_names(whole[:begun_tokens])
    rest = answer(engine, Prompt(asked.tokens, begun), 24 - begun_tokens)
    assert whole[:begun_tokens] + rest == whole


def test_one_batch_holds_answers_that_begin_and_answers_that_go_on(engine: CTranslate2Engine):
    """Each gets its own tokens; a delivered prefix is retokenised and decoded as it was said."""
    asked = prompt(engine, "Please send me 3 red hats and 12 blue socks to Berlin")
    whole = answer(engine, asked, 16)
    shown = engine.detokenizer([]).feed(whole[:6])
    begun = engine.encode_answer(shown)
    watch = Watch([16, 10])
    engine.generate([asked, Prompt(asked.tokens, begun)], SamplingOptions(), 16, watch)
    assert watch.tokens[0] == whole
    text = engine.detokenizer([])
    assert shown + engine.detokenizer(begun).feed(watch.tokens[1]) == text.feed(whole)


def test_a_prompt_leaves_room_or_is_refused(engine: CTranslate2Engine):
    """An answer may fill the context and not pass it."""
    short = prompt(engine, "hi")
    assert engine.room(short.tokens) == 1024 - len(short.tokens)
    with pytest.raises(ContextLengthError, match="1024"):
        prompt(engine, "ab12 " * 1024)
