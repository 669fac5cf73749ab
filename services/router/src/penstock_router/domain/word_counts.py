"""The counts of a text that single words raise."""

from __future__ import annotations

import math
from collections.abc import Sequence
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


_RAISED_BY: Final = {
    Count.LISTED: _LISTING,
    Count.REVISIONS: _REVISING,
    Count.CODE: _CODE,
    Count.MATH: _MATH,
    Count.NEGATIONS: _NEGATING,
    Count.CONDITIONS: _CONDITIONAL,
    Count.COMPARISONS: _COMPARING,
    Count.PORTIONS: _PORTION,
    Count.RATES: _RATE,
    Count.REFERENCES: _REFERRING,
    Count.MONEY: _MONEY,
    Count.FORMULAS: _FORMULA,
}
_RAISES: Final = {
    term: tuple(int(count) for count, terms in _RAISED_BY.items() if term in terms)
    for term in frozenset().union(*_RAISED_BY.values())
}
"""The other way round: a new word is looked up once, and not in every set."""


def counts_of(word: str, terms: Sequence[str], pieces: Sequence[int]) -> list[float]:
    """What one word raises, in the order of `Count`.

    `word` is all that stands between two spaces, `terms` are its parts in lower case, runs of
    letters and digits or single signs, `pieces` the tokens of these.
    """
    counts = [0.0] * COUNTS
    for term in terms:
        for count in _RAISES.get(term, ()):
            counts[count] += 1
        first = term[0]
        if first.isalnum() or first == "_":
            counts[Count.WORDS] += 1
            counts[Count.REVISIONS] += term.startswith(_REVISING_STEM)
            counts[Count.FOREIGN] += not term.isascii() and ord(max(term)) > _LATIN_ENDS
            if first.isdigit():
                counts[Count.NUMBERS] += 1
                counts[Count.MAGNITUDE] += len(term) ** 2
    counts[Count.TOKENS] = len(pieces)
    counts[Count.SENTENCES] = word[-1] in ".!?"
    counts[Count.REVISIONS] += word.lower() == "no,"
    counts[Count.QUESTIONS] = word.count("?")
    counts[Count.CHARACTERS] = len(word)
    counts[Count.CAPITALS] = 0 if word.islower() else sum(map(str.isupper, word))
    counts[Count.DIGITS] = 0 if word.isalpha() else sum(map(str.isdigit, word))
    counts[Count.RARITY] = sum([math.log1p(max(0, piece)) for piece in pieces])
    counts[Count.PIECES] = len(pieces) - len(terms)
    counts[Count.BLANKS] = word.count("_")
    return counts
