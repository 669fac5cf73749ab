"""What single words say: how many tokens, which direction of meaning, which count they raise.

A text is read word by word, and all that is known of a word is one row of a table. A word is
looked into once, when it is first met; after that a text costs one look-up per word, one
`numpy.take` and one sum. The vectors are static: each piece of a word has one, whatever stands
around it, as in model2vec (https://github.com/MinishLab/model2vec).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

TEXT_DIMS: Final = 64
"""Numbers in a text's vector, those that tell most first."""
HEAD_CHARS: Final = 12_000
TAIL_CHARS: Final = 4_000
"""Of a longer text only its head and its tail are read; its token count is scaled up."""
_KNOWN_WORDS: Final = 32_768
"""Rows of the table: when it is full it is begun anew."""
_UNKNOWN_CHARS_PER_TOKEN: Final = 3
_LONGEST_PIECE: Final = 20

# In lower case. A word of more than 32 characters counts as several: what is looked up is bounded.
_TERM: Final = re.compile(r"no,|make that\b|\w{1,32}|[.!?]+(?=\s|$)|[^\w\s]")
_LISTING: Final = frozenset(("and", "und", "plus", ",", ";", "&", "no,"))
_REVISING: Final = frozenset(
    (
        *("no,", "make that", "not", "instead", "actually", "cancel", "forget", "scratch"),
        *("rather", "also", "another", "sorry"),
        *("nein", "doch", "lieber", "statt", "streich", "außerdem", "zusätzlich"),
    )
)
_LATIN_ENDS: Final = 0x24F
_CODE: Final = frozenset("{}<>=_;\\`#")
_MATH: Final = frozenset("+*/^=<>√π∑∫≤≥%$")

COUNTS: Final = (
    "tokens",
    "words",
    "sentences",
    "listed",
    "revisions",
    "numbers",
    "questions",
    "code",
    "math",
    "foreign",
    "characters",
)
"""What a word can raise, in the order of the table's first columns."""


@dataclass(frozen=True, slots=True)
class TextReading:
    """What the words of one text say together."""

    token_count: int
    counts: Mapping[str, float]
    """By the names in `COUNTS`."""
    vector: NDArray[np.float32]
    """Mean of the words' vectors, (TEXT_DIMS,), of length 1; zeros where no word has one."""
    terms: NDArray[np.uint32]
    """A hash of each word, in the order of the text."""


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
        self._vectors = np.zeros((1, TEXT_DIMS), np.float32) if vectors is None else vectors
        self._rows: dict[str, int] = {}
        self._table = np.zeros((_KNOWN_WORDS, len(COUNTS) + TEXT_DIMS), np.float32)
        self._hashes = np.zeros(_KNOWN_WORDS, np.uint32)

    def read(self, text: str) -> TextReading:
        """Read a text of any length in bounded time; the same text always reads the same."""
        length = len(text)
        if length > HEAD_CHARS + TAIL_CHARS:
            text = f"{text[:HEAD_CHARS]}\n{text[-TAIL_CHARS:]}"
        terms = _TERM.findall(text.lower())
        rows = self._rows_of(terms)
        total = self._table.take(rows, 0).sum(0)
        count = dict(zip(COUNTS, total[: len(COUNTS)].tolist(), strict=True))
        vector = total[len(COUNTS) :]
        norm = float(np.sqrt(vector @ vector))
        read_share = min(1.0, (HEAD_CHARS + TAIL_CHARS) / max(length, 1))
        return TextReading(
            token_count=round(count["tokens"] / read_share),
            counts=count,
            vector=vector / norm if norm > 0 else vector,
            terms=self._hashes.take(rows),
        )

    def _rows_of(self, terms: list[str]) -> list[int]:
        if len(self._rows) + len(terms) > _KNOWN_WORDS:
            self._rows.clear()
        known = self._rows
        rows = list(map(known.get, terms))
        if None not in rows:
            return rows  # type: ignore[return-value]  # no None among them
        return [known[term] if term in known else self._learn(term) for term in terms]

    def _learn(self, term: str) -> int:
        row = len(self._rows)
        pieces = self._split(term)
        line = self._table[row]
        line[: len(COUNTS)] = _counts_of(term, len(pieces))
        line[len(COUNTS) :] = self._vectors[[piece for piece in pieces if piece >= 0]].sum(0)
        self._hashes[row] = crc32(term.encode())
        self._rows[term] = row
        return row

    def _split(self, term: str) -> list[int]:
        """WordPiece: the longest piece that fits, again and again; -1 stands for an unknown one."""
        found: list[int] = []
        for word in term.replace(",", " , ").split():
            start = 0
            while start < len(word):
                for end in range(min(len(word), start + _LONGEST_PIECE), start, -1):
                    piece = word[start:end] if start == 0 else f"##{word[start:end]}"
                    if piece in self._pieces:
                        found.append(self._pieces[piece])
                        start = end
                        break
                else:
                    found.append(-1)
                    start += _UNKNOWN_CHARS_PER_TOKEN
        return found


def _counts_of(term: str, tokens: int) -> tuple[float, ...]:
    first = term[0]
    worded = first.isalnum() or first == "_"
    return (
        tokens,
        1 + (" " in term) if worded else 0,
        first in ".!?" and term[-1] in ".!?",
        term in _LISTING,
        term in _REVISING or term.startswith("storni"),
        first.isdigit(),
        "?" in term,
        first in _CODE,
        first in _MATH,
        worded and ord(max(term)) > _LATIN_ENDS,
        len(term),
    )
