"""The counts of a text that single words raise."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from enum import IntEnum, auto
from typing import Final


class Count(IntEnum):
    """Where each count stands in a reading."""

    TOKENS = 0
    WORDS = auto()
    SENTENCES = auto()
    LISTED = auto()
    """Commas and conjunctions."""
    REVISIONS = auto()
    """Words by which people correct or extend what they said."""
    NUMBERS = auto()
    QUESTIONS = auto()
    CODE = auto()
    MATH = auto()
    FOREIGN = auto()
    """Words in other scripts than Latin."""
    CHARACTERS = auto()
    CAPITALS = auto()
    DIGITS = auto()
    RARITY = auto()
    """Logarithm of each word's rank in the vocabulary."""
    PIECES = auto()
    """Tokens beyond one per word."""
    NEGATIONS = auto()
    CONDITIONS = auto()
    COMPARISONS = auto()
    PORTIONS = auto()
    RATES = auto()
    REFERENCES = auto()
    BLANKS = auto()
    MONEY = auto()
    FORMULAS = auto()
    MAGNITUDE = auto()
    """Digits of each number, squared: large numbers are more work than many."""


COUNTS: Final = len(Count)

_LISTING: Final = frozenset(("and", "und", "plus", ",", ";", "&"))
_REVISING: Final = frozenset(
    (
        *("not", "instead", "actually", "cancel", "forget", "scratch"),
        *("rather", "also", "another", "sorry"),
        *("nein", "doch", "lieber", "statt", "streich", "außerdem", "zusatzlich"),
    )
)
_REVISING_STEM: Final = "storni"
_CODE: Final = frozenset("{}<>=_;\\`#")
_MATH: Final = frozenset("+*/^=<>√π∑∫≤≥%$")
_MONEY: Final = frozenset("$€£")
_FORMULA: Final = frozenset("\\^")
_NEGATING: Final = frozenset(("not", "no", "never", "except", "false", "without", "nicht", "kein"))
_CONDITIONAL: Final = frozenset(("if", "when", "unless", "suppose", "assume", "wenn", "falls"))
_COMPARING: Final = frozenset(("more", "less", "fewer", "than", "most", "least", "mehr", "weniger"))
_PORTION: Final = frozenset(
    ("half", "third", "quarter", "twice", "double", "triple", "times", "percent", "halb", "doppelt")
)
_RATE: Final = frozenset(("each", "every", "per", "all", "total", "jede", "je", "pro", "alle"))
_REFERRING: Final = frozenset(("which", "following", "above", "statement", "these", "this", "both"))
_LATIN_ENDS: Final = 0x24F


def counts_of(word: str, terms: Sequence[str], pieces: Sequence[int]) -> tuple[float, ...]:
    """What one word raises, in the order of `Count`.

    `word` is all that stands between two spaces, `terms` are its parts in lower case, runs of
    letters and digits or single signs, `pieces` the tokens of these.
    """

    def among(words: Collection[str]) -> int:
        return sum(term in words for term in terms)

    plain = [term for term in terms if term[0].isalnum() or term[0] == "_"]
    corrects = among(_REVISING) + sum(term.startswith(_REVISING_STEM) for term in plain)
    return (
        len(pieces),
        len(plain),
        word[-1] in ".!?",
        among(_LISTING),
        corrects + (word.lower() == "no,"),
        sum(term[0].isdigit() for term in plain),
        word.count("?"),
        among(_CODE),
        among(_MATH),
        sum(ord(max(term)) > _LATIN_ENDS for term in plain),
        len(word),
        sum(map(str.isupper, word)),
        sum(map(str.isdigit, word)),
        sum(math.log1p(max(0, piece)) for piece in pieces),
        len(pieces) - len(terms),
        among(_NEGATING),
        among(_CONDITIONAL),
        among(_COMPARING),
        among(_PORTION),
        among(_RATE),
        among(_REFERRING),
        word.count("_"),
        among(_MONEY),
        among(_FORMULA),
        sum(len(term) ** 2 for term in plain if term[0].isdigit()),
    )
