"""Trains the tests' translator: a Marian model of half a million parameters, English to German.

    python tests/data/translator/train.py        (from the repository's root)

Needs torch and transformers beside what the worker needs; one core and some minutes. Numbers that
`tests.support.number_words` holds out are never shown. Everything is seeded.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import sys
from pathlib import Path
from typing import Any, Final

import torch
from ctranslate2.converters.transformers import MarianMTLoader
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import MarianConfig, MarianMTModel

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.support.number_words import phrase

_HERE: Final = Path(__file__).parent
_SEED: Final = 20
_STEPS: Final = 1_200
_BATCH: Final = 64
_PEAK_RATE: Final = 3e-3
_WARM_UP: Final = 150
_LONGEST: Final = 128
_PIECES: Final = 220
_CONTROL: Final = ["</s>", "<unk>"]


def learn_tokenizer(rng: random.Random) -> Tokenizer:
    """SentencePiece's scheme (BPE, "▁" for a space, byte fallback) for both languages at once."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    corpus = (text for _ in range(5_000) for text in phrase(rng, unseen=False))
    trainer = trainers.BpeTrainer(vocab_size=_PIECES, show_progress=False)
    learner.train_from_iterator(corpus, trainer)
    learnt = json.loads(learner.to_str())["model"]
    pieces = sorted(learnt["vocab"], key=learnt["vocab"].__getitem__)
    every = [*_CONTROL, *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={piece: number for number, piece in enumerate(every)},
            merges=[tuple(merge) for merge in learnt["merges"]],
            byte_fallback=True,
            unk_token="<unk>",
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(_CONTROL)
    return tokenizer


def new_model(vocabulary: int) -> MarianMTModel:
    """Marian's architecture; the padding comes last, as the converter expects."""
    config = MarianConfig(
        vocab_size=vocabulary + 1,
        pad_token_id=vocabulary,
        decoder_start_token_id=vocabulary,
        eos_token_id=0,
        forced_eos_token_id=None,
        d_model=96,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=256,
        decoder_ffn_dim=256,
        max_position_embeddings=_LONGEST,
        activation_function="relu",
        dropout=0.0,
        scale_embedding=True,
    )
    return MarianMTModel(config)


def batch_of(
    rng: random.Random, tokenizer: Tokenizer, pad: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sources and targets, each ended by "</s>" and padded."""
    pairs = [phrase(rng, unseen=False) for _ in range(_BATCH)]
    sides: list[torch.Tensor] = []
    for side in zip(*pairs, strict=True):
        rows = [torch.tensor([*tokenizer.encode(text).ids, 0]) for text in side]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
        sides.append(padded)
    return sides[0], sides[1]


def train(model: MarianMTModel, tokenizer: Tokenizer, rng: random.Random) -> None:
    """AdamW under a warm-up and a cosine; prints the loss now and then."""
    pad = model.config.pad_token_id
    optimizer = torch.optim.AdamW(model.parameters(), lr=_PEAK_RATE, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _rate)
    for step in range(_STEPS):
        source, target = batch_of(rng, tokenizer, pad)
        labels = target.masked_fill(target == pad, -100)
        loss = model(input_ids=source, attention_mask=source != pad, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():  # Marian starts its target from zeros; tied weights would drift
            model.get_input_embeddings().weight[pad] = 0
        if step % 100 == 0:
            print(f"step {step}: loss {loss.item():.4f}", flush=True)


def export(model: MarianMTModel, tokenizer: Tokenizer, directory: Path) -> None:
    """CTranslate2's format in int8, the tokenizer, and the manifest."""
    loader: Any = MarianMTLoader()
    with torch.no_grad():
        spec = loader.get_model_spec(model.eval())
    vocabulary = tokenizer.get_vocab()
    loader.set_vocabulary(spec, sorted(vocabulary, key=vocabulary.__getitem__))
    spec.config.eos_token = spec.config.decoder_start_token = "</s>"
    spec.config.unk_token = "<unk>"
    spec.validate()
    spec.optimize(quantization="int8")
    spec.save(str(directory))
    tokenizer.save(str(directory / "tokenizer.json"))
    _write_json(directory / "tokenizer_config.json", {"eos_token": "</s>", "unk_token": "<unk>"})
    exported = ("config.json", "model.bin", "shared_vocabulary.json", "tokenizer.json")
    files = [directory / name for name in (*exported, "tokenizer_config.json")]
    _write_json(
        directory / "penstock.json",
        {
            "name": "number-words-en-de",
            "version": "1.0.0",
            "kind": "translation",
            "parameters": sum(weight.numel() for weight in model.parameters()),
            "context_tokens": _LONGEST,
            "price_input_microusd_per_1k": 10,
            "price_output_microusd_per_1k": 40,
            "translation": {"source_suffix": ["</s>"]},
            "sha256": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files},
        },
    )


def _rate(step: int) -> float:
    if step < _WARM_UP:
        return (step + 1) / _WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (step - _WARM_UP) / (_STEPS - _WARM_UP)))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Learn, train, export."""
    torch.manual_seed(_SEED)
    torch.set_num_threads(1)
    rng = random.Random(_SEED)
    tokenizer = learn_tokenizer(rng)
    model = new_model(tokenizer.get_vocab_size())
    train(model, tokenizer, rng)
    export(model, tokenizer, _HERE)


if __name__ == "__main__":
    main()
