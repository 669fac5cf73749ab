"""How a text is built, as numbers: counts, counts per word, and the lengths of its lines.

On RouteLLM's outcomes these say more of who answers right than what the text is about (ADR 17).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_router.domain.lexicon import TextReading
from penstock_router.domain.word_counts import COUNTS, Count

BUILD_DIMS: Final = 2 * COUNTS + 6


def build_of(reading: TextReading) -> NDArray[np.float32]:
    """(BUILD_DIMS,): logarithms of the counts, counts per word, lines, share of distinct words."""
    counts = reading.counts
    lines = reading.line_lengths
    rest = lines[1:] or (0,)
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
    )
    return made
