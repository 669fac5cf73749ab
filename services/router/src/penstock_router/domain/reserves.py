"""The most that each planned attempt of a request may use: what is reserved of quotas (I4).

Why it is a bound, attempt by attempt:

- A tokenizer makes at most one token of each byte of its text once it has normalised it. ASCII
  does not grow; for the rest the longest of Unicode's normal forms (NFKD) is counted, and half as
  much again for the change to lower case, in which two bytes can become three.
- A template adds control tokens to each message, and some add words of their own.
- A worker refuses a prompt that does not fit the model's context, and stops an answer at
  `max_output_tokens` and at the context's end, whichever comes first. So the context is a bound
  whatever the tokenizer and the template do, and where no `max_output_tokens` is given it is the
  only one.

Calls that the platform makes for a request are not in it: no attempt has any yet.

A template that adds more than is allowed for here, or a new version of the model with a longer
context that takes over between decision and run, can still use more. It is billed and settled as
used: the quota is then overdrawn by the difference, and nothing more is admitted.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Final

from penstock_shared.contracts.models import ModelKind, ModelRecord
from penstock_shared.contracts.quotas import MAX_AMOUNT, Reserve
from penstock_shared.contracts.requests import FIRST_ATTEMPT, Content, Sampling
from penstock_shared.contracts.usage import Price, Usage, cost_microusd

_TEMPLATE_TOKENS: Final = 256
"""Of a prompt: a template's own instructions, and what opens the answer."""
_TURN_TOKENS: Final = 16
"""Around a message or a text."""


def reserves_of(
    content: Content, sampling: Sampling, models: Sequence[ModelRecord]
) -> tuple[Reserve, ...]:
    """What attempt 1, 2, … may use at most; `models` are those that the plan names, in order."""
    texts = [*(message.content for message in content.messages), *content.texts]
    sizes = [_longest(text) + _TURN_TOKENS for text in texts]
    return tuple(
        _reserve(attempt, model, sizes, sampling)
        for attempt, model in enumerate(models, FIRST_ATTEMPT)
    )


def _reserve(attempt: int, model: ModelRecord, sizes: Sequence[int], sampling: Sampling) -> Reserve:
    price = _without_luck(model.price if attempt == FIRST_ATTEMPT else model.price.of_a_retry())
    context = model.context_tokens
    output_tokens = min(sampling.max_output_tokens or context, context)
    if model.kind is ModelKind.EMBEDDING:  # each text has the context to itself
        most = Usage(input_tokens=sum(min(size, context) for size in sizes), output_tokens=0)
    else:
        most = Usage(
            input_tokens=min(sum(sizes) + _TEMPLATE_TOKENS, context), output_tokens=output_tokens
        )
    tokens = most.input_tokens + most.output_tokens
    if model.kind is ModelKind.TEXT and tokens > context:  # prompt and answer share it
        tokens, most = context, _dearest(most, context, price)
    return Reserve(
        attempt=attempt,
        tokens=min(tokens, MAX_AMOUNT),
        microusd=min(cost_microusd(most, price), MAX_AMOUNT),
    )


def _without_luck(price: Price) -> Price:
    """Nobody knows before how much of a prompt is cached: all of it costs what is dearer."""
    cached = price.cached_input_microusd_per_1k or 0
    dearer = max(price.input_microusd_per_1k, cached)
    return price.model_copy(
        update={"input_microusd_per_1k": dearer, "cached_input_microusd_per_1k": None}
    )


def _dearest(most: Usage, context: int, price: Price) -> Usage:
    """Of all ways to fill the context the one that costs most."""
    if price.output_microusd_per_1k >= price.input_microusd_per_1k:
        return Usage(input_tokens=context - most.output_tokens, output_tokens=most.output_tokens)
    return Usage(input_tokens=most.input_tokens, output_tokens=context - most.input_tokens)


def _longest(text: str) -> int:
    """Bytes of `text` in whatever form a tokenizer's normaliser gives it."""
    if text.isascii():
        return len(text)
    return sum(count * _bytes_of(char) for char, count in Counter(text).items()) * 3 // 2


def _bytes_of(char: str) -> int:
    """Decomposed. One by one: of many accents on one letter Python sorts n in n² steps."""
    return len(unicodedata.normalize("NFKD", char).encode(errors="replace"))
