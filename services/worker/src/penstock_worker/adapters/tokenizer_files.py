"""The files beside a model that say how it reads: `tokenizer.json` and its configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer

from penstock_shared.contracts.errors import PermanentError

_VOCABULARIES: Final = ("vocabulary", "shared_vocabulary", "source_vocabulary")
"""The names that CTranslate2's exports give to what a prompt may hold."""
_SAMPLE: Final = 5
"""How many unknown tokens an error names."""


def read_description(directory: Path) -> dict[str, Any]:
    """`tokenizer.json` without what cuts, pads or adds: that is decided here.

    Raises:
        PermanentError: it is missing or no JSON.
    """
    return read_json(directory / "tokenizer.json") | {"truncation": None, "padding": None}


def control_names(description: dict[str, Any]) -> frozenset[str]:
    """The tokens that mean something to the model and that no text may become."""
    return frozenset(
        str(token["content"]) for token in description.get("added_tokens", ()) if token["special"]
    )


def unknown_name(description: dict[str, Any]) -> str:
    """The token for what a vocabulary has no piece for, which any text may become; or ""."""
    model = description["model"] if isinstance(description.get("model"), dict) else {}
    if model.get("unk_token"):
        return str(model["unk_token"])
    number = model.get("unk_id")  # Unigram's form
    return "" if number is None else str(model["vocab"][number][0])


def build(directory: Path, description: dict[str, Any]) -> Tokenizer:
    """A tokenizer from its description.

    Raises:
        PermanentError: the description is none.
    """
    try:
        return Tokenizer.from_str(json.dumps(description))
    except Exception as error:  # `tokenizers` raises nothing more precise
        msg = f"{directory / 'tokenizer.json'} is no tokenizer: restore it from the model's export."
        raise PermanentError(msg, code="model_incomplete") from error


def check_vocabulary(directory: Path, tokenizer: Tokenizer, controls: frozenset[str]) -> None:
    """Compare a tokenizer with the vocabulary that the model was exported with.

    Both must number tokens alike: else every answer is another text. A model may know more than its
    tokenizer (vocabularies are padded to round sizes). It may know less only of control tokens
    at the end, which some checkpoints keep for other uses (Marian's padding, Gemma's images).

    Raises:
        PermanentError: they do not belong together.
    """
    known = model_vocabulary(directory)
    if known is None:
        return  # CTranslate2 itself refuses a model without one
    numbered = tokenizer.get_vocab(with_added_tokens=True)
    strange = sorted(
        token
        for token, number in numbered.items()
        if (known[number] != token if number < len(known) else token not in controls)
    )
    if strange:
        some = ", ".join(map(repr, strange[:_SAMPLE]))
        msg = (
            f"The tokenizer in {directory} does not belong to its model: of {len(numbered)} tokens "
            f"the model, which has {len(known)}, does not know {len(strange)} at their places "
            f"({some}). Copy tokenizer.json from the checkpoint that was exported."
        )
        raise PermanentError(msg, code="tokenizer_mismatch")


def model_vocabulary(directory: Path) -> list[str] | None:
    """The model's tokens by id, from its export; None if there is no such file."""
    for name in _VOCABULARIES:
        listed, lines = directory / f"{name}.json", directory / f"{name}.txt"
        if listed.is_file():
            content = parse_json(listed)
            if isinstance(content, list):
                return [str(token) for token in content]
        if lines.is_file():
            return lines.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    return None


def read_json(path: Path) -> dict[str, Any]:
    """A file that holds one JSON object.

    Raises:
        PermanentError: it is missing, or holds something else.
    """
    content = parse_json(path)
    if not isinstance(content, dict):
        msg = f"{path} is no JSON object: restore it from the model's export."
        raise PermanentError(msg, code="model_incomplete")
    return content


def parse_json(path: Path) -> Any:
    """Whatever JSON a file holds.

    Raises:
        PermanentError: it is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"{path} is missing or no JSON: restore it from the model's export."
        raise PermanentError(msg, code="model_incomplete") from error
