"""A decoder of Llama's architecture with random weights: as costly as a trained one of its size.

Written in CTranslate2's format with NumPy, as its converter writes a `LlamaForCausalLM` that
`transformers` has just initialised (weights from N(0, 0.02)), so no benchmark needs PyTorch. The
tokenizer is that of the reference models.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, Final

import numpy as np
from ctranslate2.specs import common_spec, transformer_spec

CACHE: Final = Path(__file__).parents[1] / ".cache"
TOKENIZER_OF: Final = Path(__file__).parents[2] / "models" / "penstock-small"
NAME: Final = "llama-30m"
SEED: Final = 2026
HIDDEN: Final = 512
LAYERS: Final = 9
HEADS: Final = 8
FEED_FORWARD: Final = 1408
CONTEXT_TOKENS: Final = 1024
_DEVIATION: Final = 0.02
_TOKENIZER_FILES: Final = ("tokenizer.json", "tokenizer_config.json")


class _Spec(transformer_spec.TransformerDecoderModelSpec):  # type: ignore[misc]
    def get_default_config(self) -> Any:
        config = super().get_default_config()
        config.bos_token, config.eos_token, config.unk_token = "<|bos|>", "<|end|>", ""
        config.layer_norm_epsilon = 1e-6
        return config


def directory() -> Path:
    """The model in the cache; made there unless it is there already, in about a second."""
    vocabulary: list[str] = json.loads((TOKENIZER_OF / "vocabulary.json").read_text())
    place = CACHE / f"{_fingerprint()}" / NAME
    if (place / "penstock.json").exists():
        return place
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    spec, parameters = _random_spec(vocabulary)
    spec.optimize(quantization="int8")
    spec.save(str(place))
    for name in _TOKENIZER_FILES:
        shutil.copy(TOKENIZER_OF / name, place)
    manifest = {
        "name": NAME,
        "version": "random",
        "parameters": parameters,
        "context_tokens": CONTEXT_TOKENS,
        "price_input_microusd_per_1k": 0,
        "price_output_microusd_per_1k": 0,
    }
    (place / "penstock.json").write_text(json.dumps(manifest))  # last: the directory is whole
    return place


def _fingerprint() -> str:
    """Whatever decides over the files: this source and the tokenizer's."""
    sources = [Path(__file__), *(TOKENIZER_OF / name for name in _TOKENIZER_FILES)]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]


def _random_spec(vocabulary: list[str]) -> tuple[_Spec, int]:
    rng = np.random.default_rng(SEED)
    counted = 0

    def weight(*shape: int) -> Any:
        nonlocal counted
        counted += int(np.prod(shape))
        return rng.normal(0, _DEVIATION, shape).astype(np.float32)

    def gain() -> Any:
        nonlocal counted
        counted += HIDDEN
        return np.ones(HIDDEN, np.float32)

    spec: _Spec = _Spec.from_config(
        num_layers=LAYERS,
        num_heads=HEADS,
        activation=common_spec.Activation.SWISH,
        pre_norm=True,
        ffn_glu=True,
        rms_norm=True,
        rotary_dim=0,
        rotary_interleave=False,
    )
    decoder = spec.decoder
    decoder.scale_embeddings = False
    decoder.embeddings.weight = weight(len(vocabulary), HIDDEN)
    decoder.projection.weight = decoder.embeddings.weight
    decoder.layer_norm.gamma = gain()
    for layer in decoder.layer:
        layer.self_attention.layer_norm.gamma = gain()
        layer.self_attention.linear[0].weight = weight(3 * HIDDEN, HIDDEN)
        layer.self_attention.linear[1].weight = weight(HIDDEN, HIDDEN)
        layer.ffn.layer_norm.gamma = gain()
        layer.ffn.linear_0.weight = weight(FEED_FORWARD, HIDDEN)
        layer.ffn.linear_0_noact.weight = weight(FEED_FORWARD, HIDDEN)
        layer.ffn.linear_1.weight = weight(HIDDEN, FEED_FORWARD)
    spec.register_vocabulary(vocabulary)
    spec.validate()
    return spec, counted
