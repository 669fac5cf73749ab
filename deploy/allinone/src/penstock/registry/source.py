"""What an operator's directory holds: a Hugging Face checkpoint, or a model converted already."""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.errors import OperatorError
from penstock_shared.contracts.models import ModelKind

WEIGHTS = "model.bin"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
_CONVERTED_FILES = (
    "config.json",
    "vocabulary.json",
    "vocabulary.txt",
    "shared_vocabulary.json",
    "shared_vocabulary.txt",
    "source_vocabulary.json",
    "target_vocabulary.json",
)
_KINDS = {
    ModelKind.TEXT: frozenset(
        {"codegen", "falcon", "gemma", "gemma2", "gemma3_text", "gpt2", "gpt_bigcode"}
        | {"gpt_neox", "gptj", "llama", "mistral", "mpt", "opt", "phi", "phi3", "qwen2", "qwen3"}
    ),
    ModelKind.EMBEDDING: frozenset({"bert", "distilbert", "roberta", "xlm-roberta"}),
    ModelKind.TRANSLATION: frozenset({"bart", "marian", "pegasus", "t5"}),
}
"""Hugging Face's `model_type`, of what the converter of CTranslate2 4.8 and our workers know."""
_SPECIFICATIONS = {
    "TransformerDecoderSpec": ModelKind.TEXT,
    "TransformerEncoderSpec": ModelKind.EMBEDDING,
    "TransformerSpec": ModelKind.TRANSLATION,
}
_CONTEXT_FIELDS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")
_ENDLESS = 10**7
"""Tokenizers without a limit write 10**30."""
# RoBERTa's positions begin after the padding token's number, so two of them hold no text.
_POSITIONS_LOST = {"roberta": 2, "xlm-roberta": 2}


@dataclass(frozen=True, slots=True)
class Source:
    """A directory that can become a version."""

    directory: Path
    is_converted: bool
    context_tokens: int | None
    """None where its files do not say."""

    def files(self) -> list[Path]:
        """List what is copied as it is."""
        names = (WEIGHTS, *_CONVERTED_FILES) if self.is_converted else ()
        wanted = (self.directory / name for name in (*names, *TOKENIZER_FILES))
        return [path for path in wanted if path.is_file()]


def inspect(directory: Path) -> Source:
    """Find out what lies there.

    Raises:
        OperatorError: It is nothing that can be served; the message says why.
    """
    if not directory.is_dir():
        raise OperatorError(
            f"{directory} is not a directory.",
            "Name the directory of a Hugging Face checkpoint or of a converted model.",
        )
    is_converted = (directory / WEIGHTS).is_file()
    config = read_json(directory / "config.json")
    _require_tokenizer(directory)
    if not is_converted:
        _require_checkpoint(directory, config)
    return Source(directory, is_converted, _context_tokens(directory, config))


def kind_of_weights(weights: Path) -> ModelKind:
    """Read the kind from the first bytes of CTranslate2's `model.bin`.

    Source: `ModelSpec._serialize` in CTranslate2's `specs/model_spec.py`: version, then the name
    of the specification, ended by NUL.

    Raises:
        OperatorError: The file is not CTranslate2's, or of a kind that is not served.
    """
    with weights.open("rb") as file:
        head = file.read(6)
        length = struct.unpack("<IH", head)[1] if len(head) == 6 else 0  # noqa: PLR2004  as read
        name = file.read(min(length, 64)).rstrip(b"\0").decode(errors="replace")
    if name not in _SPECIFICATIONS:
        raise OperatorError(
            f"{weights.name} holds {name or 'nothing'!r}, which Penstock does not serve.",
            f"Convert one of: {', '.join(_SPECIFICATIONS)}.",
        )
    return _SPECIFICATIONS[name]


def read_json(path: Path) -> Mapping[str, Any]:
    """Read a JSON object.

    Raises:
        OperatorError: It is missing, or something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict):
        raise OperatorError(
            f"{path} is missing or no JSON object.",
            "Name the directory of a Hugging Face checkpoint or of a converted model.",
        )
    return content


def _require_tokenizer(directory: Path) -> None:
    if not (directory / "tokenizer.json").is_file():
        raise OperatorError(
            f"{directory} has no tokenizer.json.",
            "Save the checkpoint's fast tokenizer there: AutoTokenizer.from_pretrained(…)"
            ".save_pretrained(…).",
        )


def _require_checkpoint(directory: Path, config: Mapping[str, Any]) -> None:
    model_type = str(config.get("model_type", ""))
    known = frozenset[str]().union(*_KINDS.values())
    if model_type not in known:
        raise OperatorError(
            f"The architecture {model_type or 'of this checkpoint'!r} is not known.",
            f"Known are: {', '.join(sorted(known))}.",
        )
    if not any(directory.glob("*.safetensors")) and not any(directory.glob("pytorch_model*.bin")):
        raise OperatorError(
            f"{directory} has no weights (*.safetensors).",
            "Download the checkpoint again, whole; a pointer of Git LFS is not enough.",
        )


def _context_tokens(directory: Path, config: Mapping[str, Any]) -> int | None:
    limits = [config[name] for name in _CONTEXT_FIELDS if isinstance(config.get(name), int)]
    lost = _POSITIONS_LOST.get(str(config.get("model_type")), 0)
    limits = [limit - lost for limit in limits]
    tokenizer = directory / "tokenizer_config.json"
    if tokenizer.is_file():
        stated = read_json(tokenizer).get("model_max_length")
        if isinstance(stated, int) and stated < _ENDLESS:
            limits.append(stated)
    return min((limit for limit in limits if limit > 0), default=None)
