"""Texts for encoders: as they are, with what the model wants around them."""

from __future__ import annotations

from pathlib import Path

from penstock_worker.adapters.tokenizer_files import (
    build,
    check_vocabulary,
    control_names,
    read_description,
    unknown_name,
)


class SequenceTokenizer:
    """One encoder's tokenizer. Nothing inside a text can become a control token."""

    def __init__(self, directory: Path) -> None:
        """Read it and compare it with the model's vocabulary.

        Raises:
            PermanentError: it is missing, broken, or another model's.
        """
        description = read_description(directory)
        controls = control_names(description)
        self._forbidden = controls - {unknown_name(description)}
        self._tokenizer = build(directory, description | {"added_tokens": []})
        check_vocabulary(directory, build(directory, description), controls)

    def encode(self, text: str) -> list[str]:
        """The tokens of a text, with the model's own around them ("[CLS]", "[SEP]")."""
        encoding = self._tokenizer.encode(text)
        # A vocabulary can hold a control token's name as an ordinary piece (Unigram's "</s>"):
        # only those stay that the model's own frame has put there.
        framed = zip(encoding.tokens, encoding.special_tokens_mask, strict=True)
        return [token for token, own in framed if own or token not in self._forbidden]
