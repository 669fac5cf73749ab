"""Translation with the tests' own small encoder and decoder (tests/data/translator)."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests.support.number_words import phrase

from penstock_shared.contracts.errors import PermanentError
from penstock_shared.contracts.models import ModelLayout, TranslationOptions
from penstock_shared.contracts.requests import ChatMessage, Content
from penstock_shared.runtime.model_catalog import read_manifest, verify
from penstock_worker.adapters.ctranslate2_translator import CTranslate2Translator
from penstock_worker.errors import ContextLengthError, ConversationError, EngineError
from penstock_worker.ports import BatchObserver, Prompt, SamplingOptions

_MODEL = Path(__file__).parents[2] / "data" / "translator"
_LAYOUT = ModelLayout(compute_type="int8", slots=1, threads=1, max_batch=32)
_LIMIT = 100


class Hearer(BatchObserver):
    """Keeps what it hears; stops an item after so many tokens."""

    def __init__(self, limits: Sequence[int]) -> None:
        self.limits = limits
        self.tokens: list[list[int]] = [[] for _ in limits]
        self.log_probs: list[list[float]] = [[] for _ in limits]
        self.ended = [0] * len(limits)
        self.after_the_end = 0
        self.steps = 0

    def on_token(self, index: int, token: int, log_prob: float) -> bool:
        self.after_the_end += len(self.tokens[index]) >= self.limits[index]
        self.tokens[index].append(token)
        self.log_probs[index].append(log_prob)
        return len(self.tokens[index]) >= self.limits[index]

    def on_end(self, index: int) -> None:
        self.ended[index] += 1

    def on_step(self) -> None:
        self.steps += 1


@pytest.fixture(scope="module")
def engine() -> Iterator[CTranslate2Translator]:
    manifest = read_manifest(_MODEL)
    verify(_MODEL, manifest)
    loaded = CTranslate2Translator(_MODEL, manifest, _LAYOUT)
    yield loaded
    loaded.close()


def unseen(count: int, seed: int = 3) -> list[tuple[str, str]]:
    """Phrases with numbers that training never showed, and their translations."""
    rng = random.Random(seed)
    return [phrase(rng, unseen=True) for _ in range(count)]


def run(
    engine: CTranslate2Translator,
    texts: Sequence[str],
    limits: Sequence[int] | None = None,
    begun: Sequence[list[str]] | None = None,
    most: int = _LIMIT,
) -> Hearer:
    """One greedy batch."""
    starts = begun or [[] for _ in texts]
    sources = [engine.encode(Content(texts=(text,))) for text in texts]
    prompts = [Prompt(source, start) for source, start in zip(sources, starts, strict=True)]
    heard = Hearer(limits or [most] * len(texts))
    engine.generate(prompts, SamplingOptions(), most, heard)
    return heard


def text_of(engine: CTranslate2Translator, tokens: Sequence[int], begun: Sequence[str] = ()) -> str:
    detokenizer = engine.detokenizer(begun)
    return "".join([detokenizer.feed([token]) for token in tokens]) + detokenizer.finish()


def test_numbers_that_training_never_showed_are_translated(engine: CTranslate2Translator):
    """Real work: the model reads and writes; every item of a mixed batch ends by itself, once."""
    pairs = unseen(60)
    heard = run(engine, [source for source, _ in pairs])
    made = [text_of(engine, tokens) for tokens in heard.tokens]
    right = sum(text == target for text, (_, target) in zip(made, pairs, strict=True))
    assert right >= 54, [pair for pair in zip(made, pairs, strict=True) if pair[0] != pair[1][1]]
    assert heard.ended == [1] * len(pairs)
    assert heard.steps >= max(map(len, heard.tokens))


def test_deltas_joined_are_what_the_engine_itself_returns(engine: CTranslate2Translator):
    """Token by token through the callback, or at once: the same tokens, the same text (I6)."""
    texts = [source for source, _ in unseen(8)]
    heard = run(engine, texts)
    sources = [engine.encode(Content(texts=(text,))) for text in texts]
    at_once = engine._translator.translate_batch(sources, beam_size=1)
    for tokens, result in zip(heard.tokens, at_once, strict=True):
        assert engine.token_names(tokens) == result.hypotheses[0]
        joined = "".join(result.hypotheses[0]).replace("▁", " ").removeprefix(" ")
        assert text_of(engine, tokens) == joined


def test_items_of_one_batch_stop_at_their_own_limits(engine: CTranslate2Translator):
    """A limit, a stop sequence and a cancellation are all True from the observer (I3)."""
    texts = [source for source, _ in unseen(4)]
    whole = run(engine, texts)
    limits = [1, 3, _LIMIT, 2]
    heard = run(engine, texts, limits)
    assert heard.after_the_end == 0
    assert heard.tokens == [t[:n] for t, n in zip(whole.tokens, limits, strict=True)]
    assert heard.ended == [0, 0, 1, 0]


def test_an_answer_that_goes_on_is_the_uninterrupted_one(engine: CTranslate2Translator):
    """Each item from another place of its own; what was begun is not told again (I3, I6)."""
    texts = [source for source, _ in unseen(5)]
    whole = run(engine, texts)
    cuts = [0, 1, 4, 2, len(whole.tokens[4])]
    begun = [engine.token_names(t[:n]) for t, n in zip(whole.tokens, cuts, strict=True)]
    rest = run(engine, texts, begun=begun)
    for index, cut in enumerate(cuts):
        assert rest.tokens[index] == whole.tokens[index][cut:]
        assert rest.ended[index] == 1
        shown = text_of(engine, whole.tokens[index][:cut])
        went_on = text_of(engine, rest.tokens[index], begun[index])
        assert shown + went_on == text_of(engine, whole.tokens[index])


def test_an_answer_goes_on_after_text_that_was_shown(engine: CTranslate2Translator):
    """The text is encoded anew: what follows begins where it ended."""
    ((source, target),) = [pair for pair in unseen(40) if " und " in pair[1]][:1]
    shown = target[: target.index(" und ")]
    begun = engine.encode_answer(shown)
    heard = run(engine, [source], begun=[begun])
    assert shown + text_of(engine, heard.tokens[0], begun) == target


def test_a_batch_gives_no_item_more_than_was_asked(engine: CTranslate2Translator):
    """An item with a short beginning does not get what the longest beginning takes."""
    texts = [source for source, _ in unseen(2)]
    whole = run(engine, texts)
    begun = [engine.token_names(whole.tokens[0][:6]), []]
    heard = run(engine, texts, begun=begun, most=2)
    assert heard.tokens == [whole.tokens[0][6:8], whole.tokens[1][:2]]


def test_log_probabilities_are_those_of_the_tokens(engine: CTranslate2Translator):
    """What the router's escalation reads: the engine's own score, token by token."""
    (text,) = [source for source, _ in unseen(1)]
    heard = run(engine, [text])
    result = engine._translator.translate_batch(
        [engine.encode(Content(texts=(text,)))], beam_size=1, return_scores=True, length_penalty=0
    )
    told = sum(heard.log_probs[0])
    assert all(value <= 0 for value in heard.log_probs[0])
    assert result[0].scores[0] <= told + 1e-4  # the engine's own sum holds the end token as well
    assert told == pytest.approx(result[0].scores[0], abs=0.5)


def test_hot_samples_differ(engine: CTranslate2Translator):
    """Sampling options reach the engine."""
    source = engine.encode(Content(texts=(unseen(1)[0][0],)))
    heard = Hearer([20] * 8)
    engine.generate([Prompt(source, [])] * 8, SamplingOptions(3.0, 1.0), 20, heard)
    assert len({tuple(tokens) for tokens in heard.tokens}) > 1
    with pytest.raises(EngineError):
        engine.generate([Prompt(source, [])], SamplingOptions(1.0, 5.0), 4, Hearer([4]))


def test_what_cannot_be_translated_is_refused(engine: CTranslate2Translator):
    """Nothing, several texts, a conversation, a text that is too long: each with its sentence."""
    for content in (
        Content(texts=("",)),
        Content(texts=(" \n",)),
        Content(texts=("a", "b")),
        Content(messages=(ChatMessage(role="user", content="a"),)),
    ):
        with pytest.raises(ConversationError, match="one text at a time"):
            engine.encode(content)
    with pytest.raises(ContextLengthError, match="takes 128"):
        engine.encode(Content(texts=("two hundred hats and " * 40,)))


def test_a_text_cannot_end_the_source(engine: CTranslate2Translator):
    """What says </s> in a text is text; the only one is the frame's (I8)."""
    tokens = engine.encode(Content(texts=("two</s> hats",)))
    assert tokens.count("</s>") == 1
    assert tokens[-1] == "</s>"


def test_an_answer_has_the_decoders_room(engine: CTranslate2Translator):
    """The source takes none of it; and that much does run."""
    source = engine.encode(Content(texts=("two hats",)))
    assert engine.room(source) == 128
    run(engine, ["two hats"], most=engine.room(source))


def test_a_frame_that_the_model_does_not_know_is_refused():
    """A language code of another model would be read as unknown, in silence."""
    frame = TranslationOptions(target_prefix=("__de__",))
    manifest = read_manifest(_MODEL).model_copy(update={"translation": frame})
    with pytest.raises(PermanentError, match="does not know '__de__'"):
        CTranslate2Translator(_MODEL, manifest, _LAYOUT)


def test_broken_files_are_refused(tmp_path: Path):
    """Truncated weights and another model's tokenizer: permanent errors, before the first job."""
    broken = Path(shutil.copytree(_MODEL, tmp_path / "m"))
    with (broken / "model.bin").open("r+b") as file:
        file.truncate(100_000)
    with pytest.raises(PermanentError, match="Export the model again"):
        CTranslate2Translator(broken, read_manifest(broken), _LAYOUT)
    names = json.loads((broken / "shared_vocabulary.json").read_text(encoding="utf-8"))
    (broken / "shared_vocabulary.json").write_text(json.dumps(names[:-9]), encoding="utf-8")
    with pytest.raises(PermanentError, match="does not belong to its model"):
        CTranslate2Translator(broken, read_manifest(broken), _LAYOUT)
