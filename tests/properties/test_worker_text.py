"""Text pieces, joined, are the text: for every tokenizer and any way of cutting (I6)."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from penstock_shared.contracts.requests import ChatMessage, Content
from penstock_worker.adapters.echo_engine import EchoDetokenizer, EchoEngine
from penstock_worker.adapters.text_tokenizer import TextTokenizer
from penstock_worker.ports import BatchObserver, Detokenizer, Prompt, SamplingOptions

_REFERENCE = Path(__file__).parents[2] / "models" / "penstock-small"
_CONTROL = ["<unk>", "</s>"]
_BYTES = [f"<0x{number:02X}>" for number in range(256)]
_PIECES = ["▁", "▁the", "▁a", "the", "a", "b", "c", "é", "ß", ".", "▁<"]
_SCHEMES = ["byte level", "BPE with byte fallback", "Unigram", "Unigram with byte fallback"]
cuts = st.lists(st.integers(1, 5), max_size=30)
numbers = st.lists(st.integers(0, 10_000), max_size=60)
schemes = pytest.mark.parametrize("scheme", _SCHEMES)


@cache
def tokenizers(scheme: str) -> tuple[TextTokenizer, Tokenizer]:
    """The adapter, and the library's own tokenizer to compare it with."""
    if scheme == "byte level":
        return TextTokenizer(_REFERENCE), Tokenizer.from_file(str(_REFERENCE / "tokenizer.json"))
    whole = sentencepiece(scheme)
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        whole.save(str(directory / "tokenizer.json"))
        (directory / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
        return TextTokenizer(directory), whole


def sentencepiece(scheme: str) -> Tokenizer:
    """The schemes of Llama 2, Gemma, Mistral (BPE), T5, NLLB, XLM-R (Unigram)."""
    fallback = "fallback" in scheme
    pieces = [*_CONTROL, *(_BYTES if fallback else []), *_PIECES]
    model: Any
    if scheme.startswith("BPE"):
        vocabulary = {piece: number for number, piece in enumerate(pieces)}
        model = models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token="<unk>")
    else:
        scored = [(piece, -1.0 - number / 100) for number, piece in enumerate(pieces)]
        model = models.Unigram(scored, unk_id=0, byte_fallback=fallback)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = (
        decoders.Sequence(
            [
                decoders.Replace("▁", " "),
                decoders.ByteFallback(),
                decoders.Fuse(),
                decoders.Strip(" ", 1, 0),
            ]
        )
        if fallback
        else decoders.Metaspace()
    )
    tokenizer.add_special_tokens(_CONTROL)
    return tokenizer


def pieces_of(detokenizer: Detokenizer, tokens: list[int], sizes: list[int]) -> list[str]:
    pieces, start = [], 0
    for size in [*sizes, len(tokens)]:
        pieces.append(detokenizer.feed(tokens[start : start + size]))
        start += size
    return [*pieces, detokenizer.finish()]


def some_tokens(scheme: str, chosen: list[int]) -> list[int]:
    """Any tokens at all, control tokens and halves of characters included."""
    return [number % tokenizers(scheme)[1].get_vocab_size() for number in chosen]


def whole_tokens(scheme: str, chosen: list[int]) -> list[int]:
    """Any ordinary pieces, and characters spelt out in bytes where the scheme can."""
    _, whole = tokenizers(scheme)
    vocabulary = whole.get_vocab()
    if scheme == "byte level":
        return whole.encode("".join("aé€😀 ß"[n % 6] for n in chosen)).ids
    units = [[vocabulary[piece]] for piece in _PIECES]
    if "fallback" in scheme:
        spelt = ([vocabulary[f"<0x{byte:02X}>"] for byte in char.encode()] for char in "é€😀 ")
        units += list(spelt)
    return [token for number in chosen for token in units[number % len(units)]]


@schemes
@settings(deadline=None)
@given(chosen=numbers, sizes=cuts)
def test_pieces_are_the_whole(scheme: str, chosen: list[int], sizes: list[int]):
    """Pieces and whole characters in any order, cut anywhere: no space lost, nothing broken."""
    adapter, whole = tokenizers(scheme)
    tokens = whole_tokens(scheme, chosen)
    pieces = pieces_of(adapter.detokenizer(), tokens, sizes)
    assert "".join(pieces) == whole.decode(tokens)
    assert not any("\ufffd" in piece for piece in pieces)


@settings(deadline=None)
@given(chosen=numbers, sizes=cuts)
def test_byte_level_pieces_of_any_tokens_are_the_whole(chosen: list[int], sizes: list[int]):
    """Random ids, control tokens and broken characters included."""
    adapter, whole = tokenizers("byte level")
    tokens = some_tokens("byte level", chosen)
    assert "".join(pieces_of(adapter.detokenizer(), tokens, sizes)) == whole.decode(tokens)


@pytest.mark.parametrize("scheme", _SCHEMES[1:])
@settings(deadline=None)
@given(chosen=numbers, sizes=cuts)
def test_broken_bytes_harm_nothing_around_them(scheme: str, chosen: list[int], sizes: list[int]):
    """Random ids of SentencePiece's schemes: everything but broken characters is there.

    How many U+FFFD stand for bytes that are no UTF-8 is left open: decoding at once also takes back
    whole characters that stand before them.
    """
    adapter, whole = tokenizers(scheme)
    tokens = [t for t in some_tokens(scheme, chosen) if whole.id_to_token(t) not in _BYTES[:0x80]]
    streamed, at_once = (
        "".join(pieces_of(adapter.detokenizer(), tokens, sizes)),
        whole.decode(tokens),
    )
    if "\ufffd" in at_once:  # what is ASCII now came from whole pieces, never from bytes
        assert [c for c in streamed if c.isascii()] == [c for c in at_once if c.isascii()]
    else:
        assert streamed == at_once


@schemes
@settings(deadline=None)
@given(chosen=numbers, sizes=cuts)
def test_grouping_changes_no_piece(scheme: str, chosen: list[int], sizes: list[int]):
    """One by one or many at a time: the same tokens have shown the same text (I6).

    So a run that goes on after an earlier one's tokens neither repeats nor loses what that one
    held back.
    """
    adapter, _ = tokenizers(scheme)
    tokens = some_tokens(scheme, chosen)
    cut = sum(sizes) % (len(tokens) + 1)
    first = adapter.detokenizer()
    shown = "".join(first.feed([token]) for token in tokens[:cut])
    second = adapter.detokenizer(adapter.token_names(tokens[:cut]))
    went_on = "".join(pieces_of(second, tokens[cut:], sizes))
    assert shown + went_on == "".join(pieces_of(adapter.detokenizer(), tokens, sizes))


@schemes
@settings(deadline=None)
@given(chosen=numbers, sizes=cuts, after=numbers)
def test_an_answer_goes_on_where_its_text_ended(
    scheme: str, chosen: list[int], sizes: list[int], after: list[int]
):
    """Text that a client was shown, encoded anew, decodes to itself.

    What follows is joined to it without a space lost or added.
    """
    adapter, whole = tokenizers(scheme)
    text = whole.decode(whole_tokens(scheme, chosen))
    begun = adapter.encode_answer(text)
    ids = [whole.get_vocab()[name] for name in begun]
    assert whole.decode(ids) == text
    more = whole_tokens(scheme, after)
    went_on = "".join(pieces_of(adapter.detokenizer(begun), more, sizes))
    assert text + went_on == whole.decode(ids + more)


@settings(deadline=None)
@given(st.text(max_size=80), cuts)
def test_byte_level_pieces_of_real_text_are_never_broken(text: str, sizes: list[int]):
    """Text that was encoded comes back, and no piece holds half a character."""
    adapter, whole = tokenizers("byte level")
    tokens = whole.encode(text.replace("<|", ""), add_special_tokens=False).ids
    pieces = pieces_of(adapter.detokenizer(), tokens, sizes)
    assert "".join(pieces) == text.replace("<|", "")
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in pieces)


class _Collect(BatchObserver):
    def __init__(self) -> None:
        self.tokens: list[int] = []

    def on_token(self, index: int, token: int, log_prob: float) -> bool:  # noqa: ARG002  the port's
        self.tokens.append(token)
        return index != 0

    def on_end(self, index: int) -> None: ...

    def on_step(self) -> None: ...


@settings(deadline=None)
@given(st.text(max_size=200))
def test_an_echo_is_the_message(text: str):
    """White space and all, one token per word."""
    engine, seen = EchoEngine(), _Collect()
    prompt = engine.encode(Content(messages=(ChatMessage(role="user", content=text),)))
    engine.generate([Prompt(prompt, [])], SamplingOptions(), 1000, seen)
    assert EchoDetokenizer().feed(seen.tokens) == text
    assert len(seen.tokens) == max(len(text.split()), 1 if text else 0)
