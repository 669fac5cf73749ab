"""Randomly initialised Hugging Face checkpoints, made on the spot: `python … <directory>`.

Runs in the converter's own environment (torch, transformers), not in the workspace's: it imports
nothing of Penstock. Each architecture gets a byte-level BPE trained on a few sentences, control
tokens, and a chat template of its own.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

SEED: Final = 20261120
CONTEXT_TOKENS: Final = 128
_SENTENCES: Final = ("What do you open on Sundays?", "Two red chairs, please.", "Grüße aus Köln")
_TEMPLATE: Final = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_CONTROLS: Final = [
    "<|begin|>",
    "<|end|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|endoftext|>",  # Qwen2's tokenizer class adds it where it is missing
]
_SHAPE: Final = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT_TOKENS,
}
_DECODERS: Final[dict[str, tuple[Any, Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
}


def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE with control tokens and a chat template."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=_CONTROLS, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(_SENTENCES, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<|begin|>",
        eos_token="<|end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=_CONTROLS[2:5],
        model_max_length=CONTEXT_TOKENS,
    )
    fast.chat_template = _TEMPLATE
    return fast


def make(root: Path) -> None:
    """One directory per architecture."""
    torch.manual_seed(SEED)
    fast = tokenizer()
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 5}
    for name, (config, model) in _DECODERS.items():
        shape = config(vocab_size=len(fast), num_key_value_heads=2, **_SHAPE, **ids)
        model(shape).save_pretrained(root / name)
        fast.save_pretrained(root / name)
    # Checkpoints in use state it; the converter asks for it, and transformers 5 no longer sets it.
    positions = {"position_embedding_type": "absolute"}
    encoder = BertConfig(vocab_size=len(fast), pad_token_id=5, **_SHAPE, **positions)
    BertModel(encoder).save_pretrained(root / "bert")
    fast.save_pretrained(root / "bert")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
