"""What every model that writes text needs of its tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from penstock_shared.contracts.errors import PermanentError
from penstock_worker.adapters.chat_template import control_token
from penstock_worker.adapters.tokenizer_files import (
    build,
    check_vocabulary,
    control_names,
    model_vocabulary,
    read_description,
    read_json,
    unknown_name,
)
from penstock_worker.adapters.window_detokenizer import WindowDetokenizer
from penstock_worker.domain.byte_level import ByteLevelDetokenizer, token_bytes
from penstock_worker.ports import Detokenizer


class TextTokenizer:
    """One model's tokenizer.

    It holds the tokenizer twice: with its control tokens for what the platform writes, and
    stripped of them for what people wrote. Pieces are encoded one by one, so a tokenizer that
    treats the beginning of a text in its own way does so at every piece.
    """

    def __init__(self, directory: Path) -> None:
        """Read it and compare it with the model's vocabulary.

        Raises:
            PermanentError: it is missing, broken, or another model's.
        """
        description = read_description(directory) | {"post_processor": None}
        self.config = read_json(directory / "tokenizer_config.json")
        end_token = control_token(self.config, "eos_token")
        controls = control_names(description)
        self._forbidden = controls - {unknown_name(description)} | {end_token}
        self._fixed = build(directory, description)
        self._said = build(directory, description | {"added_tokens": []})
        check_vocabulary(directory, self._fixed, controls)
        self._end_id = self._fixed.token_to_id(end_token)
        self._names = model_vocabulary(directory) or []
        byte_level = (description.get("decoder") or {}).get("type") == "ByteLevel"
        self._bytes = (
            token_bytes(self._fixed.get_vocab(with_added_tokens=True), controls)
            if byte_level
            else None
        )

    @property
    def end_ids(self) -> list[int]:
        """The ids that end an answer; empty when the model's own default holds."""
        return [] if self._end_id is None else [self._end_id]

    def check_known(self, tokens: Sequence[str], where: str) -> None:
        """Tokens that `where` asks for must be the model's: it would read others as unknown.

        Raises:
            PermanentError: one is not.
        """
        known = self._names or self._fixed.get_vocab(with_added_tokens=True)
        strange = sorted(set(tokens).difference(known))
        if strange:
            msg = f"The model does not know {', '.join(map(repr, strange))}: correct {where}."
            raise PermanentError(msg, code="tokenizer_mismatch")

    def encode_fixed(self, text: str) -> list[str]:
        """Tokens of what the platform writes: control tokens mean what they say."""
        tokens: list[str] = self._fixed.encode(text, add_special_tokens=False).tokens
        return tokens

    def encode_said(self, text: str) -> list[str]:
        """Tokens of what people or models wrote: nothing in it becomes a control token."""
        tokens: list[str] = self._said.encode(text, add_special_tokens=False).tokens
        if self._forbidden.isdisjoint(tokens):
            return tokens
        # A vocabulary can hold a control token's name as an ordinary piece (Unigram's "</s>").
        return [token for token in tokens if token not in self._forbidden]

    def encode_answer(self, text: str) -> list[str]:
        """The tokens of an answer's beginning, to go on after it.

        SentencePiece's schemes take a text's first space for the one that they put before every
        text, and lose it when decoding; such a text is given one more.
        """
        tokens = self.encode_said(text)
        if self._decode(tokens) == text:
            return tokens
        spaced = self.encode_said(f" {text}")
        return spaced if self._decode(spaced) == text else tokens

    def _decode(self, tokens: Sequence[str]) -> str:
        return str(self._fixed.decode(self._numbers(tokens)))

    def token_names(self, tokens: Sequence[int]) -> list[str]:
        """Token ids as the model's vocabulary names them, ids beyond the tokenizer's own too."""
        names, size = self._names, len(self._names)
        return [names[t] if t < size else self._fixed.id_to_token(t) or "" for t in tokens]

    def detokenizer(self, begun: Sequence[str] = ()) -> Detokenizer:
        """A fresh one for an answer that goes on after the tokens `begun`."""
        detokenizer: Detokenizer = (
            WindowDetokenizer(self._fixed)
            if self._bytes is None
            else ByteLevelDetokenizer(self._bytes)
        )
        detokenizer.feed(self._numbers(begun))
        return detokenizer

    def _numbers(self, names: Sequence[str]) -> list[int]:
        """Ids of tokens; those beyond the tokenizer's own are silent."""
        numbers = (self._fixed.token_to_id(name) for name in names)
        return [number for number in numbers if number is not None]
