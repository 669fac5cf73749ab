"""Incremental text from any decoder of the `tokenizers` library."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer


class WindowDetokenizer:
    """Any decoder: decodes the last few tokens twice and passes on the difference.

    Decoders look at their neighbours (SentencePiece drops the first space), so a token's text is
    what it adds to the text of those before it. Source: the prefix and read offsets of Hugging
    Face's text-generation-inference (`decode_token`). Unlike there, nothing held back is lost.
    One exception to the port's law: where byte-fallback tokens are no UTF-8, decoding at once also
    replaces whole characters that stand directly before them, which were passed on long ago.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []
        self._shown = 0  # how many tokens of the window have been passed on

    def feed(self, tokens: Sequence[int]) -> str:
        """The text that these tokens complete."""
        return "".join([self._feed_one(token) for token in tokens])

    def _feed_one(self, token: int) -> str:
        """One by one, so that what is held back does not depend on how tokens were grouped."""
        self._window.append(token)
        fresh = self._fresh()
        if not fresh or fresh.endswith("\ufffd"):  # perhaps half a character
            return ""
        self._window = self._window[self._shown :]
        self._shown = len(self._window)
        return fresh

    def finish(self) -> str:
        """What was held back; a cut-off character becomes U+FFFD."""
        fresh = self._fresh()
        self._window, self._shown = [], 0
        return fresh

    def _fresh(self) -> str:
        shown = self._tokenizer.decode(self._window[: self._shown])
        whole = self._tokenizer.decode(self._window)
        return str(whole[len(shown) :])
