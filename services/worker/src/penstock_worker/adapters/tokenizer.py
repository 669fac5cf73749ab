"""Conversations as prompts: the model's own chat template around what was said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from penstock_shared.contracts.requests import ChatMessage
from penstock_worker.adapters.chat_template import read_chat_template
from penstock_worker.adapters.text_tokenizer import TextTokenizer
from penstock_worker.ports import Detokenizer


class ChatTokenizer:
    """One chat model's tokenizer and template."""

    def __init__(self, directory: Path) -> None:
        """Read both.

        Raises:
            PermanentError: one is missing, broken, or another model's.
        """
        self._text = TextTokenizer(directory)
        self._template = read_chat_template(directory, self._text.config)

    @property
    def end_ids(self) -> list[int]:
        """The ids that end an answer; empty when the model's own default holds."""
        return self._text.end_ids

    def encode(self, messages: Sequence[ChatMessage]) -> list[str]:
        """The prompt's tokens, ready for the assistant's turn."""
        tokens: list[str] = []
        for part in self._template.skeleton(tuple(message.role for message in messages)):
            if isinstance(part, str):
                tokens += self._text.encode_fixed(part)
            else:
                tokens += self._text.encode_said(messages[part].content)
        return tokens

    def encode_answer(self, text: str) -> list[str]:
        """The tokens of an answer's beginning, to go on after it."""
        return self._text.encode_answer(text)

    def token_names(self, tokens: Sequence[int]) -> list[str]:
        """Generated tokens in the form that prompts have."""
        return self._text.token_names(tokens)

    def detokenizer(self, begun: Sequence[str] = ()) -> Detokenizer:
        """A fresh one for an answer that goes on after the tokens `begun`."""
        return self._text.detokenizer(begun)
