"""What the router looks at in a request: numbers, in microseconds, never content."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_router.domain.lexicon import Lexicon
from penstock_router.domain.text_build import (
    DISTINCT_SHARE,
    SCALED_BUILD_DIMS,
    build_of,
    scaled_build,
)
from penstock_router.domain.word_counts import Count
from penstock_shared.contracts.requests import Content

CONTEXT_TEXT_DIMS: Final = 12
"""How much of a text's vector is logged and learned from."""
_SHORTEST_TEXT: Final = 8
"""Tokens, what is repeated counted once; of a shorter text its build and its vector would say
which words it was made of."""
_NUMBERS: Final = 3
CONTEXT_DIMS: Final = 1 + _NUMBERS + SCALED_BUILD_DIMS + CONTEXT_TEXT_DIMS
"""1, strictness, turns and tools, how the text is built, the text's vector."""
_STEPS: Final = 127
_TEXT_GAIN: Final = 2.0
"""A vector of length 1 has small numbers: more of the eight bits are used."""
_MOST_SCHEMA_NODES: Final = 2_000
_LENGTH_BANDS: Final = ((32, "short"), (128, "medium"), (512, "long"))
_STRICTNESS_BANDS: Final = ((0.001, "free"), (0.5, "loose"))
_BOUNDS: Final = frozenset(
    (
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
        *("minLength", "maxLength", "pattern", "format", "const"),
        *("minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties"),
    )
)


# Bits of `Features.domain_flags`: what a request seems to be about, each found by a count. Plain
# integers, since the operators of IntFlag take as long as all the rest of the features.
CODE: Final = 1
MATH: Final = 2
NUMBERS: Final = 4
QUESTION: Final = 8
LIST: Final = 16
REVISION: Final = 32
FOREIGN: Final = 64
TOOLS: Final = 128

_MAIN: Final = (
    (TOOLS, "tools"),
    (CODE, "code"),
    (MATH, "math"),
    (REVISION, "revision"),
    (LIST, "list"),
)


@dataclass(frozen=True)
class Features:
    """Counts over the user's turns, or over the texts, and where the text points."""

    words: int
    sentences: int
    listed: int
    """Commas and conjunctions: how many things may be listed."""
    revisions: int
    """Words by which people correct or extend what they said."""
    turns: int
    token_count: int
    """Of the text, estimated without any model's own tokenizer."""
    json_schema_strictness: float
    """0: no schema; towards 1 with depth, required fields, enums and bounds."""
    domain_flags: int
    """The bits above, added up."""
    text: NDArray[np.float32]
    """(TEXT_DIMS,), of length 1 or 0."""
    build: NDArray[np.float32]
    """(BUILD_DIMS,): how the text is built."""
    terms: NDArray[np.uint32]
    """A hash of each word in the order of the text: for the classifier, never logged."""

    def as_numbers(self) -> dict[str, float]:
        """The form in which they are logged with the decision."""
        return {
            "words": self.words,
            "sentences": self.sentences,
            "listed": self.listed,
            "revisions": self.revisions,
            "turns": self.turns,
            "token_count": self.token_count,
            "json_schema_strictness": round(self.json_schema_strictness, 4),
            "domain_flags": self.domain_flags,
        }

    def shape(self) -> str:
        """Of the task: one of a few dozen words, by which failures are counted."""
        return self._shape

    def context(self) -> str:
        """The context vector, eight bits a number, base64: what is logged and decided on."""
        return self._packed

    def vector(self) -> NDArray[np.float64]:
        """The numbers of `context`, as whoever reads the log sees them."""
        return self._vector

    @cached_property
    def _vector(self) -> NDArray[np.float64]:
        return unpack_context(self._packed)

    @cached_property
    def _shape(self) -> str:
        strictness = _band(self.json_schema_strictness, _STRICTNESS_BANDS, "strict")
        length = _band(self.token_count, _LENGTH_BANDS, "huge")
        main = next((word for flag, word in _MAIN if flag & self.domain_flags), "plain")
        return f"{strictness}-{length}-{main}"

    @cached_property
    def _packed(self) -> str:
        # Mostly between -1 and 1.
        numbers = np.zeros(CONTEXT_DIMS, np.float32)
        numbers[: 1 + _NUMBERS] = (
            1.0,
            self.json_schema_strictness,
            min(1.0, (self.turns - 1) / 8),
            bool(self.domain_flags & TOOLS),
        )
        if self.token_count * self.build[DISTINCT_SHARE] >= _SHORTEST_TEXT:
            numbers[1 + _NUMBERS : -CONTEXT_TEXT_DIMS] = scaled_build(self.build)
            numbers[-CONTEXT_TEXT_DIMS:] = self.text[:CONTEXT_TEXT_DIMS] * _TEXT_GAIN
        # `np.clip` takes three times as long.
        steps = np.rint(np.minimum(np.maximum(numbers, -1), 1) * _STEPS).astype(np.int8)
        return base64.b64encode(steps.tobytes()).decode()


def features_of(content: Content, lexicon: Lexicon) -> Features:
    """Compute the features of a conversation, or of texts, in bounded time."""
    said = [turn.content for turn in content.messages if turn.role == "user"]
    reading = lexicon.read("\n".join((*said, *content.texts)))
    counts = reading.counts
    return Features(
        words=int(counts[Count.WORDS]),
        sentences=max(1, int(counts[Count.SENTENCES])),
        listed=int(counts[Count.LISTED]),
        revisions=int(counts[Count.REVISIONS]),
        turns=len(content.messages),
        token_count=reading.token_count,
        json_schema_strictness=_strictness(content.output_schema),
        domain_flags=_flags(counts, tools=bool(content.tools)),
        text=reading.vector,
        build=build_of(reading),
        terms=reading.terms,
    )


def unpack_context(packed: str) -> NDArray[np.float64]:
    """The numbers of a logged context, (CONTEXT_DIMS,); the first one is 1.

    Raises:
        ValueError: it was packed by another version, or not at all.
    """
    raw = base64.b64decode(packed, validate=True)
    if len(raw) != CONTEXT_DIMS:
        msg = f"a context has {CONTEXT_DIMS} numbers, this one {len(raw)}"
        raise ValueError(msg)
    return np.frombuffer(raw, np.int8).astype(np.float64) / _STEPS


def _band(value: float, bands: tuple[tuple[float, str], ...], above: str) -> str:
    return next((name for limit, name in bands if value < limit), above)


def _flags(counts: NDArray[np.float32], *, tools: bool) -> int:
    count = counts.tolist()
    words = max(1.0, count[Count.WORDS])
    flags: int = (
        CODE * (count[Count.CODE] > max(2.0, 0.05 * words))
        | MATH * (count[Count.MATH] > max(1.0, 0.02 * words))
        | NUMBERS * (count[Count.NUMBERS] > 1)
        | QUESTION * (count[Count.QUESTIONS] > 0)
        | LIST * (count[Count.LISTED] > max(2.0, 0.1 * words))
        | REVISION * (count[Count.REVISIONS] > 0)
        | FOREIGN * (count[Count.FOREIGN] > 0.2 * words)
        | TOOLS * tools
    )
    return flags


def _strictness(schema: dict[str, Any] | None) -> float:
    """How much a schema asks for: 1 - exp(-(depth/4 + required/8 + enums/4 + bounds/8)).

    References are not followed, and only so many nodes are looked at: neither a recursive nor an
    enormous schema takes long.
    """
    if schema is None:
        return 0.0
    deepest = required = enums = bounds = 0
    waiting: list[tuple[Any, int]] = [(schema, 1)]
    for _ in range(_MOST_SCHEMA_NODES):
        if not waiting:
            break
        node, depth = waiting.pop()
        room = _MOST_SCHEMA_NODES - len(waiting)
        if isinstance(node, list):
            waiting.extend((each, depth) for each in node[: max(0, room)])
        elif isinstance(node, dict):
            deepest = max(deepest, depth)
            needed = node.get("required")
            required += len(needed) if isinstance(needed, list) else 0
            enums += "enum" in node
            bounds += len(_BOUNDS.intersection(node))
            children = [each for each in node.values() if isinstance(each, dict | list)]
            waiting.extend((each, depth + 1) for each in children[: max(0, room)])
    return 1 - math.exp(-(deepest / 4 + required / 8 + enums / 4 + bounds / 8))
