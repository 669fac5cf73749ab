"""A seeded mix of short and long prompts and answers: the same list for every contender.

Lengths are log-uniform, as many short ones as long ones by factor: chat traffic is skewed so. A
random model never ends by itself, so each answer is as long as its limit, and the work is known.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Final

from examples.demo.messages import MESSAGES

from penstock_shared.contracts.requests import ChatMessage
from penstock_worker.adapters.tokenizer import ChatTokenizer

SEED: Final = 31
PROMPT_TOKENS: Final = (16, 256)
OUTPUT_TOKENS: Final = (16, 256)
BLOCK: Final = 32
_SAID_AT_ONCE: Final = 24  # words of one turn; longer prompts are conversations


@dataclass(frozen=True, slots=True)
class Work:
    """One job: what is said, what the engine makes of it, and how long the answer will be."""

    messages: tuple[ChatMessage, ...]
    tokens: tuple[str, ...]
    limit: int


def mixed(
    directory: Path,
    count: int,
    *,
    seed: int = SEED,
    prompt_tokens: tuple[int, int] = PROMPT_TOKENS,
    output_tokens: tuple[int, int] = OUTPUT_TOKENS,
) -> list[Work]:
    """So many jobs for the model in `directory`, each prompt as near to its length as words go."""
    rng, tokenizer = random.Random(seed), ChatTokenizer(directory)
    said = [word for message in MESSAGES for word in message.text.split()]
    quantiles = zip(spread_out(rng, count), spread_out(rng, count), strict=True)
    works = []
    for prompt_quantile, output_quantile in quantiles:
        wanted = log_uniform(prompt_quantile, *prompt_tokens)
        begin = rng.randrange(len(said))
        words = list(islice(cycle(said), begin, begin + wanted))  # a word is at least a token
        messages, tokens = _conversation(tokenizer, words, wanted)
        limit = log_uniform(output_quantile, *output_tokens)
        works.append(Work(messages, tuple(tokens), limit))
    return works


def spread_out(rng: random.Random, count: int) -> list[float]:
    """Numbers from 0 to 1, as even in every block as in the whole (a stratified sample).

    So the first blocks of a list are as much work per job as all of it, and a contender for whom
    the whole would take too long may be given those.
    """
    numbers: list[float] = []
    while len(numbers) < count:
        block = [(place + rng.random()) / BLOCK for place in range(BLOCK)]
        rng.shuffle(block)
        numbers += block
    return numbers[:count]


def log_uniform(quantile: float, low: int, high: int) -> int:
    """The whole number at this quantile (0 to 1) of the log-uniform distribution."""
    return round(math.exp(math.log(low) + quantile * math.log(high / low)))


def tokens_of(works: Sequence[Work]) -> int:
    """How many tokens their answers have together."""
    return sum(work.limit for work in works)


def _conversation(
    tokenizer: ChatTokenizer, words: Sequence[str], wanted: int
) -> tuple[tuple[ChatMessage, ...], list[str]]:
    """As many of `words` as fit into a prompt of `wanted` tokens, but at least one."""
    fitting = bisect_right(
        range(1, len(words) + 1),
        wanted,
        key=lambda count: len(tokenizer.encode(_turns(words[:count]))),
    )
    messages = _turns(words[: max(fitting, 1)])
    return messages, tokenizer.encode(messages)


def _turns(words: Sequence[str]) -> tuple[ChatMessage, ...]:
    """User and assistant in turn; the user speaks last."""
    turns = [
        " ".join(words[start : start + _SAID_AT_ONCE])
        for start in range(0, len(words), _SAID_AT_ONCE)
    ]
    return tuple(
        ChatMessage(role="assistant" if (len(turns) - number) % 2 == 0 else "user", content=turn)
        for number, turn in enumerate(turns)
    )
