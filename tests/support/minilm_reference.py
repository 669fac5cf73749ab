"""The reference that the encoder is measured against: BERT in transformers and torch.

What sentence-transformers does for all-MiniLM-L6-v2, spelt out: `BertModel`, the mean over each
text's own tokens, length 1 (the model card's own example, "Usage (HuggingFace Transformers)").
Run as a module it answers `{"model": folder, "texts": […]}` with the vectors, and with `--golden`
and the model's folder it writes `tests/data/embeddings/golden.json`. It needs neither CTranslate2
nor anything of Penstock, so it runs in an environment of its own.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

GOLDEN: Final = Path(__file__).parents[1] / "data" / "embeddings" / "golden.json"
LONGEST: Final = 256
"""What sentence-transformers cuts at (`sentence_bert_config.json`)."""
SENTENCES: Final = (
    "The weather is lovely today.",
    "It's so sunny outside!",
    "He drove to the stadium.",
    "hi",
    "",
    " \n\t ",
    "Wo bleibt meine Bestellung? Die grünen Strümpfe sollten längst in Köln sein.",
    "Ship it 🚀🎉 to São Paulo, s'il vous plaît — 東京 too",
    "What costs <5 & >3 {EUR} [net], 100%?",
    "antidisestablishmentarianism " * 3,
    "A cat sat on the mat while it rained. " * 12,
    "one two three four five six seven eight nine ten " * 25 + "one two three four",  # 256 tokens
)


class Reference:
    """The original model."""

    def __init__(self, folder: str) -> None:
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._model: Any = AutoModel.from_pretrained(folder).eval()

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text, with the model's own."""
        return [len(ids) for ids in self._tokenizer(list(texts))["input_ids"]]

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """A row of length 1 per text."""
        encoded = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=LONGEST, return_tensors="pt"
        )
        with torch.no_grad():
            states = self._model(**encoded).last_hidden_state
        mask = encoded["attention_mask"].unsqueeze(-1).float()
        pooled = (states * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        made: NDArray[np.float32] = torch.nn.functional.normalize(pooled, dim=1).numpy()
        return made


def write_golden(folder: str) -> None:
    """Write the golden vectors: base64 of float32, little endian."""
    reference = Reference(folder)
    rows = zip(SENTENCES, reference.lengths(SENTENCES), reference.embed(SENTENCES), strict=True)
    golden = [
        {
            "text": text,
            "tokens": length,
            "vector": base64.b64encode(row.astype("<f4").tobytes()).decode(),
        }
        for text, length, row in rows
    ]
    GOLDEN.write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    """Answer a question, or write the golden file."""
    if sys.argv[1:2] == ["--golden"]:
        write_golden(sys.argv[2])
        return
    asked = json.load(sys.stdin)
    print(json.dumps(Reference(asked["model"]).embed(asked["texts"]).tolist()))


if __name__ == "__main__":
    main()
