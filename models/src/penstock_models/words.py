"""Invented words: random syllables, in two sets that cannot meet.

Which set a word belongs to is decided by its own hash, so no list of used words is needed and
anybody can check that a held-out word never stood in a training message.
"""

from __future__ import annotations

import zlib
from enum import StrEnum
from typing import TYPE_CHECKING

from penstock_models.lexicon import (
    ENGLISH_NOUNS,
    GERMAN_NOUNS,
    REAL_FIRST_NAMES,
    REAL_LAST_NAMES,
    REAL_PLACES,
)

if TYPE_CHECKING:
    from random import Random

HELD_OUT_SHARE = 8  # one word in so many is kept for judging

ONSETS = (
    *("b", "c", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "z"),
    *("br", "ch", "cl", "cr", "dr", "fl", "fr", "gl", "gr", "kl", "kn", "kr", "pf", "ph", "pl"),
    *("pr", "qu", "sch", "sh", "sk", "sl", "sm", "sn", "sp", "st", "str", "sw", "th", "tr", "tz"),
    *("b", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "x", "y", ""),
)
VOWELS = (
    *("a", "e", "i", "o", "u") * 6,
    *("y", "ai", "au", "ea", "ee", "ei", "eu", "ia", "ie", "io", "oa", "oo", "ou"),
    *("ä", "ö", "ü", "é", "å", "ø"),
)
CODAS = (
    *("",) * 40,
    *(
        "l",
        "m",
        "n",
        "r",
        "s",
        "t",
        "l",
        "m",
        "n",
        "r",
        "s",
        "t",
        "k",
        "b",
        "d",
        "g",
        "p",
        "x",
        "z",
    ),
    *("ck", "ff", "ft", "ll", "lt", "mp", "nd", "ng", "nk", "nn", "nt", "rd", "rk", "rl", "rm"),
    *("rn", "rt", "sch", "sh", "ss", "st", "th", "tt", "tz", "ß"),
)
ENDINGS = (
    *("berg", "burg", "dorf", "field", "ford", "heim", "ham", "ia", "ini", "ka", "ley", "mann"),
    *("o", "ova", "sen", "ski", "son", "stad", "stein", "ton", "us", "vik", "ville", "wald", "y"),
)


# An accident of syllables may spell a word that both sides know: that one is drawn again.
KNOWN = frozenset(
    form.lower()
    for noun in (*ENGLISH_NOUNS, *GERMAN_NOUNS)
    for form in (noun.singular, noun.plural)
) | frozenset(name.lower() for name in (*REAL_PLACES, *REAL_FIRST_NAMES, *REAL_LAST_NAMES))


class Split(StrEnum):
    """The side of the split that a message belongs to."""

    TRAIN = "train"
    HELD_OUT = "held_out"


def side_of(text: str) -> Split:
    """The side on which `text` (any case) may be used."""
    kept = zlib.crc32(text.lower().encode()) % HELD_OUT_SHARE == 0
    return Split.HELD_OUT if kept else Split.TRAIN


def invent(random: Random, split: Split) -> str:
    """A capitalised random word of one to four syllables that belongs to `split`."""
    while True:
        word = "".join(_syllables(random))
        if 3 <= len(word) <= 14 and side_of(word) is split and word not in KNOWN:  # noqa: PLR2004
            return word.capitalize()


def _syllables(random: Random) -> list[str]:
    draw = random.random
    count = 1 + (draw() < 0.93) + (draw() < 0.4)  # noqa: PLR2004 - the shares of lengths
    parts: list[str] = []
    for _ in range(count):
        parts.append(ONSETS[int(draw() * len(ONSETS))])
        parts.append(VOWELS[int(draw() * len(VOWELS))])
        parts.append(CODAS[int(draw() * len(CODAS))])
    if draw() < 0.25:  # noqa: PLR2004 - one in four ends like a word people know
        parts.append(ENDINGS[int(draw() * len(ENDINGS))])
    return parts
