"""The tokenizer: byte-level BPE in which a copied word has the same tokens wherever it stands.

Frequent words carry the space before them; everything else keeps its spaces apart, so that a name
has the same tokens after a space (in the message) and after a quote (in the answer). Digits are
split. The fixed parts of an answer (`","quantity":`) are single tokens, which keeps answers short.
"""

# ruff: noqa: SIM905 - word lists are read more easily as running text

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PAD, BEGIN, USER, ASSISTANT = "<|pad|>", "<|bos|>", "<|user|>", "<|assistant|>"
TOOL, TOOLS, CALL, END = "<|tool|>", "<|tools|>", "<|call|>", "<|end|>"
SPECIALS = (PAD, BEGIN, USER, ASSISTANT, TOOL, TOOLS, CALL, END)

SCAFFOLD = (
    '{"intent":"faq","topic":"',
    '{"intent":"order","items":[{"item":"',
    '{"intent":"order","status":"shipped","shipment":"',
    '{"intent":"order","status":"failed","step":"',
    '{"intent":"lead","name":"',
    '{"intent":"other"}',
    '{"intent":"multi","parts":[',
    "reserve_stock",
    "charge_payment",
    "create_shipment",
    '{"name":"reserve_stock","arguments":',
    '{"name":"charge_payment","arguments":',
    '{"name":"create_shipment","arguments":',
    '{"items":[{"item":"',
    '{"reservation":"',
    '","amount_cents":',
    '","payment":"',
    '","place":"',
    ',"currency":"',
    '","error":"',
    ',"total_cents":',
    '","total_cents":',
    '","quantity":',
    '","color":"',
    ',"color":"',
    ',"size":"',
    '"},{"item":"',
    '},{"item":"',
    '"}],"place":"',
    '}],"place":"',
    '","company":"',
    '","seats":',
)


# German writes a number as one word: its parts are pieces where the whole word is made of them.
GERMAN_NUMBER_PARTS = (
    "siebzehn sechzehn dreizehn vierzehn fünfzehn achtzehn neunzehn zwanzig dreißig vierzig "
    "fünfzig sechzig siebzig achtzig neunzig hundert sieben sechs zwölf zwei drei vier fünf acht "
    "neun zehn eins ein elf und"
).split()


def split_pattern(frequent: Sequence[str]) -> str:
    """The regular expression of the pieces within which tokens may form."""
    scaffold = "|".join(re.escape(part) for part in sorted(SCAFFOLD, key=len, reverse=True))
    words = "|".join(re.escape(word) for word in sorted(frequent, key=len, reverse=True))
    part = "|".join(GERMAN_NUMBER_PARTS)
    number = rf" ?(?:{part})(?=(?:{part})*(?!\p{{L}}))"
    return rf"{scaffold}|{number}| ?(?:{words})(?!\p{{L}})|\p{{N}}|\p{{L}}+|\s|[^\s\p{{L}}\p{{N}}]"


def train_tokenizer(corpus: Iterable[str], frequent: Sequence[str], size: int) -> Tokenizer:
    """Learn a vocabulary of `size` tokens from `corpus`; any UTF-8 text stays encodable."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split_pattern(frequent)), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[AddedToken(name, special=True, normalized=False) for name in SPECIALS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def id_of(tokenizer: Tokenizer, token: str) -> int:
    """The id of `token`; raises KeyError if the vocabulary lacks it."""
    found = tokenizer.token_to_id(token)
    if found is None:
        raise KeyError(token)
    return int(found)


def tokens_of(tokenizer: Tokenizer) -> list[str]:
    """All tokens, in the order of their ids."""
    by_id = {index: token for token, index in tokenizer.get_vocab().items()}
    return [by_id[index] for index in range(len(by_id))]
