"""Prompts and text with the `tokenizers` library, from the files beside a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from penstock_shared.contracts.errors import PermanentError
from penstock_shared.contracts.requests import ChatMessage
from penstock_worker.adapters.chat_template import control_token, read_chat_template
from penstock_worker.domain.byte_level import ByteLevelDetokenizer, token_bytes
from penstock_worker.ports import Detokenizer


class ChatTokenizer:
    """One model's tokenizer.

    It holds the tokenizer twice: with its control tokens for the template's fixed parts, and
    stripped of them for what people wrote. Pieces are encoded one by one, so a tokenizer that
    treats the beginning of a text in its own way does so at every message.
    """

    def __init__(self, directory: Path) -> None:
        description = _read_json(directory / "tokenizer.json")
        config = _read_json(directory / "tokenizer_config.json")
        self._template = read_chat_template(directory, config)
        self._controls = frozenset(
            str(token["content"])
            for token in description.get("added_tokens", ())
            if token["special"]
        )
        description |= {"post_processor": None, "truncation": None, "padding": None}
        self._fixed = _tokenizer(directory, description)
        self._said = _tokenizer(directory, description | {"added_tokens": []})
        self._end_token = control_token(config, "eos_token")
        byte_level = (description.get("decoder") or {}).get("type") == "ByteLevel"
        self._bytes = (
            token_bytes(self._fixed.get_vocab(with_added_tokens=True), self._controls)
            if byte_level
            else None
        )

    @property
    def end_ids(self) -> list[int]:
        """The ids that end an answer; empty when the model's own default holds."""
        number = self._fixed.token_to_id(self._end_token)
        return [] if number is None else [number]

    def encode(self, messages: Sequence[ChatMessage]) -> list[str]:
        """The prompt's tokens, ready for the assistant's turn."""
        tokens: list[str] = []
        for part in self._template.skeleton(tuple(message.role for message in messages)):
            if isinstance(part, str):
                tokens += self._fixed.encode(part, add_special_tokens=False).tokens
            else:
                tokens += self._encode_said(messages[part].content)
        return tokens

    def _encode_said(self, text: str) -> list[str]:
        tokens: list[str] = self._said.encode(text, add_special_tokens=False).tokens
        if self._controls.isdisjoint(tokens):
            return tokens
        # A vocabulary can hold a control token's name as an ordinary piece (Unigram's "</s>").
        return [token for token in tokens if token not in self._controls]

    def encode_answer(self, text: str) -> list[str]:
        """The tokens of an answer's beginning, to go on after it."""
        return self._encode_said(text)

    def token_names(self, tokens: Sequence[int]) -> list[str]:
        """Token ids as their names."""
        return [self._fixed.id_to_token(token) or "" for token in tokens]

    def detokenizer(self, begun: Sequence[str] = ()) -> Detokenizer:
        """A fresh one for an answer that goes on after the tokens `begun`."""
        detokenizer: Detokenizer = (
            WindowDetokenizer(self._fixed)
            if self._bytes is None
            else ByteLevelDetokenizer(self._bytes)
        )
        ids = (self._fixed.token_to_id(name) for name in begun)
        detokenizer.feed([number for number in ids if number is not None])
        return detokenizer


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
        self._window += tokens
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


def _tokenizer(directory: Path, description: dict[str, Any]) -> Tokenizer:
    try:
        return Tokenizer.from_str(json.dumps(description))
    except Exception as error:  # `tokenizers` raises nothing more precise
        msg = f"{directory / 'tokenizer.json'} is no tokenizer: restore it from the model's export."
        raise PermanentError(msg, code="model_incomplete") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"{path} is missing or no JSON: restore it from the model's export."
        raise PermanentError(msg, code="model_incomplete") from error
    if not isinstance(content, dict):
        msg = f"{path} is no JSON object: restore it from the model's export."
        raise PermanentError(msg, code="model_incomplete")
    return content
