"""How a text is built, as numbers: counts, counts per word, and the lengths of its lines.

On RouteLLM's outcomes these say more of who answers right than what the text is about (ADR 17).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_router.domain.lexicon import TextReading
from penstock_router.domain.word_counts import COUNTS, Count

_LINES: Final = 7
BUILD_DIMS: Final = 2 * COUNTS + _LINES
DISTINCT_SHARE: Final = 2 * COUNTS
"""Where the share of distinct words stands in a build."""
SCALED_BUILD_DIMS: Final = COUNTS + _LINES
_SCALED: Final = np.r_[:COUNTS, 2 * COUNTS : BUILD_DIMS]
_TYPICAL_COUNTS: Final = {
    Count.TOKENS: 4.0,
    Count.WORDS: 3.6,
    Count.SENTENCES: 1.8,
    Count.LISTED: 1.0,
    Count.REVISIONS: 0.3,
    Count.NUMBERS: 0.6,
    Count.QUESTIONS: 0.4,
    Count.CHARACTERS: 5.0,
    Count.CAPITALS: 2.2,
    Count.DIGITS: 0.9,
    Count.RARITY: 6.0,
    Count.PIECES: 2.0,
}
"""Logarithms, about the means over two very different sets of prompts; the others are mostly 0."""
_TYPICAL: Final = np.array(
    (*(_TYPICAL_COUNTS.get(count, 0.0) for count in Count), 0.85, 3.0, 10.0, 3.0, 4.0, 2.0, 4.0),
    np.float32,
)
_SPREAD: Final = np.array(
    (*(3.0 for _ in Count), 0.5, 8.0, 20.0, 12.0, 20.0, 6.0, 12.0), np.float32
)


def build_of(reading: TextReading) -> NDArray[np.float32]:
    """(BUILD_DIMS,): logarithms of the counts, counts per word, lines, share of distinct words."""
    counts = reading.counts
    lines = reading.line_lengths
    rest = lines[1:-1] or (0,)  # the last one is often no more than a cue
    made = np.empty(BUILD_DIMS, np.float32)
    np.log1p(counts, out=made[:COUNTS])
    np.divide(counts, max(1.0, float(counts[Count.WORDS])), out=made[COUNTS : 2 * COUNTS])
    made[2 * COUNTS :] = (
        reading.distinct / max(1, len(reading.terms)),
        len(lines),
        lines[0] ** 0.5,
        (sum(rest) / len(rest)) ** 0.5,
        max(rest) ** 0.5,
        min(rest) ** 0.5,
        lines[-1] ** 0.5,
    )
    return made


def scaled_build(build: NDArray[np.float32]) -> NDArray[np.float32]:
    """(SCALED_BUILD_DIMS,): the part that a tenant's own answers teach with, mostly in -1 to 1.

    Counts per word are left out: the logarithms say the same, and fewer numbers are learned faster.
    """
    scaled: NDArray[np.float32] = (build.take(_SCALED) - _TYPICAL) / _SPREAD
    return scaled
