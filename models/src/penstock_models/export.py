"""From trained weights to a directory that CTranslate2 and any `tokenizers` program can load."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import ctranslate2
from ctranslate2.specs import common_spec, transformer_spec

from penstock_models import tokenizer as vocabulary
from penstock_models.architecture import NORM_EPSILON, ROTARY_BASE, Decoder
from penstock_models.template import CHAT_TEMPLATE

if TYPE_CHECKING:
    from pathlib import Path

    from tokenizers import Tokenizer

CONTEXT_TOKENS = 1024


@dataclass(frozen=True)
class Identity:
    """What a model is called and what it costs (micro-USD per 1,000 tokens)."""

    name: str
    version: str
    price_input_microusd_per_1k: int
    price_output_microusd_per_1k: int


class DecoderSpec(transformer_spec.TransformerDecoderModelSpec):  # type: ignore[misc]
    """CTranslate2's decoder with the tokens of this project as its defaults."""

    def get_default_config(self) -> Any:
        """Begin, end and unknown tokens as CTranslate2 writes them into `config.json`."""
        config = super().get_default_config()
        config.bos_token = vocabulary.BEGIN
        config.eos_token = vocabulary.END
        config.unk_token = vocabulary.PAD
        config.layer_norm_epsilon = NORM_EPSILON
        return config


def to_specification(model: Decoder, tokens: list[str]) -> DecoderSpec:
    """CTranslate2's description of `model`, still in float32."""
    shape = model.shape
    spec: DecoderSpec = DecoderSpec.from_config(
        num_layers=shape.layers,
        num_heads=shape.heads,
        activation=common_spec.Activation.SWISH,
        pre_norm=True,
        ffn_glu=True,
        rms_norm=True,
        rotary_dim=0,
        rotary_interleave=False,
        rotary_base=ROTARY_BASE,
        num_heads_kv=shape.heads,
    )
    spec.decoder.scale_embeddings = False
    spec.decoder.embeddings.weight = _array(model.embedding)
    spec.decoder.projection.weight = spec.decoder.embeddings.weight
    spec.decoder.layer_norm.gamma = _array(model.final_gain)
    for described, layer in zip(spec.decoder.layer, model.layers, strict=True):
        _describe_layer(described, layer)
    spec.register_vocabulary(tokens)
    return spec


def _array(weight: Any) -> Any:
    return weight.detach().float().contiguous().numpy()


def _describe_layer(described: Any, layer: Any) -> None:
    described.self_attention.layer_norm.gamma = _array(layer.attention_gain)
    described.self_attention.linear[0].weight = _array(layer.query_key_value())
    described.self_attention.linear[1].weight = _array(layer.output)
    described.ffn.layer_norm.gamma = _array(layer.feed_forward_gain)
    described.ffn.linear_0.weight = _array(layer.gate)
    described.ffn.linear_0_noact.weight = _array(layer.up)
    described.ffn.linear_1.weight = _array(layer.down)


def export_model(model: Decoder, tokenizer: Tokenizer, identity: Identity, directory: Path) -> None:
    """Write the int8 model beside `directory` and put it in place by renaming.

    After this returns, a reader of `directory` has seen the old files or the new ones, whole.
    Files that are no part of the export (the model card) stay.
    """
    fresh = directory.with_name(directory.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    tokens = vocabulary.tokens_of(tokenizer)
    spec = to_specification(model, tokens)
    spec.validate()
    spec.optimize(quantization="int8")
    fresh.mkdir(parents=True)
    spec.save(str(fresh))
    tokenizer.save(str(fresh / "tokenizer.json"))
    _write_json(fresh / "tokenizer_config.json", tokenizer_config())
    parameters = sum(weight.numel() for weight in model.parameters())
    _write_json(fresh / "penstock.json", describe(fresh, identity, parameters))
    _put_in_place(fresh, directory)
    ctranslate2.Generator(str(directory), device="cpu", compute_type="int8")


def tokenizer_config() -> dict[str, Any]:
    """The content of `tokenizer_config.json` in Hugging Face's convention."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": vocabulary.BEGIN,
        "eos_token": vocabulary.END,
        "pad_token": vocabulary.PAD,
        "model_max_length": CONTEXT_TOKENS,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }


def describe(directory: Path, identity: Identity, parameters: int) -> dict[str, Any]:
    """The content of `penstock.json`: identity, prices, and the hash of every file beside it."""
    hashes = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.iterdir())
        if path.name not in {"penstock.json", "README.md"}
    }
    return {
        **asdict(identity),
        "parameters": parameters,
        "context_tokens": CONTEXT_TOKENS,
        "sha256": hashes,
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _put_in_place(fresh: Path, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for path in sorted(fresh.iterdir()):
        path.replace(directory / path.name)
    fresh.rmdir()
