"""Text pieces, joined, are the text: for every tokenizer and any way of cutting (I6)."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from penstock_shared.contracts.requests import ChatMessage
from penstock_worker.adapters.echo_engine import EchoDetokenizer, EchoEngine
from penstock_worker.adapters.tokenizer import ChatTokenizer, WindowDetokenizer
from penstock_worker.ports import BatchObserver, Detokenizer, SamplingOptions

_REFERENCE = Path(__file__).parents[2] / "models" / "penstock-small"
cuts = st.lists(st.integers(1, 5), max_size=30)


@cache
def reference() -> tuple[ChatTokenizer, Tokenizer]:
    return ChatTokenizer(_REFERENCE), Tokenizer.from_file(str(_REFERENCE / "tokenizer.json"))


@cache
def sentencepiece_like() -> Tokenizer:
    """Metaspace and byte fallback: the scheme of Llama 2, Gemma and Mistral."""
    pieces = ["<unk>", "▁", "▁the", "▁a", "b", "c", "é", *(f"<0x{n:02X}>" for n in range(256))]
    tokenizer = Tokenizer(
        models.BPE(vocab={p: n for n, p in enumerate(pieces)}, merges=[], byte_fallback=True)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer


def pieces_of(detokenizer: Detokenizer, tokens: list[int], sizes: list[int]) -> list[str]:
    pieces, start = [], 0
    for size in [*sizes, len(tokens)]:
        pieces.append(detokenizer.feed(tokens[start : start + size]))
        start += size
    return [*pieces, detokenizer.finish()]


@given(st.lists(st.integers(0, 511), max_size=60), cuts)
def test_byte_level_pieces_are_the_whole(tokens: list[int], sizes: list[int]):
    """Any tokens, whole characters or not, control tokens included, cut anywhere."""
    chat, tokenizer = reference()
    tokens = [t % tokenizer.get_vocab_size() for t in tokens]
    pieces = pieces_of(chat.detokenizer(), tokens, sizes)
    assert "".join(pieces) == tokenizer.decode(tokens, skip_special_tokens=True)


@given(st.text(max_size=80), cuts)
def test_byte_level_pieces_of_real_text_are_never_broken(text: str, sizes: list[int]):
    """Text that was encoded comes back, and no piece holds half a character."""
    chat, tokenizer = reference()
    tokens = tokenizer.encode(text.replace("<|", ""), add_special_tokens=False).ids
    pieces = pieces_of(chat.detokenizer(), tokens, sizes)
    assert "".join(pieces) == text.replace("<|", "")
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in pieces)


@given(st.lists(st.sampled_from(["▁", "▁the", "▁a", "b", "c", "é", "€", "😀"]), max_size=40), cuts)
def test_pieces_of_any_other_decoder_are_the_whole(pieces: list[str], sizes: list[int]):
    """SentencePiece's scheme: the first space goes, the others stay, bytes become characters."""
    tokenizer = sentencepiece_like()
    vocabulary = tokenizer.get_vocab()
    tokens: list[int] = []
    for piece in pieces:
        spelt = [vocabulary[f"<0x{byte:02X}>"] for byte in piece.encode()]
        tokens += [vocabulary[piece]] if piece in vocabulary else spelt
    streamed = pieces_of(WindowDetokenizer(tokenizer), tokens, sizes)
    assert "".join(streamed) == tokenizer.decode(tokens)
    assert not any("\ufffd" in piece for piece in streamed)


class _Collect(BatchObserver):
    def __init__(self) -> None:
        self.tokens: list[int] = []

    def on_token(self, index: int, token: int) -> bool:
        self.tokens.append(token)
        return index != 0

    def on_end(self, index: int) -> None: ...

    def on_step(self) -> None: ...


@given(st.text(max_size=200))
def test_an_echo_is_the_message(text: str):
    """White space and all, one token per word."""
    engine, seen = EchoEngine(slots=1, max_batch=1), _Collect()
    prompt = engine.encode((ChatMessage(role="user", content=text),))
    engine.generate([prompt], SamplingOptions(), 1000, seen)
    assert EchoDetokenizer().feed(seen.tokens) == text
    assert len(seen.tokens) == max(len(text.split()), 1 if text else 0)
