"""What single words say: how many tokens, which direction of meaning, which counts they raise.

A text is read word by word, and all that is known of a word is one row of a table. A word is
looked into once, when it is first met; after that a text costs one look-up per word, one
`numpy.take` and one sum. The vectors are static: each piece of a word has one, whatever stands
around it, as in model2vec (https://github.com/MinishLab/model2vec).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from unicodedata import combining, normalize
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from penstock_router.domain.word_counts import COUNTS, counts_of

TEXT_DIMS: Final = 64
"""Numbers in a text's vector, those that tell most first."""
HEAD_CHARS: Final = 12_000
TAIL_CHARS: Final = 4_000
"""Of a longer text only its head and its tail are read; its token count is scaled up."""
KNOWN_WORDS: Final = 65_536
"""Rows of the table: when it is full it is begun anew."""
_UNKNOWN: Final = -1
"""A piece that the vocabulary has not."""
_UNKNOWN_CHARS_PER_TOKEN: Final = 3
_PREFIX: Final = 3
"""Characters of a piece by which it is known how long those are that begin alike."""

_LONGEST_WORD: Final = 64
"""Characters; a longer one counts as several, so that what is looked into is bounded."""
_MOST_LINES: Final = 64
_SIGNS: Final = ".,;:!?()[]{}\"'`*_“”„»«…"
_TERM: Final = re.compile(r"\w{1,32}|[^\w\s]")
_ONES: Final = np.ones(HEAD_CHARS + TAIL_CHARS, np.float32)


@dataclass(frozen=True, slots=True)
class TextReading:
    """What the words of one text say together."""

    token_count: int
    counts: NDArray[np.float32]
    """As `Count` numbers them."""
    vector: NDArray[np.float32]
    """Sum of the words' vectors, (TEXT_DIMS,), of length 1; zeros where no word has one."""
    terms: NDArray[np.uint32]
    """A hash of each word without the signs around it, in the order of the text."""
    distinct: int
    """Different words, as they are written."""
    line_lengths: tuple[int, ...]
    """Characters of the first lines."""


class Lexicon:
    """Reads texts; remembers words, and only so many of them."""

    def __init__(
        self,
        pieces: Mapping[str, int] | None = None,
        vectors: NDArray[np.float32] | None = None,
    ) -> None:
        """`pieces`: WordPiece's vocabulary; `vectors`: (pieces, TEXT_DIMS), weights included.

        Without them every vector is zero, and tokens are estimated by the length of words.
        """
        self._pieces = pieces or {}
        self._reach = _reach_of(self._pieces)
        nothing = np.zeros((1, TEXT_DIMS), np.float32)
        self._vectors = nothing if vectors is None else np.concatenate((vectors, nothing))
        """The last one is that of `_UNKNOWN`."""
        self._rows: dict[str, int] = {}
        self._table = np.zeros((KNOWN_WORDS, COUNTS + TEXT_DIMS), np.float32)
        self._hashes = np.zeros(KNOWN_WORDS, np.uint32)

    def read(self, text: str) -> TextReading:
        """Read a text of any length in bounded time; the same text always reads the same."""
        length = len(text)
        if length > HEAD_CHARS + TAIL_CHARS:
            text = f"{text[:HEAD_CHARS]}\n{text[-TAIL_CHARS:]}"
        words = text.split()
        rows = self._rows_of(words)
        # A product with ones is a sum, in half the time of `sum(0)`.
        total = _ONES[: len(rows)] @ self._table.take(rows, 0)
        counts, vector = total[:COUNTS], total[COUNTS:]
        norm = float(np.sqrt(vector @ vector))
        unread = max(1.0, length / (HEAD_CHARS + TAIL_CHARS))
        return TextReading(
            token_count=round(float(counts[0]) * unread),
            counts=counts,
            vector=vector / norm if norm > 0 else vector,
            terms=self._hashes.take(rows),
            # As long as none was cut, each word has a row, and no two words have the same.
            distinct=_distinct(rows) if len(rows) == len(words) else len(set(words)),
            line_lengths=tuple(map(len, text.split("\n", _MOST_LINES)[:_MOST_LINES])),
        )

    def _rows_of(self, words: list[str]) -> NDArray[np.intp]:
        known = self._rows
        try:
            return np.fromiter(map(known.__getitem__, words), np.intp, len(words))
        except KeyError:
            return self._rows_with_new(words)

    def _rows_with_new(self, words: list[str]) -> NDArray[np.intp]:
        known = self._rows
        new = set(words).difference(known)
        if max(map(len, new)) > _LONGEST_WORD:  # it is never remembered whole
            words = [part for word in words for part in _bounded(word)]
            new = set(words).difference(known)
        if len(known) + len(new) > KNOWN_WORDS:
            known.clear()
            new = set(words)
        if new:
            self._learn(list(new))
        return np.fromiter(map(known.__getitem__, words), np.intp, len(words))

    def _learn(self, words: Sequence[str]) -> None:
        """Look into new words; their counts are put down all at once, which is faster."""
        first = len(self._rows)
        counts, hashes = [], []
        for row, word in enumerate(words, first):
            terms = _TERM.findall(_plain(word))
            pieces = [piece for term in terms for piece in self._split(term)]
            counts.append(counts_of(word, terms, pieces))
            vectors = self._vectors.take(pieces or (_UNKNOWN,), 0)
            np.add.reduce(vectors, 0, out=self._table[row, COUNTS:])
            core = word.strip(_SIGNS).lower() or word
            hashes.append(crc32(core.encode("utf-8", "surrogatepass")))
        last = first + len(words)
        self._table[first:last, :COUNTS] = counts
        self._hashes[first:last] = hashes
        self._rows.update(zip(words, range(first, last), strict=True))

    def _split(self, term: str) -> list[int]:
        """WordPiece: the longest piece that fits, again and again."""
        found: list[int] = []
        start = 0
        while start < len(term):
            reach = self._reach.get(term[start : start + _PREFIX], _PREFIX - 1)
            for end in range(min(len(term), start + reach), start, -1):
                piece = term[start:end] if start == 0 else f"##{term[start:end]}"
                if piece in self._pieces:
                    found.append(self._pieces[piece])
                    start = end
                    break
            else:
                found.append(_UNKNOWN)
                start += _UNKNOWN_CHARS_PER_TOKEN
        return found


def _reach_of(pieces: Iterable[str]) -> dict[str, int]:
    """How long pieces are that begin with the same characters: what need not be tried.

    Without it whoever sends code, keys or noise has twenty look-ups made for each character.
    """
    reach: dict[str, int] = {}
    for piece in pieces:
        text = piece.removeprefix("##")
        prefix = text[:_PREFIX]
        reach[prefix] = max(reach.get(prefix, 0), len(text))
    return reach


def _distinct(rows: NDArray[np.intp]) -> int:
    """In a quarter of the time that a set of the words takes."""
    ordered = np.sort(rows)
    return min(1, len(rows)) + int(np.count_nonzero(ordered[1:] != ordered[:-1]))


def _bounded(word: str) -> list[str]:
    return [word[at : at + _LONGEST_WORD] for at in range(0, len(word), _LONGEST_WORD)]


def _plain(word: str) -> str:
    """In lower case, without accents: as the vocabulary was made."""
    lower = word.lower()
    if lower.isascii():
        return lower
    return "".join(each for each in normalize("NFD", lower) if not combining(each))
